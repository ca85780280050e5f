//! See `entgldb_fuzz`, module `entry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::replica::entry::check(data));
