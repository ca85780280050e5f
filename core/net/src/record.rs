//! Records: what is really on the wire after the handshake. A big-endian `u16` length, then so many bytes of
//! AES-256-GCM ciphertext, whose nonce is the number of the record in its direction.
//!
//! Since nonces are counted and never sent, a record that is repeated, moved, left out or changed does not decrypt, and
//! the link ends there.

use std::sync::{Arc, PoisonError, RwLock};

use snow::StatelessTransportState;

use crate::config::REKEY_EVERY_RECORDS;

/// Bytes of the length before each record.
pub(crate) const LENGTH_BYTES: usize = 2;
const TAG_BYTES: usize = 16;
/// Most plaintext in one record.
pub(crate) const PLAIN_BYTES_MAX: usize = u16::MAX as usize - TAG_BYTES;

/// A record that does not authenticate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tampered;

/// The keys of both directions. Locked for writing only to replace a key, so both directions run at the same time.
type Keys = Arc<RwLock<StatelessTransportState>>;

/// Encrypts our direction.
pub(crate) struct Sealer {
    keys: Keys,
    record: u64,
}

/// Decrypts the peer's direction.
pub(crate) struct Opener {
    keys: Keys,
    record: u64,
}

/// Splits the result of a handshake into its two directions.
pub(crate) fn split(state: StatelessTransportState) -> (Sealer, Opener) {
    let keys = Arc::new(RwLock::new(state));
    (Sealer { keys: Arc::clone(&keys), record: 0 }, Opener { keys, record: 0 })
}

impl Sealer {
    /// Puts one whole record with this plaintext at the end of `out`.
    ///
    /// # Panics
    /// When the plaintext is longer than [`PLAIN_BYTES_MAX`]: our own bug.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        if due_for_rekey(self.record) {
            self.keys.write().unwrap_or_else(PoisonError::into_inner).rekey_outgoing();
        }
        let sealed_bytes = u16::try_from(plain.len() + TAG_BYTES).expect("a record has at most 65,535 bytes");
        out.extend_from_slice(&sealed_bytes.to_be_bytes());
        let start = out.len();
        out.resize(start + usize::from(sealed_bytes), 0);
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.write_message(self.record, plain, &mut out[start..])
            .expect("the lengths fit, and nonces do not run out");
        self.record += 1;
    }
}

impl Opener {
    /// How much plaintext a record of so many bytes holds; `None` if it is too short to be one.
    pub(crate) fn plain_bytes(sealed_bytes: usize) -> Option<usize> {
        sealed_bytes.checked_sub(TAG_BYTES)
    }

    /// Decrypts the next record into `plain`, which has the length of [`Opener::plain_bytes`].
    ///
    /// # Errors
    /// When it does not authenticate as the next record of this link. `plain` holds nothing of value then.
    pub(crate) fn open(&mut self, sealed: &[u8], plain: &mut [u8]) -> Result<(), Tampered> {
        if due_for_rekey(self.record) {
            self.keys.write().unwrap_or_else(PoisonError::into_inner).rekey_incoming();
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.read_message(self.record, sealed, plain).map_err(|_| Tampered)?;
        self.record += 1;
        Ok(())
    }
}

fn due_for_rekey(record: u64) -> bool {
    record != 0 && record.is_multiple_of(REKEY_EVERY_RECORDS)
}

#[cfg(test)]
mod tests {
    use snow::Builder;

    use super::*;

    /// The two ends of a finished handshake.
    fn ends() -> ((Sealer, Opener), (Sealer, Opener)) {
        let build = || Builder::new("Noise_NN_25519_AESGCM_SHA256".parse().unwrap());
        let mut one = build().build_initiator().unwrap();
        let mut two = build().build_responder().unwrap();
        let (mut wire, mut rest) = ([0; 200], [0; 200]);
        let bytes = one.write_message(&[], &mut wire).unwrap();
        two.read_message(&wire[..bytes], &mut rest).unwrap();
        let bytes = two.write_message(&[], &mut wire).unwrap();
        one.read_message(&wire[..bytes], &mut rest).unwrap();
        let split_off = |state: snow::HandshakeState| split(state.into_stateless_transport_mode().unwrap());
        (split_off(one), split_off(two))
    }

    fn carry(from: &mut Sealer, to: &mut Opener, plain: &[u8]) -> Result<Vec<u8>, Tampered> {
        let mut wire = Vec::new();
        from.seal(plain, &mut wire);
        let mut opened = vec![0; Opener::plain_bytes(wire.len() - LENGTH_BYTES).unwrap()];
        to.open(&wire[LENGTH_BYTES..], &mut opened).map(|()| opened)
    }

    #[test]
    fn records_of_all_sizes_cross_in_both_directions() {
        let (mut one, mut two) = ends();
        for bytes in [1, 2, 1000, PLAIN_BYTES_MAX] {
            let plain = vec![5; bytes];
            assert_eq!(carry(&mut one.0, &mut two.1, &plain).as_ref(), Ok(&plain));
            assert_eq!(carry(&mut two.0, &mut one.1, &plain).as_ref(), Ok(&plain));
        }
    }

    #[test]
    fn a_direction_gets_a_new_key_after_so_many_records_and_both_ends_follow() {
        let (mut one, mut two) = ends();
        one.0.record = REKEY_EVERY_RECORDS - 1;
        two.1.record = REKEY_EVERY_RECORDS - 1;
        assert!(carry(&mut one.0, &mut two.1, b"the last under the old key").is_ok());

        let mut wire = Vec::new();
        one.0.seal(b"new", &mut wire);
        let sealed = &wire[LENGTH_BYTES..];
        let old = two.1.keys.read().unwrap().read_message(REKEY_EVERY_RECORDS, sealed, &mut [0; 3]);
        assert!(old.is_err(), "the old key still opens it");
        let mut plain = [0; 3];
        two.1.open(sealed, &mut plain).unwrap();
        assert_eq!(&plain, b"new");
        assert!(carry(&mut one.0, &mut two.1, b"and on").is_ok());
        assert!(carry(&mut two.0, &mut one.1, b"the other direction keeps its own count").is_ok());
    }

    #[test]
    fn a_record_opens_only_in_its_place() {
        let (mut one, mut two) = ends();
        let mut wires = Vec::new();
        for _ in 0..3 {
            let mut wire = Vec::new();
            one.0.seal(b"same", &mut wire);
            wires.push(wire);
        }
        assert!(wires[0] != wires[1] && wires[1] != wires[2]);
        let mut open = |wire: &[u8]| two.1.open(&wire[LENGTH_BYTES..], &mut [0; 4]);
        assert_eq!(open(&wires[1]), Err(Tampered));
        assert_eq!(open(&wires[0]), Ok(()));
        assert_eq!(open(&wires[0]), Err(Tampered));
        assert_eq!(open(&wires[1]), Ok(()));
    }
}
