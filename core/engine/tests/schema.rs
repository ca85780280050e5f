//! The JSON Schemas that are checked in are those of the types.

use std::path::PathBuf;

use entgldb::json_schemas;

/// With `ENTGLDB_WRITE_SCHEMAS=1` the files are written instead of compared.
#[test]
fn the_schemas_in_the_docs_are_those_of_the_types() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    let write = std::env::var_os("ENTGLDB_WRITE_SCHEMAS").is_some();
    for (name, schema) in json_schemas() {
        let path = folder.join(format!("{name}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if write {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "docs/schema/{name}.json is out of date: run with ENTGLDB_WRITE_SCHEMAS=1");
    }
}
