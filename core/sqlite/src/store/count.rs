//! How many rows of a table were looked at.

use crate::table::value::Sql;

/// How far looking through a table has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LookedThrough {
    /// Rows looked at so far, since the store was opened.
    pub done: u64,
    /// About how many there were to look at.
    pub of: u64,
}

/// How many rows were looked at, up to where.
pub(super) struct Count {
    pub(super) counted: LookedThrough,
    /// The note of the row up to which they are counted.
    pub(super) up_to: Sql<'static>,
}
