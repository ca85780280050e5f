//! Merges measured beside their control: reading, changing and writing the same JSON documents without any of it.
//!
//! ```text
//! cargo run --release -p entgldb-bench --bin entgldb-bench-merge
//! ```
//! One merge is what a node does with an incoming edit: read the stored state, read the edit, join, write the document and
//! the state. Prints one line of JSON a case; `ratio` is merge time over control time, both the fastest of the rounds.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp};
use entgldb_replica::id::NodeId;
use entgldb_replica::merge::Merged;
use serde_json::{Value, json};

/// Merges in one round.
const ROUND: u32 = 2_000;
/// Rounds, of which the fastest counts: other work on the machine only ever slows one down.
const ROUNDS: usize = 15;

fn main() {
    let small =
        json!({"id": 7, "name": "Espresso", "price": 1.5, "stock": 12, "note": null, "tags": "hot,small"});
    let line = |id: u32| json!({"id": id, "product": format!("p{}", id % 17), "qty": id % 5, "price": 1.25});
    let lines = json!({"id": 7, "lines": (0..100).map(line).collect::<Vec<_>>()});
    run("small document", &small, |document, n| document["stock"] = n.into());
    run("array of 100 items", &lines, |document, n| document["lines"][n as usize % 100]["qty"] = n.into());
}

fn stamp(time: u64, node: u8) -> Stamp {
    Stamp { hlc: Hlc(time), node: NodeId([node; 32]) }
}

fn run(name: &str, document: &Value, change: impl Fn(&mut Value, u32)) {
    let content = |value: &Value| Bytes::from(value.to_string());
    let none = std::collections::BTreeSet::new();
    let created = Merged::default().edit(Some(&content(document)), &none, stamp(1, 1)).expect("it is new");
    let state = created.after.encode(stamp(1, 1));
    let edits: Vec<(Stamp, Bytes)> = (0..ROUND)
        .map(|n| {
            let mut changed = document.clone();
            change(&mut changed, n + 1_000);
            let stamp = stamp(u64::from(n) + 2, 2);
            let edited = created.after.edit(Some(&content(&changed)), &none, stamp).expect("it differs");
            (stamp, edited.edit.encode(stamp))
        })
        .collect();
    let text = content(document);
    let (mut merges, mut control) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        merges = merges.min(timed(|| {
            for (stamp, edit) in &edits {
                let mut merged = Merged::decode(state.clone(), self::stamp(1, 1)).expect("it was encoded");
                merged.join(Merged::decode_edit(edit.clone(), *stamp).expect("it was encoded"));
                std::hint::black_box((merged.content(), merged.encode(*stamp)));
            }
        }));
        control = control.min(timed(|| {
            for n in 0..ROUND {
                let mut value: Value = serde_json::from_slice(&text).expect("it was written");
                change(&mut value, n + 1_000);
                std::hint::black_box(value.to_string());
            }
        }));
    }
    let rate = |time: Duration| (f64::from(ROUND) / time.as_secs_f64()).round();
    let line = json!({
        "case": name, "merges_per_second": rate(merges), "control_per_second": rate(control),
        "ratio": (merges.as_secs_f64() / control.as_secs_f64() * 100.0).round() / 100.0,
        "document_bytes": text.len(), "state_bytes": state.len(),
        "edit_bytes": edits[0].1.len(),
    });
    writeln!(std::io::stdout(), "{line}").expect("somebody reads");
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
