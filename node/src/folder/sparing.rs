//! What nobody has seen is spared: the rule for whoever writes or deletes a file, on a synced disk or in the vault itself.
//!
//! Two contents of one file that were written without knowledge of each other are both in its document, and the vault shows
//! the later one. Who writes the file next makes the document forget the other, and who deletes it deletes both; yet a
//! person who acts on what is shown knows of that alone. So conflict copies of what is not shown are made first, in the
//! same commit ([`spare`]). And who finds that what was written here lost makes its copy, too ([`keep_outdone`]), unless it is
//! on disk, where the folder's engine sees to that ([`super::kept`]). All make the same copies ([`super::copies`]).

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::tree::Tree;

use super::FolderVault;
use super::compare::merge_group;
use super::copies::{Rival, has_copy, rescue, revival};
use crate::vault::request::{CommitError, Operation};

/// Contents of a file that it does not show, and that nobody has made a copy of yet. Reads the database.
pub(super) fn hidden<V: FolderVault>(vault: &V, file: FileId) -> Result<Vec<Rival>, CommitError> {
    let mut rivals = Vec::new();
    for content in vault.rival_contents(file)? {
        let label = vault.device_label_of(&content.dot);
        if !has_copy(vault, file, &content, &label) {
            rivals.push(Rival { content, label });
        }
    }
    Ok(rivals)
}

/// Operations with the copies that they need.
#[derive(Clone, Debug, Default)]
pub struct Spared {
    /// All of them, in order.
    pub operations: Vec<Operation>,
    /// The copies: whether their bytes are here is to be looked at ([`CommitRequest::recheck`]).
    ///
    /// [`CommitRequest::recheck`]: crate::vault::request::CommitRequest::recheck
    pub copies: Vec<FileId>,
}

impl Spared {
    fn add_copies(&mut self, copies: Vec<Operation>) {
        self.copies.extend(copies.iter().filter_map(given_content));
        self.operations.extend(copies);
    }
}

/// Adds to these operations the copies of what they would make the vault forget, or take to the trash unseen. A folder with
/// such a file in it is not deleted as a whole then, but all else that is in it: the copy needs a place. `seen` are
/// contents, by what shows the file, that the person has seen though they are not shown. Reads the database.
///
/// # Errors
/// [`CommitError`] when that fails.
pub fn spare<V: FolderVault>(
    vault: &V,
    operations: Vec<Operation>,
    seen: &BTreeMap<FileId, [u8; 32]>,
    now_ms: i64,
) -> Result<Spared, CommitError> {
    let reached: BTreeMap<FileId, FileId> = {
        let tree = vault.tree();
        let each = operations.iter();
        let all = each.flat_map(|operation| reach(&tree, operation));
        all.map(|file| (file, tree.representative(file))).collect()
    };
    let mut unseen: BTreeMap<FileId, Vec<Rival>> = BTreeMap::new();
    for (file, shown) in reached {
        let mut rivals = hidden(vault, file)?;
        rivals.retain(|rival| seen.get(&shown) != Some(&rival.content.hash));
        if !rivals.is_empty() {
            unseen.insert(file, rivals);
        }
    }
    let mut spared = Spared::default();
    if unseen.is_empty() {
        spared.operations = operations;
        return Ok(spared);
    }
    let tree = vault.tree();
    let moved: BTreeSet<FileId> = operations.iter().filter_map(moved).collect();
    for operation in operations {
        let mut around: BTreeSet<FileId> = BTreeSet::new();
        for file in reach(&tree, &operation) {
            // What one operation makes copies of, no later one need.
            let rivals = unseen.remove(&file).unwrap_or_default();
            let lost = rivals
                .iter()
                .filter(|rival| Some(rival.content.hash) != written(&operation));
            let copies = rescue(&tree, now_ms, file, lost);
            if let (Operation::TrashFile { id }, false) = (&operation, copies.is_empty()) {
                around.extend(folders_between(&tree, file, *id));
            }
            spared.add_copies(copies);
        }
        if around.is_empty() {
            spared.operations.push(operation);
            continue;
        }
        let copies: BTreeSet<FileId> = spared.copies.iter().copied().collect();
        let stays = [&around, &moved, &copies];
        let children = around.iter().flat_map(|folder| tree.children(*folder));
        let children = children.map(|(_, child)| child);
        for child in children.filter(|child| stays.iter().all(|stay| !stay.contains(child))) {
            merge_group(&tree, child, &mut spared.operations);
            spared.operations.push(Operation::TrashFile { id: child });
        }
    }
    Ok(spared)
}

/// What this device wrote into the vault lost against what was written elsewhere at the same time: (file, hash of the
/// content). Makes copies of it, or gives it back to a file that was deleted by somebody who had not seen it. Reads the
/// database.
///
/// # Errors
/// [`CommitError`] when that fails.
pub fn keep_outdone<V: FolderVault>(
    vault: &V,
    outdone: &BTreeSet<(FileId, [u8; 32])>,
    now_ms: i64,
) -> Result<Spared, CommitError> {
    let mut kept = Spared::default();
    for (id, hash) in outdone {
        let rivals = hidden(vault, *id)?;
        let Some(rival) = rivals.iter().find(|rival| rival.content.hash == *hash) else {
            continue;
        };
        let tree = vault.tree();
        if tree.shown(*id).is_some_and(|shown| shown.trashed) {
            let own = tree
                .get(*id)
                .is_some_and(|it| it.is_deleted(rival.content.dot));
            let with = tree
                .deletion(*id)
                .is_some_and(|by| by.covers(rival.content.dot));
            if !own && !with {
                kept.add_copies(revival(&tree, now_ms, *id, &rival.content, &rivals));
            }
        } else {
            kept.add_copies(rescue(&tree, now_ms, *id, std::iter::once(rival)));
        }
    }
    Ok(kept)
}

/// Files of which an operation replaces the content, takes it to the trash, or lets another stand for it.
fn reach(tree: &Tree, operation: &Operation) -> Vec<FileId> {
    match operation {
        Operation::SetContent { id, .. } => vec![*id],
        Operation::MergeFileInto { id, .. } if is_shown_file(tree, *id) => vec![*id],
        Operation::TrashFile { id } => {
            let tops = tree.group(*id).into_iter().chain([*id]);
            let all = tops.flat_map(|top| std::iter::once(top).chain(tree.below(top)));
            all.filter(|id| is_shown_file(tree, *id)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_shown_file(tree: &Tree, id: FileId) -> bool {
    tree.shown(id)
        .is_some_and(|shown| shown.kind != Kind::Folder && !shown.trashed)
}

/// The folders that a file is in, up to the one that is deleted.
fn folders_between(tree: &Tree, file: FileId, deleted: FileId) -> Vec<FileId> {
    let top = tree.representative(deleted);
    let mut folders = Vec::new();
    let mut at = tree.representative(file);
    while at != top {
        match tree.shown(at) {
            Some(shown) if shown.parent != FileId::ROOT => at = shown.parent,
            // It is shown elsewhere by now: the deletion does not reach its copy.
            _ => return Vec::new(),
        }
        folders.push(at);
    }
    folders
}

fn moved(operation: &Operation) -> Option<FileId> {
    match operation {
        Operation::MoveFile { id, .. } => Some(*id),
        _ => None,
    }
}

pub(super) fn given_content(operation: &Operation) -> Option<FileId> {
    match operation {
        Operation::CreateCopy { id, .. } | Operation::SetContent { id, .. } => Some(*id),
        _ => None,
    }
}

fn written(operation: &Operation) -> Option<[u8; 32]> {
    match operation {
        Operation::SetContent { content, .. } => Some(content.hash),
        _ => None,
    }
}
