//! What ignoring means for files that the vault has: they are left alone, on both sides.
//!
//! A file that is in the vault and is ignored from now on keeps its row. What is done to it here is not looked at, so
//! it changes and vanishes nowhere else. What others do to it is still done here as long as its bytes on disk are those
//! of its row; where they are not, the file on disk stays as it is, and is this device's own affair. One that is gone
//! from the disk stays away until the vault has something new of it. Its row is marked ([`super::rows::ASIDE`]) while
//! it is ignored: if it is missing when the rules no longer speak of it, that is no deletion, and it comes back.
//!
//! A folder that was deleted elsewhere and holds ignored files here stays, with them, and is no longer of the vault.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use coffer_crdt::files::{FileId, Kind};

use super::apply::{Hands, Trouble};
use super::compare::{LocalPlan, View};
use super::engine::{Engine, Halt, blocking};
use super::local::REST;
use super::place::Place;
use super::plan::Bring;
use super::rows::{self, aside, is_aside, row_kind, true_ctime};
use super::rules::Rules;
use super::scan::{Depth, Snapshot};
use super::state::Problem;
use super::{Contents, FolderVault};
use crate::vault::request::FolderRow;

/// Ignored files named where a folder stays because of them.
const NAMED: usize = 3;

/// Of what is missing (each before those below it), what may count as deleted. The others are ignored, or were.
pub(super) fn without_ignored(
    rows: &rows::Rows,
    disk: &Snapshot,
    missing: Vec<FileId>,
    plan: &mut LocalPlan,
) -> Vec<FileId> {
    let mut gone: BTreeSet<FileId> = BTreeSet::new();
    missing
        .into_iter()
        .filter(|id| {
            let Some(row) = rows.get(*id) else {
                return true;
            };
            // What is in a folder that is deleted goes with it.
            let ignored = !gone.contains(&FileId(row.parent))
                && rows
                    .path(*id)
                    .is_some_and(|path| disk.rules.is_ignored(&path, row.kind == 1));
            if ignored {
                if !is_aside(row) {
                    plan.rows.push((*id, Some(aside(row))));
                }
                false
            } else if is_aside(row) {
                plan.rows.push((*id, None));
                plan.revisit.push(*id);
                false
            } else {
                gone.insert(*id);
                true
            }
        })
        .collect()
}

/// Marks the rows of ignored files that are on disk, and of all below ignored folders.
pub(super) fn set_aside(
    rows: &rows::Rows,
    disk: &Snapshot,
    ids: &[Option<FileId>],
    plan: &mut LocalPlan,
) {
    for node in disk.nodes.iter().filter(|node| node.ignored) {
        let here = ids[node.parent].and_then(|folder| rows.child(folder, &node.name));
        let Some(here) = here else { continue };
        let below = rows.below(here);
        let all = std::iter::once(here).chain(below);
        plan.rows.extend(all.filter_map(|id| {
            let row = rows.get(id).filter(|row| !is_aside(row))?;
            Some((id, Some(aside(row))))
        }));
    }
}

/// Folders that hold ignored files and nothing else: not worth a folder on other devices, and perhaps deleted there.
pub(super) fn only_ignored(disk: &Snapshot) -> BTreeSet<usize> {
    if !disk.nodes.iter().any(|node| node.ignored) {
        return BTreeSet::new();
    }
    let mut children = vec![(0_usize, 0_usize); disk.nodes.len()];
    let mut found = BTreeSet::new();
    // Children stand after their folders.
    for at in (1..disk.nodes.len()).rev() {
        let node = &disk.nodes[at];
        let (all, ignored) = children[at];
        let is_one = node.kind == Kind::Folder && node.listed && all > 0 && all == ignored;
        if is_one {
            found.insert(at);
        }
        let above = &mut children[node.parent];
        above.0 += 1;
        above.1 += usize::from(is_one || node.ignored);
    }
    found
}

/// Whether the vault has a folder of this name that is not on disk yet.
pub(super) fn is_awaited(view: &View<'_>, parent: FileId, name: &str) -> bool {
    let folder = view.vault_parent(parent);
    view.tree
        .lookup(folder, &view.new_name(parent, name))
        .is_some()
}

/// What a step found that is not as its row says.
enum Left {
    /// It is no matter of the rules.
    No,
    /// The disk's side stays as it is.
    Alone,
    /// The vault's side is gone, the disk's is this device's own from now on.
    Own,
}

impl Hands<'_> {
    /// What is not as its row says may be ignored: then it is left alone.
    pub(super) fn mind_rules(
        &mut self,
        id: FileId,
        spot: Option<(FileId, &str)>,
        goes: bool,
        result: Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let is_surprise = match &result {
            Ok(()) | Err(Trouble::Waits(_)) => false,
            Err(Trouble::Surprise(_)) => true,
            Err(Trouble::Refused(error)) => error.kind() == io::ErrorKind::NotFound,
        };
        if !is_surprise {
            return result;
        }
        match self.leave(id, spot, goes) {
            Left::No => result,
            Left::Own => Ok(()),
            Left::Alone => {
                self.outcome.alone.push(id);
                Ok(())
            }
        }
    }

    /// Whether a place on disk is an ignored folder's.
    pub(super) fn is_ignored_folder(&self, parent: FileId, name: &str) -> bool {
        let path = self.shared.rows().path(parent);
        path.is_some_and(|path| self.place.rules().is_ignored(&path.join(name), true))
    }

    /// What the rules make of a surprise about a file, whose place on disk is its row's or else `spot`. `goes` if the
    /// vault wants it gone.
    fn leave(&mut self, id: FileId, spot: Option<(FileId, &str)>, goes: bool) -> Left {
        let (parent, name, is_folder) = {
            let rows = self.shared.rows();
            match (rows.get(id), spot) {
                (Some(row), _) => (
                    FileId(row.parent),
                    row.name.clone(),
                    row_kind(row) == Kind::Folder,
                ),
                (None, Some((parent, name))) => (parent, name.to_owned(), false),
                (None, None) => return Left::No,
            }
        };
        let path = self.shared.rows().path(parent);
        let Some(path) = path.map(|path| path.join(&name)) else {
            return Left::No;
        };
        if !self.place.rules().is_ignored(&path, is_folder) {
            return Left::No;
        }
        if goes {
            self.unset(id);
            return Left::Own;
        }
        if self.forget_absent(id, parent) {
            return Left::No;
        }
        let there = self.folder(parent).and_then(|folder| folder.stat_at(&name));
        if there.is_ok() { Left::Alone } else { Left::No }
    }

    /// Forgets the rows, from a file upwards, of what was ignored and is not on disk: it will be made anew.
    fn forget_absent(&mut self, id: FileId, parent: FileId) -> bool {
        let absent: Vec<FileId> = {
            let rows = self.shared.rows();
            let mut at = parent;
            let mut chain = vec![id];
            while let Some(row) = rows.get(at).filter(|_| chain.len() <= rows.len()) {
                chain.push(at);
                at = FileId(row.parent);
            }
            chain.retain(|id| {
                rows.get(*id).is_some_and(is_aside)
                    && rows.path(*id).is_some_and(|path| !self.is_there(&path))
            });
            chain
        };
        for id in &absent {
            self.unset(*id);
        }
        !absent.is_empty()
    }

    fn is_there(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let folder = self.place.folder(path.parent().unwrap_or(Path::new("")));
        match (folder, name) {
            (Ok(folder), Some(name)) => folder.stat_at(name).is_ok(),
            _ => false,
        }
    }

    /// A row with the mark of ignored files if its place is ignored, else without.
    pub(super) fn marked(&self, row: FolderRow) -> FolderRow {
        let is_ignored = {
            let (rows, parent) = (self.shared.rows(), FileId(row.parent));
            // Where its folder is ignored, that is marked: no need to ask the rules about each folder above.
            rows.get(parent).is_some_and(is_aside)
                || rows.path(parent).is_some_and(|path| {
                    let rules = self.place.rules();
                    rules.is_ignored_itself(&path.join(&row.name), row.kind == 1)
                })
        };
        FolderRow {
            ctime_ns: true_ctime(&row) + if is_ignored { rows::ASIDE } else { 0 },
            ..row
        }
    }

    /// A folder that shall go is not empty: whether only ignored files are in it, so that it stays as it is.
    pub(super) fn leave_folder(&mut self, id: FileId) -> bool {
        let path = {
            let rows = self.shared.rows();
            if rows.children(id).next().is_some() {
                return false;
            }
            rows.path(id)
        };
        let Some(path) = path else { return false };
        let mut names = Vec::new();
        if !holds_only_ignored(self.place, &path, &mut names) {
            return false;
        }
        names.truncate(NAMED);
        self.outcome.left.push((path, names.join(", ")));
        self.unset(id);
        true
    }
}

/// Whether a folder holds ignored files and nothing else, as it is now.
fn holds_only_ignored(place: &Place, folder: &Path, names: &mut Vec<String>) -> bool {
    let rules = place.rules();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        let Ok(opened) = place.folder(&path) else {
            return false;
        };
        let Ok(entries) = opened.list() else {
            return false;
        };
        let mut any = false;
        for entry in entries {
            let Some(name) = entry.to_str() else {
                return false;
            };
            any = true;
            let Ok(stat) = opened.stat_at(name) else {
                return false;
            };
            let (here, is_folder) = (path.join(name), stat.kind == Some(Kind::Folder));
            if rules.is_ignored_itself(&here, is_folder) {
                if names.len() <= NAMED {
                    names.push(name.to_owned());
                }
            } else if is_folder {
                open.push(here);
            } else {
                return false;
            }
        }
        if !any && path != folder {
            return false;
        }
    }
    true
}

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Leaves out contents for ignored files that were changed here: fetching them would be for nothing.
    pub(super) async fn without_left(&mut self, bring: Vec<Bring>) -> Result<Vec<Bring>, Halt> {
        if bring.is_empty() {
            return Ok(bring);
        }
        let place = self.place()?;
        let spots: Vec<Option<(PathBuf, Option<FolderRow>)>> = {
            let tree = self.vault.tree();
            let rows = self.shared.rows();
            let view = self.view(&rows, &tree, "");
            let rules = place.rules();
            bring
                .iter()
                .map(|bring| {
                    let row = rows.get(bring.id).cloned();
                    let path = match (&row, view.wish(bring.id)) {
                        (Some(_), _) => rows.path(bring.id)?,
                        (None, super::plan::Wish::Here(want)) => {
                            rows.path(want.parent)?.join(want.name)
                        }
                        (None, _) => return None,
                    };
                    rules.is_ignored(&path, false).then_some((path, row))
                })
                .collect()
        };
        if spots.iter().all(Option::is_none) {
            return Ok(bring);
        }
        let left = blocking(move || {
            let is_left = |(path, row): &(PathBuf, Option<FolderRow>)| {
                let name = path.file_name().and_then(|name| name.to_str());
                let folder = place.folder(path.parent().unwrap_or(Path::new("")));
                let (Some(name), Ok(folder)) = (name, folder) else {
                    return false;
                };
                folder
                    .stat_at(name)
                    .is_ok_and(|stat| row.as_ref().is_none_or(|row| !stat.agrees(row, false)))
            };
            spots
                .iter()
                .map(|spot| spot.as_ref().is_some_and(is_left))
                .collect::<Vec<bool>>()
        });
        let left = left.await?;
        let mut rest = Vec::with_capacity(bring.len());
        for (bring, is_left) in bring.into_iter().zip(left) {
            if is_left {
                self.leave_alone(bring.id);
            } else {
                rest.push(bring);
            }
        }
        Ok(rest)
    }

    /// The disk's side of an ignored file stays as it is.
    pub(super) fn leave_alone(&mut self, id: FileId) {
        self.forget(id);
        self.alone.insert(id);
    }

    /// Folders that stay although they were deleted elsewhere.
    pub(super) fn folders_left(&self) -> impl Iterator<Item = Problem> {
        self.left.iter().map(|(path, names)| Problem {
            path: path.to_string_lossy().into_owned(),
            reason: format!(
                "the folder was deleted on another device; it stays here because of ignored files in it: {names}"
            ),
        })
    }

    /// After a look at the disk: notes of what is no longer so go, and other rules than `before` put all in question.
    /// Where an ignore file is being written, its folder is looked at again when it rests.
    pub(super) fn look_at_rules(
        &mut self,
        before: &Rules,
        everything: bool,
        unsettled: Vec<PathBuf>,
    ) {
        let root = self.config.path.clone();
        self.left.retain(|path, _| root.join(path).is_dir());
        for folder in unsettled {
            if !self.later.iter().any(|(_, path, _)| *path == folder) {
                let at = self.around.now() + REST;
                self.later.push((at, folder, Depth::Shallow));
            }
        }
        let now = self.place.as_ref().map(|place| place.rules());
        if now.is_some_and(|now| *now != *before) {
            self.alone.clear();
            self.all_questions = true;
            // Once more, so that the problems listed are those of the present rules.
            self.everything |= !everything;
        }
    }
}
