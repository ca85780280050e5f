//! What an application's resolver may do: anything that follows from the versions alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use entgldb_replica::custom::{Resolver, ResolverFailed};
use entgldb_replica::id::{Collection, sha256};
use entgldb_replica::resolve::Side;

use crate::options::Options;
use crate::writing::Writers;

/// The resolvers of a node for the collections that it syncs.
pub(crate) fn resolvers<'a>(
    options: &Options,
    node: usize,
    collections: impl IntoIterator<Item = &'a Collection>,
) -> BTreeMap<Collection, Resolver> {
    let resolver = match options.resolving {
        Writers::All => Resolver::fallible(|_, _, sides| whim(sides)),
        // Nodes without a resolver take the youngest.
        Writers::Some if node.is_multiple_of(2) => {
            Resolver::new(|_, _, sides| sides.last().and_then(|side| side.content.clone()))
        }
        Writers::Some | Writers::None => return BTreeMap::new(),
    };
    collections.into_iter().map(|collection| (collection.clone(), resolver.clone())).collect()
}

/// Decides by the versions' hash what to do: choose one of them, delete, make something new, or fail in one way or another.
fn whim(sides: &[Side]) -> Result<Option<Bytes>, ResolverFailed> {
    let mut text = Vec::new();
    for side in sides {
        text.extend_from_slice(&side.stamp.hlc.0.to_be_bytes());
        text.extend_from_slice(&side.stamp.node.0);
        text.extend_from_slice(side.content.as_deref().unwrap_or(b"-"));
    }
    let [what, which, ..] = sha256(&text);
    match what % 8 {
        0 => Err(ResolverFailed("no opinion".into())),
        1 => Ok(Some("no json".into())),
        2 => Ok(None),
        3 | 4 => Ok(Some(format!("{{\"of\": {}, \"by\": {which}}}", sides.len()).into())),
        _ => Ok(sides[usize::from(which) % sides.len()].content.clone()),
    }
}
