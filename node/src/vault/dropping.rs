//! Entries go once a range stands for them on every device that counts, and another device has compared it.
//!
//! The rule is [`may_replace`]; what this device knows of the others is what they stated last. Hosts hold no keys and say
//! nothing of ranges: what one of them lacks of a log is kept until it has it, so that a host which knows no ranges is
//! served as ever.

use std::sync::Arc;

use coffer_protocol::grants::Role;
use coffer_protocol::ranges::{Head, SignedAttestation, may_replace};
use coffer_protocol::relay::freeing::{COUNTS_FOR_MS, Member};

use super::ranges::Known;
use super::state::State;
use super::work::Work;
use crate::store::StoreError;

/// Ranges whose entries go in one transaction, at most: of each some thousand.
const AT_ONCE: usize = 4;

impl State {
    /// The devices of the vault, and when each was last heard of. One that has never been counts: that errs towards
    /// keeping.
    fn heard(&self, now_ms: u64) -> Vec<Member> {
        let devices = self.membership.devices().iter();
        devices
            .map(|(id, device)| Member {
                device: *id,
                role: device.role,
                heard_ms: self.held.get(id).map_or(now_ms, |held| held.at_ms),
            })
            .collect()
    }

    /// Whether every host that was heard of lately has what a range stands for.
    fn hosts_have(&self, head: &Head, now_ms: u64) -> bool {
        let devices = self.membership.devices().iter();
        let mut hosts = devices.filter(|(_, device)| device.role == Role::Relay);
        hosts.all(|(host, device)| {
            let said = self.hosts.get(host).and_then(|memory| {
                let furthest = memory.record.furthest.as_ref()?;
                Some(furthest.value())
            });
            let heard_ms = said.map_or(device.admitted_ms, |said| said.at_ms);
            now_ms.saturating_sub(heard_ms) >= COUNTS_FOR_MS
                || said.is_some_and(|said| said.entries.covers(&head.writer, head.to))
        })
    }

    /// Whether the entries may go for which a range stands.
    fn may_go(&self, known: &Known, heard: &[Member], now_ms: u64) -> bool {
        let said: Vec<SignedAttestation> = known.said.values().cloned().collect();
        !known.marks.alone
            && may_replace(&known.head, &said, heard, now_ms)
            && self.hosts_have(&known.head, now_ms)
    }
}

impl Work<'_, '_> {
    /// Drops the entries that may go, if anything was heard of ranges, or of who is in the vault, since it was last looked.
    pub(super) fn drop_entries(&mut self) -> Result<(), StoreError> {
        let state = &mut self.core.state;
        if !std::mem::take(&mut state.heard_of_ranges) {
            return Ok(());
        }
        let heard = state.heard(self.now_ms);
        let ranges = state.ranges.clone();
        let may_go = |known: &&Known| state.may_go(known, &heard, self.now_ms);
        let due: Vec<&Known> = ranges.values().filter(may_go).take(AT_ONCE).collect();
        state.heard_of_ranges = due.len() == AT_ONCE;
        for known in due {
            self.drop_entries_of(&known.head)?;
        }
        Ok(())
    }

    fn drop_entries_of(&mut self, head: &Head) -> Result<(), StoreError> {
        for seq in head.from..=head.to {
            self.logs.remove(head.writer, seq)?;
        }
        self.note_gaps()?;
        let ranges = Arc::make_mut(&mut self.core.state.ranges);
        if let Some(known) = ranges.get_mut(&(head.writer, head.to)) {
            known.marks.alone = true;
            self.ranges.mark(head, known.marks)?;
        }
        self.done.wrote = true;
        Ok(())
    }
}
