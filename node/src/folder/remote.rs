//! The remote pass: what the vault's tree says is done on disk.
//!
//! Steps that need no bytes are carried out at once and committed together. Contents are written to temporary files by
//! transfers that run beside the loop; what comes back of them is put in place in `groups.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::tree::Changed;
use tokio::sync::broadcast;

use super::apply::{Hands, Outcome, confirm_kept};
use super::engine::{Engine, Flight, Halt, RETRY, add_part, blocking};
use super::hidden::temporary_name;
use super::intent;
use super::local::LOOK_AGAIN;
use super::plan::{Bring, RemotePlan, Step, endangered, plan_some, same_files};
use super::scan::Depth;
use super::state::Problem;
use super::survey::Survey;
use super::{Contents, FolderVault};
use crate::blobs::{StoreJob, WriteJob};
use crate::vault::request::{CommitRequest, FolderRow};

/// Transfers that run at the same time: while one's files are put in place, the other fetches.
const MAX_TRANSFERS: usize = 2;
/// Files in one transfer, at most.
pub(super) const TRANSFER_FILES: usize = 4096;
/// Files taken up at a time where all are in question: planning needs some hundred bytes for each.
const SURVEY_FILES: usize = 4 * TRANSFER_FILES;
/// Changes that come at once and are not a person's doing of a moment: new files among them wait for their turn.
const MANY_CHANGES: usize = 512;
/// How often in a row a file may find the disk other than its row says, before that is reported as a problem.
const MAX_SURPRISES: u32 = 4;
/// How often in a row a file may wait for the reading of the one that stands for it: a quarter of a minute in all.
const MAX_WAITS: u32 = 10;

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// What is shown otherwise in the tree is in question. `false` when there will be no more.
    pub(super) fn tree_changed(
        &mut self,
        changed: Result<Arc<Vec<Changed>>, broadcast::error::RecvError>,
    ) -> bool {
        match changed {
            Ok(changed) => self.note_changed(&changed),
            Err(broadcast::error::RecvError::Lagged(_)) => self.all_questions = true,
            Err(broadcast::error::RecvError::Closed) => return false,
        }
        // Whatever else is there comes along: one pass for all.
        loop {
            match self.tree_changes.try_recv() {
                Ok(changed) => self.note_changed(&changed),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.all_questions = true,
                Err(broadcast::error::TryRecvError::Empty) => return true,
                Err(broadcast::error::TryRecvError::Closed) => return false,
            }
        }
    }

    pub(super) fn note_changed(&mut self, changed: &[Changed]) {
        let tree = self.vault.tree();
        let rows = self.shared.rows();
        // A first sync names files faster than their bytes come: they wait as what they are, some bytes each.
        let later = changed.len() > MANY_CHANGES && self.wanted.len() >= TRANSFER_FILES;
        if later {
            let new = |change: &&Changed| !change.subtree && rows.get(change.id).is_none();
            self.survey
                .add(changed.iter().filter(new).map(|change| change.id));
        }
        for change in changed {
            if later && !change.subtree && rows.get(change.id).is_none() {
                continue;
            }
            self.questions.insert(change.id);
            if change.subtree {
                self.questions.extend(tree.below(change.id));
                self.questions.extend(rows.below(change.id));
            }
        }
    }

    /// Whether the vault's folder still is one to sync.
    pub(super) fn check_vault_folder(&self) -> Result<(), Halt> {
        let folder = self.config.vault_folder;
        if folder == FileId::ROOT {
            return Ok(());
        }
        match self.vault.tree().shown(folder) {
            Some(shown) if !shown.trashed && shown.kind == Kind::Folder => Ok(()),
            Some(_) => Err(Halt::Failed(
                "the vault's folder is in the trash; restore it, or remove this synced folder"
                    .into(),
            )),
            None => Err(Halt::Failed(
                "the vault's folder has not arrived yet".into(),
            )),
        }
    }

    /// Answers all questions there are.
    pub(super) async fn remote_pass(&mut self) -> Result<(), Halt> {
        if std::mem::take(&mut self.all_questions) {
            let tree = self.vault.tree();
            let rows = self.shared.rows();
            let below = self.view(&rows, &tree, "").below(self.config.vault_folder);
            self.survey = Survey::new(below.into_iter().chain(rows.iter().map(|(id, _)| id)));
        }
        if self.questions.is_empty() && self.can_survey() {
            self.questions = self.survey.take(SURVEY_FILES);
        }
        if self.questions.is_empty() {
            return self.start_transfers().await;
        }
        self.check_vault_folder()?;
        self.publish();
        let questions = std::mem::take(&mut self.questions);
        let done = self.answer(&questions).await;
        if done.is_err() {
            self.questions.extend(questions);
        }
        done?;
        self.start_transfers().await
    }

    /// Whether more of the survey can be taken up: what waits for its bytes is bounded.
    pub(super) fn can_survey(&self) -> bool {
        self.survey.len() > 0 && self.wanted.len() < TRANSFER_FILES
    }

    async fn answer(&mut self, questions: &BTreeSet<FileId>) -> Result<(), Halt> {
        self.adopt_same(questions).await?;
        let (planned, endangered) = {
            let tree = self.vault.tree();
            let rows = self.shared.rows();
            let view = self.view(&rows, &tree, "");
            let planned = plan_some(&view, questions, self.survey.left());
            let endangered = endangered(&view, &planned);
            (planned, endangered)
        };
        let mut waiting = BTreeSet::new();
        if self.preserve_rivals(endangered, &mut waiting).await? {
            self.questions.extend(questions);
            return Ok(());
        }
        let RemotePlan {
            mut steps,
            mut bring,
            settled,
        } = planned;
        steps.retain(|step| !waiting.contains(&step.subject()));
        bring.retain(|bring| !waiting.contains(&bring.id));
        self.twins.append(&mut waiting);
        self.spare_twins(&mut steps);
        let stand_ins = self.stand_ins(&steps);
        for id in settled {
            self.forget(id);
        }
        if !steps.is_empty() {
            let (place, shared, around) = (self.place()?, self.shared.clone(), self.around.clone());
            let outcome = blocking(move || {
                place.check()?;
                let intents = intent::of_steps(&shared.rows(), &steps);
                if !intents.is_empty() {
                    intent::note(&place, &intents).map_err(unnoted)?;
                }
                let mut unique = || around.fresh();
                let hands = Hands::new(&place, &shared, &mut unique);
                let mut hands = hands.with_stand_ins(stand_ins);
                for step in &steps {
                    hands.step(step);
                }
                let outcome = hands.finish();
                place.sync().map_err(|error| {
                    Halt::Failed(format!("writing to the folder failed: {error}"))
                })?;
                Ok::<_, Halt>(outcome)
            });
            let outcome = outcome.await??;
            self.take_outcome(outcome, CommitRequest::default()).await?;
        }
        let bring = self.without_left(bring).await?;
        for bring in &bring {
            self.alone.remove(&bring.id);
        }
        self.want(bring);
        Ok(())
    }

    /// A file that is shown as one with another is not put away while that one is missing on disk: if it was deleted, this
    /// one is what is left of the two.
    fn spare_twins(&mut self, steps: &mut Vec<Step>) {
        if self.doubted.is_empty() {
            return;
        }
        let tree = self.vault.tree();
        let (doubted, twins) = (&self.doubted, &mut self.twins);
        steps.retain(|step| {
            let id = step.subject();
            let stands_for = tree.representative(id);
            let spared =
                matches!(step, Step::Keep(_)) && stands_for != id && doubted.contains(&stands_for);
            if spared {
                twins.insert(id);
            }
            !spared
        });
    }

    /// The files that stand for those which are put away because they show as one with them.
    fn stand_ins(&self, steps: &[Step]) -> BTreeMap<FileId, FileId> {
        let tree = self.vault.tree();
        let kept = steps.iter().filter_map(|step| match step {
            Step::Keep(id) => Some((*id, tree.representative(*id))),
            _ => None,
        });
        kept.filter(|(id, one)| id != one).collect()
    }

    /// A file has nothing to wait for any more.
    pub(super) fn forget(&mut self, id: FileId) {
        self.wanted.remove(&id);
        self.unreachable.remove(&id);
        self.refused.remove(&id);
        self.surprises.remove(&id);
    }

    /// Rows of files that are one with others become the others'.
    async fn adopt_same(&mut self, questions: &BTreeSet<FileId>) -> Result<(), Halt> {
        let same = {
            let tree = self.vault.tree();
            let rows = self.shared.rows();
            same_files(&self.view(&rows, &tree, ""), questions.iter().copied())
        };
        if same.is_empty() {
            return Ok(());
        }
        let (mut touched, mut adopted) = (BTreeSet::new(), Vec::new());
        {
            let mut rows = self.shared.rows_mut();
            for (old, new) in same {
                let below: Vec<FileId> = rows.children(old).map(|(_, id)| id).collect();
                if let Some(row) = rows.remove(old) {
                    adopted.extend((row.kind == 0).then_some((old, new, row.hash)));
                    rows.set(new, row);
                    touched.extend([old, new]);
                }
                for id in below {
                    if let Some(row) = rows.get(id).cloned() {
                        rows.set(
                            id,
                            FolderRow {
                                parent: new.0,
                                ..row
                            },
                        );
                        touched.insert(id);
                    }
                }
            }
        }
        let mut request = self.rows_request(&touched);
        request.held = {
            let rows = self.shared.rows();
            touched
                .iter()
                .filter_map(|id| {
                    rows.get(*id)
                        .filter(|row| row.kind != 1)
                        .map(|row| (*id, row.hash))
                })
                .collect()
        };
        self.account_for_adopted(adopted, &mut request).await;
        match self.vault.commit(request).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fall_back(error).await),
        }
    }

    /// Commits what was done on disk, and takes note of what was not.
    async fn take_outcome(
        &mut self,
        outcome: Outcome,
        mut request: CommitRequest,
    ) -> Result<(), Halt> {
        self.account_for(&outcome, &mut request).await;
        if !is_empty(&request) {
            if let Err(error) = self.vault.commit(request).await {
                return Err(self.fall_back(error).await);
            }
            self.forget_intents().await?;
        }
        self.committed(outcome).await
    }

    /// Adds to a request what was done on disk.
    pub(super) async fn account_for(&mut self, outcome: &Outcome, request: &mut CommitRequest) {
        let rows = self.rows_request(&outcome.touched);
        request.folder_rows.extend(rows.folder_rows);
        self.account_for_kept(&outcome.kept, request).await;
    }

    /// What was about to be done is committed.
    pub(super) async fn forget_intents(&mut self) -> Result<(), Halt> {
        let place = self.place()?;
        if let Err(error) = blocking(move || intent::forget(&place)).await? {
            tracing::warn!(%error, "a note of what was done could not be emptied");
        } else {
            self.old_note = None;
        }
        Ok(())
    }

    /// What was done on disk is committed; takes note of what was not.
    pub(super) async fn committed(&mut self, outcome: Outcome) -> Result<(), Halt> {
        let Outcome {
            kept,
            done,
            surprises,
            waiting,
            unsure,
            alone,
            left,
            refused,
            ..
        } = outcome;
        if !kept.is_empty() {
            let place = self.place()?;
            let confirmed = blocking(move || confirm_kept(&place, &kept)).await?;
            if let Err(error) = confirmed {
                tracing::warn!(%error, "kept files could not be given their final names; the next start will");
            }
        }
        for id in done {
            // What could not be done about it a moment ago may have been something else, and is asked again.
            if self.refused.contains_key(&id) || self.surprises.contains_key(&id) {
                self.questions.insert(id);
            }
            self.forget(id);
        }
        for id in alone {
            self.leave_alone(id);
        }
        self.left.extend(left);
        for (folder, id) in surprises {
            add_part(&mut self.parts, folder.clone(), Depth::Shallow);
            let times = self.surprises.entry(id).or_insert(0);
            *times += 1;
            if *times < MAX_SURPRISES {
                self.questions.insert(id);
            } else {
                let reason = "something else is in its way on disk".to_owned();
                self.refuse(id, folder.to_string_lossy().into_owned(), reason);
            }
        }
        for path in unsure {
            let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
            add_part(&mut self.parts, folder, Depth::Shallow);
            // As far as anybody knows nobody writes to it, and it need not rest.
            self.closed.insert(path);
        }
        for (folder, id) in waiting {
            let times = self.surprises.entry(id).or_insert(0);
            *times += 1;
            if *times < MAX_WAITS {
                let at = self.around.now() + LOOK_AGAIN * *times;
                self.later.push((at, folder, Depth::Shallow));
                self.twins.insert(id);
            } else {
                let reason = "the file that it is one with was changed, and cannot be read yet";
                let path = self.shared.rows().path(id).unwrap_or(folder);
                self.refuse(id, path.to_string_lossy().into_owned(), reason.to_owned());
            }
        }
        for (id, path, error) in refused {
            self.refuse(id, path, error.to_string());
        }
        Ok(())
    }

    fn refuse(&mut self, id: FileId, mut path: String, reason: String) {
        if path.is_empty() {
            // It was never on this disk: there is its name in the vault.
            path = self.vault.tree().path(id).unwrap_or_default();
        }
        self.refused.insert(id, Problem { path, reason });
        self.retry_in(RETRY);
    }

    /// Starts transfers while there is something to bring and room for them.
    pub(super) async fn start_transfers(&mut self) -> Result<(), Halt> {
        while self.braked.is_none() && self.transfers.len() < MAX_TRANSFERS {
            let batch = self.next_batch();
            if batch.is_empty() {
                return Ok(());
            }
            self.start_transfer(batch).await?;
        }
        Ok(())
    }

    async fn start_transfer(&mut self, batch: Vec<Bring>) -> Result<(), Halt> {
        let place = self.place()?;
        let vault = self.vault.clone();
        let ids: Vec<FileId> = batch.iter().map(|bring| bring.id).collect();
        let contents = blocking(move || vault.file_contents(&ids)).await??;
        self.next_key += 1;
        let transfer = self.next_key;
        let mut jobs = Vec::with_capacity(batch.len());
        for (bring, content) in batch.into_iter().zip(contents) {
            self.wanted.remove(&bring.id);
            let Some(content) = content.filter(|content| content.hash == bring.content.hash) else {
                // Replaced since; the tree will say by what.
                self.questions.insert(bring.id);
                continue;
            };
            self.next_key += 1;
            jobs.push(WriteJob {
                content: StoreJob {
                    key: self.next_key,
                    size: content.size,
                    hash: content.hash,
                    root: content.root,
                },
                temp: place.tmp_path(&temporary_name(bring.id, &bring.content.hash)),
                folder: self.config.number,
                file: bring.id.0,
            });
            self.flights
                .insert(self.next_key, Flight { bring, transfer });
        }
        let (contents, done) = (self.contents.clone(), self.groups.0.clone());
        self.transfers.spawn(async move {
            contents.write(jobs, done).await;
            transfer
        });
        Ok(())
    }

    /// A transfer is over. Whatever of it did not come back is asked for again; `None` if it broke down.
    pub(super) async fn transfer_ended(&mut self, transfer: Option<u64>) -> Result<(), Halt> {
        // Its last groups may still be waiting in the queue.
        while let Ok(group) = self.groups.1.try_recv() {
            self.put_in_place(group).await?;
        }
        let nothing_runs = self.transfers.is_empty();
        let is_lost = |flight: &Flight| nothing_runs || Some(flight.transfer) == transfer;
        let lost: Vec<u64> = self
            .flights
            .iter()
            .filter(|(_, flight)| is_lost(flight))
            .map(|(key, _)| *key)
            .collect();
        for key in lost {
            if let Some(flight) = self.flights.remove(&key) {
                self.unreachable.insert(flight.bring.id);
                self.retry_in(RETRY);
            }
        }
        self.start_transfers().await
    }
}

/// Whether there is nothing to commit.
pub(super) fn is_empty(request: &CommitRequest) -> bool {
    request.folder_rows.is_empty()
        && request.placements.is_empty()
        && request.held.is_empty()
        && request.chunks.is_empty()
}

pub(super) fn unnoted(error: std::io::Error) -> Halt {
    Halt::Failed(format!("writing to the folder failed: {error}"))
}
