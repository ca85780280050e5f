//! Somebody in the middle of a link who changes, repeats, moves, leaves out, adds or cuts records.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use entgldb_net::{CloseReason, NetEvent};
use tokio::task::JoinSet;

use crate::common::{Deed, Mischief, Way, noise, plain, relay};
use crate::man_in_the_middle::{Cluster, cluster, patient};

/// Messages 1 and 3 are the handshake's.
const FIRST_RECORD_IN: usize = 2;
/// Positions that are tried.
const RECORDS: usize = 64;

/// What is done to one record of a link.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Trick {
    Change,
    LeaveOut,
    Repeat,
    RepeatTheFirst,
    Exchange,
    Forge,
    Truncate,
    CutAfter,
    AddPlainFrame,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_record_ends_the_link_at_each_of_the_first_64() {
    at_each_record(Trick::Change).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_record_ends_the_link_at_each_of_the_first_64() {
    at_each_record(Trick::LeaveOut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_record_ends_the_link_at_each_of_the_first_64() {
    at_each_record(Trick::Repeat).await;
    at_each_record(Trick::RepeatTheFirst).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reordered_records_end_the_link_at_each_of_the_first_64() {
    at_each_record(Trick::Exchange).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_record_ends_the_link_at_each_of_the_first_64() {
    at_each_record(Trick::Forge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_record_or_stream_is_told_from_an_orderly_end_at_each_of_the_first_64() {
    at_each_record(Trick::Truncate).await;
    at_each_record(Trick::CutAfter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plaintext_frame_in_a_secure_session_ends_the_link_at_each_of_the_first_64() {
    at_each_record(Trick::AddPlainFrame).await;
}

async fn at_each_record(trick: Trick) {
    let mut tries = JoinSet::new();
    for at in 0..RECORDS {
        tries.spawn(try_trick(trick, at));
        if at % 8 == 7 {
            while let Some(tried) = tries.join_next().await {
                tried.unwrap();
            }
        }
    }
}

/// Sends frames of one record each up to and beyond record `at`, to which the trick is done.
async fn try_trick(trick: Trick, at: usize) {
    let Cluster { mut till, mut office } = cluster(patient());
    let passed = Arc::new(AtomicUsize::new(0));
    office.dial(relay(till.address(), play(trick, at, Arc::clone(&passed))).await);
    let (link, _) = office.link_up().await;
    till.link_up().await;
    // Each frame is waited for, so that each has a record of its own.
    for kind in (16..).take(at) {
        office.send(link, plain(kind, noise(40))).await;
        assert_eq!(till.frame().await.kind, kind, "{trick:?} at {at}");
    }
    for (kind, record) in (16 + at as u64..).zip(at..at + 3) {
        // The link may end while we speak.
        let _ = office.net.send(link, plain(kind, noise(40)));
        for _ in 0..100 {
            if passed.load(Ordering::Relaxed) > record {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut arrived = Vec::new();
    let reason = loop {
        match till.event().await {
            NetEvent::Frame { frame, .. } => arrived.push(frame.kind),
            NetEvent::LinkDown { reason, .. } => break reason,
            other => panic!("{trick:?} at {at}: {other:?}"),
        }
    };
    // Of the first record, its repetition is what is wrong.
    let is_whole =
        matches!(trick, Trick::Repeat | Trick::CutAfter) || (trick == Trick::RepeatTheFirst && at == 0);
    let expected = if is_whole { vec![16 + at as u64] } else { Vec::new() };
    assert_eq!(arrived, expected, "{trick:?} at {at}: nothing may be delivered after it");
    let expected = match trick {
        Trick::Truncate | Trick::CutAfter => CloseReason::Truncated,
        _ => CloseReason::Tampered,
    };
    assert_eq!(reason, expected, "{trick:?} at {at}");
}

fn play(trick: Trick, at: usize, passed: Arc<AtomicUsize>) -> Mischief {
    let kept: Mutex<Option<Vec<u8>>> = Mutex::default();
    Arc::new(move |way, number, message| {
        let Some(record) = number.checked_sub(FIRST_RECORD_IN).filter(|_| way == Way::In) else {
            return Deed::Pass(vec![message]);
        };
        passed.store(record + 1, Ordering::Relaxed);
        let mut kept = kept.lock().unwrap();
        match trick {
            Trick::RepeatTheFirst if record == 0 => *kept = Some(message.clone()),
            Trick::Exchange if record == at + 1 => return Deed::Pass(vec![message, kept.take().unwrap()]),
            _ => {}
        }
        if record == at { do_to(trick, message, &mut kept) } else { Deed::Pass(vec![message]) }
    })
}

fn do_to(trick: Trick, mut message: Vec<u8>, kept: &mut Option<Vec<u8>>) -> Deed {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    match trick {
        Trick::Change => {
            let middle = message.len() / 2;
            message[middle] ^= 0x10;
            Deed::Pass(vec![message])
        }
        Trick::LeaveOut => Deed::Pass(Vec::new()),
        Trick::Repeat => Deed::Pass(vec![message.clone(), message]),
        Trick::RepeatTheFirst => Deed::Pass(vec![kept.clone().unwrap(), message]),
        Trick::Exchange => {
            *kept = Some(message);
            Deed::Pass(Vec::new())
        }
        Trick::Forge => Deed::Pass(vec![noise(message.len()).to_vec()]),
        Trick::Truncate => Deed::Cut([&length, &message[..message.len() - 1]].concat()),
        Trick::CutAfter => Deed::Cut([&length, &message[..]].concat()),
        Trick::AddPlainFrame => {
            let frame = [&[0, 0, 0, 43, 16, 0, 40][..], &[7; 40]].concat();
            Deed::Pass(vec![frame, message])
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_cannot_be_made_to_believe_in_an_orderly_end() {
    let Cluster { mut till, mut office } = cluster(patient());
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
    let Cluster { mut till, mut office } = cluster(patient());
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
