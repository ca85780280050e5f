//! See `entgldb_fuzz`, module `decompress`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::net::decompress::check(data));
