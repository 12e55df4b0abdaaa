//! Which file on disk is which, and which are gone. Pure.
//!
//! A file is where its inode is, if that is still the same object; else it is what its path says. Programs that save
//! by writing another file and renaming it, with or without a backup, change the inode and mean the same file.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::{FileId, Kind};

use super::rows::{Rows, row_kind};
use super::scan::{Snapshot, same_object};
use crate::vault::request::FolderRow;

/// Which file each node is: by inode where it can be, else by path. Index 0 is the synced folder.
pub(super) fn recognise(rows: &Rows, disk: &Snapshot) -> Vec<Option<FileId>> {
    let mut by_inode: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, node) in disk.nodes.iter().enumerate().skip(1) {
        if !node.skipped {
            by_inode.entry(node.stat.inode).or_default().push(at);
        }
    }
    let is_on_disk = |row: &FolderRow| {
        by_inode.get(&row.inode).is_some_and(|found| {
            found
                .iter()
                .any(|at| same_object(row, disk.nodes[*at].kind, &disk.nodes[*at].stat))
        })
    };
    let mut ids: Vec<Option<FileId>> = vec![None; disk.nodes.len()];
    let mut taken: BTreeSet<FileId> = BTreeSet::new();
    ids[0] = Some(rows.top());
    let at_path = |ids: &[Option<FileId>], at: usize| {
        let id = rows.child(ids[disk.nodes[at].parent]?, &disk.nodes[at].name)?;
        rows.get(id)
            .filter(|row| row_kind(row) == disk.nodes[at].kind)
            .map(|row| (id, row))
    };
    // Folders, from above. A folder has one name, so its inode tells where it is.
    for at in 1..disk.nodes.len() {
        let node = &disk.nodes[at];
        if node.kind != Kind::Folder || node.skipped {
            continue;
        }
        let by_path = at_path(&ids, at).filter(|(id, _)| !taken.contains(id));
        let here = by_path
            .filter(|(_, row)| same_object(row, Kind::Folder, &node.stat))
            .map(|(id, _)| id);
        let moved = || {
            rows.with_inode(node.stat.inode).find(|id| {
                !taken.contains(id)
                    && rows
                        .get(*id)
                        .is_some_and(|row| same_object(row, Kind::Folder, &node.stat))
            })
        };
        let replaced = || {
            by_path
                .filter(|(_, row)| !is_on_disk(row))
                .map(|(id, _)| id)
        };
        if let Some(id) = here.or_else(moved).or_else(replaced) {
            ids[at] = Some(id);
            taken.insert(id);
        }
    }
    let files: Vec<usize> = (1..disk.nodes.len())
        .filter(|at| disk.nodes[*at].kind != Kind::Folder && !disk.nodes[*at].skipped)
        .collect();
    // Files that are where they were.
    for &at in &files {
        if let Some((id, row)) = at_path(&ids, at)
            && same_object(row, disk.nodes[at].kind, &disk.nodes[at].stat)
        {
            ids[at] = Some(id);
            taken.insert(id);
        }
    }
    // Files that moved, unless another name of the same file is still where it was, or something was saved over it.
    // Mostly there are none, and what finds them is dear where there are many files.
    let may_have_moved = files
        .iter()
        .filter(|at| ids[**at].is_none())
        .any(|at| rows.with_inode(disk.nodes[*at].stat.inode).next().is_some());
    let looked_at = if may_have_moved { disk.nodes.len() } else { 0 };
    let homes: BTreeMap<(FileId, &str), usize> = (1..looked_at)
        .filter_map(|at| {
            Some((
                (ids[disk.nodes[at].parent]?, disk.nodes[at].name.as_str()),
                at,
            ))
        })
        .collect();
    let folders: BTreeMap<FileId, usize> = ids
        .iter()
        .enumerate()
        .take(looked_at)
        .filter_map(|(at, id)| Some(((*id)?, at)))
        .collect();
    for &at in &files {
        let node = &disk.nodes[at];
        if ids[at].is_some() {
            continue;
        }
        // Moved over another that is gone for it: that other one has new content, and keeps its history.
        if at_path(&ids, at).is_some_and(|(id, row)| !taken.contains(&id) && !is_on_disk(row)) {
            continue;
        }
        let moved = rows.with_inode(node.stat.inode).find(|id| {
            let Some(row) = rows
                .get(*id)
                .filter(|row| !taken.contains(id) && same_object(row, node.kind, &node.stat))
            else {
                return false;
            };
            let folder = FileId(row.parent);
            match homes.get(&(folder, row.name.as_str())) {
                // Saved with a backup: the old file under a new name, a new one in its place, which goes on being it.
                Some(home) => {
                    let home = &disk.nodes[*home];
                    home.kind != node.kind
                        || rows.with_inode(home.stat.inode).any(|other| {
                            rows.get(other)
                                .is_some_and(|row| same_object(row, home.kind, &home.stat))
                        })
                }
                None => folders
                    .get(&folder)
                    .is_none_or(|folder| disk.nodes[*folder].listed),
            }
        });
        if let Some(id) = moved {
            ids[at] = Some(id);
            taken.insert(id);
        }
    }
    // Saved by writing another file and renaming it.
    for &at in &files {
        if ids[at].is_none()
            && let Some((id, _)) = at_path(&ids, at)
            && !taken.contains(&id)
        {
            ids[at] = Some(id);
            taken.insert(id);
        }
    }
    ids
}

/// Rows whose files are nowhere, each before those below it.
pub(super) fn missing(
    rows: &Rows,
    disk: &Snapshot,
    ids: &[Option<FileId>],
    assigned: &BTreeSet<FileId>,
) -> Vec<FileId> {
    let occupied: BTreeSet<(FileId, &str)> = disk
        .nodes
        .iter()
        .skip(1)
        .filter(|node| node.skipped)
        .filter_map(|node| Some((ids[node.parent]?, node.name.as_str())))
        .collect();
    let mut gone = Vec::new();
    let mut ousted: Vec<FileId> = rows.ousted().filter(|id| !assigned.contains(id)).collect();
    while let Some(id) = ousted.pop() {
        gone.push(id);
        ousted.extend(
            rows.children(id)
                .map(|(_, id)| id)
                .filter(|id| !assigned.contains(id)),
        );
    }
    for (at, node) in disk.nodes.iter().enumerate() {
        let Some(folder) = ids[at].filter(|_| node.kind == Kind::Folder && node.listed) else {
            continue;
        };
        let mut open: Vec<FileId> = rows
            .children(folder)
            .filter(|(name, id)| !assigned.contains(id) && !occupied.contains(&(folder, *name)))
            .map(|(_, id)| id)
            .collect();
        while let Some(id) = open.pop() {
            gone.push(id);
            open.extend(
                rows.children(id)
                    .map(|(_, id)| id)
                    .filter(|id| !assigned.contains(id)),
            );
        }
    }
    gone
}

/// Splits what is missing into what is gone and what may be on its way elsewhere. Where something else has the name by
/// now, and below a folder that is gone, there is no doubt.
pub(super) fn believe(
    rows: &Rows,
    disk: &Snapshot,
    ids: &[Option<FileId>],
    missing: Vec<FileId>,
    believed: &BTreeSet<FileId>,
) -> (Vec<FileId>, Vec<FileId>) {
    if missing.is_empty() {
        return Default::default();
    }
    let taken: BTreeSet<(FileId, &str)> = disk
        .nodes
        .iter()
        .skip(1)
        .filter_map(|node| Some((ids[node.parent]?, node.name.as_str())))
        .collect();
    let mut gone = BTreeSet::new();
    missing.into_iter().partition(|id| {
        let sure = believed.contains(id)
            || rows.get(*id).is_some_and(|row| {
                gone.contains(&FileId(row.parent))
                    || taken.contains(&(FileId(row.parent), row.name.as_str()))
            });
        if sure {
            gone.insert(*id);
        }
        sure
    })
}
