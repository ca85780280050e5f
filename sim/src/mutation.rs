//! Ways to break the world on purpose.

/// A way to break the world on purpose, to see that a checker sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Mutation {
    /// Nothing is broken.
    #[default]
    None,
    /// One store keeps another content hash in a row than the one it was given.
    RowAltered,
    /// The store drops a captured change without an entry.
    OutboxDropped,
    /// The store forgets the clock when it is opened.
    ClockForgotten,
    /// The store forgets the last entry of the node's own logs when it is opened.
    HeadForgotten,
    /// The store says that a commit is done and has changed nothing.
    CommitLost,
    /// What is delivered again at the end has one entry that is new.
    RedeliveryIsNew,
    /// The store alters what it applied and captures that.
    EchoAltered,
    /// The store does not look at the guard.
    GuardIgnored,
    /// The store says that it knows no row when remote changes are joined.
    RowsForgotten,
    /// The store says that it knows no row when local changes are captured.
    RowsForgottenAtCapture,
    /// A member passes on a part of a unit that lies in several logs.
    UnitTorn,
    /// The store says that it knows no tombstone.
    TombstonesForgotten,
    /// A node takes whatever time comes.
    SkewAccepted,
    /// One clock stays a month ahead after healing.
    ClockNotHealed,
    /// A node asks for a collection that it was not meant to have.
    InterestWidened,
    /// A node believes that its peers take larger frames than they do.
    FrameLimitIgnored,
    /// The applications go on writing when all should be quiet.
    NeverQuiet,
    /// Something is not drawn from the seed.
    NotFromSeed,
    /// One application's store loses a document, and nobody notes it.
    DocumentForgotten,
    /// Pages are altered on their way.
    PageAltered,
    /// Two neighbours are never connected again.
    NeverHealed,
    /// A process does its work again and again at one moment.
    NeverRests,
    /// A node forgets the mark that says how far its oplog had come.
    MarkForgotten,
    /// The store says that it has no state of a document that merges.
    StatesForgotten,
    /// A store gives members' documents back that acknowledge far more than the members do.
    AcknowledgedTooMuch,
    /// A store in two parts does not end what a commit had begun.
    RedoForgotten,
    /// Nobody hears what engines say of forks.
    ForksUntold,
}
