//! What the tests of the command share: a folder with databases, the program run to its end, and nodes that run until
//! they are dropped. Every wait has an end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// Runs the program to its end.
pub(crate) fn entgldb(arguments: &[&str]) -> Output {
    let mut command = program();
    command.args(arguments).stdin(Stdio::null()).output().expect("the program starts")
}

/// The program, without what the developer's shell may have set.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_entgldb"));
    command.env_remove("ENTGLDB_LOG");
    command
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Each line of the output as JSON; anything else on it fails the test.
pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("the output is text");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

/// A folder with a secret, for databases.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.keygen("secret");
        place
    }

    pub(crate) fn keygen(&self, name: &str) {
        let made = entgldb(&["keygen", &self.text(name)]);
        assert_eq!(code(&made), 0, "{}", stderr(&made));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("test folders have plain names").to_owned()
    }

    /// A database with a table of items.
    pub(crate) fn database(&self, name: &str) -> Connection {
        let database = self.open(name);
        database
            .execute_batch("CREATE TABLE items (id TEXT PRIMARY KEY, text TEXT, number INTEGER)")
            .unwrap();
        database
    }

    pub(crate) fn open(&self, name: &str) -> Connection {
        let database = Connection::open(self.path(name)).unwrap();
        database.busy_timeout(LONG).unwrap();
        database
    }

    /// `sync` of the items of a database, with more options.
    pub(crate) fn sync(&self, database: &str, more: &[&str]) -> Command {
        let mut command = program();
        command.arg("sync").arg(self.path(database)).args(["--watch", "items", "--secret-file"]);
        command.arg(self.path("secret")).args(["--durability", "normal"]).args(more);
        command
    }

    /// A node beside the items of a database, and that it runs.
    pub(crate) fn node(&self, database: &str, more: &[&str]) -> Node {
        let mut command = self.sync(database, &["--json", "--listen", "127.0.0.1:0"]);
        Node::start(command.args(more))
    }
}

/// A running `entgldb sync --json`. When it is dropped, the process has ended.
pub(crate) struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    pub(crate) id: String,
    pub(crate) address: String,
}

impl Node {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the program starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut node = Self { child, stdin, lines, id: String::new(), address: String::new() };
        let started = node.wait_for("started");
        node.id = started["node"].as_str().expect("a node has an identity").to_owned();
        node.address = started["listen"].as_str().unwrap_or_default().to_owned();
        node
    }

    /// The next event of that kind; those before it are passed over, but each must be JSON.
    pub(crate) fn wait_for(&mut self, event: &str) -> Value {
        let deadline = Instant::now() + LONG;
        let mut passed = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found: Value =
                        serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                    if found["event"] == event {
                        return found;
                    }
                    passed.push(line);
                }
                Err(RecvTimeoutError::Timeout) => panic!("no `{event}` in {LONG:?}, but {passed:#?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended before `{event}`, after {passed:#?}"),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, as `kill` does.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn close_stdin(&mut self) {
        drop(self.stdin.take());
    }

    /// How the process ends, once it was told to.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(LOOK);
        }
        panic!("the process did not end in {LONG:?}");
    }

    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.end().code(), Some(0));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not so after {LONG:?}");
        thread::sleep(LOOK);
    }
}

/// All items, in the order of their keys.
pub(crate) fn items(database: &Connection) -> Vec<(String, Option<String>, Option<i64>)> {
    let mut statement = database.prepare_cached("SELECT id, text, number FROM items ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
