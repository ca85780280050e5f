//! Help for authors of resolvers: do nodes that take the same versions in different ways end with the same document?

use bytes::Bytes;

use crate::clock::{Hlc, Stamp};
use crate::custom::{Resolver, ResolverFailed};
use crate::id::{DocId, NodeId};
use crate::limits::SEEN_AUTHORS_MAX;
use crate::merge::Merged;
use crate::resolve::Side;

/// Most versions at once that are tried.
const SIDES_MAX: usize = 4;
/// Most calls of the resolver, so that many samples do not take for ever; small sets come first.
const CALLS_MAX: usize = 100_000;

/// What a resolver does that it must not, with the smallest set of samples that shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LawBroken {
    /// Asked twice about the same versions it answered differently: nodes would end with different documents.
    #[error("the same {} versions gave {} and then {}: {}", sides.len(), shown(.answers[0].as_ref()), shown(.answers[1].as_ref()), listed(sides))]
    Indeterminate {
        /// The versions, oldest first.
        sides: Vec<Side>,
        /// The two answers.
        answers: [Option<Bytes>; 2],
    },
    /// It failed, or answered what no document can be: the youngest version would stand.
    #[error("{reason}; asked about {} versions: {}", sides.len(), listed(sides))]
    Failed {
        /// The versions, oldest first.
        sides: Vec<Side>,
        /// What is wrong.
        reason: ResolverFailed,
    },
}

fn shown(content: Option<&Bytes>) -> String {
    content.map_or_else(|| "a deletion".to_owned(), |content| String::from_utf8_lossy(content).into_owned())
}

fn listed(sides: &[Side]) -> String {
    sides.iter().map(|side| shown(side.content.as_ref())).collect::<Vec<_>>().join(" | ")
}

/// Tries a resolver on sets of up to four of these contents (`None`: a deletion), as versions of one document in every order
/// of age: whatever order, groups and repetitions they arrive in, the same bytes must come of it, and they must be a document.
///
/// It calls the resolver many times, on the caller's thread. That it finds nothing proves nothing about contents that are not among the
/// samples, about other machines, or about a function that looks at the clock once a day.
///
/// # Errors
/// The smallest counterexample.
pub fn check_laws(resolver: &Resolver, doc: &DocId, samples: &[Option<Bytes>]) -> Result<(), LawBroken> {
    let mut samples: Vec<&Option<Bytes>> = samples.iter().collect();
    samples.sort_by_key(|content| (content.as_ref().map_or(0, Bytes::len), *content));
    let mut trial = Trial { resolver, doc, calls: 0 };
    for count in 2..=SIDES_MAX.min(samples.len()) {
        let mut chosen: Vec<usize> = (0..count).collect();
        loop {
            for order in orders(count) {
                let contents: Vec<&Option<Bytes>> = order.iter().map(|at| samples[chosen[*at]]).collect();
                trial.versions(&contents)?;
                if trial.calls > CALLS_MAX {
                    return Ok(());
                }
            }
            if !choose_next(&mut chosen, samples.len()) {
                break;
            }
        }
    }
    Ok(())
}

struct Trial<'a> {
    resolver: &'a Resolver,
    doc: &'a DocId,
    calls: usize,
}

impl Trial<'_> {
    /// Tries versions with these contents, the oldest first.
    fn versions(&mut self, contents: &[&Option<Bytes>]) -> Result<(), LawBroken> {
        let version = |(number, content): (u8, &&Option<Bytes>)| {
            let stamp = Stamp { hlc: Hlc(u64::from(number)), node: NodeId([number; 32]) };
            Merged::default().version((*content).clone(), stamp, SEEN_AUTHORS_MAX)
        };
        let versions: Vec<Merged> = (1..).zip(contents).map(version).collect();
        let mut first = None;
        for order in orders(versions.len()) {
            for cut in 1..=order.len() {
                // Two nodes have some of them each, meet, and tell each other of everything twice.
                let (mut one, mut other) = (Merged::default(), Merged::default());
                for at in &order[..cut] {
                    self.take(&mut one, &versions[*at])?;
                }
                for at in &order[cut..] {
                    self.take(&mut other, &versions[*at])?;
                }
                let before = one.clone();
                self.take(&mut one, &other)?;
                self.take(&mut one, &before)?;
                let content = one.content();
                let wanted = first.get_or_insert_with(|| content.clone());
                if *wanted != content {
                    let answers = [wanted.clone(), content];
                    return Err(LawBroken::Indeterminate { sides: one.sides(), answers });
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, state: &mut Merged, other: &Merged) -> Result<(), LawBroken> {
        state.join(other.clone());
        self.calls += 1;
        let resolved = state.resolve(self.doc, Some(self.resolver));
        resolved.map_err(|reason| LawBroken::Failed { sides: state.sides(), reason })
    }
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for next in 0..count {
        let insert = |order: Vec<usize>| {
            (0..=order.len()).rev().map(move |place| {
                let mut longer = order.clone();
                longer.insert(place, next);
                longer
            })
        };
        orders = orders.into_iter().flat_map(insert).collect();
    }
    orders
}

/// The next choice of things among `count`, each later than the one before. `false` if there is none.
fn choose_next(chosen: &mut [usize], count: usize) -> bool {
    let size = chosen.len();
    let Some(at) = (0..size).rev().find(|at| chosen[*at] < count - size + at) else { return false };
    chosen[at] += 1;
    for later in at + 1..size {
        chosen[later] = chosen[later - 1] + 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Collection, Key};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn check(resolver: &Resolver) -> Result<(), LawBroken> {
        let doc = (Collection::new("t").unwrap(), Key::new("k").unwrap());
        let contents = [
            Some(r#"{"n":1,"tags":["a"]}"#),
            Some(r#"{"n":2,"tags":["b","a"]}"#),
            None,
            Some(r#"{"n":2,"long":"................"}"#),
            Some("no json"),
        ];
        check_laws(resolver, &doc, &contents.map(|content| content.map(Bytes::from)))
    }

    #[test]
    fn resolvers_that_look_at_the_versions_alone_keep_the_laws() {
        for resolver in [
            Resolver::union(),
            Resolver::greatest("n"),
            Resolver::new(|_, _, _| None),
            Resolver::new(|_, _, sides| Some(format!("{{\"of\":{}}}", sides.len()).into())),
        ] {
            assert_eq!(check(&resolver), Ok(()));
        }
    }

    #[test]
    fn a_resolver_that_counts_its_calls_is_found_with_two_small_versions() {
        let calls = AtomicUsize::new(0);
        let resolver =
            Resolver::new(move |_, _, _| Some(calls.fetch_add(1, Ordering::Relaxed).to_string().into()));
        let broken = check(&resolver).unwrap_err();
        let LawBroken::Indeterminate { sides, answers } = &broken else { panic!("{broken}") };
        assert_eq!(sides.len(), 2);
        assert_ne!(answers[0], answers[1]);
        let smallest = sides.iter().all(|side| side.content.as_ref().is_none_or(|c| c.len() < 10));
        assert!(smallest, "{broken}");
    }

    #[test]
    fn an_answer_that_is_no_document_is_found_where_it_happens_first() {
        let resolver = Resolver::new(|_, _, sides| Some(if sides.len() > 2 { "no" } else { "{}" }.into()));
        let broken = check(&resolver).unwrap_err();
        let LawBroken::Failed { sides, .. } = &broken else { panic!("{broken}") };
        assert_eq!(sides.len(), 3, "two of them are fine");
        assert!(broken.to_string().contains("a deletion | no json"), "{broken}");
    }

    #[test]
    fn every_choice_and_order_is_tried_once() {
        assert_eq!(orders(3).len(), 6);
        let mut chosen = vec![0, 1];
        let mut count = 1;
        while choose_next(&mut chosen, 4) {
            count += 1;
        }
        assert_eq!((count, chosen), (6, vec![2, 3]));
    }
}
