//! Files of which little is needed: packs of the store that are mostly empty, and former contents of synced files that
//! differ little from one another.
//!
//! What is needed of them is written into new packs. The old ones are nobody's then, and go with a later run: who is
//! reading them has time to end.
//!
//! Of a large file that is edited again and again, a synced folder moves aside a whole file each time. The first of them
//! stays; of each later one only what is not in an earlier one is left. A synced file itself is not relied on for this: a
//! program may write over it at any moment.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use coffer_protocol::identity::Hash;
use redb::{ReadableDatabase, ReadableTable};

use super::survey::{RUN_MAX, Survey};
use super::{CollectError, blocking};
use crate::blobs::placement::{Placement, decode_places};
use crate::blobs::{Blobs, Leaving};
use crate::folder::place;
use crate::store::{StoreError, tables};
use crate::vault::{CommitRequest, VaultHandle};

/// Packs that one run rewrites: each is at most half full, so this reads and writes some 50 MB.
const PACKS: usize = 32;
/// Bytes of files moved aside that one run looks at, at most, or one file.
const ASIDE_BYTES: u64 = 512 << 20;
/// Shorter files moved aside are left as they are, in bytes.
const SHORTEST_ASIDE: u64 = 1 << 20;
/// Blobs that leave places in one transaction.
const BATCH: usize = 4096;

/// What is to be rewritten.
#[derive(Default)]
struct Sparse {
    packs: HashSet<[u8; 32]>,
    aside: HashSet<(u32, [u8; 24])>,
}

impl Sparse {
    fn has(&self, place: &Placement) -> bool {
        match place {
            Placement::Pack { pack, .. } => self.packs.contains(pack),
            Placement::Kept { root, name, .. } => self.aside.contains(&(*root, *name)),
            Placement::Store | Placement::File { .. } => false,
        }
    }
}

/// Rewrites them, some in one run. Says whether there is more of this to do.
pub async fn rewrite(
    vault: &VaultHandle,
    blobs: &Blobs,
    survey: &Survey,
    folders: &[(u32, PathBuf)],
) -> Result<bool, CollectError> {
    let (sparse, mut more) = find(blobs, survey, folders);
    if sparse.packs.is_empty() && sparse.aside.is_empty() {
        return Ok(false);
    }
    let database = vault.database().clone();
    let leaving = blocking(move || {
        let read = database.begin_read().map_err(StoreError::from)?;
        let table = read
            .open_table(tables::PLACEMENT)
            .map_err(StoreError::from)?;
        let mut leaving = Vec::new();
        for item in table.iter().map_err(StoreError::from)? {
            let (key, value) = item.map_err(StoreError::from)?;
            let places = decode_places(value.value()).unwrap_or_default();
            let (from, mut others): (Vec<_>, Vec<_>) =
                places.into_iter().partition(|place| sparse.has(place));
            others.retain(|place| !matches!(place, Placement::File { .. }));
            if !from.is_empty() {
                if leaving.len() == RUN_MAX {
                    return Ok((leaving, true));
                }
                leaving.push(Leaving {
                    blob: Hash(*key.value()),
                    from,
                    others,
                });
            }
        }
        Ok((leaving, false))
    });
    let (leaving, is_cut) = leaving.await?;
    more |= is_cut;
    for batch in leaving.chunks(BATCH) {
        let repacked = blobs.repack(batch.to_vec()).await?;
        let request = CommitRequest {
            placements: repacked.placed,
            displaced: repacked.displaced,
            holds: vec![repacked.hold],
            ..CommitRequest::default()
        };
        vault.commit(request).await?;
    }
    Ok(more)
}

/// Finds what one run rewrites, and whether there is more.
fn find(blobs: &Blobs, survey: &Survey, folders: &[(u32, PathBuf)]) -> (Sparse, bool) {
    let packs = survey
        .stored
        .iter()
        .filter(|(file, (_, bytes))| *bytes > 0 && bytes * 2 < blobs.stored_len(&Hash(**file)));
    let mut packs: Vec<[u8; 32]> = packs.map(|(file, _)| *file).collect();
    let mut more = packs.len() > PACKS;
    packs.truncate(PACKS);
    let mut sparse = Sparse {
        packs: packs.into_iter().collect(),
        ..Sparse::default()
    };
    let mut bytes = 0;
    for (root, name) in survey.kept.keys() {
        let folder = folders.iter().find(|(number, _)| number == root);
        let len = folder.map_or(0, |(_, folder)| aside_len(folder, name));
        let alone = survey.alone.get(&(*root, *name)).copied().unwrap_or(0);
        if len < SHORTEST_ASIDE || alone * 2 >= len {
            continue;
        }
        if bytes > 0 && bytes + len > ASIDE_BYTES {
            more = true;
            continue;
        }
        bytes += len;
        sparse.aside.insert((*root, *name));
    }
    (sparse, more)
}

/// Length of a file moved aside, in bytes; 0 if it is not there.
fn aside_len(folder: &Path, name: &[u8; 24]) -> u64 {
    let path = place::kept_path(folder, &hex::encode(name));
    std::fs::symlink_metadata(path).map_or(0, |meta| meta.len())
}
