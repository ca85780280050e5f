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
    let addresses = resolve(shared, target).await?;
    let (stream, address, established) = dial_in_turn(shared, &addresses).await?;
    Ok(Connection { stream, address, established, target: Some(target.to_owned()), session })
}

/// Tries the addresses until one leads to a link, or to a node that would give the same answer at any other.
async fn dial_in_turn(
    shared: &Shared,
    addresses: &[SocketAddr],
) -> Result<(TcpStream, SocketAddr, Established), DialError> {
    let mut failed = DialError::Resolve(io::ErrorKind::NotFound);
    for &address in addresses {
        match dial_address(shared, address).await {
            Ok((stream, established)) => return Ok((stream, address, established)),
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

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::config::NetConfig;
    use crate::handshake::LocalEnd;
    use crate::identity::Identity;
    use crate::secret::ClusterSecret;
    use crate::transport::Transport;

    struct Reached {
        net: Transport,
        secret: ClusterSecret,
        identity: Identity,
        config: NetConfig,
    }

    /// A listening node.
    fn node() -> Reached {
        let (secret, identity) = (ClusterSecret::generate(), Identity::generate());
        let mut config = NetConfig::new("till", 1);
        config.listen = Some(([127, 0, 0, 1], 0).into());
        let net =
            Transport::start(&Handle::current(), &config, &secret, &identity, Arc::new(|_| {})).unwrap();
        Reached { net, secret, identity, config }
    }

    fn dialler(node: &Reached, identity: &Identity) -> Shared {
        let local = LocalEnd::new(&node.config, &node.secret, identity);
        Shared::new(&node.config, local, Arc::new(|_| {}))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_next_address_of_a_name_is_tried_when_one_leads_nowhere() {
        let node = node();
        let shared = dialler(&node, &Identity::generate());
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let somebody = node.net.local_address().unwrap();
        let (_, address, _) = dial_in_turn(&shared, &[nobody, somebody]).await.ok().unwrap();
        assert_eq!(address, somebody);
        let failed = dial_in_turn(&shared, &[nobody, nobody]).await.err();
        assert_eq!(failed, Some(DialError::Connect(io::ErrorKind::ConnectionRefused)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_that_reached_itself_does_not_try_its_other_addresses_too() {
        let node = node();
        let shared = dialler(&node, &node.identity);
        let itself = node.net.local_address().unwrap();
        let failed = dial_in_turn(&shared, &[itself, itself]).await.err();
        assert_eq!(failed, Some(DialError::Handshake(HandshakeError::SelfConnection)));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(node.net.traffic().handshakes_refused, 1);
    }
}
