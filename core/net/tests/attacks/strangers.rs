//! Those who do not have the cluster secret, and listen or speak all the same.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use entgldb_net::{ClusterSecret, DialError, HandshakeError, NetConfig, NetEvent};
use entgldb_replica::limits::PRE_AUTH_BYTES_MAX;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::by_hand::{Recipe, hear, message, say};
use crate::common::{
    Deed, Mischief, Node, Way, hasty, listening, noise, plain, rand64, read_to_close, relay,
};

const MESSAGE_1_BYTES: usize = 48;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_different_secrets_never_link_and_both_learn_why() {
    let mut ours = Node::start(&listening("ours"), &ClusterSecret::generate());
    let mut theirs = Node::start(&listening("theirs"), &ClusterSecret::generate());
    theirs.dial(ours.address());
    assert_eq!(theirs.dial_failed().await, DialError::Handshake(HandshakeError::Rejected));
    assert_eq!(ours.refused().await, HandshakeError::Stranger);
    assert_eq!(ours.net.traffic().handshakes_refused, 1);
    assert_eq!((ours.net.traffic().links_up, theirs.net.traffic().links_up), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_not_one_byte_whatever_it_says() {
    let mut config = listening("till");
    config.timing = hasty();
    let speeches: [(&[u8], HandshakeError); 9] = [
        (&message(&noise(MESSAGE_1_BYTES)), HandshakeError::Stranger),
        (&message(&[0; MESSAGE_1_BYTES]), HandshakeError::Stranger),
        (&message(&noise(MESSAGE_1_BYTES - 1)), HandshakeError::Stranger),
        (&message(&noise(MESSAGE_1_BYTES + 1)), HandshakeError::Stranger),
        (&message(&noise(PRE_AUTH_BYTES_MAX)), HandshakeError::Stranger),
        (&message(&noise(PRE_AUTH_BYTES_MAX + 1)), HandshakeError::TooLong(PRE_AUTH_BYTES_MAX + 1)),
        (b"GET / HTTP/1.1\r\nHost: till\r\n\r\n", HandshakeError::TooLong(0x4745)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", HandshakeError::TooLong(0x1603)),
        (&[0, 0], HandshakeError::Stranger),
    ];
    for (speech, reason) in speeches {
        let mut node = Node::start(&config, &ClusterSecret::generate());
        let mut stranger = TcpStream::connect(node.address()).await.unwrap();
        stranger.write_all(speech).await.unwrap();
        assert_eq!(read_to_close(&mut stranger).await, b"", "an answer to {speech:?}");
        assert_eq!(node.refused().await, reason);
    }
    // Saying nothing at all is waited for until the deadline.
    let mut node = Node::start(&config, &ClusterSecret::generate());
    let mut stranger = TcpStream::connect(node.address()).await.unwrap();
    assert_eq!(read_to_close(&mut stranger).await, b"");
    assert_eq!(node.refused().await, HandshakeError::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_first_message_gets_one_answer_that_is_of_no_use_and_then_none() {
    let secret = ClusterSecret::generate();
    let mut node = Node::start(&listening("till"), &secret);
    let recorder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let victim = Node::start(&NetConfig::new("victim", 1), &secret);
    victim.dial(recorder.local_addr().unwrap());
    let (mut recorded, _) = recorder.accept().await.unwrap();
    let mut message_1 = vec![0; 2 + MESSAGE_1_BYTES];
    tokio::io::AsyncReadExt::read_exact(&mut recorded, &mut message_1).await.unwrap();

    let mut replay = TcpStream::connect(node.address()).await.unwrap();
    replay.write_all(&message_1).await.unwrap();
    let mut length = [0; 2];
    tokio::io::AsyncReadExt::read_exact(&mut replay, &mut length).await.unwrap();
    // Without the ephemeral key, nothing that follows can be made.
    replay.write_all(&message(&noise(200))).await.unwrap();
    read_to_close(&mut replay).await;
    assert_eq!(node.refused().await, HandshakeError::Stranger);
    // And that only once.
    for _ in 0..5 {
        let mut replay = TcpStream::connect(node.address()).await.unwrap();
        assert_eq!(say(&mut replay, &message_1).await, b"");
        assert_eq!(node.refused().await, HandshakeError::Replayed);
    }
    assert_eq!(node.net.traffic().links_up, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialled_stranger_that_says_nothing_is_given_up_in_time_and_stalls_nobody() {
    let secret = ClusterSecret::generate();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut till = Node::start(&listening("till"), &secret);
    let mut config = NetConfig::new("office", 1);
    config.timing.handshake = hasty().handshake;
    let mut office = Node::start(&config, &secret);
    let begun = Instant::now();
    office.dial(silent.local_addr().unwrap());
    office.dial(till.address());
    let (to_till, _) = office.link_up().await;
    assert!(begun.elapsed() < hasty().handshake, "the silent one was waited for");
    office.send(to_till, plain(16, "meanwhile")).await;
    till.link_up().await;
    till.frame().await;
    assert_eq!(office.dial_failed().await, DialError::Handshake(HandshakeError::Timeout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialled_stranger_that_answers_nonsense_is_left() {
    let strange = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut node = Node::start(&NetConfig::new("office", 1), &ClusterSecret::generate());
    for (speech, reason) in [
        (message(&noise(200)), HandshakeError::Stranger),
        (message(&[]), HandshakeError::Stranger),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), HandshakeError::TooLong(0x5353)),
    ] {
        node.dial(strange.local_addr().unwrap());
        let (mut stream, _) = strange.accept().await.unwrap();
        stream.write_all(&speech).await.unwrap();
        assert_eq!(node.dial_failed().await, DialError::Handshake(reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_version_project_or_cipher_is_not_answered_by_a_single_byte() {
    let secret = ClusterSecret::generate();
    let mut node = Node::start(&NetConfig { timing: hasty(), ..listening("till") }, &secret);
    // The right one is answered, or this test would say nothing.
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    stream.write_all(&Recipe::right(&secret).hello()).await.unwrap();
    assert!(hear(&mut stream).await.unwrap().len() > 100);
    drop(stream);
    assert_eq!(node.refused().await, HandshakeError::Rejected);

    let right = || Recipe::right(&secret);
    let mut wrong = vec![
        Recipe::right(&ClusterSecret::generate()),
        Recipe { version: 0, ..right() },
        Recipe { version: 2, ..right() },
        Recipe { project: b"ENTGLDB\0", ..right() },
        Recipe { project: b"", ..right() },
        Recipe { tag: Vec::new(), ..right() },
        Recipe { pattern: "Noise_XX_25519_AESGCM_SHA256", ..right() },
        Recipe { pattern: "Noise_NN_25519_AESGCM_SHA256", ..right() },
        Recipe { pattern: "Noise_XXpsk3_25519_ChaChaPoly_SHA256", ..right() },
        Recipe { pattern: "Noise_XXpsk3_25519_AESGCM_SHA512", ..right() },
    ];
    for bit in 0..128 {
        let mut tag = right().tag;
        tag[bit / 8] ^= 1 << (bit % 8);
        wrong.push(Recipe { tag, ..right() });
    }
    for recipe in wrong {
        let mut stream = TcpStream::connect(node.address()).await.unwrap();
        assert_eq!(say(&mut stream, &recipe.hello()).await, b"", "{} {}", recipe.pattern, recipe.version);
    }
    assert_eq!(node.net.traffic().links_up, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_before_authentication_is_never_delivered() {
    // A frame of the session layer as it would stand in a record, in plain text and as noise of that length.
    let frame = [&[0, 0, 0, 7, 16, 0, 4][..], b"data"].concat();
    for smuggled in [frame.clone(), noise(frame.len() + 16).to_vec()] {
        // Straight away, by somebody without the secret.
        let secret = ClusterSecret::generate();
        let mut till = Node::start(&NetConfig { timing: hasty(), ..listening("till") }, &secret);
        let mut stream = TcpStream::connect(till.address()).await.unwrap();
        assert_eq!(say(&mut stream, &message(&smuggled)).await, b"");
        assert_eq!(till.refused().await, HandshakeError::Stranger);
        // Before, between and after the messages of somebody who has it, in both directions.
        for place in [(Way::In, 0), (Way::In, 1), (Way::In, 2), (Way::Out, 0), (Way::Out, 1), (Way::Out, 2)] {
            let words = smuggled.clone();
            let mischief: Mischief = Arc::new(move |way, number, message| {
                if (way, number) == place {
                    Deed::Pass(vec![words.clone(), message])
                } else {
                    Deed::Pass(vec![message])
                }
            });
            let mut config = NetConfig::new("office", rand64());
            config.timing = hasty();
            let mut office = Node::start(&config, &secret);
            office.dial(relay(till.address(), mischief).await);
            let mut ends = 0;
            while ends < 2 {
                // Whoever believes in a link by then sends something, so that the place is reached.
                let event = tokio::select! { event = till.event() => event, event = office.event() => event };
                match event {
                    NetEvent::LinkUp { link, .. } => {
                        let _ = (till.net.send(link, plain(16, "x")), office.net.send(link, plain(16, "x")));
                    }
                    NetEvent::Frame { frame, .. } => assert_eq!(&frame.body[..], b"x", "{place:?}"),
                    NetEvent::LinkDown { .. } | NetEvent::DialFailed { .. } | NetEvent::Refused { .. } => {
                        ends += 1
                    }
                    other => panic!("{place:?}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_recorded_conversation_played_again_links_nobody_and_delivers_nothing() {
    let secret = ClusterSecret::generate();
    let mut till = Node::start(&NetConfig { timing: hasty(), ..listening("till") }, &secret);
    let spoken: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let tap = Arc::clone(&spoken);
    let mischief: Mischief = Arc::new(move |way, _, message| {
        if way == Way::In {
            tap.lock().unwrap().push(message.clone());
        }
        Deed::Pass(vec![message])
    });
    let mut office = Node::start(&NetConfig::new("office", rand64()), &secret);
    office.dial(relay(till.address(), mischief).await);
    let (link, _) = office.link_up().await;
    till.link_up().await;
    office.send(link, plain(16, "pay 100")).await;
    assert_eq!(&till.frame().await.body[..], b"pay 100");

    let words: Vec<u8> = spoken.lock().unwrap().iter().flat_map(|words| message(words)).collect();
    let mut replay = TcpStream::connect(till.address()).await.unwrap();
    assert_eq!(say(&mut replay, &words).await, b"");
    assert_eq!(till.refused().await, HandshakeError::Replayed);
    assert_eq!((till.net.traffic().links_up, till.net.traffic().frames_in), (1, 1));
}
