//! Which contents a host is to be asked about next, read from the vault a lot at a time.
//!
//! No transaction stays open while a lot is brought: that may take hours, and the database could reuse nothing meanwhile.

use coffer_crdt::files::{FileId, FileState};
use coffer_protocol::identity::{DeviceId, Hash};
use redb::{ReadableDatabase, ReadableTable};

use crate::blobs::{Blobs, BlobsError};
use crate::collect::kept;
use crate::hosts::ContentKey;
use crate::hosts::lot::{Content, Lacks, Lot};
use crate::store::{StoreError, pieces, tables};
use crate::vault::hosts::Confirmed;
use crate::vault::{VaultHandle, rule, wall_ms};

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Contents to ask about.
    pub lot: Lot,
    /// Where to go on; `None` at the end.
    pub after: Option<FileId>,
    /// What the host lacks for all that is known here: this device does not know what it is made of, as it never had the
    /// lists.
    pub unknown: Lacks,
}

/// Why it could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The vault cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A list of chunks cannot be read.
    #[error(transparent)]
    Blobs(#[from] BlobsError),
}

/// Which files are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// These, ascending.
    Files(Vec<FileId>),
}

/// Reads on after the file `after`: contents that `host` has not confirmed, or with `again` every one. Of each is said
/// which of the `others` have confirmed it. Blocking.
pub fn next(
    vault: &VaultHandle,
    blobs: &Blobs,
    (host, others): (DeviceId, &[DeviceId]),
    scope: &Scope,
    after: Option<FileId>,
    again: bool,
) -> Result<Read, GatherError> {
    let purged = vault.tree().purged_ids();
    let read = vault.database().begin_read().map_err(StoreError::from)?;
    let (rule, _) = rule::read(&read)?;
    let confirmed = Confirmed::new(&read, host)?;
    let others = others
        .iter()
        .map(|other| Ok((*other, Confirmed::new(&read, *other)?)));
    let others = others.collect::<Result<Vec<_>, StoreError>>()?;
    let files = read.open_table(tables::FILES).map_err(StoreError::from)?;
    let mut found = Read::default();
    let now_ms = wall_ms();
    let mut look = |id: FileId| -> Result<bool, GatherError> {
        if purged.contains(&id) {
            return Ok(false);
        }
        let Some(state) = file_state(&files, id)? else {
            return Ok(false);
        };
        let earlier = kept(&read, id, state.content.as_ref(), &rule, now_ms)?;
        let present = state.content.iter().map(|content| (content, true));
        let earlier = earlier.iter().map(|content| (content, false));
        for (content, is_present) in present.chain(earlier) {
            let key = ContentKey::of(&content.root);
            let is_confirmed = confirmed.has(&key)?;
            if is_confirmed && !again {
                continue;
            }
            let earlier = !is_present || vault.tree().shown(id).is_none_or(|shown| shown.trashed);
            let mut names: Vec<Hash> = Vec::new();
            match blobs.names_of(&content.root, |blob| names.push(*blob)) {
                Ok(true) => found.lot.add(Content {
                    key,
                    file: id,
                    earlier,
                    elsewhere: confirmed_by(&others, &key)?,
                    bytes: content.size,
                    confirmed: is_confirmed,
                    blobs: names,
                }),
                // A list that is not here, or damaged: this device can neither bring nor confirm it.
                Ok(false) | Err(_) if is_confirmed => {}
                Ok(false) | Err(_) if earlier => {
                    let list = content.root.list().chunks.first();
                    let blob = Hash(list.map_or([0; 32], |chunk| chunk.blob));
                    found.unknown.may_be_nowhere.insert(id, blob);
                }
                Ok(false) | Err(_) => {
                    found.unknown.contents.0 += 1;
                    found.unknown.contents.1 += content.size;
                }
            }
        }
        if found.lot.is_full() {
            found.after = Some(id);
        }
        Ok(found.lot.is_full())
    };
    match scope {
        Scope::Files(ids) => {
            for id in ids
                .iter()
                .filter(|id| after.is_none_or(|after| **id > after))
            {
                if look(*id)? {
                    break;
                }
            }
        }
        Scope::All => {
            let mut from = [0; 18];
            if let Some(after) = after {
                from[..16].copy_from_slice(&after.0);
                from[16..].copy_from_slice(&[0xff; 2]);
            }
            for item in files
                .range::<&[u8; 18]>(&from..)
                .map_err(StoreError::from)?
            {
                let key = *item.map_err(StoreError::from)?.0.value();
                if key[16..] == [0, 0] && look(id_of(&key))? {
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// Keys of all contents that are named now, ascending. Blocking.
pub fn named_keys(vault: &VaultHandle) -> Result<Vec<ContentKey>, GatherError> {
    let purged = vault.tree().purged_ids();
    let read = vault.database().begin_read().map_err(StoreError::from)?;
    let (rule, _) = rule::read(&read)?;
    let files = read.open_table(tables::FILES).map_err(StoreError::from)?;
    let (mut keys, now_ms) = (Vec::new(), wall_ms());
    for item in files.iter().map_err(StoreError::from)? {
        let key = *item.map_err(StoreError::from)?.0.value();
        let id = id_of(&key);
        if key[16..] != [0, 0] || purged.contains(&id) {
            continue;
        }
        let present = file_state(&files, id)?.and_then(|state| state.content);
        let earlier = kept(&read, id, present.as_ref(), &rule, now_ms)?;
        let contents = present.iter().chain(&earlier);
        keys.extend(contents.map(|content| ContentKey::of(&content.root)));
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Which of these hosts have confirmed a content.
fn confirmed_by(
    hosts: &[(DeviceId, Confirmed)],
    key: &ContentKey,
) -> Result<Vec<DeviceId>, StoreError> {
    let mut by = Vec::new();
    for (host, confirmed) in hosts {
        if confirmed.has(key)? {
            by.push(*host);
        }
    }
    Ok(by)
}

fn id_of(key: &[u8; 18]) -> FileId {
    let mut id = FileId([0; 16]);
    id.0.copy_from_slice(&key[..16]);
    id
}

pub(super) fn file_state(
    files: &redb::ReadOnlyTable<&'static [u8; 18], &'static [u8]>,
    id: FileId,
) -> Result<Option<FileState>, StoreError> {
    let mut key = [0; 18];
    key[..16].copy_from_slice(&id.0);
    pieces::read(files, &key)?
        .map(|bytes| {
            FileState::from_record(&bytes)
                .map_err(|_| StoreError::Damaged("the state of a file cannot be read".into()))
        })
        .transpose()
}
