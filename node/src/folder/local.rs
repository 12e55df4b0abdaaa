//! The local pass: what was done to the folder on disk goes into the vault.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use coffer_crdt::files::{FileId, Kind};
use rustix::io::Errno;
use tokio::time::Instant;

use super::brake::Verdict;
use super::braked::Deleted;
use super::compare::{LocalPlan, Read, compare};
use super::decide::{self, Settled};
use super::durable::{changed_folders, durable, durable_names};
use super::engine::{DOUBT, Engine, Halt, add_part, blocking};
use super::reading::{Found, batches, import};
use super::rivals::{Rivals, rescue};
use super::scan::{Depth, Parts, Snapshot, scan_parts, scan_whole};
use super::sparing::Spared;
use super::{Contents, FolderVault};
use crate::blobs::{ImportError, Imported};
use crate::vault::request::{CommitError, CommitRequest, ContentDraft, FolderRow, Operation};

/// A file rests when nothing changed it for so long, if its writer was not seen to close it.
pub(super) const REST: Duration = Duration::from_secs(1);
/// New folders are looked into once more after this time: files may have come before they were watched.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Files noted as closed, at most.
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
        let reads = self.resting(reads);
        self.read_all(reads).await?;
        if self.closed.len() > MAX_CLOSED {
            self.closed.clear();
        }
        self.forget_old_note().await
    }

    /// Names are durable before the vault says that they are so: else a loss of power would take them back, and the next
    /// look would take that for somebody's work.
    async fn make_names_durable(&self, rows: &[(FileId, Option<FolderRow>)]) -> Result<(), Halt> {
        let folders = changed_folders(&self.shared.rows(), rows);
        if folders.is_empty() {
            return Ok(());
        }
        let place = self.place()?;
        blocking(move || durable_names(&place, &folders))
            .await?
            .map_err(|error| Halt::Failed(format!("writing to the folder failed: {error}")))
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

    /// Folders, moves and deletions in one request; if the vault refuses one of them, each by itself.
    async fn commit_structure(
        &mut self,
        operations: Vec<Operation>,
        rows: Vec<(FileId, Option<FolderRow>)>,
        recheck: Vec<FileId>,
    ) -> Result<(), Halt> {
        if operations.is_empty() && rows.is_empty() {
            return Ok(());
        }
        let number = self.config.number;
        let request = CommitRequest {
            operations: operations.clone(),
            folder_rows: rows
                .iter()
                .map(|(id, row)| (number, *id, row.clone()))
                .collect(),
            recheck: recheck.clone(),
            ..CommitRequest::default()
        };
        match self.vault.commit(request).await {
            Ok(_) => {
                self.take_rows(rows);
                self.ask_of_unmoved(&operations);
                return Ok(());
            }
            Err(CommitError::NotFound(_) | CommitError::Invalid(_) | CommitError::Exists(_))
                if operations.len() > 1 => {}
            Err(
                CommitError::NotFound(reason)
                | CommitError::Invalid(reason)
                | CommitError::Exists(reason),
            ) => {
                self.refuse_rows(&rows, &reason);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let mut rest = rows;
        for operation in operations {
            let subject = subject(&operation);
            let (own, others): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|(id, _)| Some(*id) == subject);
            rest = others;
            let folder_rows = own
                .iter()
                .map(|(id, row)| (number, *id, row.clone()))
                .collect();
            match self
                .vault
                .commit(CommitRequest {
                    operations: vec![operation],
                    folder_rows,
                    ..CommitRequest::default()
                })
                .await
            {
                Ok(_) => self.take_rows(own),
                Err(
                    CommitError::NotFound(reason)
                    | CommitError::Invalid(reason)
                    | CommitError::Exists(reason),
                ) => self.refuse_rows(&own, &reason),
                Err(error) => return Err(error.into()),
            }
        }
        let folder_rows = rest
            .iter()
            .map(|(id, row)| (number, *id, row.clone()))
            .collect();
        self.vault
            .commit(CommitRequest {
                folder_rows,
                recheck,
                ..CommitRequest::default()
            })
            .await?;
        self.take_rows(rest);
        Ok(())
    }

    /// What the vault shows elsewhere than where it was just moved, for what it was moved into was moved into it meanwhile:
    /// that changes nothing in what is shown, so nobody else will say that it is in question.
    fn ask_of_unmoved(&mut self, operations: &[Operation]) {
        let tree = self.vault.tree();
        for operation in operations {
            if let Operation::MoveFile { id, parent, name } = operation
                && tree.shown(*id).is_some_and(|shown| {
                    shown.parent != tree.representative(*parent) || *shown.name != **name
                })
            {
                self.questions.insert(*id);
            }
        }
    }

    fn refuse_rows(&mut self, rows: &[(FileId, Option<FolderRow>)], reason: &str) {
        for (_, row) in rows {
            let path = row
                .as_ref()
                .map(|row| PathBuf::from(&row.name))
                .unwrap_or_default();
            self.read_problems
                .insert(path, format!("the vault does not take it: {reason}"));
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

    fn again(&mut self, read: &Read, after: Duration) {
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

    /// Reads and commits batch by batch; one is read while the one before it is committed.
    async fn read_all(&mut self, reads: Vec<Read>) -> Result<(), Halt> {
        let (mut stop, around) = (self.stop_signal(), self.around.clone());
        let mut ready: Vec<Found> = Vec::new();
        let mut failed = Vec::new();
        for batch in batches(reads) {
            let (contents, root, number, place) = (
                self.contents.clone(),
                self.config.path.clone(),
                self.config.number,
                self.place()?,
            );
            let importing = async {
                let (found, mut failed) = import(&*around, &*contents, root, number, batch).await;
                let made = blocking(move || durable(&place, found)).await;
                made.map(|(found, not)| {
                    failed.extend(not);
                    (found, failed)
                })
            };
            let previous = std::mem::take(&mut ready);
            let both = async { tokio::join!(self.commit_found(previous), importing) };
            let (committed, imported) = Self::unless_stopped(&mut stop, both).await?;
            committed?;
            let (found, not) = imported?;
            ready = found;
            failed.extend(not);
            self.publish();
        }
        self.commit_found(ready).await?;
        self.not_read(failed)
    }

    fn not_read(&mut self, failed: Vec<(Read, ImportError)>) -> Result<(), Halt> {
        let mut halt = None;
        for (read, error) in failed {
            match error {
                ImportError::Changed => self.again(&read, REST),
                ImportError::Vanished => {
                    let folder = read.path.parent().map(PathBuf::from).unwrap_or_default();
                    add_part(&mut self.parts, folder, Depth::Shallow);
                }
                ImportError::Read(error)
                    if error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) =>
                {
                    let reason = "it lies too deep: its path is longer than the system can open; move it, or a folder above it, further up";
                    self.read_problems.insert(read.path, reason.to_owned());
                }
                ImportError::NoPermission | ImportError::NotAFile | ImportError::Read(_) => {
                    self.read_problems.insert(read.path, error.to_string());
                }
                ImportError::DiskFull | ImportError::Store(_) => {
                    halt = Some(Halt::Failed(error.to_string()))
                }
            }
        }
        halt.map_or(Ok(()), Err)
    }

    async fn commit_found(&mut self, found: Vec<Found>) -> Result<(), Halt> {
        if found.is_empty() {
            return Ok(());
        }
        let rivals = self.rivals_of(&found).await?;
        let settled = self.decide(found, &rivals);
        let settled = self.without_doubtful(settled);
        let mut all = CommitRequest::default();
        for (_, settled, bytes) in &settled {
            self.request(&mut all, settled, bytes.clone());
        }
        match self.vault.commit(all).await {
            Ok(_) => {}
            Err(
                CommitError::NotFound(_)
                | CommitError::Invalid(_)
                | CommitError::Exists(_)
                | CommitError::Changed(_),
            ) => {
                return self.commit_one_by_one(settled).await;
            }
            Err(error) => return Err(error.into()),
        }
        for (read, settled, _) in settled {
            self.accept(&read, settled);
        }
        Ok(())
    }

    /// Leaves out, to be looked at later, what counts on a conflict copy that is missing: perhaps that was moved over the
    /// very file. And what gives new bytes to a file that another on disk gives some already, being shown as one with it:
    /// decided anew, with those in view, that is a conflict.
    fn without_doubtful(
        &mut self,
        settled: Vec<(Read, Settled, Bytes)>,
    ) -> Vec<(Read, Settled, Bytes)> {
        let mut written = BTreeSet::new();
        let (sure, doubtful): (Vec<_>, Vec<_>) =
            settled.into_iter().partition(|(_, settled, _)| {
                let copy = settled.relies_on;
                let writes = settled
                    .operations
                    .iter()
                    .filter_map(|operation| match operation {
                        Operation::SetContent { id, .. } => Some(*id),
                        _ => None,
                    });
                let is_sure = copy.is_none_or(|copy| !self.doubted.contains(&copy))
                    && writes.clone().all(|id| !written.contains(&id));
                if is_sure {
                    written.extend(writes);
                }
                is_sure
            });
        for (read, ..) in doubtful {
            self.again(&read, LOOK_AGAIN);
        }
        sure
    }

    async fn commit_one_by_one(
        &mut self,
        settled: Vec<(Read, Settled, Bytes)>,
    ) -> Result<(), Halt> {
        for (read, settled, bytes) in settled {
            let mut request = CommitRequest::default();
            self.request(&mut request, &settled, bytes);
            match self.vault.commit(request).await {
                Ok(_) => self.accept(&read, settled),
                // Another device's content came between the decision and the commit: decided anew, with both in view.
                Err(CommitError::Changed(_)) => self.again(&read, LOOK_AGAIN),
                Err(
                    CommitError::NotFound(reason)
                    | CommitError::Invalid(reason)
                    | CommitError::Exists(reason),
                ) => {
                    self.read_problems
                        .insert(read.path, format!("the vault does not take it: {reason}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn accept(&mut self, read: &Read, settled: Settled) {
        self.closed.remove(&read.path);
        self.read_problems.remove(&read.path);
        self.note_rewritten(read, &settled.operations);
        self.take_rows(settled.rows);
        self.questions.extend(settled.revisit);
        self.conflicts += u64::from(settled.conflict);
    }

    /// What was read means this, by the tree and rows of this moment.
    fn decide(&self, found: Vec<Found>, rivals: &Rivals) -> Vec<(Read, Settled, Bytes)> {
        let label = self.vault.device_label();
        let tree = self.vault.tree();
        let rows = self.shared.rows();
        let view = self.view(&rows, &tree, &label);
        let mut each = Vec::with_capacity(found.len());
        for (read, id, imported) in found {
            let draft = draft(&read, &imported);
            let hash = draft.hash;
            let mut settled = decide::settle(&view, &read, draft, id);
            rescue(&view, &mut settled, rivals);
            let bytes = Bytes {
                rows: imported.rows,
                hold: imported.hold,
                hash,
            };
            each.push((read, settled, bytes));
        }
        each
    }

    /// Adds to a request what one file comes to.
    fn request(&self, all: &mut CommitRequest, settled: &Settled, bytes: Bytes) {
        let placements = bytes.rows.placements.into_iter();
        let number = self.config.number;
        let rows = settled.rows.iter();
        all.operations.extend(settled.operations.iter().cloned());
        all.placements
            .extend(placements.map(|(blob, place)| (blob, place.in_file(settled.owner.0))));
        all.chunks.extend(bytes.rows.chunks);
        all.folder_rows
            .extend(rows.map(|(id, row)| (number, *id, row.clone())));
        all.held.push((settled.owner, bytes.hash));
        all.recheck.extend(&settled.copies);
        all.holds.push(bytes.hold);
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

/// Where the bytes of a file that was read are, and what they are.
#[derive(Clone)]
struct Bytes {
    rows: crate::blobs::Rows,
    hold: crate::blobs::Hold,
    hash: [u8; 32],
}

fn subject(operation: &Operation) -> Option<FileId> {
    match operation {
        Operation::CreateFile { id, .. }
        | Operation::CreateCopy { id, .. }
        | Operation::MoveFile { id, .. }
        | Operation::SetContent { id, .. }
        | Operation::TrashFile { id }
        | Operation::RestoreFile { id } => Some(*id),
        _ => None,
    }
}

fn draft(read: &Read, imported: &Imported) -> ContentDraft {
    match &read.target {
        Some(target) => decide::link_draft(
            target,
            i64::try_from(read.stat.mtime_ns.div_euclid(1_000_000)).unwrap_or(0),
        ),
        None => ContentDraft::from(imported),
    }
}
