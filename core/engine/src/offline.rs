//! A node's database while the node does not run: importing a snapshot into it, and removing a member.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use entgldb_net::{Identity, IdentityError};
use entgldb_replica::entry::AuthorKey;
use entgldb_replica::id::{Collection, NodeId};
use entgldb_replica::wire::Chunk;
use entgldb_replica::{Config as ReplicaConfig, Importing, Input, Replica};
use entgldb_sqlite::inspect::Inspector;
use entgldb_sqlite::{Durability, Holder, OpenError, SqliteFailed, SqliteStore};

use crate::clocks::Clocks;
use crate::command::CommandError;
use crate::data_dir::{DataDir, DataDirError};
use crate::hub::Hub;
use crate::import::{ImportError, ImportSummary, import};
use crate::mark::MarkFile;
use crate::portable::Exported;
use crate::recipe::SqliteRecipe;

/// A database could not be worked on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// The node runs, or its folder can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The identity can't be used.
    #[error("the identity: {0}")]
    Identity(#[from] IdentityError),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The database was opened and then failed.
    #[error("the database failed: {0}")]
    StoreFailed(#[from] SqliteFailed),
}

/// A node's database, held for this process; the node can't be started meanwhile.
pub struct Offline {
    replica: Replica<SqliteStore>,
    clocks: Clocks,
    mark: MarkFile,
    _data_dir: DataDir,
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offline").finish_non_exhaustive()
    }
}

impl Offline {
    /// Opens a database with the identity in the data folder, which is made if there is none. Besides the tables that are
    /// watched already those in `watch` are from now on; `merge` names those whose local changes are captured field by
    /// field, as in [`crate::Config::merge`].
    ///
    /// # Errors
    /// When something it needs can't be used; the error says what to do.
    pub fn open(
        database: &Path,
        data_dir: &Path,
        watch: &[String],
        merge: &[String],
    ) -> Result<Self, OfflineError> {
        let mut data_dir = DataDir::lock(data_dir)?;
        let identity = Identity::load_or_create(&data_dir.file("identity"))?;
        let node = identity.node_id();
        let (watched, name) = known(database, node)?;
        let mut all: Vec<String> = watched.iter().map(ToString::to_string).collect();
        all.extend(watch.iter().cloned());
        let recipe = SqliteRecipe {
            path: database.to_owned(),
            watch: all,
            durability: Durability::Full,
            payload_bytes_max: entgldb_replica::limits::PAYLOAD_BYTES_DEFAULT,
            stop: Arc::default(),
            holder: Holder::new(&node.to_string(), name.as_deref().unwrap_or_default(), data_dir.path()),
            hub: Hub::default(),
        };
        let store = recipe.open()?;
        data_dir.keep();
        let clocks = Clocks::start();
        let mark = MarkFile::load(data_dir.path());
        let merges = |collection: &&Collection| {
            merge.iter().any(|name| name.eq_ignore_ascii_case(collection.as_str()))
        };
        let config = ReplicaConfig {
            name: name.unwrap_or_else(|| format!("node-{}", node.short())),
            interests: store.collections().iter().cloned().collect(),
            merging: store.collections().iter().filter(merges).cloned().collect(),
            retention_ms: None,
            mark: mark.mark(),
            ..ReplicaConfig::default()
        };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the operating system gives random bytes");
        let key = AuthorKey::from_seed(&identity.signing_key().to_bytes());
        let replica = Replica::open(config, store, key, u64::from_le_bytes(seed), clocks.now());
        let replica = replica.map_err(|failed| failed.0)?;
        let mut offline = Self { replica, clocks, mark, _data_dir: data_dir };
        offline.capture()?;
        Ok(offline)
    }

    /// Captures what the application has written: it comes before what is brought in.
    fn capture(&mut self) -> Result<(), SqliteFailed> {
        loop {
            self.input(Input::LocalChange)?;
            if !self.replica.status().backlog {
                return Ok(());
            }
        }
    }

    fn input(&mut self, input: Input) -> Result<(), SqliteFailed> {
        // Nobody is linked, so there is nothing to carry out.
        self.replica.handle(self.clocks.now(), input).map(drop).map_err(|failed| failed.0)
    }

    /// Joins the rows of a file that [`crate::export_snapshot`] wrote, as [`crate::Node::snapshot_import`] does.
    ///
    /// # Errors
    /// What is wrong with the file, or why it can't be joined.
    pub fn import(
        &mut self,
        file: &Path,
        on_progress: &mut dyn FnMut(Exported),
    ) -> Result<ImportSummary, ImportError> {
        let ours: BTreeSet<Collection> = self.replica.store().collections().iter().cloned().collect();
        let (replica, clocks) = (&mut self.replica, self.clocks);
        let mut join = |importing: Option<Importing>, chunk: Chunk| {
            let mut importing = importing.unwrap_or_else(|| replica.importing(chunk.collection.clone()));
            let imported = replica.import(clocks.now(), &mut importing, chunk, &mut Vec::new());
            imported.map(|imported| (importing, imported)).map_err(|_| CommandError::StoreFailed)
        };
        let summary = import(file, &ours, &mut join, on_progress);
        self.note_mark();
        summary
    }

    /// Writes that a member will not come back, as [`crate::Node::remove_member`] does. The others learn of it when the node
    /// runs again.
    ///
    /// # Errors
    /// When there is no such member, or it is this node.
    pub fn remove_member(&mut self, node: NodeId) -> Result<(), CommandError> {
        if self.replica.status().node == node {
            return Err(CommandError::Itself);
        }
        if !self.replica.members().any(|(known, ..)| *known == node) {
            return Err(CommandError::NoSuchMember { node });
        }
        self.input(Input::RemoveMember(node)).map_err(|_| CommandError::StoreFailed)?;
        self.note_mark();
        Ok(())
    }

    fn note_mark(&mut self) {
        self.mark.note(self.replica.mark());
        self.mark.write();
    }

    /// Leaves the database with everything on the disk.
    ///
    /// # Errors
    /// When it is not certain that everything is on the disk.
    pub fn close(mut self) -> Result<(), SqliteFailed> {
        self.note_mark();
        self.replica.into_store().close()
    }
}

/// The tables that a database's node watches, and the name that it goes by.
fn known(database: &Path, node: NodeId) -> Result<(BTreeSet<Collection>, Option<String>), OpenError> {
    let Some(mut inspector) = Inspector::open(database)? else { return Ok(Default::default()) };
    let watched = inspector.watched_tables()?;
    let members = inspector.members()?;
    let own = members.into_iter().find(|listed| listed.node == node);
    Ok((watched, own.map(|listed| listed.member.name)))
}
