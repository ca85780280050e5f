//! Taking connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::admission::Admitted;
use crate::handshake::{HandshakeError, accept, refuse};
use crate::link::{self, Connection};
use crate::shared::Shared;

/// Waits after the system could not give us a connection (out of file descriptors or memory): it will not be better at
/// once, and trying without a pause would burn a core.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Takes connections until the transport stops.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let mut pause = PAUSE_FIRST;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, address)) => {
                pause = PAUSE_FIRST;
                let admitted = shared.admission.admit(address.ip());
                tokio::spawn(take(Arc::clone(&shared), stream, address, admitted, stop.clone()));
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

async fn take(
    shared: Arc<Shared>,
    stream: TcpStream,
    address: SocketAddr,
    mut admitted: Admitted,
    mut stop: watch::Receiver<bool>,
) {
    let outcome = tokio::select! {
        outcome = timeout(shared.timing.handshake, shake_hands(&shared, stream, address)) => {
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
) -> Result<Connection, HandshakeError> {
    stream.set_nodelay(true)?;
    let mut established = shared.local.respond(&mut stream).await?;
    let Ok(session) = Arc::clone(&shared.sessions).try_acquire_owned() else {
        let full = HandshakeError::SessionsFull;
        refuse(&mut stream, &mut established.sealer, &full.to_string()).await?;
        return Err(full);
    };
    accept(&mut stream, &mut established.sealer).await?;
    Ok(Connection { stream, address, established, target: None, session })
}
