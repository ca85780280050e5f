//! What to do about a database that can't be used: one sentence for each reason, which fits that reason and no other.

use std::path::Path;

use entgldb::{Cause, SqliteFailed, StoreOpenError};

/// What is wrong, with the database named, which not every error does.
pub(crate) fn what(error: &StoreOpenError, database: &Path) -> String {
    let (text, place) = (error.to_string(), database.display().to_string());
    if text.contains(&place) { text } else { format!("{place}: {text}") }
}

/// What to do when a database can't be opened.
pub(crate) fn of_open(error: &StoreOpenError, database: &Path) -> String {
    let place = database.display();
    let advice = match error {
        StoreOpenError::NoSuchFile { .. } => "name the file that your program uses; it is never created here",
        StoreOpenError::NotADatabase { .. } => {
            "name the SQLite file itself, not a folder or a backup archive; an encrypted one can't be synced by this command"
        }
        StoreOpenError::Unreadable { .. } | StoreOpenError::ReadOnly { .. } => {
            "run this as the user that your program runs as, or change the owner or mode of the file and its folder"
        }
        StoreOpenError::NotWal { .. } => {
            return format!("move the database to a local disk; `entgldb doctor {place}` says what it is on");
        }
        StoreOpenError::Locked { .. } => {
            "close the program that uses it, start this, then start that program again"
        }
        StoreOpenError::Busy { .. } => {
            "try again when the other program has ended its transaction, or end that program"
        }
        StoreOpenError::NeverSynced { .. } => "start a node with `entgldb sync`, or name the right database",
        StoreOpenError::NothingToWatch { .. } => "name each table that is to be synced with --watch",
        StoreOpenError::NoSuchTable { .. } => {
            "name one of these after --watch, or let your program create its tables first"
        }
        StoreOpenError::NotAnOrdinaryTable { .. }
        | StoreOpenError::NoPrimaryKey { .. }
        | StoreOpenError::UnknownCollation { .. } => {
            return format!(
                "leave it out, or change it; `entgldb doctor {place}` shows which tables can be synced"
            );
        }
        StoreOpenError::BadName { .. } => "rename the table, or leave it out",
        StoreOpenError::PayloadLimit { .. } => "lower payload_bytes_max in the configuration",
        StoreOpenError::NotMade { .. } => {
            "name a file in a folder that is there and that this user may write to"
        }
        StoreOpenError::OtherKind { .. } => "name the database that your program uses",
        StoreOpenError::NewerFormat { .. } => "update this entgldb to the version that synced it last",
        StoreOpenError::Failed(failed) => return of_failed(failed, database),
        _ => "start it with --log debug to see more",
    };
    advice.to_owned()
}

/// What to do when a database failed while it was read or written.
pub(crate) fn of_failed(failed: &SqliteFailed, database: &Path) -> String {
    let place = database.display();
    let advice = match failed.cause() {
        Cause::Locked => "try again when the other program has ended its transaction, or end that program",
        Cause::DiskFull => "make room on its disk, then try again: nothing was lost",
        Cause::Disk => {
            "check the disk and its cables or mount (dmesg); copy the file away while it can be read"
        }
        Cause::FileDamaged => {
            "bring back a backup, or save what is left with SQLite's .recover; check the disk before it is used again"
        }
        Cause::NotADatabase => "bring back a backup: something that is no SQLite wrote over the file",
        Cause::EngineDamaged => {
            return format!(
                "your tables are not concerned: stop the node and run `entgldb doctor {place} --repair`"
            );
        }
        Cause::NoPermission => {
            "run this as the user that your program runs as, or change the owner or mode of the file and its folder"
        }
        Cause::Memory => "free some memory, or raise the limit of this process (ulimit -v)",
        _ => {
            return format!(
                "check the file with `entgldb doctor {place}`, and report this if it finds nothing"
            );
        }
    };
    advice.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_named_once() {
        let database = Path::new("shop.db");
        let named = StoreOpenError::NoSuchFile { path: database.to_owned() };
        assert_eq!(what(&named, database).matches("shop.db").count(), 1);
        let table = StoreOpenError::NoPrimaryKey { table: "notes".to_owned() };
        assert!(what(&table, database).starts_with("shop.db: the table \"notes\""));
    }
}
