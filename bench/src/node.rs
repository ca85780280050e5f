//! The node: an application's database, the engine beside it, and the commands that the harness gives.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use entgldb::{Config, Durability, Node};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::Options;
use crate::clock::monotonic_ns;
use crate::sales::{self, Sale};
use crate::visible::Visible;

/// Membership of the benchmark's cluster. Everybody knows it, so it protects nothing.
const PUBLIC_SECRET: &str = "entgldb1-avhyildj-k7uys54o-3eov33lx-i5mhspxr-kev7oymb-oud2lz5d-qe44r3ai";

const INSERT: &str = "INSERT INTO d VALUES(?1, ?2)";
/// Documents a transaction while loading.
const LOAD_DOCUMENTS: usize = 500;
/// How long the engine may take to capture what was loaded.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(600);

/// What the harness asks for; described in `bench/harness/node.py`.
#[derive(Deserialize)]
#[serde(tag = "c", rename_all = "lowercase")]
pub(crate) enum Command {
    Load { n: usize },
    Listen,
    Connect { addr: String },
    Disconnect,
    WaitCount { n: usize },
    Write1 { n: usize, from: usize },
    Plain1 { n: usize },
    Tick { n: usize, from: usize, ms: u64 },
    Bulk { n: usize, from: usize },
    Seen,
    Edit { n: usize, tag: String },
    Digest,
    Quit,
}

pub(crate) struct BenchNode {
    options: Options,
    /// The application's own connection, which knows nothing of the engine.
    application: Connection,
    /// The engine, and the reader that it wakes.
    engine: Option<(Node, JoinHandle<Result<()>>)>,
    visible: Visible,
}

impl BenchNode {
    pub(crate) fn open(options: Options) -> Result<Self> {
        let application = open_database(&options.database(), options.durability)?;
        write_secret(&options.secret())?;
        let mut node = Self { options, application, engine: None, visible: Visible::default() };
        node.start_engine()?;
        Ok(node)
    }

    pub(crate) fn obey(&mut self, command: Command) -> Result<Value> {
        match command {
            Command::Load { n } => self.load(n),
            // The engine listens from its start; this only tells where.
            Command::Listen => {
                Ok(json!({ "addr": self.engine()?.local_address().map(|address| address.to_string()) }))
            }
            Command::Connect { addr } => {
                self.engine()?.add_peer(&addr)?;
                Ok(json!({}))
            }
            Command::Disconnect => self.restart_alone(),
            Command::WaitCount { n } => Ok(json!({ "ns": self.visible.wait_for(n) })),
            Command::Write1 { n, from } => write_one_by_one(&self.application, &self.sales(from, n)?),
            Command::Plain1 { n } => {
                let plain = open_database(&self.options.dir.join("plain.db"), self.options.durability)?;
                write_one_by_one(&plain, &self.sales(0, n)?)
            }
            Command::Tick { n, from, ms } => self.tick(&self.sales(from, n)?, Duration::from_millis(ms)),
            Command::Bulk { n, from } => self.bulk(&self.sales(from, n)?),
            Command::Seen => {
                let times = self.visible.times().into_iter().map(|(id, at)| (id, at.into()));
                Ok(json!({ "t": times.collect::<Map<String, Value>>() }))
            }
            Command::Edit { n, tag } => self.edit(n, &tag),
            Command::Digest => self.digest(),
            Command::Quit => {
                self.stop_engine()?;
                Ok(json!({}))
            }
        }
    }

    fn sales(&self, first: usize, count: usize) -> Result<Vec<Sale>> {
        sales::read_all(&self.options.documents, first, count)
    }

    fn engine(&self) -> Result<&Node> {
        self.engine.as_ref().map(|(node, _)| node).context("the engine does not run")
    }

    fn start_engine(&mut self) -> Result<()> {
        let mut config = Config::new(self.options.database(), self.options.secret());
        config.watch = vec!["d".to_owned()];
        config.listen = Some(format!("127.0.0.1:{}", self.options.port));
        config.name = Some(self.options.name.clone());
        config.durability = self.options.durability;
        let node = Node::open(config)?;
        let reader = self.visible.watch(&self.options.database(), node.events())?;
        self.engine = Some((node, reader));
        Ok(())
    }

    fn stop_engine(&mut self) -> Result<()> {
        let Some((node, reader)) = self.engine.take() else { return Ok(()) };
        node.close();
        reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
    }

    /// A peer cannot be taken back, so the engine starts anew and knows none.
    fn restart_alone(&mut self) -> Result<Value> {
        self.stop_engine()?;
        self.start_engine()?;
        Ok(json!({}))
    }

    fn load(&self, count: usize) -> Result<Value> {
        let mut sales = sales::read(&self.options.documents, 0, count)?.peekable();
        while sales.peek().is_some() {
            let transaction = self.application.unchecked_transaction()?;
            for sale in sales.by_ref().take(LOAD_DOCUMENTS) {
                let sale = sale?;
                transaction.prepare_cached(INSERT)?.execute((&sale.id, &sale.json))?;
            }
            transaction.commit()?;
        }
        self.wait_until_captured()?;
        Ok(json!({}))
    }

    /// Loading ends when the engine has the documents too: what follows is measured without that work.
    fn wait_until_captured(&self) -> Result<()> {
        let deadline = Instant::now() + CAPTURE_TIMEOUT;
        let waiting = "SELECT EXISTS(SELECT 1 FROM _entgldb_outbox)";
        while self.application.query_row(waiting, [], |row| row.get(0))? {
            if Instant::now() > deadline {
                bail!(
                    "the engine did not capture the documents in time: {:?}",
                    self.engine()?.status().last_error
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn tick(&self, sales: &[Sale], each: Duration) -> Result<Value> {
        let mut committed = Map::new();
        let begin = Instant::now();
        for (sale, number) in sales.iter().zip(0..) {
            std::thread::sleep((begin + each * number).saturating_duration_since(Instant::now()));
            self.application.prepare_cached(INSERT)?.execute((&sale.id, &sale.json))?;
            committed.insert(sale.id.clone(), monotonic_ns().into());
        }
        Ok(json!({ "t": committed }))
    }

    fn bulk(&self, sales: &[Sale]) -> Result<Value> {
        let begin = monotonic_ns();
        let transaction = self.application.unchecked_transaction()?;
        for sale in sales {
            transaction.prepare_cached(INSERT)?.execute((&sale.id, &sale.json))?;
        }
        transaction.commit()?;
        Ok(json!({ "ns0": begin, "ns": monotonic_ns() }))
    }

    fn edit(&self, count: usize, tag: &str) -> Result<Value> {
        for number in 0..count {
            self.application
                .prepare_cached("UPDATE d SET doc = json_set(doc, '$.note', ?1) WHERE id = ?2")?
                .execute((tag, format!("sale-{number:08}")))?;
        }
        Ok(json!({}))
    }

    fn digest(&self) -> Result<Value> {
        let mut hash = Sha256::new();
        let mut tags = Map::new();
        let mut statement =
            self.application.prepare_cached("SELECT id, doc, doc ->> '$.note' FROM d ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, doc, note): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            for part in [&id, &doc] {
                hash.update(u64::try_from(part.len())?.to_le_bytes());
                hash.update(part);
            }
            if note.chars().count() == 1 {
                let times = tags.get(&note).and_then(Value::as_u64).unwrap_or_default();
                tags.insert(note, (times + 1).into());
            }
        }
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(json!({ "h": hash, "tags": tags }))
    }
}

fn open_database(path: &Path, durability: Durability) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    let level = match durability {
        Durability::Full => "full",
        Durability::Normal => "normal",
    };
    connection.pragma_update(None, "synchronous", level)?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS d(id TEXT PRIMARY KEY NOT NULL, doc TEXT)")?;
    Ok(connection)
}

fn write_secret(path: &PathBuf) -> Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(PUBLIC_SECRET.as_bytes())?;
    Ok(())
}

fn write_one_by_one(connection: &Connection, sales: &[Sale]) -> Result<Value> {
    let begin = Instant::now();
    for sale in sales {
        connection.prepare_cached(INSERT)?.execute((&sale.id, &sale.json))?;
    }
    Ok(json!({ "s": begin.elapsed().as_secs_f64() }))
}
