//! Calls that must not be made: from inside a hook, in a forked child, after the end.

use crate::host::in_hook;

/// A call was refused before it did anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// It would wait for the engine, which waits for the hook that the call was made from.
    #[error(
        "this call would wait for the hook that it was made from; from inside a hook call touch, or another thread later"
    )]
    InHook,
    /// The process is a fork of the one that opened the node. Nothing of the node runs in it.
    #[error("this process was forked from the one that opened the node; open a node of its own in it")]
    Forked,
    /// The node was closed, or is about to be.
    #[error("the node is closed")]
    Closed,
}

/// The process that opened a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home(u32);

impl Home {
    pub(crate) fn here() -> Self {
        Self(std::process::id())
    }

    /// Whether this is that process.
    pub(crate) fn is_here(self) -> bool {
        self.0 == std::process::id()
    }

    /// For calls that wait for the engine.
    pub(crate) fn may_wait(self) -> Result<(), GuardError> {
        self.may_call()?;
        if in_hook() { Err(GuardError::InHook) } else { Ok(()) }
    }

    /// For calls that do not.
    pub(crate) fn may_call(self) -> Result<(), GuardError> {
        if self.is_here() { Ok(()) } else { Err(GuardError::Forked) }
    }
}
