//! Tree against rows: what has to be done on disk so that it shows what the vault shows. Pure.
//!
//! For each file in question there is a [`Wish`]; where it differs from the row, there is a [`Step`] or a content to
//! bring ([`Bring`]). Steps come in an order in which each can be done ([`super::schedule`]). What stands in the way of
//! a file in question is in question too, so that a plan for a few files is as right as one for all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coffer_crdt::files::{FileId, Kind};

use super::compare::View;
use super::names;
use super::rows::row_kind;
use super::schedule::{Change, Turn, schedule};
use super::spelling::{self, Crowd};
use crate::vault::request::FolderRow;

/// How a file shall be on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its folder, as in the rows.
    pub parent: FileId,
    /// Its name on disk.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its bytes, unless it is a folder.
    pub content: Option<WantContent>,
}

/// What a file shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantContent {
    /// Content hash.
    pub hash: [u8; 32],
    /// Length in bytes.
    pub size: u64,
    /// Modification time in milliseconds since 1970.
    pub mtime_ms: i64,
    /// The owner's executable bit.
    pub executable: bool,
    /// Where a link points.
    pub target: Option<String>,
}

/// What the vault says of a file, as far as the disk is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It shall be on disk, like this.
    Here(Want),
    /// It shall not be on disk: it is in the trash, elsewhere in the vault, or one with another.
    Gone,
    /// Not known yet: the disk stays as it is.
    Unclear,
}

/// One thing to do on disk. None of them needs bytes from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a folder.
    Make(FileId, FileId, String),
    /// Move or rename to (folder, name).
    Move(FileId, FileId, String),
    /// Put aside for a moment.
    Park(FileId),
    /// Move a file's bytes to the kept ones.
    Keep(FileId),
    /// Remove a folder that is empty by now.
    Remove(FileId),
    /// Make a symbolic link, or replace the one that is there.
    Link(FileId, Want),
    /// Set or clear the executable bit, and set the modification time (milliseconds since 1970) where one is given.
    Mark(FileId, bool, Option<i64>),
}

impl Step {
    /// The file that it is about.
    pub fn subject(&self) -> FileId {
        match self {
            Step::Make(id, ..)
            | Step::Move(id, ..)
            | Step::Park(id)
            | Step::Keep(id)
            | Step::Remove(id)
            | Step::Link(id, _)
            | Step::Mark(id, ..) => *id,
        }
    }
}

/// A content to bring to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bring {
    /// The file.
    pub id: FileId,
    /// How it shall be.
    pub content: WantContent,
}

/// What to do on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemotePlan {
    /// At once, in this order.
    pub steps: Vec<Step>,
    /// Files to write or replace afterwards, each as soon as its bytes are there.
    pub bring: Vec<Bring>,
    /// Files in question that are as they shall be, or about which nothing can be done now.
    pub settled: Vec<FileId>,
}

/// Most folders climbed from a file to the synced folder.
const MAX_DEPTH: usize = 4096;

impl View<'_> {
    /// What the vault says of a file.
    pub fn wish(&self, id: FileId) -> Wish {
        self.wish_among(id, &mut Crowd::default())
    }

    /// The same, for one of many.
    pub fn wish_among(&self, id: FileId, crowd: &mut Crowd) -> Wish {
        let Some(shown) = self.tree.shown(id) else {
            return Wish::Gone;
        };
        if shown.trashed || shown.same_as.is_some() {
            return Wish::Gone;
        }
        if shown.waiting {
            return Wish::Unclear;
        }
        let top = self.tree.representative(self.vault_folder);
        let mut folder = shown.parent;
        for _ in 0..MAX_DEPTH {
            if folder == top {
                break;
            }
            match self.tree.shown(folder) {
                Some(above) if above.waiting => return Wish::Unclear,
                Some(above) if !above.trashed => folder = above.parent,
                _ => return Wish::Gone,
            }
        }
        let content = self
            .tree
            .get(id)
            .and_then(|known| known.content)
            .map(|content| WantContent {
                hash: content.hash,
                size: content.size,
                mtime_ms: content.mtime_ms,
                executable: content.executable,
                target: content.target.as_deref().map(str::to_owned),
            });
        if content.is_none() && shown.kind != Kind::Folder {
            return Wish::Unclear;
        }
        let parent = self.row_parent(shown.parent);
        let at_top = parent == self.rows.top();
        // A name on disk that already means this one stays, however it is spelt.
        let is_plain = |disk: &str| spelling::is_plain(disk, &shown.name, at_top, self.profile);
        let is_crowded = crowd.has(self.tree, shown.parent, id, at_top, self.profile);
        let name = match self.rows.get(id) {
            _ if is_crowded => spelling::marked(&shown.name, at_top, self.profile),
            Some(row) if is_plain(&row.name) && !self.is_ambiguous(&row.name) => row.name.clone(),
            _ => names::to_disk(&shown.name, at_top, self.profile).into_owned(),
        };
        Wish::Here(Want {
            parent,
            name,
            kind: shown.kind,
            content: content.filter(|_| shown.kind != Kind::Folder),
        })
    }

    /// Whether a name on disk looks like a marked one where there are marks.
    fn is_ambiguous(&self, disk: &str) -> bool {
        !self.profile.takes_all() && spelling::has_mark(disk)
    }

    /// Everything below a folder of the vault (or the synced folder), folders before what is in them.
    pub fn below(&self, folder: FileId) -> Vec<FileId> {
        let (mut all, mut open) = (
            Vec::new(),
            VecDeque::from([self.tree.representative(folder)]),
        );
        while let Some(folder) = open.pop_front() {
            for (_, id) in self.tree.children(folder) {
                all.push(id);
                if self
                    .tree
                    .shown(id)
                    .is_some_and(|shown| shown.kind == Kind::Folder)
                    && all.len() <= self.tree.len()
                {
                    open.push_back(id);
                }
            }
        }
        all
    }
}

/// Rows whose files are shown as one with others that have no row: the row becomes the other's, unless it is of bytes
/// that neither has, which may have lost against others. Returns (old, new).
pub fn same_files(view: &View<'_>, ids: impl IntoIterator<Item = FileId>) -> Vec<(FileId, FileId)> {
    let mut taken = BTreeSet::new();
    ids.into_iter()
        .filter_map(|id| {
            let row = view.rows.get(id)?;
            let one = view.tree.representative(id);
            let kind = view.tree.shown(one)?.kind;
            let mut both = [id, one].into_iter();
            let is_known = kind == Kind::Folder
                || both.any(|id| {
                    let content = view.tree.get(id).and_then(|known| known.content);
                    content.is_some_and(|content| content.hash == row.hash)
                });
            (one != id
                && is_known
                && view.rows.get(one).is_none()
                && kind == row_kind(row)
                && taken.insert(one))
            .then_some((id, one))
        })
        .collect()
}

/// Plans for the files in question, and for those that they depend on.
pub fn plan(view: &View<'_>, questions: &BTreeSet<FileId>) -> RemotePlan {
    plan_some(view, questions, &BTreeSet::new())
}

/// The same where `later` will be in question soon: they are taken along only where something now depends on them.
pub fn plan_some(
    view: &View<'_>,
    questions: &BTreeSet<FileId>,
    later: &BTreeSet<FileId>,
) -> RemotePlan {
    let wishes = gather(view, questions, later);
    let mut plan = RemotePlan::default();
    let mut changes = Vec::new();
    let mut after: Vec<Step> = Vec::new();
    for (id, wish) in &wishes {
        let row = view.rows.get(*id);
        let from = row.map(|row| (FileId(row.parent), row.name.clone()));
        match (wish, row) {
            (Wish::Here(want), row) => {
                let to = (want.parent, want.name.clone());
                if from.as_ref() != Some(&to) {
                    changes.push(Change {
                        id: *id,
                        from,
                        to: Some(to),
                    });
                }
                contents(view, *id, want, row, &mut plan, &mut after);
            }
            (Wish::Gone, Some(_)) => changes.push(Change {
                id: *id,
                from,
                to: None,
            }),
            (Wish::Gone | Wish::Unclear, _) => {}
        }
    }
    let occupant = |spot: &(FileId, String)| view.rows.child(spot.0, &spot.1);
    let parent = |id: FileId| view.rows.get(id).map(|row| FileId(row.parent));
    for turn in schedule(&changes, occupant, parent) {
        match turn {
            Turn::Park(id) => plan.steps.push(Step::Park(id)),
            Turn::Do(index) => plan.steps.extend(step(view, &wishes, &changes[index])),
        }
    }
    plan.steps.extend(after);
    let mut busy: BTreeSet<FileId> = changes
        .iter()
        .map(|change| change.id)
        .chain(plan.bring.iter().map(|bring| bring.id))
        .collect();
    busy.extend(plan.steps.iter().map(Step::subject));
    plan.settled = wishes.into_keys().filter(|id| !busy.contains(id)).collect();
    plan
}

/// Files whose bytes on disk the plan takes away, and that the vault may have lost against others that were written at
/// the same time elsewhere: content hash, and whether the file goes altogether. To be asked about before it is done.
pub fn endangered(view: &View<'_>, plan: &RemotePlan) -> Vec<(FileId, [u8; 32], bool)> {
    let replaced = plan.bring.iter().map(|bring| (bring.id, false));
    let deleted = plan.steps.iter().filter_map(|step| match step {
        // What goes because another stands for it was not deleted by anybody.
        Step::Keep(id) => {
            let shown = view.tree.shown(*id);
            let is_deleted = shown.is_none_or(|shown| shown.trashed || shown.same_as.is_none());
            Some((*id, is_deleted))
        }
        Step::Link(id, _) => Some((*id, false)),
        _ => None,
    });
    let at_stake = |id: FileId| {
        let row = view.rows.get(id)?;
        // What goes with the content that the vault shows was seen by whoever deleted it.
        view.tree
            .get(id)?
            .content
            .filter(|content| content.hash != row.hash)
            .map(|_| row.hash)
    };
    replaced
        .chain(deleted)
        .filter_map(|(id, goes)| at_stake(id).map(|hash| (id, hash, goes)))
        .collect()
}

fn step(view: &View<'_>, wishes: &BTreeMap<FileId, Wish>, change: &Change) -> Option<Step> {
    let id = change.id;
    let is_folder = view
        .rows
        .get(id)
        .is_some_and(|row| row_kind(row) == Kind::Folder);
    match (&change.from, &change.to) {
        (Some(_), None) if is_folder => Some(Step::Remove(id)),
        (_, None) => Some(Step::Keep(id)),
        (Some(_), Some((parent, name))) => Some(Step::Move(id, *parent, name.clone())),
        (None, Some((parent, name))) => match wishes.get(&id) {
            Some(Wish::Here(want)) if want.kind == Kind::Folder => {
                Some(Step::Make(id, *parent, name.clone()))
            }
            Some(Wish::Here(want)) if want.kind == Kind::Symlink => {
                Some(Step::Link(id, want.clone()))
            }
            _ => None,
        },
    }
}

fn contents(
    view: &View<'_>,
    id: FileId,
    want: &Want,
    row: Option<&FolderRow>,
    plan: &mut RemotePlan,
    after: &mut Vec<Step>,
) {
    let Some(content) = &want.content else { return };
    match row {
        Some(row) if row.hash == content.hash => {
            let is_same_time = view.profile.is_same_time(content.mtime_ms, row.mtime_ns);
            let is_same = row.executable == content.executable && is_same_time;
            if want.kind == Kind::File && !is_same {
                let mtime_ms = (!is_same_time).then_some(content.mtime_ms);
                after.push(Step::Mark(id, content.executable, mtime_ms));
            }
        }
        Some(_) if want.kind == Kind::Symlink => after.push(Step::Link(id, want.clone())),
        None if want.kind == Kind::Symlink => {}
        _ => plan.bring.push(Bring {
            id,
            content: content.clone(),
        }),
    }
}

/// The folders from `folder` up to `id`, if that is where it is now: some of them have to come out of `id` before it can
/// go into `folder`.
fn inside(view: &View<'_>, folder: FileId, id: FileId) -> Vec<FileId> {
    let (mut way, mut at) = (Vec::new(), folder);
    while at != id {
        match view.rows.get(at) {
            Some(row) if way.len() < MAX_DEPTH => {
                way.push(at);
                at = FileId(row.parent);
            }
            _ => return Vec::new(),
        }
    }
    way
}

/// The wishes for all files in question. Grows by: folders that are not there yet, or inside, what has a wished name, what is
/// in a folder that goes, and in one that comes unless its turn is `later`.
fn gather(
    view: &View<'_>,
    questions: &BTreeSet<FileId>,
    later: &BTreeSet<FileId>,
) -> BTreeMap<FileId, Wish> {
    let (mut wishes, mut crowd) = (BTreeMap::new(), Crowd::default());
    let mut open: VecDeque<FileId> = questions.iter().copied().collect();
    while let Some(id) = open.pop_front() {
        if id == FileId::ROOT || id == view.rows.top() || wishes.contains_key(&id) {
            continue;
        }
        let wish = view.wish_among(id, &mut crowd);
        let row = view.rows.get(id);
        match &wish {
            Wish::Here(want) => {
                if !view.rows.is_folder(want.parent) {
                    open.push_back(want.parent);
                }
                if row.is_some() && want.kind == Kind::Folder {
                    open.extend(inside(view, want.parent, id));
                }
                open.extend(
                    view.rows
                        .child(want.parent, &want.name)
                        .filter(|other| *other != id),
                );
                if want.kind == Kind::Folder && row.is_none() {
                    let below = view.tree.children(id).map(|(_, id)| id);
                    open.extend(below.filter(|id| !later.contains(id)));
                }
            }
            Wish::Gone => {
                if row.is_some() {
                    open.extend(view.rows.children(id).map(|(_, id)| id));
                }
                open.extend(view.tree.shown(id).and_then(|shown| shown.same_as));
            }
            Wish::Unclear => {}
        }
        wishes.insert(id, wish);
    }
    wishes
}
