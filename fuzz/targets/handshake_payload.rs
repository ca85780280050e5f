//! See `entgldb_fuzz`, module `handshake_payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::net::handshake_payload::check(data));
