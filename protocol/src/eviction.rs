//! When a device may drop the bytes of a content that the vault still names.
//!
//! Only then, when enough *other* devices are known to keep it, and to keep it whatever this device
//! does. A device that may drop contents says so first, in a [held statement](crate::held) that is
//! not pinned. What another device said before it had seen that announcement does not count: it may
//! have announced the same meanwhile. What counts is a statement that is pinned, names the content
//! as held, and was made in knowledge of the announcement.
//!
//! Why no order of events leaves a content without a copy: let the content be gone everywhere, and look
//! at the last time that each device dropped it. Each drop relied on a statement; take the drop whose
//! statement was made last, at time *s*, by device *E*. At *s* *E* had the content and was pinned. *E*
//! dropped it later, so it announced that after *s*, and relied on a statement that was made after its
//! announcement: after *s*. That contradicts the choice. So devices that are not pinned at the same
//! time all wait; the order of device ids decides nothing. (Letting all but the lowest go on would not
//! be safe: the lowest may be relying on a third device, which may rely on one of those.)
//!
//! This file decides; who drops what, and in which order, is the node's business.

use std::collections::BTreeMap;

use crate::held::Held;
use crate::identity::WriterId;

/// How many others must keep a content: so many devices, or so many relay hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Devices that hold keys.
    pub devices: usize,
    /// Relay hosts, which count for less each: they keep what they are sent, for others too.
    pub hosts: usize,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            devices: 1,
            hosts: 2,
        }
    }
}

impl Copies {
    /// Whether so many devices that keep a content, or so many hosts, are enough. The one rule: for what may be dropped,
    /// and for what people are told is at risk.
    pub fn enough(self, devices: usize, hosts: usize) -> bool {
        devices >= self.devices || hosts >= self.hosts
    }
}

/// What kind of device made a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One that holds keys.
    Device,
    /// A relay host.
    Host,
}

/// The entry that names a content.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// [`WriterId::actor`] of the entry's author.
    pub actor: [u8; 16],
    /// The entry's number in its author's log.
    pub seq: u64,
}

/// Statements of other devices, ready to be asked about many contents.
pub struct Keepers<'a> {
    statements: Vec<Keeper<'a>>,
    copies: Copies,
}

/// One of them.
struct Keeper<'a> {
    kind: Kind,
    held: &'a Held,
    /// Its clock of chunks, by actor.
    covered: BTreeMap<[u8; 16], u64>,
}

impl<'a> Keepers<'a> {
    /// Those of `others` on which the device whose newest statement is `own` may rely when it drops
    /// something. None of them while that statement is pinned: it promises others to drop nothing.
    pub fn confirmed(
        own: &Held,
        others: impl IntoIterator<Item = (Kind, &'a Held)>,
        copies: Copies,
    ) -> Self {
        let may_drop = !own.pinned;
        Self::of(
            others.into_iter().filter(|(_, held)| {
                may_drop
                    && held.device != own.device
                    && held.has_seen(&own.device) >= own.unpinned_since
            }),
            copies,
        )
    }

    /// All of `others` that keep what they have, as far as they said so: for telling people what
    /// only few devices keep, never for dropping anything.
    pub fn known(others: impl IntoIterator<Item = (Kind, &'a Held)>, copies: Copies) -> Self {
        Self::of(others, copies)
    }

    fn of(others: impl IntoIterator<Item = (Kind, &'a Held)>, copies: Copies) -> Self {
        let statements = others
            .into_iter()
            .filter(|(_, held)| held.pinned)
            .map(|(kind, held)| {
                let chunks = held.chunks.iter();
                let covered = chunks.map(|(writer, seq, _)| (WriterId::actor(writer), seq));
                Keeper {
                    kind,
                    held,
                    covered: covered.collect(),
                }
            });
        Self {
            statements: statements.collect(),
            copies,
        }
    }

    /// Whether enough of them keep the content that an entry names, of a document with this id.
    pub fn enough(&self, naming: Naming, document: impl Fn() -> String) -> bool {
        let (mut devices, mut hosts) = (0, 0);
        for keeper in &self.statements {
            let exceptions = &keeper.held.exceptions;
            let keeps = keeper
                .covered
                .get(&naming.actor)
                .is_some_and(|seq| *seq >= naming.seq)
                && (exceptions.is_empty() || exceptions.binary_search(&document()).is_err());
            match keeper.kind {
                Kind::Device if keeps => devices += 1,
                Kind::Host if keeps => hosts += 1,
                _ => {}
            }
        }
        self.copies.enough(devices, hosts)
    }
}

#[cfg(test)]
mod tests;
