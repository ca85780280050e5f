//! The shared library says which ABI it has, so that a program never starts with another one.

/// `entgldb_abi_version`, which a test compares with this.
const ABI_VERSION: u32 = 1;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=ENTGLDB_ABI_VERSION={ABI_VERSION}");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux" | "android" | "freebsd" | "netbsd" | "openbsd") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libentgldb.so.{ABI_VERSION}");
        }
        Ok("macos" | "ios") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libentgldb.{ABI_VERSION}.dylib");
        }
        _ => {}
    }
}
