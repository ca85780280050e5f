//! Which library this is.

use std::ffi::c_char;

/// The version of the binary interface that a program compiled with this header relies on. A library with another one is
/// another library: its file name and SONAME differ too.
pub const ENTGLDB_ABI_VERSION: u32 = 1;

// The SONAME is made of the one in build.rs.
const _: () = assert!(
    matches!(env!("ENTGLDB_ABI_VERSION").as_bytes(), [digit] if (*digit - b'0') as u32 == ENTGLDB_ABI_VERSION)
);

/// `ENTGLDB_ABI_VERSION` as the library was built with it, to compare with the header's.
#[unsafe(no_mangle)]
pub extern "C" fn entgldb_abi_version() -> u32 {
    ENTGLDB_ABI_VERSION
}

/// The library's release, such as "0.1.0". Static: it is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn entgldb_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
