//! History that is forgotten, snapshots in its place, members and interests that change.

#[allow(unreachable_pub, dead_code)]
mod mesh;

use entgldb_replica::Input;
use entgldb_replica::event::Event;
use entgldb_replica::id::{Collection, LogId};
use entgldb_replica::limits::Limits;
use mesh::{Mesh, interests};

const RETENTION_MS: u64 = 60_000;

/// Nodes that forget after a minute, all linked with all.
fn forgetful(count: usize, collections: &[&str]) -> Mesh {
    let mut mesh = Mesh::new(count, collections);
    for index in 0..count {
        mesh.nodes[index].config.retention_ms = Some(RETENTION_MS);
        mesh.restart(index);
    }
    for a in 0..count {
        for b in a + 1..count {
            mesh.link(a, b);
        }
    }
    mesh
}

fn add(mesh: &mut Mesh, collections: &[&str]) -> usize {
    let index = mesh.add(collections);
    mesh.nodes[index].config.retention_ms = Some(RETENTION_MS);
    mesh.restart(index);
    index
}

/// Entries of applications that a node still has.
fn entries(mesh: &mut Mesh, index: usize) -> usize {
    mesh.store(index).logs().map(|(_, entries)| entries.len()).sum()
}

fn rows(mesh: &mut Mesh, index: usize, collection: &str) -> usize {
    let name = Collection::new(collection).unwrap();
    mesh.store(index).docs.keys().filter(|(collection, _)| *collection == name).count()
}

fn snapshots(mesh: &Mesh, index: usize) -> usize {
    let done = |event: &&Event| matches!(event, Event::Snapshot { done: true, .. });
    mesh.nodes[index].events.iter().filter(done).count()
}

#[test]
fn what_all_members_hold_is_forgotten_once_it_is_old_and_rows_stay() {
    let mut mesh = forgetful(3, &["t"]);
    for n in 0..50 {
        mesh.write(n % 3, "t", &format!("k{n}"), "{}");
    }
    mesh.delete(1, "t", "k7");
    mesh.run(RETENTION_MS / 2);
    assert_eq!(entries(&mut mesh, 0), 51, "it is not old enough");
    mesh.run(3 * RETENTION_MS);
    for index in 0..3 {
        assert_eq!(entries(&mut mesh, index), 0, "node {index} forgets");
        assert_eq!(rows(&mut mesh, index, "t"), 49);
    }
    mesh.write(0, "t", "k8", "{\"after\":1}");
    mesh.run(10_000);
    mesh.assert_equal();
    assert_eq!(snapshots(&mesh, 1), 0, "what comes after needs no snapshot");
}

#[test]
fn nothing_is_forgotten_while_a_member_is_away_and_it_comes_back_with_its_own_writes() {
    let mut mesh = forgetful(3, &["t"]);
    for n in 0..10 {
        mesh.write(0, "t", &format!("k{n}"), "{}");
    }
    mesh.run(RETENTION_MS / 2);
    mesh.unlink(0, 2);
    mesh.unlink(1, 2);
    mesh.delete(0, "t", "k3");
    mesh.write(1, "t", "k4", "{\"here\":1}");
    mesh.write(2, "t", "k5", "{\"away\":1}");
    mesh.run(30 * RETENTION_MS);
    assert_eq!(entries(&mut mesh, 0), 2, "what the member that is away has not said it holds stays");
    mesh.link(0, 2);
    mesh.run(5_000);
    mesh.assert_equal();
    assert_eq!(rows(&mut mesh, 1, "t"), 9, "what was deleted stays deleted");
    assert_eq!(snapshots(&mesh, 2), 0);
    mesh.link(1, 2);
    mesh.run(3 * RETENTION_MS);
    assert_eq!(entries(&mut mesh, 0), 0, "and then it is forgotten");
}

#[test]
fn a_node_that_joins_after_all_was_forgotten_has_all_rows_and_none_that_was_deleted() {
    let mut mesh = forgetful(3, &["t", "u"]);
    for n in 0..200 {
        mesh.write(n % 3, "t", &format!("k{n:03}"), &format!("{{\"n\":{n}}}"));
        mesh.write(n % 3, "u", &format!("k{n:03}"), "{}");
    }
    mesh.run(1_000);
    for n in 0..20 {
        mesh.delete(0, "t", &format!("k{:03}", 7 * n));
    }
    mesh.run(3 * RETENTION_MS);
    assert_eq!(entries(&mut mesh, 0), 0);
    let late = add(&mut mesh, &["t"]);
    mesh.limit(late, Limits { page_entries: 16, ..Limits::default() });
    mesh.write(late, "t", "own", "{\"mine\":1}");
    mesh.write(late, "t", "k007", "{\"mine\":2}");
    mesh.link(1, late);
    mesh.run(10_000);
    assert!(snapshots(&mesh, late) >= 1);
    assert_eq!(rows(&mut mesh, late, "t"), 182, "200, less 20, and two of its own");
    assert_eq!(rows(&mut mesh, late, "u"), 0, "what it did not ask for does not come");
    mesh.write(0, "t", "k001", "{\"later\":1}");
    mesh.delete(2, "t", "k002");
    mesh.run(10_000);
    let docs = |mesh: &mut Mesh, index| {
        let docs = mesh.store(index).docs.clone();
        docs.into_iter().filter(|(doc, _)| doc.0.as_str() == "t").collect::<Vec<_>>()
    };
    let expected = docs(&mut mesh, 0);
    for index in 1..4 {
        assert_eq!(docs(&mut mesh, index), expected, "node {index}");
    }
}

#[test]
fn a_snapshot_goes_on_where_it_was_cut_and_after_a_crash() {
    let mut mesh = forgetful(2, &["t"]);
    for n in 0..300 {
        mesh.write(0, "t", &format!("k{n:03}"), "{}");
    }
    mesh.run(3 * RETENTION_MS);
    let late = add(&mut mesh, &["t"]);
    for index in 0..3 {
        mesh.limit(index, Limits { page_entries: 10, ..Limits::default() });
    }
    let mut cuts = 0;
    while rows(&mut mesh, late, "t") < 300 {
        mesh.link(cuts % 2, late);
        for _ in 0..12 {
            mesh.step();
        }
        cuts += 1;
        assert!(cuts < 100, "{} rows after {cuts} cuts", rows(&mut mesh, late, "t"));
        if cuts % 3 == 0 {
            mesh.restart(late);
        } else {
            mesh.unlink(cuts % 2, late);
            mesh.unlink(1 - cuts % 2, late);
        }
        mesh.run(1_000);
    }
    assert!(cuts > 3, "it was cut");
    mesh.link(0, 1);
    mesh.link(0, late);
    mesh.run(10_000);
    mesh.assert_equal();
}

#[test]
fn who_goes_on_with_a_snapshot_is_not_taken_to_hold_another_branch_of_a_log() {
    let mut mesh = forgetful(3, &["t"]);
    for n in 0..300 {
        mesh.write(0, "t", &format!("k{:03}", n % 100), &format!("{{\"n\":{n}}}"));
    }
    mesh.run(1_000);
    let log = mesh.store(0).logs().next().map(|(log, _)| log.clone()).unwrap();
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        mesh.unlink(a, b);
    }
    let copy = mesh.store(0).clone();
    let branch = |mesh: &mut Mesh, keys: &[&str], other: usize| {
        for key in keys {
            mesh.write(0, "t", key, "{}");
        }
        mesh.link(0, other);
        mesh.run(1_000);
        mesh.crash(0);
        mesh.nodes[0].mark = None;
        mesh.start(0, copy.clone());
        mesh.store(other).head(&log).0
    };
    let (short, long) = (branch(&mut mesh, &["z0"], 1), branch(&mut mesh, &["z1", "z2"], 2));
    assert_eq!((short.seq.0, long.seq.0), (301, 302), "the log has forked");

    let late = add(&mut mesh, &["t"]);
    for index in 1..=late {
        mesh.limit(index, Limits { page_entries: 10, snapshot_entries: 10, ..Limits::default() });
    }
    mesh.link(1, late);
    while rows(&mut mesh, late, "t") < 50 {
        assert!(mesh.step());
    }
    mesh.unlink(1, late);
    mesh.link(2, late);
    mesh.run(10_000);
    assert_eq!(rows(&mut mesh, late, "t"), 102, "the first has given 50, the other one the rest");
    let signed = mesh.store(late).signed[&log].values().map(|signed| signed.head);
    assert!(!signed.collect::<Vec<_>>().contains(&short), "its rows were not all here");
    assert_eq!(mesh.store(late).head(&log).0, long);
    mesh.link(1, late);
    mesh.run(60_000);
    for index in 1..=late {
        assert_eq!(rows(&mut mesh, index, "t"), 103, "rows of both branches come to node {index}");
    }
}

#[test]
fn a_member_that_was_removed_is_not_waited_for_and_may_come_back() {
    let mut mesh = forgetful(3, &["t"]);
    for n in 0..10 {
        mesh.write(0, "t", &format!("k{n}"), "{}");
    }
    mesh.run(RETENTION_MS);
    let away = mesh.nodes[2].id();
    mesh.unlink(0, 2);
    mesh.unlink(1, 2);
    mesh.delete(0, "t", "k3");
    mesh.write(2, "t", "own", "{\"away\":1}");
    mesh.write(2, "t", "k4", "{\"away\":1}");
    mesh.run(3 * RETENTION_MS);
    assert_ne!(entries(&mut mesh, 0), 0);
    mesh.input(1, Input::RemoveMember(away));
    mesh.run(3 * RETENTION_MS);
    let told = |mesh: &Mesh, index: usize| {
        mesh.nodes[index]
            .events
            .iter()
            .any(|event| matches!(event, Event::MemberRemoved { node, .. } if *node == away))
    };
    assert!(told(&mesh, 0) && told(&mesh, 1));
    assert_eq!(entries(&mut mesh, 0), 0, "nobody waits for it");
    mesh.link(0, 2);
    mesh.run(RETENTION_MS);
    mesh.assert_equal();
    assert!(snapshots(&mesh, 2) >= 1, "what it missed is gone as history");
    assert_eq!(rows(&mut mesh, 1, "t"), 10, "k3 stays deleted, and what it wrote is there");
    let back = |event: &Event| matches!(event, Event::MemberReturned { node } if *node == away);
    assert!(mesh.nodes[0].events.iter().any(back));
}

#[test]
fn a_collection_that_is_added_later_comes_in_full_and_one_that_is_taken_away_stays_as_it_was() {
    let mut mesh = forgetful(3, &["t", "u"]);
    mesh.nodes[2].config.interests = interests(&["t"]);
    mesh.restart(2);
    mesh.link(0, 2);
    mesh.link(1, 2);
    for n in 0..20 {
        mesh.write(0, "t", &format!("k{n}"), "{}");
        mesh.write(1, "u", &format!("k{n}"), "{}");
    }
    mesh.run(5_000);
    assert_eq!((rows(&mut mesh, 2, "t"), rows(&mut mesh, 2, "u")), (20, 0));
    mesh.input(2, Input::Interests(interests(&["t", "u"])));
    assert!(!mesh.is_linked(0, 2), "what two nodes share is settled when they meet");
    mesh.link(0, 2);
    mesh.run(5_000);
    assert_eq!(rows(&mut mesh, 2, "u"), 20);
    mesh.assert_equal();
    mesh.input(2, Input::Interests(interests(&["u"])));
    mesh.link(0, 2);
    mesh.write(0, "t", "later", "{}");
    mesh.write(0, "u", "later", "{}");
    mesh.run(5_000);
    assert_eq!((rows(&mut mesh, 2, "t"), rows(&mut mesh, 2, "u")), (20, 21));
    mesh.run(3 * RETENTION_MS);
    mesh.input(2, Input::Interests(interests(&["t", "u"])));
    mesh.link(0, 2);
    mesh.run(5_000);
    assert_eq!(rows(&mut mesh, 2, "t"), 21, "what it missed comes when it is added again");
    mesh.assert_equal();
}

#[test]
fn a_long_history_of_few_rows_comes_as_a_snapshot() {
    let mut mesh = forgetful(1, &["t"]);
    mesh.nodes[0].config.retention_ms = None;
    mesh.restart(0);
    for n in 0..300 {
        mesh.write(0, "t", &format!("k{}", n % 5), &format!("{{\"n\":{n}}}"));
    }
    let late = add(&mut mesh, &["t"]);
    mesh.limit(late, Limits { snapshot_entries: 100, ..Limits::default() });
    mesh.link(0, late);
    mesh.run(5_000);
    assert_eq!((snapshots(&mesh, late), entries(&mut mesh, late)), (1, 0));
    assert_eq!(rows(&mut mesh, late, "t"), 5);
    mesh.write(0, "t", "k1", "{\"last\":1}");
    mesh.run(5_000);
    assert_eq!(entries(&mut mesh, late), 1, "it goes on with history");
    let expected = mesh.store(0).docs.clone();
    assert_eq!(mesh.store(late).docs, expected);
    let log: LogId = mesh.store(late).logs().map(|(log, _)| log).next().unwrap().clone();
    let expected = mesh.store(0).head(&log);
    assert_eq!(mesh.store(late).head(&log), expected);
}

#[test]
fn what_loses_in_a_document_that_merges_when_a_snapshot_is_joined_is_in_the_conflict_list() {
    for is_away_younger in [false, true] {
        let mut mesh = forgetful(3, &["t"]);
        for index in 0..3 {
            mesh.nodes[index].config.merging = interests(&["t"]);
            mesh.restart(index);
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            mesh.link(a, b);
        }
        mesh.write(0, "t", "k", "{\"a\":0,\"b\":0,\"c\":0}");
        mesh.run(RETENTION_MS);
        let away = mesh.nodes[2].id();
        mesh.unlink(0, 2);
        mesh.unlink(1, 2);
        let edit = |mesh: &mut Mesh, index: usize| {
            mesh.run(1_000);
            let (name, other) = if index == 0 { ("here", "b") } else { ("away", "c") };
            let others: String =
                ["b", "c"].map(|field| format!(",\"{field}\":{}", u8::from(field == other))).concat();
            mesh.write(index, "t", "k", &format!("{{\"a\":\"{name}\"{others}}}"));
        };
        for index in if is_away_younger { [0, 2] } else { [2, 0] } {
            edit(&mut mesh, index);
        }
        mesh.input(1, Input::RemoveMember(away));
        mesh.run(3 * RETENTION_MS);
        assert_eq!(entries(&mut mesh, 0), 0);
        mesh.link(0, 2);
        mesh.run(RETENTION_MS);
        assert!(snapshots(&mesh, 2) >= 1);
        let (won, lost) = if is_away_younger { ("away", "here") } else { ("here", "away") };
        let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
        let docs = &mesh.store(2).docs;
        let shown: Vec<String> = docs.values().map(&text).collect();
        assert_eq!(shown, [format!("{{\"a\":\"{won}\",\"b\":1,\"c\":1}}")]);
        // The younger one may have got to the giver, and won there, before the row came.
        let joins = if is_away_younger { 0 } else { 2 };
        let noted =
            mesh.store(joins).conflicts.values().filter_map(|conflict| conflict.loser.content.as_ref());
        let noted: Vec<String> = noted.map(&text).collect();
        assert!(noted.iter().any(|content| content.contains(lost)), "{lost} is not noted: {noted:?}");
    }
}
