//! What other devices' messages bring: grants, entries, statements.
//!
//! Everything here is foreign input. It is refused by writer (the rest of a refused log waits until it is asked for
//! again), counted in the log, and never an error of the batch: only the store's own failure is.

use coffer_crdt::change::{self, ChangeHash};
use coffer_crdt::document::{Applied, Document};
use coffer_crdt::files;
use coffer_protocol::grants::{Role, SignedGrant, Writing};
use coffer_protocol::identity::{DeviceId, Hash, WriterId};
use coffer_protocol::log::{self, Change, DOCTYPE_MAX_LEN, Entry, ID_MAX_LEN};
use coffer_protocol::replication::Rejection;
use std::collections::BTreeSet;

use super::purging;
use super::state;
use super::work::{FILES, Work, file_id};
use crate::hosts::forgery;
use crate::store::StoreError;
use crate::store::documents::{DocumentKey, Row, Waiting};

/// Pieces of changes that may wait for others, at most, over all documents: beyond that entries are left with those who
/// have them, and asked for again, until what is waited for has come.
pub(super) const WAITING_MAX: u64 = 1 << 20;

impl Work<'_, '_> {
    /// Takes in entries that `from` sent, in the order given.
    pub fn ingest(
        &mut self,
        from: DeviceId,
        entries: &[Vec<u8>],
        round: u32,
    ) -> Result<(), StoreError> {
        // What was made here before closes first: its clock must not cover what it had not seen.
        self.close_entry()?;
        let mut refused: BTreeSet<WriterId> = BTreeSet::new();
        let mut was_put_back = false;
        for bytes in entries {
            let entry = match Entry::decode(bytes) {
                Ok(entry) => entry,
                Err(error) => {
                    tracing::warn!(%error, "a device sent an entry that cannot be read");
                    self.done.rejected.push((from, round, Rejection::Invalid));
                    return self.unless_honest(from, forgery::is_forged_entry(&error));
                }
            };
            let writer = entry.header.writer;
            if refused.contains(&writer) || self.core.state.clock.covers(&writer, entry.header.seq)
            {
                continue;
            }
            match self.ingest_entry(from, &entry, bytes)? {
                Ok(()) => {
                    was_put_back |= writer == self.core.state.writer;
                    self.done.appended.push((
                        Some(from),
                        writer,
                        entry.header.seq,
                        entry.header_hash(),
                    ));
                }
                Err(reason) => {
                    tracing::warn!(?reason, seq = entry.header.seq, "an entry was refused");
                    refused.insert(writer);
                    self.done.rejected.push((from, round, reason));
                }
            }
        }
        if was_put_back {
            self.begin_anew()?;
        }
        Ok(())
    }

    fn ingest_entry(
        &mut self,
        from: DeviceId,
        entry: &Entry,
        bytes: &[u8],
    ) -> Result<Result<(), Rejection>, StoreError> {
        let header = &entry.header;
        let state = &self.core.state;
        let writing = state.membership.writing(&header.writer);
        if writing == Writing::Unknown || header.space != state.keyring.space() {
            return Ok(Err(Rejection::UnknownWriter));
        }
        // The signature first: what an unsigned header says of its place means nothing.
        if let Err(error) = entry.verify(&state.vault) {
            tracing::warn!(%error, "an entry does not verify");
            self.unless_honest(from, forgery::is_forged_entry(&error))?;
            return Ok(Err(Rejection::Invalid));
        }
        if !state.membership.knows(&header.grant_heads) {
            return Ok(Err(Rejection::UnknownWriter));
        }
        let (seq, previous) = state.clock.get(&header.writer).unwrap_or((0, Hash::ZERO));
        if header.seq != seq + 1 || header.prev != previous {
            return Ok(Err(if header.seq > seq + 1 {
                Rejection::Gap
            } else {
                Rejection::Invalid
            }));
        }
        if self.documents.waiting_len()? > WAITING_MAX {
            return Ok(Err(Rejection::Gap));
        }
        let hash = entry.header_hash();
        let counts = match state.counts(&header.writer, header.seq, hash) {
            Ok(counts) => counts,
            Err(reason) => return Ok(Err(reason)),
        };
        let says_what_it_saw = matches!(
            writing,
            Writing::Closed {
                says_what_it_saw: true,
                ..
            }
        );
        if !counts && !says_what_it_saw {
            return Ok(Err(Rejection::NotYet));
        }
        let Some(key) = state.keyring.epoch(&header.epoch) else {
            return Ok(Err(Rejection::UnknownWriter));
        };
        let body = match log::open_entry(entry, key) {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(%error, "an entry cannot be opened");
                return Ok(Err(Rejection::Invalid));
            }
        };
        if !counts && !body.changes.is_empty() {
            return Ok(Err(Rejection::NotYet));
        }
        self.note_named(header.writer.device, &header.grant_heads, &body.clock)?;
        for change in body.changes {
            self.ingest_change(header.writer, change)?;
        }
        self.logs.append(header.writer, header.seq, hash, bytes)?;
        self.core
            .state
            .clock
            .observe(header.writer, header.seq, hash);
        self.forget_named(header.writer, header.seq)?;
        self.done.wrote = true;
        Ok(Ok(()))
    }

    /// Applies one change, or keeps it until what it builds on is here. A change that no correct program makes is left
    /// out: its author signed it, so the log goes on without it on every device alike.
    pub(super) fn ingest_change(
        &mut self,
        writer: WriterId,
        change: Change,
    ) -> Result<(), StoreError> {
        let inspected = match change.doctype == FILES {
            true => files::inspect_first(&change.bytes),
            false => change::inspect(&change.bytes).map(|info| (info, None)),
        };
        let (info, state) = match inspected {
            Ok((info, state)) if info.actor == writer.actor() => (info, state),
            Ok(_) => {
                tracing::warn!("a change names another author than its entry and is left out");
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(%error, "a change cannot be read and is left out");
                return Ok(());
            }
        };
        if change.doctype.is_empty()
            || change.id.is_empty()
            || change.doctype.len() > DOCTYPE_MAX_LEN
            || change.id.len() > ID_MAX_LEN
        {
            tracing::warn!("a change names no possible document and is left out");
            return Ok(());
        }
        let key = DocumentKey::new(&change.doctype, &change.id);
        if self.is_purged(key, &change.doctype)? {
            return Ok(());
        }
        let purges = (change.doctype == purging::DOCTYPE).then(|| change.id.clone());
        let row = self.documents.row(key)?;
        let waiting = Waiting {
            doctype: change.doctype,
            id: change.id,
            bytes: change.bytes,
        };
        match row {
            None if info.deps.is_empty() && info.message.is_none() => {
                let row = Row::new(&waiting.doctype, &waiting.id);
                self.append(key, row, &waiting.bytes, None)?;
                if let Some(id) = file_id(&waiting.doctype, &waiting.id) {
                    match state {
                        Some(state) => self.set_file(id, state, false)?,
                        None => self.derive(key)?,
                    }
                }
                self.apply_waiting(key, info.hash)?;
            }
            row => {
                let row = row.unwrap_or_else(|| Row::new(&waiting.doctype, &waiting.id));
                self.apply_loaded(key, row, info.hash, waiting)?;
            }
        }
        match purges {
            Some(id) => self.obey_purge(&id),
            None => Ok(()),
        }
    }

    fn apply_loaded(
        &mut self,
        key: DocumentKey,
        row: Row,
        hash: ChangeHash,
        waiting: Waiting,
    ) -> Result<(), StoreError> {
        if self.apply_or_wait(key, row, hash, &waiting)? {
            self.apply_waiting(key, hash)?;
        }
        Ok(())
    }

    /// Applies a change, or keeps it until one that it misses is here. Says whether it is part of the document now and
    /// was not before.
    fn apply_or_wait(
        &mut self,
        key: DocumentKey,
        row: Row,
        hash: ChangeHash,
        waiting: &Waiting,
    ) -> Result<bool, StoreError> {
        let known = row.changes > 0;
        let mut document = if known {
            self.load(key, &row)?
        } else {
            Document::empty()
        };
        let outcome = document.apply(&waiting.bytes);
        if let Ok(Applied::Done) = outcome {
            let row = self.append(key, row, &waiting.bytes, Some(&mut document))?;
            self.settle(key, row, document)?;
            return Ok(true);
        }
        if known {
            self.keep(key, document);
        }
        match outcome {
            Ok(Applied::Missing(missing)) => {
                if let Some(first) = missing.first() {
                    self.documents.wait(key, *first, hash, waiting)?;
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "a change cannot be applied and is left out");
            }
        }
        Ok(false)
    }

    /// Applies what waited for a change that has just become part of its document, and what waited for that in turn.
    fn apply_waiting(&mut self, key: DocumentKey, arrived: ChangeHash) -> Result<(), StoreError> {
        let mut arrivals = vec![arrived];
        while let Some(arrived) = arrivals.pop() {
            for (hash, waiting) in self.documents.take_waiting(key, arrived)? {
                let Some(row) = self.documents.row(key)? else {
                    return Ok(());
                };
                if self.apply_or_wait(key, row, hash, &waiting)? {
                    arrivals.push(hash);
                }
            }
        }
        Ok(())
    }

    /// Settles what derives from a document that is loaded and up to date.
    pub(super) fn settle(
        &mut self,
        key: DocumentKey,
        row: Row,
        document: Document,
    ) -> Result<(), StoreError> {
        let row = self.mark_deleted(key, row, document.is_deleted())?;
        if let Some(id) = file_id(&row.doctype, &row.id) {
            match files::read(&document) {
                Ok(state) => {
                    self.take_past(id, &document, &state)?;
                    self.set_file(id, state, false)?;
                }
                Err(error) => tracing::warn!(%error, "a file's document cannot be read as one"),
            }
        }
        self.keep(key, document);
        Ok(())
    }

    fn derive(&mut self, key: DocumentKey) -> Result<(), StoreError> {
        let Some(row) = self.documents.row(key)? else {
            return Ok(());
        };
        let document = self.load(key, &row)?;
        self.settle(key, row, document)
    }

    /// Takes in grants.
    pub fn ingest_grants(&mut self, from: DeviceId, grants: &[Vec<u8>]) -> Result<(), StoreError> {
        for bytes in grants {
            let taken = match SignedGrant::decode(bytes) {
                Ok(grant) => self.take_grant(grant)?,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = taken {
                tracing::warn!(%from, %error, "a grant was refused");
                self.unless_honest(from, forgery::is_forged_grant(&error))?;
                break;
            }
        }
        self.settle_epochs()
    }

    /// Takes in a statement of what the device `of` holds.
    pub fn ingest_held(
        &mut self,
        from: DeviceId,
        of: DeviceId,
        statement: &[u8],
    ) -> Result<(), StoreError> {
        let state = &self.core.state;
        if state.membership.role(&of) == Some(Role::Relay) {
            return self.ingest_host(from, of, statement);
        }
        let held = match state::open_held(statement, &state.vault, &state.keyring) {
            // What a device says that may come back is kept; whoever relies on statements asks who is in.
            Ok(held)
                if state.membership.is_member(&held.device)
                    || state.membership.former().contains_key(&held.device) =>
            {
                held
            }
            Ok(_) => return Ok(()),
            Err(error) => {
                tracing::debug!(%error, "a statement was not taken");
                return self.unless_honest(from, forgery::is_forged_held(&error));
            }
        };
        let device = held.device;
        if device == self.core.identity.key.id() {
            // One's own statement comes back: after a restored disk its counter may be ahead, and the next must pass it.
            if let Some((own, _)) = &mut self.core.state.own_held
                && own.counter < held.counter
            {
                own.counter = held.counter;
                // Others believe that one now.
                self.core.state.restate |= own.entries != held.entries;
                // What it promised others then is not known here: it announces anew before it relies on anybody.
                self.core.state.announced = false;
            }
            return Ok(());
        }
        if self
            .core
            .state
            .held
            .get(&device)
            .is_some_and(|known| known.counter >= held.counter)
        {
            return Ok(());
        }
        self.write_held(device, statement)?;
        self.core.state.held.insert(device, held);
        self.done.held_changed = true;
        self.done
            .others_held
            .push((device, statement.to_vec(), from));
        Ok(())
    }
}
