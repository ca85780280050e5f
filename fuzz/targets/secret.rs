//! See `entgldb_fuzz`, module `secret`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::net::secret::check(data));
