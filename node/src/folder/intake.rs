//! What the local pass has to read, on its way into the vault: batch by batch, one read while the one before is committed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rustix::io::Errno;

use super::compare::Read;
use super::decide::{self, Settled};
use super::durable::durable;
use super::engine::{Engine, Halt, add_part, blocking};
use super::local::{LOOK_AGAIN, REST};
use super::reading::{Found, batches, import};
use super::rivals::{Rivals, rescue};
use super::scan::Depth;
use super::{Contents, FolderVault};
use crate::blobs::{ImportError, Imported};
use crate::vault::request::{CommitError, CommitRequest, ContentDraft, Operation};

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Reads and commits batch by batch; one is read while the one before it is committed.
    pub(super) async fn read_all(&mut self, reads: Vec<Read>) -> Result<(), Halt> {
        let (mut stop, around) = (self.stop_signal(), self.around.clone());
        let mut ready: Vec<Found> = Vec::new();
        let mut failed = Vec::new();
        self.unread = reads.iter().filter_map(|read| read.id).collect();
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
    /// very file. Or on one that has yet to be read: perhaps the two changed places, and it holds something else by now. And what gives new bytes to a file that another on disk gives some already, being shown as one with it:
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
                let is_firm = |copy| !self.doubted.contains(&copy) && !self.unread.contains(&copy);
                let is_sure =
                    copy.is_none_or(is_firm) && writes.clone().all(|id| !written.contains(&id));
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
        self.backups.remove(&read.stat.inode);
        self.read_problems.remove(&read.path);
        if let Some(id) = read.id {
            self.unread.remove(&id);
        }
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

/// Where the bytes of a file that was read are, and what they are.
#[derive(Clone)]
struct Bytes {
    rows: crate::blobs::Rows,
    hold: crate::blobs::Hold,
    hash: [u8; 32],
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
