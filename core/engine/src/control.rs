//! Asking a node that runs in another process: files in a folder of its data folder, which only its owner can write.
//!
//! Whoever asks puts `<id>.request` there and waits for `<id>.answer`. The node looks about once a second. Nothing of this
//! outlives a node: what is left over from before is removed when it starts.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use entgldb_replica::id::NodeId;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::command::{CommandError, ask};
use crate::data_dir::{is_locked, replace};
use crate::driver::{Driver, Message};
use crate::import::{ImportSummary, into_running};
use crate::portable::Exported;

const FOLDER: &str = "control";
/// Longest request, in bytes, and most that are taken at a time.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
const REQUESTS_MAX: usize = 16;
/// How often it is looked for an answer, and how often progress is told.
const LOOK: Duration = Duration::from_millis(50);
const TELL: Duration = Duration::from_millis(200);
/// A node that runs answers within this time, or tells how far it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// What can be asked of a node in another process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// See [`crate::Node::watch`].
    Watch {
        /// The table.
        table: String,
    },
    /// See [`crate::Node::unwatch`].
    Unwatch {
        /// The table.
        table: String,
    },
    /// See [`crate::Node::remove_member`].
    RemoveMember {
        /// The member's id.
        node: String,
    },
    /// See [`crate::Node::snapshot_import`].
    Import {
        /// The file, as an absolute path.
        file: PathBuf,
    },
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Why it was not done, in words.
    pub error: Option<String>,
    /// The table that is watched now, in the schema's spelling.
    pub table: Option<String>,
    /// What was imported.
    pub imported: Option<ImportSummary>,
}

/// A node in another process could not be asked, or did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No process runs the node.
    #[error("the node does not run")]
    NotRunning,
    /// It ended, or does not answer.
    #[error("the node does not answer")]
    NoAnswer,
    /// It answered that it can't be done.
    #[error("{0}")]
    Refused(String),
    /// The data folder can't be used.
    #[error("the data folder: {0}")]
    Io(#[from] io::Error),
}

/// Asks the node that runs with a data folder, in whatever process, and waits for its answer.
///
/// # Errors
/// When no process runs it, or it was not done.
pub fn request(
    data_dir: &Path,
    request: &Request,
    on_progress: &mut dyn FnMut(Exported),
) -> Result<Answer, ControlError> {
    if !is_locked(data_dir) {
        return Err(ControlError::NotRunning);
    }
    let mut id = [0; 8];
    getrandom::fill(&mut id).expect("the operating system gives random bytes");
    let id = format!("{:016x}", u64::from_le_bytes(id));
    let file = |kind: &str| data_dir.join(FOLDER).join(format!("{id}.{kind}"));
    let (asked, answer, progress) = (file("request"), file("answer"), file("progress"));
    fs::create_dir_all(data_dir.join(FOLDER))?;
    replace(&asked, &serde_json::to_vec(request).expect("a request is plain data"))?;
    let mut sign = Instant::now();
    let answered = loop {
        match read::<Answer>(&answer) {
            Some(answer) => break Ok(answer),
            None if sign.elapsed() > PATIENCE || !is_locked(data_dir) => break Err(ControlError::NoAnswer),
            None => {}
        }
        if let Some(progress) = read::<Exported>(&progress) {
            sign = Instant::now();
            on_progress(progress);
        }
        std::thread::sleep(LOOK);
    };
    for file in [asked, answer, progress] {
        // What is not there needs no removal, and the rest goes when the node starts.
        let _ = fs::remove_file(file);
    }
    let answer = answered?;
    match answer.error {
        Some(error) => Err(ControlError::Refused(error)),
        None => Ok(answer),
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    fs::File::open(path).ok()?.take(REQUEST_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The node's side.
pub(crate) struct Control {
    folder: PathBuf,
    to_driver: Sender<Message>,
}

impl Control {
    /// Begins with an empty folder.
    pub(crate) fn new(data_dir: &Path, to_driver: Sender<Message>) -> Self {
        let folder = data_dir.join(FOLDER);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        Self { folder, to_driver }
    }

    /// Looks for requests. Each is carried out by a thread of its own, which asks the caller's thread.
    pub(crate) fn look(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let is_request = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "request");
        let requests = entries.flatten().map(|entry| entry.path()).filter(is_request);
        for path in requests.take(REQUESTS_MAX) {
            let request = read::<Request>(&path);
            if fs::remove_file(&path).is_err() {
                warn!("a request could not be removed, so it is not carried out");
                continue;
            }
            let to_driver = self.to_driver.clone();
            let work = move || {
                let answer = match request {
                    Some(request) => carry_out(&to_driver, request, &path.with_extension("progress")),
                    None => Err("the request can't be read".to_owned()),
                };
                let answer =
                    answer.unwrap_or_else(|error| Answer { error: Some(error), ..Answer::default() });
                let answer = serde_json::to_vec(&answer).expect("an answer is plain data");
                if let Err(error) = replace(&path.with_extension("answer"), &answer) {
                    debug!(%error, "an answer could not be written");
                }
            };
            let thread = std::thread::Builder::new().name("entgldb-control".to_owned());
            if let Err(error) = thread.spawn(work) {
                warn!(%error, "no thread for a request");
            }
        }
    }
}

fn carry_out(to_driver: &Sender<Message>, request: Request, progress: &Path) -> Result<Answer, String> {
    let words = |error: CommandError| error.to_string();
    Ok(match request {
        Request::Watch { table } => {
            let table = ask(to_driver, move |driver: &mut Driver| driver.watch(&table));
            Answer { table: Some(table.map_err(words)?.map_err(words)?), ..Answer::default() }
        }
        Request::Unwatch { table } => {
            let done = ask(to_driver, move |driver: &mut Driver| driver.unwatch(&table));
            done.map_err(words)?.map_err(words)?;
            Answer::default()
        }
        Request::RemoveMember { node } => {
            let node: NodeId = node.parse().map_err(|error| format!("{node:?}: {error}"))?;
            let done = ask(to_driver, move |driver: &mut Driver| driver.remove_member(node));
            done.map_err(words)?.map_err(words)?;
            Answer::default()
        }
        Request::Import { file } => {
            let mut told = Instant::now();
            let mut tell = |exported: Exported| {
                if told.elapsed() >= TELL {
                    told = Instant::now();
                    // Only a bar stands still without it.
                    let _ = replace(progress, &serde_json::to_vec(&exported).expect("two numbers are JSON"));
                }
            };
            let imported = into_running(to_driver, &file, &mut tell).map_err(|error| error.to_string())?;
            Answer { imported: Some(imported), ..Answer::default() }
        }
    })
}
