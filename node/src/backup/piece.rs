//! One data file: a beginning, records one after the other, a list of them, and a seal over the list.
//!
//! ```text
//! beginning = "coffer backup 1\n" · vault[32] · number u32
//! record    = kind u8 · length u32 · bytes
//! list      = postcard of the rows, in the order of the records
//! end       = length of the list u32 · BLAKE3(beginning · list)[32] · "CBDEND1\n"
//! ```
//!
//! Every byte is vouched for: the beginning and the list by the seal, records by the hashes in the list, their kinds and
//! lengths by the list itself. Where the list is damaged the records are walked instead; what they are follows from them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use coffer_protocol::grants::SignedGrant;
use coffer_protocol::identity::{Hash, VaultId, WriterId};
use coffer_protocol::log::Entry;
use coffer_protocol::ranges::Range;
use coffer_protocol::replication::Message;
use coffer_protocol::signed::Verified;
use serde::{Deserialize, Serialize};

use super::run::Run;

const MAGIC: &[u8; 16] = b"coffer backup 1\n";
const MAGIC_NAME: &[u8; 14] = b"coffer backup ";
const END_MAGIC: &[u8; 8] = b"CBDEND1\n";
/// Bytes of the beginning.
pub(super) const BEGIN_LEN: u64 = 16 + 32 + 4;
const END_LEN: u64 = 4 + 32 + 8;
/// Bytes before each record's own.
pub(super) const RECORD_HEADER: u64 = 5;
/// Most bytes of a record: the longest blob and the longest entry have little over 4 MiB.
pub(super) const MAX_RECORD: usize = 8 << 20;
/// Records in a file, at most: the list stays below 8 MiB.
pub(super) const MAX_ROWS: usize = 65_536;
const MAX_LIST: u64 = MAX_ROWS as u64 * 128;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Key {
    /// A grant.
    Grant,
    /// An entry of a log.
    Entry {
        /// Whose.
        writer: WriterId,
        /// Its number.
        seq: u64,
        /// The hash of its header.
        header: Hash,
    },
    /// A sealed blob, named by the hash of its bytes.
    Blob,
    /// A [`Run`].
    Run {
        /// Its number.
        number: u64,
    },
    /// A range of a log, where its entries are gone, and what was said of it: a [`Message::Range`].
    Range {
        /// Whose.
        writer: WriterId,
        /// The first entry that it stands for.
        from: u64,
        /// The last.
        to: u64,
        /// The hash of the header of the last.
        last: Hash,
    },
}

impl Key {
    fn kind(&self) -> u8 {
        match self {
            Key::Grant => 1,
            Key::Entry { .. } => 2,
            Key::Blob => 3,
            Key::Run { .. } => 4,
            Key::Range { .. } => 5,
        }
    }

    /// What the bytes of a record of this kind are; `None` if they are not of that kind.
    fn of(kind: u8, bytes: &[u8]) -> Option<Key> {
        match kind {
            1 => SignedGrant::decode(bytes).ok().map(|_| Key::Grant),
            2 => {
                let entry = Entry::decode(bytes).ok()?;
                Some(Key::Entry {
                    writer: entry.header.writer,
                    seq: entry.header.seq,
                    header: entry.header_hash(),
                })
            }
            3 => Some(Key::Blob),
            4 => Verified::<Run>::decode(bytes).ok().map(|run| Key::Run {
                number: run.value().number,
            }),
            5 => {
                let Ok(Message::Range { range, .. }) = Message::decode(bytes) else {
                    return None;
                };
                let head = Range::decode(&range).ok()?.head;
                Some(Key::Range {
                    writer: head.writer,
                    from: head.from,
                    to: head.to,
                    last: head.last,
                })
            }
            _ => None,
        }
    }
}

/// A record, as the list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// What it is.
    pub key: Key,
    /// BLAKE3 of its bytes.
    pub hash: Hash,
    /// How many they are.
    pub len: u32,
}

impl Row {
    /// The row of some bytes.
    pub fn of(key: Key, bytes: &[u8]) -> Row {
        Row {
            key,
            hash: hash(bytes),
            len: bytes.len() as u32,
        }
    }

    /// What stands before the bytes.
    pub fn header(&self) -> [u8; RECORD_HEADER as usize] {
        let mut header = [0; RECORD_HEADER as usize];
        header[0] = self.key.kind();
        header[1..].copy_from_slice(&self.len.to_be_bytes());
        header
    }
}

/// BLAKE3 of bytes; of a blob, its name.
pub(super) fn hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// Its records, in order.
    pub rows: Vec<Row>,
    /// The seal; `None` where the list is damaged and the rows were found by walking.
    pub seal: Option<Hash>,
}

/// Why a file gives nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum PieceError {
    /// Not the beginning of a data file of this vault and number.
    #[error("it is no data file of this backup")]
    Foreign,
    /// Of a later program.
    #[error("it was made by a newer coffer")]
    Newer,
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The beginning of a file.
pub(super) fn beginning(vault: VaultId, number: u32) -> [u8; BEGIN_LEN as usize] {
    let mut begin = [0; BEGIN_LEN as usize];
    begin[..16].copy_from_slice(MAGIC);
    begin[16..48].copy_from_slice(&vault.0);
    begin[48..].copy_from_slice(&number.to_be_bytes());
    begin
}

/// List and end of a file, and its seal.
pub(super) fn ending(vault: VaultId, number: u32, rows: &[Row]) -> (Vec<u8>, Hash) {
    let mut bytes = coffer_protocol::codec::encode(rows);
    let seal = seal(&beginning(vault, number), &bytes);
    let len = bytes.len() as u32;
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&seal.0);
    bytes.extend_from_slice(END_MAGIC);
    (bytes, seal)
}

fn seal(begin: &[u8], list: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(begin).update(list);
    Hash(*hasher.finalize().as_bytes())
}

/// The vault that a data file is of, whichever that is.
pub(super) fn vault_of(file: &File) -> Result<VaultId, PieceError> {
    let mut begin = [0; BEGIN_LEN as usize];
    read_at(file, &mut begin, 0)?;
    if begin[..16] != MAGIC[..] {
        return Err(match begin.starts_with(MAGIC_NAME) {
            true => PieceError::Newer,
            false => PieceError::Foreign,
        });
    }
    let mut vault = [0; 32];
    vault.copy_from_slice(&begin[16..48]);
    Ok(VaultId(vault))
}

/// Reads what is in a file of `len` bytes.
pub(super) fn contents(
    file: &File,
    len: u64,
    vault: VaultId,
    number: u32,
) -> Result<Contents, PieceError> {
    let begin = beginning(vault, number);
    let mut found = begin;
    read_at(file, &mut found, 0)?;
    if let Some((rows, seal)) = listed(file, len, &found)? {
        return match found == begin {
            true => Ok(Contents {
                rows,
                seal: Some(seal),
            }),
            false => Err(PieceError::Foreign),
        };
    }
    if found[..16] != begin[..16] && found.starts_with(MAGIC_NAME) && found[15] == b'\n' {
        return Err(PieceError::Newer);
    }
    // One of the two is damaged. If what can be walked belongs here, it is used.
    Ok(Contents {
        rows: walked(file, len)?,
        seal: None,
    })
}

/// The list at the end of a file; `None` where it is damaged.
fn listed(file: &File, len: u64, begin: &[u8]) -> io::Result<Option<(Vec<Row>, Hash)>> {
    let Some(end_at) = len.checked_sub(END_LEN).filter(|at| *at >= BEGIN_LEN) else {
        return Ok(None);
    };
    let mut end = [0; END_LEN as usize];
    read_at(file, &mut end, end_at)?;
    let mut list_len = [0; 4];
    list_len.copy_from_slice(&end[..4]);
    let list_len = u64::from(u32::from_be_bytes(list_len));
    if end[36..] != END_MAGIC[..] || list_len > MAX_LIST || list_len > end_at - BEGIN_LEN {
        return Ok(None);
    }
    let mut list = vec![0; list_len as usize];
    read_at(file, &mut list, end_at - list_len)?;
    let seal = seal(begin, &list);
    if end[4..36] != seal.0 {
        return Ok(None);
    }
    let Ok(rows) = coffer_protocol::codec::decode::<Vec<Row>>(&list, MAX_LIST as usize) else {
        return Ok(None);
    };
    let all: u64 = rows
        .iter()
        .map(|row| RECORD_HEADER + u64::from(row.len))
        .sum();
    let fits = rows.len() <= MAX_ROWS
        && rows.iter().all(|row| row.len as usize <= MAX_RECORD)
        && BEGIN_LEN + all + list_len == end_at;
    Ok(fits.then_some((rows, seal)))
}

/// The records that follow one another from the beginning on, as far as they are what they say.
fn walked(file: &File, len: u64) -> io::Result<Vec<Row>> {
    let (mut rows, mut at) = (Vec::new(), BEGIN_LEN);
    let mut bytes = Vec::new();
    while rows.len() < MAX_ROWS && at + RECORD_HEADER <= len {
        let mut header = [0; RECORD_HEADER as usize];
        read_at(file, &mut header, at)?;
        let mut record_len = [0; 4];
        record_len.copy_from_slice(&header[1..]);
        let record_len = u32::from_be_bytes(record_len) as usize;
        if record_len > MAX_RECORD || at + RECORD_HEADER + record_len as u64 > len {
            break;
        }
        bytes.resize(record_len, 0);
        read_at(file, &mut bytes, at + RECORD_HEADER)?;
        let Some(key) = Key::of(header[0], &bytes) else {
            break;
        };
        rows.push(Row::of(key, &bytes));
        at += RECORD_HEADER + record_len as u64;
    }
    Ok(rows)
}

/// Reads the bytes of a record at `at`, which is where its header begins; false if they are not what was written.
pub(super) fn read_record(file: &File, at: u64, row: &Row, out: &mut Vec<u8>) -> io::Result<bool> {
    let before = out.len();
    let mut header = [0; RECORD_HEADER as usize];
    out.resize(before + row.len as usize, 0);
    let read = read_at(file, &mut header, at)
        .and_then(|()| read_at(file, &mut out[before..], at + RECORD_HEADER));
    let good = match read {
        Ok(()) => header == row.header() && hash(&out[before..]) == row.hash,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => {
            out.truncate(before);
            return Err(error);
        }
    };
    if !good {
        out.truncate(before);
    }
    Ok(good)
}

fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(into, at)
}
