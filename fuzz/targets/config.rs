//! See `entgldb_fuzz`, module `config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::engine::config::check(data));
