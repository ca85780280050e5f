//! The contents of the versions that stand, wherever they are kept.

pub(crate) mod outgoing;
pub(crate) mod proof;
pub(crate) mod standing;
