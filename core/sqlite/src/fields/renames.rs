//! The proof that a column is another one under a new name: its rows hold what their documents say of the old one.

use std::collections::BTreeMap;

use entgldb_replica::id::{Collection, Key, sha256};
use rusqlite::Connection;

use crate::capture::noted;
use crate::failed::{Outcome, While};
use crate::fields::map::Map;
use crate::journal::names::Names;
use crate::journal::oplog;
use crate::json;
use crate::table::definition::Table;
use crate::table::document::{self, Extra};
use crate::table::key::Encoding;
use crate::table::rows;
use crate::table::value::Sql;

/// Rows that are asked.
const WITNESSES_MAX: usize = 1_000;
/// Rows that are looked at for that.
const ROWS_MAX: usize = 8_000;
/// With more columns gone or new at once, rows whose entries are forgotten are not asked: each needs every way to pair them.
const PAIRED_MAX: usize = 4;

/// What the rows say of one field and one column.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Votes {
    /// Rows in which both have one value, which is no default.
    pub(crate) equal: usize,
    /// Rows in which they differ.
    pub(crate) different: usize,
}

/// A collection, and what is known of it.
pub(crate) struct Asked<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) names: &'a Names,
    pub(crate) no: i64,
    pub(crate) collection: &'a Collection,
    pub(crate) map: &'a Map,
    pub(crate) encoding: Encoding,
}

/// What is known of a row's document.
enum Evidence {
    /// Its members.
    Members(BTreeMap<String, String>),
    /// Its hash only.
    Hash([u8; 32], Option<Extra>),
}

/// Fields whose columns are gone, and columns that are new, with what the rows say of each pair.
pub(crate) struct Tally {
    votes: Vec<Vec<Votes>>,
}

impl Tally {
    /// Counts what a row has said. A row that somebody may have changed since speaks only for a pair, not against one.
    fn add(&mut self, heard: &Self, is_noted: bool) {
        for (all, one) in self.votes.iter_mut().flatten().zip(heard.votes.iter().flatten()) {
            all.equal += one.equal;
            all.different += if is_noted { 0 } else { one.different };
        }
    }

    pub(crate) fn of(&self, field: usize, column: usize) -> Votes {
        self.votes[field][column]
    }

    /// The pairs that are proven: most rows are for them, and for no other pair of the field or the column are as many. Some rows may
    /// be against a pair: the application writes on while its migration is found.
    pub(crate) fn proven(&self) -> Vec<(usize, usize)> {
        let lead = |votes: &Votes| votes.equal.saturating_sub(votes.different);
        let mut pairs = Vec::new();
        for (field, row) in self.votes.iter().enumerate() {
            for (column, votes) in row.iter().enumerate().filter(|(_, votes)| lead(votes) > 0) {
                let is_led = |other: &Votes| lead(other) < lead(votes);
                let of_field = row.iter().enumerate().all(|(other, votes)| other == column || is_led(votes));
                let mut others = self.votes.iter().enumerate().filter(|(other, _)| *other != field);
                if of_field && others.all(|(_, row)| is_led(&row[column])) {
                    pairs.push((field, column));
                }
            }
        }
        pairs
    }

    /// Whether the rows leave open that they are the same.
    pub(crate) fn is_open(&self, field: usize, column: usize) -> bool {
        self.votes[field][column].different == 0
    }
}

impl Asked<'_> {
    /// Asks the rows whether these columns hold what the documents say of these fields.
    pub(crate) fn ask(&self, gone: &[&str], new: &[&str]) -> Outcome<Tally> {
        let mut tally = Tally { votes: vec![vec![Votes::default(); new.len()]; gone.len()] };
        let read = Table::read_with(self.connection, (self.no, self.collection), self.map, self.encoding)?;
        let Ok(table) = read else { return Ok(tally) };
        let columns: Option<Vec<usize>> = new
            .iter()
            .map(|name| table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)))
            .collect();
        let Some(columns) = columns else { return Ok(tally) };
        let noted = noted::keys(self.connection, &table)?;
        let (mut asked, mut looked, mut after) = (0, 0, String::new());
        while asked < WITNESSES_MAX && looked < ROWS_MAX {
            let page = self.page(&after)?;
            let Some((last, ..)) = page.last() else { break };
            after.clone_from(last);
            looked += page.len();
            for (key, hash, entry, extra) in page {
                let Ok(key) = Key::new(&key) else { continue };
                let Ok(place) = table.form.decode(key.as_str()) else { continue };
                let is_noted = noted.contains(&key);
                let Some(row) = rows::read(self.connection, &table, &place).doing("reading a row")? else {
                    continue;
                };
                let evidence = self.evidence(hash, entry, extra.as_deref())?;
                let mut heard = Tally { votes: vec![vec![Votes::default(); new.len()]; gone.len()] };
                asked += usize::from(self.hear(&table, &row, &evidence, (gone, &columns), &mut heard));
                tally.add(&heard, is_noted);
            }
        }
        Ok(tally)
    }

    /// The next documents that exist: key, hash, entry, extra.
    #[allow(clippy::type_complexity, reason = "the columns of one query")]
    fn page(&self, after: &str) -> Outcome<Vec<(String, [u8; 32], Option<i64>, Option<String>)>> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT key, hash, entry, extra FROM _entgldb_rows r WHERE collection_no = ?1 AND key > ?2 AND hash IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM _entgldb_set_aside a WHERE a.collection_no = r.collection_no AND a.key = r.key)
                 ORDER BY key LIMIT 500",
            )
            .doing("looking for a column's former name")?;
        let rows = statement
            .query_map((self.no, after), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        rows.and_then(Iterator::collect).doing("looking for a column's former name")
    }

    fn evidence(&self, hash: [u8; 32], entry: Option<i64>, extra: Option<&str>) -> Outcome<Evidence> {
        if let Some(entry) = entry
            && let Some(version) = oplog::entry_at(self.connection, self.names, entry)?
            && let Some(content) = version.content().filter(|content| sha256(content) == hash)
            && let Ok(fields) = json::fields(&content)
        {
            let members = fields.into_iter().map(|field| (field.name.into_owned(), field.raw.to_owned()));
            return Ok(Evidence::Members(members.collect()));
        }
        Ok(Evidence::Hash(hash, extra.and_then(Extra::from_text)))
    }

    /// Hears one row. Returns whether it had something to say.
    fn hear(
        &self,
        table: &Table,
        row: &[Sql<'_>],
        evidence: &Evidence,
        (gone, columns): (&[&str], &[usize]),
        tally: &mut Tally,
    ) -> bool {
        match evidence {
            Evidence::Members(members) => {
                for (field, name) in gone.iter().enumerate() {
                    let mut names = self.map.names_of(name);
                    names.insert(0, name);
                    let raw = names.iter().rev().find_map(|name| members.get(*name));
                    let Some(said) = raw.and_then(|raw| document::sql_of(raw.as_bytes())) else { continue };
                    for (number, column) in columns.iter().enumerate() {
                        let votes = &mut tally.votes[field][number];
                        if !said.is_same_by_cast(&row[*column]) {
                            votes.different += 1;
                        } else if is_telling(table, *column, &row[*column]) {
                            votes.equal += 1;
                        }
                    }
                }
                true
            }
            Evidence::Hash(hash, extra) => {
                let Some(pairs) = self.pairing(table, row, (*hash, extra.as_ref()), (gone, columns)) else {
                    return false;
                };
                for (field, paired) in pairs.iter().enumerate() {
                    for (number, column) in columns.iter().enumerate() {
                        let votes = &mut tally.votes[field][number];
                        if row[*column] != row[columns[*paired]] {
                            votes.different += 1;
                        } else if is_telling(table, *column, &row[*column]) {
                            votes.equal += 1;
                        }
                    }
                }
                true
            }
        }
    }

    /// The way to give each field a column (its number among the new ones) under which the row has this hash.
    fn pairing(
        &self,
        table: &Table,
        row: &[Sql<'_>],
        (hash, extra): ([u8; 32], Option<&Extra>),
        (gone, columns): (&[&str], &[usize]),
    ) -> Option<Vec<usize>> {
        if gone.len() > PAIRED_MAX || columns.len() > PAIRED_MAX {
            return None;
        }
        injections(gone.len(), columns.len()).into_iter().find(|pairs| {
            let mut renamed = table.columns.clone();
            for (field, number) in pairs.iter().enumerate() {
                gone[field].clone_into(&mut renamed[columns[*number]].field);
            }
            let left: Vec<usize> = (0..renamed.len())
                .filter(|position| {
                    columns
                        .iter()
                        .position(|column| column == position)
                        .is_none_or(|number| pairs.contains(&number))
                })
                .collect();
            let (table, row) = table.with_columns(renamed).only(row, &left);
            sha256(&document::content(&table, &row, extra)) == hash
        })
    }
}

/// All ways to give each of `fields` another one of `columns`.
fn injections(fields: usize, columns: usize) -> Vec<Vec<usize>> {
    let mut ways: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..fields {
        let longer = |way: &Vec<usize>| {
            let free = (0..columns).filter(|column| !way.contains(column));
            free.map(|column| [way.as_slice(), &[column]].concat()).collect::<Vec<_>>()
        };
        ways = ways.iter().flat_map(longer).collect();
    }
    ways
}

/// Whether a value says which column it is of: neither nothing nor what the column has by default.
fn is_telling(table: &Table, column: usize, value: &Sql<'_>) -> bool {
    let is_nothing = match value {
        Sql::Null => true,
        Sql::Text(text) | Sql::Blob(text) => text.is_empty(),
        Sql::Integer(_) | Sql::Real(_) => false,
    };
    let absent = table.columns[column].absent.as_ref();
    !is_nothing && absent.is_none_or(|absent| *absent != document::json_of(value).into_bytes())
}
