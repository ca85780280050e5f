//! What a node is told at its start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use entgldb_replica::custom::Resolver;
use entgldb_replica::id::{NodeId, NodeIdError};
use entgldb_replica::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::retention::Retention;

/// Shortest and longest time between digests, in milliseconds.
const SYNC_INTERVAL_RANGE_MS: std::ops::RangeInclusive<u64> = 50..=600_000;
/// What a frame must have beside its largest document, in bytes.
const FRAME_SPARE_BYTES: usize = 64 << 10;

/// When a change counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Synced to the disk before any peer is told: what was acknowledged survives a power cut.
    #[default]
    Full,
    /// Written, not synced each time: what was acknowledged survives a crash of any process. After a power cut the last
    /// changes may be gone here; peers that have them bring them back.
    Normal,
}

/// The configuration of a [`crate::Node`]. As JSON it has the same fields; unknown ones are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The application's SQLite database.
    pub database: PathBuf,
    /// The file with the cluster secret, as `entgldb keygen` makes it. Not readable by others.
    pub secret_file: PathBuf,
    /// Tables to sync.
    #[serde(default)]
    pub watch: Vec<String>,
    /// Those of them whose rows merge column by column (and inside of JSON columns) instead of the last write of a row
    /// winning. It says how this node writes; what others wrote is joined as they wrote it.
    #[serde(default)]
    pub merge: Vec<String>,
    /// Those of them whose rows the application's own function decides on where they were changed on several machines at
    /// once. All nodes must have the same functions. Not part of the JSON.
    #[serde(skip)]
    pub custom: BTreeMap<String, Resolver>,
    /// Those of them that [`crate::HostStore::resolve`] decides on in the same way.
    #[serde(default)]
    pub custom_hook: Vec<String>,
    /// `address:port` to listen on; none to only dial.
    #[serde(default)]
    pub listen: Option<String>,
    /// `host:port` of peers to dial.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Folder of the node's identity and status; `<database>-entgldb` if none is given.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
    /// A label for people; made from the identity if none is given.
    #[serde(default)]
    pub name: Option<String>,
    /// When a change counts as durable.
    #[serde(default)]
    pub durability: Durability,
    /// How long history is kept after all members hold it, in hours; or "forever".
    #[serde(default)]
    pub retention_hours: Retention,
    /// If given, only these nodes are let in.
    #[serde(default)]
    pub allow: Option<Vec<String>>,
    /// Milliseconds between digests on each link.
    #[serde(default = "default_sync_interval_ms")]
    pub sync_interval_ms: u64,
    /// A remote entry further ahead of this machine's clock than so many milliseconds waits.
    #[serde(default = "default_max_skew_ms")]
    pub max_skew_ms: u64,
    /// Largest document, in bytes.
    #[serde(default = "default_payload_bytes_max")]
    pub payload_bytes_max: usize,
    /// Largest frame, in bytes. The same or more on all nodes that share large documents.
    #[serde(default = "default_frame_bytes_max")]
    pub frame_bytes_max: usize,
    /// Bytes of frames that are taken from one peer in a second, decompressed. A peer that sends more is read more slowly.
    #[serde(default = "default_peer_bytes_per_second")]
    pub peer_bytes_per_second: usize,
    /// Milliseconds that a hook which answers later (a pending one in C, a future in other languages) has until it counts as
    /// failed. A hook that blocks can't be given up on.
    #[serde(default = "default_hook_timeout_ms")]
    pub hook_timeout_ms: u64,
    /// Whether zstd is offered to peers; brotli always is.
    #[serde(default = "default_true")]
    pub zstd: bool,
}

fn default_sync_interval_ms() -> u64 {
    limits::SYNC_INTERVAL_MS
}

fn default_max_skew_ms() -> u64 {
    limits::MAX_SKEW_MS
}

fn default_payload_bytes_max() -> usize {
    limits::PAYLOAD_BYTES_DEFAULT
}

fn default_frame_bytes_max() -> usize {
    limits::FRAME_BYTES_DEFAULT
}

fn default_peer_bytes_per_second() -> usize {
    limits::LINK_BYTES_PER_SECOND
}

fn default_hook_timeout_ms() -> u64 {
    30_000
}

fn default_true() -> bool {
    true
}

/// A configuration that no node can have. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not readable as a configuration.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The field, as a path in the JSON.
        path: String,
        /// What is wrong there.
        reason: String,
    },
    /// A field with a value that it cannot have.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong, and what is possible.
        reason: String,
    },
}

pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { field, reason: reason.into() }
}

impl Config {
    /// The defaults for a database and a secret; add tables to [`Config::watch`], and an address to listen on or peers to
    /// dial.
    #[must_use]
    pub fn new(database: impl Into<PathBuf>, secret_file: impl Into<PathBuf>) -> Self {
        Self {
            database: database.into(),
            secret_file: secret_file.into(),
            watch: Vec::new(),
            merge: Vec::new(),
            custom: BTreeMap::new(),
            custom_hook: Vec::new(),
            listen: None,
            peers: Vec::new(),
            data_dir: None,
            name: None,
            durability: Durability::default(),
            retention_hours: Retention::default(),
            allow: None,
            sync_interval_ms: default_sync_interval_ms(),
            max_skew_ms: default_max_skew_ms(),
            payload_bytes_max: default_payload_bytes_max(),
            frame_bytes_max: default_frame_bytes_max(),
            peer_bytes_per_second: default_peer_bytes_per_second(),
            hook_timeout_ms: default_hook_timeout_ms(),
            zstd: default_true(),
        }
    }

    /// Reads a configuration from JSON.
    ///
    /// # Errors
    /// When it is none; the error names the place.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = match error.path().to_string() {
                path if path == "." => "configuration".to_owned(),
                path => path,
            };
            ConfigError::Unreadable { path, reason: error.inner().to_string() }
        })?;
        json.end().map_err(|error| ConfigError::Unreadable {
            path: "configuration".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(config)
    }

    /// The folder of the node's own files.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| default_data_dir(&self.database))
    }

    /// The same with paths that mean the same after the process has changed its folder, as every daemon does.
    pub(crate) fn anchored(mut self) -> Self {
        let paths = [&mut self.database, &mut self.secret_file];
        for path in paths.into_iter().chain(self.data_dir.as_mut()) {
            // Only an empty path has no absolute form; it is refused when it is opened.
            if let Ok(absolute) = std::path::absolute(&*path) {
                *path = absolute;
            }
        }
        self
    }

    pub(crate) fn check(&self) -> Result<Checked, ConfigError> {
        if self.watch.is_empty() {
            return Err(invalid("watch", "name at least one table to sync"));
        }
        if self.watch.len() > limits::INTEREST_MAX {
            let (count, max) = (self.watch.len(), limits::INTEREST_MAX);
            return Err(invalid("watch", format!("{count} tables; the limit INTEREST_MAX allows {max}")));
        }
        if let Some(unknown) = self.merge.iter().find(|name| !self.watch.contains(name)) {
            return Err(invalid("merge", format!("{unknown:?} is not among the tables to sync (watch)")));
        }
        if let Some(unknown) = self.custom.keys().find(|name| !self.watch.contains(name)) {
            return Err(invalid("custom", format!("{unknown:?} is not among the tables to sync (watch)")));
        }
        if let Some(both) = self.custom.keys().find(|name| self.merge.contains(name)) {
            return Err(invalid(
                "custom",
                format!("{both:?} is among those that merge (merge): it is one or the other"),
            ));
        }
        if let Some(unknown) = self.custom_hook.iter().find(|name| !self.watch.contains(name)) {
            return Err(invalid("custom_hook", format!("{unknown:?} is not among those to sync (watch)")));
        }
        let is_other = |name: &&String| self.merge.contains(name) || self.custom.contains_key(*name);
        if let Some(both) = self.custom_hook.iter().find(is_other) {
            let reason = format!("{both:?} merges or has a resolver already: it is one or the other");
            return Err(invalid("custom_hook", reason));
        }
        if !SYNC_INTERVAL_RANGE_MS.contains(&self.sync_interval_ms) {
            let (from, to) = (SYNC_INTERVAL_RANGE_MS.start(), SYNC_INTERVAL_RANGE_MS.end());
            return Err(invalid("sync_interval_ms", format!("it must be {from} to {to}")));
        }
        if !(1..=limits::PAYLOAD_BYTES_HARD).contains(&self.payload_bytes_max) {
            let max = limits::PAYLOAD_BYTES_HARD;
            return Err(invalid("payload_bytes_max", format!("it must be 1 to {max} (PAYLOAD_BYTES_HARD)")));
        }
        let least = limits::FRAME_BYTES_DEFAULT.max(self.payload_bytes_max + FRAME_SPARE_BYTES);
        if !(least..=limits::FRAME_BYTES_HARD).contains(&self.frame_bytes_max) {
            let max = limits::FRAME_BYTES_HARD;
            return Err(invalid(
                "frame_bytes_max",
                format!("it must be {least} to {max} (FRAME_BYTES_HARD)"),
            ));
        }
        if self.peer_bytes_per_second < limits::FRAME_BYTES_PER_SECOND {
            let min = limits::FRAME_BYTES_PER_SECOND;
            let reason = format!("it must be at least {min} (FRAME_BYTES_PER_SECOND)");
            return Err(invalid("peer_bytes_per_second", reason));
        }
        if self.hook_timeout_ms == 0 {
            return Err(invalid("hook_timeout_ms", "it must be at least 1"));
        }
        if self.name.as_ref().is_some_and(String::is_empty) {
            return Err(invalid("name", "it must not be empty"));
        }
        self.peers.iter().try_for_each(|peer| check_target(peer))?;
        let listen = self.listen.as_ref().map(|address| {
            address.parse::<SocketAddr>().map_err(|_| {
                let reason =
                    format!("{address:?} is not an address and a port, such as 0.0.0.0:7700 or [::]:7700");
                invalid("listen", reason)
            })
        });
        Ok(Checked { listen: listen.transpose()?, allow: self.allowed()? })
    }

    fn allowed(&self) -> Result<Option<Vec<NodeId>>, ConfigError> {
        let parse = |text: &String| {
            text.parse().map_err(|error: NodeIdError| invalid("allow", format!("{text:?}: {error}")))
        };
        self.allow.as_ref().map(|ids| ids.iter().map(parse).collect()).transpose()
    }
}

/// What [`Config::check`] parsed.
pub(crate) struct Checked {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) allow: Option<Vec<NodeId>>,
}

/// Checks that an address is `host:port`.
pub(crate) fn check_target(target: &str) -> Result<(), ConfigError> {
    let parts = target.rsplit_once(':');
    let valid = parts.is_some_and(|(host, port)| {
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        !host.is_empty() && bare && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if valid {
        return Ok(());
    }
    Err(invalid("peers", format!("{target:?} is not host:port, such as till-2.local:7700 or [fe80::1]:7700")))
}

/// Where a database's node keeps its own files unless told otherwise.
#[must_use]
pub fn default_data_dir(database: &Path) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push("-entgldb");
    database.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::new("shop.db", "secret");
        config.watch.push("products".to_owned());
        config
    }

    #[test]
    fn relative_paths_are_bound_to_the_folder_of_the_start() {
        let mut config = Config::new("dir/shop.db", "secret");
        config.data_dir = Some("data".into());
        let (here, config) = (std::env::current_dir().unwrap(), config.anchored());
        assert_eq!((config.database, config.secret_file), (here.join("dir/shop.db"), here.join("secret")));
        assert_eq!(config.data_dir, Some(here.join("data")));
    }

    #[test]
    fn a_config_survives_json_and_defaults_fill_what_is_missing() {
        let json = serde_json::to_string(&config()).unwrap();
        assert_eq!(Config::from_json(&json).unwrap(), config());
        let short = r#"{"database":"shop.db","secret_file":"secret","watch":["products"]}"#;
        assert_eq!(Config::from_json(short).unwrap(), config());
    }

    #[test]
    fn an_error_names_the_place_in_the_json() {
        let unknown = Config::from_json(r#"{"database":"a","secret_file":"s","wacht":[]}"#).unwrap_err();
        assert!(unknown.to_string().contains("wacht"), "{unknown}");
        let wrong = Config::from_json(r#"{"database":"a","secret_file":"s","watch":["t", 5]}"#).unwrap_err();
        assert!(wrong.to_string().starts_with("watch[1]:"), "{wrong}");
        assert!(Config::from_json(r#"{"database":"a","secret_file":"s"} x"#).is_err());
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_the_field_and_what_is_possible() {
        let custom = |name: &str| BTreeMap::from([(name.to_owned(), Resolver::union())]);
        let cases: [(&str, Config); 12] = [
            ("merge", Config { merge: vec!["other".into()], ..config() }),
            ("custom", Config { custom: custom("other"), ..config() }),
            ("custom", Config { custom: custom("products"), merge: vec!["products".into()], ..config() }),
            ("watch", Config { watch: Vec::new(), ..config() }),
            ("listen", Config { listen: Some("localhost".into()), ..config() }),
            ("peers", Config { peers: vec!["till".into()], ..config() }),
            ("peers", Config { peers: vec!["fe80::1:7700".into()], ..config() }),
            ("allow", Config { allow: Some(vec!["abc".into()]), ..config() }),
            ("payload_bytes_max", Config { payload_bytes_max: 0, ..config() }),
            ("frame_bytes_max", Config { payload_bytes_max: 8 << 20, ..config() }),
            ("sync_interval_ms", Config { sync_interval_ms: 1, ..config() }),
            ("peer_bytes_per_second", Config { peer_bytes_per_second: 1000, ..config() }),
        ];
        for (field, config) in cases {
            let error = config.check().err().unwrap_or_else(|| panic!("{field} was not refused"));
            assert!(matches!(error, ConfigError::Invalid { field: found, .. } if found == field), "{error}");
        }
        assert!(config().check().is_ok());
    }

    #[test]
    fn addresses_of_every_kind_are_taken() {
        for target in ["till.local:7700", "10.0.0.1:1", "[::1]:7700"] {
            assert!(check_target(target).is_ok(), "{target}");
        }
        assert_eq!(default_data_dir(Path::new("dir/shop.db")), Path::new("dir/shop.db-entgldb"));
    }
}
