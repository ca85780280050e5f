//! Those who do not have the cluster secret, or behave as if they had all the time in the world.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use common::{Node, hasty, listening, noise, plain, rand64, read_to_close};
use entgldb_net::{ClusterSecret, DialError, HandshakeError, NetConfig, NetEvent};
use entgldb_replica::limits::{PRE_AUTH_BYTES_MAX, PRE_AUTH_MAX, PRE_AUTH_PER_ADDRESS_MAX};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const MESSAGE_1_BYTES: usize = 48;

fn message(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

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
async fn a_recorded_first_message_gets_an_answer_that_is_of_no_use() {
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
async fn two_hundred_dribbling_connections_do_not_keep_an_honest_peer_out() {
    let secret = ClusterSecret::generate();
    let mut node = Node::start(&listening("till"), &secret);
    let mut dribblers = Vec::new();
    for number in 0..200u16 {
        let mut stream = connect_from((2 + number / 7) as u8, node.address()).await;
        stream.write_all(&[0]).await.unwrap();
        dribblers.push(stream);
    }
    let mut honest = Node::start(&NetConfig::new("honest", rand64()), &secret);
    let begun = Instant::now();
    honest.dial(node.address());
    let (link, _) = honest.link_up().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    honest.send(link, plain(16, "hello")).await;
    loop {
        match node.event().await {
            NetEvent::Frame { frame, .. } => break assert_eq!(&frame.body[..], b"hello"),
            NetEvent::LinkUp { .. } => {}
            NetEvent::Refused { reason, .. } => assert_eq!(reason, HandshakeError::PushedOut),
            other => panic!("{other:?}"),
        }
    }
}

/// How many of these connections the other side still holds open.
async fn count_open(streams: &[TcpStream]) -> usize {
    tokio::time::sleep(Duration::from_millis(200)).await;
    let open = |stream: &&TcpStream| matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    streams.iter().filter(open).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_and_all_addresses_together_hold_only_so_many_places_before_authentication() {
    let node = Node::start(&listening("till"), &ClusterSecret::generate());
    let mut streams = Vec::new();
    for _ in 0..3 * PRE_AUTH_PER_ADDRESS_MAX {
        streams.push(connect_from(2, node.address()).await);
    }
    assert_eq!(count_open(&streams).await, PRE_AUTH_PER_ADDRESS_MAX);
    assert_eq!(node.net.traffic().handshakes_refused as usize, 2 * PRE_AUTH_PER_ADDRESS_MAX);
    for last in 3..30 {
        for _ in 0..4 {
            streams.push(connect_from(last, node.address()).await);
        }
    }
    assert_eq!(count_open(&streams).await, PRE_AUTH_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strangers_is_counted_but_reported_only_in_part() {
    let mut node = Node::start(&listening("till"), &ClusterSecret::generate());
    for _ in 0..100 {
        let mut stranger = TcpStream::connect(node.address()).await.unwrap();
        stranger.write_all(&message(&noise(MESSAGE_1_BYTES))).await.unwrap();
        read_to_close(&mut stranger).await;
    }
    let reported = node.events_within(Duration::from_millis(100)).await.len();
    assert_eq!(node.net.traffic().handshakes_refused, 100);
    assert!((1..100).contains(&reported), "{reported} of 100 were reported");
}
