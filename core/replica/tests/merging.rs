//! Documents that merge, over a network that the test moves.

#[allow(unreachable_pub, missing_docs, dead_code)]
mod mesh;

use std::collections::BTreeMap;

use bytes::Bytes;
use entgldb_replica::entry::Op;
use entgldb_replica::event::Event;
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::merge::Merged;
use entgldb_replica::resolve::Conflict;
use entgldb_replica::store::ProblemKind;
use mesh::{Mesh, interests};
use serde_json::{Value, json};

/// A mesh whose first `merging` nodes write the collection so that it merges.
fn mesh(count: usize, merging: usize, seed: u64) -> Mesh {
    let mut mesh = Mesh::seeded(count, &["t"], seed);
    for node in 0..merging {
        mesh.nodes[node].config.merging = interests(&["t"]);
        mesh.restart(node);
    }
    mesh
}

fn doc(key: &str) -> DocId {
    (Collection::new("t").unwrap(), Key::new(key).unwrap())
}

fn read(mesh: &mut Mesh, node: usize, key: &str) -> Option<Value> {
    mesh.store(node).docs.get(&doc(key)).map(|content| serde_json::from_slice(content).unwrap())
}

fn write(mesh: &mut Mesh, node: usize, key: &str, value: &Value) {
    mesh.write(node, "t", key, &value.to_string());
}

fn conflicts<'a>(mesh: &'a Mesh, node: usize) -> Vec<&'a Conflict> {
    let conflict = |event: &'a Event| match event {
        Event::Conflict(conflict) => Some(conflict),
        _ => None,
    };
    mesh.nodes[node].events.iter().filter_map(conflict).collect()
}

/// All nodes hold the same entries, and their documents are what those entries say, joined in any order.
fn assert_merged(mesh: &mut Mesh, rng: &mut fastrand::Rng) {
    let mut first: Option<(BTreeMap<_, _>, BTreeMap<_, _>, BTreeMap<_, _>)> = None;
    for node in 0..mesh.nodes.len() {
        let store = mesh.store(node);
        assert_eq!(store.outbox_len(), 0);
        let mut said: Vec<(DocId, Merged)> = Vec::new();
        for (log, entries) in store.logs() {
            for stored in entries {
                let (entry, stamp) = (&stored.entry, stored.entry.stamp(log.author));
                let state = match entry.op {
                    Op::Put => Merged::replaced(stamp, Some(&entry.payload)),
                    Op::Delete => Merged::replaced(stamp, None),
                    Op::Edit => Merged::decode_edit(entry.payload.clone(), stamp).unwrap(),
                };
                said.push(((log.collection.clone(), entry.key.clone()), state));
            }
        }
        rng.shuffle(&mut said);
        let mut states: BTreeMap<DocId, Merged> = BTreeMap::new();
        for (doc, state) in said {
            states.entry(doc).or_default().join(state);
        }
        let value = |content: Bytes| serde_json::from_slice::<Value>(&content).unwrap();
        let wanted: BTreeMap<DocId, Value> =
            states.iter().filter_map(|(doc, state)| Some((doc.clone(), value(state.content()?)))).collect();
        let found: BTreeMap<DocId, Value> =
            store.docs.iter().map(|(doc, content)| (doc.clone(), value(content.clone()))).collect();
        assert_eq!(found, wanted, "documents of node {node} are what its entries say");
        let stamps: BTreeMap<_, _> = store.rows.iter().map(|(doc, row)| (doc.clone(), row.stamp)).collect();
        let logs: BTreeMap<_, _> =
            store.log.iter().map(|(log, entries)| (log.clone(), entries.len())).collect();
        match &first {
            None => first = Some((logs, stamps, found)),
            Some(other) => assert_eq!(*other, (logs, stamps, found), "node {node}"),
        }
        assert!(!mesh.nodes[node].events.iter().any(|event| matches!(event, Event::Diverged { .. })));
    }
}

#[test]
fn two_tills_sell_from_one_product_apart_and_both_edits_stay() {
    let mut mesh = mesh(3, 3, 1);
    for (a, b) in [(0, 1), (1, 2)] {
        mesh.link(a, b);
    }
    write(&mut mesh, 0, "tea", &json!({"name": "tea", "price": 1, "stock": {"a": 5, "b": 5}}));
    mesh.run(3000);
    mesh.unlink(0, 1);
    mesh.unlink(1, 2);
    write(&mut mesh, 0, "tea", &json!({"name": "tea", "price": 2, "stock": {"a": 4, "b": 5}}));
    mesh.settle();
    mesh.run(1000);
    write(&mut mesh, 2, "tea", &json!({"name": "green tea", "price": 1, "stock": {"a": 5, "b": 3}}));
    mesh.settle();
    for (a, b) in [(0, 1), (1, 2)] {
        mesh.link(a, b);
    }
    mesh.run(5000);
    let expected = json!({"name": "green tea", "price": 2, "stock": {"a": 4, "b": 3}});
    for node in 0..3 {
        assert_eq!(read(&mut mesh, node, "tea"), Some(expected.clone()), "node {node}");
        assert!(conflicts(&mesh, node).is_empty(), "nothing was lost on node {node}");
    }
    assert_merged(&mut mesh, &mut fastrand::Rng::with_seed(1));
}

#[test]
fn what_two_authors_wrote_to_one_field_is_a_conflict_that_keeps_the_losing_document() {
    let mut mesh = mesh(2, 2, 1);
    mesh.link(0, 1);
    write(&mut mesh, 0, "tea", &json!({"price": 1, "x": 0}));
    mesh.run(3000);
    mesh.unlink(0, 1);
    write(&mut mesh, 0, "tea", &json!({"price": 2, "x": 0}));
    mesh.settle();
    mesh.run(1000);
    write(&mut mesh, 1, "tea", &json!({"price": 3, "x": 0}));
    mesh.settle();
    mesh.link(0, 1);
    mesh.run(5000);
    for node in 0..2 {
        assert_eq!(read(&mut mesh, node, "tea"), Some(json!({"price": 3, "x": 0})));
        let found = conflicts(&mesh, node);
        assert_eq!(found.len(), 1, "node {node}");
        let lost: Value = serde_json::from_slice(found[0].loser.content.as_ref().unwrap()).unwrap();
        assert_eq!(lost, json!({"price": 2, "x": 0}), "node {node}");
    }
    // An edit that knew of both is no conflict.
    write(&mut mesh, 0, "tea", &json!({"price": 4, "x": 0}));
    mesh.run(3000);
    assert_eq!(conflicts(&mesh, 1).len(), 1);
}

#[test]
fn a_document_that_was_there_before_it_merged_keeps_what_nobody_touched() {
    let mut mesh = mesh(2, 0, 1);
    mesh.link(0, 1);
    write(&mut mesh, 0, "tea", &json!({"name": "tea", "price": 1}));
    mesh.run(3000);
    mesh.unlink(0, 1);
    for node in 0..2 {
        mesh.nodes[node].config.merging = interests(&["t"]);
        mesh.restart(node);
    }
    write(&mut mesh, 0, "tea", &json!({"name": "tea", "price": 2}));
    write(&mut mesh, 1, "tea", &json!({"name": "green", "price": 1}));
    mesh.settle();
    mesh.link(0, 1);
    mesh.run(5000);
    assert_eq!(read(&mut mesh, 1, "tea"), Some(json!({"name": "green", "price": 2})));
    assert_merged(&mut mesh, &mut fastrand::Rng::with_seed(1));
}

#[test]
fn the_same_document_written_in_another_way_is_no_change() {
    let mut mesh = mesh(2, 2, 1);
    mesh.link(0, 1);
    mesh.write(0, "t", "k", r#"{"b":1,"a":[1,2]}"#);
    mesh.run(3000);
    mesh.write(1, "t", "k", r#"{ "a": [1, 2], "b": 1 }"#);
    mesh.run(3000);
    assert_eq!(mesh.store(0).log.len(), 1, "only one author");
    assert_eq!(mesh.store(1).outbox_len(), 0);
}

#[test]
fn a_document_whose_edit_would_be_much_larger_is_written_whole() {
    let mut mesh = mesh(2, 2, 1);
    mesh.link(0, 1);
    let numbers: Vec<u32> = (0..2000).collect();
    write(&mut mesh, 0, "k", &json!({ "n": numbers }));
    // A document of many small fields needs less than twice its bytes, and more than a large frame has to spare.
    let fields: serde_json::Map<String, Value> =
        (10_000..20_000).map(|n| (n.to_string(), json!(n))).collect();
    write(&mut mesh, 0, "large", &Value::Object(fields));
    mesh.run(3000);
    for stored in mesh.store(0).log.values().next().unwrap() {
        assert_eq!(stored.entry.op, Op::Put, "{:?}", stored.entry.key);
    }
    assert_merged(&mut mesh, &mut fastrand::Rng::with_seed(1));
}

/// An application that changes some part of a document that it has read.
fn change(rng: &mut fastrand::Rng, before: Option<Value>) -> Value {
    let mut value = before.unwrap_or_else(|| json!({"id": rng.u8(..3), "lines": []}));
    let field = ["a", "b", "c"][rng.usize(..3)];
    match rng.u8(..8) {
        0..=2 => value[field] = rng.u8(..9).into(),
        3 => value[field] = json!({"x": rng.u8(..9), "y": rng.u8(..9)}),
        4 => value[field]["x"] = if value[field].is_object() { rng.u8(..9).into() } else { return value },
        5 => drop(value.as_object_mut().unwrap().remove(field)),
        _ => {
            let Some(lines) = value["lines"].as_array_mut() else { return value };
            let place = rng.usize(..=lines.len());
            match lines.get_mut(place) {
                Some(line) if rng.bool() => line["qty"] = rng.u8(..9).into(),
                Some(_) if rng.bool() => drop(lines.remove(place)),
                _ => lines.insert(place, json!({"id": rng.u32(..), "qty": 1})),
            }
        }
    }
    value
}

/// Random edits, deletes, cuts, crashes, clock steps and nodes that do not merge, in a random schedule.
#[test]
fn whatever_happens_all_nodes_end_with_the_same_merged_documents() {
    for seed in 0..120 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(2..6);
        let merging = if rng.bool() { count } else { rng.usize(1..=count) };
        let mut mesh = mesh(count, merging, seed);
        for _ in 0..rng.u64(20..120) {
            let (node, other) = (rng.usize(..count), rng.usize(..count));
            let key = format!("k{}", rng.u8(..3));
            match rng.u8(..12) {
                0..=5 => {
                    let before = read(&mut mesh, node, &key);
                    write(&mut mesh, node, &key, &change(&mut rng, before));
                }
                6 => mesh.delete(node, "t", &key),
                what => mesh.disturb(&mut rng, (node, other), what - 7),
            }
            for _ in 0..rng.usize(..40) {
                mesh.step();
            }
        }
        mesh.heal();
        assert_merged(&mut mesh, &mut rng);
    }
}

#[test]
fn parts_of_a_document_that_are_too_large_together_are_a_problem_of_that_document_and_of_nothing_else() {
    let mut mesh = mesh(5, 5, 3);
    write(&mut mesh, 0, "k", &json!({"own": 1}));
    (0..4).for_each(|node| mesh.link(node, node + 1));
    mesh.run(3_000);
    (0..4).for_each(|node| mesh.unlink(node, node + 1));
    for node in 0..5 {
        let mut value = read(&mut mesh, node, "k").unwrap();
        value[format!("f{node}")] = json!("x".repeat(4_000_000));
        mesh.mono += 100;
        write(&mut mesh, node, "k", &value);
        write(&mut mesh, node, &format!("other{node}"), &json!({"by": node}));
    }
    (0..4).for_each(|node| mesh.link(node, node + 1));
    mesh.run(60_000);
    let expected = mesh.store(0).docs.clone();
    assert_eq!(expected.len(), 6, "all others are there");
    for node in 0..5 {
        assert!(mesh.store(node).docs == expected, "the documents of node {node} are others");
        let told = |event: &Event| matches!(event, Event::Problem(p) if p.kind == ProblemKind::TooLarge);
        assert!(node == 2 || mesh.nodes[node].events.iter().any(told) || node > 0, "node {node} says so");
    }
    let value = read(&mut mesh, 0, "k").unwrap();
    let kept: Vec<bool> = (0..5).map(|node| value.get(format!("f{node}")).is_some()).collect();
    assert_eq!(kept, [false, false, true, true, true]);
    let noted = mesh.store(0).conflicts.values().filter_map(|conflict| conflict.loser.content.clone());
    let noted: Vec<String> = noted.map(|content| String::from_utf8(content.to_vec()).unwrap()).collect();
    for lost in ["f0", "f1"] {
        assert!(noted.iter().any(|content| content.contains(&format!("\"{lost}\""))), "{lost} is noted");
    }
    // It goes on.
    write(&mut mesh, 4, "k", &json!({"small": 1}));
    mesh.run(10_000);
    assert_eq!(read(&mut mesh, 0, "k").unwrap(), json!({"small": 1}));
}
