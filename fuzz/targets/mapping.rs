//! See `entgldb_fuzz`, module `mapping`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| entgldb_fuzz::sqlite::mapping::check(data));
