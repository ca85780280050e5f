//! Somebody in the middle who changes, repeats, moves, leaves out or cuts what passes.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Deed, Mischief, Node, Way, hasty, listening, noise, plain, rand64, relay};
use entgldb_net::{CloseReason, ClusterSecret, NetConfig, NetEvent};

/// Message 1 is sent in, 2 comes out, 3 goes in, then `ready` comes out; all that follows are records of the session.
const HANDSHAKE: [(Way, usize); 4] = [(Way::In, 0), (Way::Out, 0), (Way::In, 1), (Way::Out, 1)];
const READY: (Way, usize) = (Way::Out, 1);
const FIRST_RECORD_IN: usize = 2;

struct Cluster {
    till: Node,
    office: Node,
}

async fn cluster() -> Cluster {
    let secret = ClusterSecret::generate();
    let mut listen = listening("till");
    listen.timing = hasty();
    let mut dial = NetConfig::new("office", rand64());
    dial.timing = hasty();
    Cluster { till: Node::start(&listen, &secret), office: Node::start(&dial, &secret) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_relay_changes_nothing() {
    let Cluster { mut till, mut office } = cluster().await;
    office.dial(relay(till.address(), Arc::new(|_, _, message| Deed::Pass(vec![message]))).await);
    let (link, _) = office.link_up().await;
    till.link_up().await;
    office.send(link, plain(16, noise(200_000))).await;
    assert_eq!(till.frame().await.body.len(), 200_000);
}

/// Dials through the mischief, and asserts that the handshake came to nothing: the dialler has no link, and the
/// responder, if it came to believe in one, has it taken away again without a frame.
async fn assert_no_link(mischief: Mischief, what: &str) {
    let Cluster { mut till, mut office } = cluster().await;
    office.dial(relay(till.address(), mischief).await);
    let failed = office.event().await;
    assert!(matches!(failed, NetEvent::DialFailed { .. }), "{what}: {failed:?}");
    loop {
        match till.event().await {
            NetEvent::Refused { .. } | NetEvent::LinkDown { .. } => break,
            NetEvent::LinkUp { .. } => assert_eq!(what.split(' ').next(), Some("ready"), "{what}: a link"),
            other => panic!("{what}: {other:?}"),
        }
    }
    assert!(office.event_now().is_none());
    assert_eq!(office.net.traffic().links_up, 0);
}

fn name((way, number): (Way, usize)) -> String {
    if (way, number) == READY { "ready".to_owned() } else { format!("message {way:?} {number}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_anywhere_in_the_handshake_ends_it() {
    for place in HANDSHAKE {
        // Every byte of the short messages, every few of the long ones; always the last one.
        for at in (0..48).chain((48..400).step_by(23)).chain([usize::MAX]) {
            let reached = Arc::new(AtomicUsize::new(0));
            let length = Arc::clone(&reached);
            let mischief: Mischief = Arc::new(move |way, number, mut message| {
                if (way, number) == place {
                    length.store(message.len(), Ordering::Relaxed);
                    let last = message.len() - 1;
                    message[at.min(last)] ^= 1 << (at % 8);
                }
                Deed::Pass(vec![message])
            });
            assert_no_link(mischief, &format!("{} bit flipped in byte {at}", name(place))).await;
            if at != usize::MAX && at + 23 >= reached.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_message_that_is_cut_short_lengthened_or_held_back_ends_it() {
    for place in HANDSHAKE {
        for deed in ["shorter", "longer", "cut", "held"] {
            let mischief: Mischief = Arc::new(move |way, number, mut message| {
                if (way, number) != place {
                    return Deed::Pass(vec![message]);
                }
                let half = message.len() / 2;
                match deed {
                    "shorter" => drop(message.pop()),
                    "longer" => message.push(0),
                    "cut" => return Deed::Cut(message[..half].to_vec()),
                    _ => return Deed::Hold(message[..half].to_vec()),
                }
                Deed::Pass(vec![message])
            });
            assert_no_link(mischief, &format!("{} {deed}", name(place))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_another_handshake_do_not_fit_into_this_one() {
    for place in HANDSHAKE.into_iter().skip(1) {
        let earlier: Arc<std::sync::Mutex<Option<Vec<u8>>>> = Arc::default();
        let store = Arc::clone(&earlier);
        let Cluster { mut till, mut office } = cluster().await;
        let mischief: Mischief = Arc::new(move |way, number, message| {
            if (way, number) != place {
                return Deed::Pass(vec![message]);
            }
            let mut earlier = store.lock().unwrap();
            match earlier.take() {
                Some(old) => Deed::Pass(vec![old]),
                None => {
                    *earlier = Some(message.clone());
                    Deed::Pass(vec![message])
                }
            }
        });
        let address = relay(till.address(), mischief).await;
        office.dial(address);
        let (first, _) = office.link_up().await;
        till.link_up().await;
        office.dial(address);
        let second = office.event().await;
        assert!(matches!(second, NetEvent::DialFailed { .. }), "{}: {second:?}", name(place));
        office.send(first, plain(16, "the first link is not touched")).await;
        while !matches!(till.event().await, NetEvent::Frame { .. }) {}
    }
}

/// What is done to record `at` of the session, and how many of the frames before must arrive.
#[derive(Clone, Copy, Debug)]
enum Trick {
    Flip,
    Drop,
    Repeat,
    Swap,
    Forge,
    Cut,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_changed_repeated_moved_or_left_out_ends_the_link_and_nothing_after_it_is_delivered()
{
    for trick in [Trick::Flip, Trick::Drop, Trick::Repeat, Trick::Swap, Trick::Forge, Trick::Cut] {
        for at in 0..6 {
            let Cluster { mut till, mut office } = cluster().await;
            let kept = std::sync::Mutex::new(None);
            let mischief: Mischief = Arc::new(move |way, number, message| {
                if way != Way::In || number < FIRST_RECORD_IN + at {
                    return Deed::Pass(vec![message]);
                }
                let is_next = number == FIRST_RECORD_IN + at + 1;
                match trick {
                    Trick::Swap if is_next => Deed::Pass(vec![message, kept.lock().unwrap().take().unwrap()]),
                    _ if number != FIRST_RECORD_IN + at => Deed::Pass(vec![message]),
                    Trick::Flip => {
                        let mut message = message;
                        let middle = message.len() / 2;
                        message[middle] ^= 0x10;
                        Deed::Pass(vec![message])
                    }
                    Trick::Drop => Deed::Pass(Vec::new()),
                    Trick::Repeat => Deed::Pass(vec![message.clone(), message]),
                    Trick::Swap => {
                        *kept.lock().unwrap() = Some(message);
                        Deed::Pass(Vec::new())
                    }
                    Trick::Forge => Deed::Pass(vec![noise(message.len()).to_vec()]),
                    Trick::Cut => {
                        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
                        Deed::Cut([&length, &message[..message.len() - 1]].concat())
                    }
                }
            });
            office.dial(relay(till.address(), mischief).await);
            let (link, _) = office.link_up().await;
            till.link_up().await;
            for kind in 16..26 {
                // Each frame must have a record of its own, or the positions would mean nothing.
                let _ = office.net.send(link, plain(kind, noise(40)));
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            assert_prefix_then_end(&mut till, trick, at as u64).await;
        }
    }
}

async fn assert_prefix_then_end(till: &mut Node, trick: Trick, at: u64) {
    let mut arrived = Vec::new();
    let reason = loop {
        match till.event().await {
            NetEvent::Frame { frame, .. } => arrived.push(frame.kind),
            NetEvent::LinkDown { reason, .. } => break reason,
            other => panic!("{other:?}"),
        }
    };
    let whole = at + u64::from(matches!(trick, Trick::Repeat));
    assert_eq!(arrived, (16..16 + whole).collect::<Vec<_>>(), "{trick:?} at {at}");
    let expected = if matches!(trick, Trick::Cut) { CloseReason::Truncated } else { CloseReason::Tampered };
    assert_eq!(reason, expected, "{trick:?} at {at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_cannot_be_made_to_believe_in_an_orderly_end() {
    let Cluster { mut till, mut office } = cluster().await;
    let mischief: Mischief = Arc::new(|way, number, message| {
        if way == Way::In && number >= FIRST_RECORD_IN {
            Deed::Cut(Vec::new())
        } else {
            Deed::Pass(vec![message])
        }
    });
    office.dial(relay(till.address(), mischief).await);
    let (link, _) = office.link_up().await;
    till.link_up().await;
    office.net.close(link, "bye");
    assert_eq!(till.link_down().await, CloseReason::Truncated);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_sent_back_to_their_sender_do_not_authenticate() {
    let Cluster { mut till, mut office } = cluster().await;
    let last: Arc<std::sync::Mutex<Vec<u8>>> = Arc::default();
    let mischief: Mischief = Arc::new(move |way, number, message| match way {
        Way::In => {
            if number == FIRST_RECORD_IN {
                last.lock().unwrap().clone_from(&message);
            }
            Deed::Pass(vec![message])
        }
        Way::Out if number < 2 => Deed::Pass(vec![message]),
        Way::Out => Deed::Pass(vec![last.lock().unwrap().clone()]),
    });
    office.dial(relay(till.address(), mischief).await);
    let (from, _) = office.link_up().await;
    let (to, _) = till.link_up().await;
    office.send(from, plain(16, "mirror")).await;
    till.frame().await;
    till.send(to, plain(16, "answer")).await;
    assert_eq!(office.link_down().await, CloseReason::Tampered);
}
