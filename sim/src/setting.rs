//! Who is in a run: names, keys, interests and who may dial whom. All of it follows from the options.

use std::collections::BTreeSet;
use std::rc::Rc;

use entgldb_replica::entry::AuthorKey;
use entgldb_replica::id::Collection;

use crate::mutation::Mutation;
use crate::options::{Dialling, Options, Topology};
use crate::rng::Rng;
use crate::seen::{Member, Setting};

/// The name of a collection.
pub(crate) fn collection(number: usize) -> Collection {
    Collection::new(&format!("c{number}")).expect("a short name")
}

/// A node's key in a run: its own, or that of the node that it is a clone of.
pub(crate) fn key_of(options: &Options, node: usize) -> AuthorKey {
    key(options.clone_of(node).unwrap_or(node))
}

/// A node's key. Nodes have the same keys in all runs; what differs is everything else.
pub(crate) fn key(node: usize) -> AuthorKey {
    AuthorKey::from_seed(&[u8::try_from(node + 1).expect("few nodes"); 32])
}

/// Members and edges of a run.
pub(crate) fn setting(options: &Rc<Options>) -> Setting {
    let members = (0..options.nodes).map(|node| {
        let passing = options.clone_of(node).is_some();
        Member { id: key_of(options, node).node_id(), interests: interests(options, node), passing }
    });
    Setting { options: Rc::clone(options), members: members.collect(), edges: edges(options) }
}

fn interests(options: &Options, node: usize) -> BTreeSet<Collection> {
    let all = 0..options.collections;
    if options.uniform {
        return all.map(collection).collect();
    }
    let node = options.clone_of(node).unwrap_or(node);
    let mut rng = Rng::of(options.seed, "interests", node as u64);
    let mut interests: BTreeSet<Collection> = all.filter(|_| rng.below(3) > 0).map(collection).collect();
    if interests.is_empty() {
        interests.insert(collection(0));
    }
    interests
}

/// What a node really asks for; a mutation makes it more than its interests.
pub(crate) fn asked_for(options: &Options, interests: &BTreeSet<Collection>) -> BTreeSet<Collection> {
    let mut asked = interests.clone();
    if options.mutation == Mutation::InterestWidened {
        asked.extend((0..options.collections).map(collection));
    }
    asked
}

fn edges(options: &Options) -> Vec<(usize, usize)> {
    let count = options.nodes;
    let all = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
    let is_edge = |(a, b): &(usize, usize)| match options.topology {
        Topology::Mesh => true,
        Topology::Ring => b - a == 1 || (*a == 0 && b + 1 == count),
        Topology::Line => b - a == 1,
        Topology::Star => *a == 0,
    };
    all.filter(is_edge).collect()
}

/// The targets of a node: names, and whom they lead to.
pub(crate) fn targets(setting: &Setting, node: usize) -> Vec<(String, usize)> {
    let mut targets = Vec::new();
    for (a, b) in &setting.edges {
        let dialling = setting.options.dialling;
        if *a == node {
            targets.push((format!("n{b}:1"), *b));
            if dialling == Dialling::TwoNames {
                targets.push((format!("again{b}:1"), *b));
            }
        }
        if *b == node && dialling == Dialling::BothSides {
            targets.push((format!("n{a}:1"), *a));
        }
    }
    targets
}
