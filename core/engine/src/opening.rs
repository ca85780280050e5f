//! Opening a node: everything that it needs is made or refused before anything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;
use entgldb_net::{
    Bound, ClusterSecret, Codec, Identity, IdentityError, NetConfig, NetEvent, SecretError, Sink, StartError,
    Transport,
};
use entgldb_replica::Config as ReplicaConfig;
use entgldb_replica::custom::Resolver;
use entgldb_replica::entry::AuthorKey;
use entgldb_replica::id::{Collection, NameError, NodeId};
use entgldb_sqlite::own::Keeps;
use entgldb_sqlite::{Holder, Waker};
use tracing::info;

use crate::clocks::Clocks;
use crate::config::{Checked, Config, ConfigError, Durability, invalid};
use crate::control::Control;
use crate::data_dir::{DataDir, DataDirError};
use crate::driver::{self, Driver, Message, Parts};
use crate::ending::{Ending, Running};
use crate::guard::Home;
use crate::host::{HookWatch, HooksInFlight};
use crate::hub::{Events, Hub};
use crate::mark::MarkFile;
use crate::node::Node;
use crate::publish::Publisher;
use crate::recipe::{Keeping, Recipe, SqliteRecipe};
use crate::recording::{Recorder, Shared};
use crate::resolver::guarded_all;
use crate::status::{STATUS_FILE, State, Status};
use crate::store::{StoreError, StoreOpenError};
use crate::trust::{Trust, TrustError};
use crate::turns::Turns;

/// Threads for the network. Encryption and compression are the load; the store thread is the bottleneck.
const NET_THREADS: usize = 2;

/// A node could not be opened. Nothing runs. Before the database itself could be used, no file has changed and none is left:
/// what can be refused is refused before anything is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration is impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A table's name is no name for a collection.
    #[error("watch: {name:?}: {reason}")]
    Collection {
        /// The table.
        name: String,
        /// What is wrong with its name.
        reason: NameError,
    },
    /// The data folder can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The cluster secret can't be used.
    #[error("the secret file: {0}")]
    Secret(#[from] SecretError),
    /// The identity can't be used.
    #[error("the identity: {0}")]
    Identity(#[from] IdentityError),
    /// The known peers can't be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] entgldb_sqlite::OpenError),
    /// The database was opened and then failed.
    #[error("the database failed: {0}")]
    StoreFailed(#[from] StoreError),
    /// The engine's own file can't be made.
    #[error("the engine's own file {path} can't be made: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The network can't be used.
    #[error(transparent)]
    Network(#[from] StartError),
    /// The operating system gave no threads.
    #[error("no threads for the engine: {0}")]
    Threads(std::io::Error),
}

impl From<StoreOpenError> for OpenError {
    fn from(error: StoreOpenError) -> Self {
        match error {
            StoreOpenError::Open(error) => Self::Store(error),
            StoreOpenError::Failed(failed) => Self::StoreFailed(failed),
            StoreOpenError::File { path, source } => Self::File { path, source },
        }
    }
}

/// What a node finds in its own files, and the folder that keeps them to one process.
struct Foundation {
    secret: ClusterSecret,
    data_dir: DataDir,
    identity: Identity,
    name: String,
    trust: Trust,
    listen: Option<SocketAddr>,
}

impl Foundation {
    fn lay(config: &Config) -> Result<Self, OpenError> {
        let Checked { listen, allow } = config.check()?;
        interests(&config.watch)?;
        let secret = ClusterSecret::read_file(&config.secret_file)?;
        let data_dir = DataDir::lock(&config.data_dir())?;
        let identity = Identity::load_or_create(&data_dir.file("identity"))?;
        let name = config.name.clone().unwrap_or_else(|| format!("node-{}", identity.node_id().short()));
        let trust = Trust::load(data_dir.path(), allow)?;
        Ok(Self { secret, data_dir, identity, name, trust, listen })
    }
}

impl Node {
    pub(crate) fn open_keeping(config: Config, keeping: Keeping) -> Result<(Self, Events), OpenError> {
        let config = config.anchored();
        let Foundation { secret, mut data_dir, identity, name, trust, listen } = Foundation::lay(&config)?;
        let id = identity.node_id();
        let hub = Hub::default();
        let (events, json_events) = (hub.subscribe(), hub.subscribe());
        let stop = Arc::new(AtomicBool::new(false));
        let collections = collections(&config, &keeping)?;
        let holder = Holder::new(&id.to_string(), &name, data_dir.path());
        let of = (&config, name.as_str(), &holder);
        let recipe = recipe(of, (collections, keeping.clone()), &identity, &hub, &stop);
        let (runtime, net) = (runtime()?, net_config(&config, &name, listen));
        let bound = Bound::new(runtime.handle(), &net)?;
        // Last of all that may be refused, because it writes to the application's file.
        let store = recipe.open_store()?;
        data_dir.keep();
        let (to_driver, inbox) = driver::channel();
        let turns = Arc::<Turns<NetEvent>>::default();
        let sink = sink(&to_driver, &turns);
        let transport = Transport::start_bound(runtime.handle(), &net, bound, (&secret, &identity), sink);
        let address = transport.local_address().map(|address| address.to_string());
        let status = Arc::new(Mutex::new(first_status(&config, id, &name, address)));
        let (home, closed) = (Home::here(), Arc::new(AtomicBool::new(false)));
        let shared = Shared {
            home,
            closed: Arc::clone(&closed),
            status: Arc::clone(&status),
            to_driver: to_driver.clone(),
        };
        let recorder = recorder((&config, &holder), &keeping, &stop, shared)?;
        let (hooks, watch) = hook_watch(&keeping, &hub)?;
        let parts = Parts {
            recipe,
            store,
            transport: transport.clone(),
            inbox,
            turns,
            clocks: Clocks::start(),
            trust,
            hub: hub.clone(),
            mark: MarkFile::load(data_dir.path()),
            control: Control::new(data_dir.path(), to_driver.clone()),
            publisher: Publisher::new(Arc::clone(&status), data_dir.file(STATUS_FILE)),
            waker: waker(&config, &to_driver),
        };
        // The application's store is let go of here, so that its last owner is the thread that calls its hooks.
        let watchers = match keeping {
            Keeping::Documents(watchers) => Some(watchers),
            Keeping::Tables | Keeping::Host(_) => None,
        };
        let thread = start(parts)?;
        info!(node = %id.short(), name, listen = ?transport.local_address(), "started");
        let (to_end, links) = (to_driver.clone(), transport.clone());
        let running = Running { runtime, thread, transport: links, to_driver: to_end, stop, data_dir, watch };
        let ending = Ending::new(running, closed, hooks);
        let database = config.database;
        let events_json = json_events;
        let node = Self {
            id,
            name,
            transport,
            to_driver,
            hub,
            events: events_json,
            status,
            database,
            home,
            recorder,
            watchers,
            ending,
        };
        Ok((node, events))
    }
}

/// Opens the replica and starts the thread that owns it.
fn start(parts: Parts) -> Result<std::thread::JoinHandle<()>, OpenError> {
    let driver = Driver::new(parts)?;
    let thread = std::thread::Builder::new().name("entgldb-store".to_owned());
    thread.spawn(move || driver.run()).map_err(OpenError::Threads)
}

/// Watches the application's hooks, if there are any.
fn hook_watch(keeping: &Keeping, hub: &Hub) -> Result<(Option<HooksInFlight>, Option<HookWatch>), OpenError> {
    let Keeping::Host(host) = keeping else { return Ok((None, None)) };
    let hooks = host.in_flight();
    let watch = HookWatch::start(hooks.clone(), hub.clone()).map_err(OpenError::Threads)?;
    Ok((Some(hooks), Some(watch)))
}

fn collections(config: &Config, keeping: &Keeping) -> Result<Collections, OpenError> {
    Ok(Collections {
        interests: interests(&config.watch)?,
        merging: interests(&config.merge)?,
        custom: resolvers(config, keeping)?,
    })
}

/// The resolvers of the collections that have one.
fn resolvers(config: &Config, keeping: &Keeping) -> Result<BTreeMap<Collection, Resolver>, OpenError> {
    let named = |(name, reason)| OpenError::Collection { name, reason };
    let mut custom = guarded_all(&config.custom).map_err(named)?;
    for name in &config.custom_hook {
        let collection = Collection::new(name).map_err(|reason| named((name.clone(), reason)))?;
        let resolver = match keeping {
            Keeping::Host(host) if host.capabilities.resolve => host.resolver(),
            _ => return Err(invalid("custom_hook", "there is no store with a resolve hook").into()),
        };
        custom.insert(collection, resolver);
    }
    Ok(custom)
}

fn recorder(
    (config, holder): (&Config, &Holder),
    keeping: &Keeping,
    stop: &Arc<AtomicBool>,
    shared: Shared,
) -> Result<Option<Recorder>, OpenError> {
    let keeps = match keeping {
        Keeping::Tables => return Ok(None),
        Keeping::Documents(_) => Keeps::Documents,
        Keeping::Host(_) => Keeps::Host,
    };
    let how = (keeps, durability(config));
    let recorder =
        Recorder::open(&config.database, how, config.payload_bytes_max, (Arc::clone(stop), holder), shared)?;
    Ok(Some(recorder))
}

fn durability(config: &Config) -> entgldb_sqlite::Durability {
    match config.durability {
        Durability::Full => entgldb_sqlite::Durability::Full,
        Durability::Normal => entgldb_sqlite::Durability::Normal,
    }
}

fn interests(watch: &[String]) -> Result<BTreeSet<Collection>, OpenError> {
    let collection = |name: &String| {
        Collection::new(name).map_err(|reason| OpenError::Collection { name: name.clone(), reason })
    };
    watch.iter().map(collection).collect()
}

/// What is synced, and how it is written.
struct Collections {
    interests: BTreeSet<Collection>,
    merging: BTreeSet<Collection>,
    custom: BTreeMap<Collection, Resolver>,
}

fn recipe(
    (config, name, holder): (&Config, &str, &Holder),
    (Collections { interests, merging, custom }, keeping): (Collections, Keeping),
    identity: &Identity,
    hub: &Hub,
    stop: &Arc<AtomicBool>,
) -> Recipe {
    Recipe {
        store: SqliteRecipe {
            path: config.database.clone(),
            watch: config.watch.clone(),
            durability: durability(config),
            payload_bytes_max: config.payload_bytes_max,
            stop: Arc::clone(stop),
            holder: holder.clone(),
            hub: hub.clone(),
        },
        keeping,
        replica: ReplicaConfig {
            name: name.to_owned(),
            retention_ms: config.retention_hours.ms(),
            interests,
            merging,
            custom,
            max_skew_ms: config.max_skew_ms,
            sync_interval_ms: config.sync_interval_ms,
            payload_bytes_max: config.payload_bytes_max,
            frame_bytes_max: config.frame_bytes_max,
            ..ReplicaConfig::default()
        },
        key: AuthorKey::from_seed(&identity.signing_key().to_bytes()),
        peers: config.peers.clone(),
    }
}

fn net_config(config: &Config, name: &str, listen: Option<SocketAddr>) -> NetConfig {
    let mut instance = [0; 8];
    getrandom::fill(&mut instance).expect("the operating system gives random bytes");
    let mut net = NetConfig::new(name, u64::from_le_bytes(instance));
    net.listen = listen;
    net.frame_bytes_max = config.frame_bytes_max;
    net.link_bytes_per_second = config.peer_bytes_per_second;
    if !config.zstd {
        net.codecs = vec![Codec::Brotli];
    }
    net
}

fn runtime() -> Result<tokio::runtime::Runtime, OpenError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(NET_THREADS).thread_name("entgldb-net").enable_all();
    builder.build().map_err(OpenError::Threads)
}

/// Where the transport's events go: those of a link into its queue, the others into the inbox.
fn sink(to_driver: &Sender<Message>, turns: &Arc<Turns<NetEvent>>) -> Sink {
    let (to_driver, turns) = (to_driver.clone(), Arc::clone(turns));
    // A driver that has ended takes nothing any more.
    Arc::new(move |event: NetEvent| match event.link() {
        None => drop(to_driver.send(Message::Net(event))),
        Some(link) => {
            if turns.put(link, event) {
                drop(to_driver.send(Message::Link(link)));
            }
        }
    })
}

/// Listens to the files at the database's path, each time to those that are there then.
fn waker(config: &Config, to_driver: &Sender<Message>) -> Box<dyn Fn() -> Waker + Send> {
    let (path, to_driver) = (config.database.clone(), to_driver.clone());
    Box::new(move || {
        let to_driver = to_driver.clone();
        Waker::start(&path, move || drop(to_driver.send(Message::Wake)))
    })
}

fn first_status(config: &Config, id: NodeId, name: &str, listen: Option<String>) -> Status {
    Status {
        at_ms: 0,
        state: State::Running,
        pid: std::process::id(),
        node: id.to_string(),
        name: name.to_owned(),
        incarnation: String::new(),
        listen,
        database: config.database.clone(),
        database_bytes: 0,
        durability: config.durability,
        collections: config.watch.clone(),
        tables: Vec::new(),
        entries: 0,
        logs: 0,
        captured: 0,
        applied: 0,
        conflicts: 0,
        problems: 0,
        backlog: true,
        forgotten: 0,
        snapshot: None,
        retention_hours: config.retention_hours,
        host: None,
        blocked: Vec::new(),
        peers: Vec::new(),
        targets: Vec::new(),
        traffic: Default::default(),
        last_error: None,
    }
}
