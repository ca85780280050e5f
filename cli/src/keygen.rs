//! `entgldb keygen`: a new cluster secret, into a file that only its owner can read.

use std::io;
use std::path::Path;

use entgldb::ClusterSecret;
use serde_json::json;

use crate::args::KeygenArguments;
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(arguments: &KeygenArguments) -> Result<(), Failure> {
    let secret = ClusterSecret::generate();
    if arguments.file == Path::new("-") {
        let secret = secret.to_text();
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
    create(path, &ClusterSecret::generate())
}

fn create(path: &Path, secret: &ClusterSecret) -> Result<(), Failure> {
    secret.write_new_file(path).map_err(|error| refusal(path, &error))
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
