//! Every limit of the engine, named once.
//!
//! A value over a limit is refused with a typed error that names the limit; nothing is lost and nothing is half done.
//! Sizes are in bytes, times in milliseconds, unless the name says otherwise.

/// Longest document key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest collection name, in bytes of UTF-8.
pub const COLLECTION_BYTES_MAX: usize = 128;
/// Longest label of a node, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// Largest document that a node captures or takes, unless its configuration says otherwise.
pub const PAYLOAD_BYTES_DEFAULT: usize = 1 << 20;
/// Largest document that a configuration may allow.
pub const PAYLOAD_BYTES_HARD: usize = 15 << 20;
/// What an entry may have beside the document that it leaves: how it merges, and what its author had seen.
pub const EDIT_SPARE_BYTES: usize = 32 << 10;
/// Deepest nesting of a JSON document.
pub const JSON_DEPTH_MAX: usize = 64;

/// The last position that an entry of a log can have. Stores number entries with it, so nothing beyond it is taken.
pub const SEQ_MAX: u64 = (1 << 40) - 1;
/// Most authors of whom a version of a document may say how far it had seen them.
pub const SEEN_AUTHORS_MAX: usize = 256;

/// Largest state of a document that merges, in bytes; of a larger one the oldest parts go. A store keeps it in one row, which has
/// room for the largest document and this much more.
pub const STATE_BYTES_MAX: usize = PAYLOAD_BYTES_HARD + (512 << 10);
/// Most versions of one document, made apart, that stand beside each other for a resolver; the oldest go.
pub const VERSIONS_MAX: usize = 256;
/// Of these, most of one author: who does not mean harm has seen its own.
pub const VERSIONS_OF_AUTHOR_MAX: usize = 8;

/// Most changes in one unit (what is captured at once and stays whole on its way).
pub const UNIT_CHANGES_MAX: usize = 4096;
/// Most payload bytes in one unit: a unit and its framing fit one frame of the default size. A single larger
/// document is a unit of its own.
pub const UNIT_BYTES_MAX: usize = (4 << 20) - (768 << 10);
/// A gap between write times that starts a new unit in a backlog, so that old edits do not borrow a young stamp.
pub const UNIT_GAP_MS: u64 = 1000;
/// Documents that are passed to a hook of the application's store at a time.
pub const HOOK_DOCUMENTS_MAX: usize = 1000;
/// Bytes of content that are passed to a hook at a time; a single larger document is passed alone.
pub const HOOK_BYTES_MAX: usize = 1 << 20;

/// Most entries in one page (the batch that a receiver applies in one transaction).
pub const PAGE_ENTRIES_MAX: usize = 4096;
/// A page stops growing at this many entries: small enough that applying one holds the write lock for about 20 ms.
pub const PAGE_ENTRIES_TARGET: usize = 1024;
/// A page stops growing at this many payload bytes.
pub const PAGE_BYTES_TARGET: usize = 512 << 10;
/// Most pages that may be on their way to one peer, not yet acknowledged.
pub const PAGES_IN_FLIGHT_MAX: usize = 4;
/// Most logs named in one vector message; a longer vector is sent in parts.
pub const VECTOR_LOGS_MAX: usize = 4096;
/// Heads in one question whether a peer holds them, before it goes on with a snapshot that another began.
pub const HELD_HEADS_MAX: usize = 256;
/// Most logs that a node takes, and that it reads of a peer's vector; what is beyond is passed over.
pub const LOGS_MAX: usize = 1 << 16;
/// With more logs than this a node takes no new ones of authors that have [`AUTHOR_LOGS`] already: who makes up very many
/// leaves room for all others.
pub const LOGS_CROWDED: usize = 1 << 15;
/// See [`LOGS_CROWDED`]. Each unclean end of a node begins a new log in each of its collections.
pub const AUTHOR_LOGS: usize = 1 << 10;
/// Most collections in one node's interest.
pub const INTEREST_MAX: usize = 256;
/// Links that a node takes pushed entries from at the same time; the others repair through digests.
pub const PUSH_LINKS_MAX: usize = 6;
/// A node that lacks more entries than this of a peer takes them from one peer at a time.
pub const CATCH_UP_ENTRIES: u64 = 2_000;

/// A snapshot is taken instead of history if at least so many entries are missing, and more than twice as many as there
/// are rows.
pub const SNAPSHOT_ENTRIES: u64 = 10_000;
/// How long answers are waited for before it is known how fast a giver of a snapshot is.
pub const SNAPSHOT_PACE_MS: u64 = 10_000;
/// A giver that brings fewer bytes in a second makes room for another that may be faster and can go on in its place.
pub const SNAPSHOT_FAST: u64 = 256 << 10;
/// A giver that brings fewer is left even if the snapshot has to begin anew, and keeps no history of others waiting.
pub const SNAPSHOT_SLOW: u64 = 16 << 10;
/// Pieces of a snapshot that wait to be joined before no other is asked for.
pub const SNAPSHOT_AHEAD: usize = 2;
/// Pieces of snapshots are given while nothing else waits; else one in this time.
pub const SNAPSHOT_GIVE_MS: u64 = 20;
/// How long history is kept after all members hold it, unless the configuration says otherwise.
pub const RETENTION_MS: u64 = 24 * 3_600_000;
/// Longest time after which a member says what it holds, if it has got anything new; with a short retention it is an eighth
/// of that.
pub const ACKNOWLEDGE_MS: u64 = 3_600_000;
/// Entries of one log that are forgotten in one step.
pub const FORGET_ENTRIES: u64 = 8_192;

/// Largest message before authentication.
pub const PRE_AUTH_BYTES_MAX: usize = 1 << 10;
/// Largest message before authentication when it carries a token.
pub const PRE_AUTH_TOKEN_BYTES_MAX: usize = 8 << 10;
/// Largest frame, unless the configuration says otherwise.
pub const FRAME_BYTES_DEFAULT: usize = 4 << 20;
/// Part of a frame that pages and pieces of snapshots leave free. A page is measured without its number: what came in a page
/// under one number fits a page under any.
pub const FRAME_OVERHEAD_BYTES: usize = 64;
/// Largest frame that a configuration may allow.
pub const FRAME_BYTES_HARD: usize = 16 << 20;
/// Smallest frame that a configuration may ask for.
pub const FRAME_BYTES_LEAST: usize = 1 << 10;
/// Most bytes of received frames waiting for the engine, over all links.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// The part of [`IN_FLIGHT_BYTES_MAX`] that the frames of one link may take.
pub const LINK_IN_FLIGHT_BYTES_MAX: usize = 16 << 20;
/// Bytes of frames taken from one link in a second, decompressed, unless the configuration says otherwise; a peer that
/// sends more is read more slowly.
pub const LINK_BYTES_PER_SECOND: usize = 64 << 20;
/// Frames smaller than this are sent uncompressed.
pub const COMPRESS_FROM_BYTES: usize = 1 << 10;
/// A compressed frame may declare at most this raw length plus [`EXPANSION_RATIO_MAX`] times its own.
pub const EXPANSION_BASE_BYTES: usize = 64 << 10;
/// See [`EXPANSION_BASE_BYTES`].
pub const EXPANSION_RATIO_MAX: usize = 256;

/// The longest content that a compressed frame of this size may declare. Senders and receivers use the same rule: a sender
/// sends what compresses better than that as it is.
#[must_use]
pub const fn expanded_bytes_max(compressed_bytes: usize) -> usize {
    EXPANSION_BASE_BYTES.saturating_add(EXPANSION_RATIO_MAX.saturating_mul(compressed_bytes))
}

/// Peers that a node remembers.
pub const PEERS_MAX: usize = 1024;
/// Authenticated links at the same time.
pub const SESSIONS_MAX: usize = 256;
/// Links in the handshake at the same time.
pub const PRE_AUTH_MAX: usize = 64;
/// Links in the handshake at the same time from one address.
pub const PRE_AUTH_PER_ADDRESS_MAX: usize = 8;
/// Handshakes of one address that are answered in a second; more wait for their turn.
pub const HANDSHAKES_PER_SECOND: u32 = 20;
/// First messages of handshakes that a node remembers, so as not to answer recordings of them.
pub const FIRST_MESSAGES_MAX: usize = 4096;
/// Part of the process's file descriptors, in percent, that listening leaves to others.
pub const DESCRIPTORS_FREE_PERCENT: u64 = 25;
/// Frames waiting to be written to one link; a link that falls further behind is closed and catches up later.
pub const SEND_QUEUE_FRAMES_MAX: usize = 64;

/// The whole handshake.
pub const HANDSHAKE_MS: u64 = 5_000;
/// Silence of our own after which we tell a peer that we are alive.
pub const PING_AFTER_MS: u64 = 30_000;
/// Silence of a peer after which its link is dropped.
pub const DROP_AFTER_MS: u64 = 90_000;
/// A frame that has begun must be complete within this time, or go on at [`FRAME_BYTES_PER_SECOND`].
pub const FRAME_MS: u64 = 30_000;
/// See [`FRAME_MS`].
pub const FRAME_BYTES_PER_SECOND: usize = 16 << 10;
/// Wait for a peer to acknowledge a page before the link is closed.
pub const ACK_MS: u64 = 120_000;
/// First wait before dialling again.
pub const DIAL_BACKOFF_FIRST_MS: u64 = 1_000;
/// Longest wait before dialling again.
pub const DIAL_BACKOFF_MAX_MS: u64 = 60_000;
/// Time between digests on a link, unless the configuration says otherwise.
pub const SYNC_INTERVAL_MS: u64 = 2_000;
/// A remote entry further ahead of the wall clock than this is not yet accepted.
pub const MAX_SKEW_MS: u64 = 300_000;
/// Wait before an entry that was refused for its stamp is offered again.
pub const SKEW_RETRY_MS: u64 = 5_000;
/// Wait before a log is taken again from a peer that sent bad entries of it.
pub const BAD_LOG_RETRY_MS: u64 = 60_000;
/// Most conflicts that wait for a version to arrive; beyond that a new one counts as certain.
pub const OPEN_CONFLICTS_MAX: usize = 10_000;
/// Most bytes of the contents of these together, held in memory.
pub const OPEN_CONFLICTS_BYTES_MAX: usize = 16 << 20;
/// Most bytes of both versions of a conflict together; beyond it the winner's is left out, for it stands in the row. A store
/// keeps both in one row.
pub const CONFLICT_BYTES_MAX: usize = STATE_BYTES_MAX;
/// Most bytes of the conflict list together, about; the oldest conflicts go.
pub const CONFLICT_LIST_BYTES_MAX: u64 = 256 << 20;
/// How long a losing version stays in the conflict list.
pub const CONFLICT_KEEP_MS: u64 = 24 * 3_600_000;

/// The limits of what a node makes and sends, where a configuration may go below the constants. What a node takes from
/// others is bounded by the constants alone, so nodes with different limits understand each other.
///
/// Small values cost time and lose nothing. The defaults are right for nearly everybody; the simulator draws others, so that
/// what happens at the edges of pages and units happens often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Changes in a unit; 1 to [`UNIT_CHANGES_MAX`].
    pub unit_changes: usize,
    /// Payload bytes in a unit, a single larger document excepted; 1 to [`UNIT_BYTES_MAX`].
    pub unit_bytes: usize,
    /// Milliseconds between write times that start a new unit.
    pub unit_gap_ms: u64,
    /// Entries at which a page stops growing, unless one unit has more; 1 to [`PAGE_ENTRIES_TARGET`].
    pub page_entries: usize,
    /// Payload bytes at which a page stops growing, unless one unit has more; 1 to [`PAGE_BYTES_TARGET`].
    pub page_bytes: usize,
    /// Pages on their way to one peer; 1 to [`PAGES_IN_FLIGHT_MAX`].
    pub pages_in_flight: usize,
    /// Logs in one part of a vector; 1 to [`VECTOR_LOGS_MAX`].
    pub vector_logs: usize,
    /// Links that entries are taken from at the same time; 1 to [`PUSH_LINKS_MAX`].
    pub push_links: usize,
    /// Entries lacked of a peer that make a catch-up, which is taken from one peer at a time; at least 1.
    pub catch_up_entries: u64,
    /// Entries lacked of a peer from which on a snapshot may be taken instead; at least 1.
    pub snapshot_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unit_changes: UNIT_CHANGES_MAX,
            unit_bytes: UNIT_BYTES_MAX,
            unit_gap_ms: UNIT_GAP_MS,
            page_entries: PAGE_ENTRIES_TARGET,
            page_bytes: PAGE_BYTES_TARGET,
            pages_in_flight: PAGES_IN_FLIGHT_MAX,
            vector_logs: VECTOR_LOGS_MAX,
            push_links: PUSH_LINKS_MAX,
            catch_up_entries: CATCH_UP_ENTRIES,
            snapshot_entries: SNAPSHOT_ENTRIES,
        }
    }
}

impl Limits {
    /// The same with every value that is out of its range at the nearest end of it.
    #[must_use]
    pub fn clamped(self) -> Self {
        Self {
            unit_changes: self.unit_changes.clamp(1, UNIT_CHANGES_MAX),
            unit_bytes: self.unit_bytes.clamp(1, UNIT_BYTES_MAX),
            unit_gap_ms: self.unit_gap_ms,
            page_entries: self.page_entries.clamp(1, PAGE_ENTRIES_TARGET),
            page_bytes: self.page_bytes.clamp(1, PAGE_BYTES_TARGET),
            pages_in_flight: self.pages_in_flight.clamp(1, PAGES_IN_FLIGHT_MAX),
            vector_logs: self.vector_logs.clamp(1, VECTOR_LOGS_MAX),
            push_links: self.push_links.clamp(1, PUSH_LINKS_MAX),
            catch_up_entries: self.catch_up_entries.max(1),
            snapshot_entries: self.snapshot_entries.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_range_count_as_the_nearest_that_is_allowed() {
        let defaults = Limits::default();
        assert_eq!(defaults.clamped(), defaults);
        let low = Limits { page_entries: 0, pages_in_flight: 0, push_links: 0, ..defaults }.clamped();
        assert_eq!((low.page_entries, low.pages_in_flight, low.push_links), (1, 1, 1));
        let high = Limits { unit_changes: usize::MAX, vector_logs: usize::MAX, ..defaults };
        assert_eq!(high.clamped(), defaults);
    }
}
