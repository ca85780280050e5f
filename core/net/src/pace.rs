//! Spreading costs over time: how much one peer or one address may use of this node in a second.
//!
//! What is used is paid off at a steady rate. Up to one second's worth may be used at once; whoever is further ahead
//! waits. That is the generic cell rate algorithm (ITU-T I.371), which needs one moment of time for each payer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use entgldb_replica::limits::{PEERS_MAX, PRE_AUTH_PER_ADDRESS_MAX};
use tokio::time::Instant;

use crate::admission::origin;

/// What may be used at once by somebody who has used nothing for a while.
const BURST: Duration = Duration::from_secs(1);

/// One payer.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// When all that was used is paid off.
    paid_off: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { paid_off: now }
    }

    /// How long somebody waits who uses now what takes `cost` to pay off.
    fn wait_for(&self, now: Instant, cost: Duration) -> Duration {
        (self.paid_off.max(now) + cost).saturating_duration_since(now + BURST)
    }

    /// Uses it; the result is how long to wait before going on.
    pub(crate) fn take(&mut self, now: Instant, cost: Duration) -> Duration {
        let wait = self.wait_for(now, cost);
        self.paid_off = self.paid_off.max(now) + cost;
        wait
    }
}

/// The pace of handshakes of each address. Only who has shown that it has the cluster secret, or has recorded somebody
/// who has, gets as far as this: others could use up the turns of their neighbours.
pub(crate) struct HandshakePace {
    every: Duration,
    payers: Mutex<HashMap<IpAddr, Pace>>,
}

impl HandshakePace {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, payers: Mutex::default() }
    }

    /// How long to wait before answering; `None` if as many wait already as have a place.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let longest =
            self.every.saturating_mul(u32::try_from(PRE_AUTH_PER_ADDRESS_MAX).expect("a few places"));
        let mut payers = self.payers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut payer = origin(address);
        if payers.len() >= PEERS_MAX {
            payers.retain(|_, pace| pace.paid_off > now);
        }
        if payers.len() >= PEERS_MAX && !payers.contains_key(&payer) {
            // More addresses than there can be peers: newcomers share one pace.
            payer = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        }
        let pace = payers.entry(payer).or_insert_with(|| Pace::new(now));
        if pace.wait_for(now, self.every) > longest { None } else { Some(pace.take(now, self.every)) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const EVERY: Duration = Duration::from_millis(50);

    #[test]
    fn a_second_s_worth_is_free_and_then_the_rate_holds() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..20 {
            assert_eq!(pace.take(now, EVERY), Duration::ZERO);
        }
        assert_eq!(pace.take(now, EVERY), EVERY);
        assert_eq!(pace.take(now, EVERY), EVERY * 2);
        assert_eq!(pace.take(now + Duration::from_secs(5), EVERY), Duration::ZERO);
    }

    #[test]
    fn one_address_waits_then_is_refused_and_recovers_as_soon_as_its_flood_ends() {
        let now = Instant::now();
        let (flooder, other) = (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into());
        let paces = HandshakePace::new(EVERY);
        let taken = (0..100_000).filter(|_| paces.take(flooder, now).is_some()).count();
        assert_eq!(taken, 20 + PRE_AUTH_PER_ADDRESS_MAX);
        assert_eq!(paces.take(other, now), Some(Duration::ZERO));
        let later = now + EVERY * u32::try_from(PRE_AUTH_PER_ADDRESS_MAX).unwrap();
        assert_eq!(paces.take(flooder, later), Some(EVERY));
    }

    #[test]
    fn countless_addresses_take_no_more_memory_than_there_can_be_peers() {
        let now = Instant::now();
        let paces = HandshakePace::new(EVERY);
        let taken =
            (0..100_000).filter(|n| paces.take(Ipv4Addr::from_bits(0x0a00_0000 + n).into(), now).is_some());
        assert_eq!(taken.count(), PEERS_MAX + 20 + PRE_AUTH_PER_ADDRESS_MAX);
        assert!(paces.payers.lock().unwrap().len() <= PEERS_MAX + 1);
        let later = now + Duration::from_secs(2);
        assert_eq!(paces.take(Ipv4Addr::from_bits(0x0b00_0000).into(), later), Some(Duration::ZERO));
        assert_eq!(paces.payers.lock().unwrap().len(), 1, "what is paid off is forgotten");
    }
}
