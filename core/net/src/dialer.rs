//! Connecting to peers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::DIAL_ADDRESSES_MAX;
use crate::event::{DialError, NetEvent};
use crate::handshake::{Established, HandshakeError};
use crate::link::{self, Connection};
use crate::shared::Shared;
use crate::traffic::count;

/// Dials a target, and runs the link if one comes of it.
pub(crate) async fn run(shared: Arc<Shared>, target: String, mut stop: watch::Receiver<bool>) {
    let outcome = tokio::select! {
        outcome = dial(&shared, &target) => outcome,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    match outcome {
        Ok(connection) => link::run(&shared, connection, &mut stop).await,
        Err(reason) => {
            count(&shared.counters.dials_failed, 1);
            tracing::debug!(%target, %reason, "dial failed");
            (shared.sink)(NetEvent::DialFailed { target, reason });
        }
    }
}

async fn dial(shared: &Shared, target: &str) -> Result<Connection, DialError> {
    let _dial = Arc::clone(&shared.dials).try_acquire_owned().map_err(|_| DialError::TooManyDials)?;
    let session =
        Arc::clone(&shared.sessions).try_acquire_owned().map_err(|_| HandshakeError::SessionsFull)?;
    let mut failed = DialError::Resolve(io::ErrorKind::NotFound);
    for address in resolve(shared, target).await? {
        match dial_address(shared, address).await {
            Ok((stream, established)) => {
                return Ok(Connection {
                    stream,
                    address,
                    established,
                    target: Some(target.to_owned()),
                    session,
                });
            }
            Err(error) if is_answer(&error) => return Err(error),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Whether the right node was reached, so that another address of it would give the same.
fn is_answer(error: &DialError) -> bool {
    matches!(
        error,
        DialError::Handshake(
            HandshakeError::SelfConnection
                | HandshakeError::IdentityCloned
                | HandshakeError::RefusedByPeer(_)
        )
    )
}

async fn resolve(shared: &Shared, target: &str) -> Result<Vec<SocketAddr>, DialError> {
    match timeout(shared.timing.handshake, lookup_host(target)).await {
        Ok(Ok(addresses)) => Ok(addresses.take(DIAL_ADDRESSES_MAX).collect()),
        Ok(Err(error)) => Err(DialError::Resolve(error.kind())),
        Err(_) => Err(DialError::Resolve(io::ErrorKind::TimedOut)),
    }
}

async fn dial_address(shared: &Shared, address: SocketAddr) -> Result<(TcpStream, Established), DialError> {
    let mut stream = match timeout(shared.timing.handshake, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(DialError::Connect(error.kind())),
        Err(_) => return Err(DialError::Connect(io::ErrorKind::TimedOut)),
    };
    stream.set_nodelay(true).map_err(|error| DialError::Connect(error.kind()))?;
    let established = timeout(shared.timing.handshake, shared.local.initiate(&mut stream))
        .await
        .map_err(|_| HandshakeError::Timeout)??;
    Ok((stream, established))
}
