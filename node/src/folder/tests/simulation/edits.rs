//! What people and programs change in the vault itself, past the folder on disk: by command or through the API.

use std::collections::BTreeMap;

use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::tree::Tree;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::super::FolderVault;
use super::super::super::compare::merge_group;
use super::super::super::sparing::spare;
use super::super::cloud::{ReadStamp, imported};
use super::ledger::Ledger;
use super::people::NAMES;
use super::vault::SimVault;
use crate::blobs::Import;
use crate::vault::request::{ContentDraft, Operation};

/// Something done to the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    Content,
    Create,
    Move,
    Trash,
    Purge,
}

impl Edit {
    /// What it is called in the counts.
    pub fn name(self) -> &'static str {
        match self {
            Edit::Content => "content",
            Edit::Create => "create",
            Edit::Move => "move",
            Edit::Trash => "trash",
            Edit::Purge => "purge",
        }
    }
}

/// Does it, if there is something to do it to. Returns what was done.
pub fn edit(
    vault: &SimVault,
    ledger: &mut Ledger,
    edit: Edit,
    dice: &mut ChaCha8Rng,
) -> Option<String> {
    let shown: Vec<FileId> = {
        let (ids, tree) = (vault.inner.ids(), vault.tree());
        let shown = ids.into_iter().filter(|id| is_shown(&tree, *id));
        shown.collect()
    };
    let folders = shown.iter().copied();
    let folders = folders.filter(|id| kind(vault, *id) == Kind::Folder);
    let folders: Vec<FileId> = [FileId::ROOT].into_iter().chain(folders).collect();
    let folder = folders[dice.random_range(0..folders.len())];
    let name = NAMES[dice.random_range(0..NAMES.len())];
    let mut operations = Vec::new();
    let what = match edit {
        Edit::Create => {
            if vault.tree().lookup(folder, name).is_some() {
                return None;
            }
            let id = FileId(dice.random());
            operations.push(Operation::CreateFile {
                id,
                kind: Kind::File,
                parent: folder,
                name: name.to_owned(),
                content: Some(store(vault, ledger, dice)),
                created_ms: 0,
            });
            format!("create {name} in {folder}")
        }
        Edit::Content => {
            let files = shown.iter().copied();
            let files = files.filter(|id| kind(vault, *id) == Kind::File);
            let id = pick(files.collect(), dice)?;
            let before = vault.tree().get(id)?.content.map(|content| content.hash);
            merge_group(&vault.tree(), id, &mut operations);
            give_up(vault, ledger, &[id]);
            operations.push(Operation::SetContent {
                id,
                content: store(vault, ledger, dice),
                replaces: before,
            });
            format!("content of {id}")
        }
        Edit::Move => {
            let id = pick(shown, dice)?;
            let tree = vault.tree();
            let is_inside = id == folder || tree.below(id).any(|below| below == folder);
            if is_inside || tree.lookup(folder, name).is_some() {
                return None;
            }
            merge_group(&tree, id, &mut operations);
            operations.push(Operation::MoveFile {
                id,
                parent: folder,
                name: name.to_owned(),
            });
            format!("move {id} to {folder} as {name}")
        }
        Edit::Trash => {
            let id = pick(shown, dice)?;
            let all: Vec<FileId> = {
                let tree = vault.tree();
                let tops = tree.group(id).into_iter().chain([id]);
                let all = tops.flat_map(|top| tree.below(top).chain([top]));
                all.collect()
            };
            give_up(vault, ledger, &all);
            merge_group(&vault.tree(), id, &mut operations);
            operations.push(Operation::TrashFile { id });
            format!("trash {id}")
        }
        Edit::Purge => {
            let id = pick(vault.inner.trashed(), dice)?;
            operations.push(Operation::PurgeFile { id });
            format!("purge {id}")
        }
    };
    let spared = spare(vault, operations, &BTreeMap::new(), vault.wall_ms());
    vault.person(spared.ok()?.operations);
    Some(what)
}

fn is_shown(tree: &Tree, id: FileId) -> bool {
    let shown = tree.shown(id);
    shown.is_some_and(|shown| !shown.trashed && !shown.waiting && shown.same_as.is_none())
        && tree.path(id).is_some()
}

fn kind(vault: &SimVault, id: FileId) -> Kind {
    let tree = vault.tree();
    tree.shown(id).map_or(Kind::Folder, |shown| shown.kind)
}

/// Somebody wants gone what these files show. What was written elsewhere at the same time, and is hidden behind that, nobody
/// gives up.
fn give_up(vault: &SimVault, ledger: &mut Ledger, ids: &[FileId]) {
    let contents = vault.file_contents(ids).unwrap_or_default();
    let contents = contents.into_iter().flatten();
    for content in contents.filter(|content| content.target.is_none()) {
        ledger.give_up_hash(&content.hash);
    }
}

/// Bytes that never were before, in the vault's own store.
fn store(vault: &SimVault, ledger: &mut Ledger, dice: &mut ChaCha8Rng) -> ContentDraft {
    let bytes = ledger.content(dice);
    ledger.wrote(&bytes);
    let stamp = ReadStamp {
        mtime_ns: 0,
        ctime_ns: 0,
        inode: 0,
        executable: false,
    };
    let draft = ContentDraft::from(&imported(&bytes, stamp, Import::Store));
    vault.store(draft.hash, bytes);
    draft
}

fn pick(among: Vec<FileId>, dice: &mut ChaCha8Rng) -> Option<FileId> {
    match among.len() {
        0 => None,
        len => Some(among[dice.random_range(0..len)]),
    }
}
