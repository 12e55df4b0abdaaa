//! Disk against rows: what people and programs did to the folder, as operations for the vault. Pure.
//!
//! First every file on disk is recognised, by inode and by path ([`recognise`]); then places are compared. Contents are
//! not: a file that may have other bytes than its row says becomes a [`Read`], and [`super::decide`] says what those
//! bytes mean. Deletions are only believed where the folder was listed, and only what the deleter can have seen goes to
//! the trash: a file that another device changed meanwhile comes back.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::tree::Tree;

use super::decide;
use super::ground::Stat;
use super::leave;
use super::names::{self, Profile};
use super::plan::Wish;
use super::recognise::{believe, missing, recognise};
use super::rows::{Rows, is_aside, kind_number};
use super::scan::{Snapshot, same_object};
use super::schedule::{Change, Spot, Turn, schedule};
use super::spelling;
use crate::vault::request::{FolderRow, Operation};

/// What the pure parts look at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What disk and vault last agreed on.
    pub rows: &'a Rows,
    /// What the vault shows.
    pub tree: &'a Tree,
    /// The folder of the vault that the synced folder stands for.
    pub vault_folder: FileId,
    /// What the file system takes as names.
    pub profile: Profile,
    /// The name of this device.
    pub label: &'a str,
    /// Wall clock, milliseconds since 1970.
    pub now_ms: i64,
}

impl View<'_> {
    /// The folder of the vault for a folder of the rows.
    pub fn vault_parent(&self, folder: FileId) -> FileId {
        self.tree.representative(if folder == self.rows.top() {
            self.vault_folder
        } else {
            folder
        })
    }

    /// The folder of the rows for a folder of the vault.
    pub fn row_parent(&self, folder: FileId) -> FileId {
        if folder == self.tree.representative(self.vault_folder) {
            self.rows.top()
        } else {
            folder
        }
    }

    /// The vault's name for a name on disk.
    pub fn vault_name(&self, folder: FileId, name: &str) -> String {
        let at_top = folder == self.rows.top();
        if !self.profile.takes_all() && spelling::has_mark(name) {
            let spelt_so = |other: &str| spelling::marked(other, at_top, self.profile) == name;
            let mut children = self.tree.children(self.vault_parent(folder));
            if let Some((found, _)) = children.find(|(other, _)| spelt_so(other)) {
                return found.to_string();
            }
        }
        names::to_vault(name, at_top, self.profile).into_owned()
    }

    /// The same for a file that is new on this disk. What the disk takes for one with a name of the vault that is not
    /// here yet is that one: of two spellings of one name it could not show both.
    pub fn new_name(&self, folder: FileId, name: &str) -> String {
        let exact = self.vault_name(folder, name);
        let parent = self.vault_parent(folder);
        if !self.profile.folds() || self.tree.lookup(parent, &exact).is_some() {
            return exact;
        }
        let key = self.profile.key(&exact);
        let twin = self
            .tree
            .children(parent)
            .find(|(other, id)| self.rows.get(*id).is_none() && self.profile.key(other) == key);
        twin.map_or_else(|| exact.clone(), |(twin, _)| twin.to_string())
    }

    /// The vault's name that the row of `id` stands for.
    fn row_name(&self, id: FileId, row: &FolderRow) -> String {
        let folder = FileId(row.parent);
        let at_top = folder == self.rows.top();
        match self.tree.shown(id) {
            Some(shown) if spelling::stands_for(&row.name, &shown.name, at_top, self.profile) => {
                shown.name.to_string()
            }
            _ => self.vault_name(folder, &row.name),
        }
    }

    /// Where the tree shows a file, if it does.
    pub fn spot(&self, id: FileId) -> Option<Spot> {
        self.tree
            .shown(id)
            .filter(|shown| !shown.trashed)
            .map(|shown| (shown.parent, shown.name.to_string()))
    }

    /// Where in the vault a row's place is.
    pub fn row_spot(&self, id: FileId, row: &FolderRow) -> Spot {
        let folder = FileId(row.parent);
        (self.vault_parent(folder), self.row_name(id, row))
    }

    /// The others that are shown as one with a file.
    pub(super) fn twins(&self, id: FileId) -> impl Iterator<Item = FileId> {
        let shown = self.tree.representative(id);
        let all = self.tree.group(id).into_iter().chain([shown]);
        all.filter(move |other| *other != id)
    }

    /// Whether the row of a file says that it is in a folder.
    fn is_row_in(&self, id: FileId, folder: FileId) -> bool {
        let folder = self.tree.representative(folder);
        let all = self.twins(id).chain([id]);
        all.filter_map(|id| self.rows.get(id))
            .any(|row| self.vault_parent(FileId(row.parent)) == folder)
    }

    /// Whether what the vault has of a file is what its row says: then whoever acts on the disk has seen it. A file that
    /// has another name only because others came to have its own was put nowhere else by anybody.
    pub fn is_seen(&self, id: FileId, row: &FolderRow) -> bool {
        let Some(known) = self.tree.get(id) else {
            return false;
        };
        let (spot, row_spot) = (self.spot(id), self.row_spot(id, row));
        let stays = || {
            let folder = self.tree.representative(known.place.parent);
            (folder, known.place.name) == row_spot
        };
        (spot.as_ref() == Some(&row_spot) || (spot.is_some() && stays()))
            && known.content.is_none_or(|content| content.hash == row.hash)
    }
}

/// A file or link whose bytes have to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The file it is by inode or path; `None` for one not known yet.
    pub id: Option<FileId>,
    /// Its folder, as in the rows.
    pub parent: FileId,
    /// Its name on disk.
    pub name: String,
    /// File or link.
    pub kind: Kind,
    /// What the file system said of it.
    pub stat: Stat,
    /// Where a link points.
    pub target: Option<String>,
    /// Its path within the synced folder.
    pub path: PathBuf,
    /// Whether its bytes were those of another file here, which goes on with others: a backup of that one.
    pub is_backup: bool,
}

/// What to do about what was found.
#[derive(Clone, Debug, Default)]
pub struct LocalPlan {
    /// Operations on folders and places, in order.
    pub operations: Vec<Operation>,
    /// Rows to commit with them.
    pub rows: Vec<(FileId, Option<FolderRow>)>,
    /// Files to read afterwards; folders first, then by path.
    pub reads: Vec<Read>,
    /// Folders to look into again: new or moved ones, in which files may have come before anyone watched.
    pub look_again: Vec<PathBuf>,
    /// Files that are not where they were, and were when last looked for: not believed to be deleted yet.
    pub missing: Vec<FileId>,
    /// How many of them are files (not folders) that the vault shows.
    pub doubtful: usize,
    /// Files (not folders) that are gone and that the vault shows: what it loses if this plan is carried out.
    pub gone: Vec<FileId>,
    /// Files of which the vault has something that the disk has not.
    pub revisit: Vec<FileId>,
    /// Places that were taken, so that a conflict name was given.
    pub conflicts: u64,
}

/// Compares. Of what is not there, only what is in `believed` counts as deleted: it was missed before, so it is not on
/// its way from one folder to another. `fresh` makes ids.
pub fn compare(
    view: &View<'_>,
    disk: &Snapshot,
    believed: &BTreeSet<FileId>,
    fresh: &mut dyn FnMut() -> FileId,
) -> LocalPlan {
    let mut ids = recognise(view.rows, disk);
    let assigned: BTreeSet<FileId> = ids.iter().flatten().copied().collect();
    let is_loss = |id: &FileId| {
        view.rows.get(*id).is_some_and(|row| row.kind != 1) && view.wish(*id) != Wish::Gone
    };
    let mut plan = LocalPlan::default();
    let missing = missing(view.rows, disk, &ids, &assigned);
    let missing = leave::without_ignored(view.rows, disk, missing, &mut plan);
    leave::set_aside(view.rows, disk, &ids, &mut plan);
    let (missing, doubted) = believe(view.rows, disk, &ids, missing, believed);
    plan.doubtful = doubted.iter().filter(|id| is_loss(id)).count();
    plan.gone = missing.iter().copied().filter(is_loss).collect();
    plan.missing = doubted;
    let only_ignored = leave::only_ignored(disk);
    let mut changes = Changes::default();
    for (at, node) in disk.nodes.iter().enumerate().skip(1) {
        if let Some(id) = ids[at]
            && let Some(row) = view.rows.get(id)
            && (row.name != node.name
                || ids[node.parent].is_none_or(|parent| parent.0 != row.parent))
        {
            // Those that show as one with it move with it.
            changes.leaving.extend([id, view.tree.representative(id)]);
        }
    }
    changes.leaving.extend(missing.iter().copied());
    for at in 1..disk.nodes.len() {
        let node = &disk.nodes[at];
        let Some(parent) = ids[node.parent] else {
            continue;
        };
        if node.skipped {
            continue;
        }
        match (
            ids[at].and_then(|id| Some((id, view.rows.get(id)?))),
            node.kind,
        ) {
            (Some((id, row)), _) => known(view, disk, at, parent, id, row, &mut plan, &mut changes),
            (None, Kind::Folder)
                if only_ignored.contains(&at) && !leave::is_awaited(view, parent, &node.name) => {}
            (None, Kind::Folder) => {
                ids[at] = Some(new_folder(
                    view,
                    disk,
                    at,
                    parent,
                    &mut plan,
                    &mut changes,
                    fresh,
                ))
            }
            (None, kind) => {
                let mut known = view.rows.with_inode(node.stat.inode);
                let mut read = read(disk, at, parent, None);
                read.is_backup = known.any(|id| {
                    let row = view.rows.get(id);
                    row.is_some_and(|row| same_object(row, kind, &node.stat))
                });
                plan.reads.push(read);
            }
        }
    }
    deletions(view, &missing, &assigned, &mut plan, &mut changes);
    changes.into_operations(view, &mut plan.operations);
    plan
}

fn read(disk: &Snapshot, at: usize, parent: FileId, id: Option<FileId>) -> Read {
    let node = &disk.nodes[at];
    Read {
        id,
        parent,
        name: node.name.clone(),
        kind: node.kind,
        stat: node.stat,
        target: node.target.clone(),
        path: disk.path(at),
        is_backup: false,
    }
}

#[expect(clippy::too_many_arguments, reason = "the state of one loop")]
fn known(
    view: &View<'_>,
    disk: &Snapshot,
    at: usize,
    parent: FileId,
    id: FileId,
    row: &FolderRow,
    plan: &mut LocalPlan,
    changes: &mut Changes,
) {
    let node = &disk.nodes[at];
    let moved = FileId(row.parent) != parent || row.name != node.name;
    let mut new = FolderRow {
        parent: parent.0,
        name: node.name.clone(),
        ..row.clone()
    };
    if node.kind == Kind::Folder {
        if row.inode != node.stat.inode || is_aside(row) {
            (new.inode, new.ctime_ns) = (node.stat.inode, node.stat.ctime_ns);
        }
    } else if node.stat.agrees(row, moved) && node.stat.executable == row.executable {
        new.ctime_ns = node.stat.ctime_ns;
    } else {
        plan.reads.push(read(disk, at, parent, Some(id)));
    }
    if new != *row {
        plan.rows.push((id, Some(new)));
    }
    if !moved {
        return;
    }
    if node.kind == Kind::Folder && !node.listed {
        plan.look_again.push(disk.path(at));
    }
    let subject = view.tree.representative(id);
    let from = view.spot(subject);
    let folder = view.vault_parent(parent);
    let is_same_name = view.profile.is_same_form(&row.name, &node.name);
    // A name that was not touched goes on being the vault's, also where the disk shows it otherwise.
    let name = match &from {
        Some((_, shown)) if is_same_name && view.row_spot(id, row).1 == *shown => shown.clone(),
        _ => view.vault_name(parent, &node.name),
    };
    if from.as_ref() == Some(&(folder, name.clone())) {
        return;
    }
    let name = free_name(view, (folder, name), subject, node.kind, plan, changes);
    changes.list.push(Change {
        id: subject,
        from,
        to: Some((folder, name)),
    });
}

fn new_folder(
    view: &View<'_>,
    disk: &Snapshot,
    at: usize,
    parent: FileId,
    plan: &mut LocalPlan,
    changes: &mut Changes,
    fresh: &mut dyn FnMut() -> FileId,
) -> FileId {
    let node = &disk.nodes[at];
    let folder = view.vault_parent(parent);
    let name = view.new_name(parent, &node.name);
    // One that stands for another of this disk is on this disk, wherever that went.
    let there = view.tree.lookup(folder, &name).filter(|id| {
        view.rows.get(*id).is_none()
            && !changes.created.contains(id)
            && !changes.stand_ins(view).contains(id)
    });
    let adopted = there.filter(|id| {
        view.tree
            .shown(*id)
            .is_some_and(|shown| shown.kind == Kind::Folder)
    });
    let id = adopted.unwrap_or_else(|| {
        let id = fresh();
        let name = free_name(view, (folder, name), id, Kind::Folder, plan, changes);
        changes.list.push(Change {
            id,
            from: None,
            to: Some((folder, name)),
        });
        id
    });
    changes.created.insert(id);
    plan.rows.push((
        id,
        Some(row_of(
            parent,
            &node.name,
            Kind::Folder,
            &node.stat,
            [0; 32],
        )),
    ));
    plan.look_again.push(disk.path(at));
    // What the vault has in it is not here yet.
    plan.revisit.extend(adopted);
    id
}

/// `spot`'s name if it will be free, else a conflict name.
fn free_name(
    view: &View<'_>,
    spot: Spot,
    id: FileId,
    kind: Kind,
    plan: &mut LocalPlan,
    changes: &Changes,
) -> String {
    match view.tree.lookup(spot.0, &spot.1) {
        Some(other) if other != id && !changes.leaving.contains(&other) => {
            plan.conflicts += 1;
            decide::free_conflict_name(view, spot.0, &spot.1, kind != Kind::Folder)
        }
        _ => spot.1,
    }
}

/// Trashes what is missing, by its topmost folders, except what nobody here can have seen.
fn deletions(
    view: &View<'_>,
    missing: &[FileId],
    assigned: &BTreeSet<FileId>,
    plan: &mut LocalPlan,
    changes: &mut Changes,
) {
    let gone: BTreeSet<FileId> = missing.iter().copied().collect();
    let mut whole: BTreeMap<FileId, bool> = BTreeMap::new();
    // From below: whether everything that the vault shows in it is gone from the disk, and was seen.
    for id in missing.iter().rev() {
        let seen = view.rows.get(*id).is_some_and(|row| view.is_seen(*id, row));
        let all = seen
            && view
                .tree
                .children(*id)
                .all(|(_, child)| match gone.contains(&child) {
                    true => whole.get(&child).copied().unwrap_or(false),
                    // It was moved out of it here. What somebody else moved into it, and is here in its former place,
                    // has not been seen in it.
                    false => assigned.contains(&child) && view.is_row_in(child, *id),
                });
        whole.insert(*id, all);
    }
    for id in missing {
        let row = view.rows.get(*id);
        let parent_goes =
            row.is_some_and(|row| whole.get(&FileId(row.parent)).copied().unwrap_or(false));
        // Of several that are shown as one by now, one is gone and another still here: that one stays.
        let has_twin = || view.twins(*id).any(|other| assigned.contains(&other));
        if whole.get(id).copied().unwrap_or(false) && !parent_goes && !has_twin() {
            let subject = view.tree.representative(*id);
            changes.list.push(Change {
                id: subject,
                from: view.spot(subject),
                to: None,
            });
        }
        plan.rows.push((*id, None));
        plan.revisit.extend(view.twins(*id));
        plan.revisit.push(*id);
    }
}

/// A row for what is on disk.
pub fn row_of(parent: FileId, name: &str, kind: Kind, stat: &Stat, hash: [u8; 32]) -> FolderRow {
    FolderRow {
        parent: parent.0,
        name: name.to_owned(),
        kind: kind_number(kind),
        inode: stat.inode,
        size: stat.size,
        // A folder's own times change with everything in it, and mean nothing here.
        mtime_ns: if kind == Kind::Folder {
            0
        } else {
            stat.mtime_ns
        },
        ctime_ns: stat.ctime_ns,
        executable: stat.executable,
        hash,
    }
}

#[derive(Default)]
struct Changes {
    list: Vec<Change>,
    /// Files that leave their place, so that it will be free.
    leaving: BTreeSet<FileId>,
    created: BTreeSet<FileId>,
    stand_ins: OnceCell<BTreeSet<FileId>>,
}

impl Changes {
    /// Those that stand for others that have rows. Looked for once, and only where there is something to adopt.
    fn stand_ins(&self, view: &View<'_>) -> &BTreeSet<FileId> {
        self.stand_ins.get_or_init(|| {
            let rows = view.rows.iter();
            let pairs = rows.map(|(id, _)| (id, view.tree.representative(id)));
            pairs
                .filter(|(id, one)| id != one)
                .map(|(_, one)| one)
                .collect()
        })
    }

    fn into_operations(self, view: &View<'_>, operations: &mut Vec<Operation>) {
        let parent = |id: FileId| view.tree.shown(id).map(|shown| shown.parent);
        for turn in schedule(&self.list, |spot| view.tree.lookup(spot.0, &spot.1), parent) {
            match turn {
                Turn::Park(id) => {
                    if let Some((parent, _)) = view.spot(id) {
                        operations.push(Operation::MoveFile {
                            id,
                            parent,
                            name: format!("moving {id}"),
                        });
                    }
                }
                Turn::Do(index) => {
                    let Change { id, to, .. } = self.list[index].clone();
                    if !self.created.contains(&id) {
                        merge_group(view.tree, id, operations);
                    }
                    operations.push(match to {
                        None => Operation::TrashFile { id },
                        Some((parent, name)) if self.created.contains(&id) => {
                            Operation::CreateFile {
                                id,
                                kind: Kind::Folder,
                                parent,
                                name,
                                content: None,
                                created_ms: view.now_ms,
                            }
                        }
                        Some((parent, name)) => Operation::MoveFile { id, parent, name },
                    });
                }
            }
        }
    }
}

/// An operation on one of several that are shown as one makes them one for good.
pub fn merge_group(tree: &Tree, id: FileId, operations: &mut Vec<Operation>) {
    let into = tree.representative(id);
    operations.extend(
        tree.group(id)
            .into_iter()
            .filter(|other| *other != into)
            .map(|id| Operation::MergeFileInto { id, into }),
    );
}
