//! A household whose host lies, in one thread, from one seed.
//!
//! Three devices (the very core that a node runs) never meet: they have two hosts, made of the very decisions that a host
//! makes, of which one lies now and then. A run is some honest days, and a lie after each. While the hosts are honest
//! nothing may be said against them; a lie must be found out by whom it concerns; and in the end all devices agree, nothing
//! that was acknowledged is lost, and no entry is anywhere that its author did not write.
//!
//! ```text
//! host.rs      a host in single steps
//! household.rs the devices, and their sessions with the hosts
//! bringing.rs  contents: brought to hosts, and asked for again
//! lies.rs      what the lying host does, and what must be found out
//! ```

mod bringing;
mod host;
mod household;
mod lies;

use coffer_node::hosts::TroubleKind;
use rand::RngExt;

use crate::Report;
use crate::acts::Act;
pub use household::Household;
use household::{HONEST, LIAR};
pub use lies::{LIES, Lie};

/// Lies of a run.
const TOLD: usize = 9;
/// Steps of an honest day.
const DAY: std::ops::Range<usize> = 5..40;

/// What people do meanwhile: enough for logs to grow and contents to be brought.
const ACTS: [Act; 7] = [
    Act::Put,
    Act::MergeFields,
    Act::Type,
    Act::CreateFile,
    Act::Content,
    Act::Rename,
    Act::CreateFolder,
];

/// The word for a trouble in the coverage.
fn name_of(kind: TroubleKind) -> &'static str {
    match kind {
        TroubleKind::RolledBack => "rolled back",
        TroubleKind::Contradicts => "contradicts",
        TroubleKind::BeganAnew => "began anew",
        TroubleKind::Withholds => "withholds",
        TroubleKind::LostContents => "lost contents",
        TroubleKind::Forged => "forged",
        TroubleKind::Unproven => "unproven",
        TroubleKind::NotKept => "not kept",
    }
}

/// Runs one seed to its end.
///
/// # Panics
/// When a check fails; the message has the last events of the run.
pub fn run(seed: u64) -> Report {
    let mut household = Household::new(seed);
    for _ in 0..TOLD {
        household.honest_day();
        let lie = Lie::draw(&mut household.rng);
        household.tell(lie);
        household.calm();
    }
    household.honest_day();
    household.calm();
    household.check_end();
    household.report()
}

impl Household {
    /// Something of everything, and nobody has cause to complain.
    fn honest_day(&mut self) {
        let began_ms = self.now_ms;
        for _ in 0..self.rng.random_range(DAY) {
            self.now_ms += self.rng.random_range(1..20_000);
            let place = self.rng.random_range(0..self.devices.len());
            let slot = self.rng.random_range(0..self.hosts.len());
            match self.rng.random_range(0..100) {
                0..40 => {
                    self.operate(place);
                }
                40..60 => {
                    self.exchange();
                }
                60..70 => self.disconnect(place, slot),
                70..85 => self.connect(place, slot),
                85..88 => self.restart(place),
                88..92 => self.bring(place, slot, false),
                92..96 => {
                    self.challenge(place, slot);
                }
                _ => self.minute(),
            }
        }
        self.rest();
        self.minute();
        // Of the one that never lies nothing may ever be said.
        let all = [self.complaints(LIAR, began_ms), self.complaints(HONEST, 0)];
        assert!(
            all.iter().all(Vec::is_empty),
            "of honest hosts is said: {all:?}"
        );
        self.coverage.hit("run", "honest days");
    }
}
