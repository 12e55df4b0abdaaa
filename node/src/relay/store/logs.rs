//! What becomes of an entry: the rule of every log, apart from where its entries are kept.

use std::collections::BTreeMap;

use coffer_protocol::identity::{Hash, WriterId};
use coffer_protocol::ranges::Head;

use super::{Appended, MAX_WRITERS, NewEntry, StoreError, Usage};

/// The ends of the logs that a batch touches, as it goes on.
pub struct Logs {
    /// Number and header hash of the last entry; `None` for a log that has not begun.
    ends: BTreeMap<WriterId, Option<(u64, Hash)>>,
    writers: usize,
    quota: u64,
    /// What the vault uses, with the entries that were stored.
    pub usage: Usage,
}

impl Logs {
    /// Logs of a vault that has `writers` of them.
    pub fn new(writers: usize, usage: Usage, quota: u64) -> Self {
        Logs {
            ends: BTreeMap::new(),
            writers,
            quota,
            usage,
        }
    }

    /// Whether the end of a log was given.
    pub fn knows(&self, writer: &WriterId) -> bool {
        self.ends.contains_key(writer)
    }

    /// Gives the end of a log. Each must be given before the log's first entry.
    pub fn set(&mut self, writer: WriterId, end: Option<(u64, Hash)>) {
        self.ends.insert(writer, end);
    }

    /// The ends as they are now, of logs that have begun.
    pub fn ends(&self) -> impl Iterator<Item = (&WriterId, u64, Hash)> {
        let begun = |(writer, end): (_, &Option<_>)| end.map(|(seq, header)| (writer, seq, header));
        self.ends.iter().filter_map(begun)
    }

    /// Decides about the next entry; one that is [`Appended::Stored`] counts for those that follow. `header_at` gives
    /// the hash of an entry of this log that is there: it has a number up to the log's end; `None` where a range stands in
    /// its place.
    pub fn next(
        &mut self,
        entry: &NewEntry,
        header_at: impl FnOnce(u64) -> Result<Option<Hash>, StoreError>,
    ) -> Result<Appended, StoreError> {
        let end = self.ends.get(&entry.writer).copied().flatten();
        let last = end.map_or(0, |(seq, _)| seq);
        if entry.seq == 0 || entry.seq > last.saturating_add(1) {
            return Ok(Appended::Gap { last });
        }
        if entry.seq <= last {
            return Ok(match header_at(entry.seq)? {
                Some(ours) if ours != entry.header => Appended::Forked {
                    seq: entry.seq,
                    ours,
                },
                // Where a range stands in its place, it cannot be told from another.
                _ => Appended::Had,
            });
        }
        match end {
            Some((seq, ours)) if ours != entry.prev => return Ok(Appended::Forked { seq, ours }),
            None if self.writers >= MAX_WRITERS => return Ok(Appended::TooManyWriters),
            _ => {}
        }
        if !self.usage.fits_entry(entry.bytes.len(), self.quota) {
            return Ok(Appended::Full);
        }
        self.usage.add_entry(entry.bytes.len());
        self.writers += usize::from(end.is_none());
        self.ends
            .insert(entry.writer, Some((entry.seq, entry.header)));
        Ok(Appended::Stored)
    }
}

/// Where a range comes to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is not taken.
    Refused(Appended),
    /// Beside the entries that it stands for: the log goes as far, or further.
    Beside,
    /// In the place of entries: the log goes on after it.
    After,
}

/// Decides where a range comes to lie in a log that ends at `end`. `others` are the ranges that overlap it, and whether they
/// are alone; `header_at` gives the hash of an entry that is there.
pub fn place_of(
    head: &Head,
    end: Option<(u64, Hash)>,
    others: impl IntoIterator<Item = bool>,
    mut header_at: impl FnMut(u64) -> Result<Option<Hash>, StoreError>,
) -> Result<Place, StoreError> {
    let (last, hash) = end.unwrap_or((0, Hash::ZERO));
    if head.from > last.saturating_add(1) {
        return Ok(Place::Refused(Appended::Gap { last }));
    }
    if others.into_iter().any(|alone| alone) {
        return Ok(Place::Refused(Appended::Had));
    }
    for (seq, named) in [(head.from - 1, head.prev), (head.to, head.last)] {
        let ours = match seq {
            0 => None,
            _ if seq == last => Some(hash),
            _ if seq > last => None,
            _ => header_at(seq)?,
        };
        if let Some(ours) = ours.filter(|ours| *ours != named) {
            return Ok(Place::Refused(Appended::Forked { seq, ours }));
        }
    }
    Ok(match head.to <= last {
        true => Place::Beside,
        false => Place::After,
    })
}

/// Whether two stretches have an entry in common.
pub fn overlap((from, to): (u64, u64), (other_from, other_to): (u64, u64)) -> bool {
    from <= other_to && other_from <= to
}
