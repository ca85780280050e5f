//! Those who come in masses, or take all the time in the world: honest peers must hardly notice.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use entgldb_net::{ClusterSecret, HandshakeError, NetConfig, NetEvent, Timing};
use entgldb_replica::limits::{
    HANDSHAKES_PER_SECOND, LINK_IN_FLIGHT_BYTES_MAX, PRE_AUTH_MAX, PRE_AUTH_PER_ADDRESS_MAX,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::by_hand::{Recipe, hear, message};
use crate::common::{Node, listening, noise, plain, rand64, read_to_close};

const MESSAGE_1_BYTES: usize = 48;
/// Catches a hang. On a quiet machine the honest peer needs a thousandth of it; the real time is printed.
const HONEST_WITHIN: Duration = Duration::from_secs(60);

async fn connect_from(last: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0).into())?;
    socket.connect(to).await
}

/// Whether this process may open so many files beside those of the other tests. The listener under test is in this
/// process too and leaves a quarter of them free.
fn may_open(files: u64) -> bool {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let allowed = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let enough = allowed.is_none_or(|allowed| allowed * 3 / 4 > files + 500);
    if !enough {
        eprintln!("skipped: needs {files} open files, and this process may have {allowed:?}");
    }
    enough
}

/// An honest peer that links up and exchanges a frame; how long it took, over all its tries.
async fn honest_visit(node: &mut Node, secret: &ClusterSecret) -> Duration {
    let mut honest = Node::start(&NetConfig::new("honest", rand64()), secret);
    let begun = Instant::now();
    let link = loop {
        honest.dial(node.address());
        match honest.event().await {
            NetEvent::LinkUp { link, .. } => break link,
            NetEvent::DialFailed { .. } => assert!(begun.elapsed() < HONEST_WITHIN, "never let in"),
            other => panic!("{other:?}"),
        }
    };
    honest.send(link, plain(16, "hello")).await;
    loop {
        match node.event().await {
            NetEvent::Frame { frame, .. } => break assert_eq!(&frame.body[..], b"hello"),
            NetEvent::LinkUp { .. } | NetEvent::LinkDown { .. } => {}
            NetEvent::Refused { reason, .. } => assert!(
                matches!(
                    reason,
                    HandshakeError::PushedOut
                        | HandshakeError::Rejected
                        | HandshakeError::Stranger
                        | HandshakeError::Timeout
                ),
                "{reason:?}"
            ),
            other => panic!("{other:?}"),
        }
    }
    let took = begun.elapsed();
    assert!(took < HONEST_WITHIN, "it took {took:?}");
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_loris_a_thousand_dribbling_connections_do_not_keep_an_honest_peer_out() {
    const DRIBBLERS: u16 = 1000;
    if !may_open(u64::from(DRIBBLERS)) {
        return;
    }
    let secret = ClusterSecret::generate();
    let mut node = Node::start(&listening("till"), &secret);
    let dribbled = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..DRIBBLERS {
        let (to, dribbled) = (node.address(), Arc::clone(&dribbled));
        tasks.spawn(async move {
            // A byte at a time of a message that is as long as may be; whoever is thrown out comes again.
            loop {
                if let Ok(mut stream) = connect_from((2 + number / 8) as u8, to).await {
                    while stream.write_all(&[3]).await.is_ok() {
                        dribbled.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
        });
    }
    while dribbled.load(Ordering::Relaxed) < usize::from(DRIBBLERS) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut times = Vec::new();
    for _ in 0..10 {
        times.push(honest_visit(&mut node, &secret).await);
    }
    times.sort();
    eprintln!("slow loris: 10 honest links, median {:?}, longest {:?}", times[5], times[9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_flood_ten_thousand_strangers_do_not_keep_honest_peers_out() {
    const STRANGERS: usize = 10_000;
    /// Kept open by the flooder, so that there are no more than these and the listener's own few.
    const OPEN: usize = 300;
    if !may_open(OPEN as u64) {
        return;
    }
    let secret = ClusterSecret::generate();
    let mut node = Node::start(&listening("till"), &secret);
    let address = node.address();
    let begun = Instant::now();
    let flood = tokio::spawn(async move {
        let mut open = VecDeque::new();
        for number in 0..STRANGERS {
            if let Ok(mut stream) = connect_from((2 + number % 200) as u8, address).await {
                // Half say nothing, half something wrong.
                if number % 2 == 0 {
                    let _ = stream.write_all(&message(&noise(MESSAGE_1_BYTES))).await;
                }
                open.push_back(stream);
            }
            open.drain(..open.len().saturating_sub(OPEN));
        }
    });
    let mut times = Vec::new();
    while !flood.is_finished() || times.is_empty() {
        times.push(honest_visit(&mut node, &secret).await);
        // All of them come from one address, which has only so many handshakes a second.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    flood.await.unwrap();
    times.sort();
    eprintln!(
        "connection flood: {STRANGERS} in {:?}; {} honest links meanwhile, median {:?}, longest {:?}",
        begun.elapsed(),
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

/// Leads to `target` over a line where everything that comes back takes this long.
async fn far_away(target: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = connect_from(250, target).await.unwrap();
            let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = far_read.read(&mut bytes).await {
                    tokio::time::sleep(delay).await;
                    if near_write.write_all(&bytes[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_peer_far_away_gets_in_at_once_while_strangers_take_all_places_again_and_again() {
    let secret = ClusterSecret::generate();
    let node = Node::start(&listening("till"), &secret);
    let address = node.address();
    let flood = tokio::spawn(async move {
        let mut open = VecDeque::new();
        for number in 0.. {
            if let Ok(stream) = connect_from((2 + number % 200) as u8, address).await {
                open.push_back(stream);
            }
            open.drain(..open.len().saturating_sub(2 * PRE_AUTH_MAX));
            // All places change hands every 64 ms, while one handshake takes ten times as long.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut honest = Node::start(&NetConfig::new("honest", rand64()), &secret);
    let line = far_away(address, Duration::from_millis(300)).await;
    let pushed_out = || node.net.traffic().handshakes_refused;
    let mut times_all_places = 0;
    // On a busy machine the flood may be a trickle for a while.
    for _ in 0..10 {
        let before = pushed_out();
        honest.dial(line);
        honest.link_up().await;
        times_all_places = (pushed_out() - before) / PRE_AUTH_MAX as u64;
        if times_all_places >= 2 {
            break;
        }
    }
    assert!(times_all_places >= 2, "there was no flood");
    flood.abort();
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
        streams.push(connect_from(2, node.address()).await.unwrap());
    }
    assert_eq!(count_open(&streams).await, PRE_AUTH_PER_ADDRESS_MAX);
    assert_eq!(node.net.traffic().handshakes_refused as usize, 2 * PRE_AUTH_PER_ADDRESS_MAX);
    for last in 3..30 {
        for _ in 0..4 {
            streams.push(connect_from(last, node.address()).await.unwrap());
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

#[tokio::test(flavor = "multi_thread")]
async fn recorded_first_messages_in_masses_cost_only_so_many_handshakes_a_second() {
    let secret = ClusterSecret::generate();
    let mut node = Node::start(&listening("till"), &secret);
    let recipe = Recipe::right(&secret);
    let mut answered = 0;
    let begun = Instant::now();
    for _ in 0..500 {
        let mut stream = connect_from(2, node.address()).await.unwrap();
        // Each was recorded from another handshake.
        stream.write_all(&recipe.hello()).await.unwrap();
        let patience = Duration::from_millis(1);
        // Whoever is not answered at once makes room for the next try, as a flood would.
        answered += usize::from(matches!(tokio::time::timeout(patience, hear(&mut stream)).await, Ok(Ok(_))));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let allowed = f64::from(HANDSHAKES_PER_SECOND) * (1.0 + seconds) + 1.0;
    assert!(answered as f64 <= allowed, "{answered} in {seconds} s");
    assert!(answered > 0, "nobody was answered at all");
    // An honest peer at another address is not held up by that. (Nodes dial from 127.0.0.1.)
    honest_visit(&mut node, &secret).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_peers_behind_one_address_wait_for_their_turn_and_all_get_in() {
    let peers = HANDSHAKES_PER_SECOND as usize + PRE_AUTH_PER_ADDRESS_MAX / 2;
    let secret = ClusterSecret::generate();
    let node = Node::start(&listening("hub"), &secret);
    let mut all = Vec::new();
    for _ in 0..peers {
        let mut peer = Node::start(&NetConfig::new("peer", rand64()), &secret);
        peer.dial(node.address());
        peer.link_up().await;
        all.push(peer);
    }
    assert_eq!(node.net.traffic().links_up as usize, peers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_floods_is_read_no_faster_than_its_rate_and_others_are_not_held_up() {
    const RATE: usize = 1 << 20;
    let secret = ClusterSecret::generate();
    let mut config = listening("till");
    config.link_bytes_per_second = RATE;
    let mut till = Node::start(&config, &secret);
    let mut flooder = Node::start(&NetConfig::new("flooder", rand64()), &secret);
    flooder.dial(till.address());
    let (from, _) = flooder.link_up().await;
    till.link_up().await;
    let begun = Instant::now();
    for _ in 0..20 {
        flooder.send(from, plain(17, noise(256 << 10))).await;
    }
    // A second's worth is free.
    while begun.elapsed() < Duration::from_millis(1500) {
        for event in till.events_within(Duration::from_millis(50)).await {
            assert!(matches!(event, NetEvent::Frame { .. }), "{event:?}");
        }
    }
    let most = RATE as f64 * (1.0 + begun.elapsed().as_secs_f64()) + f64::from(1 << 20);
    let read = till.net.traffic().wire_bytes_in;
    assert!(read > RATE as u64 && (read as f64) < most, "{read} bytes in {:?}", begun.elapsed());
    let mut honest = Node::start(&NetConfig::new("honest", rand64()), &secret);
    let dialled = Instant::now();
    honest.dial(till.address());
    let (link, _) = honest.link_up().await;
    honest.send(link, plain(16, "hello")).await;
    loop {
        if let NetEvent::Frame { frame, .. } = till.event().await
            && frame.kind == 16
        {
            break;
        }
    }
    eprintln!("member flood: an honest peer linked and was heard in {:?}", dialled.elapsed());
    assert!(dialled.elapsed() < HONEST_WITHIN);
    // It is slowed down, and stays.
    let mut frames = 0;
    while till.net.traffic().frames_in < 21 {
        frames += till.events_within(Duration::from_millis(50)).await.len();
        assert!(begun.elapsed() < Duration::from_secs(30), "after {frames} frames");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_compresses_counts_as_what_it_becomes() {
    const RATE: usize = 1 << 20;
    let secret = ClusterSecret::generate();
    let mut config = listening("till");
    config.link_bytes_per_second = RATE;
    let mut till = Node::start(&config, &secret);
    let mut flooder = Node::start(&NetConfig::new("flooder", rand64()), &secret);
    flooder.dial(till.address());
    let (from, _) = flooder.link_up().await;
    till.link_up().await;
    let body = crate::common::documents(1 << 20);
    let begun = Instant::now();
    for _ in 0..4 {
        flooder.send(from, crate::common::compressible(17, body.clone())).await;
    }
    for _ in 0..4 {
        till.frame().await;
    }
    assert!(till.net.traffic().wire_bytes_in < RATE as u64);
    assert!(begun.elapsed() > Duration::from_secs(2), "4 MiB of content in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_floods_an_owner_that_is_behind_leaves_room_for_the_frames_of_others() {
    const BODY: usize = 1 << 20;
    let secret = ClusterSecret::generate();
    let mut till = Node::start(&listening("till"), &secret);
    let timing = Timing { handshake_every: Duration::from_millis(1), ..Timing::default() };
    let mut flooder = Node::start(&NetConfig { timing, ..NetConfig::new("flooder", rand64()) }, &secret);
    flooder.dial(till.address());
    let (from, _) = flooder.link_up().await;
    till.link_up().await;
    let body = noise(BODY);
    for _ in 0..30 {
        flooder.send(from, plain(17, body.clone())).await;
    }
    // The owner lets go of nothing.
    let mut held = Vec::new();
    while held.len() < LINK_IN_FLIGHT_BYTES_MAX / BODY - 1 {
        held.push(till.event().await);
    }
    assert!(till.events_within(Duration::from_millis(300)).await.is_empty());
    let mut honest = Node::start(&NetConfig::new("honest", rand64()), &secret);
    honest.dial(till.address());
    let (link, _) = honest.link_up().await;
    till.link_up().await;
    honest.send(link, plain(16, "hello")).await;
    assert_eq!(&till.frame().await.body[..], b"hello");
}
