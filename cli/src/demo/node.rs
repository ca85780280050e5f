//! The demo's nodes: real `entgldb sync` processes, as anybody would start them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::patience::{LONG, Patience};
use super::schema::TABLES;
use super::shop::Shop;
use crate::failure::{Exit, Failure};

/// Longest wait for a node to end by itself.
const STOP: Duration = Duration::from_secs(10);
/// Between two looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A running `entgldb sync` process. When it is dropped, the process has ended.
pub(super) struct Node {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
    log: PathBuf,
    pub(super) id: String,
    pub(super) address: String,
}

impl Node {
    /// Starts a node beside a shop's database and waits until it runs. It dials `peer` if one is given.
    pub(super) fn start(
        shop: &Shop,
        secret: &Path,
        peer: Option<&str>,
        patience: &Patience,
    ) -> Result<Self, Failure> {
        let log = shop.path.with_extension("log");
        let mut command = sync_command(shop, secret, peer)?;
        let errors = File::options().create(true).append(true).open(&log);
        let errors = errors.map_err(|error| unable(&format!("write {}", log.display()), &error))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(|error| unable("start a process", &error))?;
        let stdin = child.stdin.take();
        let (sender, events) = channel();
        let stdout = child.stdout.take();
        let mut node =
            Self { name: shop.name, child, stdin, events, log, id: String::new(), address: String::new() };
        let read = move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
            for event in lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(event).is_err() {
                    return;
                }
            }
        };
        let reader = thread::Builder::new().name(format!("events of {}", shop.name));
        reader.spawn(read).map_err(|error| unable("start a thread", &error))?;
        let started = node.wait_for("started", patience)?;
        let text = |field: &str| started[field].as_str().unwrap_or_default().to_owned();
        (node.id, node.address) = (text("node"), text("listen"));
        Ok(node)
    }

    /// Waits for an event; those before it are passed over.
    pub(super) fn wait_for(&mut self, event: &str, patience: &Patience) -> Result<Value, Failure> {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            patience.check()?;
            match self.events.recv_timeout(LOOK) {
                Ok(found) if found["event"] == event => return Ok(found),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
            }
        }
        Err(Failure::new(
            Exit::CheckFailed,
            format_args!("the node {} did not report `{event}` within {} s", self.name, LONG.as_secs()),
            "run the demo again with --keep and read the logs",
        ))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as by `kill -9`.
    pub(super) fn kill(mut self) -> Result<(), Failure> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map_err(|error| unable("end a process", &error))?;
        Ok(())
    }

    /// Asks the process to stop, and tells how it ended; `None` if it did not.
    pub(super) fn stop(mut self) -> Option<ExitStatus> {
        drop(self.stdin.take());
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(LOOK);
        }
        None
    }

    fn ended(&self) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        Failure::new(
            Exit::CheckFailed,
            format_args!("the node {} ended by itself: {last}", self.name),
            "run the demo again with --keep and read the logs",
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sync_command(shop: &Shop, secret: &Path, peer: Option<&str>) -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|error| unable("find this program", &error))?;
    let mut command = Command::new(program);
    command.arg("sync").arg(&shop.path);
    for table in TABLES {
        command.args(["--watch", table]);
    }
    command.arg("--secret-file").arg(secret);
    command.args(["--listen", "127.0.0.1:0", "--name", shop.name, "--durability", "normal"]);
    command.args(["--json", "--stop-with-stdin", "--log", "info"]);
    if let Some(peer) = peer {
        command.args(["--peer", peer]);
    }
    // Ctrl-C is for the demo, which then ends its nodes in order; should it die first, they stop with their standard input.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    Ok(command)
}

fn unable(what: &str, error: &std::io::Error) -> Failure {
    Failure::start(
        format_args!("the demo cannot {what}: {error}"),
        "see what the system lacks, and run it again",
    )
}
