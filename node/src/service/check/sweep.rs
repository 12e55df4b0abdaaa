//! Going through everything, a step at a time.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::{DeviceId, Hash, VaultId, WriterId};
use coffer_protocol::log::{Clock, Entry};
use coffer_protocol::ranges::Range;
use redb::{Database, ReadableDatabase, ReadableTableMetadata};
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;

use super::super::running::{Running, blobs_error, commit_error};
use super::super::store_error;
use super::Flaw;
use crate::blobs::{AtRest, Placement};
use crate::control::{ControlError, DamageKind};
use crate::index::{self, Index};
use crate::store::documents::{DocumentKey, read_document, read_row};
use crate::store::ranges::{self, Kept};
use crate::store::{StoreError, logs, tables};
use crate::vault::{FolderRow, VaultHandle};

/// Bytes of contents in one step: some tenths of a second of a slow disk.
const STEP_BYTES: u64 = 16 << 20;

/// Documents in one step.
const STEP_DOCUMENTS: usize = 512;

/// Bytes of records in one step.
const STEP_RECORDS: usize = 4 << 20;

/// Where a sweep is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cursor {
    /// Nothing was looked at.
    #[default]
    Begin,
    /// Contents up to this blob were.
    Contents([u8; 32]),
    /// All contents, and documents up to this key.
    Documents(Option<[u8; 32]>),
    /// All documents, and the log of (device, incarnation) up to this number.
    Records(Option<([u8; 32], u32, u64)>),
}

/// What a sweep has seen and found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub pieces: u64,
    pub bytes: u64,
    pub in_use: u64,
    pub documents: u64,
    pub records: u64,
    /// Damaged places of contents.
    pub places: Vec<(Hash, Placement)>,
    /// Documents that cannot be read.
    pub unreadable: BTreeSet<(String, String)>,
    /// Documents of which the index has something else.
    pub stale: BTreeSet<(String, String)>,
    /// What nothing more can be done about.
    pub flaws: Vec<Flaw>,
}

impl Found {
    /// How many things were looked at.
    pub fn things(&self) -> u64 {
        self.pieces + self.in_use + self.documents + self.records
    }
}

/// How many things a whole sweep looks at, about.
pub(super) fn size(running: &Running) -> Result<u64, ControlError> {
    let places = running.blobs.count().map_err(blobs_error)?;
    let rows = || -> Result<u64, StoreError> {
        let read = running.vault.database().begin_read()?;
        Ok(read.open_table(tables::DOCUMENTS)?.len()? + read.open_table(tables::ENTRIES)?.len()?)
    };
    Ok(places + rows().map_err(store_error)?)
}

/// One step from `cursor` on; false at the end.
pub(super) async fn step(
    running: &Arc<Running>,
    cursor: &mut Cursor,
    found: &mut Found,
) -> Result<bool, ControlError> {
    *cursor = match cursor {
        Cursor::Begin => contents(running, None, found).await?,
        Cursor::Contents(after) => contents(running, Some(Hash(*after)), found).await?,
        Cursor::Documents(after) => documents(running, *after, found).await?,
        Cursor::Records(after) => match records(running, *after, found).await? {
            Some(next) => next,
            None => return Ok(false),
        },
    };
    Ok(true)
}

async fn contents(
    running: &Arc<Running>,
    after: Option<Hash>,
    found: &mut Found,
) -> Result<Cursor, ControlError> {
    let seen = running.blobs.verify(after, STEP_BYTES, at_rest(running));
    let mut seen = seen.await.map_err(blobs_error)?;
    found.pieces += seen.places;
    found.bytes += seen.bytes;
    found.in_use += seen.in_use;
    found.places.append(&mut seen.damaged);
    Ok(match seen.last {
        Some(blob) => Cursor::Contents(blob.0),
        None => Cursor::Documents(None),
    })
}

/// Whether a file of a synced folder looks as when it was last read.
fn at_rest(running: &Arc<Running>) -> AtRest {
    let (vault, paths) = (running.vault.clone(), running.paths.clone());
    Arc::new(move |root, file| looks_as_read(&vault, &paths, root, file).unwrap_or(false))
}

fn looks_as_read(
    vault: &VaultHandle,
    paths: &crate::folder::Folders,
    root: u32,
    file: &[u8; 16],
) -> Option<bool> {
    use crate::blobs::FolderPaths;
    let row: FolderRow = vault.folder_row(root, FileId(*file)).ok()??;
    let meta = paths.file(root, file)?.symlink_metadata().ok()?;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Some(
        row.inode == meta.ino()
            && row.size == meta.size()
            && row.mtime_ns == nanos(meta.mtime(), meta.mtime_nsec())
            && row.ctime_ns == nanos(meta.ctime(), meta.ctime_nsec()),
    )
}

async fn documents(
    running: &Arc<Running>,
    after: Option<[u8; 32]>,
    found: &mut Found,
) -> Result<Cursor, ControlError> {
    let now = running.vault.inspect(|core| core.state().transaction);
    let now = now.await.map_err(commit_error)?;
    let (database, index) = (running.vault.database().clone(), running.index.clone());
    let compare = index.seen() >= now;
    let looked = tokio::task::spawn_blocking(move || {
        look_at_documents(&database, compare.then_some(&index), after)
    });
    let looked = looked
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(store_error)?;
    found.documents += looked.count;
    found.unreadable.extend(looked.unreadable);
    found.stale.extend(looked.stale);
    found.flaws.extend(looked.nameless.iter().map(|key| {
        Flaw::new(
            DamageKind::Document,
            hex::encode(key),
            "its row cannot be read, and so not even its name is known",
        )
    }));
    Ok(match looked.last {
        Some(last) => Cursor::Documents(Some(last)),
        None => Cursor::Records(None),
    })
}

#[derive(Default)]
struct Looked {
    count: u64,
    last: Option<[u8; 32]>,
    unreadable: Vec<(String, String)>,
    stale: Vec<(String, String)>,
    nameless: Vec<[u8; 32]>,
}

fn look_at_documents(
    database: &Database,
    index: Option<&Index>,
    after: Option<[u8; 32]>,
) -> Result<Looked, StoreError> {
    let read = database.begin_read()?;
    let table = read.open_table(tables::DOCUMENTS)?;
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut looked = Looked::default();
    let mut keys = Vec::with_capacity(STEP_DOCUMENTS);
    for item in table
        .range::<&[u8; 32]>((from, Bound::Unbounded))?
        .take(STEP_DOCUMENTS)
    {
        keys.push(*item?.0.value());
    }
    for key in &keys {
        looked.count += 1;
        let document = DocumentKey(*key);
        let row = match read_row(&read, document) {
            Ok(Some(row)) => row,
            Ok(None) => continue,
            Err(StoreError::Damaged(_)) => {
                looked.nameless.push(*key);
                continue;
            }
            Err(error) => return Err(error),
        };
        let name = (row.doctype.clone(), row.id.clone());
        if row.changes == 0 {
            continue;
        }
        // What a library makes of damaged bytes must not end the check.
        let loaded = std::panic::catch_unwind(AssertUnwindSafe(|| {
            read_document(&read, document, &row).map(drop)?;
            match row.deleted {
                true => Ok(None),
                false => index::json(&read, document, &row),
            }
        }));
        let value = match loaded {
            Ok(Ok(value)) => value.map(|value| value.to_string()),
            Ok(Err(StoreError::Damaged(_))) | Err(_) => {
                looked.unreadable.push(name);
                continue;
            }
            Ok(Err(error)) => return Err(error),
        };
        if let Some(index) = index
            && index
                .value(&name.0, &name.1)
                .is_ok_and(|known| known != value)
        {
            looked.stale.push(name);
        }
    }
    looked.last = (keys.len() == STEP_DOCUMENTS).then(|| keys[STEP_DOCUMENTS - 1]);
    Ok(looked)
}

async fn records(
    running: &Arc<Running>,
    after: Option<([u8; 32], u32, u64)>,
    found: &mut Found,
) -> Result<Option<Cursor>, ControlError> {
    let known = running.vault.inspect(move |core| {
        let state = core.state();
        let (writer, from, head) = next_log(&state.clock, after)?;
        let name = state
            .membership
            .device_name(&writer.device, &state.keyring)
            .unwrap_or_else(|| writer.device.to_string());
        Some((state.vault, name, writer, from, head))
    });
    let Some((vault, device, writer, from, head)) = known.await.map_err(commit_error)? else {
        return Ok(None);
    };
    let database = running.vault.database().clone();
    let looked =
        tokio::task::spawn_blocking(move || look_at_log(&database, &vault, writer, from, head));
    let (last, count, damaged) = looked
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(store_error)?;
    found.records += count;
    found.flaws.extend(damaged.into_iter().map(|seq| {
        Flaw::new(
            DamageKind::Record,
            format!("change {seq} of device {device}"),
            "its record cannot be read any more; what it changed was checked by itself",
        )
    }));
    Ok(Some(Cursor::Records(Some((
        writer.device.0,
        writer.incarnation,
        last,
    )))))
}

/// The log to go on with, the number to begin at, and the log's last number and hash.
fn next_log(
    clock: &Clock,
    after: Option<([u8; 32], u32, u64)>,
) -> Option<(WriterId, u64, (u64, Hash))> {
    let mut logs: Vec<(WriterId, u64, Hash)> = clock
        .iter()
        .map(|(writer, seq, hash)| (*writer, seq, hash))
        .collect();
    logs.sort_unstable_by_key(|(writer, ..)| (writer.device.0, writer.incarnation));
    logs.into_iter().find_map(|(writer, seq, hash)| {
        let from = match after {
            None => 1,
            Some((device, incarnation, last)) => {
                let here = (writer.device, writer.incarnation);
                match here.cmp(&(DeviceId(device), incarnation)) {
                    std::cmp::Ordering::Less => return None,
                    std::cmp::Ordering::Equal => last + 1,
                    std::cmp::Ordering::Greater => 1,
                }
            }
        };
        (from <= seq).then_some((writer, from, (seq, hash)))
    })
}

/// Checks records from `from` on: that they can be read, are signed, and follow each other. Gives the last that was
/// looked at, how many were, and the numbers of damaged ones.
fn look_at_log(
    database: &Database,
    vault: &VaultId,
    writer: WriterId,
    from: u64,
    (seq_of_head, head_hash): (u64, Hash),
) -> Result<(u64, u64, Vec<u64>), StoreError> {
    let read = database.begin_read()?;
    let mut damaged = Vec::new();
    let one = |seq| -> Result<Option<Entry>, StoreError> {
        let bytes = logs::read_entries(&read, writer, seq, seq, usize::MAX)?;
        Ok(bytes.first().and_then(|bytes| Entry::decode(bytes).ok()))
    };
    let stands_for = |seq| -> Result<Option<Kept>, StoreError> {
        let next = ranges::read_at(&read, writer, seq)?;
        Ok(next.filter(|kept| kept.marks.alone && kept.head.from <= seq))
    };
    // Where the one before cannot be read, this one's place cannot be checked; the one before is reported itself.
    let mut previous = match from {
        0 | 1 => Some(Hash::ZERO),
        from => match stands_for(from - 1)? {
            Some(before) => Some(before.head.last),
            None => one(from - 1)?.map(|entry| entry.header_hash()),
        },
    };
    if let Some(kept) = stands_for(from)? {
        let Kept { head, .. } = kept;
        let whole = ranges::read_range(&read, writer, head.to)?;
        let whole = whole.and_then(|bytes| Range::decode(&bytes).ok());
        let is_good = whole.is_some_and(|range| {
            range.head == head
                && range.verify(vault).is_ok()
                && (head.from != from || previous.is_none_or(|hash| head.prev == hash))
                && (head.to != seq_of_head || head.last == head_hash)
        });
        let damaged = if is_good { Vec::new() } else { vec![head.from] };
        return Ok((head.to, 1, damaged));
    }
    let entries = logs::read_entries(&read, writer, from, seq_of_head, STEP_RECORDS)?;
    if entries.is_empty() {
        return Ok((from, 1, vec![from]));
    }
    let (mut seq, count) = (from - 1, entries.len() as u64);
    for bytes in entries {
        seq += 1;
        let entry = Entry::decode(&bytes).ok().filter(|entry| {
            entry.header.writer == writer
                && entry.header.seq == seq
                && previous.is_none_or(|hash| entry.header.prev == hash)
                && entry.verify(vault).is_ok()
                && (seq != seq_of_head || entry.header_hash() == head_hash)
        });
        previous = entry.map(|entry| entry.header_hash());
        if previous.is_none() {
            damaged.push(seq);
        }
    }
    Ok((seq, count, damaged))
}
