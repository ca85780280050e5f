//! Target `json`: reading a document, compared with serde_json.
//!
//! Input: the document.

use std::collections::BTreeMap;

use entgldb_sqlite::fuzzing::{Member, Read, read_array, read_document};
use serde_json::Value;
use serde_json::value::RawValue;

/// What is a document is JSON for others too and means the same; what is JSON for others is refused only for a reason.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let theirs = serde_json::from_slice::<Value>(data);
    match (read_document(data), theirs) {
        (Read::Document(members), Ok(theirs)) => compare(data, &members, &theirs),
        (Read::Document(_), Err(error)) => panic!("only this reader takes it: {error}"),
        (Read::NotJson, Ok(_)) => panic!("only this reader does not take it"),
        (Read::Refused | Read::NotJson, _) => {}
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(elements) = read_array(text)
    {
        let theirs: Vec<&RawValue> = serde_json::from_str(text).expect("an array for others too");
        assert!(theirs.iter().map(|raw| raw.get()).eq(elements), "other elements");
    }
}

fn compare(data: &[u8], members: &[Member], theirs: &Value) {
    let theirs = theirs.as_object().expect("an object for others too");
    assert_eq!(theirs.len(), members.len(), "a member more or less");
    let raws: BTreeMap<String, &RawValue> = serde_json::from_slice(data).expect("as before");
    for member in members {
        let value = theirs.get(&member.name).expect("the same names");
        assert_eq!(raws[&member.name].get(), member.raw, "another extent of a value");
        assert_eq!(member.text.as_deref(), value.as_str(), "another string");
        let compact: Value = serde_json::from_str(&member.compact).expect("compact JSON is JSON");
        assert_eq!(compact, *value, "compacting changed a value");
        if let Some(number) = value.as_number()
            && !member.raw.contains(['.', 'e', 'E'])
            && member.raw != "-0"
        {
            assert_eq!(number.to_string(), member.raw, "an integer lost digits");
        }
    }
}
