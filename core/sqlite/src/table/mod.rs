//! The application's tables: their definition, their rows as documents, and the SQL for both.

pub(crate) mod collation;
pub(crate) mod column;
pub(crate) mod definition;
pub(crate) mod document;
pub(crate) mod key;
pub(crate) mod rows;
pub(crate) mod unique;
pub(crate) mod value;
