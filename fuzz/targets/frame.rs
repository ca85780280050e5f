//! See `entgldb_fuzz`, module `frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::net::frame::check(data));
