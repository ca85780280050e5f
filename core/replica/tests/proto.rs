//! The checked-in message types are what the `.proto` in `docs/protocol` says.

use std::path::Path;

/// Run with `ENTGLDB_UPDATE=1` to write the file anew after a change of the `.proto`.
#[test]
fn the_generated_messages_match_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = root.join("../../docs/protocol");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let files = protox::compile(["session.proto"], [&proto]).expect("the .proto is valid");
    prost_build::Config::new()
        .bytes([
            ".entgldb.session.v1.Page",
            ".entgldb.session.v1.Run",
            ".entgldb.session.v1.Entry",
            ".entgldb.session.v1.MergedPlace",
            ".entgldb.session.v1.HeadVersion",
        ])
        .out_dir(out)
        .compile_fds(files)
        .expect("code for it");
    let fresh = std::fs::read_to_string(out.join("entgldb.session.v1.rs")).unwrap();
    let target = root.join("src/wire/generated.rs");
    if std::env::var_os("ENTGLDB_UPDATE").is_some() {
        std::fs::write(&target, &fresh).unwrap();
    }
    let checked_in = std::fs::read_to_string(&target).unwrap_or_default();
    assert!(checked_in == fresh, "docs/protocol/session.proto changed: run this test with ENTGLDB_UPDATE=1");
}
