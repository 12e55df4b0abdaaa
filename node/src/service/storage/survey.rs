//! One look at every file: what is here, what is to be here, and what may be dropped.

use std::collections::{HashMap, HashSet};

use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::tree::Tree;
use coffer_protocol::eviction::Naming;

use super::super::running::Running;
use super::super::store_error;
use crate::control::{Amount, ControlError};
use crate::vault::storage::{Plan, Storage};

/// A file that has a content and is not in the trash.
pub struct Seen {
    /// Which.
    pub id: FileId,
    /// What names its content.
    pub naming: Naming,
    /// The content's hash.
    pub hash: [u8; 32],
    /// The content's length in bytes.
    pub size: u64,
    /// Whether all of its bytes are here.
    pub here: bool,
    /// Whether it is kept here only while there is room.
    pub on_demand: bool,
    /// Whether it is shown by itself, and not as one with another of the same name and content.
    pub is_itself: bool,
}

impl Seen {
    /// Whether there is something to drop, and the settings let it go. Whether other devices do is another question.
    pub fn may_be_dropped(&self) -> bool {
        self.here && self.on_demand && self.size > 0
    }
}

/// All of them.
pub struct Survey {
    pub files: Vec<Seen>,
    pub used: Amount,
}

/// What they come to, as they are shown.
#[derive(Default)]
pub struct Totals {
    pub kept: Amount,
    pub used: Amount,
    pub elsewhere: Amount,
}

impl Survey {
    /// Looks. Files that show as one with another are files of their own here: each document names its content.
    pub fn of(running: &Running, storage: &Storage) -> Result<Survey, ControlError> {
        let (mut files, mut used) = (Vec::new(), Amount::default());
        each(running, storage, |_, seen| {
            if seen.here && seen.on_demand {
                used.add(seen.size);
            }
            files.push(seen);
        })?;
        Ok(Survey { files, used })
    }
}

/// The same without a list of them, for there may be very many.
pub fn each(
    running: &Running,
    storage: &Storage,
    mut see: impl FnMut(&Tree, Seen),
) -> Result<Totals, ControlError> {
    let mut wanted: HashSet<FileId> = HashSet::new();
    let each = running.vault.each_wanted(|file| wanted.insert(file.id));
    each.map_err(store_error)?;
    let tree = running.vault.tree();
    let mut plan = Plan::new(&tree, storage, running.folders.vault_folders());
    let everything = storage.keeps_everything();
    let mut totals = Totals::default();
    for every in tree.every() {
        let id = every.id;
        let Some(content) = every.content.filter(|_| every.kind == Kind::File) else {
            continue;
        };
        if every.trashed {
            continue;
        }
        let here = !wanted.contains(&id);
        let on_demand = !everything && !plan.keeps(id);
        match (on_demand, here) {
            _ if !every.is_itself => {}
            (true, true) => totals.used.add(content.size),
            (true, false) => totals.elsewhere.add(content.size),
            (false, true) => totals.kept.add(content.size),
            (false, false) => {}
        }
        let seen = Seen {
            id,
            naming: Naming {
                actor: content.dot.writer,
                seq: content.dot.seq,
            },
            hash: content.hash,
            size: content.size,
            here,
            on_demand,
            is_itself: every.is_itself,
        };
        see(&tree, seen);
    }
    Ok(totals)
}

/// What is to be here and is not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Due(pub Amount);

impl Due {
    /// Whether there is any: found at the first, mostly.
    pub fn any(running: &Running, storage: &Storage) -> Result<bool, ControlError> {
        Ok(Due::up_to(1, running, storage)?.0.files > 0)
    }

    /// Looks at what is wanted only.
    pub fn of(running: &Running, storage: &Storage) -> Result<Due, ControlError> {
        Due::up_to(u64::MAX, running, storage)
    }

    /// Bytes of it that have come already, of large files that are not whole yet.
    pub fn come(running: &Running, storage: &Storage) -> Result<u64, ControlError> {
        let coming = running.blobs.coming();
        if coming.is_empty() {
            return Ok(0);
        }
        let tree = running.vault.tree();
        let mut plan = Plan::new(&tree, storage, running.folders.vault_folders());
        let mut bytes = 0;
        let each = running.vault.each_wanted(|file| {
            if let Some(come) = coming.get(&file.hash)
                && tree.shown(file.id).is_some_and(|shown| !shown.trashed)
                && (storage.keeps_everything() || plan.keeps(file.id))
            {
                bytes += file.size.min(*come);
            }
            true
        });
        each.map_err(store_error)?;
        Ok(bytes)
    }

    fn up_to(files: u64, running: &Running, storage: &Storage) -> Result<Due, ControlError> {
        let tree = running.vault.tree();
        let mut plan = Plan::new(&tree, storage, running.folders.vault_folders());
        let mut due = Due::default();
        let each = running.vault.each_wanted(|file| {
            let trashed = tree.shown(file.id).is_some_and(|shown| shown.trashed);
            if !trashed && (storage.keeps_everything() || plan.keeps(file.id)) {
                due.0.add(file.size);
            }
            due.0.files < files
        });
        each.map_err(store_error)?;
        Ok(due)
    }
}

/// When contents were last asked for, by the table.
pub fn used_at(running: &Running) -> Result<HashMap<FileId, u64>, crate::store::StoreError> {
    use redb::{ReadableDatabase, ReadableTable};
    let read = running.vault.database().begin_read()?;
    let table = match read.open_table(crate::store::tables::USED) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(HashMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut used = HashMap::new();
    for item in table.iter()? {
        let (id, at) = item?;
        used.insert(FileId(*id.value()), at.value());
    }
    Ok(used)
}
