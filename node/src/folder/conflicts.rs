//! The conflicts there are, and how one is settled. Pure.
//!
//! A conflict is a file whose name in the vault says so, beside the file that it is a copy of, with another content. It
//! follows from the tree alone, so all devices see the same ones; and it is settled by changing the tree: the copy goes
//! to the trash, or gets an ordinary name. Nothing that lost is lost: it is in the trash, or in the file's history.

use coffer_crdt::files::{ConflictMark, FileId, Kind};
use coffer_crdt::tree::Tree;

use super::compare::merge_group;
use crate::vault::request::{ContentDraft, Operation};

/// Ordinary names tried for a copy that is kept, at most.
const MAX_NAMES: u32 = 1000;

/// Two contents that want one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What has the plain name.
    pub original: FileId,
    /// What is shown as a conflict copy of it.
    pub copy: FileId,
    /// What the copy's name says.
    pub mark: ConflictMark,
    /// The plain name.
    pub name: String,
}

/// Which content stays under the plain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The one that has it; the copy goes to the trash.
    Mine,
    /// The copy's; the other one stays in the file's history.
    Theirs,
    /// Each: the copy becomes a file of its own with an ordinary name.
    Both,
}

/// Whether a file is a conflict copy of another that is there.
pub fn conflict_of(tree: &Tree, copy: FileId) -> Option<Conflict> {
    let shown = tree.shown(copy)?;
    if shown.trashed || shown.waiting || shown.same_as.is_some() {
        return None;
    }
    let is_file = shown.kind != Kind::Folder;
    let mark = ConflictMark::read(&shown.name, is_file)?;
    let known = tree.get(copy)?;
    // The tree itself shows the later of two files of one name as a copy: that one knows what it is called.
    let name = if *known.place.name != *shown.name {
        known.place.name.to_string()
    } else {
        mark.original.clone()
    };
    let other = |id: &FileId| *id != copy;
    let found = tree.lookup(shown.parent, &name).filter(other);
    let (original, name) = match found {
        Some(original) => (original, name),
        None => tree
            .children(shown.parent)
            .filter(|(name, _)| mark.is_cut_from(name, is_file))
            .map(|(name, id)| (id, name.to_string()))
            .find(|(id, _)| other(id))?,
    };
    let hash = |id| Some(tree.get(id)?.content?.hash);
    let is_same = hash(copy).is_some() && hash(copy) == hash(original);
    (!is_same).then_some(Conflict {
        original,
        copy,
        mark,
        name,
    })
}

/// All conflicts below a folder of the vault, by the paths of the copies.
pub fn conflicts(tree: &Tree, folder: FileId) -> Vec<Conflict> {
    // Few names say so: one look at all of them, and a closer one at those.
    let mut all: Vec<(Option<String>, Conflict)> = tree
        .every()
        .filter(|every| every.is_itself && !every.trashed && ConflictMark::may_be_in(every.name))
        .filter(|every| is_below(tree, every.id, folder))
        .filter_map(|every| conflict_of(tree, every.id))
        .map(|conflict| (tree.path(conflict.copy), conflict))
        .collect();
    all.sort_by(|a, b| (&a.0, a.1.copy).cmp(&(&b.0, b.1.copy)));
    all.into_iter().map(|(_, conflict)| conflict).collect()
}

/// Whether a file stands in a folder of the vault, or in one below it.
pub fn is_below(tree: &Tree, file: FileId, folder: FileId) -> bool {
    let folder = tree.representative(folder);
    let mut at = file;
    // A tree has no cycles as it is shown; the bound is for a defect.
    for _ in 0..=tree.len() {
        match tree.shown(at) {
            _ if at == FileId::ROOT => return folder == FileId::ROOT,
            Some(shown) if shown.parent == folder => return true,
            Some(shown) => at = shown.parent,
            None => return false,
        }
    }
    false
}

/// The conflicts that a file has part in: the one that it is the copy in, or those that have it as original.
pub fn conflicts_with(tree: &Tree, id: FileId) -> Vec<Conflict> {
    if let Some(conflict) = conflict_of(tree, id) {
        return vec![conflict];
    }
    let Some(shown) = tree.shown(id) else {
        return Vec::new();
    };
    let siblings = tree.children(shown.parent);
    siblings
        .filter_map(|(_, sibling)| conflict_of(tree, sibling))
        .filter(|conflict| conflict.original == id)
        .collect()
}

/// What settles a conflict. `content` is the copy's, where it has one.
pub fn settle(
    tree: &Tree,
    conflict: &Conflict,
    keep: Keep,
    content: Option<ContentDraft>,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    let Conflict { original, copy, .. } = *conflict;
    let kind = |id| tree.shown(id).map(|shown| shown.kind);
    let Some(parent) = tree.shown(copy).map(|shown| shown.parent) else {
        return operations;
    };
    merge_group(tree, copy, &mut operations);
    match (keep, content) {
        (Keep::Mine, _) => operations.push(Operation::TrashFile { id: copy }),
        // One file goes on, with its history; that is what lets the other content be found again.
        (Keep::Theirs, Some(content)) if kind(original) == kind(copy) => {
            merge_group(tree, original, &mut operations);
            operations.push(Operation::SetContent {
                id: original,
                content,
                replaces: tree
                    .get(original)
                    .and_then(|known| known.content)
                    .map(|content| content.hash),
            });
            operations.push(Operation::TrashFile { id: copy });
        }
        (Keep::Theirs, _) => {
            merge_group(tree, original, &mut operations);
            operations.push(Operation::TrashFile { id: original });
            operations.push(Operation::MoveFile {
                id: copy,
                parent,
                name: conflict.name.clone(),
            });
        }
        (Keep::Both, _) => {
            let is_file = kind(copy) != Some(Kind::Folder);
            let ordinary = |number| conflict.mark.ordinary(&conflict.name, is_file, number);
            let name = (1..=MAX_NAMES)
                .map(ordinary)
                .find(|name| tree.lookup(parent, name).is_none());
            operations.push(Operation::MoveFile {
                id: copy,
                parent,
                name: name.unwrap_or_else(|| ordinary(MAX_NAMES)),
            });
        }
    }
    operations
}
