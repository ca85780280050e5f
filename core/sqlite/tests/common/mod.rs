//! A small stand-in for the replica, and an application beside it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use entgldb_replica::clock::{Clock, Hlc, WallMillis};
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::fingerprint::{Fingerprint, Tally};
use entgldb_replica::id::{Collection, DocId, Incarnation, Key, LogId, NodeId, sha256};
use entgldb_replica::limits;
use entgldb_replica::resolve::{Document, Row, takes_over};
use entgldb_replica::store::{
    Appended, Change, Commit, Committed, Drain, FirstCopy, Guard, Problem, ReadLimits, RowWrite, ScanLimits,
    Store, UnitLimits,
};
use entgldb_replica::version::{Hash, Head, Seq};
use entgldb_sqlite::{Durability, Holder, OpenError, SqliteConfig, SqliteStore};
use rusqlite::Connection;

/// Far ahead of any time in these tests.
pub const WALL: WallMillis = WallMillis(4_000_000_000_000);

pub fn limits() -> UnitLimits {
    UnitLimits {
        changes: limits::UNIT_CHANGES_MAX,
        bytes: limits::UNIT_BYTES_MAX,
        gap_ms: limits::UNIT_GAP_MS,
        payload_bytes: limits::PAYLOAD_BYTES_DEFAULT,
    }
}

pub fn config(path: &Path, watch: &[&str]) -> SqliteConfig {
    SqliteConfig {
        path: path.to_owned(),
        watch: watch.iter().map(|name| (*name).to_owned()).collect(),
        durability: Durability::Normal,
        payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
        stop: Arc::new(AtomicBool::new(false)),
        // Opened again after a crash, a node has its folder as before.
        holder: Holder::new("node", "node", path.parent().unwrap_or(path)),
        on_busy: None,
    }
}

/// A node: an application's database, the store on it, and the least of a replica.
pub struct Node {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
    pub app: Connection,
    pub store: SqliteStore,
    pub author: AuthorKey,
    pub watch: Vec<String>,
    pub problems: Vec<Problem>,
    pub authored: usize,
    incarnation: Incarnation,
    clock: Clock,
    heads: BTreeMap<LogId, (Head, Hlc)>,
    tallies: BTreeMap<Collection, Tally>,
}

impl Node {
    /// A node whose application has created its schema with `sql` before it is watched.
    pub fn new(seed: u8, sql: &str, watch: &[&str]) -> Self {
        Self::try_new(seed, sql, watch).unwrap()
    }

    pub fn try_new(seed: u8, sql: &str, watch: &[&str]) -> Result<Self, OpenError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        app.execute_batch(sql).unwrap();
        let store = SqliteStore::open(config(&path, watch))?;
        let author = AuthorKey::from_seed(&[seed; 32]);
        let watch = watch.iter().map(|name| (*name).to_owned()).collect();
        let mut node = Self {
            folder,
            path,
            app,
            store,
            author,
            watch,
            problems: Vec::new(),
            authored: 0,
            incarnation: Incarnation(u64::from(seed)),
            clock: Clock::resume(Hlc::default(), 0),
            heads: BTreeMap::new(),
            tallies: BTreeMap::new(),
        };
        node.load();
        Ok(node)
    }

    /// Drops the store and opens it again, as after a crash.
    pub fn reopen(&mut self) {
        let watch: Vec<&str> = self.watch.iter().map(String::as_str).collect();
        self.store = SqliteStore::open(config(&self.path, &watch)).unwrap();
        self.load();
    }

    /// Ends the engine in order. It is of no use until it is opened again.
    pub fn close(&mut self) {
        let other = self.folder.path().join("closed.db");
        if !other.exists() {
            Connection::open(&other)
                .unwrap()
                .execute_batch("CREATE TABLE closed(k TEXT PRIMARY KEY)")
                .unwrap();
        }
        let none = SqliteStore::open(config(&other, &["closed"])).unwrap();
        std::mem::replace(&mut self.store, none).close().unwrap();
    }

    fn load(&mut self) {
        let durable = self.store.load().unwrap();
        self.clock = Clock::resume(durable.clock, 0);
        self.heads = durable.heads.into_iter().map(|(log, head, hlc)| (log, (head, hlc))).collect();
        self.tallies = durable.tallies.into_iter().collect();
    }

    pub fn id(&self) -> NodeId {
        self.author.node_id()
    }

    pub fn sql(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap();
    }

    /// Runs SQL and gives its rows as text, values separated by `|`.
    pub fn query(&self, sql: &str) -> Vec<String> {
        query(&self.app, sql)
    }

    /// Captures all that is in the outbox.
    pub fn capture(&mut self) {
        while self.capture_unit().is_some() {}
    }

    /// Captures one unit; `None` if there was nothing.
    pub fn capture_unit(&mut self) -> Option<Drain> {
        let drain = self.store.captured(&limits()).unwrap();
        self.problems.extend(drain.refused.iter().cloned());
        if drain.mark.is_none() && drain.first_copy.is_none() {
            // More without a mark: tables are still being looked through.
            return drain.more.then_some(drain);
        }
        let commit = self.unit_of(&drain);
        self.authored += commit.appended.iter().map(|appended| appended.entries.len()).sum::<usize>();
        match self.store.commit(&commit).unwrap() {
            Committed::Done(problems) => self.problems.extend(problems),
            Committed::OutboxMoved => panic!("nothing was guarded"),
        }
        self.remember(&commit);
        Some(drain)
    }

    pub fn unit_of(&mut self, drain: &Drain) -> Commit {
        let docs: Vec<DocId> = drain.changes.iter().map(|change| change.doc.clone()).collect();
        let before = self.store.rows(&docs).unwrap();
        let changed: Vec<(&Change, Option<Row>)> = drain
            .changes
            .iter()
            .zip(before)
            .filter(|(change, row)| {
                let now = change.content.as_ref().map(|content| Hash(sha256(content)));
                row.and_then(|row| row.content) != now
            })
            .collect();
        let written = changed.iter().map(|(change, _)| change.written).max().unwrap_or_default();
        let fits = |copy: &FirstCopy| {
            self.heads.iter().all(|(log, (_, last))| {
                let (author, incarnation) = (self.id(), self.incarnation);
                changed.iter().all(|(change, row)| {
                    let of = LogId { author, incarnation, collection: change.doc.0.clone() };
                    row.is_none() && (*log != of || *last < copy.time())
                })
            })
        };
        let hlc = match drain.first_copy.filter(fits) {
            Some(copy) => copy.time(),
            None => self.clock.stamp(written, WALL),
        };
        let mut chains: BTreeMap<Collection, (Chain, Vec<_>)> = BTreeMap::new();
        let mut rows = Vec::new();
        for (change, row) in changed {
            let log =
                LogId { author: self.id(), incarnation: self.incarnation, collection: change.doc.0.clone() };
            let (head, last) = self.heads.get(&log).copied().unwrap_or_default();
            let (chain, entries) = chains
                .entry(change.doc.0.clone())
                .or_insert_with(|| (Chain::resume(log, head, last), Vec::new()));
            let op = if change.content.is_some() { Op::Put } else { Op::Delete };
            let linked = chain
                .link(Entry {
                    seq: chain.head().seq.next(),
                    hlc,
                    replaces: row.map(|row| row.stamp),
                    op,
                    key: change.doc.1.clone(),
                    payload: change.content.clone().unwrap_or_default(),
                })
                .unwrap();
            let content = change.content.is_some().then(|| linked.payload_hash());
            let stamp = linked.entry().stamp(self.id());
            rows.push(RowWrite {
                doc: change.doc.clone(),
                row: Row { stamp, content },
                before: row,
                apply: None,
                merged: None,
            });
            entries.push(linked);
        }
        let appended = chains
            .into_values()
            .map(|(chain, entries)| {
                let signed = SignedHead::sign(&self.author, chain.log(), chain.head(), hlc);
                Appended { log: chain.log().clone(), entries, signed }
            })
            .collect();
        let commit = self.commit_of(hlc, appended, rows, Guard::None, drain.mark);
        Commit { first_copy: drain.first_copy, ..commit }
    }

    fn commit_of(
        &mut self,
        hlc: Hlc,
        appended: Vec<Appended>,
        rows: Vec<RowWrite>,
        guard: Guard,
        drained: Option<entgldb_replica::store::OutboxMark>,
    ) -> Commit {
        let mut tallies: BTreeMap<Collection, Tally> = BTreeMap::new();
        for RowWrite { doc, row, before, .. } in &rows {
            let tally = tallies
                .entry(doc.0.clone())
                .or_insert_with(|| self.tallies.get(&doc.0).copied().unwrap_or_default());
            match before {
                Some(before) => tally.fingerprint.remove(Fingerprint::of_row(
                    &doc.1,
                    &before.stamp,
                    before.content.as_ref(),
                )),
                None => tally.rows += 1,
            }
            tally.fingerprint.add(Fingerprint::of_row(&doc.1, &row.stamp, row.content.as_ref()));
        }
        Commit {
            owner: (self.id(), self.incarnation),
            guard,
            clock: self.clock.last().max(hlc),
            wall: WALL,
            authors: vec![self.author.public_key()],
            appended,
            rows,
            tallies: tallies.into_iter().collect(),
            adopted: Vec::new(),
            floors: Vec::new(),
            notes: Vec::new(),
            conflicts: Vec::new(),
            drained,
            first_copy: None,
        }
    }

    /// Goes on from a commit that a test has made itself.
    pub fn follow(&mut self, commit: &Commit) {
        self.remember(commit);
    }

    /// Work that may wait.
    pub fn tend(&mut self) {
        self.problems.extend(self.store.tend(WallMillis(0)).unwrap());
    }

    fn remember(&mut self, commit: &Commit) {
        self.clock.advance(commit.clock);
        for appended in &commit.appended {
            let last = appended.entries.last().unwrap();
            self.heads.insert(appended.log.clone(), (last.head(), last.entry().hlc));
        }
        self.tallies.extend(commit.tallies.iter().cloned());
    }

    /// Takes all that the other node has and this one has not, `page` entries of a log at a time.
    pub fn pull(&mut self, from: &mut Node, page: usize) {
        from.capture();
        let mut stopped = 0;
        loop {
            self.capture();
            let (entries, appended) = self.next_page(from, page);
            if appended.is_empty() {
                return;
            }
            let hlc = entries.iter().map(|(_, entry)| entry.hlc).max().unwrap_or_default();
            let mut newest: BTreeMap<DocId, RowWrite> = BTreeMap::new();
            for (log, entry) in entries {
                let doc = (log.collection.clone(), entry.key.clone());
                let before = self.store.rows(std::slice::from_ref(&doc)).unwrap()[0];
                let standing = newest.get(&doc).map(|write| write.row).or(before);
                let stamp = entry.stamp(log.author);
                let content = entry.content().map(|content| Hash(sha256(content)));
                if takes_over(standing.as_ref(), &stamp, content) {
                    let apply = Some(entry.content().cloned());
                    let row = Row { stamp, content };
                    newest.insert(doc.clone(), RowWrite { doc, row, before, apply, merged: None });
                }
            }
            let rows = newest.into_values().collect();
            let mut commit = self.commit_of(hlc, appended, rows, Guard::OutboxEmpty, None);
            commit.authors.extend(from.store.load().unwrap().authors);
            match self.store.commit(&commit).unwrap() {
                Committed::Done(problems) => {
                    self.problems.extend(problems);
                    self.remember(&commit);
                    stopped = 0;
                }
                Committed::OutboxMoved => stopped += 1,
            }
            assert!(stopped < 100, "a page never gets in: {:?}", commit.rows);
        }
    }

    /// Forgets all entries, as far as all of them are signed for.
    pub fn forget(&mut self) {
        let mut commit = self.commit_of(Hlc::default(), vec![], vec![], Guard::None, None);
        commit.floors = self.heads.iter().map(|(log, (head, _))| (log.clone(), head.seq)).collect();
        assert_eq!(self.store.commit(&commit).unwrap(), Committed::Done(vec![]));
        self.store.tend(WallMillis(0)).unwrap();
    }

    /// All that a scan gives of a collection, `rows` at a time, capturing what stands in its way.
    pub fn scan(&mut self, collection: &str, rows: usize) -> Vec<Document> {
        let collection = Collection::new(collection).unwrap();
        let mut found: Vec<Document> = Vec::new();
        loop {
            let limits = ScanLimits { rows, bytes: usize::MAX };
            let after = found.last().map(|document| document.key.clone());
            let scan = self.store.scan(&collection, after.as_ref(), &limits).unwrap();
            assert!(scan.documents.len() <= rows);
            found.extend(scan.documents);
            match (scan.moved, scan.more) {
                (true, _) => self.capture(),
                (false, true) => {}
                (false, false) => return found,
            }
        }
    }

    /// Takes all rows of a collection that the other node has, and then its heads, as a snapshot.
    pub fn join(&mut self, from: &mut Node, collection: &str) {
        from.capture();
        self.capture();
        let name = Collection::new(collection).unwrap();
        let mut rows = Vec::new();
        for Document { key, row, content, .. } in from.scan(collection, 7) {
            let doc = (name.clone(), key);
            let before = self.store.rows(std::slice::from_ref(&doc)).unwrap()[0];
            if takes_over(before.as_ref(), &row.stamp, row.content) {
                rows.push(RowWrite { doc, row, before, apply: Some(content), merged: None });
            }
        }
        let hlc = rows.iter().map(|write| write.row.stamp.hlc).max().unwrap_or_default();
        let mut commit = self.commit_of(hlc, vec![], rows, Guard::OutboxEmpty, None);
        for (log, (head, _)) in from.heads.iter().filter(|(log, _)| log.collection == name) {
            if self.heads.get(log).is_none_or(|(mine, _)| mine.seq < head.seq) {
                let signed = from.store.signed_until(log, head.seq).unwrap().unwrap();
                self.heads.insert(log.clone(), (signed.head, signed.hlc));
                commit.adopted.push((log.clone(), signed));
            }
        }
        commit.authors.extend(from.store.load().unwrap().authors);
        match self.store.commit(&commit).unwrap() {
            Committed::Done(problems) => self.problems.extend(problems),
            Committed::OutboxMoved => panic!("the outbox was empty"),
        }
        self.remember(&commit);
    }

    pub fn commit_with(&mut self, change: impl FnOnce(&mut Commit)) {
        let mut commit = self.commit_of(Hlc::default(), vec![], vec![], Guard::None, None);
        change(&mut commit);
        let _ = self.store.commit(&commit).unwrap();
        self.remember(&commit);
    }

    fn next_page(&mut self, from: &mut Node, page: usize) -> (Vec<(LogId, Entry)>, Vec<Appended>) {
        let logs: Vec<LogId> = from.heads.keys().cloned().collect();
        let (mut entries, mut appended) = (Vec::new(), Vec::new());
        for log in logs {
            let (mine, last) = self.heads.get(&log).copied().unwrap_or_default();
            let limits = ReadLimits { until: Hlc(u64::MAX >> 1), entries: page, bytes: usize::MAX };
            let stored = from.store.read_log(&log, mine.seq, &limits).unwrap();
            let mut chain = Chain::resume(log.clone(), mine, last);
            let linked: Vec<_> = stored
                .into_iter()
                .map(|stored| {
                    let linked = chain.link(stored.entry).unwrap();
                    assert_eq!(linked.hash(), stored.hash);
                    linked
                })
                .collect();
            let Some(end) = linked.last() else { continue };
            // A real sender ends its pages at signed heads; here the signature is taken from where there is one.
            let signed = from.store.signed_from(&log, end.head().seq).unwrap().unwrap();
            entries.extend(linked.iter().map(|linked| (log.clone(), linked.entry().clone())));
            appended.push(Appended { log, entries: linked, signed });
        }
        (entries, appended)
    }

    /// Applies one document as if another node had sent it, with that time.
    pub fn receive(
        &mut self,
        from: &mut Remote,
        collection: &str,
        key: &str,
        content: Option<&str>,
        hlc: u64,
    ) {
        self.receive_all(from, &[(collection, key, content, hlc)]);
    }

    /// Applies documents as one batch.
    pub fn receive_all(&mut self, from: &mut Remote, docs: &[(&str, &str, Option<&str>, u64)]) {
        self.capture();
        let (mut rows, mut appended) = (Vec::new(), Vec::new());
        for (collection, key, content, hlc) in docs {
            let (write, entry) = from.write(collection, key, *content, *hlc);
            let before = self.store.rows(std::slice::from_ref(&write.doc)).unwrap()[0];
            if takes_over(before.as_ref(), &write.row.stamp, write.row.content) {
                rows.push(RowWrite { before, ..write });
            }
            appended.push(entry);
        }
        let hlc = rows.iter().map(|write| write.row.stamp.hlc).max().unwrap_or_default();
        let mut commit = self.commit_of(hlc, appended, rows, Guard::OutboxEmpty, None);
        commit.authors.push(from.author.public_key());
        match self.store.commit(&commit).unwrap() {
            Committed::Done(problems) => self.problems.extend(problems),
            Committed::OutboxMoved => panic!("the outbox was empty"),
        }
        self.remember(&commit);
    }

    pub fn content(&mut self, collection: &str, key: &str) -> Option<String> {
        let doc = (Collection::new(collection).unwrap(), Key::new(key).unwrap());
        let row = self.store.rows(std::slice::from_ref(&doc)).unwrap()[0]?;
        let version = self.store.version(&doc, &row.stamp).unwrap().unwrap();
        version.content().map(|content| String::from_utf8(content.to_vec()).unwrap())
    }

    /// Notes every row of a table again, as a trigger would, and captures: anything authored is an echo.
    pub fn echo_of(&mut self, table: &str) -> usize {
        self.capture();
        let before = self.authored;
        let quoted = table.replace('"', "\"\"");
        let column: String = query(
            &self.app,
            &format!("SELECT name FROM pragma_table_info('{}') LIMIT 1", table.replace('\'', "''")),
        )
        .pop()
        .unwrap();
        let column = column.replace('"', "\"\"");
        self.sql(&format!("UPDATE \"{quoted}\" SET \"{column}\" = \"{column}\""));
        self.capture();
        self.authored - before
    }
}

/// An author that is nowhere else: its documents are handed over directly.
pub struct Remote {
    pub author: AuthorKey,
    chains: BTreeMap<Collection, Chain>,
}

impl Remote {
    pub fn new(seed: u8) -> Self {
        Self { author: AuthorKey::from_seed(&[seed; 32]), chains: BTreeMap::new() }
    }

    fn write(
        &mut self,
        collection: &str,
        key: &str,
        content: Option<&str>,
        hlc: u64,
    ) -> (RowWrite, Appended) {
        let collection = Collection::new(collection).unwrap();
        let node = self.author.node_id();
        // A log for every document, so that documents can be handed over in any order of time.
        let log = LogId {
            author: node,
            incarnation: Incarnation(
                hlc ^ u64::from_be_bytes(sha256(key.as_bytes())[..8].try_into().unwrap()),
            ),
            collection: collection.clone(),
        };
        let mut chain = Chain::resume(log.clone(), Head::default(), Hlc::default());
        let payload = Bytes::from(content.unwrap_or_default().to_owned());
        let op = if content.is_some() { Op::Put } else { Op::Delete };
        let key = Key::new(key).unwrap();
        let linked = chain
            .link(Entry {
                seq: Seq(1),
                hlc: Hlc(hlc),
                replaces: None,
                op,
                key: key.clone(),
                payload: payload.clone(),
            })
            .unwrap();
        let signed = SignedHead::sign(&self.author, &log, linked.head(), Hlc(hlc));
        let row = Row {
            stamp: linked.entry().stamp(node),
            content: content.is_some().then(|| linked.payload_hash()),
        };
        let apply = Some(content.is_some().then_some(payload));
        let write = RowWrite { doc: (collection, key), row, before: None, apply, merged: None };
        (write, Appended { log, entries: vec![linked], signed })
    }
}

/// Exchanges everything between nodes until nothing moves.
pub fn converge(nodes: &mut [Node]) {
    for _ in 0..nodes.len() {
        for to in 0..nodes.len() {
            for from in 0..nodes.len() {
                if to < from {
                    let (left, right) = nodes.split_at_mut(from);
                    left[to].pull(&mut right[0], 4096);
                } else if from < to {
                    let (left, right) = nodes.split_at_mut(to);
                    right[0].pull(&mut left[from], 4096);
                }
            }
        }
    }
}

pub fn query(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let values: Vec<String> = (0..columns)
            .map(|column| match row.get_ref(column).unwrap() {
                rusqlite::types::ValueRef::Null => "NULL".to_owned(),
                rusqlite::types::ValueRef::Integer(integer) => integer.to_string(),
                rusqlite::types::ValueRef::Real(real) => format!("{real:?}"),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                rusqlite::types::ValueRef::Blob(blob) => format!("{blob:02x?}"),
            })
            .collect();
        found.push(values.join("|"));
    }
    found
}
