//! Nodes that keep the documents themselves, over loopback.

mod common;

use std::time::Duration;

use common::{PATIENCE, Place, collection, doc, eventually, key, level};
use entgldb::{
    DocumentChange, Event, HostChange, HostStore, NoEvent, Node, OpenError, RecordError, StoreOpenError,
};

fn open(config: entgldb::Config) -> Node {
    Node::open_with_host(config, None::<Box<dyn HostStore>>).unwrap().0
}

fn text(found: Option<bytes::Bytes>) -> Option<String> {
    found.map(|content| String::from_utf8(content.to_vec()).unwrap())
}

#[test]
fn documents_travel_with_edits_and_deletions_and_survive_a_restart() {
    let place = Place::new();
    let a = open(place.config("a.entgldb"));
    let notes = collection("notes");
    let here = a.documents().unwrap();
    here.put(&notes, &key("one"), r#"{"n":1}"#).unwrap();
    here.put(&notes, &key("two"), r#"{"n":2}"#).unwrap();
    assert_eq!(text(here.get(&notes, &key("one")).unwrap()).as_deref(), Some(r#"{"n":1}"#));

    let b = open(place.config_to("b.entgldb", &a));
    level(&a, &b);
    let there = b.documents().unwrap();
    assert_eq!(text(there.get(&notes, &key("two")).unwrap()).as_deref(), Some(r#"{"n":2}"#));
    there.put(&notes, &key("two"), r#"{"n":3}"#).unwrap();
    there.delete(&notes, &key("one")).unwrap();
    level(&a, &b);
    assert_eq!(text(here.get(&notes, &key("two")).unwrap()).as_deref(), Some(r#"{"n":3}"#));
    assert_eq!(here.get(&notes, &key("one")).unwrap(), None);
    b.close();

    let b = open(place.config_to("b.entgldb", &a));
    let there = b.documents().unwrap();
    assert_eq!(text(there.get(&notes, &key("two")).unwrap()).as_deref(), Some(r#"{"n":3}"#));
    here.put(&notes, &key("three"), "[3]").unwrap();
    level(&a, &b);
    assert_eq!(text(there.get(&notes, &key("three")).unwrap()).as_deref(), Some("[3]"));
    assert_eq!(b.status().conflicts, 0);
}

#[test]
fn a_scan_goes_by_prefix_and_key_in_the_order_of_bytes() {
    let place = Place::new();
    let node = open(place.config("a.entgldb"));
    let (documents, notes) = (node.documents().unwrap(), collection("notes"));
    for name in ["b2", "a", "b10", "é", "b", "c"] {
        documents.put(&notes, &key(name), "1").unwrap();
    }
    let keys = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let after = after.map(key);
        let found = documents.scan(&notes, prefix, after.as_ref(), limit).unwrap();
        found.into_iter().map(|(key, _)| key.to_string()).collect()
    };
    assert_eq!(keys("", None, 10), ["a", "b", "b10", "b2", "c", "é"]);
    assert_eq!(keys("b", None, 10), ["b", "b10", "b2"]);
    assert_eq!(keys("b", Some("b"), 1), ["b10"]);
    assert_eq!(keys("b", Some("b2"), 10), [""; 0]);
    assert_eq!(keys("é", None, 10), ["é"]);
}

#[test]
fn whoever_watches_a_prefix_hears_of_changes_made_here_and_elsewhere() {
    let place = Place::new();
    let a = open(place.config("a.entgldb"));
    let b = open(place.config_to("b.entgldb", &a));
    let notes = collection("notes");
    let watch = b.documents().unwrap().watch(&notes, "x");
    b.documents().unwrap().put(&notes, &key("x/own"), "1").unwrap();
    b.documents().unwrap().put(&notes, &key("y"), "1").unwrap();
    assert_eq!(watch.next(PATIENCE), Ok(DocumentChange::Put(doc("x/own"))));
    a.documents().unwrap().put(&notes, &key("x/other"), "1").unwrap();
    assert_eq!(watch.next(PATIENCE), Ok(DocumentChange::Put(doc("x/other"))));
    a.documents().unwrap().delete(&notes, &key("x/other")).unwrap();
    assert_eq!(watch.next(PATIENCE), Ok(DocumentChange::Deleted(doc("x/other"))));
    assert_eq!(watch.next(Duration::ZERO), Err(NoEvent::Timeout));
    b.close();
    assert_eq!(watch.next(PATIENCE), Err(NoEvent::Stopped));
}

#[test]
fn what_one_call_writes_is_one_unit_or_nothing() {
    let place = Place::new();
    let node = open(place.config("a.entgldb"));
    let (documents, notes) = (node.documents().unwrap(), collection("notes"));
    let put = |name: &str, content: &'static str| HostChange::Put { doc: doc(name), content: content.into() };
    let refused = documents.write(&[put("one", "1"), put("two", "no json")]).unwrap_err();
    assert!(matches!(&refused, RecordError::Document { key, .. } if key == "two"), "{refused}");
    assert_eq!(documents.get(&notes, &key("one")).unwrap(), None);
    let other = HostChange::Delete { doc: (collection("other"), key("k")) };
    let refused = documents.write(&[put("one", "1"), other]).unwrap_err();
    assert!(matches!(refused, RecordError::UnknownCollection { .. }), "{refused}");
    let many = vec![put("one", "1"); 4097];
    assert!(matches!(documents.write(&many).unwrap_err(), RecordError::TooMuch { .. }));
    assert_eq!(documents.get(&notes, &key("one")).unwrap(), None);
    let large = Box::leak(format!("\"{}\"", "x".repeat(1 << 20)).into_boxed_str());
    assert!(matches!(documents.write(&[put("one", large)]).unwrap_err(), RecordError::Document { .. }));

    let events = node.events();
    documents.write(&[put("one", "1"), put("two", "2"), put("one", "3")]).unwrap();
    let captured = std::iter::repeat_with(|| events.next(PATIENCE).unwrap()).find_map(|event| match event {
        Event::Captured { changes } => Some(changes),
        _ => None,
    });
    assert_eq!(captured, Some(2));
}

#[test]
fn a_file_of_one_kind_is_not_opened_as_another() {
    let place = Place::new();
    open(place.config("own.entgldb")).close();
    let tables = Node::open(place.config("own.entgldb")).err().unwrap();
    assert!(matches!(tables, OpenError::Store(StoreOpenError::OtherKind { .. })), "{tables}");
    let memory = common::Memory::default();
    let host = Node::open_with_host(place.config("own.entgldb"), Some(memory.host())).err().unwrap();
    assert!(matches!(host, OpenError::Store(StoreOpenError::OtherKind { .. })), "{host}");
    assert_eq!(memory.state().dropped, 1);

    let path = place.path("shop.db");
    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE notes(id INTEGER PRIMARY KEY)").unwrap();
    let documents = Node::open_with_host(place.config("shop.db"), None).err().unwrap();
    assert!(matches!(documents, OpenError::Store(StoreOpenError::OtherKind { .. })), "{documents}");
    let engine_tables: i64 = app
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%entgldb%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(engine_tables, 0, "a database of somebody else's is left alone");
}

#[test]
fn a_document_node_and_a_node_with_tables_sync_with_each_other() {
    let place = Place::new();
    let app = rusqlite::Connection::open(place.path("shop.db")).unwrap();
    app.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID;
         INSERT INTO notes VALUES('one', 'from the table')",
    )
    .unwrap();
    let a = Node::open(place.config("shop.db")).unwrap();
    let b = open(place.config_to("b.entgldb", &a));
    level(&a, &b);
    let (documents, notes) = (b.documents().unwrap(), collection("notes"));
    let found = text(documents.get(&notes, &key("one")).unwrap());
    assert_eq!(found.as_deref(), Some(r#"{"body":"from the table","id":"one"}"#));
    documents.put(&notes, &key("two"), r#"{"id":"two","body":"from the documents"}"#).unwrap();
    level(&a, &b);
    eventually("the row", || {
        let body = app.query_row("SELECT body FROM notes WHERE id = 'two'", [], |row| row.get(0));
        body == Ok("from the documents".to_owned())
    });
    let report = entgldb::verify(&place.path("b.entgldb"), &mut |_| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
}
