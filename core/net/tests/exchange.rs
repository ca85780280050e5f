//! Two nodes of one cluster exchange frames.

mod common;

use std::time::Duration;

use common::{Node, SOON, compressible, documents, listening, noise, only, pair, pair_with, plain, rand64};
use entgldb_net::{
    CloseReason, ClusterSecret, Codec, DialError, HandshakeError, Identity, NetConfig, NetEvent, SendError,
    Transport,
};
use entgldb_replica::limits::{
    FRAME_BYTES_HARD, LINK_IN_FLIGHT_BYTES_MAX, PRE_AUTH_MAX, SEND_QUEUE_FRAMES_MAX, SESSIONS_MAX,
};

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_learn_who_the_other_is() {
    let secret = ClusterSecret::generate();
    let mut till = Node::start(&listening("till"), &secret);
    let mut config = NetConfig::new("office", 42);
    config.frame_bytes_max = 1 << 20;
    let mut office = Node::start(&config, &secret);
    office.dial(till.address());
    let NetEvent::LinkUp { peer, address, we_dialled, target, .. } = office.event().await else {
        panic!("expected a link");
    };
    assert_eq!((peer.node, peer.public_key), (till.identity.node_id(), till.identity.public_key()));
    assert_eq!((peer.name.as_str(), address, we_dialled), ("till", till.address(), true));
    assert_eq!(target, Some(till.address().to_string()));
    let NetEvent::LinkUp { peer, we_dialled, target, .. } = till.event().await else {
        panic!("expected a link")
    };
    assert_eq!((peer.node, peer.name.as_str(), peer.instance), (office.identity.node_id(), "office", 42));
    assert_eq!((peer.frame_bytes_max, we_dialled, target), (1 << 20, false, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_all_sizes_arrive_whole_and_in_order_in_both_directions() {
    let ((mut one, to_two), (mut two, to_one)) = pair().await;
    let sizes = [0, 1, 100, 1023, 1024, 4095, 4096, 65_000, 65_519, 65_520, 200_000, 1 << 20, 4 << 20];
    for (node, link) in [(&one, to_two), (&two, to_one)] {
        for (kind, size) in (16..).zip(sizes) {
            node.send(link, plain(kind, noise(size))).await;
            node.send(link, compressible(kind, documents(size))).await;
            node.send(link, compressible(kind, noise(size))).await;
        }
    }
    for node in [&mut one, &mut two] {
        for (kind, size) in (16..).zip(sizes) {
            for number in 0..3 {
                let frame = node.frame().await;
                assert_eq!((frame.kind, frame.body.len()), (kind, size));
                assert!(number != 1 || frame.body == documents(size));
            }
        }
    }
}

/// A page of rows that hold the same, roughly.
fn equal_rows(rows: usize, row: &str) -> Vec<u8> {
    (0..rows).flat_map(|number| format!("{{\"id\":{number},\"note\":\"{row}\"}}").into_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_that_compress_beyond_what_a_receiver_allows_arrive_all_the_same() {
    let bodies = [
        vec![0; 95_000],
        b"one text, ".repeat(18_000),
        equal_rows(180, &"a long note ".repeat(2_000)),
        vec![0; (64 << 10) + 1],
        vec![b'x'; 4 << 20],
    ];
    for codec in [Codec::Zstd, Codec::Brotli] {
        let mut config = listening("responder");
        (config.codecs, config.frame_bytes_max) = (only(codec), FRAME_BYTES_HARD);
        let ((mut one, _), (two, to_one)) = pair_with(&config, &NetConfig::new("initiator", rand64())).await;
        for body in &bodies {
            two.send(to_one, compressible(16, body.clone())).await;
            assert!(one.frame().await.body == body[..], "{codec:?}: {} bytes", body.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_frames_arrive_each_once_in_order_with_their_content() {
    const FRAMES: u64 = 20_000;
    let ((mut one, _), (two, to_one)) = pair().await;
    let sender = async {
        for number in 0..FRAMES {
            two.send(to_one, plain(16 + number, number.to_be_bytes().to_vec())).await;
        }
    };
    let receiver = async {
        for number in 0..FRAMES {
            let frame = one.frame().await;
            assert_eq!((frame.kind, &frame.body[..]), (16 + number, &number.to_be_bytes()[..]));
        }
    };
    tokio::join!(sender, receiver);
    let (sent, received) = (two.net.traffic(), one.net.traffic());
    assert_eq!((sent.frames_out, sent.raw_bytes_out), (FRAMES, FRAMES * 8));
    assert_eq!((received.frames_in, received.raw_bytes_in), (FRAMES, FRAMES * 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_shrink_on_the_wire_with_whichever_codec_both_have_and_noise_is_sent_as_it_is() {
    for (ours, theirs) in [
        (only(Codec::Zstd), only(Codec::Zstd)),
        (only(Codec::Brotli), only(Codec::Zstd)),
        (only(Codec::Zstd), only(Codec::Brotli)),
        (Vec::new(), Vec::new()),
    ] {
        let mut responder = listening("responder");
        responder.codecs = ours;
        let mut initiator = NetConfig::new("initiator", rand64());
        initiator.codecs = theirs;
        let ((mut one, to_two), (mut two, to_one)) = pair_with(&responder, &initiator).await;
        let body = documents(300_000);
        two.send(to_one, compressible(16, body.clone())).await;
        assert_eq!(one.frame().await.body, body);
        one.send(to_two, compressible(17, body.clone())).await;
        assert_eq!(two.frame().await.body, body);
        for node in [&one, &two] {
            let wire = node.net.traffic().wire_bytes_out;
            assert!(wire < 100_000, "300,000 bytes of documents took {wire} on the wire");
        }
        two.send(to_one, plain(18, body)).await;
        two.send(to_one, compressible(19, noise(300_000))).await;
        one.frame().await;
        one.frame().await;
        assert!(one.net.traffic().wire_bytes_in > 600_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_over_ipv6_works_with_the_address_in_brackets() {
    let secret = ClusterSecret::generate();
    let mut config = listening("six");
    config.listen = Some("[::1]:0".parse().unwrap());
    let sink = std::sync::Arc::new(|_| {});
    let handle = tokio::runtime::Handle::current();
    if Transport::start(&handle, &config, &secret, &Identity::generate(), sink).is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let mut six = Node::start(&config, &secret);
    let mut dialler = Node::start(&NetConfig::new("dialler", 1), &secret);
    dialler.net.dial(format!("[::1]:{}", six.address().port()));
    dialler.link_up().await;
    six.link_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_resolved() {
    let secret = ClusterSecret::generate();
    let node = Node::start(&listening("till"), &secret);
    let mut dialler = Node::start(&NetConfig::new("dialler", 1), &secret);
    dialler.net.dial(format!("localhost:{}", node.address().port()));
    dialler.link_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_cannot_be_reached_fail_with_the_reason() {
    let mut node = Node::start(&NetConfig::new("dialler", 1), &ClusterSecret::generate());
    for nonsense in ["", "no-port", "host:port", "::1", "name.invalid:1"] {
        node.net.dial(nonsense.to_owned());
        let reason = node.dial_failed().await;
        assert!(matches!(reason, DialError::Resolve(_)), "{nonsense:?} gave {reason:?}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    node.dial(closed);
    assert_eq!(node.dial_failed().await, DialError::Connect(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(node.net.traffic().dials_failed, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reaches_itself_says_so_and_a_copy_of_it_is_told_apart() {
    let secret = ClusterSecret::generate();
    let mut node = Node::start(&listening("till"), &secret);
    node.dial(node.address());
    let mut events = [node.event().await, node.event().await];
    events.sort_by_key(|event| matches!(event, NetEvent::Refused { .. }));
    assert!(matches!(
        events[0],
        NetEvent::DialFailed { reason: DialError::Handshake(HandshakeError::SelfConnection), .. }
    ));
    assert!(matches!(events[1], NetEvent::Refused { .. }));

    let mut copy = Node::start_as(&NetConfig::new("copy", rand64()), &secret, node.identity.clone());
    copy.dial(node.address());
    assert_eq!(copy.dial_failed().await, DialError::Handshake(HandshakeError::IdentityCloned));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_reaches_the_peer_with_its_reason_after_what_was_queued() {
    let ((mut one, _), (mut two, to_one)) = pair().await;
    for _ in 0..10 {
        two.send(to_one, plain(16, noise(100_000))).await;
    }
    two.net.close(to_one, "enough\nfor today");
    assert_eq!(two.net.send(to_one, plain(16, "late")), Err(SendError::Gone));
    for _ in 0..10 {
        assert_eq!(one.frame().await.body.len(), 100_000);
    }
    assert_eq!(one.link_down().await, CloseReason::Peer("enough for today".to_owned()));
    assert_eq!(two.link_down().await, CloseReason::Local("enough\nfor today".to_owned()));
    two.net.close(to_one, "twice is harmless");
    assert!(two.event_now().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_reaches_a_peer_that_is_sending_all_the_time() {
    for _ in 0..10 {
        let ((mut one, to_two), (two, to_one)) = pair().await;
        let body = noise(200_000);
        for _ in 0..30 {
            one.send(to_two, plain(16, body.clone())).await;
        }
        two.net.close(to_one, "enough");
        assert_eq!(one.link_down().await, CloseReason::Peer("enough".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_long_reason_is_cut_between_characters() {
    let ((mut one, _), (two, to_one)) = pair().await;
    two.net.close(to_one, &"ä".repeat(1000));
    let CloseReason::Peer(reason) = one.link_down().await else { panic!("expected a close by the peer") };
    assert_eq!(reason, "ä".repeat(128));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_shutdown_peers_know_it_the_port_is_free_and_the_sink_is_silent() {
    let ((mut one, to_two), (mut two, _)) = pair().await;
    one.net.dial("192.0.2.1:9".to_owned());
    tokio::time::timeout(SOON, one.net.shutdown()).await.expect("a shutdown ends");
    assert!(matches!(one.event_now(), Some(NetEvent::LinkDown { reason: CloseReason::Shutdown, .. })));
    std::net::TcpListener::bind(one.address()).expect("nobody listens any more");
    assert_eq!(two.link_down().await, CloseReason::Peer("shutting down".to_owned()));
    assert_eq!(one.net.send(to_two, plain(16, "late")), Err(SendError::Gone));
    one.net.dial(one.address().to_string());
    assert!(one.events_within(Duration::from_millis(100)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_closes_the_links() {
    let ((one, _), (mut two, _)) = pair().await;
    drop(one.net);
    assert_eq!(two.link_down().await, CloseReason::Peer("shutting down".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_without_a_word_is_reported_as_such() {
    let secret = ClusterSecret::generate();
    let mut one = Node::start(&listening("one"), &secret);
    let address = one.address();
    let crash = move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let two = runtime.block_on(async {
            let mut two = Node::start(&NetConfig::new("two", 1), &secret);
            two.dial(address);
            two.link_up().await;
            two
        });
        runtime.shutdown_background();
        two
    };
    // Kept, for dropping it would be an orderly end.
    let _two = std::thread::spawn(crash).join().unwrap();
    one.link_up().await;
    let reason = one.link_down().await;
    assert!(
        matches!(reason, CloseReason::Truncated | CloseReason::Io(_)),
        "a crash must not look like a close: {reason:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_refused_and_the_link_lives_on() {
    let mut small = listening("small");
    small.frame_bytes_max = 1000;
    let ((mut one, to_two), (mut two, to_one)) = pair_with(&small, &NetConfig::new("two", 1)).await;
    assert_eq!(two.net.send(to_one, plain(16, noise(1001))), Err(SendError::TooLarge));
    assert_eq!(two.net.send(to_one, plain(15, "ours")), Err(SendError::Reserved));
    two.send(to_one, plain(16, noise(1000))).await;
    assert_eq!(one.frame().await.body.len(), 1000);
    one.send(to_two, plain(16, noise(4 << 20))).await;
    assert_eq!(two.frame().await.body.len(), 4 << 20);
    assert_eq!(one.net.send(to_two, plain(16, noise((4 << 20) + 1))), Err(SendError::TooLarge));
}

#[test]
fn impossible_configurations_are_refused_before_anything_starts() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = |config: &NetConfig| {
        let sink = std::sync::Arc::new(|_| {});
        Transport::start(runtime.handle(), config, &ClusterSecret::generate(), &Identity::generate(), sink)
    };
    let config = NetConfig::new("x", 1);
    for bytes in [0, FRAME_BYTES_HARD + 1] {
        assert!(start(&NetConfig { frame_bytes_max: bytes, ..config.clone() }).is_err());
    }
    assert!(start(&NetConfig { name: "x".repeat(65), ..config.clone() }).is_err());
    assert!(start(&NetConfig { name: "a\nb".to_owned(), ..config.clone() }).is_err());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(start(&NetConfig { listen: Some(taken.local_addr().unwrap()), ..config.clone() }).is_err());
    // Outside of tokio, as the engine's own thread does it.
    let net = start(&NetConfig { listen: Some(([127, 0, 0, 1], 0).into()), ..config }).unwrap();
    net.dial("127.0.0.1:1".to_owned());
    runtime.block_on(net.shutdown());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_keeps_its_permits_stops_the_senders_until_it_lets_go() {
    const BODY: usize = 4 << 20;
    let ((mut one, _), (two, to_one)) = pair().await;
    let fit = LINK_IN_FLIGHT_BYTES_MAX / BODY - 1;
    let body = noise(BODY);
    for _ in 0..fit + 8 {
        two.send(to_one, plain(16, body.clone())).await;
    }
    let mut held = Vec::new();
    for _ in 0..fit {
        held.push(one.frame_and_permit().await);
    }
    assert!(one.events_within(Duration::from_millis(300)).await.is_empty());
    let read = one.net.traffic().wire_bytes_in as usize;
    assert!(read < LINK_IN_FLIGHT_BYTES_MAX + 2 * BODY, "{read} bytes were read with {fit} frames held");
    held.clear();
    for _ in 0..8 {
        assert_eq!(one.frame().await.body.len(), BODY);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_too_slow_fills_its_queue_which_is_said_and_not_waited_for() {
    let ((mut one, _), (two, to_one)) = pair().await;
    let body = noise(4 << 20);
    // The receiver's budget, its frame being read, the sockets' buffers, then the queue.
    let enough = LINK_IN_FLIGHT_BYTES_MAX / body.len() + SEND_QUEUE_FRAMES_MAX + 32;
    let mut sent = 0;
    let full = loop {
        match two.net.send(to_one, plain(16, body.clone())) {
            Ok(()) => sent += 1,
            Err(error) if sent >= SEND_QUEUE_FRAMES_MAX => break error,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        assert!(sent < enough, "{sent} frames were taken");
    };
    assert_eq!(full, SendError::Full);
    two.net.close(to_one, "too slow");
    assert!(matches!(
        one.link_down().await,
        CloseReason::Peer(_) | CloseReason::Truncated | CloseReason::Io(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_beyond_the_limit_are_refused_with_the_reason_and_a_place_that_falls_free_is_used() {
    let secret = ClusterSecret::generate();
    let mut config = listening("hub");
    config.timing.handshake_every = Duration::from_micros(1);
    let mut hub = Node::start(&config, &secret);
    let mut many = Vec::new();
    for _ in 0..SESSIONS_MAX {
        let mut node = Node::start(&NetConfig::new("one of many", rand64()), &secret);
        node.dial(hub.address());
        let (link, _) = node.link_up().await;
        many.push((node, link));
    }
    let mut late = Node::start(&NetConfig::new("late", rand64()), &secret);
    late.dial(hub.address());
    let reason = late.dial_failed().await;
    assert!(
        matches!(&reason, DialError::Handshake(HandshakeError::RefusedByPeer(text)) if text.contains("SESSIONS_MAX")),
        "{reason:?}"
    );
    let (node, link) = many.pop().unwrap();
    node.net.close(link, "making room");
    while hub.net.traffic().links_up > 0 {
        match hub.event().await {
            NetEvent::LinkDown { .. } => break,
            NetEvent::LinkUp { .. } | NetEvent::Refused { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // The place is given back a moment after the link is down.
    for _ in 0..100 {
        late.dial(hub.address());
        match late.event().await {
            NetEvent::LinkUp { .. } => return,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the free place was not given");
}

#[tokio::test(flavor = "multi_thread")]
async fn dials_beyond_the_limit_fail_at_once() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut node = Node::start(&NetConfig::new("dialler", 1), &ClusterSecret::generate());
    for _ in 0..=PRE_AUTH_MAX {
        node.dial(silent.local_addr().unwrap());
    }
    assert_eq!(node.dial_failed().await, DialError::TooManyDials);
}
