//! The engine's own file: what one call records, what is taken of it at once, what is compared.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::limits;
use entgldb_replica::store::{Drain, Store, UnitLimits};
use entgldb_sqlite::own::{Intake, Keeps, Number, OwnStore, Recorded, RecordedDoc};
use entgldb_sqlite::{Durability, Holder, SqliteConfig, SqliteFailed};

fn open(path: &Path, keeps: Keeps) -> (OwnStore, Intake) {
    let holder = Holder::new("node", "node", path.parent().unwrap());
    let config = SqliteConfig {
        path: path.to_owned(),
        watch: vec!["t".into()],
        durability: Durability::Normal,
        payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
        stop: Arc::default(),
        holder: holder.clone(),
        on_busy: None,
    };
    let store = OwnStore::open(config, keeps).unwrap();
    let intake = Intake::open(path, keeps, Durability::Normal, Arc::default(), &holder).unwrap();
    (store, intake)
}

fn doc(key: &str) -> DocId {
    (Collection::new("t").unwrap(), Key::new(key).unwrap())
}

fn put(key: &str, content: &str, at: u64) -> RecordedDoc {
    (doc(key), Recorded::Put(Bytes::from(content.to_owned())), at)
}

fn few(changes: usize, bytes: usize) -> UnitLimits {
    UnitLimits { changes, bytes, gap_ms: 1000, payload_bytes: 100 }
}

fn drain(store: &mut OwnStore, limits: &UnitLimits) -> Drain {
    store.drain(limits, &mut |_, docs| Ok::<_, SqliteFailed>(vec![None; docs.len()])).unwrap()
}

fn keys(drain: &Drain) -> Vec<&str> {
    drain.changes.iter().map(|change| change.doc.1.as_str()).collect()
}

#[test]
fn what_one_call_records_is_never_cut_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, mut intake) = open(&folder.path().join("own"), Keeps::Host);
    intake.record(&[put("a", "1", 5), put("b", "1", 5)]).unwrap();
    intake.record(&[put("c", "1", 5), put("d", "1", 5), put("e", "1", 5)]).unwrap();
    intake.record(&[put("f", "1", 5)]).unwrap();
    for (limits, found) in [
        (few(100, 1000), "a b c d e f"),
        (few(1, 1000), "a b"),
        (few(2, 1000), "a b"),
        (few(3, 1000), "a b"),
        (few(5, 1000), "a b c d e"),
        (few(100, 1), "a b"),
        (few(100, 6), "a b"),
    ] {
        let found_now = drain(&mut store, &limits);
        assert_eq!(keys(&found_now).join(" "), found, "{limits:?}");
        assert_eq!(found_now.more, found.len() < 11, "{limits:?}");
    }
    intake.record(&[put("g", "1", 5000)]).unwrap();
    assert_eq!(keys(&drain(&mut store, &few(100, 1000))).join(" "), "a b c d e f", "a second later");
}

#[test]
fn a_document_that_was_recorded_twice_is_in_a_unit_once_as_it_was_last() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, mut intake) = open(&folder.path().join("own"), Keeps::Host);
    intake.record(&[put("a", "1", 5), put("b", "2", 5)]).unwrap();
    intake.record(&[(doc("b"), Recorded::Gone, 6), put("a", "3", 7)]).unwrap();
    let found = drain(&mut store, &few(100, 1000));
    assert_eq!(keys(&found), ["a", "b"]);
    assert_eq!(found.changes[0].content.as_deref(), Some(b"3".as_slice()));
    assert_eq!((found.changes[1].content.as_ref(), found.changes[1].written.0), (None, 6));
}

#[test]
fn documents_that_cannot_travel_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, mut intake) = open(&folder.path().join("own"), Keeps::Host);
    let large = format!("\"{}\"", "x".repeat(100));
    intake.record(&[put("a", "{", 5), put("b", &large, 5), put("c", "1", 5)]).unwrap();
    let found = drain(&mut store, &few(100, 1000));
    assert_eq!(keys(&found), ["c"]);
    let refused: Vec<&str> = found.refused.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(refused, ["a", "b"]);
}

#[test]
fn changes_and_numbers_are_there_again_after_the_file_was_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own");
    let (mut store, mut intake) = open(&path, Keeps::Host);
    intake.record(&[put("a", "1", 5)]).unwrap();
    store.take_notes(&[(doc("b"), 9), ((Collection::new("other").unwrap(), doc("b").1), 9)], 77).unwrap();
    store.put_number(Number::InUse, 1).unwrap();
    drop((store, intake));
    let (mut store, _) = open(&path, Keeps::Host);
    assert_eq!((store.number(Number::InUse).unwrap(), store.number(Number::OutboxAfter).unwrap()), (1, 77));
    assert_eq!(keys(&drain(&mut store, &few(100, 1000))), ["a", "b"]);
}

#[test]
fn a_comparison_finds_new_documents_and_asks_before_it_deletes_many() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(&folder.path().join("own"), Keeps::Host);
    let collection = doc("a").0;
    assert_eq!(
        store.to_compare().unwrap(),
        std::slice::from_ref(&collection),
        "a new collection is compared"
    );
    let documents = [(doc("a").1, Bytes::from("1")), (doc("b").1, Bytes::from("2"))];
    let compared = store.compare(&collection, None, &documents[..1], Some(&documents[0].0)).unwrap();
    assert_eq!((compared.changed, compared.missing), (1, 0));
    let compared = store.compare(&collection, Some(&documents[0].0), &documents[1..], None).unwrap();
    assert_eq!((compared.changed, compared.missing), (1, 0));
    store.end_compare(&collection, true).unwrap();
    assert!(store.to_compare().unwrap().is_empty());
    assert_eq!(keys(&drain(&mut store, &few(100, 1000))), ["a", "b"]);
}

#[test]
fn the_documents_kind_keeps_documents_and_notes_together() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, mut intake) = open(&folder.path().join("own"), Keeps::Documents);
    intake.record(&[put("a", "1", 5), put("b", "2", 5)]).unwrap();
    intake.record(&[(doc("b"), Recorded::Gone, 6)]).unwrap();
    assert_eq!(intake.get(&doc("a").0, &doc("a").1).unwrap().as_deref(), Some(b"1".as_slice()));
    let found = store.captured(&few(100, 1000)).unwrap();
    assert_eq!(keys(&found), ["a", "b"]);
    assert_eq!(found.changes[1].content, None);
}
