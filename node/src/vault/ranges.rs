//! Ranges of this vault's logs: what this device makes of its own log, what it compares, attests and takes.
//!
//! A device makes ranges of stretches of its own logs, and of closed ones whose keeper it is, that lie behind it and that
//! another device has: many small entries, one after the other. Who gets one and has the entries opens both, and says
//! whether they hold the same; who has not yet got so far takes it in their place, once a device other than its maker has
//! said so. The rules and bytes are in docs/protocol/ranges.md.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coffer_protocol::grants::{Role, Writing};
use coffer_protocol::identity::{DeviceId, Hash, WriterId};
use coffer_protocol::log::{self, Body, Entry, Header};
use coffer_protocol::ranges::{
    self, Attestation, Content, Head, Part, RANGE_MAX_PLAIN_LEN, Range, SignedAttestation,
};
use coffer_protocol::replication::{MAX_RANGES, RangeName, Rejection};
use redb::ReadTransaction;

use super::core::Core;
use super::room::RANGE_TAKES;
use super::state::State;
use super::work::Work;
use crate::hosts::forgery;
use crate::store::documents::DocumentKey;
use crate::store::ranges::{Marks, read_kept};
use crate::store::{StoreError, tables};

/// Entries of a stretch that is looked at for a range, unless the core is set otherwise: opening and sealing so many takes
/// some hundred milliseconds, and comparing them on the other devices as much.
pub const STRETCH: u64 = 4096;
/// An entry of more bytes gains nothing from others beside it: it stays as it is.
const SMALL: usize = 16 << 10;
/// Of how many parts of a stretch a range must be, at least.
const LEAST_PART: u64 = 64;

/// A range that is here.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its public part.
    pub head: Head,
    /// What names it.
    pub id: Hash,
    /// What was said of it, by who said it.
    pub said: BTreeMap<DeviceId, SignedAttestation>,
    /// What is marked of it in the store.
    pub marks: Marks,
}

impl Known {
    /// By what others are told of it.
    pub fn name(&self) -> RangeName {
        RangeName {
            writer: self.head.writer,
            to: self.head.to,
            id: self.id,
            said: ranges::said(self.said.values()),
        }
    }
}

/// Entries of a log: whose, the first, the last.
type Stretch = (WriterId, u64, u64);

/// All ranges that are here, by log and last entry.
pub type Ranges = BTreeMap<(WriterId, u64), Known>;

/// Reads them, without their bodies.
pub(super) fn read_ranges(read: &ReadTransaction) -> Result<Ranges, StoreError> {
    let kept = read_kept(read)?.into_iter().map(|kept| {
        let said = kept.said.into_iter();
        let known = Known {
            id: kept.head.id(),
            said: said.map(|said| (said.value().device, said)).collect(),
            marks: kept.marks,
            head: kept.head,
        };
        ((known.head.writer, known.head.to), known)
    });
    Ok(kept.collect())
}

/// How documents are named in ranges: by the keys that they have in every device's store.
pub fn naming(doctype: &str, id: &str) -> Hash {
    Hash(DocumentKey::new(doctype, id).0)
}

impl State {
    /// A range of this log that stands for one of these entries.
    fn range_among(&self, writer: WriterId, from: u64, to: u64) -> Option<&Known> {
        let next = self
            .ranges
            .range((writer, from)..=(writer, u64::MAX))
            .next()?;
        (next.1.head.from <= to).then_some(next.1)
    }

    /// Whether a range is taken in the place of entries that are not here, on the word of those who speak for it. What a host
    /// brings may be what somebody made up with the keys of devices that are out: of those who are in, have the keys and
    /// came no later than this device, somebody has to have it too, if there is anybody but its maker.
    fn trusts(&self, from: DeviceId, head: &Head, said: &[SignedAttestation]) -> bool {
        let membership = &self.membership;
        if !ranges::is_vouched_for(membership, head, said) {
            return false;
        }
        let me = self.writer.device;
        let since = membership
            .devices()
            .get(&me)
            .map_or(u64::MAX, |me| me.admitted_ms);
        let mut older = membership.devices().iter().filter(|(id, device)| {
            let speaks = **id != me && **id != head.maker && **id != head.writer.device;
            speaks && device.role.holds_keys() && device.admitted_ms <= since
        });
        let has_it = |id: &DeviceId| said.iter().any(|said| said.value().device == *id);
        membership.role(&from) != Some(Role::Relay)
            || older.clone().next().is_none()
            || older.any(|(id, _)| has_it(id))
    }

    /// The stretch of this device's log that comes next, if it lies behind: another device of the vault has all of it. Where
    /// documents were purged it is what there is of the log, so that they are in it no longer than need be.
    fn next_stretch(&self, stretch: u64) -> Option<Stretch> {
        let (writer, looked_at) = (self.writer, self.looked_at(&self.writer));
        let whole = looked_at.saturating_add(stretch);
        let to = match self.clock.covers(&writer, whole) {
            true => whole,
            false => self.purged_at,
        };
        let is_next = to > looked_at + 1
            && self.membership.writing(&writer) == Writing::Open
            && self.lies_behind(&writer, to);
        is_next.then_some((writer, looked_at + 1, to))
    }

    /// The stretch that comes next of another log that this device keeps: of an earlier incarnation of its own, or a closed
    /// one whose keeper it is.
    fn next_kept(&self, stretch: u64) -> Option<Stretch> {
        let (membership, me) = (&self.membership, self.writer.device);
        self.clock.iter().find_map(|(writer, seq, _)| {
            let looked_at = self.looked_at(writer);
            let whole = looked_at.saturating_add(stretch);
            let to = match membership.writing(writer) {
                // It may be that of a copy of this data folder, which goes on: its end is not final.
                Writing::Open if writer.device == me && *writer != self.writer && whole <= seq => {
                    whole
                }
                Writing::Closed {
                    upto: Some((last, _)),
                    ..
                } if ranges::keepers(membership, &writer.device).first() == Some(&me) => {
                    last.min(seq).min(whole)
                }
                _ => return None,
            };
            let is_next = to > looked_at + 1 && self.lies_behind(writer, to);
            is_next.then_some((*writer, looked_at + 1, to))
        })
    }

    fn looked_at(&self, writer: &WriterId) -> u64 {
        self.looked_at.get(writer).copied().unwrap_or(0)
    }

    /// Whether another device of the vault with the keys has the entries up to this one, and ranges can be made.
    fn lies_behind(&self, writer: &WriterId, to: u64) -> bool {
        let holds_keys = |device| {
            let role = self.membership.role(device);
            role.is_some_and(Role::holds_keys)
        };
        self.ranges.len() < MAX_RANGES
            && self.doubtful.is_none()
            && self.sealing_epoch().is_some()
            && self
                .held
                .iter()
                .any(|(device, held)| held.entries.covers(writer, to) && holds_keys(device))
    }
}

impl Core {
    /// Looks at stretches of so many entries for ranges.
    pub fn set_stretch(&mut self, entries: u64) {
        self.stretch = entries;
    }

    /// Whether a range of a log that this device compacts is to be made, or it is to be looked for entries that may go: with
    /// [`Input::StateHeld`](super::Input::StateHeld), one after the other.
    pub fn owes_range(&self) -> bool {
        self.next_range().is_some() || self.state.heard_of_ranges && !self.state.ranges.is_empty()
    }

    /// The stretch that a range is made of next.
    fn next_range(&self) -> Option<Stretch> {
        let (state, stretch) = (&self.state, self.stretch);
        let own = state.next_stretch(stretch);
        own.or_else(|| state.next_kept(stretch))
    }

    /// By what others are told of all ranges that are here.
    pub(super) fn range_names(state: &State) -> impl Iterator<Item = RangeName> + '_ {
        state.ranges.values().map(Known::name)
    }
}

impl Work<'_, '_> {
    /// Makes the next range of a log that this device compacts, if it is time for one.
    pub(super) fn make_range(&mut self) -> Result<(), StoreError> {
        let Some((writer, from, to)) = self.core.next_range() else {
            return Ok(());
        };
        if let Some(has_room) = &self.core.has_room
            && !has_room(RANGE_TAKES)
        {
            return Ok(());
        }
        let mut looked_at = to;
        let there = self.core.state.range_among(writer, from, to);
        let there = there.map(|known| (known.head.from, known.head.to));
        if let Some((_, to)) = there.filter(|(there, _)| *there <= from + 1) {
            looked_at = to;
        } else {
            let to = there.map_or(to, |(there, _)| there - 1);
            looked_at = to.min(looked_at);
            if let Some(range) = self.range_within(writer, from, to)? {
                looked_at = range.head.to;
                self.keep_range(&range, Marks::default())?;
            }
        }
        self.ranges.look_at(writer, looked_at)?;
        self.core.state.looked_at.insert(writer, looked_at);
        self.done.wrote = true;
        Ok(())
    }

    /// A range of the first run of small entries among these, if it is smaller than they are.
    fn range_within(
        &mut self,
        writer: WriterId,
        from: u64,
        to: u64,
    ) -> Result<Option<Range>, StoreError> {
        let least = (to - from + 1).div_ceil(LEAST_PART).max(2);
        let (mut run, mut bytes) = (Vec::new(), 0);
        for seq in from..=to {
            let entry = self.logs.entry(writer, seq)?;
            match entry.filter(|entry| entry.len() <= SMALL) {
                Some(entry) => {
                    bytes += entry.len();
                    run.push(entry);
                }
                None if run.len() as u64 >= least => break,
                None => (run, bytes) = (Vec::new(), 0),
            }
        }
        if (run.len() as u64) < least {
            return Ok(None);
        }
        let Some(opened) = self.open_all(&run) else {
            tracing::warn!(
                "entries of this device's own log cannot be read: they are left as they are"
            );
            return Ok(None);
        };
        let changes = opened.iter().flat_map(|(_, body)| &body.changes);
        let purged = self.purged_among(changes.map(|change| (&*change.doctype, &*change.id)))?;
        let core = &mut *self.core;
        let key = core.state.sealing_epoch();
        let Some(epoch) = key.and_then(|epoch| core.state.keyring.epoch(&epoch)) else {
            return Ok(None);
        };
        let made = ranges::seal_longest(
            &core.identity.key,
            &opened,
            |name| purged.contains(name),
            naming,
            epoch,
            &mut *core.rng,
        );
        match made {
            // One that was cut short for its size counts against all of them: then there is little to gain anyway.
            Ok(range) => Ok(range.filter(|range| range.body.len() < bytes)),
            Err(error) => {
                tracing::warn!(%error, "a range could not be made");
                Ok(None)
            }
        }
    }

    /// Takes in a range that `from` sent, and what was said of it.
    pub(super) fn ingest_range(
        &mut self,
        from: DeviceId,
        bytes: &[u8],
        attestations: &[Vec<u8>],
        round: u32,
    ) -> Result<(), StoreError> {
        // As for entries: what was made here before closes first.
        self.close_entry()?;
        let range = match Range::decode(bytes) {
            Ok(range) => range,
            Err(error) => {
                tracing::warn!(%error, "a device sent a range that cannot be read");
                self.done.rejected.push((from, round, Rejection::Invalid));
                return self.unless_honest(from, forgery::is_forged_range(&error));
            }
        };
        if let Err(error) = range.verify(&self.core.state.vault) {
            tracing::warn!(%error, "a range does not verify");
            self.done.rejected.push((from, round, Rejection::Invalid));
            return self.unless_honest(from, forgery::is_forged_range(&error));
        }
        let head = &range.head;
        let state = &self.core.state;
        let known = state.ranges.get(&(head.writer, head.to));
        if known.is_some_and(|known| known.id == head.id()) {
            return self.ingest_attestations(attestations);
        }
        if head.space != state.keyring.space() || state.ranges.len() >= MAX_RANGES {
            return Ok(());
        }
        let said: Vec<SignedAttestation> = attestations
            .iter()
            .filter_map(|bytes| SignedAttestation::decode(bytes).ok())
            .filter(|said| said.value().is_of(head))
            .filter(|said| ranges::may_attest(&state.membership, &said.value().device))
            .collect();
        if state.range_among(head.writer, head.from, head.to).is_some() {
            tracing::debug!("a range overlaps another one and is left out");
            return Ok(());
        }
        if state.clock.covers(&head.writer, head.to) {
            return self.compare_range(&range, said);
        }
        if let Err(reason) = self.take_range(from, &range, &said)? {
            tracing::debug!(?reason, "a range was not taken in the place of entries");
            self.done.rejected.push((from, round, reason));
        }
        Ok(())
    }

    /// A range of entries that are here: it is kept if it holds what they do.
    fn compare_range(
        &mut self,
        range: &Range,
        said: Vec<SignedAttestation>,
    ) -> Result<(), StoreError> {
        let head = &range.head;
        let membership = &self.core.state.membership;
        let may_be =
            ranges::may_make(membership, head) || ranges::is_vouched_for(membership, head, &said);
        if !may_be || !self.holds_the_same(range)? {
            tracing::warn!(
                seq = head.to,
                "a range that is not what it should be is left out"
            );
            return Ok(());
        }
        self.keep_range(range, Marks::default())?;
        self.attest(head, true)?;
        for said in said {
            self.keep_said(said)?;
        }
        Ok(())
    }

    /// Whether a range holds what the entries hold that it stands for.
    fn holds_the_same(&self, range: &Range) -> Result<bool, StoreError> {
        let head = &range.head;
        let Some(held) = self.opened(range) else {
            return Ok(false);
        };
        let Some(entries) = self.stored(head.writer, head.from, head.to)? else {
            return Ok(false);
        };
        let ends = |place: Option<&(Header, Body)>, hash| {
            place.is_some_and(|(header, _)| hash == header.hash())
        };
        if entries.first().map(|(header, _)| header.prev) != Some(head.prev)
            || !ends(entries.last(), head.last)
        {
            return Ok(false);
        }
        let run = entries.iter().map(|(header, body)| (header, body));
        let Ok(whole) = Content::of(run, naming) else {
            return Ok(false);
        };
        // Who has not heard of a purge yet finds that something is missing, and looks again when it is named again.
        let kept = whole.parts().iter().filter_map(|part| match part {
            Part::Kept { doctype, id, .. } => Some((&**doctype, &**id)),
            Part::LeftOut { .. } => None,
        });
        let purged = self.purged_among(kept)?;
        Ok(held
            .compare(&whole, |name| purged.contains(name), naming)
            .is_ok())
    }

    /// Those of these documents that were purged, by the names that they have in ranges.
    fn purged_among<'a>(
        &self,
        documents: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<BTreeSet<Hash>, StoreError> {
        let mut purged = BTreeSet::new();
        for (doctype, id) in documents {
            let key = DocumentKey::new(doctype, id);
            if self.is_purged(key, doctype)? {
                purged.insert(Hash(key.0));
            }
        }
        Ok(purged)
    }

    /// What a range holds; `None` if it does not open.
    fn opened(&self, range: &Range) -> Option<Content> {
        let epoch = self.core.state.keyring.epoch(&range.head.epoch)?;
        match ranges::open_range(range, epoch, naming) {
            Ok(content) => Some(content),
            Err(error) => {
                tracing::warn!(%error, "a range cannot be opened");
                None
            }
        }
    }

    /// What the range in this place holds; `None` if it cannot be read.
    pub(super) fn kept_range(
        &self,
        writer: WriterId,
        to: u64,
    ) -> Result<Option<Content>, StoreError> {
        let bytes = self.ranges.range(writer, to)?;
        let range = bytes.and_then(|bytes| Range::decode(&bytes).ok());
        Ok(range.and_then(|range| self.opened(&range)))
    }

    /// These entries, opened; `None` where one is not here or does not open, or they are more than a range holds.
    fn stored(
        &self,
        writer: WriterId,
        from: u64,
        to: u64,
    ) -> Result<Option<Vec<(Header, Body)>>, StoreError> {
        let (mut opened, mut bytes) = (Vec::new(), 0);
        for seq in from..=to {
            let Some(entry) = self.logs.entry(writer, seq)? else {
                return Ok(None);
            };
            let Some(entry) = self.open_one(&entry) else {
                return Ok(None);
            };
            let changes = entry.1.changes.iter();
            bytes += changes.map(|change| change.bytes.len()).sum::<usize>();
            if bytes > RANGE_MAX_PLAIN_LEN {
                return Ok(None);
            }
            opened.push(entry);
        }
        Ok(Some(opened))
    }

    fn open_all(&self, entries: &[Vec<u8>]) -> Option<Vec<(Header, Body)>> {
        entries.iter().map(|entry| self.open_one(entry)).collect()
    }

    fn open_one(&self, bytes: &[u8]) -> Option<(Header, Body)> {
        let entry = Entry::decode(bytes).ok()?;
        let key = self.core.state.keyring.epoch(&entry.header.epoch)?;
        let body = log::open_entry(&entry, key).ok()?;
        Some((entry.header, body))
    }

    /// Takes a range in the place of entries that are not here: the log goes on after it.
    fn take_range(
        &mut self,
        from: DeviceId,
        range: &Range,
        said: &[SignedAttestation],
    ) -> Result<Result<(), Rejection>, StoreError> {
        let head = &range.head;
        let state = &self.core.state;
        let writing = state.membership.writing(&head.writer);
        if writing == Writing::Unknown {
            return Ok(Err(Rejection::UnknownWriter));
        }
        let (seq, last) = state.clock.get(&head.writer).unwrap_or((0, Hash::ZERO));
        let full = self.documents.waiting_len()? > super::remote::WAITING_MAX;
        if head.from > seq + 1 || full || !state.trusts(from, head, said) {
            return Ok(Err(Rejection::Gap));
        }
        if head.from == seq + 1 && head.prev != last {
            return Ok(Err(Rejection::Invalid));
        }
        let counts = match state.counts(&head.writer, head.to, head.last) {
            Ok(counts) => counts,
            Err(reason) => return Ok(Err(reason)),
        };
        if state.keyring.epoch(&head.epoch).is_none() {
            return Ok(Err(Rejection::UnknownWriter));
        }
        let Some(content) = self.opened(range) else {
            return Ok(Err(Rejection::Invalid));
        };
        let heads = content.said().iter();
        let known = |heads: &[Hash]| state.membership.knows(heads);
        if !heads.clone().all(|said| known(&said.heads)) {
            return Ok(Err(Rejection::UnknownWriter));
        }
        let says = matches!(writing, Writing::Closed { says_what_it_saw, .. } if says_what_it_saw);
        if !(counts || says && content.parts().is_empty()) {
            return Ok(Err(Rejection::NotYet));
        }
        if head.from <= seq && !self.goes_on(head, &content, seq)? {
            return Ok(Err(Rejection::Invalid));
        }
        for said in content.said().to_vec() {
            self.note_named(head.writer.device, &said.heads, &said.clock)?;
        }
        for change in content.into_changes() {
            self.ingest_change(head.writer, change)?;
        }
        self.logs.ends_at(head.writer, head.to, head.last)?;
        self.core
            .state
            .clock
            .observe(head.writer, head.to, head.last);
        self.forget_named(head.writer, head.to)?;
        if head.writer == self.core.state.writer {
            // As with entries of its own log that it does not have.
            self.begin_anew()?;
        }
        self.done
            .appended
            .push((Some(from), head.writer, head.to, head.last));
        let marks = Marks {
            alone: true,
            ..Marks::default()
        };
        self.keep_range(range, marks)?;
        self.attest(head, false)?;
        for said in said {
            self.keep_said(said.clone())?;
        }
        Ok(Ok(()))
    }

    /// Whether a range of which the first entries are here, up to `seq`, goes on from them: it has all that they have.
    fn goes_on(&self, head: &Head, content: &Content, seq: u64) -> Result<bool, StoreError> {
        let Some(entries) = self.stored(head.writer, head.from, seq)? else {
            return Ok(false);
        };
        if entries.first().map(|(header, _)| header.prev) != Some(head.prev) {
            return Ok(false);
        }
        let run = entries.iter().map(|(header, body)| (header, body));
        let Ok(begun) = Content::of(run, naming) else {
            return Ok(false);
        };
        Ok(content.begins_with(&begun, naming))
    }

    /// Keeps a range, of which nothing was said yet.
    fn keep_range(&mut self, range: &Range, marks: Marks) -> Result<(), StoreError> {
        let head = range.head.clone();
        if marks.alone {
            self.note_gaps()?;
        }
        self.ranges.forget_said(head.writer, head.to)?;
        self.ranges.put(&head, &range.encode(), marks)?;
        let place = (head.writer, head.to);
        let known = Known {
            id: head.id(),
            said: BTreeMap::new(),
            marks,
            head,
        };
        Arc::make_mut(&mut self.core.state.ranges).insert(place, known);
        self.core.state.heard_of_ranges = true;
        self.done.ranges.insert(place);
        self.done.wrote = true;
        Ok(())
    }

    /// From now on the database is none that a program could read which expects every entry.
    pub(super) fn note_gaps(&mut self) -> Result<(), StoreError> {
        let layout = tables::LAYOUT.to_be_bytes();
        self.meta.insert(tables::meta::LAYOUT, &layout[..])?;
        Ok(())
    }

    /// Says of a range that this device has it.
    fn attest(&mut self, head: &Head, compared: bool) -> Result<(), StoreError> {
        if !ranges::may_attest(&self.core.state.membership, &self.core.device()) {
            return Ok(());
        }
        match Attestation::sign(&self.core.identity.key, head, compared) {
            Ok(said) => self.keep_said(said),
            Err(error) => {
                tracing::warn!(%error, "a range could not be attested");
                Ok(())
            }
        }
    }

    /// Takes in what devices say of ranges that are here.
    pub(super) fn ingest_attestations(
        &mut self,
        attestations: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        for bytes in attestations {
            match SignedAttestation::decode(bytes) {
                Ok(said) => self.keep_said(said)?,
                Err(error) => tracing::warn!(%error, "what is said of a range cannot be read"),
            }
        }
        Ok(())
    }

    /// Keeps what a device says of a range that is here, if it is listened to and says more than before.
    fn keep_said(&mut self, said: SignedAttestation) -> Result<(), StoreError> {
        let value = said.value();
        let (place, device) = ((value.writer, value.to), value.device);
        let state = &mut self.core.state;
        let is_new = |known: &Known| {
            let before = known.said.get(&device);
            value.is_of(&known.head)
                && before.is_none_or(|before| value.compared && !before.value().compared)
        };
        if !state.ranges.get(&place).is_some_and(is_new)
            || !ranges::may_attest(&state.membership, &device)
        {
            return Ok(());
        }
        self.ranges.put_attestation(&said)?;
        state.heard_of_ranges = true;
        if let Some(known) = Arc::make_mut(&mut state.ranges).get_mut(&place) {
            known.said.insert(device, said);
            let vouched_for =
                ranges::is_vouched_for(&state.membership, &known.head, known.said.values());
            if vouched_for && !known.marks.vouched_for {
                known.marks.vouched_for = true;
                self.ranges.mark(&known.head, known.marks)?;
            }
        }
        self.done.ranges.insert(place);
        self.done.wrote = true;
        Ok(())
    }
}
