//! The documents to write, made by `bench/harness/documents.py`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The prefix of each line before its id: `{"id":"`.
const ID_FROM: usize = 7;
/// `sale-` and eight digits.
const ID_CHARACTERS: usize = 13;

/// One sale: its id and its JSON.
pub(crate) struct Sale {
    pub(crate) id: String,
    pub(crate) json: String,
}

/// Reads `count` sales from line `first` on, one by one: the file may be larger than what this process should need.
pub(crate) fn read(path: &Path, first: usize, count: usize) -> Result<impl Iterator<Item = Result<Sale>>> {
    let file = File::open(path).with_context(|| format!("no documents in {}", path.display()))?;
    Ok(BufReader::new(file).lines().skip(first).take(count).map(|line| sale(line?)))
}

/// The same, all in memory, so that a timed loop does not read a file.
pub(crate) fn read_all(path: &Path, first: usize, count: usize) -> Result<Vec<Sale>> {
    let sales: Vec<Sale> = read(path, first, count)?.collect::<Result<_>>()?;
    ensure!(sales.len() == count, "{} has only {} documents from {first} on", path.display(), sales.len());
    Ok(sales)
}

fn sale(json: String) -> Result<Sale> {
    let id = json.get(ID_FROM..ID_FROM + ID_CHARACTERS).context("a document does not begin with its id")?;
    Ok(Sale { id: id.to_owned(), json })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sales_are_read_from_the_line_asked_for_and_too_few_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sales.jsonl");
        let lines: String = (0..5).map(|number| format!("{{\"id\":\"sale-{number:08}\"}}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        let sales = read_all(&path, 2, 2).unwrap();
        assert_eq!(sales[0].id, "sale-00000002");
        assert_eq!(sales[1].json, "{\"id\":\"sale-00000003\"}");
        assert!(read_all(&path, 2, 4).is_err());
    }
}
