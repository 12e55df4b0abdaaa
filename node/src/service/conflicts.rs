//! Conflicts: which there are, settling them, and telling when one arises or is settled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_crdt::files::FileId;
use coffer_crdt::tree::{Changed, Tree};

use super::running::{Running, commit_error};
use super::{Node, folders, sparing, store_error};
use crate::control::{ConflictRow, ControlError, Event, Keep, Reply, SettledPaths};
use crate::folder::conflicts::{self, Conflict, conflict_of, conflicts, conflicts_with};
use crate::vault::ContentDraft;

/// `folder conflicts`.
pub async fn list(node: &Arc<Node>, dir: Option<PathBuf>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let folder = match dir {
        Some(dir) => folders::find(&running, &dir)?.1.folder,
        None => FileId::ROOT,
    };
    let tree = running.vault.tree();
    let found = conflicts(&tree, folder);
    Ok(Reply::Conflicts {
        conflicts: found.iter().map(|conflict| row(&tree, conflict)).collect(),
    })
}

/// `folder settle`.
pub async fn settle(
    node: &Arc<Node>,
    path: String,
    local: PathBuf,
    keep: Keep,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let (found, rows) = {
        let tree = running.vault.tree();
        let id = on_disk(&running, &tree, &local).or_else(|| tree.resolve(path.trim_matches('/')));
        let Some(id) = id.filter(|id| *id != FileId::ROOT) else {
            return Err(ControlError::not_found(format!(
                "there is no file \"{path}\""
            )));
        };
        let found = conflicts_with(&tree, id);
        let rows: Vec<ConflictRow> = found.iter().map(|conflict| row(&tree, conflict)).collect();
        (found, rows)
    };
    if found.is_empty() {
        return Err(
            ControlError::conflict(format!("\"{path}\" has no conflict")).with_code("no-conflict"),
        );
    }
    if found.len() > 1 && keep == Keep::Theirs {
        let copies: Vec<&str> = rows.iter().map(|row| row.copy.as_str()).collect();
        return Err(ControlError::usage(format!(
            "\"{path}\" has {} copies; name the one to keep: {}",
            copies.len(),
            copies.join(", ")
        )));
    }
    for conflict in &found {
        settle_one(&running, conflict, keep).await?;
    }
    let tree = running.vault.tree();
    let now = |id: FileId| {
        let is_there = tree.shown(id).is_some_and(|shown| !shown.trashed);
        tree.path(id).filter(|_| is_there)
    };
    Ok(Reply::ConflictsSettled {
        now: found
            .iter()
            .map(|conflict| SettledPaths {
                path: now(conflict.original),
                copy: now(conflict.copy),
            })
            .collect(),
        conflicts: rows,
    })
}

async fn settle_one(
    running: &Arc<Running>,
    conflict: &Conflict,
    keep: Keep,
) -> Result<(), ControlError> {
    let state = running.vault.file(conflict.copy).map_err(store_error)?;
    let content = state
        .and_then(|state| state.content)
        .map(|content| ContentDraft::from(&content));
    let keep = match keep {
        Keep::Mine => conflicts::Keep::Mine,
        Keep::Theirs => conflicts::Keep::Theirs,
        Keep::Both => conflicts::Keep::Both,
    };
    let operations = conflicts::settle(&running.vault.tree(), conflict, keep, content);
    let mut request = sparing::request(running, operations).await?;
    request.recheck.extend([conflict.original, conflict.copy]);
    running.vault.commit(request).await.map_err(commit_error)?;
    Ok(())
}

/// The file of the vault behind a path of this machine, if that lies in a synced folder.
fn on_disk(running: &Running, tree: &Tree, local: &Path) -> Option<FileId> {
    // The file itself may be a link; only what leads to it is followed.
    let parent = std::fs::canonicalize(local.parent()?).ok()?;
    let real = parent.join(local.file_name()?);
    let setting = running.folders.around(&real)?;
    let within = real.strip_prefix(&setting.path).ok()?;
    within
        .components()
        .try_fold(setting.folder, |folder, name| {
            tree.lookup(folder, name.as_os_str().to_str()?)
        })
}

fn row(tree: &Tree, conflict: &Conflict) -> ConflictRow {
    let size = |id: FileId| Some(tree.get(id)?.content?.size);
    let known = tree.get(conflict.copy);
    let at_ms = known.map_or(0, |known| {
        let stamp = known.content.map(|content| content.stamp);
        stamp.unwrap_or(known.place.stamp).ms()
    });
    ConflictRow {
        path: tree.path(conflict.original).unwrap_or_default(),
        copy: tree.path(conflict.copy).unwrap_or_default(),
        device: conflict.mark.label.clone(),
        date: conflict.mark.date.clone(),
        at_ms,
        size: size(conflict.original),
        copy_size: size(conflict.copy),
        id: conflict.copy.to_string(),
    }
}

/// What a listener was told of conflicts.
pub struct Told {
    known: BTreeMap<FileId, ConflictRow>,
}

impl Told {
    /// A listener begins: what there is now is no news.
    pub fn new(tree: &Tree) -> Told {
        let known = conflicts(tree, FileId::ROOT);
        Told {
            known: known
                .iter()
                .map(|conflict| (conflict.copy, row(tree, conflict)))
                .collect(),
        }
    }

    /// What is news after something is shown otherwise; `None` if it is not known what.
    pub fn news(&mut self, tree: &Tree, changed: Option<&[Changed]>) -> Vec<Event> {
        let mut events = Vec::new();
        self.known.retain(|copy, row| {
            let stays = conflict_of(tree, *copy).is_some();
            if !stays {
                events.push(Event::Conflict {
                    conflict: row.clone(),
                    settled: true,
                });
            }
            stays
        });
        let new: Vec<Conflict> = match changed {
            None => conflicts(tree, FileId::ROOT),
            // A copy is shown otherwise when it gets the name of one, and hardly ever becomes one by what happens to the
            // file beside it.
            Some(changed) => changed
                .iter()
                .filter_map(|changed| conflict_of(tree, changed.id))
                .collect(),
        };
        for conflict in new {
            if let std::collections::btree_map::Entry::Vacant(entry) =
                self.known.entry(conflict.copy)
            {
                let row = entry.insert(row(tree, &conflict));
                events.push(Event::Conflict {
                    conflict: row.clone(),
                    settled: false,
                });
            }
        }
        events
    }
}
