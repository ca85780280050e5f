//! Places for connections that have not authenticated yet.
//!
//! Strangers can open connections faster than they time out. So places are few, and a newcomer takes the place of the
//! oldest: an honest handshake is over in milliseconds, while what dribbles or says nothing is old by then. Authenticated
//! links have places of their own, which strangers cannot take.
//!
//! Whoever has shown that it has the secret has one of other places, for its handshake may take long on a slow line: a flood
//! of strangers can push out a peer only between its connection and its first message, which comes right behind it.
//!
//! Whoever has lost its place still has its socket until its task has run. So sockets are counted too: while there are
//! too many, nobody is taken from the system's queue.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entgldb_replica::limits::{PRE_AUTH_MAX, PRE_AUTH_PER_ADDRESS_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Sockets without a link: strangers and members with a place, and those that have lost theirs and are about to close.
const SOCKETS_MAX: usize = 3 * PRE_AUTH_MAX;

#[derive(Clone)]
pub(crate) struct Admission {
    places: Arc<Mutex<Places>>,
    sockets: Arc<Semaphore>,
}

impl Default for Admission {
    fn default() -> Self {
        Self { places: Arc::default(), sockets: Arc::new(Semaphore::new(SOCKETS_MAX)) }
    }
}

/// Room for one more socket.
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Places {
    next: u64,
    /// Those who have said nothing yet that verifies.
    strangers: Taken,
    /// Those who have shown that they have the cluster secret, and are not done.
    members: Taken,
}

/// By age, oldest first.
type Taken = BTreeMap<u64, Place>;

struct Place {
    origin: IpAddr,
    /// Dropped to tell the holder to go.
    _hold: oneshot::Sender<()>,
}

/// A held place; dropping it gives it back.
pub(crate) struct Admitted {
    admission: Admission,
    number: u64,
    pushed_out: oneshot::Receiver<()>,
    _room: Room,
}

impl Admission {
    /// Waits until there is room for one more socket. That is never long: whoever has no place is about to go.
    pub(crate) async fn room(&self) -> Room {
        let permit = Arc::clone(&self.sockets).acquire_owned().await.expect("it is never closed");
        Room { _permit: permit }
    }

    /// Gives a newcomer a place, the oldest one if none is free. The place must be held as long as the socket is open.
    pub(crate) fn admit(&self, address: IpAddr, room: Room) -> Admitted {
        let origin = origin(address);
        let (hold, pushed_out) = oneshot::channel();
        let mut places = self.lock();
        make_room(&mut places.strangers, origin);
        let number = places.next;
        places.next += 1;
        places.strangers.insert(number, Place { origin, _hold: hold });
        Admitted { admission: self.clone(), number, pushed_out, _room: room }
    }

    /// The holder of this place has shown that it has the secret: from now on, only others who have can push it out.
    pub(crate) fn has_shown_the_secret(&self, number: u64) {
        let mut places = self.lock();
        if let Some(place) = places.strangers.remove(&number) {
            make_room(&mut places.members, place.origin);
            places.members.insert(number, place);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that one more fits: of this address, and of all.
fn make_room(taken: &mut Taken, origin: IpAddr) {
    let same = || taken.iter().filter(|(_, place)| place.origin == origin);
    let oldest = if same().count() >= PRE_AUTH_PER_ADDRESS_MAX {
        same().next().map(|(number, _)| *number)
    } else if taken.len() >= PRE_AUTH_MAX {
        taken.keys().next().copied()
    } else {
        None
    };
    if let Some(oldest) = oldest {
        taken.remove(&oldest);
    }
}

impl Admitted {
    /// Names the place.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns when a newcomer has taken the place.
    pub(crate) async fn pushed_out(&mut self) {
        // Nothing is ever sent: the sender only goes away.
        let _ = (&mut self.pushed_out).await;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut places = self.admission.lock();
        places.strangers.remove(&self.number);
        places.members.remove(&self.number);
    }
}

/// What counts as one address: whoever has an IPv6 address usually has all of its /64.
pub(crate) fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn v4(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn admit(admission: &Admission, address: IpAddr) -> Admitted {
        let room = Arc::clone(&admission.sockets).try_acquire_owned().expect("room");
        admission.admit(address, Room { _permit: room })
    }

    fn is_pushed_out(admitted: &mut Admitted) -> bool {
        !matches!(admitted.pushed_out.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    #[test]
    fn the_ninth_from_one_address_takes_the_place_of_the_first_and_leaves_others_alone() {
        let admission = Admission::default();
        let mut other = admit(&admission, v4(1));
        let mut same: Vec<_> = (0..=PRE_AUTH_PER_ADDRESS_MAX).map(|_| admit(&admission, v4(2))).collect();
        assert!(is_pushed_out(&mut same[0]));
        assert!(same[1..].iter_mut().all(|admitted| !is_pushed_out(admitted)));
        assert!(!is_pushed_out(&mut other));
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_of_all_goes() {
        let admission = Admission::default();
        let mut all: Vec<_> = (0..PRE_AUTH_MAX).map(|n| admit(&admission, v4((n / 4) as u8))).collect();
        assert!(!is_pushed_out(&mut all[0]));
        let _newcomer = admit(&admission, v4(200));
        assert!(is_pushed_out(&mut all[0]));
        assert!(!is_pushed_out(&mut all[1]));
        assert_eq!(admission.lock().strangers.len(), PRE_AUTH_MAX);
    }

    #[test]
    fn who_has_shown_the_secret_is_pushed_out_by_no_stranger_but_by_its_like() {
        let admission = Admission::default();
        let mut member = admit(&admission, v4(1));
        admission.has_shown_the_secret(member.number());
        for n in 0..10 * PRE_AUTH_MAX {
            drop(admit(&admission, v4((n % 200) as u8)));
        }
        let _strangers: Vec<_> = (0..PRE_AUTH_MAX).map(|n| admit(&admission, v4((n / 4) as u8))).collect();
        assert!(!is_pushed_out(&mut member));
        let mut others = Vec::new();
        for _ in 0..PRE_AUTH_PER_ADDRESS_MAX {
            assert!(!is_pushed_out(&mut member));
            let other = admit(&admission, v4(1));
            admission.has_shown_the_secret(other.number());
            others.push(other);
        }
        assert!(is_pushed_out(&mut member));
    }

    #[test]
    fn a_place_that_is_given_back_is_free_again() {
        let admission = Admission::default();
        let mut first = admit(&admission, v4(1));
        for _ in 0..100 {
            drop(admit(&admission, v4(1)));
        }
        assert!(!is_pushed_out(&mut first));
        drop(first);
        assert!(admission.lock().strangers.is_empty());
    }

    #[tokio::test]
    async fn nobody_is_let_in_while_too_many_who_lost_their_place_have_not_gone_yet() {
        let admission = Admission::default();
        let mut all: Vec<_> = (0..SOCKETS_MAX).map(|n| admit(&admission, v4((n / 4) as u8))).collect();
        assert!(is_pushed_out(&mut all[0]));
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, admission.room()).await.is_err());
        all.remove(0);
        let room = tokio::time::timeout(soon, admission.room()).await.expect("one has gone");
        admission.admit(v4(250), room);
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address_and_a_mapped_ipv4_address_as_itself() {
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(origin(v6("2001:db8::1")), origin(v6("2001:db8::ffff:1")));
        assert_ne!(origin(v6("2001:db8::1")), origin(v6("2001:db8:0:1::1")));
        assert_eq!(origin(v6("::ffff:10.0.0.2")), v4(2));
    }
}
