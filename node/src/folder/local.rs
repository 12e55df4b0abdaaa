//! The local pass: what was done to the folder on disk goes into the vault.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use coffer_crdt::files::{FileId, Kind};
use tokio::time::Instant;

use super::brake::Verdict;
use super::braked::Deleted;
use super::compare::{LocalPlan, Read, compare};
use super::engine::{DOUBT, Engine, Halt, add_part, blocking};
use super::scan::{Depth, Parts, Snapshot, scan_parts, scan_whole};
use super::sparing::Spared;
use super::{Contents, FolderVault};
use crate::vault::request::FolderRow;

/// A file rests when nothing changed it for so long, if its writer was not seen to close it.
pub(super) const REST: Duration = Duration::from_secs(1);
/// New folders are looked into once more after this time: files may have come before they were watched.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Files noted as closed, and as backups, at most.
const MAX_CLOSED: usize = 100_000;

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Looks, compares, commits. Whatever cannot be finished now is noted for later.
    pub(super) async fn local_pass(&mut self) -> Result<(), Halt> {
        self.check_vault_folder()?;
        self.expire_consent();
        let (parts, everything) = (
            std::mem::take(&mut self.parts),
            std::mem::take(&mut self.everything),
        );
        self.questions.append(&mut self.twins);
        let mut believed = std::mem::take(&mut self.doubted);
        believed.extend(self.consent.iter().flat_map(|consent| &consent.files));
        let doubting = self.doubted_parts.take();
        let mut plan = match self.look(&parts, everything, &believed).await {
            Ok(plan) => plan,
            Err(halt) => {
                self.everything = true;
                return Err(halt);
            }
        };
        let verdict = match self.judge(&plan) {
            Verdict::Record => self.screen(&plan.reads).await?,
            verdict => verdict,
        };
        match verdict {
            Verdict::Record => {}
            Verdict::Wait => {
                // Nothing of this look is recorded; all of it is seen again at the next, and believed then.
                let gone = plan.rows.iter().filter(|(_, row)| row.is_none());
                plan.missing.extend(gone.map(|(id, _)| *id));
                self.doubt(&plan, &parts, everything, believed, doubting);
                self.look_soon(&parts, everything);
                return Ok(());
            }
            Verdict::Brake => return self.brake_gone(plan.gone).await,
        }
        self.doubt(&plan, &parts, everything, believed, doubting);
        let LocalPlan {
            operations,
            rows,
            reads,
            look_again,
            revisit,
            conflicts,
            gone,
            ..
        } = plan;
        self.conflicts += conflicts;
        self.questions.extend(revisit);
        self.look_again(look_again);
        let Spared { operations, copies } = self.spare_unseen(&gone, operations).await?;
        let deleted = Deleted::of(gone, &operations, self.shared.rows().totals().0);
        self.note_moved(&reads, &operations);
        self.make_names_durable(&rows).await?;
        self.commit_structure(operations, rows, copies).await?;
        self.note_deleted(deleted);
        let reads = self.know_backups(reads);
        let reads = self.resting(reads);
        self.read_all(reads).await?;
        if self.closed.len() > MAX_CLOSED {
            self.closed.clear();
        }
        if self.backups.len() > MAX_CLOSED {
            self.backups.clear();
        }
        self.forget_old_note().await
    }

    pub(super) async fn look(
        &mut self,
        parts: &Parts,
        everything: bool,
        believed: &BTreeSet<FileId>,
    ) -> Result<LocalPlan, Halt> {
        let (place, shared, vault) = (self.place()?, self.shared.clone(), self.vault.clone());
        let rules = place.rules();
        let (parts, believed, folder) = (parts.clone(), believed.clone(), self.config.vault_folder);
        let around = self.around.clone();
        let watched_since = self.watched_since.take_if(|_| everything);
        let looked = blocking(move || {
            place.check()?;
            let rows = shared.rows();
            let disk = if everything {
                scan_whole(&place)
            } else {
                scan_parts(&place, &rows, &parts)
            };
            let disk = disk.map_err(|error| {
                Halt::Failed(format!(
                    "{} cannot be read: {error}",
                    place.path().display()
                ))
            })?;
            // Had it been unmounted meanwhile, everything would seem to be deleted.
            place.check()?;
            let label = vault.device_label();
            let tree = vault.tree();
            let view = super::compare::View {
                rows: &rows,
                tree: &tree,
                vault_folder: folder,
                profile: place.profile(),
                label: &label,
                now_ms: around.wall_ms(),
            };
            let mut plan = compare(&view, &disk, &believed, &mut || around.fresh());
            if let Some(since) = watched_since.filter(|_| !plan.look_again.is_empty()) {
                let watched = watched_all_along(&disk, i128::from(since) * 1_000_000);
                plan.look_again.retain(|path| !watched.contains(path));
            }
            Ok::<_, Halt>((plan, disk.problems, disk.unsettled))
        });
        let (plan, problems, unsettled) = looked.await??;
        self.look_at_rules(&rules, everything, unsettled);
        if everything {
            self.scanned_ms = u64::try_from(self.around.wall_ms()).ok();
            self.scan_problems = problems;
            self.read_problems
                .retain(|path, _| path.as_os_str().is_empty());
        } else {
            for problem in problems {
                if !self.scan_problems.contains(&problem)
                    && self.scan_problems.len() < super::state::MAX_PROBLEMS
                {
                    self.scan_problems.push(problem);
                }
            }
        }
        Ok(plan)
    }

    /// What is missing for the first time is looked for again before it counts as deleted.
    fn doubt(
        &mut self,
        plan: &LocalPlan,
        parts: &Parts,
        everything: bool,
        believed: BTreeSet<FileId>,
        before: Option<(Instant, Parts, bool)>,
    ) {
        if let Some((at, parts, everything)) = before {
            // Not due yet: the pass was about something else.
            self.doubted = believed;
            self.doubted_parts = Some((at, parts, everything));
        }
        if !plan.missing.is_empty() {
            self.doubted.extend(&plan.missing);
            self.look_soon(parts, everything);
            // What is missing may be in a folder that moved just now, whose own events are lost while it moves.
            let moved = plan.look_again.iter();
            self.look_soon(
                &moved.map(|path| (path.clone(), Depth::Deep)).collect(),
                false,
            );
        }
    }

    fn look_soon(&mut self, parts: &Parts, everything: bool) {
        let at = self.around.now() + DOUBT;
        let (_, again, whole) = self.doubted_parts.get_or_insert((at, Parts::new(), false));
        *whole |= everything;
        for (path, depth) in parts {
            add_part(again, path.clone(), *depth);
        }
    }

    fn look_again(&mut self, mut paths: Vec<PathBuf>) {
        paths.sort();
        let mut last: Option<PathBuf> = None;
        for path in paths {
            if last.as_ref().is_some_and(|last| path.starts_with(last)) {
                continue;
            }
            self.later
                .push((self.around.now() + LOOK_AGAIN, path.clone(), Depth::Deep));
            last = Some(path);
        }
    }

    pub(super) fn take_rows(&mut self, rows: Vec<(FileId, Option<FolderRow>)>) {
        let mut all = self.shared.rows_mut();
        for (id, row) in rows {
            match row {
                Some(row) => all.set(id, row),
                None => drop(all.remove(id)),
            }
        }
    }

    /// What a backup was made from may be recorded before the backup rests: then its row tells no longer.
    fn know_backups(&mut self, mut reads: Vec<Read>) -> Vec<Read> {
        for read in reads.iter_mut().filter(|read| read.id.is_none()) {
            if read.is_backup {
                self.backups.insert(read.stat.inode);
            } else {
                read.is_backup = self.backups.contains(&read.stat.inode);
            }
        }
        reads
    }

    /// Those that nobody is writing to; the others are looked at later.
    fn resting(&mut self, reads: Vec<Read>) -> Vec<Read> {
        let now_ns = i128::from(self.around.wall_ms()) * 1_000_000;
        let rest_ns = REST.as_nanos() as i128;
        let mut resting = Vec::new();
        for read in reads {
            let age = now_ns - read.stat.ctime_ns.max(read.stat.mtime_ns);
            if self.rests(&read, now_ns) {
                resting.push(read);
            } else {
                let wait = u64::try_from(rest_ns - age.max(0)).unwrap_or(0);
                self.again(
                    &read,
                    Duration::from_nanos(wait) + Duration::from_millis(10),
                );
            }
        }
        resting
    }

    pub(super) fn rests(&self, read: &Read, now_ns: i128) -> bool {
        let rest_ns = REST.as_nanos() as i128;
        let age = now_ns - read.stat.ctime_ns.max(read.stat.mtime_ns);
        // A time in the future says nothing; there only the watcher can.
        read.kind != Kind::File
            || self.closed.contains(&read.path)
            || age >= rest_ns
            || age < -rest_ns
    }

    pub(super) fn again(&mut self, read: &Read, after: Duration) {
        let folder = read.path.parent().map(PathBuf::from).unwrap_or_default();
        let at = self.around.now() + after;
        match self
            .later
            .iter_mut()
            .find(|(_, path, depth)| *path == folder && *depth == Depth::Shallow)
        {
            // One look at a folder serves all its files: the last one's time.
            Some((before, ..)) => *before = at.max(*before),
            None => self.later.push((at, folder, Depth::Shallow)),
        }
    }
}

/// Folders that were where they are, with the same names in them, some time before watching began: they were watched from
/// the beginning, and nothing came into them unseen. A change of names or of place changes the time.
fn watched_all_along(disk: &Snapshot, since_ns: i128) -> BTreeSet<PathBuf> {
    let mut all_along = vec![false; disk.nodes.len()];
    let mut watched = BTreeSet::new();
    for (at, node) in disk.nodes.iter().enumerate().skip(1) {
        let rested = node.stat.ctime_ns + REST.as_nanos() as i128 <= since_ns;
        if node.kind == Kind::Folder && rested && (node.parent == 0 || all_along[node.parent]) {
            all_along[at] = true;
            watched.insert(disk.path(at));
        }
    }
    watched
}
