//! Secrets and content must not show up where they do not belong: in logs, in debug output, on the wire.

mod common;

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use common::{Deed, Mischief, Node, listening, plain, rand64, relay, secret_bytes};
use data_encoding::{BASE32_NOPAD, BASE64, HEXLOWER};
use entgldb_net::{ClusterSecret, NetConfig};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const PASSPHRASE: &str = "canary marble otter fifteen";
const BODY: &[u8] = b"canary in the content of a document";
const NAME: &str = "canary-office";

/// Keeps all that is logged, of every crate and at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        attributes.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_logs_nor_debug_output_nor_the_wire_hold_secrets_or_content() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let wire: Arc<Mutex<Vec<u8>>> = Arc::default();
    let tap = Arc::clone(&wire);
    let mischief: Mischief = Arc::new(move |_, _, message| {
        tap.lock().unwrap().extend_from_slice(&message);
        Deed::Pass(vec![message])
    });

    let secret = ClusterSecret::from_passphrase(PASSPHRASE, "canary").unwrap();
    let mut till = Node::start(&listening("till"), &secret);
    let mut office = Node::start(&NetConfig::new(NAME, rand64()), &secret);
    office.dial(relay(till.address(), mischief).await);
    let (link, peer) = office.link_up().await;
    let (_, office_as_seen) = till.link_up().await;
    office.send(link, plain(16, BODY)).await;
    let frame = till.frame().await;
    assert_eq!(&frame.body[..], BODY);
    office.net.close(link, "done");
    till.link_down().await;
    // A failure is logged as well.
    let mut stranger = Node::start(&NetConfig::new("stranger", 1), &ClusterSecret::generate());
    stranger.dial(till.address());
    stranger.dial_failed().await;
    till.refused().await;

    let debug = format!("{secret:?} {:?} {frame:?} {peer:?} {office_as_seen:?}", office.identity);
    let log = log.0.lock().unwrap().clone();
    assert!(log.contains("link up") && log.contains("dial failed"), "the log was not watched: {log}");
    let raw = secret_bytes(&secret);
    let seed = office.identity.signing_key().to_bytes();
    let mut canaries =
        vec![PASSPHRASE.to_owned(), secret.to_text().to_string(), String::from_utf8_lossy(BODY).into()];
    for key in [&raw[..], &seed[..]] {
        canaries.extend([HEXLOWER.encode(key), BASE32_NOPAD.encode(key).to_lowercase(), BASE64.encode(key)]);
        canaries.push(format!("{key:?}").trim_matches(['[', ']']).to_owned());
    }
    for canary in &canaries {
        for (place, text) in [("the log", &log), ("debug output", &debug)] {
            let (text, canary) = (text.to_lowercase(), canary.to_lowercase());
            assert!(!text.contains(&canary), "{canary} is in {place}");
        }
    }

    let wire = wire.lock().unwrap();
    assert!(wire.len() > 500, "the wire was not watched");
    let public = office.identity.public_key().0;
    let node = office.identity.node_id().0;
    for (what, bytes) in [
        ("secret", &raw[..]),
        ("seed", &seed),
        ("content", BODY),
        ("name", NAME.as_bytes()),
        ("key", &public),
        ("id", &node),
    ] {
        // Eight bytes in a row are no accident.
        for part in bytes.windows(8) {
            assert!(!wire.windows(8).any(|window| window == part), "a part of the {what} is on the wire");
        }
    }
}
