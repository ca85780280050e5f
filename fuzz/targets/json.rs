//! See `entgldb_fuzz`, module `json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::sqlite::json::check(data));
