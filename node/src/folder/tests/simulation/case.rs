//! What a run is made of: steps from a seed.
//!
//! A step says who does what, and has dice of its own; so a list from which steps were taken away still means the same,
//! and a failing list can be made short.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::edits::Edit;
use super::people::{DEEDS, Deed};

/// What happens in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Somebody does something, while the engine waits.
    Deed(Deed),
    /// Somebody does something while the engine is at it.
    Intrude(Deed),
    /// Somebody changes something in the vault itself.
    Api(Edit),
    /// Somebody takes something out of the trash.
    Restore,
    /// The engine goes on, after a little time.
    Pass,
    /// Much time passes.
    PassLong,
    /// Two devices give each other entries: all, or the first few.
    Exchange,
    /// A device reaches no other, or does again.
    Part,
    /// The power is about to fail.
    Fuse,
    /// The process is killed.
    Kill,
    /// The node is stopped, or started.
    Switch,
    /// The disk is full, or has room again.
    Fill,
    /// The disk is unplugged, or plugged in.
    Unplug,
    /// The wall clock is set.
    SetClock,
    /// Events are from now on told otherwise.
    Events,
}

/// What happens other than deeds, with how often among a hundred or so steps.
pub const ACTS: [(Act, u32); 17] = [
    (Act::Api(Edit::Content), 2),
    (Act::Api(Edit::Create), 2),
    (Act::Api(Edit::Move), 2),
    (Act::Api(Edit::Trash), 2),
    (Act::Api(Edit::Purge), 2),
    (Act::Restore, 6),
    (Act::Pass, 26),
    (Act::PassLong, 4),
    (Act::Exchange, 24),
    (Act::Part, 3),
    (Act::Fuse, 9),
    (Act::Kill, 1),
    (Act::Switch, 3),
    (Act::Fill, 2),
    (Act::Unplug, 1),
    (Act::SetClock, 2),
    (Act::Events, 4),
];
/// Steps among a hundred or so in which somebody does something: while the engine waits, and while it is at it.
const DEED_WEIGHT: u32 = 60;
const INTRUSION_WEIGHT: u32 = 12;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub device: usize,
    pub act: Act,
    pub dice: u64,
}

/// What a run is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub devices: usize,
    /// Bits that make devices different: see [`natures`].
    pub nature: u64,
    /// After each step all devices come to rest: then there is no reason for a conflict.
    pub calm: bool,
    pub steps: Vec<Step>,
}

impl Case {
    /// The case of a seed.
    pub fn of(seed: u64) -> Case {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let devices = dice.random_range(2..=4);
        let calm = dice.random_range(0..5) == 0;
        let count = dice.random_range(10..80);
        let steps = (0..count)
            .map(|_| Step {
                device: dice.random_range(0..devices),
                act: act(&mut dice, calm),
                dice: dice.random(),
            })
            .collect();
        Case {
            devices,
            nature: dice.random(),
            calm,
            steps,
        }
    }
}

fn act(dice: &mut ChaCha8Rng, calm: bool) -> Act {
    let acts: u32 = ACTS.iter().map(|(_, weight)| weight).sum();
    let deeds: u32 = DEEDS.iter().map(|(_, weight)| weight).sum();
    let mut number = dice.random_range(0..acts + DEED_WEIGHT + INTRUSION_WEIGHT);
    for (act, weight) in ACTS {
        if number < weight {
            return match act {
                // Where all shall rest after each step, nobody is away, and nothing comes back to a name that was given
                // to another.
                Act::Restore | Act::Part | Act::Switch | Act::Fill | Act::Unplug if calm => {
                    Act::PassLong
                }
                act => act,
            };
        }
        number -= weight;
    }
    let intrudes = number >= DEED_WEIGHT && !calm;
    let mut number = dice.random_range(0..deeds);
    for (deed, weight) in DEEDS {
        if number < weight {
            return if intrudes {
                Act::Intrude(deed)
            } else {
                Act::Deed(deed)
            };
        }
        number -= weight;
    }
    Act::Pass
}
