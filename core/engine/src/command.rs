//! What the owner asks of a running node, carried out on the thread that owns the replica.

use crossbeam_channel::{Sender, bounded};
use entgldb_replica::Input;
use entgldb_replica::id::{Collection, NodeId};
use entgldb_replica::limits::INTEREST_MAX;
use entgldb_sqlite::OpenError;

use crate::driver::{Driver, Message};
use crate::event::Event;
use crate::guard::GuardError;
use crate::store::StoreError;

/// Units captured at most before a table is left alone; what is not captured by then is when it is watched again.
const LAST_CAPTURES_MAX: usize = 64;

/// Work for the thread.
pub(crate) type Job = Box<dyn FnOnce(&mut Driver) + Send>;

/// What was asked of a node was not done. It goes on as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The call must not be made here.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
    /// The database is not available; see the status.
    #[error("the database is not available now; `entgldb status` tells why")]
    StoreFailed,
    /// The table can't be watched.
    #[error(transparent)]
    Watch(#[from] OpenError),
    /// More tables than a node may sync.
    #[error("the limit INTEREST_MAX allows {INTEREST_MAX} tables")]
    TooManyTables,
    /// The table is not watched.
    #[error("the table {table:?} is not synced; this node syncs {}", watched.join(", "))]
    NotWatched {
        /// The name as given.
        table: String,
        /// Those that are.
        watched: Vec<String>,
    },
    /// A node syncs at least one table.
    #[error("{table:?} is the only table that this node syncs: stop the node instead")]
    LastTable {
        /// The name as given.
        table: String,
    },
    /// Nobody knows of such a member.
    #[error("no member {node} is known")]
    NoSuchMember {
        /// The id as given.
        node: NodeId,
    },
    /// A node can't remove itself.
    #[error("this is the node itself: remove it on another one, once it is stopped for good")]
    Itself,
}

/// Has work done on the thread and waits for what comes of it.
pub(crate) fn ask<T: Send + 'static>(
    to_driver: &Sender<Message>,
    work: impl FnOnce(&mut Driver) -> T + Send + 'static,
) -> Result<T, CommandError> {
    let (reply, answer) = bounded(1);
    let job = move |driver: &mut Driver| drop(reply.send(work(driver)));
    to_driver.send(Message::Do(Box::new(job))).map_err(|_| CommandError::Stopped)?;
    answer.recv().map_err(|_| CommandError::Stopped)
}

/// Whether two names are the same: SQLite takes no notice of the case of a table's.
fn is_same(has_tables: bool, one: &str, other: &str) -> bool {
    if has_tables { one.eq_ignore_ascii_case(other) } else { one == other }
}

impl Driver {
    /// Watches a table from now on.
    pub(crate) fn watch(&mut self, table: &str) -> Result<String, CommandError> {
        let replica = self.replica.as_mut().ok_or(CommandError::StoreFailed)?;
        if replica.store().collections().len() >= INTEREST_MAX {
            return Err(CommandError::TooManyTables);
        }
        let collection = match replica.store().watch(table) {
            Ok(collection) => collection,
            Err(OpenError::Failed(failed)) => return Err(self.lost(&failed.into())),
            Err(refused) => return Err(refused.into()),
        };
        let has_tables = replica.store().has_tables();
        let is_new = |watched: &String| !is_same(has_tables, watched, table);
        if self.recipe.store.watch.iter().all(is_new) {
            self.recipe.store.watch.push(collection.as_str().to_owned());
        }
        self.follow_interests();
        self.input(Input::LocalChange);
        Ok(collection.to_string())
    }

    /// Watches a table no longer.
    pub(crate) fn unwatch(&mut self, table: &str) -> Result<(), CommandError> {
        let replica = self.replica.as_mut().ok_or(CommandError::StoreFailed)?;
        let has_tables = replica.store().has_tables();
        let is_it = |name: &str| is_same(has_tables, name, table);
        let watched = replica.store().collections();
        if !watched.iter().any(|collection| is_it(collection.as_str())) {
            let watched = watched.iter().map(ToString::to_string).collect();
            return Err(CommandError::NotWatched { table: table.to_owned(), watched });
        }
        if watched.len() == 1 {
            return Err(CommandError::LastTable { table: table.to_owned() });
        }
        self.capture_what_waits();
        let replica = self.replica.as_mut().ok_or(CommandError::StoreFailed)?;
        if let Err(failed) = replica.store().unwatch(table) {
            return Err(self.lost(&failed));
        }
        self.recipe.store.watch.retain(|name| !is_it(name));
        self.follow_interests();
        Ok(())
    }

    /// Tells all members that one of them will not come back.
    pub(crate) fn remove_member(&mut self, node: NodeId) -> Result<(), CommandError> {
        let replica = self.replica.as_mut().ok_or(CommandError::StoreFailed)?;
        if replica.status().node == node {
            return Err(CommandError::Itself);
        }
        if !replica.members().any(|(known, ..)| *known == node) {
            return Err(CommandError::NoSuchMember { node });
        }
        self.input(Input::RemoveMember(node));
        if self.replica.is_none() { Err(CommandError::StoreFailed) } else { Ok(()) }
    }

    /// The replica syncs what the store watches.
    fn follow_interests(&mut self) {
        let Some(replica) = &mut self.replica else { return };
        let watched: Vec<Collection> = replica.store().collections().to_vec();
        let collections: Vec<String> = watched.iter().map(ToString::to_string).collect();
        self.input(Input::Interests(watched.into_iter().collect()));
        self.publisher.set_collections(collections.clone());
        self.tell(&Event::Collections { collections });
        self.publish(true);
    }

    fn capture_what_waits(&mut self) {
        for _ in 0..LAST_CAPTURES_MAX {
            self.input(Input::LocalChange);
            let Some(replica) = &mut self.replica else { return };
            match replica.store().outbox_is_empty() {
                Ok(false) => {}
                Ok(true) => return,
                Err(failed) => return self.store_failed(&failed),
            }
        }
    }

    fn lost(&mut self, failed: &StoreError) -> CommandError {
        self.store_failed(failed);
        CommandError::StoreFailed
    }
}
