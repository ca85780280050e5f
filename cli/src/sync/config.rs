//! The configuration of a node from the command line and, if there is one, its file.

use std::fs;
use std::path::Path;

use entgldb::{Config, Durability};
use serde_json::{Value, json};

use crate::args::{DurabilityLevel, SyncArguments};
use crate::failure::Failure;

/// Options on the command line take precedence over the file, which may leave out what they give.
pub(super) fn gather(arguments: &SyncArguments) -> Result<Config, Failure> {
    let mut config = match (&arguments.config, &arguments.database, &arguments.secret_file) {
        (Some(file), ..) => read(file, arguments)?,
        (None, Some(database), Some(secret_file)) => Config::new(database, secret_file),
        // The parser of the command line has seen to it.
        (None, ..) => {
            return Err(Failure::start("a database and a secret file are needed", "see entgldb sync --help"));
        }
    };
    if let Some(database) = &arguments.database {
        config.database.clone_from(database);
    }
    if let Some(secret_file) = &arguments.secret_file {
        config.secret_file.clone_from(secret_file);
    }
    if !arguments.watch.is_empty() {
        config.watch.clone_from(&arguments.watch);
    }
    if !arguments.merge.is_empty() {
        config.merge.clone_from(&arguments.merge);
    }
    if !arguments.peers.is_empty() {
        config.peers.clone_from(&arguments.peers);
    }
    replace(&mut config.listen, &arguments.listen);
    replace(&mut config.data_dir, &arguments.data_dir);
    replace(&mut config.name, &arguments.name);
    if let Some(retention) = arguments.retention_hours {
        config.retention_hours = retention;
    }
    if let Some(level) = arguments.durability {
        config.durability = match level {
            DurabilityLevel::Full => Durability::Full,
            DurabilityLevel::Normal => Durability::Normal,
        };
    }
    Ok(config)
}

fn replace<T: Clone>(place: &mut Option<T>, value: &Option<T>) {
    if value.is_some() {
        place.clone_from(value);
    }
}

fn read(file: &Path, arguments: &SyncArguments) -> Result<Config, Failure> {
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::start(
            format_args!("cannot read the configuration {}: {error}", file.display()),
            "give --config the path of a JSON file, or use options instead",
        )
    })?;
    Config::from_json(&with_paths(text, arguments)).map_err(|error| {
        Failure::start(
            format_args!("the configuration {}: {error}", file.display()),
            "see docs/cli.md for the fields that a configuration has",
        )
    })
}

/// The text with the paths of the command line in the place of its own: it need not have those that are given there. Whatever
/// characters they have, the configuration gets them afterwards.
fn with_paths(text: String, arguments: &SyncArguments) -> String {
    // What is no object is refused where it is read.
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&text) else { return text };
    for (name, path) in [("database", &arguments.database), ("secret_file", &arguments.secret_file)] {
        if let Some(path) = path {
            fields.insert(name.to_owned(), json!(path.to_string_lossy()));
        }
    }
    Value::Object(fields).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Arguments, Command};
    use clap::Parser;

    fn arguments(line: &str) -> SyncArguments {
        match Arguments::parse_from(line.split(' ')).command {
            Command::Sync(arguments) => *arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_alone_make_a_configuration() {
        let config = gather(&arguments(
            "entgldb sync a.db --watch t --watch u --merge u --secret-file s --peer h:1 --peer i:2 --durability normal --retention-hours 0.5 --name till",
        ))
        .unwrap();
        let mut expected = Config::new("a.db", "s");
        expected.watch = vec!["t".to_owned(), "u".to_owned()];
        expected.merge = vec!["u".to_owned()];
        expected.peers = vec!["h:1".to_owned(), "i:2".to_owned()];
        expected.durability = Durability::Normal;
        expected.retention_hours = entgldb::Retention::hours(0.5).unwrap();
        expected.name = Some("till".to_owned());
        assert_eq!(config, expected);
    }

    #[test]
    fn an_option_takes_precedence_over_the_file_and_the_rest_of_the_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.json");
        let text =
            r#"{"database":"a.db","secret_file":"s","watch":["t"],"name":"till","durability":"normal"}"#;
        fs::write(&file, text).unwrap();
        let config =
            gather(&arguments(&format!("entgldb sync --config {} --name office", file.display()))).unwrap();
        assert_eq!(config.name.as_deref(), Some("office"));
        assert_eq!(config.watch, ["t"]);
        assert_eq!(config.durability, Durability::Normal);
    }

    #[test]
    fn the_database_and_the_secret_of_the_command_line_take_the_place_of_those_in_the_file_or_are_the_only_ones()
     {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.json");
        for text in [r#"{"watch":["t"]}"#, r#"{"watch":["t"],"database":"b.db","secret_file":"other"}"#] {
            fs::write(&file, text).unwrap();
            let line = format!("entgldb sync a.db --secret-file s --config {}", file.display());
            let config = gather(&arguments(&line)).unwrap();
            assert_eq!((config.database, config.secret_file), ("a.db".into(), "s".into()), "{text}");
        }
        fs::write(&file, r#"{"watch":["t"]}"#).unwrap();
        let without = gather(&arguments(&format!("entgldb sync --config {}", file.display()))).unwrap_err();
        assert!(without.what().contains("database"), "{}", without.what());
    }

    #[test]
    fn a_file_with_an_unknown_field_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.json");
        fs::write(&file, r#"{"database":"a.db","secret_file":"s","wacht":["t"]}"#).unwrap();
        let failure = gather(&arguments(&format!("entgldb sync --config {}", file.display()))).unwrap_err();
        assert!(
            failure.what().contains("wacht") && failure.what().contains("node.json"),
            "{}",
            failure.what()
        );
    }
}
