//! `entgldb keygen`: a new cluster secret, into a file that only its owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use entgldb::ClusterSecret;
use serde_json::json;

use crate::args::KeygenArguments;
use crate::failure::Failure;
use crate::output;

const COMMENT: &str = "# EntglDb cluster secret. Whoever has it can join the cluster: keep it private.\n";

pub(crate) fn run(arguments: &KeygenArguments) -> Result<(), Failure> {
    let secret = ClusterSecret::generate().to_text();
    if arguments.file == Path::new("-") {
        if arguments.json {
            return Ok(output::json_line(&json!({ "secret": secret.as_str() }))?);
        }
        return Ok(output::line(&*secret)?);
    }
    create(&arguments.file, &secret)?;
    if arguments.json {
        return Ok(output::json_line(&json!({ "secret_file": arguments.file }))?);
    }
    output::note(format_args!(
        "Wrote a new cluster secret to {}. Copy the file to every node, over a channel you trust.",
        arguments.file.display()
    ));
    Ok(())
}

/// Makes a secret and keeps it in a new file.
pub(crate) fn generate_into(path: &Path) -> Result<(), Failure> {
    create(path, &ClusterSecret::generate().to_text())
}

fn create(path: &Path, secret: &str) -> Result<(), Failure> {
    write_new(path, secret).map_err(|error| refusal(path, &error))
}

/// Creates the file with its final permissions: at no moment can others read it. An existing file, or a link of that
/// name, is left alone.
fn write_new(path: &Path, secret: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let written = write_all(&mut file, secret);
    if written.is_err() {
        // A half-written secret helps nobody; the first error is the one to report.
        let _ = fs::remove_file(path);
    }
    written
}

fn write_all(file: &mut File, secret: &str) -> io::Result<()> {
    file.write_all(COMMENT.as_bytes())?;
    file.write_all(secret.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn refusal(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::start(
            format_args!("{path} exists already, and a secret in use must not be lost"),
            "give another file name, or move the old file away if no node needs it any more",
        ),
        _ => Failure::start(
            format_args!("cannot write {path}: {error}"),
            "give a file in a folder that exists and that you may write to",
        ),
    }
}
