//! Somebody in the middle of a handshake who changes, exchanges, repeats, leaves out or cuts what passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use entgldb_net::{ClusterSecret, NetConfig, NetEvent, Timing};

use tokio::task::JoinSet;

use crate::by_hand::PATTERN;
use crate::common::{Deed, Mischief, Node, Way, hasty, listening, noise, plain, rand64, relay};

/// Message 1 is sent in, 2 comes out, 3 goes in, then `ready` comes out; all that follows are records of the session.
const HANDSHAKE: [(Way, usize); 4] = [(Way::In, 0), (Way::Out, 0), (Way::In, 1), (Way::Out, 1)];
const READY: (Way, usize) = (Way::Out, 1);

pub(crate) struct Cluster {
    pub(crate) till: Node,
    pub(crate) office: Node,
}

/// Two nodes of one cluster that have not met.
pub(crate) fn cluster(timing: Timing) -> Cluster {
    let secret = ClusterSecret::generate();
    let till = NetConfig { timing, ..listening("till") };
    let office = NetConfig { timing, ..NetConfig::new("office", rand64()) };
    Cluster { till: Node::start(&till, &secret), office: Node::start(&office, &secret) }
}

/// Deadlines that end nothing while a test runs.
pub(crate) fn patient() -> Timing {
    Timing { handshake_every: hasty().handshake_every, ..Timing::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_relay_changes_nothing() {
    let Cluster { mut till, mut office } = cluster(hasty());
    office.dial(relay(till.address(), Arc::new(|_, _, message| Deed::Pass(vec![message]))).await);
    let (link, _) = office.link_up().await;
    till.link_up().await;
    office.send(link, plain(16, noise(200_000))).await;
    assert_eq!(till.frame().await.body.len(), 200_000);
}

/// Dials through the mischief, and asserts that the handshake came to nothing: the dialler has no link, and the
/// responder, if it came to believe in one, has it taken away again without a frame.
async fn assert_no_link(timing: Timing, mischief: Mischief, what: &str) {
    let Cluster { mut till, mut office } = cluster(timing);
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

/// How many handshakes of a test run at the same time.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_bit_in_any_byte_of_any_handshake_message_ends_it() {
    for place in HANDSHAKE {
        let length = Arc::new(AtomicUsize::new(1));
        let mut at = 0;
        while at < length.load(Ordering::Relaxed) {
            let mut tries = JoinSet::new();
            for at in at..at + AT_ONCE {
                let length = Arc::clone(&length);
                tries.spawn(async move {
                    let mischief: Mischief = Arc::new(move |way, number, mut message| {
                        if (way, number) == place {
                            length.fetch_max(message.len(), Ordering::Relaxed);
                            let last = message.len() - 1;
                            message[at.min(last)] ^= 1 << (at % 8);
                        }
                        Deed::Pass(vec![message])
                    });
                    assert_no_link(patient(), mischief, &format!("{} bit flipped in byte {at}", name(place)))
                        .await;
                });
            }
            while let Some(tried) = tries.join_next().await {
                tried.unwrap();
            }
            at += AT_ONCE;
        }
        eprintln!("{}: all {} bytes", name(place), length.load(Ordering::Relaxed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_attackers_own_in_place_of_the_right_one_ends_the_handshake() {
    // The 32 bytes at the front of messages 1 and 2 are ephemeral keys; those in message 3 are encrypted.
    for place in [(Way::In, 0), (Way::Out, 0), (Way::In, 1)] {
        for key in [[0; 32], [0xff; 32], BASE_POINT, own_key()] {
            let mischief: Mischief = Arc::new(move |way, number, mut message| {
                if (way, number) == place {
                    message[..32].copy_from_slice(&key);
                }
                Deed::Pass(vec![message])
            });
            assert_no_link(patient(), mischief, &format!("{} with the key {:02x}..", name(place), key[0]))
                .await;
        }
    }
}

/// A point of small order would make shared secrets predictable; the base point is a valid key of a known private one.
const BASE_POINT: [u8; 32] = {
    let mut point = [0; 32];
    point[0] = 9;
    point
};

fn own_key() -> [u8; 32] {
    let keys = snow::Builder::new(PATTERN.parse().unwrap()).generate_keypair().unwrap();
    keys.public.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ends_that_each_believe_to_have_met_a_stranger_in_the_middle_never_link() {
    // The whole attack: the one in the middle plays the responder to one end and the initiator to the other, with a
    // secret of its own.
    let Cluster { mut till, mut office } = cluster(hasty());
    let own = ClusterSecret::generate();
    let mut middle = Node::start(&NetConfig { timing: hasty(), ..listening("till") }, &own);
    office.dial(middle.address());
    middle.dial(till.address());
    assert!(matches!(office.event().await, NetEvent::DialFailed { .. }));
    assert!(matches!(till.event().await, NetEvent::Refused { .. }));
    for _ in 0..2 {
        assert!(matches!(middle.event().await, NetEvent::DialFailed { .. } | NetEvent::Refused { .. }));
    }
    let links = [&till, &office, &middle].map(|node| node.net.traffic().links_up);
    assert_eq!(links, [0; 3]);
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
            assert_no_link(hasty(), mischief, &format!("{} {deed}", name(place))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_another_handshake_do_not_fit_into_this_one() {
    for place in HANDSHAKE.into_iter().skip(1) {
        let earlier: Arc<std::sync::Mutex<Option<Vec<u8>>>> = Arc::default();
        let store = Arc::clone(&earlier);
        let Cluster { mut till, mut office } = cluster(hasty());
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
