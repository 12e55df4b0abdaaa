//! Logs at rest: entries under (writer, seq), and where each log ends.

use coffer_protocol::identity::{DeviceId, Hash, WriterId};
use coffer_protocol::log::Clock;
use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};

use super::{StoreError, pieces, tables};

/// The tables of logs within a write transaction.
pub struct LogTables<'t> {
    entries: Table<'t, &'static [u8; 46], &'static [u8]>,
    heads: Table<'t, &'static [u8; 36], &'static [u8; 40]>,
}

impl<'t> LogTables<'t> {
    /// Opens them; one transaction can hold them once.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(LogTables {
            entries: transaction.open_table(tables::ENTRIES)?,
            heads: transaction.open_table(tables::LOG_HEADS)?,
        })
    }

    /// Adds an entry whose place in its log the caller has checked.
    pub fn append(
        &mut self,
        writer: WriterId,
        seq: u64,
        header_hash: Hash,
        entry: &[u8],
    ) -> Result<(), StoreError> {
        pieces::write(&mut self.entries, &entry_key(writer, seq), entry)?;
        self.ends_at(writer, seq, header_hash)
    }

    /// The log goes on after this entry, which is not here itself: a range has it.
    pub fn ends_at(
        &mut self,
        writer: WriterId,
        seq: u64,
        header_hash: Hash,
    ) -> Result<(), StoreError> {
        let mut head = [0; 40];
        head[..8].copy_from_slice(&seq.to_be_bytes());
        head[8..].copy_from_slice(&header_hash.0);
        self.heads.insert(&writer_key(writer), &head)?;
        Ok(())
    }

    /// Removes an entry; the log ends where it did.
    pub fn remove(&mut self, writer: WriterId, seq: u64) -> Result<(), StoreError> {
        Ok(pieces::remove(&mut self.entries, &entry_key(writer, seq))?)
    }

    /// The bytes of one entry.
    pub fn entry(&self, writer: WriterId, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(pieces::read(&self.entries, &entry_key(writer, seq))?)
    }
}

/// Where every log ends.
pub fn read_clock(transaction: &ReadTransaction) -> Result<Clock, StoreError> {
    let mut clock = Clock::default();
    for item in transaction.open_table(tables::LOG_HEADS)?.iter()? {
        let (key, value) = item?;
        let (key, value) = (key.value(), value.value());
        let mut seq = [0; 8];
        seq.copy_from_slice(&value[..8]);
        let mut hash = [0; 32];
        hash.copy_from_slice(&value[8..]);
        clock.observe(writer_of(key), u64::from_be_bytes(seq), Hash(hash));
    }
    Ok(clock)
}

/// Entries `from..=to` of a log, in order, until `max_bytes` are gathered (one entry at least, where there is one).
pub fn read_entries(
    transaction: &ReadTransaction,
    writer: WriterId,
    from: u64,
    to: u64,
    max_bytes: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let table = transaction.open_table(tables::ENTRIES)?;
    let mut found = Vec::new();
    let mut bytes = 0;
    for seq in from..=to {
        let Some(entry) = pieces::read(&table, &entry_key(writer, seq))? else {
            break;
        };
        bytes += entry.len();
        if bytes > max_bytes && !found.is_empty() {
            break;
        }
        found.push(entry);
    }
    Ok(found)
}

fn entry_key(writer: WriterId, seq: u64) -> [u8; 46] {
    let mut key = [0; 46];
    key[..36].copy_from_slice(&writer_key(writer));
    key[36..44].copy_from_slice(&seq.to_be_bytes());
    key
}

pub(super) fn writer_key(writer: WriterId) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&writer.device.0);
    key[32..].copy_from_slice(&writer.incarnation.to_be_bytes());
    key
}

pub(super) fn writer_of(key: &[u8; 36]) -> WriterId {
    let (mut device, mut incarnation) = ([0; 32], [0; 4]);
    device.copy_from_slice(&key[..32]);
    incarnation.copy_from_slice(&key[32..]);
    WriterId {
        device: DeviceId(device),
        incarnation: u32::from_be_bytes(incarnation),
    }
}
