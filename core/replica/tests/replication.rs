//! How replicas behave together, over a network that the test moves.

#[allow(unreachable_pub, missing_docs, dead_code)]
mod mesh;

use bytes::Bytes;
use entgldb_replica::Input;
use entgldb_replica::event::{Anew, Event};
use entgldb_replica::id::{Collection, Key};
use entgldb_replica::resolve::Side;
use entgldb_replica::wire::Message;
use mesh::memory::MemoryStore;
use mesh::{Mesh, interests};

fn conflicts(mesh: &Mesh, node: usize) -> usize {
    mesh.nodes[node].events.iter().filter(|event| matches!(event, Event::Conflict(_))).count()
}

#[test]
fn a_write_reaches_the_other_node_and_comes_back_to_nobody() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.settle();
    mesh.write(0, "t", "k", "one");
    mesh.settle();
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 1);
    assert_eq!(mesh.nodes[1].replica.as_ref().unwrap().status().captured, 0, "no echo");
}

#[test]
fn a_line_of_three_converges_through_the_middle() {
    let mut mesh = Mesh::new(3, &["t"]);
    mesh.link(0, 1);
    mesh.link(1, 2);
    for (node, key) in [(0, "a"), (1, "b"), (2, "c")] {
        mesh.write(node, "t", key, "x");
    }
    mesh.settle();
    mesh.assert_equal();
    assert_eq!(mesh.store(0).docs.len(), 3);
}

#[test]
fn what_was_written_apart_meets_and_the_younger_version_stands() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.write(0, "t", "k", "older");
    mesh.run(1000);
    mesh.write(1, "t", "k", "younger");
    mesh.delete(1, "t", "other");
    mesh.link(0, 1);
    mesh.run(3000);
    mesh.assert_equal();
    assert_eq!(mesh.store(0).docs.values().collect::<Vec<_>>(), [&Bytes::from("younger")]);
    assert_eq!((conflicts(&mesh, 0), conflicts(&mesh, 1)), (1, 1));
    let kept = mesh.store(0).conflicts.values().next().unwrap().clone();
    assert_eq!(kept.loser.content, Some("older".into()));
    assert_eq!(kept.winner.content, Some("younger".into()));
}

#[test]
fn long_branches_of_one_document_meet_in_one_conflict_for_each_pair_of_ends() {
    let mut mesh = Mesh::new(3, &["t"]);
    mesh.link(0, 1);
    mesh.link(1, 2);
    mesh.write(0, "t", "k", "common");
    mesh.settle();
    mesh.unlink(0, 1);
    mesh.unlink(1, 2);
    for turn in 0..3_000 {
        mesh.write(turn % 3, "t", "k", &format!("edit {turn}"));
        mesh.settle();
        mesh.mono += 10;
    }
    for node in 0..3 {
        mesh.store(node).versions_read = 0;
    }
    mesh.link(0, 1);
    mesh.link(1, 2);
    mesh.run(3000);
    mesh.assert_equal();
    for node in 0..3 {
        // One for each entry that comes, and a few walks: not one walk for each.
        let read = mesh.store(node).versions_read;
        assert!(read < 20_000, "{read} versions were looked up on node {node}");
        let listed: Vec<_> = mesh.store(node).conflicts.values().cloned().collect();
        assert!((2..=6).contains(&listed.len()), "node {node} lists {}", listed.len());
        let lost = |content: &str| listed.iter().any(|c| c.loser.content == Some(content.to_owned().into()));
        assert!(lost("edit 2998") || lost("edit 2997"), "node {node} keeps what lost");
        assert!((2..=6).contains(&conflicts(&mesh, node)), "told {} times", conflicts(&mesh, node));
    }
}

#[test]
fn entries_that_are_old_enough_are_taken_though_their_author_goes_on_in_the_future() {
    let mut mesh = Mesh::new(3, &["t"]);
    // The clock of the one in the middle differs little from both, theirs from each other's too much.
    mesh.nodes[1].clock_offset_ms = 10_000;
    mesh.nodes[2].clock_offset_ms = 305_000;
    mesh.link(0, 1);
    mesh.link(1, 2);
    for second in 0..60 {
        mesh.write(2, "t", &format!("far {second}"), "{}");
        mesh.write(1, "t", &format!("near {second}"), "{}");
        mesh.run(1_000);
    }
    let here: Vec<String> = mesh.store(0).docs.keys().map(|(_, key)| key.to_string()).collect();
    let of = |name: &str| here.iter().filter(|key| key.starts_with(name)).count();
    // What waits is as old as the clocks are too far apart, and a try each few seconds.
    assert!(of("near") >= 40 && of("far") >= 40, "{} and {} of 60", of("near"), of("far"));
    mesh.run(60_000);
    mesh.assert_equal();
}

#[test]
fn an_older_delete_does_not_remove_a_younger_write_and_a_younger_delete_does() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "a", "1");
    mesh.write(0, "t", "b", "1");
    mesh.settle();
    mesh.unlink(0, 1);
    mesh.delete(0, "t", "a");
    mesh.write(0, "t", "b", "2");
    mesh.run(1000);
    mesh.write(1, "t", "a", "2");
    mesh.delete(1, "t", "b");
    mesh.link(0, 1);
    mesh.run(3000);
    mesh.assert_equal();
    let docs: Vec<String> = mesh.store(0).docs.keys().map(|(_, key)| key.to_string()).collect();
    assert_eq!(docs, ["a"]);
    assert_eq!(conflicts(&mesh, 0), 2);
}

#[test]
fn equal_contents_written_apart_are_no_conflict() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.write(0, "t", "k", "same");
    mesh.write(1, "t", "k", "same");
    mesh.link(0, 1);
    mesh.run(3000);
    mesh.assert_equal();
    assert_eq!((conflicts(&mesh, 0), conflicts(&mesh, 1)), (0, 0));
}

#[test]
fn edits_of_each_others_versions_are_no_conflict_even_when_they_arrive_out_of_order() {
    // 0 and 1 edit in turns; 2 gets the log of 0 whole before it gets anything of 1.
    let mut mesh = Mesh::new(3, &["t"]);
    mesh.link(0, 1);
    for turn in 0..6 {
        mesh.write(turn % 2, "t", "k", &format!("turn {turn}"));
        mesh.run(200);
    }
    // The page that 2 gets is split by log: 0's first, then 1's.
    mesh.tamper = Some(|kind, body| match Message::decode(kind, body.clone()) {
        Ok(Some(Message::Page(mut page))) => {
            page.runs.reverse();
            Message::Page(page).encode().1
        }
        _ => body,
    });
    mesh.link(1, 2);
    mesh.run(3000);
    mesh.assert_equal();
    assert_eq!(conflicts(&mesh, 2), 0);
}

#[test]
fn a_write_and_its_undoing_between_two_looks_emit_nothing() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "k", "one");
    mesh.settle();
    let entries = mesh.nodes[0].replica.as_ref().unwrap().status().entries;
    mesh.write_at(
        0,
        &[("t", "k", Some("two")), ("t", "k", Some("one")), ("t", "new", Some("x")), ("t", "new", None)],
    );
    mesh.run(1000);
    assert_eq!(mesh.nodes[0].replica.as_ref().unwrap().status().entries, entries);
    mesh.assert_equal();
}

#[test]
fn a_node_gets_only_collections_that_it_asked_for() {
    let mut mesh = Mesh::new(1, &["public", "secret"]);
    let other = mesh.add(&["public"]);
    mesh.link(0, other);
    mesh.write_at(0, &[("public", "k", Some("x")), ("secret", "k", Some("y"))]);
    mesh.run(5000);
    assert_eq!(mesh.store(other).docs.len(), 1);
    assert!(mesh.store(other).log.keys().all(|log| log.collection.as_str() == "public"));
}

#[test]
fn entries_of_a_collection_that_was_not_asked_for_close_the_link() {
    let mut mesh = Mesh::new(2, &["a"]);
    mesh.tamper = Some(|kind, body| match Message::decode(kind, body.clone()) {
        Ok(Some(Message::Page(mut page))) => {
            page.runs[0].log.collection = Collection::new("b").unwrap();
            Message::Page(page).encode().1
        }
        _ => body,
    });
    mesh.link(0, 1);
    mesh.write(0, "a", "k", "x");
    mesh.settle();
    assert!(!mesh.is_linked(0, 1));
    assert!(mesh.store(1).docs.is_empty());
}

#[test]
fn a_transaction_over_several_collections_stays_whole() {
    let mut mesh = Mesh::new(2, &["orders", "lines"]);
    mesh.link(0, 1);
    mesh.settle();
    let before = mesh.store(1).commits;
    mesh.write_at(0, &[("orders", "1", Some("o")), ("lines", "1", Some("a")), ("lines", "2", Some("b"))]);
    mesh.settle();
    assert_eq!(mesh.store(1).commits, before + 1, "all of it in one commit");
    mesh.assert_equal();
}

#[test]
fn a_long_history_comes_in_pages_and_every_unit_in_one_commit() {
    let mut mesh = Mesh::new(1, &["a", "b"]);
    for unit in 0..300 {
        let key = format!("k{unit}");
        let rows: Vec<(&str, String)> =
            (0..20).map(|row| (["a", "b"][row % 2], format!("{key}-{row}"))).collect();
        let changes: Vec<_> = rows.iter().map(|(c, k)| (*c, k.as_str(), Some("content"))).collect();
        mesh.write_at(0, &changes);
        mesh.settle();
    }
    let other = mesh.add(&["a", "b"]);
    mesh.link(0, other);
    let mut seen = Vec::new();
    while mesh.step() {
        let count = mesh.store(other).docs.len();
        assert_eq!(count % 20, 0, "a unit is never half there");
        seen.push(count);
    }
    mesh.assert_equal();
    seen.dedup();
    assert!(seen.len() > 4, "it came in several pages: {seen:?}");
    let progress =
        mesh.nodes[other].events.iter().filter(|e| matches!(e, Event::SyncProgress { .. })).count();
    assert!(progress >= 3);
    assert!(mesh.nodes[other].events.iter().any(|e| matches!(e, Event::CaughtUp { .. })));
}

#[test]
fn a_relay_that_got_history_in_pages_passes_it_on_whole() {
    let mut mesh = Mesh::new(3, &["a", "b"]);
    for unit in 0..150 {
        for node in 0..2 {
            let key = format!("k{node}-{unit}");
            mesh.write_at(node, &[("a", &key, Some("x")), ("b", &key, Some("y"))]);
        }
        mesh.run(100);
    }
    mesh.link(0, 1);
    mesh.run(3000);
    mesh.link(1, 2);
    while mesh.step() {
        assert_eq!(mesh.store(2).docs.len() % 2, 0, "a unit is never half there");
    }
    mesh.assert_equal();
}

#[test]
fn entries_too_far_ahead_wait_and_are_taken_once_the_clocks_agree() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.nodes[0].clock_offset_ms = 3_600_000;
    mesh.link(0, 1);
    mesh.write(0, "t", "k", "from the future");
    mesh.run(20_000);
    assert!(mesh.store(1).docs.is_empty());
    for node in 0..2 {
        assert!(
            mesh.nodes[node].events.iter().any(|e| matches!(e, Event::ClockSkew { log: Some(_), .. })),
            "both sides are told; node {node} was not"
        );
    }
    assert!(mesh.is_linked(0, 1), "waiting is no reason to part");
    mesh.write(1, "t", "other", "x");
    mesh.run(1000);
    assert_eq!(mesh.store(0).docs.len(), 2, "the other direction goes on");
    mesh.nodes[1].clock_offset_ms = 3_600_000;
    mesh.run(20_000);
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 2);
}

#[test]
fn a_payload_altered_in_a_relays_store_is_refused_and_the_entry_is_named() {
    let mut mesh = Mesh::new(3, &["t", "u"]);
    mesh.link(0, 1);
    for key in ["one", "two", "three"] {
        mesh.write(0, "t", key, "true");
    }
    mesh.write(0, "u", "fine", "x");
    mesh.settle();
    let (_, entries) = mesh.store(1).log.iter_mut().find(|(log, _)| log.collection.as_str() == "t").unwrap();
    entries[1].entry.payload = "false".into();
    mesh.link(1, 2);
    mesh.run(5000);
    let refused = mesh.nodes[2].events.iter().find_map(|event| match event {
        Event::Refused { detail, .. } => Some(detail.clone()),
        _ => None,
    });
    let refused = refused.expect("it was refused");
    assert!(refused.contains("\"two\"") && refused.contains("Seq(2)"), "{refused}");
    assert!(
        mesh.store(2).log.keys().all(|log| log.collection.as_str() == "u"),
        "nothing of that log was stored"
    );
    assert_eq!(mesh.store(2).docs.len(), 1, "the other log flows");
    assert!(mesh.is_linked(1, 2));
    mesh.link(0, 2);
    mesh.run(5000);
    assert_eq!(mesh.store(2).docs.len(), 4, "an honest peer brings what was refused");
}

#[test]
fn entries_that_another_member_forges_are_refused() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.tamper = Some(|kind, body| match Message::decode(kind, body.clone()) {
        Ok(Some(Message::Page(mut page))) => {
            page.runs[0].public_key = entgldb_replica::entry::AuthorKey::from_seed(&[99; 32]).public_key();
            Message::Page(page).encode().1
        }
        _ => body,
    });
    mesh.link(0, 1);
    mesh.write(0, "t", "k", "x");
    mesh.run(3000);
    assert!(mesh.store(1).docs.is_empty());
    assert!(mesh.nodes[1].events.iter().any(|e| matches!(e, Event::Refused { .. })));
    assert!(mesh.nodes[0].events.iter().any(|e| matches!(e, Event::RefusedByPeer { .. })));
}

#[test]
fn a_local_write_that_slips_in_before_an_apply_is_captured_first() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.settle();
    let at = mesh.now(1).wall;
    let doc = (Collection::new("t").unwrap(), Key::new("k").unwrap());
    mesh.store(1).ambush.push_back((doc, Some("mine".into()), at));
    mesh.write(0, "t", "k", "theirs");
    mesh.run(3000);
    mesh.assert_equal();
    let all: Vec<_> = mesh.store(0).log.values().flatten().map(|s| s.entry.payload.clone()).collect();
    assert!(all.contains(&Bytes::from("mine")), "the local write is in an entry");
    assert_eq!(mesh.store(0).conflicts.len(), 1);
}

#[test]
fn an_application_that_writes_without_pause_does_not_keep_remote_changes_out() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.settle();
    let at = mesh.now(1).wall;
    for write in 0..200 {
        let doc = (Collection::new("t").unwrap(), Key::new(&format!("own {write}")).unwrap());
        mesh.store(1).ambush.push_back((doc, Some("x".into()), at));
    }
    mesh.write(0, "t", "k", "theirs");
    for _ in 0..50 {
        mesh.step();
    }
    assert!(!mesh.store(1).ambush.is_empty(), "it was still writing");
    assert!(mesh.store(1).docs.values().any(|content| content == "theirs"));
    mesh.store(1).ambush.clear();
    mesh.input(1, Input::LocalChange);
    mesh.run(3000);
    mesh.assert_equal();
}

#[test]
fn old_edits_made_while_the_engine_was_off_do_not_borrow_a_young_stamp() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "k", "first");
    mesh.settle();
    mesh.unlink(0, 1);
    let store = mesh.crash(0);
    let mut store = store;
    let early = mesh.now(0).wall;
    store.write("t", "k", Some("old edit"), early);
    mesh.run(60_000);
    mesh.write(1, "t", "k", "young edit");
    mesh.run(60_000);
    store.write("t", "unrelated", Some("x"), mesh.now(0).wall);
    mesh.start(0, store);
    mesh.link(0, 1);
    mesh.run(3000);
    mesh.assert_equal();
    let doc = (Collection::new("t").unwrap(), Key::new("k").unwrap());
    assert_eq!(mesh.store(0).docs[&doc], "young edit");
}

#[test]
fn a_node_that_is_started_again_goes_on_where_it_was() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "a", "1");
    mesh.settle();
    mesh.restart(0);
    mesh.write(0, "t", "b", "2");
    mesh.settle();
    assert_eq!(mesh.store(0).log.len(), 1, "it goes on in the same incarnation");
    mesh.link(0, 1);
    mesh.run(3000);
    mesh.assert_equal();
}

#[test]
fn a_restored_oplog_that_meets_its_own_lost_entries_takes_them_back_and_starts_a_new_incarnation() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "a", "1");
    mesh.settle();
    let backup = mesh.store(0).clone();
    mesh.write(0, "t", "b", "2");
    mesh.settle();
    mesh.crash(0);
    // The mark was put back with the store, so only the peer can tell.
    mesh.nodes[0].mark = None;
    mesh.start(0, backup);
    mesh.link(0, 1);
    mesh.run(5000);
    assert!(mesh.nodes[0].events.iter().any(|e| matches!(e, Event::RolledBack { .. })));
    mesh.write(0, "t", "c", "3");
    mesh.run(5000);
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 3);
    assert_eq!(mesh.store(1).log.len(), 2, "two incarnations");
}

#[test]
fn a_restored_oplog_that_falls_short_of_its_mark_never_writes_a_position_twice() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "a", "1");
    mesh.settle();
    let backup = mesh.store(0).clone();
    mesh.write(0, "t", "b", "2");
    mesh.settle();
    mesh.crash(0);
    mesh.start(0, backup);
    // It writes before it meets anybody who knows better.
    mesh.write(0, "t", "c", "3");
    mesh.settle();
    let anew = Event::StartedAnew(Anew::OlderCopy { found: 1, expected: 2 });
    assert!(mesh.nodes[0].events.contains(&anew), "{:?}", mesh.nodes[0].events);
    mesh.link(0, 1);
    mesh.run(5000);
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 3, "what was written before and after is there");
    assert_eq!(mesh.store(1).log.len(), 2, "two incarnations");
    let forked = |event: &Event| matches!(event, Event::Forked { .. } | Event::Refused { .. });
    assert!(!mesh.nodes.iter().flat_map(|node| &node.events).any(forked));
}

#[test]
fn a_new_incarnation_that_ended_before_its_first_entry_is_not_forgotten() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "a", "1");
    mesh.settle();
    let backup = mesh.store(0).clone();
    mesh.write(0, "t", "b", "2");
    mesh.settle();
    mesh.crash(0);
    mesh.start(0, backup);
    mesh.restart(0);
    mesh.write(0, "t", "c", "3");
    mesh.link(0, 1);
    mesh.run(5000);
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 3);
}

#[test]
fn a_store_that_may_have_lost_commits_gets_a_new_incarnation_and_keeps_what_it_has() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "a", "1");
    mesh.settle();
    let mut store = mesh.crash(0);
    store.owner = None;
    mesh.start(0, store);
    mesh.write(0, "t", "b", "2");
    mesh.settle();
    assert!(mesh.nodes[0].events.contains(&Event::StartedAnew(Anew::PerhapsIncomplete)));
    assert_eq!(mesh.store(0).log.len(), 2, "two incarnations");
    mesh.link(0, 1);
    mesh.run(5000);
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 2);
}

#[test]
fn an_empty_store_and_another_nodes_store_are_told_apart() {
    let mut mesh = Mesh::new(2, &["t"]);
    for node in 0..2 {
        mesh.write(node, "t", "a", "1");
    }
    mesh.settle();
    let copied = mesh.crash(1);
    mesh.crash(0);
    mesh.start(0, MemoryStore::default());
    mesh.input(0, Input::Tick);
    mesh.crash(0);
    mesh.start(0, copied);
    mesh.input(0, Input::Tick);
    let id = mesh.nodes[1].id();
    let said = |event: &Event| matches!(event, Event::StartedAnew(_));
    let said: Vec<&Event> = mesh.nodes[0].events.iter().filter(|event| said(event)).collect();
    assert_eq!(said, [&Event::StartedAnew(Anew::Empty), &Event::StartedAnew(Anew::OtherNode(id))]);
}

#[test]
fn two_links_between_the_same_nodes_become_one() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.link(1, 0);
    mesh.settle();
    mesh.write(0, "t", "k", "x");
    mesh.run(5000);
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 1);
    assert_eq!(mesh.nodes[0].replica.as_ref().unwrap().status().peers.len(), 1);
    assert_eq!(mesh.nodes[1].replica.as_ref().unwrap().status().peers.len(), 1);
}

#[test]
fn a_converged_mesh_sends_only_digests() {
    let mut mesh = Mesh::new(3, &["t"]);
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        mesh.link(a, b);
    }
    mesh.write(0, "t", "k", "x");
    // By then each has said who it is.
    mesh.run(40_000);
    let before = mesh.frames;
    mesh.run(20_000);
    let digests = 3 * 2 * 10;
    assert!(mesh.frames - before <= digests + 6, "{} frames in 20 s", mesh.frames - before);
    assert!(mesh.nodes[0].replica.as_ref().unwrap().is_level());
}

#[test]
fn a_new_node_among_many_takes_a_long_history_from_one_of_them() {
    let mut mesh = Mesh::new(3, &["t"]);
    mesh.link(0, 1);
    mesh.link(1, 2);
    for block in 0..30 {
        let keys: Vec<String> = (0..100).map(|row| format!("{block}-{row}")).collect();
        let changes: Vec<_> = keys.iter().map(|key| ("t", key.as_str(), Some("content"))).collect();
        mesh.write_at(0, &changes);
        mesh.settle();
    }
    let newcomer = mesh.add(&["t"]);
    let before = mesh.frames;
    for peer in 0..3 {
        mesh.link(newcomer, peer);
    }
    mesh.settle();
    mesh.assert_equal();
    // 3,000 entries are three pages and a few; from three peers it would be three times as many, each acknowledged.
    assert!(mesh.frames - before < 40, "{} frames", mesh.frames - before);
}

#[test]
fn a_failed_commit_loses_nothing() {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.settle();
    mesh.store(0).fail_next_commit = true;
    mesh.write(0, "t", "a", "1");
    mesh.settle();
    mesh.link(0, 1);
    mesh.settle();
    mesh.store(1).fail_next_commit = true;
    mesh.write(0, "t", "b", "2");
    mesh.settle();
    mesh.link(0, 1);
    mesh.run(3000);
    mesh.assert_equal();
    assert_eq!(mesh.store(1).docs.len(), 2);
}

/// Two nodes that share a document are parted, write it, and meet again.
fn apart(first: &[Option<&str>], second: &[Option<&str>]) -> Mesh {
    let mut mesh = Mesh::new(2, &["t"]);
    mesh.link(0, 1);
    mesh.write(0, "t", "k", "shared");
    mesh.run(3000);
    mesh.unlink(0, 1);
    for (node, contents) in [(0, first), (1, second)] {
        for content in contents {
            mesh.run(100);
            mesh.write_at(node, &[("t", "k", *content)]);
            mesh.settle();
        }
    }
    mesh.link(0, 1);
    mesh.run(5000);
    mesh.assert_equal();
    mesh
}

#[test]
fn what_both_sides_did_alike_is_no_conflict_and_what_they_did_otherwise_is_one() {
    for (first, second, expected) in [
        (Some("x"), Some("x"), 0),
        (None, None, 0),
        (Some("x"), Some("y"), 1),
        (None, Some("y"), 1),
        (Some("x"), None, 1),
    ] {
        let mesh = apart(&[first], &[second]);
        for node in 0..2 {
            assert_eq!(conflicts(&mesh, node), expected, "{first:?} and {second:?} on node {node}");
        }
    }
}

#[test]
fn two_long_branches_of_a_document_are_one_conflict_between_their_ends() {
    let mut mesh = apart(
        &[Some("a1"), Some("a2"), Some("a3"), Some("a4")],
        &[Some("b1"), Some("b2"), Some("b3"), Some("b4"), Some("b5")],
    );
    for node in 0..2 {
        let list: Vec<_> = mesh.store(node).conflicts.values().cloned().collect();
        let contents = |side: &Side| String::from_utf8(side.content.clone().unwrap().to_vec()).unwrap();
        assert_eq!(list.len(), 1, "node {node}: {list:?}");
        assert_eq!(contents(&list[0].loser), "a4", "node {node}");
        assert!(contents(&list[0].winner).starts_with('b'), "node {node}");
    }
}

#[test]
fn a_losing_branch_that_goes_on_after_the_meeting_takes_the_place_of_its_end_in_the_list() {
    let mut mesh = Mesh::new(3, &["t"]);
    mesh.link(0, 1);
    mesh.link(1, 2);
    mesh.write(0, "t", "k", "shared");
    mesh.run(3000);
    mesh.unlink(0, 1);
    mesh.write(0, "t", "k", "a1");
    mesh.settle();
    mesh.nodes[2].clock_offset_ms = 100_000;
    mesh.write(2, "t", "k", "c1");
    mesh.run(3000);
    mesh.link(0, 1);
    for _ in 0..3 {
        mesh.run(10);
    }
    // Node 0 knows nothing of it yet on every run: it goes on from its own version or from the winner.
    mesh.write(0, "t", "k", "a2");
    mesh.run(5000);
    mesh.assert_equal();
    for node in 0..3 {
        let list: Vec<_> = mesh.store(node).conflicts.values().cloned().collect();
        assert_eq!(list.len(), 1, "node {node}: {list:?}");
        assert!(list[0].missing.is_none());
    }
}

/// Random writes, cuts, crashes, ambushes and clock steps in a random schedule; afterwards everything is equal and
/// nothing that was written last anywhere is missing from the entries.
#[test]
fn whatever_happens_all_nodes_end_with_the_same() {
    for seed in 0..150 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = rng.usize(2..6);
        let mut mesh = Mesh::seeded(count, &["a", "b"], seed);
        for step in 0..rng.u64(20..120) {
            let (node, other) = (rng.usize(..count), rng.usize(..count));
            let key = format!("k{}", rng.u8(..12));
            let collection = ["a", "b"][rng.usize(..2)];
            let content = format!("{node} {step}");
            match rng.u8(..12) {
                0..=3 => mesh.write(node, collection, &key, &content),
                4 => mesh.delete(node, collection, &key),
                5 => mesh.write_at(node, &[("a", &key, Some(&content)), ("b", &key, Some(&content))]),
                9 => {
                    let at = mesh.now(node).wall;
                    let doc = (Collection::new(collection).unwrap(), Key::new(&key).unwrap());
                    mesh.store(node).ambush.push_back((doc, Some(content.into()), at));
                }
                what => mesh.disturb(&mut rng, (node, other), if what < 9 { what - 6 } else { what - 7 }),
            }
            for _ in 0..rng.usize(..40) {
                mesh.step();
            }
        }
        for node in 0..count {
            mesh.store(node).ambush.clear();
        }
        mesh.heal();
        mesh.assert_equal();
        for node in 0..count {
            let log_entries: usize = mesh.store(node).logs().map(|(_, entries)| entries.len()).sum();
            assert_eq!(mesh.nodes[node].replica.as_ref().unwrap().status().entries as usize, log_entries);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_story() {
    let story = |seed| {
        let mut mesh = Mesh::seeded(4, &["t"], seed);
        for node in 0..4 {
            mesh.link(node, (node + 1) % 4);
            mesh.write(node, "t", "k", &format!("{node}"));
        }
        mesh.run(10_000);
        (mesh.frames, mesh.nodes.iter().map(|node| format!("{:?}", node.events)).collect::<Vec<_>>())
    };
    assert_eq!(story(5), story(5));
    assert_eq!(interests(&["t"]).len(), 1);
}
