//! See `entgldb_fuzz`, module `wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::replica::wire::check(data));
