//! Forged author, swapped payload, and every other way to change somebody's history: none of them is believed.
//!
//! `ENTGLDB_FORGERIES` sets how many forgeries are tried (100,000 if it is not there). They are the same in each run.

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::id::{Collection, Incarnation, Key, LogId, NodeId};
use entgldb_replica::version::{Hash, Head, Seq};
use entgldb_replica::wire::{Message, Page, Run, check_of};

const FORGERIES: u32 = 100_000;

/// A small generator that gives the same numbers everywhere (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let bit = self.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    fn flip_number(&mut self, number: u64) -> u64 {
        number ^ 1 << self.below(64)
    }
}

fn victim() -> AuthorKey {
    AuthorKey::from_seed(&[7; 32])
}

fn attacker() -> AuthorKey {
    AuthorKey::from_seed(&[66; 32])
}

/// What the victim signed: eight entries of all kinds, cut off from an earlier part of the log.
fn honest() -> Run {
    let key = victim();
    let log = LogId {
        author: key.node_id(),
        incarnation: Incarnation(0x0123_4567_89ab_cdef),
        collection: Collection::new("orders").unwrap(),
    };
    let base = Hlc::from_wall(WallMillis(1_800_000_000_000));
    let previous = Hash([0x33; 32]);
    let mut chain = Chain::resume(log.clone(), Head { seq: Seq(40), hash: previous }, base);
    let mut entries = Vec::new();
    for number in 0..8u64 {
        let is_delete = number % 4 == 3;
        let entry = Entry {
            seq: Seq(41 + number),
            // Two of them share a stamp, as the entries of a unit do.
            hlc: Hlc(base.0 + (number.div_ceil(2) << 16)),
            replaces: (number % 2 == 1).then(|| Stamp { hlc: Hlc(base.0 - number), node: NodeId([9; 32]) }),
            op: if is_delete { Op::Delete } else { Op::Put },
            key: Key::new(&format!("order-{number}")).unwrap(),
            payload: if is_delete { Bytes::new() } else { format!("{{\"amount\":{number}}}").into() },
        };
        let linked = chain.link(entry.clone()).unwrap();
        entries.push((entry, check_of(&linked.hash())));
    }
    let last = entries.last().unwrap().0.hlc;
    let signed = SignedHead::sign(&key, &log, chain.head(), last);
    Run { log, public_key: key.public_key(), previous, entries, signed }
}

/// Where a receiver stops that follows `docs/protocol/entry.md`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Stopped {
    Unreadable,
    Chain,
    Check,
    Head,
    Signature,
}

fn receive(run: &Run) -> Result<(), Stopped> {
    let (head, _) = link(run, true)?;
    if head != run.signed.head {
        return Err(Stopped::Head);
    }
    run.signed.verify(&run.log, &run.public_key).map_err(|_| Stopped::Signature)
}

/// The head that the entries lead to, and the checks that they should have.
fn link(run: &Run, compare: bool) -> Result<(Head, Vec<u32>), Stopped> {
    let before = Head { seq: Seq(run.first_seq().0.wrapping_sub(1)), hash: run.previous };
    let mut chain = Chain::resume(run.log.clone(), before, Hlc::default());
    let mut checks = Vec::new();
    for (entry, check) in &run.entries {
        let linked = chain.link(entry.clone()).map_err(|_| Stopped::Chain)?;
        checks.push(check_of(&linked.hash()));
        if compare && checks.last() != Some(check) {
            return Err(Stopped::Check);
        }
    }
    Ok((chain.head(), checks))
}

/// Changes one thing, and says which.
fn forge(run: &mut Run, numbers: &mut Numbers) -> &'static str {
    let at = numbers.below(run.entries.len());
    let other = (at + 1 + numbers.below(run.entries.len() - 1)) % run.entries.len();
    let entry = &mut run.entries[at].0;
    match numbers.below(16) {
        0 => {
            let mut payload = [&entry.payload[..], b" "].concat();
            numbers.flip(&mut payload);
            entry.payload = payload.into();
            "payload"
        }
        1 => {
            let mut key = entry.key.as_str().as_bytes().to_vec();
            let place = numbers.below(key.len());
            key[place] ^= 1 << numbers.below(3);
            entry.key = Key::new(&String::from_utf8_lossy(&key)).unwrap();
            "key"
        }
        2 => {
            entry.hlc = Hlc(numbers.flip_number(entry.hlc.0));
            "time"
        }
        3 => {
            entry.seq = Seq(numbers.flip_number(entry.seq.0));
            "position"
        }
        4 => {
            entry.op = if entry.op == Op::Put { Op::Delete } else { Op::Put };
            "operation"
        }
        5 => {
            entry.replaces = match entry.replaces {
                Some(stamp) if numbers.below(2) == 0 => {
                    Some(Stamp { hlc: Hlc(numbers.flip_number(stamp.hlc.0)), ..stamp })
                }
                Some(mut stamp) => {
                    numbers.flip(&mut stamp.node.0);
                    Some(stamp)
                }
                None => Some(Stamp { hlc: Hlc(1), node: NodeId([1; 32]) }),
            };
            "replaced version"
        }
        6 => {
            run.entries[at].1 ^= 1 << numbers.below(32);
            "check"
        }
        7 => {
            numbers.flip(&mut run.previous.0);
            "previous hash"
        }
        8 => {
            numbers.flip(&mut run.log.author.0);
            "author"
        }
        9 => {
            run.log.incarnation = Incarnation(numbers.flip_number(run.log.incarnation.0));
            "incarnation"
        }
        10 => {
            run.log.collection =
                Collection::new(["order", "orders ", "Orders", "invoices"][numbers.below(4)]).unwrap();
            "collection"
        }
        11 => {
            numbers.flip(&mut run.public_key.0);
            "public key"
        }
        12 => {
            numbers.flip(&mut run.signed.signature);
            "signature"
        }
        13 => {
            match numbers.below(3) {
                0 => numbers.flip(&mut run.signed.head.hash.0),
                1 => run.signed.head.seq = Seq(numbers.flip_number(run.signed.head.seq.0)),
                _ => run.signed.hlc = Hlc(numbers.flip_number(run.signed.hlc.0)),
            }
            "signed head"
        }
        14 => {
            // Contents that are genuine, at places where they are not.
            let mine = run.entries[at].0.payload.clone();
            let theirs = std::mem::replace(&mut run.entries[other].0.payload, mine);
            run.entries[at].0.payload = theirs;
            "payloads swapped"
        }
        _ => {
            match numbers.below(3) {
                0 => run.entries.swap(at, other),
                1 => drop(run.entries.remove(at)),
                _ => run.entries.insert(at, run.entries[at].clone()),
            }
            "order and number of entries"
        }
    }
}

/// What somebody does who knows the format: everything is made to fit again, except what only the author can make.
fn make_it_fit(run: &mut Run, numbers: &mut Numbers) {
    let Ok((head, checks)) = link(run, false) else { return };
    for (entry, check) in run.entries.iter_mut().zip(checks) {
        entry.1 = check;
    }
    run.signed.head = head;
    match numbers.below(3) {
        0 => {}
        1 => run.signed = SignedHead::sign(&attacker(), &run.log, head, run.signed.hlc),
        _ => {
            run.signed = SignedHead::sign(&attacker(), &run.log, head, run.signed.hlc);
            run.public_key = attacker().public_key();
        }
    }
}

fn forgeries() -> u32 {
    let wanted = std::env::var("ENTGLDB_FORGERIES").ok();
    wanted.map_or(FORGERIES, |count| count.parse().expect("ENTGLDB_FORGERIES is a number"))
}

#[test]
fn a_forged_author_a_swapped_payload_or_any_other_changed_field_is_not_believed() {
    let honest = honest();
    assert_eq!(receive(&honest), Ok(()), "what is genuine is believed, or this test would say nothing");
    let mut numbers = Numbers(0x5eed);
    let mut stopped = std::collections::BTreeMap::<_, u32>::new();
    for number in 0..forgeries() {
        let mut run = honest.clone();
        let what = forge(&mut run, &mut numbers);
        if run == honest {
            // Two deletes have the same payload: swapping it is no forgery.
            assert_eq!(what, "payloads swapped");
            continue;
        }
        // Each fourth one is made to fit, which leaves only the signature to stop it.
        let is_clever = number % 4 == 0 && !matches!(what, "check" | "signature" | "signed head");
        if is_clever {
            make_it_fit(&mut run, &mut numbers);
        }
        let outcome = receive(&run).expect_err(&format!("forgery {number} ({what}) was believed: {run:?}"));
        *stopped.entry((what, is_clever, outcome)).or_default() += 1;
    }
    for ((what, is_clever, outcome), count) in &stopped {
        eprintln!("{count:>8} {what}{}: {outcome:?}", if *is_clever { ", made to fit" } else { "" });
    }
    let by_signature_alone: u32 = stopped
        .iter()
        .filter(|((_, clever, outcome), _)| *clever && *outcome == Stopped::Signature)
        .map(|(_, n)| n)
        .sum();
    assert!(by_signature_alone > forgeries() / 10, "the signature was hardly ever put to the test");
    let kinds: std::collections::BTreeSet<_> = stopped.keys().map(|(what, ..)| what).collect();
    assert_eq!(kinds.len(), 16, "{kinds:?}");
}

#[test]
fn every_flipped_bit_of_a_page_on_the_wire_is_refused_or_changes_nothing() {
    let honest = honest();
    let (kind, body) = Message::Page(Page { id: 1, runs: vec![honest.clone()] }).encode();
    let (mut harmless, mut stopped) = (Vec::new(), std::collections::BTreeMap::<_, u32>::new());
    for bit in 0..body.len() * 8 {
        let mut altered = body.to_vec();
        altered[bit / 8] ^= 1 << (bit % 8);
        let outcome = match Message::decode(kind, altered.into()) {
            Ok(Some(Message::Page(page))) if page.runs.iter().all(|run| *run == honest) => {
                // The page's own number is of no history, and neither is a field that nobody knows.
                harmless.push((bit, page.runs.len()));
                continue;
            }
            Ok(Some(Message::Page(page))) => page
                .runs
                .iter()
                .find_map(|run| receive(run).err())
                .unwrap_or_else(|| panic!("bit {bit}: {page:?}")),
            Ok(other) => panic!("bit {bit}: {other:?}"),
            Err(_) => Stopped::Unreadable,
        };
        *stopped.entry(outcome).or_default() += 1;
    }
    eprintln!("{} bits: {stopped:?}, harmless {}", body.len() * 8, harmless.len());
    assert!(harmless.len() < 64, "{harmless:?}");
}
