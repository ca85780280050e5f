//! A start that fails leaves no trace: not a byte of the database, no file beside it, no data folder.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use common::Place;
use entgldb::{Config, Node, Offline, OpenError};
use rusqlite::Connection;

const SCHEMA: &str =
    "CREATE TABLE notes(id TEXT PRIMARY KEY, text TEXT); INSERT INTO notes VALUES ('a', 'x');
     CREATE TABLE keyless(a); CREATE VIEW shown AS SELECT * FROM notes";

/// Every file below a folder, with its content; folders too.
fn everything(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry.clone());
                found.insert(entry, Vec::new());
            } else {
                let content = fs::read(&entry).unwrap();
                found.insert(entry, content);
            }
        }
    }
    found
}

/// A change that makes a start fail.
type Spoil<'a> = Box<dyn Fn(&mut Config) + 'a>;

#[test]
fn a_start_that_is_refused_leaves_everything_as_it_was() {
    for journal in ["DELETE", "WAL"] {
        let place = Place::new();
        let application = Connection::open(place.path("shop.db")).unwrap();
        application.execute_batch(&format!("PRAGMA journal_mode = {journal}; {SCHEMA}")).unwrap();
        application.close().unwrap();
        fs::write(place.path("text"), "no database, and long enough not to be taken for an empty one")
            .unwrap();
        fs::write(place.path("no-secret"), "x").unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let in_use = taken.local_addr().unwrap().to_string();
        let watch =
            |name: &'static str| -> Spoil<'_> { Box::new(move |config| config.watch.push(name.into())) };
        let spoils: Vec<(&str, Spoil<'_>)> = vec![
            ("an address in use", Box::new(|config| config.listen = Some(in_use.clone()))),
            ("an address of another machine", Box::new(|config| config.listen = Some("192.0.2.1:1".into()))),
            ("no address", Box::new(|config| config.listen = Some("nowhere".into()))),
            ("no secret", Box::new(|config| config.secret_file = place.path("none"))),
            ("a bad secret", Box::new(|config| config.secret_file = place.path("no-secret"))),
            (
                "a data folder in a file",
                Box::new(|config| config.data_dir = Some(place.path("text").join("x"))),
            ),
            ("a table without a key", watch("keyless")),
            ("a view", watch("shown")),
            ("a missing table", watch("nothing")),
            ("a resolver without a store", Box::new(|config| config.custom_hook = vec!["notes".into()])),
            ("no database", Box::new(|config| config.database = place.path("text"))),
            ("a missing database", Box::new(|config| config.database = place.path("none.db"))),
        ];
        let before = everything(&place.path(""));
        for (what, spoil) in spoils {
            let mut config = place.config("shop.db");
            config.data_dir = Some(place.path("data").join("node"));
            spoil(&mut config);
            Node::open(config).err().unwrap_or_else(|| panic!("{what} was not refused"));
            assert!(everything(&place.path("")) == before, "{what}, journal mode {journal}");
        }
        let mut config = place.config("shop.db");
        config.data_dir = Some(place.path("data").join("node"));
        Node::open(config).unwrap().close();
        assert!(place.path("data").join("node").join("identity").exists());
    }
}

#[test]
fn a_start_that_is_refused_leaves_a_data_folder_that_was_there_as_it_was() {
    let place = Place::new();
    Connection::open(place.path("shop.db")).unwrap().execute_batch(SCHEMA).unwrap();
    let data = place.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("known_peers.json"), "{}").unwrap();
    let before = everything(&place.path(""));
    let mut config = place.config("shop.db");
    (config.data_dir, config.listen) = (Some(data), Some("192.0.2.1:1".into()));
    assert!(matches!(Node::open(config), Err(OpenError::Network(_))));
    assert!(everything(&place.path("")) == before);
}

#[test]
fn work_without_a_node_that_is_refused_leaves_everything_as_it_was() {
    let place = Place::new();
    Connection::open(place.path("shop.db")).unwrap().execute_batch(SCHEMA).unwrap();
    let before = everything(&place.path(""));
    for watch in [&["keyless".to_owned()][..], &["nothing".to_owned()], &[]] {
        Offline::open(&place.path("shop.db"), &place.path("data"), watch, &[]).unwrap_err();
        assert!(everything(&place.path("")) == before, "{watch:?}");
    }
}
