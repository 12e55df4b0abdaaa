//! What lies on this device, compared with what is named.

use std::collections::{BTreeSet, HashMap};

use coffer_protocol::identity::Hash;
use redb::{ReadableTable, ReadableTableMetadata};

use super::CollectError;
use super::names::{Names, table};
use crate::blobs::placement::{
    Placement, PlacementError, Reader, decode_chunk, decode_places, is_doubled,
};
use crate::store::{StoreError, tables};
use crate::vault::collect::View;

/// Blobs of each kind that one run deals with: it bounds memory, and what is more is for the next run.
pub const RUN_MAX: usize = 100_000;

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Unnamed, and not noted before.
    pub fresh: Vec<Hash>,
    /// Unnamed for long enough, and where they are.
    pub due: Vec<(Hash, Vec<Placement>)>,
    /// Noted, but named again or not here any more.
    pub again: Vec<Hash>,
    /// Blobs of the store that lie in a synced folder too.
    pub doubled: Vec<(Hash, Vec<Placement>)>,
    /// Runs that nothing waits for.
    pub runs_over: Vec<u64>,
    /// Chunks whose blobs are neither named nor here.
    pub chunks: Vec<Hash>,
    /// Bytes that are unnamed and not freed yet.
    pub waiting_bytes: u64,
    /// Files of the store, packs and single blobs: how many blobs are in each, and how many bytes of them.
    pub stored: HashMap<[u8; 32], (u32, u64)>,
    /// Files that synced folders moved aside: how many blobs each holds.
    pub kept: HashMap<(u32, [u8; 24]), u32>,
    /// Of those files, how many bytes this device has from nowhere else but synced folders. What several hold counts for
    /// the one that was moved aside first.
    pub alone: HashMap<(u32, [u8; 24]), u64>,
    /// Whether there was more than one run deals with.
    pub more: bool,
}

impl Survey {
    /// A place is no more. Gives the file of the store in which there is nothing now.
    pub fn empties(&mut self, blob: &Hash, place: &Placement) -> Option<Hash> {
        self.gone(blob, place);
        let file = match place {
            Placement::Store => blob.0,
            Placement::Pack { pack, .. } => *pack,
            Placement::File { .. } | Placement::Kept { .. } => return None,
        };
        (!self.stored.contains_key(&file)).then_some(Hash(file))
    }

    fn gone(&mut self, blob: &Hash, place: &Placement) {
        match place {
            Placement::Store => self.less(&blob.0, 0),
            Placement::Pack { pack, len, .. } => self.less(pack, u64::from(*len)),
            Placement::Kept { root, name, .. } => {
                if let Some(count) = self.kept.get_mut(&(*root, *name)) {
                    *count -= 1;
                    if *count == 0 {
                        self.kept.remove(&(*root, *name));
                    }
                }
            }
            Placement::File { .. } => {}
        }
    }

    fn less(&mut self, file: &[u8; 32], bytes: u64) {
        if let Some((count, left)) = self.stored.get_mut(file) {
            *count -= 1;
            *left = left.saturating_sub(bytes);
            if *count == 0 {
                self.stored.remove(file);
            }
        }
    }
}

/// Looks at every blob that has a place here. `due` are the runs whose finds may be freed; `size` tells the length of a
/// blob that is a file of the store; `folders` are the synced folders that are there. Blocking.
pub fn survey(
    view: &View,
    names: &Names,
    folders: &BTreeSet<u32>,
    due: &BTreeSet<u64>,
    all_runs: impl IntoIterator<Item = u64>,
    size: impl Fn(&Hash) -> u64,
) -> Result<Survey, CollectError> {
    let mut survey = Survey::default();
    let unnamed = table(view, tables::UNNAMED)?;
    for item in table(view, tables::PLACEMENT)?
        .iter()
        .map_err(StoreError::from)?
    {
        let (key, value) = item.map_err(StoreError::from)?;
        let blob = Hash(*key.value());
        let places = decode_places(value.value())
            .map_err(|reason| StoreError::from(PlacementError::Damaged { id: blob, reason }))?;
        for place in &places {
            match place {
                Placement::Store => survey.stored.entry(blob.0).or_default().0 += 1,
                Placement::Pack { pack, len, .. } => {
                    let (count, bytes) = survey.stored.entry(*pack).or_default();
                    *count += 1;
                    *bytes += u64::from(*len);
                }
                Placement::Kept { root, name, .. } => {
                    *survey.kept.entry((*root, *name)).or_default() += 1;
                }
                Placement::File { .. } => {}
            }
        }
        if let Some((file, len)) = relied_on(&places) {
            *survey.alone.entry(file).or_default() += len;
        }
        if names.contains(&blob) {
            if view.is_kept_elsewhere && is_doubled(&places, folders) {
                if survey.doubled.len() < RUN_MAX {
                    survey.doubled.push((blob, places));
                } else {
                    survey.more = true;
                }
            }
            continue;
        }
        let run = unnamed
            .get(&blob.0)
            .map_err(StoreError::from)?
            .map(|run| run.value());
        match run {
            Some(run) if due.contains(&run) && survey.due.len() < RUN_MAX => {
                survey.due.push((blob, places));
                continue;
            }
            Some(run) if due.contains(&run) => survey.more = true,
            Some(_) => {}
            None if survey.fresh.len() < RUN_MAX => survey.fresh.push(blob),
            None => survey.more = true,
        }
        let bytes = places.iter().map(|place| match place {
            Placement::Store => size(&blob),
            Placement::Pack { len, .. } | Placement::Kept { len, .. } => u64::from(*len),
            Placement::File { .. } => 0,
        });
        survey.waiting_bytes += bytes.max().unwrap_or(0);
    }
    noted(view, names, all_runs, &mut survey)?;
    chunks(view, names, &mut survey)?;
    Ok(survey)
}

/// The file moved aside that a blob is in, of several the first; `None` if the store has it, or none does. Gives its
/// length, too.
pub fn relied_on(places: &[Placement]) -> Option<((u32, [u8; 24]), u64)> {
    if places.iter().any(Placement::is_in_store) {
        return None;
    }
    // Newest first.
    places.iter().rev().find_map(|place| match place {
        Placement::Kept {
            root, name, len, ..
        } => Some(((*root, *name), u64::from(*len))),
        _ => None,
    })
}

/// What earlier runs noted and is so no more.
fn noted(
    view: &View,
    names: &Names,
    all_runs: impl IntoIterator<Item = u64>,
    survey: &mut Survey,
) -> Result<(), CollectError> {
    let reader = Reader::new(&view.read).map_err(StoreError::from)?;
    let unnamed = table(view, tables::UNNAMED)?;
    let mut needed = BTreeSet::new();
    if !unnamed.is_empty().map_err(StoreError::from)? {
        for item in unnamed.iter().map_err(StoreError::from)? {
            let (key, run) = item.map_err(StoreError::from)?;
            let blob = Hash(*key.value());
            let is_over = names.contains(&blob) || !reader.has(&blob).map_err(StoreError::from)?;
            if is_over && survey.again.len() < RUN_MAX {
                survey.again.push(blob);
            } else {
                needed.insert(run.value());
            }
        }
    }
    survey
        .runs_over
        .extend(all_runs.into_iter().filter(|run| !needed.contains(run)));
    Ok(())
}

fn chunks(view: &View, names: &Names, survey: &mut Survey) -> Result<(), CollectError> {
    let reader = Reader::new(&view.read).map_err(StoreError::from)?;
    for item in table(view, tables::CHUNKS)?
        .iter()
        .map_err(StoreError::from)?
    {
        let (key, value) = item.map_err(StoreError::from)?;
        let id = Hash(*key.value());
        let row = decode_chunk(value.value())
            .map_err(|reason| StoreError::from(PlacementError::Damaged { id, reason }))?;
        if !names.contains(&row.blob)
            && survey.chunks.len() < RUN_MAX
            && !reader.has(&row.blob).map_err(StoreError::from)?
        {
            survey.chunks.push(id);
        }
    }
    Ok(())
}
