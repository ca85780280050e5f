//! What to do when a node can't start, beside what is wrong, which the engine's errors say.

use std::path::Path;

use entgldb::{DataDirError, DetachError, OfflineError, OpenError, StoreError};

use crate::advice;
use crate::failure::Failure;

/// The engine would not open a node on this database.
pub(crate) fn of_open(error: &OpenError, database: &Path) -> Failure {
    let advice = match error {
        OpenError::Config(_) => "`entgldb sync --help` and docs/cli.md say what each option takes".to_owned(),
        OpenError::Collection { .. } => "give the table another name, or leave it out".to_owned(),
        OpenError::DataDir(DataDirError::InUse { path }) => {
            format!("`entgldb status --data-dir {}` shows the node that runs", path.display())
        }
        OpenError::DataDir(_) => "give --data-dir a folder that this user may write to, on a local disk".to_owned(),
        OpenError::Secret(_) => "make a secret with `entgldb keygen FILE`, or copy the cluster's; mode 600".to_owned(),
        OpenError::Identity(_) => {
            "the identity is for this user alone; if it may have leaked, remove it and the node becomes a new one"
                .to_owned()
        }
        OpenError::Trust(_) => "mend known_peers.json in the data folder".to_owned(),
        OpenError::Store(error) => return crate::inspection::unusable(database, error),
        OpenError::StoreFailed(StoreError::Sqlite(failed)) => advice::of_failed(failed, database),
        OpenError::StoreFailed(_) => "mend what the application's store reported, then start again".to_owned(),
        OpenError::Network(_) => "give --listen an address of this machine and a free port, or port 0".to_owned(),
        OpenError::Threads(_) => "raise the limits of this user (ulimit -u), or stop other programs".to_owned(),
        _ => "start it with --log debug to see more".to_owned(),
    };
    Failure::start(error, advice)
}

/// The engine would not work on this database while no node runs.
pub(crate) fn of_offline(error: &OfflineError, database: &Path) -> Failure {
    let advice = match error {
        OfflineError::DataDir(DataDirError::InUse { .. }) => {
            "try again: the node was just started or stopped".to_owned()
        }
        OfflineError::DataDir(_) => {
            "give --data-dir a folder that this user may write to, on a local disk".to_owned()
        }
        OfflineError::Identity(_) => {
            "the identity is for this user alone; copy it back, or mend its mode".to_owned()
        }
        OfflineError::Store(error) => return crate::inspection::unusable(database, error),
        OfflineError::StoreFailed(failed) => return crate::inspection::unreadable(database, failed),
        _ => format!("see `entgldb status {}`", database.display()),
    };
    Failure::start(error, advice)
}

/// The engine would not take its tables out of this database.
pub(crate) fn of_detach(error: &DetachError, database: &Path) -> Failure {
    match error {
        DetachError::DataDir(DataDirError::InUse { .. }) => {
            Failure::start(error, "stop the node (Ctrl-C or SIGTERM), then detach")
        }
        DetachError::DataDir(_) => Failure::start(
            error,
            "run this as the user that runs the node; or name its folder with --data-dir",
        ),
        DetachError::Store(error) => crate::inspection::unusable(database, error),
        _ => Failure::start(error, "nothing was changed"),
    }
}
