//! Which contents the vault keeps, and of which blobs they are made: present ones, in the trash or not, and the earlier
//! ones that the rule keeps.

use std::collections::BTreeSet;

use coffer_crdt::files::{Content, FileId};
use coffer_protocol::identity::Hash;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::super::store_error;
use crate::blobs::Blobs;
use crate::collect::kept;
use crate::control::ControlError;
use crate::store::{StoreError, tables};
use crate::vault::{file_state, rule, wall_ms};

/// A content that is kept.
pub(super) struct Named<'a> {
    /// Whose.
    pub file: FileId,
    /// What it is.
    pub content: &'a Content,
    /// Whether it is the one that the file holds.
    pub is_present: bool,
}

/// Shows every content that is kept, file by file, until `see` fails. `purged` are not kept. Blocking.
pub(super) fn each_content(
    database: &Database,
    purged: &BTreeSet<FileId>,
    mut see: impl FnMut(Named<'_>) -> Result<(), ControlError>,
) -> Result<(), ControlError> {
    let failed = |error: StoreError| store_error(error);
    let read = database
        .begin_read()
        .map_err(|error| failed(error.into()))?;
    let (rule, _) = rule::read(&read).map_err(failed)?;
    let files = read
        .open_table(tables::FILES)
        .map_err(|error| failed(error.into()))?;
    let now_ms = wall_ms();
    for item in files.iter().map_err(|error| failed(error.into()))? {
        let key = *item.map_err(|error| failed(error.into()))?.0.value();
        let mut id = FileId([0; 16]);
        id.0.copy_from_slice(&key[..16]);
        if key[16..] != [0, 0] || purged.contains(&id) {
            continue;
        }
        let Some(state) = file_state(&read, id).map_err(failed)? else {
            continue;
        };
        let earlier = kept(&read, id, state.content.as_ref(), &rule, now_ms).map_err(failed)?;
        let present = state.content.iter().map(|content| (content, true));
        for (content, is_present) in present.chain(earlier.iter().map(|content| (content, false))) {
            // A link has no bytes.
            if content.target.is_none() {
                see(Named {
                    file: id,
                    content,
                    is_present,
                })?;
            }
        }
    }
    Ok(())
}

/// The blobs of a content, and whether these are all: of one whose lists never came here some are not known.
pub(super) fn blobs_of(blobs: &Blobs, content: &Content) -> (Vec<Hash>, bool) {
    let mut names = Vec::new();
    let known = blobs.names_of(&content.root, |blob| names.push(*blob));
    (names, known.unwrap_or(false))
}
