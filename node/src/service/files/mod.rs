//! Files and folders of the vault: finding, listing, moving, deleting, restoring, and their history.
//!
//! `add.rs` brings files of this machine in, `get.rs` writes them out, `history.rs` knows what they were.

mod add;
mod get;
mod history;
mod telling;

use std::sync::Arc;

use coffer_crdt::files::{FileId, Kind};
use rand::Rng;

use super::running::{Running, commit_error};
use super::trash::SAME_DELETION_MS;
use super::{Node, keeper, random, returned, sparing, store_error};
use crate::control::{Content, ControlError, FileRow, Item, Reply, Session};
use crate::folder::compare;
use crate::vault::{CommitRequest, ContentDraft, Operation, wall_ms};

pub use add::add;
pub use get::{From, get, write_from, write_tree};
pub use history::{history, tag, untag};

use history::{find_content, hold_for_restoring};

/// Rows per item of a list.
const LISTED_AT_ONCE: usize = 256;
/// Depth of folders that is followed: far beyond what file systems take.
const MAX_DEPTH: usize = 512;

/// A fresh id for a file or folder.
pub fn new_id() -> FileId {
    let mut id = [0; 16];
    random().fill_bytes(&mut id);
    FileId(id)
}

/// The file or folder at a path of the vault.
fn resolve(running: &Running, path: &str) -> Result<FileId, ControlError> {
    running
        .vault
        .tree()
        .resolve(path)
        .ok_or_else(|| ControlError::not_found(format!("there is no \"{path}\" in the vault")))
}

/// A folder of the vault at a path, made with its parents where it is not there.
pub async fn ensure_folder(running: &Arc<Running>, path: &str) -> Result<FileId, ControlError> {
    let mut parent = FileId::ROOT;
    let mut operations = Vec::new();
    for name in path.split('/').filter(|part| !part.is_empty()) {
        let found = if operations.is_empty() {
            let tree = running.vault.tree();
            tree.lookup(parent, name).map(|id| {
                (
                    id,
                    tree.shown(id)
                        .is_some_and(|shown| shown.kind == Kind::Folder),
                )
            })
        } else {
            None
        };
        parent = match found {
            Some((id, true)) => id,
            Some((_, false)) => {
                return Err(ControlError::conflict(format!(
                    "\"{name}\" in \"{path}\" is a file, not a folder"
                )));
            }
            None => {
                let id = new_id();
                operations.push(Operation::CreateFile {
                    id,
                    kind: Kind::Folder,
                    parent,
                    name: name.into(),
                    content: None,
                    created_ms: wall_ms() as i64,
                });
                id
            }
        };
    }
    if !operations.is_empty() {
        commit(running, operations).await?;
    }
    Ok(parent)
}

/// What a file holds, as lists show it.
fn content_row(
    running: &Running,
    wanted: &std::collections::BTreeSet<FileId>,
    id: FileId,
) -> Option<Content> {
    let tree = running.vault.tree();
    let known = tree.get(id)?;
    let content = known.content?;
    Some(Content {
        size: content.size,
        modified_ms: content.mtime_ms,
        executable: content.executable,
        link: content.target.as_ref().map(ToString::to_string),
        here: !wanted.contains(&id),
    })
}

fn wanted(running: &Running) -> Result<std::collections::BTreeSet<FileId>, ControlError> {
    Ok(running
        .vault
        .wanted()
        .map_err(store_error)?
        .into_iter()
        .map(|wanted| wanted.id)
        .collect())
}

fn file_row(running: &Running, id: FileId) -> Result<FileRow, ControlError> {
    let wanted = wanted(running)?;
    let content = content_row(running, &wanted, id);
    let tree = running.vault.tree();
    let trashed = tree.shown(id).is_some_and(|shown| shown.trashed);
    let path = tree.path(id).unwrap_or_else(|| trash_path(&tree, id));
    Ok(FileRow {
        path,
        id: id.to_string(),
        content,
        trashed,
    })
}

/// How something in the trash is named: where it stood, as far as that is still there.
pub(super) fn trash_path(tree: &coffer_crdt::tree::Tree, id: FileId) -> String {
    let Some(shown) = tree.shown(id) else {
        return id.to_string();
    };
    let mut parts = vec![shown.name.to_string()];
    let mut parent = shown.parent;
    while parent != FileId::ROOT && parts.len() < MAX_DEPTH {
        let Some(shown) = tree.shown(parent) else {
            break;
        };
        parts.push(shown.name.to_string());
        parent = shown.parent;
    }
    parts.reverse();
    parts.join("/")
}

/// `file list`.
pub async fn list(
    node: &Arc<Node>,
    path: String,
    recursive: bool,
    trash: bool,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let wanted = wanted(&running)?;
    let mut found: Vec<(String, FileId, bool)> = Vec::new();
    {
        let tree = running.vault.tree();
        if trash {
            for id in tree.trashed() {
                let name = trash_path(&tree, id);
                if path.is_empty() || name == path || name.starts_with(&format!("{path}/")) {
                    found.push((name, id, true));
                }
            }
        } else {
            let top = tree.resolve(&path).ok_or_else(|| {
                ControlError::not_found(format!("there is no \"{path}\" in the vault"))
            })?;
            let is_file = top != FileId::ROOT
                && tree
                    .shown(top)
                    .is_some_and(|shown| shown.kind != Kind::Folder);
            if is_file {
                found.push((path.trim_matches('/').to_string(), top, false));
            }
            let mut folders = if is_file {
                Vec::new()
            } else {
                vec![(path.trim_matches('/').to_string(), top, 0)]
            };
            while let Some((prefix, folder, depth)) = folders.pop() {
                for (name, id) in tree.children(folder) {
                    let name = if prefix.is_empty() {
                        name.to_string()
                    } else {
                        format!("{prefix}/{name}")
                    };
                    if recursive
                        && depth < MAX_DEPTH
                        && tree
                            .shown(id)
                            .is_some_and(|shown| shown.kind == Kind::Folder)
                    {
                        folders.push((name.clone(), id, depth + 1));
                    }
                    found.push((name, id, false));
                }
            }
        }
    }
    found.sort();
    let count = found.len() as u64;
    for part in found.chunks(LISTED_AT_ONCE) {
        let rows = part
            .iter()
            .map(|(path, id, trashed)| FileRow {
                path: path.clone(),
                id: id.to_string(),
                content: content_row(&running, &wanted, *id),
                trashed: *trashed,
            })
            .collect();
        session.item(Item::Files(rows)).await?;
    }
    Ok(Reply::Listed { count, more: false })
}

/// Marks those that show as one with `id`, so that an operation on it does not make them come apart.
fn merge_group(running: &Running, id: FileId) -> Vec<Operation> {
    let mut operations = Vec::new();
    compare::merge_group(&running.vault.tree(), id, &mut operations);
    operations
}

/// Carries out what needs no more than these operations.
async fn commit(running: &Running, operations: Vec<Operation>) -> Result<(), ControlError> {
    let request = sparing::request(running, operations).await?;
    running.vault.commit(request).await.map_err(commit_error)?;
    Ok(())
}

/// `file move`.
pub async fn move_to(node: &Arc<Node>, from: String, to: String) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let id = resolve(&running, &from)?;
    let (parent_path, name) = {
        let tree = running.vault.tree();
        let target = tree.resolve(&to);
        let into = target.is_some_and(|target| {
            target == FileId::ROOT
                || tree
                    .shown(target)
                    .is_some_and(|shown| shown.kind == Kind::Folder)
        });
        let own_name = from
            .trim_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_string();
        if (into && target != Some(id)) || to.ends_with('/') {
            (to.trim_matches('/').to_string(), own_name)
        } else {
            if target.is_some_and(|target| target != id) {
                return Err(
                    ControlError::conflict(format!("\"{to}\" already exists")).with_code("exists")
                );
            }
            match to.trim_matches('/').rsplit_once('/') {
                Some((parent, name)) => (parent.to_string(), name.to_string()),
                None => (String::new(), to.trim_matches('/').to_string()),
            }
        }
    };
    let source = from.trim_matches('/');
    if parent_path == source || parent_path.starts_with(&format!("{source}/")) {
        return Err(ControlError::usage("a folder cannot be moved into itself"));
    }
    let parent = ensure_folder(&running, &parent_path).await?;
    if let Some(there) = running.vault.tree().lookup(parent, &name)
        && there != id
    {
        return Err(
            ControlError::conflict(format!("\"{name}\" already exists there")).with_code("exists"),
        );
    }
    let mut operations = merge_group(&running, id);
    operations.push(Operation::MoveFile { id, parent, name });
    commit(&running, operations).await?;
    Ok(Reply::File(file_row(&running, id)?))
}

/// `file delete`.
pub async fn delete(node: &Arc<Node>, path: String) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let id = resolve(&running, &path)?;
    let mut operations = merge_group(&running, id);
    operations.push(Operation::TrashFile { id });
    commit(&running, operations).await?;
    Ok(Reply::File(file_row(&running, id)?))
}

/// `file restore`.
pub async fn restore(
    node: &Arc<Node>,
    path: String,
    at: Option<String>,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    running.folders.take_in().await;
    let wanted_path = path.trim_matches('/');
    let (id, trashed) = {
        let tree = running.vault.tree();
        let in_trash = || {
            let mut found: Vec<FileId> = tree
                .trashed()
                .filter(|id| trash_path(&tree, *id) == wanted_path || id.to_string() == wanted_path)
                .collect();
            // Of several of one name the one deleted last.
            found.sort_by_key(|id| {
                tree.get(*id)
                    .and_then(|known| known.trash.map(|trash| trash.stamp))
            });
            found.pop()
        };
        match tree.resolve(wanted_path).filter(|id| *id != FileId::ROOT) {
            Some(id) if at.is_some() => (id, false),
            Some(_) if in_trash().is_none() => {
                return Err(
                    ControlError::conflict(format!("\"{path}\" is not in the trash"))
                        .with_code("not-trashed"),
                );
            }
            _ => match in_trash() {
                Some(id) => (id, true),
                None => {
                    return Err(ControlError::not_found(format!(
                        "there is no \"{path}\" in the trash"
                    )));
                }
            },
        }
    };
    let mut request = CommitRequest::default();
    if trashed {
        keeper::forget_left(&running).await;
        let tree = running.vault.tree();
        let with = tree.deleted_with(id, SAME_DELETION_MS);
        let restored = std::iter::once(id).chain(with);
        request.operations = restored.map(|id| Operation::RestoreFile { id }).collect();
        request.recheck = tree.below(id).collect();
    }
    if let Some(at) = at {
        let present = running
            .vault
            .tree()
            .get(id)
            .and_then(|known| known.content.map(|content| content.hash));
        let content = find_content(&running, id, &at)?;
        request
            .holds
            .push(hold_for_restoring(&running, id, &content).await?);
        let set = Operation::SetContent {
            id,
            content: ContentDraft::from(&content),
            replaces: present,
        };
        let spared = sparing::request(&running, vec![set]).await?;
        request.operations.extend(spared.operations);
        request.recheck.extend(spared.recheck);
        request.recheck.push(id);
    }
    running.vault.commit(request).await.map_err(commit_error)?;
    let lacking = returned::lacking(&running, &[id]).await?;
    if let Some(first) = lacking.named.first() {
        let more = match lacking.count {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let message = format!(
            "{} is in its place again, and not its content: {}{more}",
            first.path, first.reason
        );
        return Err(ControlError::unavailable(message).with_code("content-lacking"));
    }
    Ok(Reply::File(file_row(&running, id)?))
}
