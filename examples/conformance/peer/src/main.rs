//! The other side of the conformance script. Takes a folder with a cluster secret in the file `secret`; reads one step a line
//! from its input, as `steps.json` has them, and answers each with a line: `ok`, `wait` (not yet so: ask again) or
//! `error: ...`. Its first line is the address that it listens on.

use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use entgldb::{Collection, Config, Durability, Key, Node};
use serde::Deserialize;
use serde_json::Value;

/// How long a sync may take before the runner is told to ask again.
const SYNC: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Step {
    /// Writes a document.
    Record { collection: String, key: String, content: Value },
    /// Deletes one.
    Delete { collection: String, key: String },
    /// Whether a document has this content; null: whether there is none.
    Expect { collection: String, key: String, content: Value },
    /// Whether the conflict list names a document.
    ExpectConflict { key: String },
    /// Whether this node and its peers hold the same.
    Sync,
}

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("usage: entgldb-conformance-peer FOLDER")?;
    let folder = Path::new(&folder);
    let mut config = Config::new(folder.join("peer.entgldb"), folder.join("secret"));
    config.watch = vec!["notes".to_owned(), "others".to_owned()];
    config.listen = Some("127.0.0.1:0".to_owned());
    config.durability = Durability::Normal;
    config.sync_interval_ms = 100;
    let (node, _events) = Node::open_with_host(config, None)?;
    let address = node.local_address().context("it listens nowhere")?;
    let mut out = stdout();
    writeln!(out, "{address}")?;
    out.flush()?;
    for line in stdin().lock().lines() {
        let answer = match carry_out(&node, &line?) {
            Ok(true) => "ok".to_owned(),
            Ok(false) => "wait".to_owned(),
            Err(error) => format!("error: {error:#}").replace('\n', " "),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    node.close();
    Ok(())
}

fn carry_out(node: &Node, line: &str) -> Result<bool> {
    let documents = node.documents().context("it keeps its documents itself")?;
    let name = |collection: &str, key: &str| -> Result<(Collection, Key)> {
        Ok((Collection::new(collection)?, Key::new(key)?))
    };
    match serde_json::from_str(line)? {
        Step::Record { collection, key, content } => {
            let (collection, key) = name(&collection, &key)?;
            documents.put(&collection, &key, content.to_string())?;
            Ok(true)
        }
        Step::Delete { collection, key } => {
            let (collection, key) = name(&collection, &key)?;
            documents.delete(&collection, &key)?;
            Ok(true)
        }
        Step::Expect { collection, key, content } => {
            let (collection, key) = name(&collection, &key)?;
            let found = documents.get(&collection, &key)?;
            let found = found.map_or(Ok(Value::Null), |bytes| serde_json::from_slice(&bytes))?;
            Ok(found == content)
        }
        Step::ExpectConflict { key } => Ok(node.command_json(r#"{"command":"conflicts"}"#)?.contains(&key)),
        Step::Sync => match node.sync_now(SYNC) {
            Ok(()) => Ok(true),
            Err(entgldb::SyncError::NoPeer | entgldb::SyncError::Timeout { .. }) => Ok(false),
            Err(error) => bail!(error),
        },
    }
}
