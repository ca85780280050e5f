//! Tests with peers that are played byte by byte: they have the cluster secret, and break the rules all the same, or keep
//! them at the worst possible moment.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entgldb_replica::limits::{EXPANSION_BASE_BYTES, LINK_IN_FLIGHT_BYTES_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::codec::compress;
use crate::config::{Codec, NetConfig, Timing};
use crate::event::{CloseReason, DialError, Frame, NetEvent};
use crate::frame::{ALIVE, CLOSE, FrameError, READY, put_header};
use crate::handshake::{Established, HandshakeError, LocalEnd, accept};
use crate::identity::Identity;
use crate::introduction::IntroductionError;
use crate::secret::ClusterSecret;
use crate::shared::Shared;
use crate::transport::Transport;

const SOON: Duration = Duration::from_secs(10);
/// Largest frame that the victim takes.
const FRAME_BYTES: usize = 100_000;

struct Victim {
    net: Transport,
    events: mpsc::UnboundedReceiver<NetEvent>,
    secret: ClusterSecret,
}

impl Victim {
    fn start() -> Self {
        Self::start_with(Timing { handshake: Duration::from_millis(500), ..Timing::default() })
    }

    fn start_with(timing: Timing) -> Self {
        let secret = ClusterSecret::generate();
        let mut config = NetConfig::new("victim", 1);
        config.listen = Some(([127, 0, 0, 1], 0).into());
        config.frame_bytes_max = FRAME_BYTES;
        config.timing = timing;
        let (sender, events) = mpsc::unbounded_channel();
        let sink = Arc::new(move |event| drop(sender.send(event)));
        let net =
            Transport::start(&Handle::current(), &config, &secret, &Identity::generate(), sink).unwrap();
        Self { net, events, secret }
    }

    fn attacker(&self) -> LocalEnd {
        LocalEnd::new(&NetConfig::new("attacker", 2), &self.secret, &Identity::generate())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.net.local_address().unwrap()).await.unwrap()
    }

    async fn event(&mut self) -> NetEvent {
        timeout(SOON, self.events.recv()).await.expect("an event in time").expect("a live sink")
    }

    async fn refused(&mut self) -> HandshakeError {
        match self.event().await {
            NetEvent::Refused { reason, .. } => reason,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// Nothing may have been delivered before.
    async fn link_down(&mut self) -> CloseReason {
        match self.event().await {
            NetEvent::LinkDown { reason, .. } => reason,
            other => panic!("expected the end of the link, got {other:?}"),
        }
    }
}

fn frame(kind: u64, codec: Option<Codec>, raw_bytes: usize, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    put_header(&mut plain, kind, codec, raw_bytes, body.len());
    plain.extend_from_slice(body);
    plain
}

/// Responders of these tests answer without waiting for anything.
fn at_once() -> std::future::Ready<Result<(), HandshakeError>> {
    std::future::ready(Ok(()))
}

/// Links up as a good peer would, then sends these bytes: sealed, or as they are.
async fn after_link_up(sealed: bool, bytes: &[u8]) -> CloseReason {
    let mut victim = Victim::start();
    let mut stream = victim.connect().await;
    let Established { mut sealer, .. } = victim.attacker().initiate(&mut stream).await.unwrap();
    assert!(matches!(victim.event().await, NetEvent::LinkUp { .. }));
    let mut wire = Vec::new();
    if sealed {
        for piece in bytes.chunks(60_000) {
            sealer.seal(piece, &mut wire);
        }
    } else {
        wire.extend_from_slice(bytes);
    }
    stream.write_all(&wire).await.unwrap();
    victim.link_down().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_in_plain_text_is_no_record() {
    let plain = frame(16, None, 500, &[7; 500]);
    let mut with_record_length = u16::try_from(plain.len()).unwrap().to_be_bytes().to_vec();
    with_record_length.extend_from_slice(&plain);
    assert_eq!(after_link_up(false, &with_record_length).await, CloseReason::Tampered);
    assert_eq!(after_link_up(false, &plain).await, CloseReason::Protocol(FrameError::Record));
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_the_transport_that_do_not_belong_here_end_the_link() {
    for kind in [READY, CLOSE + 1, 15] {
        let reason = after_link_up(true, &frame(kind, None, 0, b"")).await;
        assert_eq!(reason, CloseReason::Protocol(FrameError::Kind(kind)));
    }
    let reason = after_link_up(true, &frame(ALIVE, None, 4, b"well")).await;
    assert_eq!(reason, CloseReason::Protocol(FrameError::Body));
    let reason = after_link_up(true, &frame(CLOSE, Some(Codec::Zstd), 4, b"what")).await;
    assert_eq!(reason, CloseReason::Protocol(FrameError::Body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_over_the_limit_ends_the_link_though_nothing_follows_it() {
    for length in [u32::MAX, 1 << 31, 101_000] {
        let reason = after_link_up(true, &length.to_be_bytes()).await;
        let too_large = FrameError::TooLarge { bytes: length.into(), max: FRAME_BYTES };
        assert_eq!(reason, CloseReason::Protocol(too_large));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_are_negative_or_huge_as_numbers_of_the_body_end_the_link() {
    // -1, the smallest number and the largest positive one of 64 bits, and the same of 32.
    for raw in [u64::MAX, 1 << 63, (1 << 63) - 1, 0xffff_ffff, 1 << 31] {
        for (codec, flags) in [(None, 0u8), (Some(Codec::Brotli), 1), (Some(Codec::Zstd), 2)] {
            let mut plain = frame(16, codec, usize::try_from(raw).unwrap(), b"x");
            assert_eq!(plain[5], flags);
            let reason = after_link_up(true, &plain).await;
            let too_large = FrameError::TooLarge { bytes: raw, max: FRAME_BYTES };
            assert_eq!(reason, CloseReason::Protocol(too_large));
            // A number of more than 64 bits, and one in a longer form than it needs.
            plain.truncate(6);
            for number in [&[0xff; 10][..], &[0x81, 0x80, 0x00]] {
                let mut plain = [&plain[..], number, b"x"].concat();
                let length = u32::try_from(plain.len() - 4).unwrap();
                plain[..4].copy_from_slice(&length.to_be_bytes());
                assert_eq!(after_link_up(true, &plain).await, CloseReason::Protocol(FrameError::Header));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_record_ends_the_link() {
    let reason = after_link_up(false, &[0, 0]).await;
    assert_eq!(reason, CloseReason::Protocol(FrameError::Record));
    let reason = after_link_up(false, &[&[0, 16][..], &[0; 16]].concat()).await;
    assert_eq!(reason, CloseReason::Protocol(FrameError::Record));
}

#[tokio::test(flavor = "multi_thread")]
async fn decompression_bombs_are_refused_and_nothing_of_them_is_delivered() {
    for codec in [Codec::Brotli, Codec::Zstd] {
        let bomb = compress(codec, &vec![0; 8 << 20]).unwrap();
        let honest_length = after_link_up(true, &frame(16, Some(codec), 8 << 20, &bomb)).await;
        assert!(
            matches!(honest_length, CloseReason::Protocol(FrameError::TooLarge { .. })),
            "{codec:?}: {honest_length:?}"
        );
        let tiny = &bomb[..bomb.len().min(100)];
        let declared = EXPANSION_BASE_BYTES + 256 * tiny.len() + 1;
        let over_the_ratio = after_link_up(true, &frame(16, Some(codec), declared, tiny)).await;
        assert!(
            matches!(over_the_ratio, CloseReason::Protocol(FrameError::Expansion { .. })),
            "{codec:?}: {over_the_ratio:?}"
        );
        let lie = after_link_up(true, &frame(16, Some(codec), 1000, &bomb)).await;
        assert!(
            matches!(lie, CloseReason::Protocol(FrameError::Body | FrameError::BodyLength)),
            "{codec:?}: {lie:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_the_protocol_is_told_so_before_the_line_is_cut() {
    let victim = Victim::start();
    let mut stream = victim.connect().await;
    let Established { mut sealer, mut opener, .. } = victim.attacker().initiate(&mut stream).await.unwrap();
    let mut wire = Vec::new();
    sealer.seal(&frame(9, None, 0, b""), &mut wire);
    stream.write_all(&wire).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut sealed = vec![0; length.into()];
    stream.read_exact(&mut sealed).await.unwrap();
    let mut plain = vec![0; sealed.len() - 16];
    opener.open(&sealed, &mut plain).unwrap();
    assert_eq!(u64::from(plain[4]), CLOSE);
    let said = String::from_utf8_lossy(&plain[7..]);
    assert!(said.contains("broke the protocol"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_did_not_sign_is_refused_on_both_sides() {
    let mut victim = Victim::start();
    let mut impostor = victim.attacker();
    impostor.pretend_to_be(&Identity::generate());
    let mut stream = victim.connect().await;
    assert!(impostor.initiate(&mut stream).await.is_err());
    assert_eq!(victim.refused().await, HandshakeError::Introduction(IntroductionError::Signature));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    victim.net.dial(listener.local_addr().unwrap().to_string());
    let (mut stream, _) = listener.accept().await.unwrap();
    assert!(
        impostor.respond(&mut stream, at_once()).await.is_err(),
        "the victim sent message 3 to an impostor"
    );
    match victim.event().await {
        NetEvent::DialFailed { reason: DialError::Handshake(reason), .. } => {
            assert_eq!(reason, HandshakeError::Introduction(IntroductionError::Signature));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(victim.net.traffic().links_up, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_right_prologue_and_the_wrong_key_the_handshake_fails_at_message_3_without_a_link() {
    let mut victim = Victim::start();
    let mut guesser = victim.attacker();
    guesser.forget_the_pre_shared_key();
    let mut stream = victim.connect().await;
    let outcome = guesser.initiate(&mut stream).await;
    assert_eq!(outcome.err(), Some(HandshakeError::Rejected));
    assert_eq!(victim.refused().await, HandshakeError::Stranger);
    assert_eq!(victim.net.traffic().links_up, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_whose_first_word_is_not_ready_gets_no_link_and_delivers_nothing() {
    let nothing: &[u8] = b"";
    let first_words = [
        (frame(16, None, 4, b"data"), HandshakeError::Protocol(FrameError::Kind(16))),
        (
            [frame(READY, None, 0, b""), frame(16, None, 0, b"")].concat(),
            HandshakeError::Protocol(FrameError::Record),
        ),
        (frame(READY, None, 0, b"")[..3].to_vec(), HandshakeError::Protocol(FrameError::Record)),
        (nothing.to_vec(), HandshakeError::Protocol(FrameError::Record)),
    ];
    let mut victim = Victim::start();
    for (words, expected) in first_words {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        victim.net.dial(listener.local_addr().unwrap().to_string());
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut established = victim.attacker().respond(&mut stream, at_once()).await.unwrap();
        let mut wire = Vec::new();
        established.sealer.seal(&words, &mut wire);
        stream.write_all(&wire).await.unwrap();
        match victim.event().await {
            NetEvent::DialFailed { reason: DialError::Handshake(reason), .. } => assert_eq!(reason, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responder_that_never_says_ready_is_given_up_in_time_and_gets_no_data() {
    let mut victim = Victim::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    victim.net.dial(listener.local_addr().unwrap().to_string());
    let (mut stream, _) = listener.accept().await.unwrap();
    let _established = victim.attacker().respond(&mut stream, at_once()).await.unwrap();
    match victim.event().await {
        NetEvent::DialFailed { reason: DialError::Handshake(HandshakeError::Timeout), .. } => {}
        other => panic!("{other:?}"),
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "{} bytes came after message 3", rest.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_peer_is_not_caught_by_any_of_this() {
    let mut victim = Victim::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    victim.net.dial(listener.local_addr().unwrap().to_string());
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut established = victim.attacker().respond(&mut stream, at_once()).await.unwrap();
    accept(&mut stream, &mut established.sealer).await.unwrap();
    assert!(matches!(victim.event().await, NetEvent::LinkUp { .. }));
    let mut wire = Vec::new();
    let body = compress(Codec::Zstd, &[7; 50_000]).unwrap();
    established.sealer.seal(&frame(16, Some(Codec::Zstd), 50_000, &body), &mut wire);
    stream.write_all(&wire).await.unwrap();
    match victim.event().await {
        NetEvent::Frame { frame, .. } => assert_eq!(frame.body.len(), 50_000),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_an_owner_takes_does_not_count_against_the_frame_that_has_begun() {
    let frame_time = Duration::from_millis(300);
    let mut victim = Victim::start_with(Timing { frame: frame_time, ..Timing::default() });
    let mut stream = victim.connect().await;
    let Established { mut sealer, .. } = victim.attacker().initiate(&mut stream).await.unwrap();
    assert!(matches!(victim.event().await, NetEvent::LinkUp { .. }));
    // The owner looks at no event, and so holds all permits. One frame more than fits, and a part of the next.
    let frames = LINK_IN_FLIGHT_BYTES_MAX / FRAME_BYTES + 1;
    let body = frame(16, None, FRAME_BYTES, &[7; FRAME_BYTES]);
    let mut wire = Vec::new();
    for _ in 0..frames {
        for piece in body.chunks(60_000) {
            sealer.seal(piece, &mut wire);
        }
    }
    sealer.seal(&body[..1000], &mut wire);
    stream.write_all(&wire).await.unwrap();
    tokio::time::sleep(frame_time * 3).await;
    for _ in 0..frames {
        assert!(matches!(victim.event().await, NetEvent::Frame { .. }));
    }
    tokio::time::sleep(frame_time / 3).await;
    wire.clear();
    for piece in body[1000..].chunks(60_000) {
        sealer.seal(piece, &mut wire);
    }
    stream.write_all(&wire).await.unwrap();
    let last = victim.event().await;
    assert!(matches!(last, NetEvent::Frame { .. }), "{last:?}");
}

/// Sends a frame in pieces, one every 50 ms, to a victim that gives a frame 300 ms; what comes of it.
async fn in_pieces(piece_bytes: usize) -> NetEvent {
    let mut victim = Victim::start_with(Timing { frame: Duration::from_millis(300), ..Timing::default() });
    let mut stream = victim.connect().await;
    let Established { mut sealer, .. } = victim.attacker().initiate(&mut stream).await.unwrap();
    assert!(matches!(victim.event().await, NetEvent::LinkUp { .. }));
    for piece in frame(16, None, FRAME_BYTES, &[7; FRAME_BYTES]).chunks(piece_bytes) {
        let mut wire = Vec::new();
        sealer.seal(piece, &mut wire);
        // The line is cut when the victim has had enough.
        let _ = stream.write_all(&wire).await;
        if let Ok(event) = timeout(Duration::from_millis(50), victim.events.recv()).await {
            return event.expect("a live sink");
        }
    }
    victim.event().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_may_take_long_as_long_as_it_goes_on_and_is_not_waited_for_when_it_only_dribbles() {
    // 80,000 bytes a second take more than a second; 4,000 would take 25.
    assert!(matches!(in_pieces(4000).await, NetEvent::Frame { .. }));
    let dribbled = in_pieces(200).await;
    assert!(matches!(dribbled, NetEvent::LinkDown { reason: CloseReason::FrameTimeout, .. }), "{dribbled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_few_file_descriptors_are_left_no_connections_are_taken_until_there_are_more() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX / 100);
    let secret = ClusterSecret::generate();
    let (sender, mut events) = mpsc::unbounded_channel();
    let config = NetConfig::new("victim", 1);
    let local = LocalEnd::new(&config, &secret, &Identity::generate());
    let mut shared = Shared::new(&config, local, Arc::new(move |event| drop(sender.send(event))));
    shared.descriptor_limit = || Some(LIMIT.load(Ordering::Relaxed));
    let shared = Arc::new(shared);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    LIMIT.store(1, Ordering::Relaxed);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(crate::listener::run(Arc::clone(&shared), listener, stopped));

    // The one that shows it is still let in.
    let peer = LocalEnd::new(&NetConfig::new("peer", 2), &secret, &Identity::generate());
    let mut first = TcpStream::connect(address).await.unwrap();
    let _link = peer.initiate(&mut first).await.unwrap();
    let mut happened = [events.recv().await.unwrap(), events.recv().await.unwrap()];
    happened.sort_by_key(|event| matches!(event, NetEvent::LinkUp { .. }));
    assert!(matches!(happened[0], NetEvent::ListenPaused { limit: 1 }), "{happened:?}");
    // The next one waits in the system's queue, and is let in when there is room again.
    let mut second = TcpStream::connect(address).await.unwrap();
    let peer = LocalEnd::new(&NetConfig::new("peer", 3), &secret, &Identity::generate());
    assert!(timeout(Duration::from_millis(300), peer.initiate(&mut second)).await.is_err());
    drop(second);
    LIMIT.store(u64::MAX / 100, Ordering::Relaxed);
    let resumed = timeout(SOON, events.recv()).await.unwrap().unwrap();
    assert!(matches!(resumed, NetEvent::ListenResumed), "{resumed:?}");
    let mut third = TcpStream::connect(address).await.unwrap();
    let peer = LocalEnd::new(&NetConfig::new("peer", 4), &secret, &Identity::generate());
    let _link = timeout(SOON, peer.initiate(&mut third)).await.unwrap().unwrap();
    assert_eq!(shared.counters.snapshot().listen_pauses, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parting_word_outlives_what_the_peer_still_sends() {
    const FRAMES: usize = 20;
    let mut victim = Victim::start_with(Timing { close: SOON, ..Timing::default() });
    // So small a window that most of the parting is still with the victim's system when its writer is done.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(victim.net.local_address().unwrap()).await.unwrap();
    let Established { mut sealer, mut opener, .. } = victim.attacker().initiate(&mut stream).await.unwrap();
    let NetEvent::LinkUp { link, .. } = victim.event().await else { panic!("expected a link") };
    let body = Bytes::from(vec![7; FRAME_BYTES]);
    for _ in 0..FRAMES {
        victim.net.send(link, Frame { kind: 16, body: body.clone(), compress: false }).unwrap();
    }
    victim.net.close(link, "enough");
    let (mut from_victim, mut to_victim) = stream.into_split();
    let chatter = tokio::spawn(async move {
        let mut wire = Vec::new();
        loop {
            wire.clear();
            sealer.seal(&frame(16, None, 1000, &[7; 1000]), &mut wire);
            if to_victim.write_all(&wire).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut stream = Vec::new();
    while let Ok(length) = from_victim.read_u16().await {
        let mut sealed = vec![0; length.into()];
        from_victim.read_exact(&mut sealed).await.expect("a whole record");
        let start = stream.len();
        stream.resize(start + sealed.len() - 16, 0);
        opener.open(&sealed, &mut stream[start..]).unwrap();
        // A slow reader, so that the end is not here before it is written.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    chatter.abort();
    assert!(stream.ends_with(b"enough"), "the parting word was lost after {} bytes", stream.len());
    assert!(stream.len() > FRAMES * FRAME_BYTES);
}
