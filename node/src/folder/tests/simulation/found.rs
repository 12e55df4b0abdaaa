//! Cases that found something, made short, with what it was.

mod contents;
mod moments;
mod oracle;
mod places;

use super::case::{Act, Case, Step};

/// A case that found something.
pub struct Found {
    /// What it was.
    pub what: &'static str,
    devices: usize,
    nature: u64,
    calm: bool,
    steps: &'static [(usize, Act, u64)],
}

impl Found {
    /// The case.
    pub fn case(&self) -> Case {
        let steps = self.steps.iter();
        let steps = steps.map(|(device, act, dice)| Step {
            device: *device,
            act: *act,
            dice: *dice,
        });
        Case {
            devices: self.devices,
            nature: self.nature,
            calm: self.calm,
            steps: steps.collect(),
        }
    }
}

/// All of them.
pub const FOUND: [&[Found]; 4] = [
    contents::CONTENTS,
    places::PLACES,
    moments::MOMENTS,
    oracle::ORACLE,
];
