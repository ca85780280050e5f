//! See `entgldb_fuzz`, module `session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::replica::session::check(data));
