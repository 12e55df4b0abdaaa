//! What counts of the logs of those who may not write any more: what devices of the vault had taken in before they heard.
//!
//! Whoever learns that a log is closed, and has more of it than the grant that closes it says, first says so in an entry of
//! its own, before the grant counts here: so what anybody has taken in stays everywhere, and nothing is ever taken back.
//! What others' entries name, and is not here yet, is kept with what their authors had heard: which grants close a log can
//! change when more of them come, and what counts must be the same for all who have the same. The rules are in
//! docs/protocol/grants.md.

use std::collections::BTreeMap;

use coffer_protocol::grants::{Membership, Writing};
use coffer_protocol::identity::{DeviceId, Hash, WriterId};
use coffer_protocol::log::{Body, CLOCK_MAX_WRITERS, Clock};
use coffer_protocol::replication::Rejection;
use redb::{ReadTransaction, ReadableTable};
use serde::{Deserialize, Serialize};

use super::state::State;
use super::work::Work;
use crate::store::{StoreError, tables};

/// Entries of one log that are kept as named, at most. They differ in what their authors had heard of who is in; of two who
/// had heard the same, one is enough.
const NAMED_MAX: usize = 8;

/// An entry that another one names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its number in its log.
    pub seq: u64,
    /// The hash of its header.
    pub header: Hash,
    /// What the author of the entry that names it knew: the heads of its grants.
    pub heads: Vec<Hash>,
    /// Whether that shows that the entry counts where its log is closed: by who is in as of now.
    #[serde(skip)]
    pub shows: bool,
}

/// All that is named and not here.
pub type AllNamed = BTreeMap<WriterId, Vec<Named>>;

impl State {
    /// Whether an entry counts, as far as is known here.
    pub(super) fn counts(
        &self,
        writer: &WriterId,
        seq: u64,
        header: Hash,
    ) -> Result<bool, Rejection> {
        let upto = match self.membership.writing(writer) {
            Writing::Open => return Ok(true),
            Writing::Unknown => return Ok(false),
            Writing::Closed { upto, .. } => upto,
        };
        let named = self.named.get(writer).into_iter().flatten();
        let named = named.filter(|named| named.shows);
        let mut ends: Vec<(u64, Hash)> = named.map(|named| (named.seq, named.header)).collect();
        ends.extend(upto);
        if let Some((_, ours)) = ends
            .iter()
            .find(|(end, ours)| *end == seq && *ours != header)
        {
            // Another history of this log than the one that counts.
            return Err(Rejection::Forked {
                writer: *writer,
                seq,
                ours: *ours,
                theirs: header,
            });
        }
        Ok(ends.iter().any(|(end, _)| seq <= *end))
    }

    /// Judges anew what others name, by who is in now.
    pub(super) fn judge_named(&mut self) {
        let membership = &self.membership;
        for (writer, named) in &mut self.named {
            let is_open = membership.writing(writer) == Writing::Open;
            for named in named {
                named.shows = is_open || !membership.has_heard(&named.heads, &writer.device);
            }
        }
    }

    /// Whether entries of others are here that a grant leaves out which closes their log, as of `after` and not before.
    fn saw_more(&self, before: &Membership, after: &Membership) -> bool {
        let mut closers: BTreeMap<DeviceId, Vec<BTreeMap<WriterId, u64>>> = BTreeMap::new();
        self.clock.iter().any(|(writer, seq, _)| {
            let device = writer.device;
            if device == self.writer.device || after.writing(writer) == Writing::Open {
                return false;
            }
            let new = closers.entry(device).or_insert_with(|| {
                let was_open = before.writing(writer) == Writing::Open;
                let had = before.closers(&device);
                let new = after.closers(&device).into_iter();
                let new = new.filter(|(act, _)| was_open || !had.contains_key(act));
                new.map(|(_, cutoffs)| cutoffs.iter().map(|end| (end.writer, end.seq)).collect())
                    .collect()
            });
            new.iter()
                .any(|ends| ends.get(writer).is_none_or(|end| *end < seq))
        })
    }
}

impl Work<'_, '_> {
    /// Grants close a log of which more is here than they say: writes an entry that shows it, as of before.
    pub(super) fn say_what_was_seen(
        &mut self,
        before: &Membership,
        after: &Membership,
    ) -> Result<(), StoreError> {
        let state = &self.core.state;
        // Also who is out says so: it may come back, and then all must have what it has.
        if !state.saw_more(before, after) {
            return Ok(());
        }
        let epoch = state.keyring.current().id();
        self.seal(Body::default(), state.sealing_epoch().unwrap_or(epoch))
    }

    /// An entry that counts names entries of others in its clock: those count, too, where their log is closed and its
    /// author had not heard.
    pub(super) fn note_named(
        &mut self,
        author: DeviceId,
        heads: &[Hash],
        clock: &Clock,
    ) -> Result<(), StoreError> {
        for (writer, seq, hash) in clock.iter() {
            let state = &mut self.core.state;
            if writer.device == author || state.clock.covers(writer, seq) {
                continue;
            }
            let writing = state.membership.writing(writer);
            if writing == Writing::Unknown
                || state.named.len() >= CLOCK_MAX_WRITERS && !state.named.contains_key(writer)
            {
                continue;
            }
            let known = state.named.get(writer).map_or(&[][..], Vec::as_slice);
            if known
                .iter()
                .any(|known| known.seq >= seq && known.heads == heads)
            {
                continue;
            }
            let is_open = writing == Writing::Open;
            let shows = is_open || !state.membership.has_heard(heads, &writer.device);
            if shows && !is_open {
                self.done.more_counts = true;
            }
            let mut kept: Vec<Named> = known.to_vec();
            kept.retain(|known| known.heads != heads);
            if kept.len() == NAMED_MAX {
                // Whoever names the least is of the least use.
                let least = (0..kept.len()).min_by_key(|at| kept[*at].seq).unwrap_or(0);
                kept.remove(least);
            }
            kept.push(Named {
                seq,
                header: hash,
                heads: heads.to_vec(),
                shows,
            });
            self.keep_named(*writer, kept)?;
        }
        Ok(())
    }

    /// A log is here as far as this.
    pub(super) fn forget_named(&mut self, writer: WriterId, seq: u64) -> Result<(), StoreError> {
        let Some(known) = self.core.state.named.get(&writer) else {
            return Ok(());
        };
        if known.iter().all(|known| known.seq > seq) {
            return Ok(());
        }
        let rest = known.iter().filter(|known| known.seq > seq).cloned();
        let rest = rest.collect();
        self.keep_named(writer, rest)
    }

    fn keep_named(&mut self, writer: WriterId, kept: Vec<Named>) -> Result<(), StoreError> {
        let key = named_key(&writer);
        if kept.is_empty() {
            self.core.state.named.remove(&writer);
            self.named.remove(&key)?;
            return Ok(());
        }
        let bytes = postcard::to_stdvec(&kept)
            .map_err(|_| StoreError::Damaged("what is named could not be encoded".into()))?;
        self.named.insert(&key, &bytes[..])?;
        self.core.state.named.insert(writer, kept);
        Ok(())
    }
}

fn named_key(writer: &WriterId) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&writer.device.0);
    key[32..].copy_from_slice(&writer.incarnation.to_be_bytes());
    key
}

/// Reads [`tables::NAMED`].
pub(super) fn read_named(read: &ReadTransaction) -> Result<AllNamed, StoreError> {
    let mut all = BTreeMap::new();
    let table = match read.open_table(tables::NAMED) {
        Ok(table) => table,
        // Made by a program that knew no closed logs: there are none.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(all),
        Err(error) => return Err(error.into()),
    };
    for item in table.iter()? {
        let (key, value) = item?;
        let (mut device, mut incarnation) = ([0; 32], [0; 4]);
        device.copy_from_slice(&key.value()[..32]);
        incarnation.copy_from_slice(&key.value()[32..]);
        let writer = WriterId {
            device: DeviceId(device),
            incarnation: u32::from_be_bytes(incarnation),
        };
        let named = postcard::from_bytes(value.value())
            .map_err(|_| StoreError::Damaged("what is named cannot be read".into()))?;
        all.insert(writer, named);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table `named_1`.
    #[test]
    fn what_is_named_is_encoded_as_it_always_was() {
        let named = vec![Named {
            seq: 300,
            header: Hash([1; 32]),
            heads: vec![Hash([2; 32])],
            shows: false,
        }];
        let bytes = postcard::to_stdvec(&named).unwrap();
        let expected = format!("01ac02{}01{}", "01".repeat(32), "02".repeat(32));
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(postcard::from_bytes::<Vec<Named>>(&bytes).unwrap(), named);
    }
}
