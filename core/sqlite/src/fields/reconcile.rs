//! Bringing the map from columns to fields up to date with the table as it is now.
//!
//! What SQLite's schema does not say is found by comparing: columns that are new, fields whose column is gone, columns of another
//! type. The rows and their documents decide which of the new columns is one of the old ([`renames`](crate::fields::renames)).

use entgldb_replica::id::Collection;
use rusqlite::{Connection, OptionalExtension};

use crate::capture::clock::now_sql;
use crate::capture::progress;
use crate::failed::{Outcome, While};
use crate::fields::map::{self, Alias, Field, Map};
use crate::fields::renames::Asked;
use crate::fields::{names as table_names, problems, said};
use crate::journal::names::Names;
use crate::quote::identifier;
use crate::table::column::{self, RawColumn};
use crate::table::definition;
use crate::table::document;
use crate::table::key::Encoding;
use crate::table::value::{Affinity, Sql};

/// Compares the map of a collection with its table, and writes what has changed. To be called in a write transaction.
pub(crate) fn reconcile(
    connection: &Connection,
    names: &Names,
    (no, collection): (i64, &Collection),
    encoding: Encoding,
) -> Outcome<()> {
    table_names::follow(connection, no, collection)?;
    let Ok((table, strict)) = definition::find_watched(connection, no, collection)? else { return Ok(()) };
    let mut columns = column::raw_columns(connection, &table)?;
    columns.retain(|column| !column.generated);
    said::learn(connection, no, collection)?;
    let map = Map::read(connection, no)?;
    let now = now(connection)?;
    let mut work = Work { connection, names, no, collection, encoding, table, strict, columns, map, now };
    if work.map.fields.is_empty() {
        return work.first_watch();
    }
    work.changed()
}

/// Whether it is known which column each field is. Not while columns are gone and others are new that nobody has compared with them.
pub(crate) fn is_known(connection: &Connection, no: i64, table: &str) -> Outcome<bool> {
    let map = Map::read(connection, no)?;
    let columns = column::raw_columns(connection, table)?;
    let is_here = |name: &String| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let is_gone = |field: &Field| field.column.as_ref().is_some_and(|column| !is_here(column));
    let is_new = |column: &RawColumn| !column.generated && map.of_column(&column.name).is_none();
    Ok(!map.fields.iter().any(is_gone) || !columns.iter().any(is_new))
}

/// Milliseconds since 1970.
fn now(connection: &Connection) -> Outcome<i64> {
    connection.query_row(&format!("SELECT {}", now_sql()), [], |row| row.get(0)).doing("reading the clock")
}

struct Work<'a> {
    connection: &'a Connection,
    names: &'a Names,
    no: i64,
    collection: &'a Collection,
    encoding: Encoding,
    table: String,
    strict: bool,
    columns: Vec<RawColumn>,
    map: Map,
    now: i64,
}

impl Work<'_> {
    /// Columns that were never seen are fields of their own, unless other nodes know them by another name.
    fn first_watch(&mut self) -> Outcome<()> {
        for column in self.columns.clone() {
            let field = self.free_canonical(&column.name).unwrap_or_else(|| column.name.clone());
            let field = if self.map.field(&field).is_some() { column.name.clone() } else { field };
            self.put(Field { added: 0, ..self.new_field(field, &column) })?;
        }
        Ok(())
    }

    fn changed(&mut self) -> Outcome<()> {
        let is_here = |name: &str| self.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        let gone: Vec<Field> = self
            .map
            .fields
            .iter()
            .filter(|field| field.column.as_ref().is_some_and(|column| !is_here(column)))
            .cloned()
            .collect();
        let new: Vec<RawColumn> = self
            .columns
            .iter()
            .filter(|column| self.map.of_column(&column.name).is_none())
            .cloned()
            .collect();
        let renamed = self.renamed(&gone, &new)?;
        for field in gone.iter().filter(|field| !renamed.iter().any(|(was, _)| was == &field.field)) {
            self.put(Field { column: None, ..field.clone() })?;
        }
        for column in new.iter().filter(|column| !renamed.iter().any(|(_, name)| *name == column.name)) {
            self.add(column)?;
        }
        self.learn_aliases()?;
        self.retype()?;
        self.settle_fills()?;
        self.settle_problems()
    }

    /// Finds the columns that were renamed, and gives them their fields. Returns field and column of each.
    fn renamed(&mut self, gone: &[Field], new: &[RawColumn]) -> Outcome<Vec<(String, String)>> {
        if gone.is_empty() || new.is_empty() {
            return Ok(Vec::new());
        }
        let fields: Vec<&str> = gone.iter().map(|field| &*field.field).collect();
        let columns: Vec<&str> = new.iter().map(|column| &*column.name).collect();
        let tally = self.asked().ask(&fields, &columns)?;
        let mut pairs = self.renamed_in_place(gone, new)?;
        for (field, column) in tally.proven() {
            if pairs.iter().all(|(other, taken)| *other != field && *taken != column) {
                pairs.push((field, column));
            }
        }
        let mut renamed = Vec::new();
        for (field, column) in &pairs {
            let (field, column) = (&gone[*field], &new[*column]);
            self.register(&column.name, &field.field)?;
            self.put(Field {
                column: Some(column.name.clone()),
                declared: column.declared.clone(),
                position: self.place(&column.name),
                named_at: self.now,
                ..field.clone()
            })?;
            renamed.push((field.field.clone(), column.name.clone()));
        }
        for (number, column) in new.iter().enumerate() {
            let is_taken = pairs.iter().any(|(_, taken)| *taken == number);
            let open = (0..gone.len()).find(|field| {
                !pairs.iter().any(|(paired, _)| paired == field) && tally.is_open(*field, number)
            });
            if let Some(open) = open.filter(|_| !is_taken && self.map.canonical(&column.name).is_none()) {
                self.report_open(&gone[open].field, &column.name)?;
            }
        }
        Ok(renamed)
    }

    /// The pairs that follow from the order of the columns. SQLite only adds columns at the end; so unless the table was built
    /// again, a new column that one stands behind which was there before is one that was renamed.
    fn renamed_in_place(&self, gone: &[Field], new: &[RawColumn]) -> Outcome<Vec<(usize, usize)>> {
        let has_triggers: bool = self
            .connection
            .prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND name = '_entgldb_insert_' || ?1
                 AND tbl_name = ?2 COLLATE NOCASE)",
            )
            .and_then(|mut statement| statement.query_row((self.no, &self.table), |row| row.get(0)))
            .doing("looking for triggers")?;
        if !has_triggers {
            return Ok(Vec::new());
        }
        let mut before: Vec<&Field> = self.map.fields.iter().filter(|field| field.column.is_some()).collect();
        before.sort_by_key(|field| field.position);
        let of_gone = |field: &Field| gone.iter().position(|gone| gone.field == field.field);
        let of_new = |column: &RawColumn| new.iter().position(|new| new.name == column.name);
        let (mut pairs, mut left) = (Vec::new(), self.columns.iter().peekable());
        let mut waiting: Vec<usize> = Vec::new();
        for field in before {
            if let Some(number) = of_gone(field) {
                waiting.push(number);
                continue;
            }
            let mut found: Vec<usize> = Vec::new();
            while let Some(number) = left.peek().and_then(|column| of_new(column)) {
                found.push(number);
                left.next();
            }
            let stays = field.column.as_deref().unwrap_or_default();
            if left.next().is_none_or(|column| !column.name.eq_ignore_ascii_case(stays)) {
                // The columns have another order: somebody has written to the schema itself.
                return Ok(Vec::new());
            }
            let same_type =
                |(gone_no, new_no): (&usize, &usize)| gone[*gone_no].declared == new[*new_no].declared;
            if found.len() == waiting.len() && waiting.iter().zip(&found).all(same_type) {
                pairs.extend(waiting.drain(..).zip(found));
            }
            waiting.clear();
        }
        Ok(pairs)
    }

    /// A column that is new and may be a former one, which no row proves.
    fn report_open(&self, field: &str, column: &str) -> Outcome<()> {
        let table = self.collection.as_str();
        let message = format!(
            "the column {field:?} is gone and {column:?} is new, and no row shows whether they are the same. If {column:?} is the former \
             {field:?}, run: entgldb schema DB --alias {table}.{field}={column}; if it is another one: entgldb schema DB --alias \
             {table}.{column}={column}"
        );
        tracing::warn!(
            table,
            field,
            column,
            "a column is gone and one is new, and no row shows whether they are the same"
        );
        problems::note(self.connection, self.no, &place_of(column), &message)
    }

    /// Gives a new column its field: one that other nodes know by this name, one that was dropped here before, or one of its own.
    fn add(&mut self, column: &RawColumn) -> Outcome<()> {
        let known = self.free_canonical(&column.name);
        let is_it = |field: &&Field| field.field.eq_ignore_ascii_case(&column.name) && field.column.is_none();
        let dropped = self.map.fields.iter().find(is_it).map(|field| field.field.clone());
        let field = match known.or(dropped) {
            Some(field) => match self.map.field(&field).cloned() {
                Some(before) if !self.fits(&before, column)? => self.other_field(column),
                _ => field,
            },
            // A field of this name has another column.
            None if self.map.field(&column.name).is_some() => self.other_field(column),
            None => column.name.clone(),
        };
        let before = self.map.field(&field).cloned();
        let (fill, fill_rows, is_computed) = self.observed_fill(&column.name)?;
        let added = self.map.fields.iter().map(|field| field.added).max().unwrap_or(0) + 1;
        let known_fill = before.and_then(|before| before.known_fill);
        self.put(Field { added, fill, fill_rows, is_computed, known_fill, ..self.new_field(field, column) })
    }

    /// Whether a column can be one that was there before: it has the same type, or in most rows the values of the documents,
    /// converted.
    fn fits(&self, before: &Field, column: &RawColumn) -> Outcome<bool> {
        if self.affinity(&before.declared) == self.affinity(&column.declared) {
            return Ok(true);
        }
        let tally = self.asked().ask(&[&before.field], &[&column.name])?;
        // Some rows may have been changed without a note, as when a file is put back.
        let votes = tally.of(0, 0);
        Ok(votes.different <= votes.equal)
    }

    /// A field for a column whose name is that of another field: with the type, and a number if need be.
    fn other_field(&self, column: &RawColumn) -> String {
        let kind = match self.affinity(&column.declared) {
            Affinity::Integer => "integer",
            Affinity::Numeric => "numeric",
            Affinity::Real => "real",
            Affinity::Text => "text",
            Affinity::Blob => "blob",
        };
        let name = format!("{}#{kind}", column.name);
        let is_free = |name: &String| self.map.field(name).is_none_or(|field| field.column.is_none());
        let numbered = (2..).map(|number| format!("{name}#{number}"));
        std::iter::once(name.clone()).chain(numbered).find(is_free).expect("numbers do not end")
    }

    /// Columns that are known elsewhere as another field get it now, where this node has no other column for it.
    fn learn_aliases(&mut self) -> Outcome<()> {
        for field in self.map.fields.clone() {
            let Some(name) = field.column.clone() else { continue };
            let other = self.free_canonical(&name).or_else(|| self.free_canonical(&field.field));
            let Some(other) = other.filter(|other| *other != field.field) else { continue };
            let known = self.map.field(&other).cloned();
            map::remove(self.connection, self.no, &field.field)?;
            self.map.fields.retain(|other| other.field != field.field);
            tracing::info!(table = %self.collection, column = %name, field = %other, "a column is known under another name elsewhere");
            self.put(Field {
                field: other,
                known_fill: known.and_then(|known| known.known_fill).or(field.known_fill.clone()),
                ..field
            })?;
        }
        Ok(())
    }

    /// A column whose type has changed: the same field as long as its values are those of the documents, converted.
    fn retype(&mut self) -> Outcome<()> {
        for column in self.columns.clone() {
            let Some(field) = self.map.of_column(&column.name).cloned() else { continue };
            let position = self.place(&column.name);
            if field.declared == column.declared
                && field.column.as_ref() == Some(&column.name)
                && field.position == position
            {
                continue;
            }
            let now = Field {
                column: Some(column.name.clone()),
                declared: column.declared.clone(),
                position,
                ..field.clone()
            };
            let same = self.affinity(&field.declared) == self.affinity(&column.declared);
            if same {
                self.put(now)?;
                continue;
            }
            // The column must not count as the field's while it is asked whether it is.
            self.put(Field { column: None, ..field.clone() })?;
            if self.fits(&field, &column)? {
                self.put(now)?;
            } else {
                self.add(&column)?;
            }
        }
        Ok(())
    }

    /// Problems of columns that meanwhile have a name for sure.
    fn settle_problems(&self) -> Outcome<()> {
        for column in &self.columns {
            let is_known =
                self.map.aliases.iter().any(|alias| alias.alias.eq_ignore_ascii_case(&column.name));
            if is_known {
                problems::solve(self.connection, self.no, &place_of(&column.name))?;
            }
        }
        Ok(())
    }

    /// The field that a name is an alias of, if no column of this table is in its way.
    fn free_canonical(&self, name: &str) -> Option<String> {
        let found = self.map.canonical(name)?;
        let is_column = |column: &RawColumn| {
            column.name.eq_ignore_ascii_case(found) && !column.name.eq_ignore_ascii_case(name)
        };
        let has_column = self.map.field(found).is_some_and(|field| {
            field.column.as_ref().is_some_and(|column| !column.eq_ignore_ascii_case(name))
        });
        (!has_column && !self.columns.iter().any(is_column)).then(|| found.to_owned())
    }

    /// What a migration filled a column with: the one value of all rows, as JSON, and how many rows these are (2 for more), or that
    /// there are several values.
    fn observed_fill(&self, column: &str) -> Outcome<(Option<String>, i64, bool)> {
        let column = identifier(column);
        // Grouping must not take values for equal that are not, as the column's own collation may.
        let sql = format!(
            "SELECT {column} FROM main.{0} WHERE {column} IS NOT (SELECT {column} FROM main.{0} LIMIT 1) COLLATE BINARY
             OR typeof({column}) <> (SELECT typeof({column}) FROM main.{0} LIMIT 1) LIMIT 1",
            identifier(&self.table)
        );
        let read = |sql: &str| {
            self.connection
                .query_row(sql, [], |row| Ok(Sql::from(row.get_ref(0)?).into_owned()))
                .optional()
                .doing("looking at an added column")
        };
        let Some(first) = read(&format!("SELECT {column} FROM main.{} LIMIT 1", identifier(&self.table)))?
        else {
            return Ok((None, 0, false));
        };
        Ok(match read(&sql)? {
            Some(_) => (None, 0, true),
            None => {
                let sql = format!("SELECT 1 FROM main.{} LIMIT 1 OFFSET 1", identifier(&self.table));
                (Some(document::json_of(&first)), 1 + i64::from(read(&sql)?.is_some()), false)
            }
        })
    }

    /// Columns whose rows had several values when they were found, or that had a single row, where other nodes know the one value that
    /// the migration gave to all. If most rows hold that, the others were written by the application before this node looked.
    fn settle_fills(&mut self) -> Outcome<()> {
        for field in self.map.fields.clone() {
            let (Some(column), Some(fill)) = (&field.column, &field.known_fill) else { continue };
            let was_taken_for_it = field.fill_rows == 1 && field.fill.as_ref() != Some(fill);
            let is_it = field.is_computed && self.most_common(column)?.as_ref() == Some(fill);
            if was_taken_for_it || is_it {
                progress::compare_again(self.connection, self.no)?;
                let fill = Some(fill.clone());
                self.put(Field { fill, fill_rows: 0, is_computed: false, ..field.clone() })?;
            }
        }
        Ok(())
    }

    /// The value that more rows hold than any other, as JSON.
    fn most_common(&self, column: &str) -> Outcome<Option<String>> {
        let column = identifier(column);
        let sql = format!(
            "SELECT {column} FROM main.{} GROUP BY typeof({column}), {column} COLLATE BINARY ORDER BY count(*) DESC LIMIT 1",
            identifier(&self.table)
        );
        self.connection
            .query_row(&sql, [], |row| Ok(document::json_of(&Sql::from(row.get_ref(0)?).into_owned())))
            .optional()
            .doing("looking at an added column")
    }

    fn affinity(&self, declared: &str) -> Affinity {
        Affinity::of(declared, self.strict)
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            connection: self.connection,
            names: self.names,
            no: self.no,
            collection: self.collection,
            map: &self.map,
            encoding: self.encoding,
        }
    }

    fn new_field(&self, field: String, column: &RawColumn) -> Field {
        Field {
            field,
            column: Some(column.name.clone()),
            declared: column.declared.clone(),
            added: 0,
            position: self.place(&column.name),
            fill: None,
            fill_rows: 0,
            is_computed: false,
            known_fill: None,
            named_at: self.now,
        }
    }

    /// A column's place in the table.
    fn place(&self, column: &str) -> i64 {
        let found = self.columns.iter().position(|other| other.name.eq_ignore_ascii_case(column));
        found.map_or(-1, usize::cast_signed) as i64
    }

    fn register(&mut self, alias: &str, field: &str) -> Outcome<()> {
        if alias == field {
            return Ok(());
        }
        let alias =
            Alias { at: self.now, field: field.to_owned(), alias: alias.to_owned(), node: String::new() };
        map::put_alias(self.connection, self.no, &alias)?;
        self.map = Map::read(self.connection, self.no)?;
        Ok(())
    }

    fn put(&mut self, field: Field) -> Outcome<()> {
        map::put(self.connection, self.no, &field)?;
        self.map.fields.retain(|other| other.field != field.field);
        self.map.fields.push(field);
        Ok(())
    }
}

/// Where a problem of a column stands in the list.
fn place_of(column: &str) -> String {
    format!("column {column}")
}
