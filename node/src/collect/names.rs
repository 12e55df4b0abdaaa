//! Which blobs anything still names: present contents, in the trash or not, and earlier ones that the rule keeps.

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::{Content, FileId, FileState};
use coffer_crdt::retention::{Rule, Version, VersionId, retained};
use coffer_protocol::identity::Hash;
use redb::{ReadableTable, TableDefinition};

use super::CollectError;
use crate::blobs::Blobs;
use crate::store::{StoreError, pieces, tables};
use crate::vault::collect::View;
use crate::vault::past;

/// The blobs that something names. What is kept of each are eight bytes: a million take 8 MB, and where two are alike
/// in them, one is kept too long, never freed too early.
#[derive(Debug, Default)]
pub struct Names {
    sorted: Vec<u64>,
}

impl Names {
    /// Whether anything that is kept names the blob.
    pub fn contains(&self, blob: &Hash) -> bool {
        self.sorted.binary_search(&beginning(&blob.0)).is_ok()
    }

    /// How many blobs are named.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Of any blobs.
    pub fn of(blobs: impl IntoIterator<Item = [u8; 32]>) -> Names {
        let mut names = Names::default();
        names
            .sorted
            .extend(blobs.into_iter().map(|blob| beginning(&blob)));
        names.settle();
        names
    }

    fn settle(&mut self) {
        self.sorted.sort_unstable();
        self.sorted.dedup();
    }
}

fn beginning(blob: &[u8; 32]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&blob[..8]);
    u64::from_be_bytes(bytes)
}

/// What is named, and what is given up.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What is named.
    pub names: Names,
    /// Earlier contents that the rule did not keep any more some time ago.
    pub dropped: Vec<(FileId, VersionId)>,
}

/// Gathers what is named at `now_ms`. Earlier contents that were given up at `dropped_ms` are listed. Blocking.
///
/// # Errors
/// [`CollectError::List`] for a list of chunks that should be here and cannot be read: what it names is not known then,
/// and nothing must be freed. Of a list that was never here, nothing is held that somebody could put together.
pub fn gather(
    view: &View,
    blobs: &Blobs,
    rule: &Rule,
    now_ms: u64,
    dropped_ms: u64,
) -> Result<Gathered, CollectError> {
    let mut gathered = Gathered::default();
    let files = table(view, tables::FILES)?;
    for item in files.iter().map_err(StoreError::from)? {
        let key = *item.map_err(StoreError::from)?.0.value();
        let mut id = FileId([0; 16]);
        id.0.copy_from_slice(&key[..16]);
        if key[16..] != [0, 0] || view.purged.contains(&id) {
            continue;
        }
        if let Some(content) = state(&files, id)?.and_then(|state| state.content) {
            add(&mut gathered.names, blobs, &content.root)?;
        }
    }
    let mut last = None;
    for item in table(view, tables::PAST_CONTENTS)?
        .iter()
        .map_err(StoreError::from)?
    {
        let key = *item.map_err(StoreError::from)?.0.value();
        let mut id = FileId([0; 16]);
        id.0.copy_from_slice(&key[..16]);
        if last.replace(id) == Some(id) || view.purged.contains(&id) {
            continue;
        }
        let contents = past::past_contents(&view.read, id)?;
        let tags = past::tags(&view.read, id)?;
        let version = |id: VersionId| Version {
            id,
            tagged: tags.contains_key(&id),
        };
        let present = state(&files, id)?.and_then(|state| state.content);
        let versions: Vec<Version> = contents
            .iter()
            .chain(present.as_ref())
            .map(|content| version(content.version()))
            .collect();
        let kept = retained(&versions, now_ms, rule);
        let kept_then = retained(&versions, dropped_ms, rule);
        for content in contents {
            if kept.contains(&content.version()) {
                add(&mut gathered.names, blobs, &content.root)?;
            } else if !kept_then.contains(&content.version()) {
                gathered.dropped.push((id, content.version()));
            }
        }
    }
    gathered.names.settle();
    Ok(gathered)
}

fn add(names: &mut Names, blobs: &Blobs, root: &ChunkRoot) -> Result<(), CollectError> {
    match root {
        ChunkRoot::Inline(list) => {
            let chunks = list.chunks.iter();
            names
                .sorted
                .extend(chunks.map(|chunk| beginning(&chunk.blob)));
        }
        ChunkRoot::Indirect { .. } => {
            blobs
                .names_of(root, |blob| names.sorted.push(beginning(&blob.0)))
                .map_err(CollectError::List)?;
        }
    }
    // Lists of one file after another name mostly the same.
    if names.sorted.len() == names.sorted.capacity() {
        names.settle();
    }
    Ok(())
}

/// The earlier contents of a file that the rule keeps, beside the `present` one.
pub fn kept(
    read: &redb::ReadTransaction,
    id: FileId,
    present: Option<&Content>,
    rule: &Rule,
    now_ms: u64,
) -> Result<Vec<Content>, StoreError> {
    let mut contents = past::past_contents(read, id)?;
    if contents.is_empty() {
        return Ok(contents);
    }
    let tags = past::tags(read, id)?;
    let versions: Vec<Version> = contents
        .iter()
        .chain(present)
        .map(|content| Version {
            id: content.version(),
            tagged: tags.contains_key(&content.version()),
        })
        .collect();
    let kept = retained(&versions, now_ms, rule);
    contents.retain(|content| kept.contains(&content.version()));
    Ok(contents)
}

type FilesTable = redb::ReadOnlyTable<&'static [u8; 18], &'static [u8]>;

fn state(files: &FilesTable, id: FileId) -> Result<Option<FileState>, StoreError> {
    let mut key = [0; 18];
    key[..16].copy_from_slice(&id.0);
    pieces::read(files, &key)?
        .map(|bytes| {
            FileState::from_record(&bytes)
                .map_err(|_| StoreError::Damaged("the state of a file cannot be read".into()))
        })
        .transpose()
}

pub(super) fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
    view: &View,
    definition: TableDefinition<'static, K, V>,
) -> Result<redb::ReadOnlyTable<K, V>, StoreError> {
    Ok(view.read.open_table(definition)?)
}
