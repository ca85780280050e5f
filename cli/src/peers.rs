//! `entgldb peers`: who a node knows by key, who is linked, and forgetting one whose key has changed for a good reason.

use std::collections::BTreeMap;
use std::path::Path;

use console::style;
use entgldb::{KnownPeer, State, Status, TrustError, forget_peer, known_peers};
use serde::Serialize;
use serde_json::json;

use crate::args::PeersArguments;
use crate::calendar::Calendar;
use crate::failure::Failure;
use crate::output;
use crate::status::{self, is_capturing, peer_in_words, short, target_in_words};

/// A peer as `--json` prints it.
#[derive(Serialize)]
struct PeerLine<'a> {
    name: &'a str,
    node: &'a str,
    first_seen_ms: u64,
    linked: bool,
    behind: Option<u64>,
    ahead: Option<u64>,
}

pub(crate) fn run(arguments: &PeersArguments) -> Result<(), Failure> {
    let data_dir = arguments.place.data_dir();
    let status = status::read(&data_dir)?;
    if let Some(name) = &arguments.forget {
        return forget(&data_dir, &status, name, arguments.json);
    }
    let known = known_peers(&data_dir).map_err(|error| unusable(&error))?;
    if arguments.json { print_json(&known, &status) } else { print(&known, &status) }
}

fn print_json(known: &BTreeMap<String, KnownPeer>, status: &Status) -> Result<(), Failure> {
    for (name, peer) in known {
        let health = status.peers.iter().find(|health| health.node == peer.node);
        output::json_line(&PeerLine {
            name,
            node: &peer.node,
            first_seen_ms: peer.first_seen_ms,
            linked: health.is_some(),
            behind: health.map(|health| health.behind),
            ahead: health.map(|health| health.ahead),
        })?;
    }
    Ok(())
}

fn print(known: &BTreeMap<String, KnownPeer>, status: &Status) -> Result<(), Failure> {
    let calendar = Calendar::new();
    for (name, peer) in known {
        match status.peers.iter().find(|health| health.node == peer.node) {
            Some(health) => output::line(peer_in_words(health, is_capturing(status)))?,
            None => output::line(format_args!(
                "{} ({})  not linked; known since {}",
                style(name).bold(),
                short(&peer.node),
                calendar.local(peer.first_seen_ms)
            ))?,
        }
    }
    for target in status.targets.iter().filter(|target| !target.linked && target.node.is_none()) {
        output::line(target_in_words(target))?;
    }
    if known.is_empty() {
        output::note("This node has not met any other yet.");
    }
    Ok(())
}

fn forget(data_dir: &Path, status: &Status, name: &str, json: bool) -> Result<(), Failure> {
    if matches!(status.state, State::Running | State::Recovering) {
        return Err(Failure::start(
            format_args!("the node runs (process {}) and would not notice", status.pid),
            "stop it, forget the peer, start it again",
        ));
    }
    if !forget_peer(data_dir, name).map_err(|error| unusable(&error))? {
        return Err(Failure::start(
            format_args!("no peer {name:?} is known in {}", data_dir.display()),
            "`entgldb peers` lists the names of known peers",
        ));
    }
    if json {
        return Ok(output::json_line(&json!({ "forgotten": name }))?);
    }
    output::note(format_args!("Forgot {name}: the next node that comes by that name is taken for it."));
    Ok(())
}

fn unusable(error: &TrustError) -> Failure {
    Failure::start(error, "known_peers.json in the data folder is for its owner to read and write")
}
