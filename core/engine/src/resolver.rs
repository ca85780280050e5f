//! The application's resolvers, kept from bringing the store's thread down.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use entgldb_replica::custom::{Resolver, ResolverFailed};
use entgldb_replica::id::{Collection, DocId, NameError};
use entgldb_replica::{LawBroken, check_laws as check_replica_laws};

/// The resolvers by collection, guarded.
///
/// # Errors
/// A name that is none for a collection.
pub(crate) fn guarded_all(
    custom: &BTreeMap<String, Resolver>,
) -> Result<BTreeMap<Collection, Resolver>, (String, NameError)> {
    let guard = |(name, resolver): (&String, &Resolver)| match Collection::new(name) {
        Ok(collection) => Ok((collection, guarded(resolver))),
        Err(reason) => Err((name.clone(), reason)),
    };
    custom.iter().map(guard).collect()
}

/// The same resolver, except that a panic in it is a failure like any other: the youngest version stands.
pub(crate) fn guarded(resolver: &Resolver) -> Resolver {
    let resolver = resolver.clone();
    Resolver::fallible(move |collection, key, sides| {
        let doc = (collection.clone(), key.clone());
        // What a panic left half done in the resolver is the resolver's own affair.
        catch_unwind(AssertUnwindSafe(|| resolver.resolve(&doc, sides)))
            .unwrap_or_else(|panic| Err(ResolverFailed(format!("the resolver panicked: {}", words(&*panic)))))
    })
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

/// Tries a resolver on sets of up to four of these contents (`None`: a deletion) of one document, as
/// [`entgldb_replica::check_laws`] does; a panic counts as a failure.
///
/// # Errors
/// The smallest counterexample.
pub fn check_laws(resolver: &Resolver, doc: &DocId, samples: &[Option<Bytes>]) -> Result<(), LawBroken> {
    check_replica_laws(&guarded(resolver), doc, samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use entgldb_replica::id::Key;

    #[test]
    fn a_panic_is_a_failure_with_its_words() {
        let resolver = Resolver::new(|_, _, sides| panic!("{} versions", sides.len()));
        let doc = (Collection::new("t").unwrap(), Key::new("k").unwrap());
        let broken = check_laws(&resolver, &doc, &[Some("1".into()), None]).unwrap_err();
        assert!(broken.to_string().starts_with("the resolver panicked: 2 versions"), "{broken}");
        assert_eq!(check_laws(&Resolver::union(), &doc, &[Some("1".into()), None]), Ok(()));
    }
}
