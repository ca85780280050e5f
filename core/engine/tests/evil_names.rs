//! Names that mean something to SQL, to a file system, to a shell or to a terminal, as keys, contents, tables and labels.
//! None of them may make a file, change a schema, or be lost on its way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use entgldb::{ClusterSecret, Config, Durability, Event, Node};
use entgldb_replica::limits::INTEREST_MAX;
use rusqlite::Connection;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// Five hundred of them: each of these in each of [`FRAMES`].
const CORES: [&str; 50] = [
    "../../../../tmp/entgldb-evil",
    "/tmp/entgldb-evil",
    "..\\..\\evil",
    "C:\\evil",
    "\\\\host\\share\\evil",
    "file:///tmp/evil",
    "file:evil.db?mode=rwc",
    ".",
    "..",
    "./evil",
    "~/evil",
    "$HOME/evil",
    "%2e%2e%2fevil",
    "CON",
    "NUL.txt",
    "aux:stream",
    "-rf",
    "--data-dir=/tmp/entgldb-evil",
    "'; DROP TABLE canary; --",
    "\"; DROP TABLE canary; --",
    "`; DROP TABLE canary; --",
    "]; DROP TABLE canary; --",
    "x'); DELETE FROM canary; --",
    "1 OR 1=1",
    "' UNION SELECT sql FROM sqlite_schema --",
    "ATTACH DATABASE '/tmp/entgldb-evil' AS e",
    "load_extension('evil')",
    "/* evil */",
    "?1",
    ":name",
    "select",
    "main.sqlite_schema",
    "main.canary",
    "temp.evil",
    "$(touch evil)",
    "`touch evil`",
    "| touch evil",
    "& touch evil &",
    "> evil",
    "*",
    "{\"a\":1}",
    "[1,2]",
    "<script>alert(1)</script>",
    "{{7*7}}${7*7}",
    "%s%n%x",
    "\u{202e}gpj.evil",
    "e\u{301}vil",
    "\u{e9}vil",
    "\u{feff}evil",
    "\u{1f4a3}\u{200d}evil",
];
const FRAMES: [(&str, &str); 10] = [
    ("", ""),
    ("'", "'"),
    ("\"", "\""),
    ("`", "`"),
    ("[", "]"),
    (" ", " "),
    ("a.", ".b"),
    ("\\", "\\"),
    ("\"\"", ";"),
    ("(", ")--"),
];

fn evil_names() -> Vec<String> {
    let framed = |core: &&str| FRAMES.map(|(before, after)| format!("{before}{core}{after}"));
    CORES.iter().flat_map(framed).collect()
}

/// A folder in a folder: what climbs out of the first by one step is seen in the second.
struct Place {
    outer: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { outer: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.path("")).unwrap();
        std::fs::write(place.path("secret"), ClusterSecret::generate().to_text().as_bytes()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(place.path("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join("inner").join(name)
    }

    fn database(&self, name: &str, tables: &[String]) -> Connection {
        let app = Connection::open(self.path(name)).unwrap();
        app.busy_timeout(Duration::from_secs(20)).unwrap();
        app.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE canary(alive); INSERT INTO canary VALUES (1); BEGIN",
        )
        .unwrap();
        for table in tables {
            let sql = format!("CREATE TABLE {}(id TEXT PRIMARY KEY, note TEXT)", quote(table));
            app.execute_batch(&sql).unwrap();
        }
        app.execute_batch("COMMIT").unwrap();
        app
    }

    fn config(&self, name: &str, watch: &[String]) -> Config {
        let mut config = Config::new(self.path(name), self.path("secret"));
        config.watch = watch.to_vec();
        config.durability = Durability::Normal;
        config.sync_interval_ms = 200;
        config
    }

    /// A pair of nodes that sync these tables.
    fn pair(&self, watch: &[String]) -> (Node, Node) {
        let mut first = self.config("a.db", watch);
        first.listen = Some("127.0.0.1:0".to_owned());
        let first = Node::open(first).unwrap();
        let mut second = self.config("b.db", watch);
        second.peers = vec![first.local_address().unwrap().to_string()];
        (first, Node::open(second).unwrap())
    }

    /// Every file there is, as a path from the outer folder.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        collect(self.outer.path(), &mut files);
        let own = |path: PathBuf| path.strip_prefix(self.outer.path()).unwrap().to_str().unwrap().to_owned();
        files.into_iter().map(own).collect()
    }

    fn assert_only_our_files(&self) {
        let known = [
            "secret",
            "a.db",
            "a.db-wal",
            "a.db-shm",
            "b.db",
            "b.db-wal",
            "b.db-shm",
            "identity",
            "known_peers.json",
            "oplog_mark.json",
            "status.json",
            "lock",
        ];
        for file in self.files() {
            let (folder, name) = file.rsplit_once('/').expect("nothing lies in the outer folder");
            assert!(["inner", "inner/a.db-entgldb", "inner/b.db-entgldb"].contains(&folder), "{file}");
            assert!(known.contains(&name), "{file}");
        }
        assert!(!Path::new("/tmp/entgldb-evil").exists());
    }
}

fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), files);
        } else {
            files.insert(entry.path());
        }
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The application's own schema.
fn schema(app: &Connection) -> BTreeSet<(String, String)> {
    let sql = "SELECT name, coalesce(sql, '') FROM sqlite_schema
               WHERE name NOT LIKE '!_entgldb!_%' ESCAPE '!' AND tbl_name NOT LIKE '!_entgldb!_%' ESCAPE '!'";
    let mut statement = app.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn assert_same_schema(app: &Connection, before: &BTreeSet<(String, String)>) {
    let now = schema(app);
    let changed: Vec<_> = now.symmetric_difference(before).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

fn assert_canary(app: &Connection) {
    let alive: i64 =
        app.query_row("SELECT count(*) FROM canary WHERE alive = 1", [], |row| row.get(0)).unwrap();
    assert_eq!(alive, 1);
}

fn rows(app: &Connection, table: &str) -> Vec<(String, String)> {
    let mut statement = app.prepare(&format!("SELECT id, note FROM {} ORDER BY id", quote(table))).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn five_hundred_evil_names_as_keys_and_contents_are_captured_and_applied_as_they_are() {
    let (place, names) = (Place::new(), evil_names());
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 500);
    let tables = ["t".to_owned()];
    let (a, b) = (place.database("a.db", &tables), place.database("b.db", &tables));
    let before = schema(&a);
    let (first, second) = place.pair(&tables);
    for name in &names {
        a.execute("INSERT INTO t VALUES (?1, ?1)", [name]).unwrap();
    }
    wait_for("all rows", || rows(&b, "t").len() == names.len());
    assert_eq!(rows(&a, "t"), rows(&b, "t"));
    b.execute("DELETE FROM t", []).unwrap();
    wait_for("all deletes", || rows(&a, "t").is_empty());
    for app in [&a, &b] {
        assert_canary(app);
        assert_same_schema(app, &before);
    }
    place.assert_only_our_files();
    drop((first, second));
    place.assert_only_our_files();
}

#[test]
fn five_hundred_evil_names_of_tables_are_synced_and_change_no_schema() {
    for names in evil_names().chunks(INTEREST_MAX - 6) {
        let place = Place::new();
        let (a, b) = (place.database("a.db", names), place.database("b.db", names));
        let before = schema(&a);
        let (first, second) = place.pair(names);
        for name in names {
            a.execute(&format!("INSERT INTO {} VALUES (?1, 'from a')", quote(name)), [name]).unwrap();
        }
        wait_for("a row in each table", || names.iter().all(|name| rows(&b, name).len() == 1));
        for app in [&a, &b] {
            assert_canary(app);
            assert_same_schema(app, &before);
            assert!(names.iter().all(|name| rows(app, name) == [(name.clone(), "from a".to_owned())]));
        }
        drop((first, second));
        place.assert_only_our_files();
    }
}

#[test]
fn evil_names_of_tables_that_are_not_there_are_refused_and_leave_the_database_as_it_was() {
    let place = Place::new();
    let app = place.database("a.db", &[]);
    let before = schema(&app);
    let mut names = evil_names();
    names.extend(
        ["", "a\0b", "a\nb", "\u{1b}[2J", &"x".repeat(129), "_entgldb_outbox", "sqlite_schema"]
            .map(str::to_owned),
    );
    for name in names {
        let refused = Node::open(place.config("a.db", std::slice::from_ref(&name)));
        assert!(refused.is_err(), "{name:?}");
    }
    assert_same_schema(&app, &before);
    assert_canary(&app);
    place.assert_only_our_files();
}

#[test]
fn evil_labels_of_nodes_are_labels_only() {
    let place = Place::new();
    let tables = ["t".to_owned()];
    let (_a, b) = (place.database("a.db", &tables), place.database("b.db", &tables));
    let mut first = place.config("a.db", &tables);
    first.listen = Some("127.0.0.1:0".to_owned());
    let first = Node::open(first).unwrap();
    let events = first.events();
    for (number, name) in CORES.into_iter().enumerate() {
        let mut config = place.config("b.db", &tables);
        config.name = Some(name.to_owned());
        config.peers = vec![first.local_address().unwrap().to_string()];
        let second = Node::open(config).unwrap();
        wait_for("the label", || {
            let event = events.next(Duration::from_secs(1));
            matches!(event, Ok(Event::PeerUp { name: shown, .. }) if shown == name)
        });
        // Only who has synced is pinned.
        wait_for("a sync", || {
            let is_it = |peer: &entgldb::PeerHealth| peer.name == name && peer.in_sync_ms.is_some();
            first.status().peers.iter().any(is_it)
        });
        drop(second);
        place.assert_only_our_files();
        assert!(number > 0 || rows(&b, "t").is_empty());
    }
    let known = std::fs::read_to_string(place.path("a.db-entgldb/known_peers.json")).unwrap();
    assert!(
        CORES
            .iter()
            .filter(|name| name.is_ascii() && !name.contains(['"', '\\']))
            .all(|name| known.contains(name))
    );
    for name in ["a\nb", "a\0b", "\u{1b}[2J", &"x".repeat(65)] {
        let mut config = place.config("b.db", &tables);
        config.name = Some(name.to_owned());
        assert!(Node::open(config).is_err(), "{name:?}");
    }
}
