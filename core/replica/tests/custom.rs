//! Documents that a resolver decides on, over a network that the test moves.

#[allow(unreachable_pub, missing_docs, dead_code)]
mod mesh;

use std::collections::BTreeMap;

use bytes::Bytes;
use entgldb_replica::Config;
use entgldb_replica::custom::{Resolver, ResolverFailed};
use entgldb_replica::entry::Op;
use entgldb_replica::event::Event;
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::member::members;
use entgldb_replica::merge::Merged;
use entgldb_replica::resolve::{Conflict, Side};
use entgldb_replica::store::ProblemKind;
use mesh::{Mesh, interests};

fn doc(key: &str) -> DocId {
    (Collection::new("t").unwrap(), Key::new(key).unwrap())
}

/// Says what it was asked: a document that names every version.
fn listing(sides: &[Side]) -> Option<Bytes> {
    let contents: Vec<Option<&str>> =
        sides.iter().map(|side| side.content.as_deref().map(|c| std::str::from_utf8(c).unwrap())).collect();
    Some(serde_json::json!({ "of": contents }).to_string().into())
}

fn with_resolver(resolver: Resolver) -> Config {
    let custom = BTreeMap::from([(doc("k").0, resolver)]);
    Config { interests: interests(&["t"]), custom, ..Config::default() }
}

fn lister() -> Resolver {
    Resolver::new(|_, _, sides| listing(sides))
}

fn configure(mesh: &mut Mesh, node: usize, config: Config) {
    mesh.nodes[node].config = config;
    mesh.restart(node);
}

/// A mesh that resolves, unlinked.
fn mesh(count: usize, resolver: &Resolver) -> Mesh {
    let mut mesh = Mesh::new(count, &["t"]);
    (0..count).for_each(|node| configure(&mut mesh, node, with_resolver(resolver.clone())));
    mesh
}

fn link_all(mesh: &mut Mesh) {
    for (a, b) in (0..mesh.nodes.len()).zip(1..mesh.nodes.len()) {
        if !mesh.is_linked(a, b) {
            mesh.link(a, b);
        }
    }
    mesh.run(5000);
}

fn cut_all(mesh: &mut Mesh) {
    (1..mesh.nodes.len()).for_each(|b| mesh.unlink(b - 1, b));
}

fn read(mesh: &mut Mesh, node: usize, key: &str) -> Option<String> {
    mesh.store(node).docs.get(&doc(key)).map(|content| String::from_utf8(content.to_vec()).unwrap())
}

fn write_apart(mesh: &mut Mesh, key: &str, contents: &[Option<&str>]) {
    for (node, content) in contents.iter().enumerate() {
        mesh.run(10);
        mesh.write_at(node, &[("t", key, *content)]);
        mesh.settle();
    }
}

fn conflicts<'a>(mesh: &'a Mesh, node: usize) -> Vec<&'a Conflict> {
    let conflict = |event: &'a Event| match event {
        Event::Conflict(conflict) => Some(conflict),
        _ => None,
    };
    mesh.nodes[node].events.iter().filter_map(conflict).collect()
}

/// All nodes know the same of every document.
fn assert_level(mesh: &mut Mesh) {
    let rows = mesh.store(0).rows.clone();
    for node in 1..mesh.nodes.len() {
        assert_eq!(mesh.store(node).rows, rows, "node {node}");
        assert!(!mesh.nodes[node].events.iter().any(|event| matches!(event, Event::Diverged { .. })));
    }
}

#[test]
fn every_node_asks_about_the_same_versions_in_the_order_of_their_stamps() {
    let mut mesh = mesh(3, &lister());
    mesh.write(0, "t", "k", "0");
    link_all(&mut mesh);
    cut_all(&mut mesh);
    write_apart(&mut mesh, "k", &[Some("1"), Some("2"), None]);
    link_all(&mut mesh);
    for node in 0..3 {
        assert_eq!(read(&mut mesh, node, "k").unwrap(), r#"{"of":["1","2",null]}"#, "node {node}");
    }
    assert_level(&mut mesh);
}

#[test]
fn two_nodes_that_make_the_same_document_apart_are_asked_about_too() {
    let mut mesh = mesh(2, &lister());
    write_apart(&mut mesh, "k", &[Some("1"), Some("2")]);
    link_all(&mut mesh);
    assert_eq!(read(&mut mesh, 0, "k").unwrap(), r#"{"of":["1","2"]}"#);
    assert_eq!(read(&mut mesh, 1, "k").unwrap(), r#"{"of":["1","2"]}"#);
}

#[test]
fn a_write_replaces_all_versions_that_its_author_saw() {
    let mut mesh = mesh(3, &lister());
    write_apart(&mut mesh, "k", &[Some("1"), Some("2")]);
    link_all(&mut mesh);
    mesh.write(2, "t", "k", "3");
    mesh.run(5000);
    for node in 0..3 {
        assert_eq!(read(&mut mesh, node, "k").unwrap(), "3", "node {node}");
    }
    cut_all(&mut mesh);
    write_apart(&mut mesh, "k", &[Some("4"), None]);
    link_all(&mut mesh);
    assert_eq!(read(&mut mesh, 2, "k").unwrap(), r#"{"of":["4",null]}"#, "only these two");
}

#[test]
fn what_does_not_show_is_in_the_conflict_list_once() {
    let mut mesh = mesh(2, &Resolver::greatest("n"));
    write_apart(&mut mesh, "k", &[Some(r#"{"n":2}"#), Some(r#"{"n":1}"#)]);
    link_all(&mut mesh);
    for node in 0..2 {
        assert_eq!(read(&mut mesh, node, "k").unwrap(), r#"{"n":2}"#, "the greater, not the younger");
        let found = conflicts(&mesh, node);
        assert_eq!(found.len(), 1, "node {node}");
        assert_eq!(found[0].winner.content.as_deref(), Some(&br#"{"n":2}"#[..]));
        assert_eq!(found[0].loser.content.as_deref(), Some(&br#"{"n":1}"#[..]));
    }
    mesh.write(0, "t", "k", r#"{"n":0}"#);
    mesh.run(5000);
    assert_eq!(read(&mut mesh, 1, "k").unwrap(), r#"{"n":0}"#);
    assert_eq!(conflicts(&mesh, 1).len(), 1, "a write over both is no conflict");
}

#[test]
fn a_document_that_both_sides_went_into_leaves_both_in_the_conflict_list() {
    let mut mesh = mesh(2, &lister());
    write_apart(&mut mesh, "k", &[Some("1"), Some("2")]);
    link_all(&mut mesh);
    for node in 0..2 {
        let mut lost: Vec<_> =
            conflicts(&mesh, node).iter().map(|conflict| conflict.loser.content.clone().unwrap()).collect();
        lost.sort();
        assert_eq!(lost, ["1", "2"], "node {node}");
    }
}

#[test]
fn the_same_content_written_apart_is_no_conflict() {
    let mut mesh = mesh(2, &Resolver::union());
    write_apart(&mut mesh, "k", &[Some("1"), Some("1")]);
    link_all(&mut mesh);
    for node in 0..2 {
        assert_eq!(read(&mut mesh, node, "k").unwrap(), "1");
        assert!(conflicts(&mesh, node).is_empty());
    }
}

#[test]
fn a_version_that_there_was_no_room_to_name_is_replaced_and_noted_if_nobody_saw_it() {
    // Twenty-five authors are too many to name in an edit of a document of a few bytes. One writes over the versions of all but
    // the first, which it has not met.
    let mut mesh = mesh(27, &lister());
    let contents: Vec<String> = (0..26).map(|n| n.to_string()).collect();
    let contents: Vec<Option<&str>> = contents.iter().map(|content| Some(content.as_str())).collect();
    write_apart(&mut mesh, "k", &contents);
    for node in 1..25 {
        mesh.link(node, 25);
    }
    mesh.run(60_000);
    assert_eq!(read(&mut mesh, 25, "k").unwrap().matches('"').count(), 2 + 2 * 25, "it has met all others");
    mesh.write(25, "t", "k", "100");
    mesh.run(60_000);
    mesh.link(25, 26);
    mesh.link(0, 26);
    mesh.run(60_000);
    for node in 0..27 {
        assert_eq!(read(&mut mesh, node, "k").unwrap(), "100", "node {node}");
        let listed = conflicts(&mesh, node).iter().any(|found| found.loser.content.as_deref() == Some(b"0"));
        assert!(listed, "node {node}");
    }
    assert_level(&mut mesh);
}

#[test]
fn where_a_resolver_fails_the_youngest_version_stands_and_it_is_told() {
    for resolver in [
        Resolver::fallible(|_, _, _| Err(ResolverFailed("not today".into()))),
        Resolver::new(|_, _, _| Some("no json".into())),
    ] {
        let mut mesh = mesh(2, &resolver);
        write_apart(&mut mesh, "k", &[Some("1"), Some("2")]);
        link_all(&mut mesh);
        for node in 0..2 {
            assert_eq!(read(&mut mesh, node, "k").unwrap(), "2");
            let told =
                |event: &Event| matches!(event, Event::Problem(p) if p.kind == ProblemKind::NotResolved);
            assert_eq!(mesh.nodes[node].events.iter().filter(|event| told(event)).count(), 1);
            assert_eq!(conflicts(&mesh, node).len(), 1);
        }
        assert_level(&mut mesh);
    }
}

#[test]
fn a_node_without_the_resolver_shows_the_youngest_and_loses_no_version() {
    let mut mesh = mesh(3, &lister());
    configure(&mut mesh, 2, Config { interests: interests(&["t"]), ..Config::default() });
    write_apart(&mut mesh, "k", &[Some("1"), Some("2")]);
    link_all(&mut mesh);
    assert_eq!(read(&mut mesh, 1, "k").unwrap(), r#"{"of":["1","2"]}"#);
    assert_eq!(read(&mut mesh, 2, "k").unwrap(), "2");
    assert!(!mesh.nodes[2].events.iter().any(|event| matches!(event, Event::Diverged { .. })));
    // What it writes replaces what it saw, on all.
    mesh.write(2, "t", "k", "3");
    mesh.run(5000);
    for node in 0..3 {
        assert_eq!(read(&mut mesh, node, "k").unwrap(), "3", "node {node}");
    }
    // With the resolver it is like the others from the next version on.
    configure(&mut mesh, 2, with_resolver(lister()));
    cut_all(&mut mesh);
    write_apart(&mut mesh, "k", &[Some("4"), Some("5")]);
    link_all(&mut mesh);
    assert_eq!(read(&mut mesh, 2, "k").unwrap(), r#"{"of":["4","5"]}"#);
}

#[test]
fn a_whole_write_of_a_node_without_the_resolver_is_one_version_beside_the_others() {
    let mut mesh = mesh(3, &lister());
    configure(&mut mesh, 0, Config { interests: interests(&["t"]), ..Config::default() });
    write_apart(&mut mesh, "k", &[Some(r#"{"n":1}"#), Some("2"), Some("3")]);
    link_all(&mut mesh);
    for node in 1..3 {
        let expected = r#"{"of":["{\"n\":1}","2","3"]}"#;
        assert_eq!(read(&mut mesh, node, "k").unwrap(), expected, "node {node}");
    }
    assert_eq!(read(&mut mesh, 0, "k").unwrap(), "3");
}

#[test]
fn documents_that_were_there_before_there_was_a_resolver_are_one_version() {
    let mut mesh = Mesh::new(2, &["t"]);
    write_apart(&mut mesh, "k", &[Some("1"), Some("2")]);
    link_all(&mut mesh);
    cut_all(&mut mesh);
    (0..2).for_each(|node| configure(&mut mesh, node, with_resolver(lister())));
    write_apart(&mut mesh, "k", &[Some("3"), Some("4")]);
    mesh.write(0, "t", "other", "5");
    link_all(&mut mesh);
    for node in 0..2 {
        assert_eq!(read(&mut mesh, node, "k").unwrap(), r#"{"of":["3","4"]}"#, "node {node}");
    }
    assert_level(&mut mesh);
}

#[test]
fn a_document_that_the_store_had_set_aside_is_given_to_it_again_when_only_its_state_changes() {
    let mut mesh = mesh(4, &Resolver::new(|_, _, _| Some("{}".into())));
    write_apart(&mut mesh, "k", &[Some("1"), Some("2"), Some("3")]);
    mesh.link(0, 3);
    mesh.link(1, 3);
    mesh.run(5000);
    assert_eq!(read(&mut mesh, 3, "k").unwrap(), "{}");
    // What a table does that refuses it: the row says what the table does not have.
    mesh.store(3).docs.clear();
    mesh.link(2, 3);
    mesh.run(5000);
    assert_eq!(read(&mut mesh, 3, "k").unwrap(), "{}");
}

/// All nodes hold the same entries; what each shows is what its resolver makes of them, joined in any order.
fn assert_resolved(mesh: &mut Mesh, rng: &mut fastrand::Rng, seed: u64) {
    let mut first = None;
    for node in 0..mesh.nodes.len() {
        let resolver = mesh.nodes[node].config.custom.get(&doc("k").0).cloned();
        let store = mesh.store(node);
        assert_eq!(store.outbox_len(), 0);
        let mut said: Vec<(DocId, Merged, bool)> = Vec::new();
        for (log, entries) in &store.log {
            for stored in entries {
                let (entry, stamp) = (&stored.entry, stored.entry.stamp(log.author));
                let state = match entry.op {
                    Op::Put => Merged::replaced(stamp, Some(&entry.payload)),
                    Op::Delete => Merged::replaced(stamp, None),
                    Op::Edit => Merged::decode_edit(entry.payload.clone(), stamp).unwrap(),
                };
                said.push(((log.collection.clone(), entry.key.clone()), state, entry.op == Op::Edit));
            }
        }
        rng.shuffle(&mut said);
        let mut states: BTreeMap<DocId, Merged> = BTreeMap::new();
        for (doc, state, _) in said {
            states.entry(doc).or_default().join(state);
        }
        // What members say of themselves is the engine's own.
        states.retain(|(collection, _), _| collection != members());
        let mut wanted: BTreeMap<DocId, Bytes> = BTreeMap::new();
        for (doc, state) in &mut states {
            state.resolve(doc, resolver.as_ref()).unwrap();
            wanted.extend(state.content().map(|content| (doc.clone(), content)));
        }
        let mut docs = store.docs.clone();
        docs.retain(|(collection, _), _| collection != members());
        assert_eq!(docs, wanted, "seed {seed}: documents of node {node} are what its entries say");
        let stamps: BTreeMap<_, _> = store.rows.iter().map(|(doc, row)| (doc.clone(), row.stamp)).collect();
        // States of documents that nobody wrote a version of are kept or not, as it comes.
        let versions: BTreeMap<_, _> =
            states.iter().map(|(doc, state)| (doc.clone(), state.sides())).collect();
        for (doc, bytes) in &store.merged {
            let state = Merged::decode(bytes.clone(), stamps[doc]).unwrap();
            assert_eq!(state.sides(), versions[doc], "seed {seed}: no version of {doc:?} is lost on {node}");
        }
        let logs: BTreeMap<_, _> =
            store.log.iter().map(|(log, entries)| (log.clone(), entries.len())).collect();
        match &first {
            None => first = Some((logs, stamps, versions)),
            Some(other) => assert_eq!(*other, (logs, stamps, versions), "seed {seed}: node {node}"),
        }
        // Where nodes decide differently it is told.
        let alike =
            mesh.nodes.iter().all(|other| other.config.custom.len() == mesh.nodes[node].config.custom.len());
        let diverged = mesh.nodes[node].events.iter().any(|event| matches!(event, Event::Diverged { .. }));
        assert!(!alike || !diverged, "seed {seed}");
    }
}

/// Random writes, deletes, cuts, crashes, clock steps, and nodes that differ in how they write, in a random schedule.
#[test]
fn whatever_happens_all_nodes_end_with_the_same_versions() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(2..6);
        let mut mesh = Mesh::seeded(count, &["t"], seed);
        let plain = Config { interests: interests(&["t"]), ..Config::default() };
        let merging = Config { merging: interests(&["t"]), ..plain.clone() };
        let mixed = rng.bool();
        for node in 0..count {
            let config = match rng.u8(..4) {
                0 if mixed => plain.clone(),
                1 if mixed => merging.clone(),
                _ => with_resolver(lister()),
            };
            configure(&mut mesh, node, config);
        }
        for number in 0..rng.u64(20..120) {
            let (node, other) = (rng.usize(..count), rng.usize(..count));
            let key = format!("k{}", rng.u8(..3));
            match rng.u8(..12) {
                0..=5 => mesh.write(node, "t", &key, &format!("{{\"n\":{number}}}")),
                6 => mesh.delete(node, "t", &key),
                what => mesh.disturb(&mut rng, (node, other), what - 7),
            }
            for _ in 0..rng.usize(..40) {
                mesh.step();
            }
        }
        mesh.heal();
        assert_resolved(&mut mesh, &mut rng, seed);
    }
}
