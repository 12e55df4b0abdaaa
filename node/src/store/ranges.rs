//! Ranges at rest, and what was said of them; and what goes out in answer to a peer that lacks part of a log: entries, or a
//! range in their place.

use std::collections::BTreeMap;

use coffer_protocol::identity::{DeviceId, WriterId};
use coffer_protocol::ranges::{Head, Range, SignedAttestation};
use coffer_protocol::replication::{Message, RangeName};
use redb::{ReadTransaction, ReadableTable, Table, TableError, WriteTransaction};

use super::{StoreError, logs, pieces, tables};

/// Marks of a range, in the first byte of its row of [`tables::RANGE_HEADS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Enough was said of it for those who never had the entries: it is sent in their place.
    pub vouched_for: bool,
    /// The entries that it stands for are gone.
    pub alone: bool,
}

impl Marks {
    fn byte(self) -> u8 {
        u8::from(self.vouched_for) | u8::from(self.alone) << 1
    }

    fn of(byte: u8) -> Marks {
        Marks {
            vouched_for: byte & 1 != 0,
            alone: byte & 2 != 0,
        }
    }
}

/// The tables of ranges within a write transaction.
pub struct RangeTables<'t> {
    heads: Table<'t, &'static [u8; 44], &'static [u8]>,
    ranges: Table<'t, &'static [u8; 46], &'static [u8]>,
    attestations: Table<'t, &'static [u8; 76], &'static [u8]>,
    looked_at: Table<'t, &'static [u8; 36], u64>,
}

impl<'t> RangeTables<'t> {
    /// Opens them; one transaction can hold them once.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(RangeTables {
            heads: transaction.open_table(tables::RANGE_HEADS)?,
            ranges: transaction.open_table(tables::RANGES)?,
            attestations: transaction.open_table(tables::ATTESTATIONS)?,
            looked_at: transaction.open_table(tables::LOOKED_AT)?,
        })
    }

    /// Keeps a range in its place.
    pub fn put(&mut self, head: &Head, bytes: &[u8], marks: Marks) -> Result<(), StoreError> {
        let key = range_key(head.writer, head.to);
        pieces::remove(&mut self.ranges, &key)?;
        pieces::write(&mut self.ranges, &key, bytes)?;
        self.mark(head, marks)
    }

    /// Marks a range that is here.
    pub fn mark(&mut self, head: &Head, marks: Marks) -> Result<(), StoreError> {
        let mut row = vec![marks.byte()];
        row.extend(coffer_protocol::codec::encode(head));
        self.heads
            .insert(&head_key(head.writer, head.to), &row[..])?;
        Ok(())
    }

    /// The bytes of a range.
    pub fn range(&self, writer: WriterId, to: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(pieces::read(&self.ranges, &range_key(writer, to))?)
    }

    /// Keeps what one device says of the range in this place.
    pub fn put_attestation(&mut self, attestation: &SignedAttestation) -> Result<(), StoreError> {
        let said = attestation.value();
        let mut key = [0; 76];
        key[..44].copy_from_slice(&head_key(said.writer, said.to));
        key[44..].copy_from_slice(&said.device.0);
        self.attestations.insert(&key, attestation.bytes())?;
        Ok(())
    }

    /// Forgets what was said of the range in this place.
    pub fn forget_said(&mut self, writer: WriterId, to: u64) -> Result<(), StoreError> {
        let (first, last) = around(writer, to);
        self.attestations
            .retain_in::<&[u8; 76], _>(&first..=&last, |_, _| false)?;
        Ok(())
    }

    /// Up to which entry of a log ranges were made, or it was found that none is to be.
    pub fn look_at(&mut self, writer: WriterId, seq: u64) -> Result<(), StoreError> {
        self.looked_at.insert(&logs::writer_key(writer), &seq)?;
        Ok(())
    }
}

/// A range that is kept.
pub struct Kept {
    /// Its head.
    pub head: Head,
    /// What is marked of it.
    pub marks: Marks,
    /// What was said of it.
    pub said: Vec<SignedAttestation>,
}

/// All ranges that are kept, without their bodies.
pub fn read_kept(read: &ReadTransaction) -> Result<Vec<Kept>, StoreError> {
    let Some(heads) = open(read.open_table(tables::RANGE_HEADS))? else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::new();
    for item in heads.iter()? {
        let (key, value) = item?;
        let (marks, head) = decode_row(value.value())?;
        debug_assert_eq!(*key.value(), head_key(head.writer, head.to));
        let mut said = Vec::new();
        for bytes in read_said(read, head.writer, head.to)? {
            let attestation = SignedAttestation::decode(&bytes).map_err(|_| {
                StoreError::Damaged("what was said of a range cannot be read".into())
            })?;
            said.push(attestation);
        }
        kept.push(Kept { head, marks, said });
    }
    Ok(kept)
}

/// The range that stands for this entry, or else the next one of the log; without what was said of it.
pub fn read_at(
    read: &ReadTransaction,
    writer: WriterId,
    seq: u64,
) -> Result<Option<Kept>, StoreError> {
    let found = range_at(read, writer, seq)?;
    Ok(found.map(|(marks, head)| Kept {
        head,
        marks,
        said: Vec::new(),
    }))
}

/// The bytes of a range.
pub fn read_range(
    read: &ReadTransaction,
    writer: WriterId,
    to: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    match open(read.open_table(tables::RANGES))? {
        Some(table) => Ok(pieces::read(&table, &range_key(writer, to))?),
        None => Ok(None),
    }
}

/// Up to which entries of logs ranges were made.
pub fn read_looked_at(read: &ReadTransaction) -> Result<BTreeMap<WriterId, u64>, StoreError> {
    let Some(table) = open(read.open_table(tables::LOOKED_AT))? else {
        return Ok(BTreeMap::new());
    };
    table
        .iter()?
        .map(|item| {
            let (key, seq) = item?;
            Ok((logs::writer_of(key.value()), seq.value()))
        })
        .collect()
}

/// A range and what was said of it, for a peer that asked; `None` if it is not here any more.
pub fn range_message(
    read: &ReadTransaction,
    writer: WriterId,
    to: u64,
) -> Result<Option<Message>, StoreError> {
    let Some(range) = read_range(read, writer, to)? else {
        return Ok(None);
    };
    let attestations = read_said(read, writer, to)?;
    Ok(Some(Message::Range {
        range,
        attestations,
    }))
}

/// What was said of a range, for a peer that asked; `None` if nothing was.
pub fn said_message(
    read: &ReadTransaction,
    name: &RangeName,
) -> Result<Option<Message>, StoreError> {
    let said = read_said(read, name.writer, name.to)?;
    Ok((!said.is_empty()).then_some(Message::Attestations(said)))
}

/// What goes out to a peer that lacks a part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The message; `None` where the peer does not know ranges, and the entries are gone.
    pub message: Option<Message>,
    /// The last entry that it brings.
    pub last: u64,
}

/// What goes out first to a peer that lacks the entries `from..=to` of a log, and may know ranges: `max_bytes` of entries,
/// one at least, or a range. `None` if nothing is here.
pub fn read_run(
    read: &ReadTransaction,
    writer: WriterId,
    (from, to): (u64, u64),
    knows_ranges: bool,
    max_bytes: usize,
) -> Result<Option<Run>, StoreError> {
    let next = range_at(read, writer, from)?;
    let next = next.as_ref().map(|(marks, head)| (head, *marks));
    match what_goes_out(next, (from, to), knows_ranges) {
        Goes::Range { last } => Ok(range_message(read, writer, last)?.map(|message| Run {
            message: Some(message),
            last,
        })),
        Goes::Nothing { last } => Ok(Some(Run {
            message: None,
            last,
        })),
        Goes::Entries { upto } => {
            let entries = logs::read_entries(read, writer, from, upto, max_bytes)?;
            Ok((!entries.is_empty()).then(|| Run {
                last: from + entries.len() as u64 - 1,
                message: Some(Message::Entries(entries)),
            }))
        }
    }
}

/// What goes out first to a peer that lacks a part of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// Entries, up to this one at most.
    Entries {
        /// The last.
        upto: u64,
    },
    /// The range that ends with this entry.
    Range {
        /// The last entry that it stands for.
        last: u64,
    },
    /// The entries up to this one are gone, and the peer knows no ranges.
    Nothing {
        /// The last that is gone.
        last: u64,
    },
}

/// The choice, for a peer that lacks `from..=to`. `next` is the range that stands for the first of them, or else the next one
/// of the log, if there is any.
pub fn what_goes_out(
    next: Option<(&Head, Marks)>,
    (from, to): (u64, u64),
    knows_ranges: bool,
) -> Goes {
    let Some((head, marks)) = next else {
        return Goes::Entries { upto: to };
    };
    let (last, instead) = (head.to, marks.vouched_for && head.from == from);
    match head.from > from {
        true => Goes::Entries {
            upto: to.min(head.from - 1),
        },
        false if knows_ranges && (marks.alone || instead && last <= to) => Goes::Range { last },
        false if marks.alone => Goes::Nothing { last },
        false => Goes::Entries { upto: to.min(last) },
    }
}

/// The range that stands for this entry, or else the next one of the log.
fn range_at(
    read: &ReadTransaction,
    writer: WriterId,
    seq: u64,
) -> Result<Option<(Marks, Head)>, StoreError> {
    let Some(heads) = open(read.open_table(tables::RANGE_HEADS))? else {
        return Ok(None);
    };
    let (first, last) = (head_key(writer, seq), head_key(writer, u64::MAX));
    match heads.range::<&[u8; 44]>(&first..=&last)?.next() {
        Some(item) => decode_row(item?.1.value()).map(Some),
        None => Ok(None),
    }
}

fn read_said(
    read: &ReadTransaction,
    writer: WriterId,
    to: u64,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let Some(table) = open(read.open_table(tables::ATTESTATIONS))? else {
        return Ok(Vec::new());
    };
    let (first, last) = around(writer, to);
    table
        .range::<&[u8; 76]>(&first..=&last)?
        .map(|item| Ok(item?.1.value().to_vec()))
        .collect()
}

fn decode_row(row: &[u8]) -> Result<(Marks, Head), StoreError> {
    let damaged = || StoreError::Damaged("the head of a range cannot be read".into());
    let (marks, head) = row.split_first().ok_or_else(damaged)?;
    let head = Range::decode_head(head).map_err(|_| damaged())?;
    Ok((Marks::of(*marks), head))
}

/// A table that a program which knew no ranges did not make is empty.
fn open<T>(table: Result<T, TableError>) -> Result<Option<T>, StoreError> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn head_key(writer: WriterId, to: u64) -> [u8; 44] {
    let mut key = [0; 44];
    key[..36].copy_from_slice(&logs::writer_key(writer));
    key[36..].copy_from_slice(&to.to_be_bytes());
    key
}

fn range_key(writer: WriterId, to: u64) -> [u8; 46] {
    let mut key = [0; 46];
    key[..44].copy_from_slice(&head_key(writer, to));
    key
}

/// The first and the last key of what is said of a range.
fn around(writer: WriterId, to: u64) -> ([u8; 76], [u8; 76]) {
    let (mut first, mut last) = ([0; 76], [0xff; 76]);
    for key in [&mut first, &mut last] {
        key[..44].copy_from_slice(&head_key(writer, to));
    }
    last[44..].copy_from_slice(&DeviceId([0xff; 32]).0);
    (first, last)
}
