//! Comparing the application's store with what the engine knows of it.

mod common;

use std::time::Duration;

use common::{Memory, PATIENCE, Place, doc, eventually, level, open};
use entgldb::{Config, Event, Events, Node};

#[test]
fn documents_that_are_there_already_are_captured_and_changes_made_without_a_word_are_found_after_a_crash() {
    let place = Place::new();
    let (left, right) = (Memory::default(), Memory::default());
    for number in 0..40 {
        left.write(doc(&format!("k{number}")), Some(&number.to_string()));
    }
    let (a, _) = open(place.config("a"), &left);
    let (b, _) = open(place.config_to("b", &a), &right);
    eventually("the catch-up", || right.all() == left.all());
    a.close();
    // A clean end: nobody looks.
    left.write(doc("k1"), Some("\"silent\""));
    let (a, events) = open(place.config_to("a", &b), &left);
    level(&a, &b);
    assert_ne!(right.get(&doc("k1")), left.get(&doc("k1")));
    a.command_json(r#"{"command":"reconcile"}"#).unwrap();
    eventually("the silent write", || right.get(&doc("k1")) == left.get(&doc("k1")));
    let done = std::iter::repeat_with(|| events.next(PATIENCE).unwrap()).find_map(|event| match event {
        Event::Reconcile { keys, changed, missing, done: true, .. } => Some((keys, changed, missing)),
        _ => None,
    });
    assert_eq!(done, Some((40, 1, 0)));
}

#[test]
fn a_reconciliation_that_would_delete_more_than_a_tenth_stops_and_asks() {
    let place = Place::new();
    let (left, right) = (Memory::default(), Memory::default());
    for number in 10..50 {
        left.write(doc(&format!("k{number}")), Some("1"));
    }
    let (a, events) = open(place.config("a"), &left);
    let (b, _) = open(place.config_to("b", &a), &right);
    eventually("the catch-up", || right.all().len() == 40);
    // A tenth may go.
    for number in 10..14 {
        left.write(doc(&format!("k{number}")), None);
    }
    a.command_json(r#"{"command":"reconcile","collection":"notes"}"#).unwrap();
    eventually("the deletions", || right.all().len() == 36);
    for number in 14..18 {
        left.write(doc(&format!("k{number}")), None);
    }
    left.write(doc("k20"), Some("\"changed\""));
    a.command_json(r#"{"command":"reconcile"}"#).unwrap();
    let stopped = std::iter::repeat_with(|| events.next(PATIENCE).unwrap()).find_map(|event| match event {
        Event::ReconcileStopped { missing, of, .. } => Some((missing, of)),
        _ => None,
    });
    assert_eq!(stopped, Some((4, 36)));
    let unconfirmed = |node: &Node| {
        let host = node.status().host.unwrap();
        let listed = host.unconfirmed.iter().map(|waits| (waits.collection.clone(), waits.missing, waits.of));
        listed.collect::<Vec<_>>()
    };
    eventually("the status to say so", || unconfirmed(&a) == [("notes".to_owned(), 4, 36)]);
    let address = a.local_address().unwrap().to_string();
    drop((a, events));
    let (a, _) = open(Config { listen: Some(address), ..place.config("a") }, &left);
    assert_eq!(unconfirmed(&a), [("notes".to_owned(), 4, 36)], "also after a restart");
    eventually("the change", || right.get(&doc("k20")) == left.get(&doc("k20")));
    level(&a, &b);
    assert_eq!(right.all().len(), 36);
    // One came back before it was confirmed.
    left.write(doc("k14"), Some("1"));
    a.command_json(r#"{"command":"reconcile","confirm_deletes":true}"#).unwrap();
    eventually("the deletions", || right.all().len() == 33);
    assert_eq!(right.all(), left.all());
    eventually("the status to forget it", || unconfirmed(&a).is_empty());
}

/// For figures: `cargo test --release -p entgldb --test host -- --ignored --nocapture million`.
#[test]
#[ignore = "a measurement, in release builds"]
fn a_million_documents_are_compared() {
    let place = Place::new();
    let memory = Memory::default();
    {
        let mut state = memory.state();
        for number in 0..1_000_000 {
            let content = format!(r#"{{"id":{number},"name":"document {number}","price":{}}}"#, number % 977);
            state.docs.insert(doc(&format!("k{number:07}")), content.into());
        }
    }
    let timed = |what: &str, since: std::time::Instant| {
        eprintln!("{what}: {:.2} s", since.elapsed().as_secs_f64());
    };
    let done = |events: &Events, what: &str, since| {
        while !matches!(events.next(Duration::from_secs(300)).unwrap(), Event::Reconcile { done: true, .. }) {
        }
        timed(what, since);
    };
    let since = std::time::Instant::now();
    let (node, events) = open(place.config("a"), &memory);
    done(&events, "first comparison, a million captured", since);
    eventually("the capture", || !node.status().backlog && node.status().entries >= 1_000_000);
    timed("all durable", since);
    for what in ["nothing changed", "nothing changed, again"] {
        let since = std::time::Instant::now();
        node.command_json(r#"{"command":"reconcile"}"#).unwrap();
        done(&events, what, since);
    }
    for number in (0..1_000_000).step_by(1000) {
        memory.write(doc(&format!("k{number:07}")), Some("1"));
    }
    let since = std::time::Instant::now();
    node.command_json(r#"{"command":"reconcile"}"#).unwrap();
    done(&events, "a thousand changed", since);
}
