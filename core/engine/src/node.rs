//! A running node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use entgldb_net::Transport;
use entgldb_replica::id::NodeId;
use entgldb_sqlite::inspect::{Inspector, ListedConflict};
use entgldb_sqlite::{RestoreError, Restored};

use crate::command::{CommandError, ask};
use crate::config::{Config, ConfigError, check_target};
use crate::documents::Watchers;
use crate::driver::{Driver, Message};
use crate::ending::Ending;
use crate::event::Event;
use crate::guard::{GuardError, Home};
use crate::host::{HostCell, HostStore};
use crate::hub::{Events, Hub};
use crate::import::{ImportError, ImportSummary};
use crate::member::{MemberInfo, read_members};
use crate::opening::OpenError;
use crate::portable::{Exported, PortableError};
use crate::recipe::Keeping;
use crate::recording::Recorder;
use crate::status::{HookHealth, Status};
use crate::sync_now::{self, SyncError};

/// A node has not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The call must not be made here. From inside a hook the node is told to end, and ends once the hook has returned.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A hook still runs, or a commit. The node ends by itself once that is over; calling again waits for it.
    #[error("the node has not ended yet: {}", hook.unwrap_or("work on its file"))]
    Timeout {
        /// The hook that still runs.
        hook: Option<&'static str>,
    },
}

/// An address that can't be dialled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    /// It is not `host:port`.
    #[error(transparent)]
    Target(#[from] ConfigError),
    /// The call must not be made here.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// A running node: it syncs until it is closed or dropped. All methods may be called from any thread.
pub struct Node {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) transport: Transport,
    pub(crate) to_driver: Sender<Message>,
    pub(crate) hub: Hub,
    /// What [`Node::next_event_json`] reads.
    pub(crate) events: Events,
    pub(crate) status: Arc<Mutex<Status>>,
    pub(crate) database: PathBuf,
    pub(crate) home: Home,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) watchers: Option<Watchers>,
    pub(crate) ending: Ending,
}

impl Node {
    /// Opens a node and starts to sync. Returns once the database is open, its tables are watched and the address is
    /// listened on; existing rows are captured and peers dialled after that.
    ///
    /// # Errors
    /// When something it needs can't be used; the error says what to do.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        Self::open_with_events(config).map(|(node, _)| node)
    }

    /// Opens a node as [`Node::open`] does, with its events from the very first: a peer may be linked before
    /// [`Node::events`] could be called.
    ///
    /// # Errors
    /// When something it needs can't be used; the error says what to do.
    pub fn open_with_events(config: Config) -> Result<(Self, Events), OpenError> {
        Self::open_keeping(config, Keeping::Tables)
    }

    /// Opens a node with the application's own store, or, without one, with documents that the engine keeps itself
    /// ([`Node::documents`]). `database` is the engine's own file then: it is made if it is not there, and belongs to nobody
    /// else; `watch` names the collections. The store is dropped exactly once, also when this fails.
    ///
    /// # Errors
    /// When something it needs can't be used; the error says what to do.
    pub fn open_with_host(
        config: Config,
        host: Option<Box<dyn HostStore>>,
    ) -> Result<(Self, Events), OpenError> {
        let keeping = match host {
            Some(host) => Keeping::Host(HostCell::new(host)),
            None => Keeping::Documents(Watchers::default()),
        };
        Self::open_keeping(config, keeping)
    }

    pub(crate) fn home(&self) -> Home {
        self.home
    }

    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    pub(crate) fn watchers(&self) -> Option<&Watchers> {
        self.watchers.as_ref()
    }

    /// Has work done on the store's thread and waits for what comes of it.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Driver) -> T + Send + 'static,
    ) -> Result<T, CommandError> {
        self.home.may_wait()?;
        ask(&self.to_driver, work)
    }

    pub(crate) fn database(&self) -> &Path {
        &self.database
    }

    /// Its identity.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.id
    }

    /// Its label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, with the port that the system chose if it was asked to.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.transport.local_address()
    }

    /// How it stands, at most a second old. Never waits for the store or the network.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let (Some(host), Some(running)) = (&mut status.host, self.ending.running_hook()) {
            host.hook = Some(HookHealth { hook: running.hook.to_owned(), for_ms: running.for_ms() });
        }
        status
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.hub.subscribe()
    }

    /// Dials an address, now and whenever the link is gone, for as long as the node runs.
    ///
    /// # Errors
    /// When it is not `host:port`.
    pub fn add_peer(&self, target: &str) -> Result<(), AddPeerError> {
        self.home.may_call()?;
        check_target(target)?;
        self.to_driver.send(Message::AddPeer(target.to_owned())).map_err(|_| AddPeerError::Stopped)
    }

    /// Captures what the application has written so far, compares with every linked peer, and waits until this node and
    /// all of them are known to hold the same.
    ///
    /// # Errors
    /// When that is not so after `timeout`.
    pub fn sync_now(&self, timeout: Duration) -> Result<(), SyncError> {
        self.home.may_wait()?;
        let (reply, answer) = sync_now::reply();
        let deadline = Instant::now() + timeout;
        self.to_driver.send(Message::SyncNow { deadline, reply }).map_err(|_| SyncError::Stopped)?;
        answer.recv().unwrap_or(Err(SyncError::Stopped))
    }

    /// Syncs one more table from now on, until the node is closed: the rows that are there, and all that other nodes have of
    /// it. Answers the table's name in the schema's spelling.
    ///
    /// # Errors
    /// Why the table can't be synced.
    pub fn watch(&self, table: &str) -> Result<String, CommandError> {
        let table = table.to_owned();
        self.ask(move |driver| driver.watch(&table))?
    }

    /// Syncs a table no longer, until the node is opened again: nothing of it is captured, sent or taken any more. Its rows
    /// stay as they are here, and what is known of them too; when it is watched again, what was written here meanwhile is
    /// captured and what others wrote comes.
    ///
    /// # Errors
    /// When it is not watched, or the only one.
    pub fn unwatch(&self, table: &str) -> Result<(), CommandError> {
        let table = table.to_owned();
        self.ask(move |driver| driver.unwatch(&table))?
    }

    /// The members of the cluster that this node has heard of, itself included.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn members(&self) -> Result<Vec<MemberInfo>, entgldb_sqlite::OpenError> {
        read_members(&self.database)
    }

    /// Tells all members that one of them will not come back, so that no history is kept for it. If it does come back it
    /// takes a snapshot and is a member again.
    ///
    /// # Errors
    /// When there is no such member, or it is this node.
    pub fn remove_member(&self, node: NodeId) -> Result<(), CommandError> {
        self.ask(move |driver| driver.remove_member(node))?
    }

    /// Writes the rows of all synced tables to a file that another cluster member can import. See
    /// [`export_snapshot`](crate::export_snapshot). Runs on the caller's thread beside the node.
    ///
    /// # Errors
    /// When the file can't be written or the database can't be read.
    pub fn snapshot_export(
        &self,
        file: &Path,
        on_progress: &mut dyn FnMut(Exported),
    ) -> Result<Exported, PortableError> {
        crate::portable::export_snapshot(&self.database, file, on_progress)
    }

    /// Joins the rows of a file that [`Node::snapshot_export`] wrote. Nothing younger that is here is overwritten, and
    /// nothing at all is joined unless the whole file is as it was written. Runs on the caller's thread, with a piece at a
    /// time on the node's.
    ///
    /// # Errors
    /// What is wrong with the file, or why it can't be joined.
    pub fn snapshot_import(
        &self,
        file: &Path,
        on_progress: &mut dyn FnMut(Exported),
    ) -> Result<ImportSummary, ImportError> {
        self.home.may_wait().map_err(CommandError::from)?;
        crate::import::into_running(&self.to_driver, file, on_progress)
    }

    /// The newest conflicts, at most `count`: versions made without knowledge of each other, which one stands, and the one
    /// that lost. Losing versions are kept for 24 hours. Reads the database on the caller's thread.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn conflicts(&self, count: usize) -> Result<Vec<ListedConflict>, entgldb_sqlite::OpenError> {
        match Inspector::open(&self.database)? {
            Some(mut inspector) => Ok(inspector.conflicts(count)?),
            None => Ok(Vec::new()),
        }
    }

    /// Writes a losing version into its table again, as [`entgldb_sqlite::restore()`] does: a change like any other, which
    /// triggers see and which travels. `version` is its number in the conflict list; none will do if the document has one
    /// losing version only. Writes on the caller's thread, and waits while another program keeps the database locked.
    ///
    /// # Errors
    /// When there is no such version, the table does not take it, or the database can't be used. Nothing has changed.
    pub fn restore(
        &self,
        collection: &str,
        key: &str,
        version: Option<u64>,
    ) -> Result<Restored, RestoreError> {
        if self.recorder.is_some() {
            return self.restore_document((collection, key), version);
        }
        let restored = entgldb_sqlite::restore(&self.database, (collection, key), version)?;
        // The file tells of the write as well, a little later.
        let _ = self.to_driver.send(Message::Wake);
        Ok(restored)
    }

    /// Stops: links are closed with a word, the database is left as after any commit, and the application's store is dropped.
    /// Also happens on drop. From inside a hook it happens once the hook has returned.
    pub fn close(self) {
        drop(self);
    }

    /// Stops as [`Node::close`] does, and waits at most so long. `Ok` means that no hook runs any more and the application's
    /// store was dropped. May be called again.
    ///
    /// # Errors
    /// When the node has not ended in that time, or the call must not be made here. It ends all the same, except in a forked
    /// process.
    pub fn close_within(&self, timeout: Duration) -> Result<(), CloseError> {
        self.home.may_call()?;
        self.ending.begin();
        self.home.may_wait()?;
        if self.ending.wait(Some(timeout)) {
            return Ok(());
        }
        Err(CloseError::Timeout { hook: self.ending.running_hook().map(|running| running.hook) })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // What runs the node is in another process; here are only copies of it.
            self.ending.forget();
            std::mem::forget(self.recorder.take());
            return;
        }
        self.ending.begin();
        if self.home.may_wait().is_ok() {
            self.ending.wait(None);
        }
    }
}

impl Node {
    /// The event that says that the node runs, for those who subscribe later.
    #[must_use]
    pub fn started(&self) -> Event {
        Event::Started {
            node: self.id.to_string(),
            name: self.name.clone(),
            listen: self.local_address().map(|address| address.to_string()),
        }
    }
}
