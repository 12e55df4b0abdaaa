//! What happens when the brake takes hold of a synced folder.
//!
//! While it holds, the folder rests: nothing that is found on disk is recorded, nothing that the vault says is done on
//! disk. It goes on being looked at, so that a person is told what there is now, and the brake comes off by itself when
//! everything is back as it was (a disk that is mounted again). Else a person says what it was ([`super::Release`]).
//!
//! That it holds is durable, file by file, before anything else happens: a restart, or files that come back in part,
//! do not take it off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coffer_crdt::files::{FileId, Kind};
use tokio::time::Instant;

use super::brake::{Recorded, Verdict, Window};
use super::compare::{LocalPlan, Read};
use super::engine::{Engine, Halt};
use super::reading::{batches, import};
use super::rows::{Rows, row_kind};
use super::scan::Parts;
use super::state::{BrakeReport, MAX_BRAKED};
use super::{Contents, FolderVault};
use crate::vault::request::{BrakedFile, CommitRequest, Operation};

/// How often a folder that the brake holds is looked at, at most: each time the whole of it is.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long to wait for the rest of many files that are being written, before those that rest are judged alone.
const PATIENCE: Duration = Duration::from_secs(3);

/// The brake is on.
pub(super) struct Braked {
    /// When the folder is looked at again, if there is reason to.
    pub look_at: Instant,
    /// What it holds, as it is durable.
    pub held: BTreeMap<FileId, BrakedFile>,
    /// What the last look found.
    pub losses: Option<Losses>,
    pub report: BrakeReport,
}

impl Braked {
    fn new(held: BTreeMap<FileId, BrakedFile>, now: Instant) -> Braked {
        Braked {
            look_at: now,
            held,
            losses: None,
            report: BrakeReport::default(),
        }
    }

    /// Whether it is time to look again.
    pub fn is_due(&self, now: Instant) -> bool {
        self.look_at <= now
    }
}

/// What a look at a braked folder found.
pub(super) struct Losses {
    /// Files that are not there and that the vault shows.
    pub gone: Vec<FileId>,
    /// Every row, folders too, of what is not there.
    pub missing: Vec<FileId>,
    /// Files that have other bytes, or may have.
    pub changed: Vec<Read>,
    /// Whether the changed ones are more than a person changes.
    pub is_rewriting: bool,
}

/// Deletions that are about to be recorded.
pub(super) struct Deleted {
    files: BTreeSet<FileId>,
    subjects: BTreeSet<FileId>,
    total: u64,
}

impl Deleted {
    /// The files that go, and what is moved to the trash for it; `total` files are in the folder.
    pub fn of(files: Vec<FileId>, operations: &[Operation], total: u64) -> Deleted {
        let subjects = operations.iter().filter_map(|operation| match operation {
            Operation::TrashFile { id } => Some(*id),
            _ => None,
        });
        Deleted {
            files: files.into_iter().collect(),
            subjects: subjects.collect(),
            total,
        }
    }
}

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// The brake was on when the last run ended.
    pub fn brake_again(&mut self, held: BTreeMap<FileId, BrakedFile>) {
        if !held.is_empty() {
            self.braked = Some(Braked::new(held, self.around.now()));
        }
    }

    /// Whether a look's deletions can be recorded.
    pub(super) fn judge(&mut self, plan: &LocalPlan) -> Verdict {
        let consented = |id: &FileId| self.has_consent(id);
        let gone = plan.gone.iter().filter(|id| !consented(id)).count();
        let total = self.shared.rows().totals().0;
        self.losses
            .judge_gone(self.around.now(), total, gone, plan.doubtful)
    }

    pub(super) fn note_deleted(&mut self, mut deleted: Deleted) {
        deleted.files.retain(|id| !self.has_consent(id));
        if !deleted.files.is_empty() {
            let Deleted {
                files,
                subjects,
                total,
            } = deleted;
            self.losses
                .deleted(self.around.now(), total, &files, &subjects);
        }
    }

    /// Called before the moves are recorded.
    pub(super) fn note_moved(&mut self, reads: &[Read], operations: &[Operation]) {
        let reads: BTreeSet<FileId> = reads.iter().filter_map(|read| read.id).collect();
        let moved = operations.iter().filter_map(|operation| match operation {
            Operation::MoveFile { id, .. } => Some(*id),
            _ => None,
        });
        let tree = self.vault.tree();
        for id in moved
            .filter(|id| reads.contains(id) || self.losses.has_rewritten(*id))
            .collect::<Vec<_>>()
        {
            if let Some(shown) = tree.shown(id) {
                self.losses.moved(
                    self.around.now(),
                    id,
                    (shown.parent, shown.name.to_string()),
                );
            }
        }
    }

    /// Called before the rows follow what was recorded.
    pub(super) fn note_rewritten(&mut self, read: &Read, operations: &[Operation]) {
        let (before, total) = {
            let rows = self.shared.rows();
            let before = read.id.and_then(|id| Some((id, rows.get(id)?.hash)));
            (before, rows.totals().0)
        };
        let Some((row, before)) = before.filter(|(id, _)| !self.has_consent(id)) else {
            return;
        };
        for operation in operations {
            if let Operation::SetContent { id, content, .. } = operation
                && content.hash != before
                && (*id == row || self.vault.tree().representative(row) == *id)
            {
                self.losses.rewritten(self.around.now(), total, *id, before);
            }
        }
    }

    /// Where so many files may have other bytes that it would be too much if they had, their bytes are looked at before
    /// anything of that look is recorded. Puts the brake on itself if need be.
    pub(super) async fn screen(&mut self, reads: &[Read]) -> Result<Verdict, Halt> {
        let suspects: Vec<Read> = {
            let rows = self.shared.rows();
            let known = reads.iter().filter(|read| is_known_file(&rows, read));
            known
                .filter(|read| !read.id.is_some_and(|id| self.has_consent(&id)))
                .cloned()
                .collect()
        };
        if !self.is_rewriting(&suspects) {
            self.screening_since = None;
            return Ok(Verdict::Record);
        }
        let now_ns = i128::from(self.around.wall_ms()) * 1_000_000;
        let (resting, busy): (Vec<Read>, Vec<Read>) = suspects
            .into_iter()
            .partition(|read| self.rests(read, now_ns));
        let now = self.around.now();
        let since = *self.screening_since.get_or_insert(now);
        if !busy.is_empty() && now < since + PATIENCE {
            return Ok(Verdict::Wait);
        }
        self.screening_since = None;
        let mut stop = self.stop_signal();
        let mut changed = Vec::new();
        for batch in batches(resting) {
            let (contents, root, number) = (
                self.contents.clone(),
                self.config.path.clone(),
                self.config.number,
            );
            let around = self.around.clone();
            let importing = import(&*around, &*contents, root, number, batch);
            let (found, _) = Self::unless_stopped(&mut stop, importing).await?;
            let other = found
                .into_iter()
                .filter(|(read, _, imported)| !self.is_known_content(read, &imported.hash));
            changed.extend(other.map(|(read, ..)| read));
        }
        if !self.is_rewriting(&changed) {
            return Ok(Verdict::Record);
        }
        let mut held = self.losses.take_rewritten();
        for id in changed.iter().filter_map(|read| read.id) {
            held.entry(id).or_insert(BrakedFile::Changed);
        }
        self.brake_on(held).await?;
        Ok(Verdict::Brake)
    }

    fn is_rewriting(&mut self, reads: &[Read]) -> bool {
        let total = self.shared.rows().totals().0;
        let ids = reads.iter().filter_map(|read| read.id);
        self.losses.is_rewriting(self.around.now(), total, ids)
    }

    /// Whether disk and vault agreed on these bytes, or the vault has them by now.
    fn is_known_content(&self, read: &Read, hash: &[u8; 32]) -> bool {
        let Some(id) = read.id else { return false };
        let tree = self.vault.tree();
        let there = tree
            .get(tree.representative(id))
            .and_then(|known| known.content)
            .is_some_and(|content| content.hash == *hash);
        there
            || self
                .shared
                .rows()
                .get(id)
                .is_some_and(|row| row.hash == *hash)
    }

    /// Puts the brake on, unless that was done.
    pub(super) async fn brake_gone(&mut self, gone: Vec<FileId>) -> Result<(), Halt> {
        if self.braked.is_some() {
            return Ok(());
        }
        let mut held = self.losses.take_deleted();
        for id in gone {
            held.entry(id).or_insert(BrakedFile::Gone);
        }
        self.brake_on(held).await
    }

    /// The brake takes hold of these.
    async fn brake_on(&mut self, held: BTreeMap<FileId, BrakedFile>) -> Result<(), Halt> {
        tracing::warn!(
            folder = self.config.number,
            files = held.len(),
            "so much was deleted or rewritten in a synced folder at once that it rests until a person says that it was meant"
        );
        let request = self.brake_request(held.iter().map(|(id, why)| (*id, Some(why.clone()))));
        self.braked = Some(Braked::new(held, self.around.now()));
        self.doubted.clear();
        self.doubted_parts = None;
        self.everything = true;
        self.vault.commit(request).await?;
        Ok(())
    }

    fn brake_request(
        &self,
        held: impl Iterator<Item = (FileId, Option<BrakedFile>)>,
    ) -> CommitRequest {
        let number = self.config.number;
        CommitRequest {
            folder_brakes: held.map(|(id, why)| (number, id, why)).collect(),
            ..CommitRequest::default()
        }
    }

    /// Looks at the whole of a folder that the brake holds; does nothing in others.
    pub(super) async fn look_at_losses(&mut self) -> Result<(), Halt> {
        if self.braked.is_none() {
            return Ok(());
        }
        self.parts.clear();
        self.later.clear();
        self.everything = false;
        let all: BTreeSet<FileId> = self.shared.rows().iter().map(|(id, _)| id).collect();
        let looked = self.look(&Parts::new(), true, &all).await;
        if looked.is_err() {
            self.everything = true;
        }
        let plan = looked?;
        let missing = plan.rows.iter().filter(|(_, row)| row.is_none());
        let missing: Vec<FileId> = missing.map(|(id, _)| *id).collect();
        let changed: Vec<Read> = {
            let rows = self.shared.rows();
            let reads = plan.reads.into_iter();
            reads.filter(|read| is_known_file(&rows, read)).collect()
        };
        let many = self.is_rewriting(&changed);
        let Some(braked) = &mut self.braked else {
            return Ok(());
        };
        braked.look_at = self.around.now() + LOOK_EVERY;
        let mut held = braked.held.values();
        let is_rewriting = many
            || held.any(|why| matches!(why, BrakedFile::Changed | BrakedFile::Rewritten { .. }));
        let losses = Losses {
            gone: plan.gone,
            missing,
            changed,
            is_rewriting,
        };
        let recorded = {
            let tree = self.vault.tree();
            let is_file = |id: &FileId| {
                tree.get(*id)
                    .is_some_and(|known| known.kind != Kind::Folder)
            };
            Recorded::of(braked.held.iter().filter(|(id, _)| is_file(id)))
        };
        let nothing_left = losses.gone.is_empty()
            && (!losses.is_rewriting || losses.changed.is_empty())
            && !recorded.is_too_much(self.shared.rows().totals().0);
        braked.losses = Some(losses);
        if nothing_left {
            tracing::info!(
                folder = self.config.number,
                "everything in a synced folder is back as it was; it goes on"
            );
            let request = self.off_request();
            self.vault.commit(request).await?;
            self.off();
            return Ok(());
        }
        self.write_report();
        Ok(())
    }

    pub(super) fn off_request(&self) -> CommitRequest {
        let held = self.braked.iter().flat_map(|braked| braked.held.keys());
        self.brake_request(held.map(|id| (*id, None)))
    }

    pub(super) fn off(&mut self) {
        self.braked = None;
        self.losses = Window::default();
        self.everything = true;
        self.all_questions = true;
    }

    fn write_report(&mut self) {
        let report = {
            let tree = self.vault.tree();
            let rows = self.shared.rows();
            let Some((braked, losses)) = self
                .braked
                .as_ref()
                .and_then(|braked| Some((braked, braked.losses.as_ref()?)))
            else {
                return;
            };
            let is_file = |id: &FileId| {
                tree.get(*id)
                    .is_some_and(|known| known.kind != Kind::Folder)
            };
            let mut gone: BTreeSet<FileId> = losses.gone.iter().copied().collect();
            let mut rewritten: BTreeSet<FileId> = BTreeSet::new();
            if losses.is_rewriting {
                rewritten.extend(losses.changed.iter().filter_map(|read| read.id));
            }
            for (id, why) in &braked.held {
                match why {
                    BrakedFile::Deleted if is_file(id) => drop(gone.insert(*id)),
                    BrakedFile::Rewritten { .. } => drop(rewritten.insert(*id)),
                    _ => {}
                }
            }
            let name = |id: &FileId| {
                let path = rows
                    .path(*id)
                    .map(|path| path.to_string_lossy().into_owned());
                path.or_else(|| tree.shown(*id).map(|shown| shown.name.to_string()))
            };
            BrakeReport {
                gone: gone.len() as u64,
                rewritten: rewritten.len() as u64,
                names: gone
                    .union(&rewritten)
                    .filter_map(name)
                    .take(MAX_BRAKED)
                    .collect(),
            }
        };
        if let Some(braked) = &mut self.braked {
            braked.report = report;
        }
    }

    pub(super) fn brake_report(&self) -> Option<BrakeReport> {
        self.braked.as_ref().map(|braked| braked.report.clone())
    }
}

fn is_known_file(rows: &Rows, read: &Read) -> bool {
    read.kind == Kind::File
        && read
            .id
            .and_then(|id| rows.get(id))
            .is_some_and(|row| row_kind(row) == Kind::File)
}
