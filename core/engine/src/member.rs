//! The members of a cluster, as a node's database knows them.

use std::path::Path;

use entgldb_sqlite::inspect::Inspector;
use entgldb_sqlite::{ListedMember, OpenError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A member of the cluster. Times are in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MemberInfo {
    /// Its identity.
    pub node: String,
    /// Its label.
    pub name: String,
    /// Whether it is the node whose database this is.
    pub this: bool,
    /// Tables that it syncs.
    pub collections: Vec<String>,
    /// Whether it was removed: no history is kept for it.
    pub removed: bool,
    /// Who removed it.
    pub removed_by: Option<String>,
    /// When it said last what it holds, or when it was removed.
    pub said_ms: u64,
    /// Entries here that it has not said to hold; their history is kept for it.
    pub waiting: u64,
}

impl MemberInfo {
    fn of(listed: ListedMember, owner: Option<&str>) -> Self {
        let ListedMember { node, member, said, waiting } = listed;
        let node = node.to_string();
        Self {
            this: owner == Some(&node),
            node,
            name: member.name,
            collections: member.interests.iter().map(ToString::to_string).collect(),
            removed: member.removed,
            removed_by: member.removed.then(|| said.node.to_string()),
            said_ms: said.hlc.wall().0,
            waiting,
        }
    }
}

/// The members that a database's node has heard of, itself included, ordered by id. The node may be running. Empty if no
/// node has run on the database yet.
///
/// # Errors
/// When the database can't be read.
pub fn read_members(database: &Path) -> Result<Vec<MemberInfo>, OpenError> {
    let Some(mut inspector) = Inspector::open(database)? else { return Ok(Vec::new()) };
    let owner = inspector.owner()?.map(|node| node.to_string());
    let members = inspector.members()?;
    Ok(members.into_iter().map(|member| MemberInfo::of(member, owner.as_deref())).collect())
}
