//! Hooks that block, panic, call back in and end their node.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Memory, PATIENCE, Place, doc, eventually, level, open, put, write};
use entgldb::{CloseError, Event, GuardError, HostChange, NoEvent, Node, RecordError, State};

/// A store whose hooks do something with the node.
struct Meddling {
    memory: Memory,
    node: std::sync::Arc<std::sync::OnceLock<std::sync::Weak<Node>>>,
    found: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
    wait: std::sync::Arc<std::sync::Mutex<()>>,
}

impl entgldb::HostStore for Meddling {
    fn apply(&mut self, documents: &[entgldb::HostDocument]) -> entgldb::HostResult<()> {
        if let Some(node) = self.node.get().and_then(std::sync::Weak::upgrade) {
            let mut found = self.found.lock().unwrap();
            assert!(entgldb::in_hook());
            found.push(format!("{:?}", node.sync_now(PATIENCE)));
            found.push(format!("{:?}", node.record(&[put("x", "1")])));
            found.push(format!("{:?}", node.command_json(r#"{"command":"peers"}"#)));
            found.push(format!("{:?}", node.unwatch("notes")));
            found.push(format!("{:?}", node.touch(vec![doc("touched")])));
            found.push(format!("{:?}", node.status().state));
        }
        drop(self.wait.lock().unwrap());
        common::MemoryHost(self.memory.clone()).apply_through(documents)
    }

    fn read(&mut self, docs: &[entgldb::DocId]) -> entgldb::HostResult<Vec<Option<Bytes>>> {
        let state = self.memory.state();
        Ok(docs.iter().map(|doc| state.docs.get(doc).cloned()).collect())
    }

    fn delete(&mut self, _: &[entgldb::DocId]) -> entgldb::HostResult<()> {
        panic!("deletes are not for this store")
    }

    fn enumerate(
        &mut self,
        _: &entgldb::Collection,
        after: Option<&entgldb::Key>,
        _: usize,
    ) -> entgldb::HostResult<Vec<(entgldb::Key, Option<Bytes>)>> {
        let state = self.memory.state();
        let keys = state.docs.iter().filter(|((_, key), _)| after.is_none_or(|after| key > after));
        Ok(keys.map(|((_, key), content)| (key.clone(), Some(content.clone()))).collect())
    }
}

impl Drop for Meddling {
    fn drop(&mut self) {
        assert!(!entgldb::in_hook());
        self.memory.state().dropped += 1;
    }
}

fn meddling(memory: &Memory) -> Meddling {
    let memory = memory.clone();
    Meddling { memory, node: Default::default(), found: Default::default(), wait: Default::default() }
}

#[test]
fn calls_that_would_wait_are_refused_inside_a_hook_and_touch_is_not() {
    let place = Place::new();
    let (left, right) = (Memory::default(), Memory::default());
    let (a, _) = open(place.config("a"), &left);
    let host = meddling(&right);
    let (node, found) = (host.node.clone(), host.found.clone());
    right.write(doc("touched"), Some("1"));
    let b =
        std::sync::Arc::new(Node::open_with_host(place.config_to("b", &a), Some(Box::new(host))).unwrap().0);
    node.set(std::sync::Arc::downgrade(&b)).unwrap();
    write(&a, &left, "one", "1");
    eventually("the document", || right.get(&doc("one")).is_some());
    let found = found.lock().unwrap().clone();
    assert_eq!(found[0], "Err(Guard(InHook))");
    assert_eq!(found[1], "Err(Guard(InHook))");
    assert_eq!(found[2], "Err(Guard(InHook))");
    assert_eq!(found[3], "Err(Guard(InHook))");
    assert_eq!(found[4..], ["Ok(())", "Running"]);
    eventually("the touched document", || left.get(&doc("touched")).is_some());
}

#[test]
fn a_node_can_be_dropped_by_its_own_hook_and_its_store_goes_once() {
    let place = Place::new();
    let (left, right) = (Memory::default(), Memory::default());
    let (a, _) = open(place.config("a"), &left);
    struct Dropping(Memory, std::sync::Arc<std::sync::Mutex<Option<Node>>>);
    impl entgldb::HostStore for Dropping {
        fn apply(&mut self, documents: &[entgldb::HostDocument]) -> entgldb::HostResult<()> {
            drop(self.1.lock().unwrap().take());
            common::MemoryHost(self.0.clone()).apply_through(documents)
        }
        fn read(&mut self, docs: &[entgldb::DocId]) -> entgldb::HostResult<Vec<Option<Bytes>>> {
            let state = self.0.state();
            Ok(docs.iter().map(|doc| state.docs.get(doc).cloned()).collect())
        }
        fn delete(&mut self, _: &[entgldb::DocId]) -> entgldb::HostResult<()> {
            Ok(())
        }
        fn enumerate(
            &mut self,
            _: &entgldb::Collection,
            _: Option<&entgldb::Key>,
            _: usize,
        ) -> entgldb::HostResult<Vec<(entgldb::Key, Option<Bytes>)>> {
            Ok(Vec::new())
        }
    }
    impl Drop for Dropping {
        fn drop(&mut self) {
            self.0.state().dropped += 1;
        }
    }
    let own = std::sync::Arc::new(std::sync::Mutex::new(None));
    let host = Dropping(right.clone(), own.clone());
    let (b, events) = Node::open_with_host(place.config_to("b", &a), Some(Box::new(host))).unwrap();
    *own.lock().unwrap() = Some(b);
    write(&a, &left, "one", "1");
    eventually("the end", || events.next(Duration::ZERO) == Err(NoEvent::Stopped));
    eventually("the drop", || right.state().dropped == 1);
    assert!(right.get(&doc("one")).is_some(), "the hook was not cut short");
}

#[test]
fn close_within_waits_for_the_hook_in_flight_and_says_which() {
    let place = Place::new();
    let (left, right) = (Memory::default(), Memory::default());
    let (a, _) = open(place.config("a"), &left);
    let host = meddling(&right);
    let wait = host.wait.clone();
    let (b, _) = Node::open_with_host(place.config_to("b", &a), Some(Box::new(host))).unwrap();
    let held = wait.lock().unwrap();
    write(&a, &left, "one", "1");
    std::thread::sleep(Duration::from_millis(300));
    eventually("the hook", || {
        b.close_within(Duration::from_millis(50)) == Err(CloseError::Timeout { hook: Some("apply") })
    });
    assert_eq!(right.state().dropped, 0);
    assert!(matches!(b.touch(Vec::new()), Err(RecordError::Guard(GuardError::Closed))));
    drop(held);
    assert_eq!(b.close_within(PATIENCE), Ok(()));
    assert_eq!(right.state().dropped, 1);
    assert_eq!(b.close_within(Duration::ZERO), Ok(()));
    drop(b);
    assert_eq!(right.state().dropped, 1);
    assert!(right.get(&doc("one")).is_some());
}

#[test]
fn a_panic_in_a_hook_is_a_failure_of_the_document() {
    let place = Place::new();
    let (left, right) = (Memory::default(), Memory::default());
    let (a, _) = open(place.config("a"), &left);
    let (b, _) = Node::open_with_host(place.config_to("b", &a), Some(Box::new(meddling(&right)))).unwrap();
    write(&a, &left, "one", "1");
    level(&a, &b);
    left.write(doc("one"), None);
    a.record(&[HostChange::Delete { doc: doc("one") }]).unwrap();
    level(&a, &b);
    let listed = b.command_json(r#"{"command":"quarantine"}"#).unwrap();
    assert!(listed.contains("the delete hook panicked: deletes are not for this store"), "{listed}");
    assert_eq!(b.status().state, State::Running);
}

#[test]
fn a_hook_that_takes_long_is_told_of_while_it_runs() {
    let place = Place::new();
    let (left, right) = (Memory::default(), Memory::default());
    let (a, _) = open(place.config("a"), &left);
    let host = meddling(&right);
    let wait = host.wait.clone();
    let (b, events) = Node::open_with_host(place.config_to("b", &a), Some(Box::new(host))).unwrap();
    let held = wait.lock().unwrap();
    write(&a, &left, "one", "1");
    let slow = std::iter::repeat_with(|| events.next(PATIENCE).unwrap())
        .find(|event| matches!(event, Event::HookSlow { hook: "apply", for_ms: 5000.. }));
    assert!(slow.is_some());
    let running = b.status().host.and_then(|host| host.hook);
    assert!(running.is_some_and(|running| running.hook == "apply" && running.for_ms >= 5000));
    drop(held);
    level(&a, &b);
    assert_eq!(b.status().host.and_then(|host| host.hook), None);
    assert_eq!(right.all(), left.all());
}
