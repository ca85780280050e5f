//! Nodes beside a store of the application's, over loopback.

mod common;

use common::{
    Manners, Memory, PATIENCE, Place, all_manners, collection, doc, eventually, key, level, open, put, write,
};
use entgldb::{Event, HostChange, Node, RecordError, Retention, State};

#[test]
fn recorded_and_touched_changes_travel_both_ways_whatever_the_store_can_do() {
    for manners in all_manners() {
        let place = Place::new();
        let (left, right) = (Memory::new(manners.clone()), Memory::new(manners.clone()));
        let (a, _) = open(place.config("a"), &left);
        let (b, _) = open(place.config_to("b", &a), &right);
        write(&a, &left, "one", r#"{"n":1}"#);
        right.write(doc("two"), Some(r#"{"n":2}"#));
        b.touch(vec![doc("two")]).unwrap();
        level(&a, &b);
        assert_eq!(right.get(&doc("one")).as_deref(), Some(r#"{"n":1}"#));
        assert_eq!(left.get(&doc("two")).as_deref(), Some(r#"{"n":2}"#));
        left.write(doc("two"), None);
        a.record(&[HostChange::Delete { doc: doc("two") }]).unwrap();
        level(&a, &b);
        assert_eq!(right.get(&doc("two")), None);
        assert_eq!((a.status().entries, a.status().conflicts), (3, 0), "{:?}", a.status());
    }
}

#[test]
fn the_outbox_of_the_application_is_enough() {
    let place = Place::new();
    let manners = Manners { transactions: true, outbox: true, ..Manners::default() };
    let (left, right) = (Memory::new(manners.clone()), Memory::new(manners));
    left.write(doc("before"), Some("0"));
    let (a, _) = open(place.config("a"), &left);
    let (b, _) = open(place.config_to("b", &a), &right);
    left.write(doc("one"), Some("1"));
    eventually("the write", || right.get(&doc("one")).is_some() && right.get(&doc("before")).is_some());
    right.write(doc("one"), Some("2"));
    level(&a, &b);
    assert_eq!(left.get(&doc("one")).as_deref(), Some("2"));
    assert!(left.state().outbox.is_empty(), "what was read is removed");
}

#[test]
fn lossy_stores_that_echo_everything_come_to_rest() {
    for transactions in [false, true] {
        let place = Place::new();
        let manners = Manners { lossy: true, transactions, ..Manners::default() };
        let (left, right) = (Memory::new(manners.clone()), Memory::new(manners));
        let (a, _) = open(place.config("a"), &left);
        let (b, _) = open(place.config_to("b", &a), &right);
        let content = r#"{"z":1.0,"unknown":[1],"a":"x"}"#;
        for number in 0..20 {
            // As its own store shows it; the document has more.
            left.write(doc(&format!("k{number}")), Some(content));
            a.record(&[put(&format!("k{number}"), content)]).unwrap();
        }
        level(&a, &b);
        assert_eq!(right.get(&doc("k1")).as_deref(), Some(r#"{"a":"x","z":1}"#));
        for _ in 0..3 {
            let echo: Vec<HostChange> =
                right.all().into_iter().map(|(doc, content)| HostChange::Put { doc, content }).collect();
            b.record(&echo).unwrap();
            b.touch(right.all().into_keys().collect()).unwrap();
            b.command_json(r#"{"command":"reconcile"}"#).unwrap();
            level(&a, &b);
        }
        assert_eq!((a.status().entries, b.status().entries), (20, 20), "echoes are no changes");
        // A real edit of what the store shows is one.
        write(&b, &right, "k1", r#"{"a":"y","z":1}"#);
        level(&a, &b);
        assert_eq!(left.get(&doc("k1")).as_deref(), Some(r#"{"a":"y","z":1}"#));
        assert_eq!(b.status().entries, 21);
    }
}

#[test]
fn a_poison_document_is_set_aside_and_the_rest_flows() {
    for transactions in [false, true] {
        let place = Place::new();
        let left = Memory::default();
        let right = Memory::new(Manners { transactions, poison: Some("poison"), ..Manners::default() });
        let (a, _) = open(place.config("a"), &left);
        let (b, events) = open(place.config_to("b", &a), &right);
        let mut changes: Vec<HostChange> = (0..50).map(|number| put(&format!("k{number}"), "1")).collect();
        changes.insert(20, put("poison", r#"{"bad":1}"#));
        changes.insert(40, put("poison too", "2"));
        for change in &changes {
            left.write(change.doc().clone(), Some("1"));
        }
        a.record(&changes).unwrap();
        level(&a, &b);
        assert_eq!(right.all().len(), 50);
        let aside = std::iter::repeat_with(|| events.next(PATIENCE).unwrap())
            .filter(|event| matches!(event, Event::Problem { kind: "set_aside", .. }))
            .take(2)
            .count();
        assert_eq!(aside, 2);
        let listed = b.command_json(r#"{"command":"quarantine"}"#).unwrap();
        assert!(
            listed.contains("poison is refused") && listed.contains(r#""content":{"bad":1}"#),
            "{listed}"
        );

        // A newer version takes its place in quarantine; nothing else is held up.
        write(&a, &left, "poison", "3");
        write(&a, &left, "k1", "4");
        level(&a, &b);
        assert_eq!(right.get(&doc("k1")).as_deref(), Some("4"));
        let retry = r#"{"command":"quarantine_retry","collection":"notes","key":"poison"}"#;
        assert!(b.command_json(retry).is_err(), "it is still refused");
        right.state().manners.poison = None;
        b.command_json(retry).unwrap();
        assert_eq!(right.get(&doc("poison")).as_deref(), Some("3"));
        let discard = r#"{"command":"quarantine_discard","collection":"notes","key":"poison too"}"#;
        b.command_json(discard).unwrap();
        assert_eq!(b.command_json(r#"{"command":"quarantine"}"#).unwrap(), r#"{"documents":[]}"#);
        b.command_json(r#"{"command":"reconcile"}"#).unwrap();
        level(&a, &b);
        assert_eq!(
            left.get(&doc("poison too")).as_deref(),
            Some("1"),
            "discarding deletes nothing elsewhere"
        );
        assert_eq!(right.get(&doc("poison too")), None);
    }
}

#[test]
fn what_was_refused_is_tried_again_at_the_next_start() {
    let place = Place::new();
    let left = Memory::default();
    let right = Memory::new(Manners { poison: Some("p"), ..Manners::default() });
    let (a, _) = open(place.config("a"), &left);
    let (b, _) = open(place.config_to("b", &a), &right);
    write(&a, &left, "p", "1");
    level(&a, &b);
    b.close();
    right.state().manners.poison = None;
    let (_b, _) = open(place.config_to("b", &a), &right);
    eventually("the document", || right.get(&doc("p")).is_some());
}

#[test]
fn a_store_that_refuses_everything_is_waited_for_and_nothing_is_set_aside() {
    let place = Place::new();
    let left = Memory::default();
    let right = Memory::new(Manners { poison: Some(""), ..Manners::default() });
    let (a, _) = open(place.config("a"), &left);
    let (b, _) = open(place.config_to("b", &a), &right);
    let changes: Vec<HostChange> = (0..40).map(|number| put(&format!("k{number}"), "1")).collect();
    for change in &changes {
        left.write(change.doc().clone(), Some("1"));
    }
    a.record(&changes).unwrap();
    eventually("the failure", || b.status().state == State::Recovering);
    right.state().manners.poison = None;
    eventually("the documents", || right.all() == left.all());
    assert_eq!(b.command_json(r#"{"command":"quarantine"}"#).unwrap(), r#"{"documents":[]}"#);
    level(&a, &b);
    assert_eq!(a.status().entries, 40, "nothing came back as a change");
}

#[test]
fn a_losing_version_is_brought_back_through_the_store() {
    let place = Place::new();
    let (left, right) = (Memory::default(), Memory::default());
    let (a, _) = open(place.config("a"), &left);
    let (b, _) = open(place.config("b"), &right);
    write(&a, &left, "one", "\"of a\"");
    write(&b, &right, "one", "\"of b\"");
    eventually("the captures", || a.status().entries == 1 && b.status().entries == 1);
    b.add_peer(&a.local_address().unwrap().to_string()).unwrap();
    eventually("the link", || b.sync_now(PATIENCE).is_ok());
    let (won, lost) = (left.get(&doc("one")).unwrap(), b.conflicts(1).unwrap().remove(0).conflict.loser);
    assert_eq!(right.get(&doc("one")).unwrap(), won);
    let restored = b.command_json(r#"{"command":"restore","collection":"notes","key":"one"}"#).unwrap();
    assert!(restored.contains(r#""is_deletion":false"#), "{restored}");
    level(&a, &b);
    assert_eq!(left.get(&doc("one")).unwrap().as_bytes(), lost.content.unwrap());
    assert_eq!(left.all(), right.all());
}

#[test]
fn the_resolve_hook_decides_between_versions_on_every_node() {
    let place = Place::new();
    let manners = Manners { resolve: true, ..Manners::default() };
    let (left, right) = (Memory::new(manners.clone()), Memory::new(manners));
    let custom = |mut config: entgldb::Config| {
        config.custom_hook = vec!["notes".to_owned()];
        config
    };
    let (a, _) = open(custom(place.config("a")), &left);
    let (b, _) = open(custom(place.config("b")), &right);
    write(&a, &left, "one", "\"the longest\"");
    write(&b, &right, "one", "\"short\"");
    eventually("the captures", || a.status().entries == 1 && b.status().entries == 1);
    b.add_peer(&a.local_address().unwrap().to_string()).unwrap();
    eventually("the link", || b.sync_now(PATIENCE).is_ok());
    eventually("one answer", || {
        left.get(&doc("one")).as_deref() == Some("\"the longest\"") && left.all() == right.all()
    });
    let refused = Node::open_with_host(custom(place.config("c")), Some(Memory::default().host()));
    assert!(refused.err().unwrap().to_string().contains("custom_hook"));
}

#[test]
fn documents_of_other_collections_are_refused_before_anything_is_written() {
    let place = Place::new();
    let memory = Memory::default();
    let (a, _) = open(place.config("a"), &memory);
    let other = (collection("other"), key("k"));
    assert!(matches!(a.touch(vec![other]), Err(RecordError::UnknownCollection { .. })));
    assert!(matches!(a.record(&[put("k", "{")]), Err(RecordError::Document { .. })));
    assert!(a.documents().is_none());
    a.close();
    let documents = Node::open_with_host(place.config("d"), None).unwrap().0;
    assert!(matches!(documents.touch(Vec::new()), Err(RecordError::NoHostStore)));
}

#[test]
fn who_joins_after_history_was_forgotten_gets_documents_as_they_were_written_from_a_lossy_store() {
    let place = Place::new();
    let retain = |mut config: entgldb::Config| {
        config.retention_hours = Retention::LEAST;
        config
    };
    let manners = Manners { lossy: true, transactions: true, ..Manners::default() };
    let (left, right) = (Memory::default(), Memory::new(manners));
    let (a, _) = open(retain(place.config("a")), &left);
    let (b, _) = open(retain(place.config_to("b", &a)), &right);
    for number in 0..100 {
        let content = match number % 2 {
            0 => format!(r#"{{"a":{number}}}"#),
            _ => format!(r#"{{"z":{number}.0,"unknown":true}}"#),
        };
        write(&a, &left, &format!("k{number:02}"), &content);
    }
    level(&a, &b);
    left.write(doc("k98"), None);
    a.record(&[HostChange::Delete { doc: doc("k98") }]).unwrap();
    level(&a, &b);
    assert_eq!(right.get(&doc("k01")).as_deref(), Some(r#"{"z":1}"#));
    eventually("history to go", || b.status().forgotten >= 101 && a.status().forgotten >= 101);
    let (c, events) = Node::open_with_host(place.config_to("c", &b), None).unwrap();
    let documents = c.documents().unwrap();
    eventually("all documents", || documents.scan(&collection("notes"), "", None, 1000).unwrap().len() == 99);
    let found = documents.scan(&collection("notes"), "", None, 1000).unwrap();
    let found: std::collections::BTreeMap<_, _> =
        found.into_iter().map(|(key, content)| ((collection("notes"), key), content)).collect();
    assert_eq!(found, left.all());
    let snapshot = std::iter::repeat_with(|| events.next(PATIENCE).unwrap())
        .find(|event| matches!(event, Event::Snapshot { done: true, .. }));
    assert!(snapshot.is_some());
}

#[test]
fn documents_of_a_store_merge_field_by_field() {
    let place = Place::new();
    let merge = |mut config: entgldb::Config| {
        config.merge = vec!["notes".to_owned()];
        config
    };
    let (left, right) = (Memory::default(), Memory::default());
    let (a, _) = open(merge(place.config("a")), &left);
    let (b, _) = open(merge(place.config_to("b", &a)), &right);
    write(&a, &left, "one", r#"{"a":1,"b":1}"#);
    level(&a, &b);
    b.close();
    write(&a, &left, "one", r#"{"a":2,"b":1}"#);
    eventually("the capture", || a.status().captured == 2);
    let (b, _) = open(merge(place.config("b")), &right);
    write(&b, &right, "one", r#"{"a":1,"b":3}"#);
    b.add_peer(&a.local_address().unwrap().to_string()).unwrap();
    level(&a, &b);
    assert_eq!(left.get(&doc("one")).as_deref(), Some(r#"{"a":2,"b":3}"#));
    assert_eq!(right.all(), left.all());
}

#[test]
fn commands_name_what_is_wrong_with_them_and_numbers_stay_as_they_were_written() {
    let place = Place::new();
    let node = Node::open_with_host(place.config("a"), None).unwrap().0;
    let put = r#"{"command":"put","collection":"notes","key":"k","content":{"n":12345678901234567890.10}}"#;
    assert_eq!(node.command_json(put).unwrap(), "{}");
    let get = r#"{"command":"get","collection":"notes","key":"k"}"#;
    assert_eq!(node.command_json(get).unwrap(), r#"{"content":{"n":12345678901234567890.10}}"#);
    let scan = node.command_json(r#"{"command":"scan","collection":"notes"}"#).unwrap();
    assert_eq!(scan, r#"{"documents":[{"key":"k","content":{"n":12345678901234567890.10}}]}"#);
    for (command, words) in [
        (r#"{"command":"put","collection":"notes","key":"k"}"#, "content"),
        (r#"{"command":"peers","of":1}"#, "of"),
        (r#"{"command":"nothing"}"#, "nothing"),
        (r#"{"command":"get","collection":"","key":"k"}"#, "collection"),
        (r#"{"command":"get","collection":"other","key":"k","x":1}"#, "x"),
        (r#"{"command":"reconcile"}"#, "no store of the application's"),
        ("{", "command"),
    ] {
        let refused = node.command_json(command).unwrap_err().to_string();
        assert!(refused.contains(words), "{command}: {refused}");
    }
    let status: serde_json::Value = serde_json::from_str(&node.status_json()).unwrap();
    assert_eq!(status["state"], "running");
    eventually("an event", || node.next_event_json(PATIENCE).unwrap().contains(r#""event":"captured""#));
}

/// For figures: as above, with `catch_up`.
#[test]
#[ignore = "a measurement, in release builds"]
fn catch_up_of_a_hundred_thousand_documents() {
    let place = Place::new();
    let full = |mut config: entgldb::Config| {
        config.durability = entgldb::Durability::Full;
        config
    };
    let (a, _) = Node::open_with_host(full(place.config("a")), None).unwrap();
    for unit in 0..100 {
        let write = |number: u32| {
            let content = format!(
                r#"{{"id":{number},"till":"till-{}","product":"product {}","quantity":{},"price":{},"at":"2026-11-23T0{}:00:00Z","note":"{number:0150}"}}"#,
                number % 7,
                number % 1000,
                number % 9,
                number % 977,
                number % 10
            );
            put(&format!("k{number:07}"), &content)
        };
        let changes: Vec<HostChange> = (unit * 1000..(unit + 1) * 1000).map(write).collect();
        a.documents().unwrap().write(&changes).unwrap();
    }
    eventually("the captures", || a.status().entries >= 100_000);
    let since = std::time::Instant::now();
    let (b, _) = Node::open_with_host(full(place.config_to("b", &a)), None).unwrap();
    eventually("the documents", || b.status().entries >= 100_000);
    eprintln!("documents in the engine's file: {:.2} s", since.elapsed().as_secs_f64());
    b.close();
    let memory = Memory::default();
    let since = std::time::Instant::now();
    let (_c, _) = open(full(place.config_to("c", &a)), &memory);
    eventually("the documents", || memory.state().docs.len() == 100_000);
    eprintln!("a store in memory: {:.2} s", since.elapsed().as_secs_f64());
}
