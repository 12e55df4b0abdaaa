//! What adding a folder would do, without doing any of it.

use std::path::Path;
use std::sync::Arc;

use coffer_crdt::files::{FileId, Kind};
use coffer_protocol::identity::VaultId;

use super::engine::blocking;
use super::place::FolderError;
use super::plan::Wish;
use super::rows::Rows;
use super::scan::{Node, Snapshot, scan_path};
use super::state::{MAX_PROBLEMS, Problem};
use super::{Contents, FolderConfig, FolderVault, compare::View, decide, names::Profile};
use crate::blobs::{Import, ImportJob};

/// Files read at a time.
const BATCH_FILES: usize = 500;
/// Bytes read at a time.
const BATCH_BYTES: u64 = 256 << 20;

/// How the files of a folder on disk and those of a folder of the vault compare. Folders are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstMerge {
    /// Same name, same bytes: nothing will be transferred.
    pub same: u64,
    /// Only on disk: will be added to the vault.
    pub new_here: u64,
    /// Only in the vault: will be written to disk.
    pub new_there: u64,
    /// Same name, other bytes: both stay, the one on disk under a conflict name.
    pub conflicting: u64,
    /// Bytes of the files that are only on disk.
    pub bytes_here: u64,
    /// Bytes of the files that are only in the vault.
    pub bytes_there: u64,
    /// What on disk cannot be synced, and why; the first [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
}

/// Compares the folder at `path` with `vault_folder`, changing neither. Reads the files that both have with the same
/// length; nothing of what was read is kept. A path that is not there yet counts as an empty folder.
///
/// # Errors
/// When the folder cannot be read.
pub async fn preview<V: FolderVault, C: Contents>(
    path: &Path,
    vault_folder: FileId,
    vault: Arc<V>,
    contents: &C,
) -> Result<FirstMerge, FolderError> {
    let config = FolderConfig {
        number: u32::MAX,
        path: path.to_path_buf(),
        vault_folder,
        vault: VaultId([0; 32]),
    };
    let compared = blocking(move || compare(&config, &*vault)).await;
    let (mut merge, alike) =
        compared.map_err(|_| FolderError::Vault("the node is stopping".into()))??;
    let mut rest = alike.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |(_, _, size): &&(std::path::PathBuf, [u8; 32], u64)| {
            bytes += size;
            bytes <= BATCH_BYTES
        };
        let count = rest
            .iter()
            .take_while(fits)
            .count()
            .clamp(1, BATCH_FILES)
            .min(rest.len());
        let (batch, later) = rest.split_at(count);
        rest = later;
        let jobs = batch.iter().map(|(path, ..)| ImportJob {
            path: path.clone(),
            into: Import::FileBacked {
                root: u32::MAX,
                file: [0; 16],
            },
        });
        for ((path, hash, _), result) in batch.iter().zip(contents.import(jobs.collect()).await) {
            match result {
                Ok(imported) if imported.hash == *hash => merge.same += 1,
                Ok(_) => merge.conflicting += 1,
                Err(error) => problem(&mut merge, path, error.to_string()),
            }
        }
    }
    Ok(merge)
}

fn problem(merge: &mut FirstMerge, path: &Path, reason: String) {
    if merge.problems.len() < MAX_PROBLEMS {
        merge.problems.push(Problem {
            path: path.to_string_lossy().into_owned(),
            reason,
        });
    }
}

/// Files whose bytes have to be compared: path, hash in the vault, length.
type Alike = Vec<(std::path::PathBuf, [u8; 32], u64)>;

fn compare<V: FolderVault>(
    config: &FolderConfig,
    vault: &V,
) -> Result<(FirstMerge, Alike), FolderError> {
    let disk = match scan_path(&config.path) {
        Ok(disk) => disk,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Snapshot::default(),
        Err(error) => {
            return Err(FolderError::Io {
                path: config.path.clone(),
                error,
            });
        }
    };
    let rows = Rows::new(config.vault_folder, Default::default());
    let tree = vault.tree();
    let view = View {
        rows: &rows,
        tree: &tree,
        vault_folder: config.vault_folder,
        profile: Profile::EXT4,
        label: "",
        now_ms: 0,
    };
    let mut merge = FirstMerge {
        problems: disk.problems.iter().take(MAX_PROBLEMS).cloned().collect(),
        ..FirstMerge::default()
    };
    let mut alike = Alike::new();
    let mut matched = std::collections::BTreeSet::new();
    let mut ids: Vec<Option<FileId>> = vec![None; disk.nodes.len()];
    if !ids.is_empty() {
        ids[0] = Some(tree.representative(config.vault_folder));
    }
    for (at, node) in disk.nodes.iter().enumerate().skip(1) {
        let there = ids[node.parent].and_then(|folder| tree.lookup(folder, &node.name));
        let shown = there.and_then(|id| tree.shown(id)).map(|shown| shown.kind);
        if node.kind == Kind::Folder && !node.ignored {
            ids[at] = there.filter(|_| shown == Some(Kind::Folder));
        } else if !node.skipped {
            let content = there
                .and_then(|id| tree.get(id))
                .and_then(|known| known.content)
                .filter(|_| shown == Some(node.kind));
            matched.extend(there.filter(|_| content.is_some()));
            match content {
                None if shown.is_some() => merge.conflicting += 1,
                None => {
                    merge.new_here += 1;
                    merge.bytes_here += node.stat.size;
                }
                Some(content) if node.kind == Kind::Symlink => {
                    count_link(node, content.hash, &mut merge)
                }
                Some(content) if content.size == node.stat.size => {
                    alike.push((config.path.join(disk.path(at)), content.hash, content.size))
                }
                Some(_) => merge.conflicting += 1,
            }
        }
    }
    for id in view.below(config.vault_folder) {
        if let Wish::Here(want) = view.wish(id)
            && let Some(content) = want.content
            && !matched.contains(&id)
        {
            merge.new_there += 1;
            merge.bytes_there += content.size;
        }
    }
    Ok((merge, alike))
}

fn count_link(node: &Node, hash: [u8; 32], merge: &mut FirstMerge) {
    if node
        .target
        .as_deref()
        .is_some_and(|target| decide::link_hash(target) == hash)
    {
        merge.same += 1;
    } else {
        merge.conflicting += 1;
    }
}
