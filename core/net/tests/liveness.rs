//! Silent, stalled and dribbling peers, with shortened deadlines.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Deed, Mischief, Node, Way, hasty, listening, noise, plain, rand64, relay};
use entgldb_net::{CloseReason, ClusterSecret, NetConfig, NetEvent, Timing};
use entgldb_replica::id::LinkId;
use entgldb_replica::limits::LINK_IN_FLIGHT_BYTES_MAX;

/// Two hasty nodes, linked through the mischief: (responder, its link), (initiator, its link).
async fn linked(mischief: Mischief) -> ((Node, LinkId), (Node, LinkId)) {
    linked_with(hasty(), hasty(), mischief).await
}

async fn linked_with(till: Timing, office: Timing, mischief: Mischief) -> ((Node, LinkId), (Node, LinkId)) {
    let secret = ClusterSecret::generate();
    let mut till = Node::start(&NetConfig { timing: till, ..listening("till") }, &secret);
    let mut office =
        Node::start(&NetConfig { timing: office, ..NetConfig::new("office", rand64()) }, &secret);
    office.dial(relay(till.address(), mischief).await);
    let (from, _) = office.link_up().await;
    let (to, _) = till.link_up().await;
    ((till, to), (office, from))
}

fn pass() -> Mischief {
    Arc::new(|_, _, message| Deed::Pass(vec![message]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_link_stays_up_long_after_the_deadline_for_silence() {
    let ((mut till, _), (mut office, link)) = linked(pass()).await;
    assert!(till.events_within(hasty().drop_after * 3).await.is_empty());
    assert!(office.event_now().is_none());
    // Nobody but the transport itself has said anything.
    assert!(till.net.traffic().wire_bytes_in > 0);
    assert_eq!(till.net.traffic().frames_in, 0);
    office.send(link, plain(16, "still there")).await;
    till.frame().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_falls_silent_is_dropped_after_the_deadline_and_not_before() {
    let silent = Arc::new(AtomicBool::new(false));
    let ask = Arc::clone(&silent);
    let mischief: Mischief = Arc::new(move |_, _, message| {
        if ask.load(Ordering::Relaxed) { Deed::Hold(Vec::new()) } else { Deed::Pass(vec![message]) }
    });
    let ((mut till, _), (mut office, _)) = linked(mischief).await;
    silent.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    assert_eq!(till.link_down().await, CloseReason::Silent);
    assert!(begun.elapsed() >= hasty().drop_after - hasty().ping_after);
    assert_eq!(office.link_down().await, CloseReason::Silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_begun_and_not_ended_is_not_waited_for() {
    // Only the first record of the frame comes.
    let mischief: Mischief = Arc::new(|way, number, message| match (way, number) {
        (Way::In, 3..) => Deed::Hold(Vec::new()),
        _ => Deed::Pass(vec![message]),
    });
    let patient = Timing { drop_after: Timing::default().drop_after, ..hasty() };
    let ((mut till, _), (office, link)) = linked_with(patient, patient, mischief).await;
    office.send(link, plain(16, noise(1 << 20))).await;
    assert_eq!(till.link_down().await, CloseReason::FrameTimeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_record_is_not_waited_for_either() {
    let mischief: Mischief = Arc::new(|way, number, message| match (way, number) {
        (Way::In, 2..) => {
            let length = u16::try_from(message.len()).unwrap().to_be_bytes();
            Deed::Hold([&length, &message[..message.len() / 2]].concat())
        }
        _ => Deed::Pass(vec![message]),
    });
    let ((mut till, _), (office, link)) = linked(mischief).await;
    office.send(link, plain(16, noise(1000))).await;
    assert_eq!(till.link_down().await, CloseReason::FrameTimeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_takes_nothing_any_more_is_dropped_though_it_still_talks() {
    let mischief: Mischief = Arc::new(|way, number, message| match (way, number) {
        (Way::In, 2..) => Deed::Hold(Vec::new()),
        _ => Deed::Pass(vec![message]),
    });
    // The one who hears nothing is patient: whoever cannot write must see it by itself.
    let ((till, to), (mut office, from)) = linked_with(Timing::default(), hasty(), mischief).await;
    let talk = tokio::spawn(async move {
        while till.net.send(to, plain(16, "I am well")).is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        till
    });
    // More than the sockets on the way can hold.
    for _ in 0..8 {
        office.send(from, plain(16, noise(4 << 20))).await;
    }
    assert_eq!(office.link_down().await, CloseReason::Stalled);
    let _till = talk.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_behind_is_not_taken_for_dead() {
    let ((mut till, _), (mut office, link)) = linked(pass()).await;
    let body = noise(4 << 20);
    let frames = LINK_IN_FLIGHT_BYTES_MAX / body.len();
    let mut held = Vec::new();
    // One frame more than fits: it is read, and waits for its share.
    for _ in 0..frames {
        office.send(link, plain(16, body.clone())).await;
    }
    while held.len() < frames - 1 {
        held.push(till.frame_and_permit().await);
    }
    for node in [&mut till, &mut office] {
        let events = node.events_within(hasty().drop_after * 2).await;
        assert!(events.is_empty(), "{events:?}");
    }
    held.clear();
    assert!(matches!(till.event().await, NetEvent::Frame { .. }));
    office.send(link, plain(16, "thanks")).await;
    till.frame().await;
}
