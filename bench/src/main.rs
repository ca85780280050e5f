//! EntglDb as a node of the benchmark: an application with a SQLite database and the engine in one process, told what to
//! do by `bench/harness`, line by line in JSON, on standard input.
//!
//! The table is `d(id TEXT PRIMARY KEY, doc TEXT)`; the application writes it through a plain connection, and a separate
//! reader sees what arrives.

mod clock;
mod node;
mod sales;
mod visible;

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use entgldb::Durability;
use serde_json::json;

use crate::node::{BenchNode, Command};

#[derive(Parser)]
#[command(about = "A node of the benchmark; started by bench/harness/bench.py")]
struct Options {
    /// Folder for everything; empty at the start.
    #[arg(long)]
    dir: PathBuf,
    /// Port on loopback to listen on.
    #[arg(long)]
    port: u16,
    /// The node's label.
    #[arg(long)]
    name: String,
    /// The documents to write, one JSON a line.
    #[arg(long)]
    documents: PathBuf,
    /// `normal` or `full`, for the application and the engine alike.
    #[arg(long, default_value = "normal", value_parser = durability)]
    durability: Durability,
}

impl Options {
    fn database(&self) -> PathBuf {
        self.dir.join("data.db")
    }

    fn secret(&self) -> PathBuf {
        self.dir.join("cluster.secret")
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "normal" => Ok(Durability::Normal),
        "full" => Ok(Durability::Full),
        _ => Err("normal or full".to_owned()),
    }
}

fn main() -> Result<()> {
    let mut node = BenchNode::open(Options::parse())?;
    let mut output = std::io::stdout();
    writeln!(output, "{}", json!({ "ready": 1 }))?;
    for line in std::io::stdin().lock().lines() {
        let command: Command = serde_json::from_str(&line?)?;
        let is_last = matches!(command, Command::Quit);
        let answer = node.obey(command).unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        writeln!(output, "{answer}")?;
        output.flush()?;
        if is_last {
            break;
        }
    }
    Ok(())
}
