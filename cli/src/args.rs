//! What can be asked on the command line. The texts here are the manual that `--help` prints.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use entgldb::Retention;

const EXIT_CODES: &str = "\
Exit codes:
    0  it was done, and what was checked is in order
    1  a check failed: `verify` found faults, `doctor` something that must be changed first,
       `demo` could not show what it claims, `status` found no node running, or one whose database has failed
    2  the command line is wrong
    3  it could not start: a file, the secret, the configuration or the database cannot be used
    4  it failed while it ran: the database or the disk gave an error
  130  it was interrupted (Ctrl-C) before it was done; `sync` stops cleanly with 0";

/// Keep the SQLite databases of existing programs the same on several machines, peer to peer, encrypted, offline first.
#[derive(Debug, Parser)]
#[command(name = "entgldb", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a cluster secret. All nodes that shall sync with each other need the same one.
    Keygen(KeygenArguments),
    /// Sync tables of a SQLite database with other nodes, until stopped. The programs that use it go on as before.
    Sync(Box<SyncArguments>),
    /// Look a database over before its first sync: which tables can be synced, which can't and why. Changes nothing.
    Doctor(DoctorArguments),
    /// Take everything of EntglDb out of a database. The rows stay. The node must not be running.
    Detach(DetachArguments),
    /// Show how a node is doing: peers, how far behind, conflicts, errors.
    Status(StatusArguments),
    /// Show the peers a node knows.
    Peers(PeersArguments),
    /// Show the members of the cluster, or remove one that will not come back.
    Members(MembersArguments),
    /// Sync one more table, on a node that runs.
    Watch(TableArguments),
    /// Sync a table no longer, on a node that runs. Its rows stay.
    Unwatch(TableArguments),
    /// Write the rows of a node to a file, or join those of such a file.
    Snapshot(SnapshotArguments),
    /// List the versions that lost against others made at the same time, or bring one back. They are kept for 24 hours.
    Conflicts(ConflictsArguments),
    /// List rows that a table does not take and changes that can't be synced, and why.
    Problems(ListArguments),
    /// Show what the columns of the synced tables are called in what nodes send each other, or say what one was called before.
    Schema(SchemaArguments),
    /// Check everything that can be checked: chains, hashes, signatures, rows, fingerprints, tables. Changes nothing.
    Verify(VerifyArguments),
    /// See it work: two databases, two processes, offline edits and a conflict, all checked and measured.
    Demo(DemoArguments),
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArguments {
    /// File to write, readable by its owner only; an existing one is never overwritten. `-` prints the secret instead.
    #[arg(value_name = "FILE", default_value = "entgldb.secret")]
    pub(crate) file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example, on two machines that each run a program with its own shop.db:
    entgldb keygen shop.secret                       # once; copy the file to the other machine
    entgldb sync shop.db --watch products --watch orders --secret-file shop.secret --listen 0.0.0.0:7700
    entgldb sync shop.db --watch products --watch orders --secret-file shop.secret --peer first-machine:7700")]
pub(crate) struct SyncArguments {
    /// The SQLite database file. It must exist.
    #[arg(value_name = "DB", required_unless_present = "config")]
    pub(crate) database: Option<PathBuf>,
    /// A table to sync; give it once for each. It needs a declared primary key.
    #[arg(long, value_name = "TABLE", required_unless_present = "config")]
    pub(crate) watch: Vec<String>,
    /// A table among them whose rows merge column by column, instead of the last write of a row winning. May be given
    /// several times.
    #[arg(long = "merge", value_name = "TABLE")]
    pub(crate) merge: Vec<String>,
    /// File with the cluster secret, from `entgldb keygen`. Only its owner may be able to read it.
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Address to listen on. With port 0 the system chooses a free one, which is printed. Without this option the node
    /// only dials.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,
    /// A node to dial, and to dial again whenever the link is lost; give it once for each.
    #[arg(long = "peer", value_name = "HOST:PORT")]
    pub(crate) peers: Vec<String>,
    /// Folder for the node's identity, trust and status [default: DB-entgldb]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The label that other nodes show for this one [default: node- and the begin of its id]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// `full` makes a change durable against power cuts before it is acknowledged; `normal` is faster, and what a power
    /// cut takes is fetched again from the peers [default: full]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) durability: Option<DurabilityLevel>,
    /// Hours that history is kept after all members hold it, such as 24 or 0.5, or `forever` [default: 24]
    #[arg(long, value_name = "HOURS")]
    pub(crate) retention_hours: Option<Retention>,
    /// Read the configuration from a JSON file; options given beside it take precedence.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) config: Option<PathBuf>,
    /// Log to standard error: off, error, warn, info, debug, trace, or filters such as `entgldb_net=debug`.
    #[arg(long, value_name = "LEVEL", env = "ENTGLDB_LOG", default_value = "off")]
    pub(crate) log: String,
    /// Print each event as a JSON object on a line of its own, instead of text for people.
    #[arg(long)]
    pub(crate) json: bool,
    /// Stop when standard input ends: for a program that starts this one and wants it gone when it is gone itself.
    #[arg(long)]
    pub(crate) stop_with_stdin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityLevel {
    Full,
    Normal,
}

/// Which node: named by its database, by its data folder, or by both.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct NodePlace {
    /// The database that the node syncs or has synced. The node may be running.
    #[arg(value_name = "DB")]
    pub(crate) database: Option<PathBuf>,
    /// The node's data folder, if it is not DB-entgldb. It says which database is the node's, so DB may be left out.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 everything that was asked about can be synced, 1 something must be changed first, 3 the database can't be read.

Example, in a script that sets a machine up:
    entgldb doctor shop.db --watch products --watch orders && entgldb sync shop.db ...")]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// A table that shall be synced; give it once for each. Without this option all tables are asked about.
    #[arg(long, value_name = "TABLE")]
    pub(crate) watch: Vec<String>,
    /// First make the engine's tables sound again, if they are damaged. Your own tables are not touched. The node must not be
    /// running.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DetachArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Do not ask for confirmation. For scripts, which can't be asked.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(crate) place: NodePlace,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PeersArguments {
    #[command(flatten)]
    pub(crate) place: NodePlace,
    /// Forget the key that belongs to this name, so that the next node that comes by the name is taken for it. For a
    /// peer that was set up anew. The node must not be running.
    #[arg(long, value_name = "NAME")]
    pub(crate) forget: Option<String>,
    /// Print one JSON object for each peer.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A node's database, and its folder if that is elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The database that the node syncs.
    #[arg(value_name = "DB")]
    pub(crate) database: PathBuf,
    /// The node's data folder [default: DB-entgldb]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct MembersArguments {
    #[command(flatten)]
    pub(crate) place: NodePlace,
    /// Print one JSON object for each member.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) action: Option<MembersAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MembersAction {
    /// Tell all members that one of them will not come back: no history is kept for it any more. If it comes back it takes
    /// a snapshot and is a member again; what it had written reaches the others all the same.
    Remove(RemoveArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The member's id or the begin of it, as `entgldb members` shows it.
    #[arg(value_name = "ID")]
    pub(crate) member: String,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TableArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The table.
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example, after a column was renamed in a table in which no row has a value in it yet:
    entgldb schema shop.db --alias products.name=title         # `title` is the column that was called `name`
    entgldb schema shop.db --alias products.title=title        # `title` is another column than any before")]
pub(crate) struct SchemaArguments {
    #[command(flatten)]
    pub(crate) place: NodePlace,
    /// Say that a column of a table is the one that was called otherwise before, where no row shows it.
    #[arg(long, value_name = "TABLE.OLD=NEW", value_parser = parse_alias)]
    pub(crate) alias: Option<Alias>,
    /// Print one JSON object for each table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A column, and what it was called before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) table: String,
    pub(crate) old: String,
    pub(crate) new: String,
}

fn parse_alias(text: &str) -> Result<Alias, String> {
    let parts = text.split_once('.').and_then(|(table, names)| Some((table, names.split_once('=')?)));
    match parts {
        Some((table, (old, new))) if !table.is_empty() && !old.is_empty() && !new.is_empty() => {
            Ok(Alias { table: table.to_owned(), old: old.to_owned(), new: new.to_owned() })
        }
        _ => Err("write the table, a dot, the former name, = and the name now: products.name=title".into()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArguments {
    #[command(subcommand)]
    pub(crate) action: SnapshotAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotAction {
    /// Write the rows of all synced tables to a file. The node may be running. The file holds no secret, but the rows.
    Export(ExportArguments),
    /// Join the rows of such a file. What is here in a younger version stays. The node may be running.
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The file to write; one that is there is replaced.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The file, from `entgldb snapshot export`.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A table to join the rows of, if no node has synced this database yet; give it once for each.
    #[arg(long, value_name = "TABLE")]
    pub(crate) watch: Vec<String>,
    /// A table whose rows merge column by column, as for `sync`: it says how changes are captured that were made while no
    /// node ran.
    #[arg(long = "merge", value_name = "TABLE")]
    pub(crate) merge: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    pub(crate) place: NodePlace,
    /// Show so many at most, the newest first.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub(crate) limit: u32,
    /// Print a JSON object for each.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example: see what lost, and bring version 17 of a row back:
    entgldb conflicts shop.db
    entgldb conflicts shop.db restore products 42 --version 17")]
pub(crate) struct ConflictsArguments {
    #[command(flatten)]
    pub(crate) list: ListArguments,
    #[command(subcommand)]
    pub(crate) action: Option<ConflictsAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsAction {
    /// Write a losing version into its table again: a change like any other, which the node sends to all others. If no
    /// node is running, the next one that starts does. The list keeps the version.
    Restore(RestoreArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The table.
    #[arg(value_name = "COLLECTION")]
    pub(crate) collection: String,
    /// The row's key, as the list shows it after the table and `/`.
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) key: String,
    /// Which version, by the number that the list shows. Not needed if the row has one losing version only.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) version: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    pub(crate) place: NodePlace,
    /// Print JSON objects, one a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Keep the databases and logs of the demo, and say where they are.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print each checked claim and measurement as a JSON object on a line of its own.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sync_needs_a_database_a_table_and_a_secret_unless_a_configuration_file_has_them() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("entgldb sync a.db --watch t --secret-file s").is_ok());
        assert!(parse("entgldb sync --config c.json").is_ok());
        assert!(parse("entgldb sync a.db --watch t").is_err());
        assert!(parse("entgldb sync a.db --secret-file s").is_err());
        assert!(parse("entgldb sync --watch t --secret-file s").is_err());
    }

    #[test]
    fn members_are_shown_or_removed() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("entgldb members a.db --json").is_ok());
        assert!(parse("entgldb members remove a.db 0123").is_ok());
        assert!(parse("entgldb members").is_err());
        assert!(parse("entgldb members remove a.db").is_err());
    }

    #[test]
    fn a_retention_is_a_number_of_hours_or_forever() {
        let parse = |hours: &str| {
            let line = format!("entgldb sync a.db --watch t --secret-file s --retention-hours {hours}");
            Arguments::try_parse_from(line.split(' ')).is_ok()
        };
        assert!(parse("24") && parse("0.5") && parse("forever"));
        assert!(!parse("0") && !parse("never"));
    }

    #[test]
    fn conflicts_are_listed_or_one_of_them_restored() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("entgldb conflicts a.db --limit 3 --json").is_ok());
        assert!(parse("entgldb conflicts a.db restore t -5 --version 17").is_ok());
        assert!(parse("entgldb conflicts a.db restore t").is_err());
        assert!(parse("entgldb conflicts restore t k").is_err());
    }

    #[test]
    fn an_alias_has_a_table_and_two_names() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(parse("entgldb schema a.db --json").is_ok());
        assert!(parse("entgldb schema a.db --alias t.a=b").is_ok());
        assert!(parse("entgldb schema a.db --alias t.a").is_err());
        assert!(parse("entgldb schema a.db --alias a=b").is_err());
        assert!(parse("entgldb schema --alias t.a=b").is_err());
    }

    #[test]
    fn a_node_is_named_by_its_database_or_its_folder_or_both_in_every_command_that_looks_at_one() {
        let parse = |line: String| Arguments::try_parse_from(line.split(' '));
        for command in ["status", "peers", "members", "conflicts", "problems", "schema", "verify"] {
            assert!(parse(format!("entgldb {command} a.db --json")).is_ok(), "{command}");
            assert!(parse(format!("entgldb {command} --data-dir d")).is_ok(), "{command}");
            assert!(parse(format!("entgldb {command} a.db --data-dir d --json")).is_ok(), "{command}");
            assert!(parse(format!("entgldb {command}")).is_err(), "{command}");
        }
        for command in [
            "doctor a.db",
            "detach a.db",
            "watch a.db t",
            "unwatch a.db t",
            "members remove a.db 01",
            "snapshot export a.db f",
            "snapshot import a.db f",
        ] {
            assert!(parse(format!("entgldb {command} --data-dir d --json")).is_ok(), "{command}");
        }
        assert!(parse("entgldb conflicts --data-dir d restore t k".to_owned()).is_ok());
    }
}
