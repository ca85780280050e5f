//! What the length of an encrypted frame tells about the content of others: nothing, for each frame is compressed for
//! itself.
//!
//! Within one frame it tells something, as ever with compression. So what is compressed together is what one peer is
//! entitled to anyway, and the session layer puts no secret of the cluster into frames. That matters to whoever can watch
//! the network *and* write documents that travel in the same page as somebody else's; SECURITY.md says so.

use std::sync::{Arc, Mutex};

use entgldb_net::{ClusterSecret, Codec, NetConfig};

use crate::common::{Deed, Mischief, Node, Way, compressible, listening, noise, only, rand64, relay};

/// Sends `before` and then `guess` through one link; the length of the record that carries the guess.
async fn length_after(codec: Codec, before: &[u8], guess: &[u8]) -> usize {
    let lengths: Arc<Mutex<Vec<usize>>> = Arc::default();
    let tap = Arc::clone(&lengths);
    let mischief: Mischief = Arc::new(move |way, _, message| {
        if way == Way::In {
            tap.lock().unwrap().push(message.len());
        }
        Deed::Pass(vec![message])
    });
    let secret = ClusterSecret::generate();
    let mut config = listening("till");
    config.codecs = only(codec);
    let mut till = Node::start(&config, &secret);
    let mut office = Node::start(&NetConfig::new("office", rand64()), &secret);
    office.dial(relay(till.address(), mischief).await);
    let (link, _) = office.link_up().await;
    till.link_up().await;
    for body in [before, guess] {
        office.send(link, compressible(16, body.to_vec())).await;
        assert_eq!(till.frame().await.body, body);
    }
    *lengths.lock().unwrap().last().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_at_what_another_frame_holds_does_not_show_in_the_length_of_the_record() {
    // Text that is unique, so that a window over both frames would find it at once.
    let secret: String = noise(1000).iter().map(|byte| format!("{byte:02x}")).collect();
    let other: String = noise(1000).iter().map(|byte| format!("{byte:02x}")).collect();
    for codec in [Codec::Zstd, Codec::Brotli] {
        let right = length_after(codec, secret.as_bytes(), secret.as_bytes()).await;
        let wrong = length_after(codec, other.as_bytes(), secret.as_bytes()).await;
        assert_eq!(right, wrong, "{codec:?}");
        assert!(right < secret.len(), "{codec:?}: it was not compressed at all");
        // The same in one frame does show: the test would see it.
        let both = [secret.as_bytes(), secret.as_bytes()].concat();
        let neither = [other.as_bytes(), secret.as_bytes()].concat();
        assert!(length_after(codec, b"", &both).await + 500 < length_after(codec, b"", &neither).await);
    }
}
