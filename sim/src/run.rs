//! One run, from its options to what came out.

use crate::checkers::Violation;
use crate::coverage::Coverage;
use crate::mutation::Mutation;
use crate::options::Options;
use crate::world::World;
use crate::writing::Writers;

/// What came out of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What did not hold; `None` if all did.
    pub violation: Option<Violation>,
    /// Hash over everything that happened: equal for equal options and equal code.
    pub trace_hash: u64,
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Things that happened.
    pub events: u64,
    /// How often each fault happened.
    pub coverage: Coverage,
    /// The last lines of the story, if it was asked for.
    pub story: Vec<String>,
}

/// Carries out a run. `story` tells whether to keep lines to read, which takes time.
#[must_use]
pub fn run(options: &Options, story: bool) -> Outcome {
    let mut world = World::new(options.clone(), story);
    if options.mutation == Mutation::NotFromSeed {
        // Where a value lies in memory differs from run to run: just what must not get in.
        let here = Box::new(0u8);
        world.trace.mix(world.now, "address", 0, std::ptr::from_ref(&*here) as usize);
        std::mem::forget(here);
    }
    match options.resolving {
        Writers::None => {}
        Writers::Some => world.coverage.add("runs with a resolver on some nodes", 1),
        Writers::All => world.coverage.add("runs with a resolver on all nodes", 1),
    }
    let stopped = world.run().is_err();
    debug_assert_eq!(stopped, world.violation.is_some(), "a run stops because of what was found");
    Outcome {
        violation: world.violation.take(),
        trace_hash: world.trace.hash(),
        simulated_ms: world.now.0,
        events: world.trace.events(),
        coverage: std::mem::take(&mut world.coverage),
        story: world.trace.into_story(),
    }
}

/// Carries out a run twice. `Err` with both hashes if they are not the same.
///
/// # Errors
/// When something in the run does not come from its seed.
pub fn run_twice(options: &Options) -> Result<Outcome, (u64, u64)> {
    let (first, second) = (run(options, false), run(options, false));
    if first.trace_hash == second.trace_hash { Ok(first) } else { Err((first.trace_hash, second.trace_hash)) }
}
