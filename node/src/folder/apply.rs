//! Carries out on disk what was planned, one step at a time, and keeps the rows in step.
//!
//! Before a step touches anything, and after a rename has moved it, what is there is compared with its row; what is not
//! as the row says was changed by a person, and is left (or put back) for the local pass. So nothing that nobody has
//! seen is ever replaced. What is replaced or deleted goes to the kept files under a pending name until the vault knows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use coffer_crdt::files::{FileId, Kind};

use super::compare::row_of;
use super::disk::{Dir, Onto};
use super::ground::Stat;
use super::hidden::{PENDING, park_name};
use super::paths::Shared;
use super::place::{HIDDEN, Place};
use super::plan::Step;
use super::rows::row_kind;
use crate::vault::request::FolderRow;

/// Open folders remembered; a plan works folder by folder.
const MAX_OPEN: usize = 32;

/// A file's bytes that were moved to the kept files.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The file.
    pub id: FileId,
    /// Its row when it was on disk.
    pub row: FolderRow,
    /// Its name among the kept files.
    pub name: [u8; 24],
}

/// What became of some steps.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Files whose rows changed.
    pub touched: BTreeSet<FileId>,
    /// Bytes moved aside.
    pub kept: Vec<Kept>,
    /// Files that have to be read, though what the file system says of them is what was made of them.
    pub unsure: Vec<PathBuf>,
    /// Files that are as they shall be now.
    pub done: Vec<FileId>,
    /// What was not as its row says: the folder to look into, and the file to try again afterwards.
    pub surprises: Vec<(PathBuf, FileId)>,
    /// Files whose stand-in is not as its row says: the folder of that one, and the file to try again once it was read.
    pub waiting: Vec<(PathBuf, FileId)>,
    /// Ignored files whose side on disk stays as it is.
    pub alone: Vec<FileId>,
    /// Folders that are no longer the vault's and stay because of ignored files in them, and names of some.
    pub left: Vec<(PathBuf, String)>,
    /// What the system refused.
    pub refused: Vec<(FileId, String, io::Error)>,
}

/// Why a step was not done.
pub(super) enum Trouble {
    /// The disk is not as the rows say: look into this folder.
    Surprise(PathBuf),
    /// The file that stands for it, in this folder, has to be read first.
    Waits(PathBuf),
    Refused(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Refused(error)
    }
}

/// Carries out steps on one synced folder.
pub struct Hands<'a> {
    pub(super) place: &'a Place,
    pub(super) shared: &'a Shared,
    parked: BTreeMap<FileId, String>,
    /// Files that were not as their rows say when they were renamed: renaming changes the change time, which may have been
    /// all that told of it.
    changed: BTreeSet<FileId>,
    stand_ins: BTreeMap<FileId, FileId>,
    open: BTreeMap<FileId, Dir>,
    unique: &'a mut dyn FnMut() -> FileId,
    /// What became of it.
    pub outcome: Outcome,
}

impl<'a> Hands<'a> {
    /// `unique` makes names that were never used.
    pub fn new(
        place: &'a Place,
        shared: &'a Shared,
        unique: &'a mut dyn FnMut() -> FileId,
    ) -> Hands<'a> {
        Hands {
            place,
            shared,
            parked: BTreeMap::new(),
            changed: BTreeSet::new(),
            stand_ins: BTreeMap::new(),
            open: BTreeMap::new(),
            unique,
            outcome: Outcome::default(),
        }
    }

    /// Which files stand for files that are to be put away because they show as one with those.
    pub fn with_stand_ins(mut self, stand_ins: BTreeMap<FileId, FileId>) -> Hands<'a> {
        self.stand_ins = stand_ins;
        self
    }

    /// Carries out a step; what goes wrong is in [`Hands::outcome`].
    pub fn step(&mut self, step: &Step) {
        let id = step.subject();
        let result = match step {
            Step::Make(_, parent, name) => self.make(id, *parent, name),
            Step::Move(_, parent, name) => self.relocate(id, *parent, name),
            Step::Park(_) => self.park(id),
            Step::Keep(_) => self.keep(id),
            Step::Remove(_) => self.remove(id),
            Step::Link(_, want) => self.link(id, want),
            Step::Mark(_, executable, mtime_ms) => self.mark(id, *executable, *mtime_ms),
        };
        let spot = match step {
            Step::Make(_, parent, name) => Some((*parent, name.as_str())),
            Step::Link(_, want) => Some((want.parent, want.name.as_str())),
            _ => None,
        };
        let goes = matches!(step, Step::Keep(_) | Step::Remove(_));
        let result = self.mind_rules(id, spot, goes, result);
        self.note(id, result, !matches!(step, Step::Park(_)));
    }

    pub(super) fn note(&mut self, id: FileId, result: Result<(), Trouble>, done: bool) {
        match result {
            Ok(()) if done => self.outcome.done.push(id),
            Ok(()) => {}
            Err(Trouble::Surprise(folder)) => self.outcome.surprises.push((folder, id)),
            Err(Trouble::Waits(folder)) => self.outcome.waiting.push((folder, id)),
            // Gone while we looked: as surprising as something unexpected.
            Err(Trouble::Refused(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                let folder = self
                    .shared
                    .rows()
                    .path(id)
                    .and_then(|path| path.parent().map(Path::to_path_buf))
                    .unwrap_or_default();
                self.outcome.surprises.push((folder, id));
            }
            Err(Trouble::Refused(error)) => {
                let path = self.shared.rows().path(id).unwrap_or_default();
                self.outcome
                    .refused
                    .push((id, path.to_string_lossy().into_owned(), error));
            }
        }
    }

    /// Puts back what is parked and has no other place, so that it does not stay hidden.
    pub fn finish(mut self) -> Outcome {
        for (id, name) in std::mem::take(&mut self.parked) {
            let Some(row) = self.shared.rows().get(id).cloned() else {
                continue;
            };
            if let Err(error) = self.put_back(id, &name, &row) {
                // Its place is taken by now; hidden, it would count as deleted. Else the next start sees to it.
                let beside = FolderRow {
                    name: format!("recovered {id}"),
                    ..row.clone()
                };
                let _ = self.put_back(id, &name, &beside);
                self.outcome.refused.push((id, row.name, error));
            }
        }
        self.outcome
    }

    pub(super) fn folder(&mut self, id: FileId) -> io::Result<Dir> {
        if id == self.shared.rows().top() {
            return Ok(self.place.root().clone());
        }
        if let Some(open) = self.open.get(&id) {
            return Ok(open.clone());
        }
        let opened = self.place.folder(&self.folder_path(id)?)?;
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        self.open.insert(id, opened.clone());
        Ok(opened)
    }

    /// Path of a folder from the synced folder, through the parked ones.
    fn folder_path(&self, id: FileId) -> io::Result<PathBuf> {
        let rows = self.shared.rows();
        let (mut names, mut at, mut steps) = (Vec::new(), id, 0);
        while at != rows.top() {
            if let Some(parked) = self.parked.get(&at) {
                names.push(parked.as_str());
                names.extend(["tmp", HIDDEN]);
                break;
            }
            let row = rows.get(at).ok_or(io::ErrorKind::NotFound)?;
            names.push(&row.name);
            at = FileId(row.parent);
            steps += 1;
            if steps > rows.len() {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        Ok(names.iter().rev().collect())
    }

    /// The file as its row has it: folder, name, row, and what is really there. Where another was put in its place since,
    /// its own file is gone, and an inode number like its own says only that such numbers are used again.
    pub(super) fn find(&mut self, id: FileId) -> Result<(Dir, String, FolderRow, Stat), Trouble> {
        let (row, is_ousted) = {
            let rows = self.shared.rows();
            let row = rows.get(id).cloned();
            let row = row.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            let there = rows.child(FileId(row.parent), &row.name);
            (row, there.is_some_and(|there| there != id))
        };
        if let Some(parked) = self.parked.get(&id).cloned() {
            let stat = self.place.tmp().stat_at(&parked)?;
            return Ok((self.place.tmp().clone(), parked, row, stat));
        }
        let folder = self.folder(FileId(row.parent))?;
        let stat = folder.stat_at(&row.name)?;
        if is_ousted || stat.inode != row.inode || stat.kind != Some(row_kind(&row)) {
            return Err(self.surprise(FileId(row.parent)));
        }
        Ok((folder, row.name.clone(), row, stat))
    }

    pub(super) fn surprise(&self, folder: FileId) -> Trouble {
        Trouble::Surprise(self.shared.rows().path(folder).unwrap_or_default())
    }

    pub(super) fn set(&mut self, id: FileId, row: FolderRow) {
        let row = self.marked(row);
        self.shared.rows_mut().set(id, row);
        self.outcome.touched.insert(id);
    }

    pub(super) fn unset(&mut self, id: FileId) {
        self.shared.rows_mut().remove(id);
        self.outcome.touched.insert(id);
    }

    fn make(&mut self, id: FileId, parent: FileId, name: &str) -> Result<(), Trouble> {
        let folder = self.folder(parent)?;
        match folder.make(name, 0o777) {
            Ok(()) => {}
            // An ignored folder that is here already is the one: what else is in it stays.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && self.is_ignored_folder(parent, name)
                    && folder.stat_at(name)?.kind == Some(Kind::Folder) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.surprise(parent));
            }
            Err(error) => return Err(error.into()),
        }
        let stat = folder.stat_at(name)?;
        self.set(id, row_of(parent, name, Kind::Folder, &stat, [0; 32]));
        Ok(())
    }

    fn relocate(&mut self, id: FileId, parent: FileId, name: &str) -> Result<(), Trouble> {
        let (from, old, row, stat) = self.find(id)?;
        self.note_changed(id, &row, &stat);
        let to = self.folder(parent)?;
        match self.place.put(&from, &old, &to, name) {
            Ok(()) => {}
            // It stands in its own way where the disk takes both names for one: by way of another name, then.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && self.place.profile().folds()
                    && !self.parked.contains_key(&id)
                    && to.stat_at(name).is_ok_and(|stat| stat.inode == row.inode) =>
            {
                self.park(id)?;
                let parked = park_name(id);
                self.place.put(self.place.tmp(), &parked, &to, name)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.surprise(parent));
            }
            Err(error) => return Err(error.into()),
        }
        self.parked.remove(&id);
        let row = FolderRow {
            parent: parent.0,
            name: name.to_owned(),
            ..row
        };
        self.set_renamed(id, &to, row);
        Ok(())
    }

    /// Before a file is renamed.
    fn note_changed(&mut self, id: FileId, row: &FolderRow, stat: &Stat) {
        let is_known = self.parked.contains_key(&id) || row_kind(row) == Kind::Folder;
        if !is_known && !stat.agrees(row, false) {
            self.changed.insert(id);
        }
    }

    /// The row of what was renamed to its place: renaming changes the change time, and that alone is taken over, unless it
    /// was another already. If the bytes changed, the local pass will see it.
    fn set_renamed(&mut self, id: FileId, folder: &Dir, mut row: FolderRow) {
        if let Ok(stat) = folder.stat_at(&row.name)
            && stat.agrees(&row, true)
            && !self.changed.remove(&id)
        {
            row.ctime_ns = stat.ctime_ns;
        }
        self.set(id, row);
    }

    /// From the parking place to where its row has it. Unless its row follows, the local pass takes it for changed and
    /// asks about it again, and what is in the way has it parked once more, and so on.
    fn put_back(&mut self, id: FileId, parked: &str, row: &FolderRow) -> io::Result<()> {
        let to = self.folder(FileId(row.parent))?;
        self.place.put(self.place.tmp(), parked, &to, &row.name)?;
        self.set_renamed(id, &to, row.clone());
        Ok(())
    }

    fn park(&mut self, id: FileId) -> Result<(), Trouble> {
        let (from, old, row, stat) = self.find(id)?;
        self.note_changed(id, &row, &stat);
        let name = park_name(id);
        self.place.put(&from, &old, self.place.tmp(), &name)?;
        self.parked.insert(id, name);
        // The folder is remembered by its open handle, which stays good; its path is another now.
        Ok(())
    }

    /// A file goes because another stands for it only if that one is what its row says. Else the two may have changed
    /// places, or that one has other bytes by now, and what goes would be the last that has these.
    fn check_stand_in(&mut self, id: FileId) -> Result<(), Trouble> {
        let Some(one) = self.stand_ins.get(&id).copied() else {
            return Ok(());
        };
        let Some(parent) = self.shared.rows().get(one).map(|row| FileId(row.parent)) else {
            return Ok(());
        };
        let renamed = self.parked.contains_key(&one);
        match self.find(one) {
            Ok((_, _, row, stat)) if stat.agrees(&row, renamed) => Ok(()),
            _ => Err(Trouble::Waits(
                self.shared.rows().path(parent).unwrap_or_default(),
            )),
        }
    }

    fn keep(&mut self, id: FileId) -> Result<(), Trouble> {
        self.check_stand_in(id)?;
        let (from, name, row, stat) = self.find(id)?;
        // Somebody's work must not be in the kept files even for a moment: the power may fail in it.
        self.note_changed(id, &row, &stat);
        if self.changed.contains(&id) || !stat.agrees(&row, true) {
            return Err(self.surprise(FileId(row.parent)));
        }
        // Out of reach before it goes: what somebody puts in its place in the very last moment must not. Parked, it comes
        // back also if the power fails.
        let (tmp, parked) = (self.place.tmp(), park_name(id));
        if !self.parked.contains_key(&id) {
            self.place.put(&from, &name, tmp, &parked)?;
            self.parked.insert(id, parked.clone());
        }
        if !tmp.stat_at(&parked)?.agrees(&row, true) {
            return Err(self.surprise(FileId(row.parent)));
        }
        if row_kind(&row) == Kind::Symlink {
            tmp.unlink(&parked)?;
        } else {
            let kept = self.kept_name();
            let pending = format!("{}{PENDING}", hex::encode(kept));
            self.place
                .put(self.place.tmp(), &parked, self.place.kept(), &pending)?;
            self.outcome.kept.push(Kept {
                id,
                row,
                name: kept,
            });
        }
        self.parked.remove(&id);
        self.unset(id);
        Ok(())
    }

    pub(super) fn kept_name(&mut self) -> [u8; 24] {
        let (one, other) = ((self.unique)(), (self.unique)());
        let mut name = [0; 24];
        name[..16].copy_from_slice(&one.0);
        name[16..].copy_from_slice(&other.0[..8]);
        name
    }

    fn remove(&mut self, id: FileId) -> Result<(), Trouble> {
        let (from, name, row, _) = self.find(id)?;
        // Rows of files that are not on disk any more: the local pass has to find that out while their folder is there.
        if self.shared.rows().children(id).next().is_some() {
            self.come_back(id, &row)?;
            return Err(self.surprise(id));
        }
        match from.rmdir(&name) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                self.come_back(id, &row)?;
                if self.leave_folder(id) {
                    return Ok(());
                }
                return Err(self.surprise(id));
            }
            Err(error) => return Err(error.into()),
        }
        self.parked.remove(&id);
        self.open.remove(&id);
        self.unset(id);
        Ok(())
    }

    /// Out of the parking place again, if it is there.
    fn come_back(&mut self, id: FileId, row: &FolderRow) -> Result<(), Trouble> {
        if let Some(parked) = self.parked.get(&id).cloned() {
            self.put_back(id, &parked, row)?;
            self.parked.remove(&id);
        }
        Ok(())
    }
}

/// The kept files whose bytes the vault now knows get their final names.
///
/// # Errors
/// What the system says; the others keep their pending names and are seen to at the next start.
pub fn confirm_kept(place: &Place, kept: &[Kept]) -> io::Result<()> {
    for kept in kept {
        let name = hex::encode(kept.name);
        let pending = format!("{name}{PENDING}");
        place
            .kept()
            .rename(&pending, place.kept(), &name, Onto::Anything)?;
    }
    Ok(())
}
