//! Taking connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::admission::Admitted;
use crate::descriptors;
use crate::event::NetEvent;
use crate::handshake::{HandshakeError, accept, refuse};
use crate::link::{self, Connection};
use crate::shared::Shared;
use crate::traffic::count;

/// Waits after the system could not give us a connection (out of file descriptors or memory): it will not be better at
/// once, and trying without a pause would burn a core.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Takes connections until the transport stops.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let mut pause = PAUSE_FIRST;
    let mut descriptor_limit = (shared.descriptor_limit)();
    loop {
        let accepted = async {
            let room = shared.admission.room().await;
            listener.accept().await.map(|(stream, address)| (stream, address, room))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, address, room)) => {
                pause = PAUSE_FIRST;
                let scarce = descriptors::is_scarce(&stream, descriptor_limit);
                let admitted = shared.admission.admit(address.ip(), room);
                tokio::spawn(take(Arc::clone(&shared), stream, address, admitted, stop.clone()));
                if scarce {
                    descriptor_limit = (shared.descriptor_limit)();
                    tokio::select! {
                        limit = wait_for_descriptors(&shared, descriptor_limit) => descriptor_limit = limit,
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        }
    }
}

/// Lets newcomers wait in the system's queue until enough descriptors are free again; the result is the limit by now.
async fn wait_for_descriptors(shared: &Shared, mut limit: Option<u64>) -> Option<u64> {
    if !descriptors::are_scarce(limit) {
        return limit;
    }
    count(&shared.counters.listen_pauses, 1);
    tracing::warn!(limit, "few file descriptors are left: taking no connections for now");
    (shared.sink)(NetEvent::ListenPaused { limit: limit.unwrap_or(0) });
    loop {
        // Not shorter, so that coming and going at the limit does not become a flood of events.
        sleep(PAUSE_MAX).await;
        limit = (shared.descriptor_limit)();
        if !descriptors::are_scarce(limit) {
            tracing::info!("taking connections again");
            (shared.sink)(NetEvent::ListenResumed);
            return limit;
        }
    }
}

async fn take(
    shared: Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    mut admitted: Admitted,
    mut stop: watch::Receiver<bool>,
) {
    let outcome = tokio::select! {
        outcome = timeout(shared.timing.handshake, shake_hands(&shared, stream, address, admitted.number())) => {
            outcome.unwrap_or(Err(HandshakeError::Timeout))
        }
        () = admitted.pushed_out() => Err(HandshakeError::PushedOut),
        _ = stop.wait_for(|stop| *stop) => return,
    };
    drop(admitted);
    match outcome {
        Ok(connection) => link::run(&shared, connection, &mut stop).await,
        Err(reason) => shared.refused(address, reason),
    }
}

async fn shake_hands(
    shared: &Shared,
    mut stream: TcpStream,
    address: SocketAddr,
    place: u64,
) -> Result<Connection, HandshakeError> {
    stream.set_nodelay(true)?;
    let mut established = shared.local.respond(&mut stream, turn(shared, address, place)).await?;
    let Ok(session) = Arc::clone(&shared.sessions).try_acquire_owned() else {
        let full = HandshakeError::SessionsFull;
        refuse(&mut stream, &mut established.sealer, &full.to_string()).await?;
        return Err(full);
    };
    accept(&mut stream, &mut established.sealer).await?;
    Ok(Connection { stream, address, established, target: None, session })
}

/// Waits until this address may have another handshake, out of the way of strangers.
async fn turn(shared: &Shared, address: SocketAddr, place: u64) -> Result<(), HandshakeError> {
    shared.admission.has_shown_the_secret(place);
    let wait = shared.handshakes.take(address.ip(), Instant::now()).ok_or(HandshakeError::TooMany)?;
    if !wait.is_zero() {
        sleep(wait).await;
    }
    Ok(())
}
