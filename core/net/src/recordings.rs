//! First messages that were here before.
//!
//! A first message is made of a fresh key, so no honest peer ever sends one twice. Whoever does plays a recording. It could
//! not finish the handshake, but would be answered, and cost us two key exchanges each time. Only messages that verify
//! are remembered, so strangers can't fill this with their own.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use entgldb_replica::limits::FIRST_MESSAGES_MAX;

/// The key at the front of a first message.
pub(crate) type Ephemeral = [u8; 32];

#[derive(Default)]
pub(crate) struct Recordings(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    keys: HashSet<Ephemeral>,
    /// By age, oldest first.
    order: VecDeque<Ephemeral>,
}

impl Recordings {
    /// Whether this key is new; from now on it is not. The oldest one is forgotten when there are too many.
    pub(crate) fn is_new(&self, key: Ephemeral) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.keys.insert(key) {
            return false;
        }
        seen.order.push_back(key);
        if seen.order.len() > FIRST_MESSAGES_MAX
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.keys.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Ephemeral {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn a_key_is_new_once_and_only_so_many_are_remembered() {
        let recordings = Recordings::default();
        assert!(recordings.is_new(key(0)));
        assert!(!recordings.is_new(key(0)));
        for number in 1..FIRST_MESSAGES_MAX {
            assert!(recordings.is_new(key(number)));
        }
        assert!((0..FIRST_MESSAGES_MAX).all(|number| !recordings.is_new(key(number))));
        assert!(recordings.is_new(key(FIRST_MESSAGES_MAX)));
        assert!(recordings.is_new(key(0)), "the oldest was forgotten");
        assert_eq!(recordings.0.lock().unwrap().keys.len(), FIRST_MESSAGES_MAX);
    }
}
