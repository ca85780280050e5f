//! Joining by snapshot measured beside its control: the same rows inserted by a plain program, 500 a transaction.
//!
//! ```text
//! cargo run --release -p entgldb-bench --bin entgldb-bench-join -- 100000
//! ```
//! One node has written the rows and forgotten all history of them; another one, empty, connects. Prints one line of JSON a
//! round; `ratio` is the time from opening the joining node until it shows all rows, over the control's.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use entgldb::{ClusterSecret, Config, Durability, Node, Retention};
use rusqlite::Connection;
use serde_json::json;

const ROUNDS: usize = 3;
const ROWS_A_TRANSACTION: u32 = 500;
const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> anyhow::Result<()> {
    let rows = std::env::args().nth(1).map_or(Ok(100_000), |rows| rows.parse())?;
    for round in 0..ROUNDS {
        let folder = tempfile::tempdir()?;
        let inserted = insert(&open(&folder.path().join("plain.db"))?, rows)?;
        let joined = join(folder.path(), rows)?;
        let (insert_s, join_s) = (inserted.as_secs_f64(), joined.as_secs_f64());
        let (ratio, rows_a_second) = (join_s / insert_s, f64::from(rows) / join_s);
        let line = json!({"round": round, "rows": rows, "insert_s": insert_s, "join_s": join_s, "ratio": ratio,
                          "rows_a_second": rows_a_second});
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.execute_batch("CREATE TABLE sales(id TEXT PRIMARY KEY NOT NULL, line TEXT)")?;
    Ok(connection)
}

fn insert(connection: &Connection, rows: u32) -> rusqlite::Result<Duration> {
    let begin = Instant::now();
    for first in (0..rows).step_by(ROWS_A_TRANSACTION as usize) {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut statement = connection.prepare_cached("INSERT INTO sales VALUES(?1, ?2)")?;
        for n in first..rows.min(first + ROWS_A_TRANSACTION) {
            let mixed = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let line = json!({"till": mixed % 17, "product": format!("product-{}", mixed % 4_001), "quantity": mixed % 9,
                              "price": (mixed % 10_007) as f64 / 100.0, "note": format!("{mixed:064x}")});
            statement.execute((format!("sale-{mixed:016x}"), line.to_string()))?;
        }
        connection.execute_batch("COMMIT")?;
    }
    Ok(begin.elapsed())
}

fn config(folder: &Path, name: &str) -> Config {
    let mut config = Config::new(folder.join(format!("{name}.db")), folder.join("secret"));
    config.watch = vec!["sales".to_owned()];
    config.durability = Durability::Normal;
    config
}

fn join(folder: &Path, rows: u32) -> anyhow::Result<Duration> {
    ClusterSecret::generate().write_new_file(&folder.join("secret"))?;
    insert(&open(&folder.join("giver.db"))?, rows)?;
    let mut giving = config(folder, "giver");
    giving.listen = Some("127.0.0.1:0".to_owned());
    giving.retention_hours = Retention::LEAST;
    let giver = Node::open(giving)?;
    wait("history to be forgotten", || giver.status().forgotten >= u64::from(rows))?;
    let there = open(&folder.join("joiner.db"))?;
    let mut joining = config(folder, "joiner");
    joining.peers = vec![giver.local_address().context("it listens")?.to_string()];
    let begin = Instant::now();
    let joiner = Node::open(joining)?;
    let mut statement = there.prepare("SELECT count(*) FROM sales")?;
    wait("all rows", || statement.query_row([], |row| row.get(0)).is_ok_and(|found: u32| found == rows))?;
    let joined = begin.elapsed();
    ensure!(joiner.status().applied < u64::from(rows), "rows came as history");
    Ok(joined)
}

fn wait(what: &str, mut is_done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !is_done() {
        ensure!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}
