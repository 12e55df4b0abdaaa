//! Taking the brake off: a person says what it was.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::FileId;
use tokio::time::Instant;

use super::brake::WINDOW;
use super::compare::{Read, row_of};
use super::engine::{Engine, Halt, blocking};
use super::{Contents, FolderVault};
use crate::vault::request::{BrakedFile, CommitRequest, ContentDraft, FolderRow, Operation};

/// What a person says of what the brake holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It was meant: record it.
    Meant,
    /// Bring the files back as the vault has them.
    Undo,
}

/// What a release concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Files that had disappeared.
    pub gone: u64,
    /// Files that had been rewritten.
    pub rewritten: u64,
}

/// Why the brake was not taken off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreleased {
    /// It is not on.
    #[error("nothing is held back in this folder")]
    NotBraked,
    /// The folder or the vault cannot be used now.
    #[error("{0}")]
    Failed(String),
}

/// Losses that a person said were meant.
pub(super) struct Consent {
    /// Rows of what is gone, and files that were rewritten.
    pub files: BTreeSet<FileId>,
    until: Instant,
}

impl<V: FolderVault, C: Contents> Engine<V, C> {
    pub(super) fn has_consent(&self, id: &FileId) -> bool {
        self.consent
            .as_ref()
            .is_some_and(|consent| consent.files.contains(id))
    }

    /// What a person consented to is recorded soon after; what happens to these files later is another matter.
    pub(super) fn expire_consent(&mut self) {
        let now = self.around.now();
        self.consent.take_if(|consent| consent.until < now);
    }

    /// A person has said what it was.
    pub(super) async fn release(&mut self, how: Release) -> Result<Released, Unreleased> {
        let Some(braked) = &self.braked else {
            return Err(Unreleased::NotBraked);
        };
        // Consent is to what was told; what is brought back is what there is now.
        if (how == Release::Undo || braked.losses.is_none())
            && let Err(halt) = self.look_at_losses().await
        {
            return Err(self.unreleased(halt));
        }
        let Some(braked) = &self.braked else {
            return Ok(Released::default());
        };
        let released = Released {
            gone: braked.report.gone,
            rewritten: braked.report.rewritten,
        };
        let done = match how {
            Release::Meant => self.consent().await,
            Release::Undo => self.undo().await,
        };
        match done {
            Ok(()) => {
                self.off();
                Ok(released)
            }
            Err(halt) => Err(self.unreleased(halt)),
        }
    }

    fn unreleased(&mut self, halt: Halt) -> Unreleased {
        let reason = match &halt {
            Halt::Stop => "it is being stopped".to_owned(),
            Halt::Missing(reason) | Halt::Failed(reason) => reason.clone(),
        };
        self.halt_by(halt);
        Unreleased::Failed(reason)
    }

    async fn consent(&mut self) -> Result<(), Halt> {
        let request = self.off_request();
        self.vault.commit(request).await?;
        let losses = self
            .braked
            .as_ref()
            .and_then(|braked| braked.losses.as_ref());
        let files = losses.into_iter().flat_map(|losses| {
            let changed = losses.changed.iter().filter_map(|read| read.id);
            losses.missing.iter().copied().chain(changed)
        });
        self.consent = Some(Consent {
            files: files.collect(),
            until: self.around.now() + WINDOW,
        });
        Ok(())
    }

    /// The rows of what is gone go: then the vault's files are merely not on disk yet. Those of what was rewritten say
    /// that disk and vault agreed on bytes that nobody knows: then the vault's are newer, and take their place, in the
    /// way and with the care of any change from elsewhere, once they are here. What was recorded before the brake took
    /// hold is recorded the other way round.
    async fn undo(&mut self) -> Result<(), Halt> {
        let Some(braked) = &self.braked else {
            return Ok(());
        };
        let Some(losses) = &braked.losses else {
            return Ok(());
        };
        let mut rows: Vec<(FileId, Option<FolderRow>)> =
            losses.missing.iter().map(|id| (*id, None)).collect();
        if losses.is_rewriting {
            let known = self.shared.rows();
            rows.extend(losses.changed.iter().filter_map(|read| {
                // In a folder that is new here it is a new file, and the vault's own comes beside it.
                let row = known.is_folder(read.parent).then(|| unknown_row(read));
                Some((read.id?, row))
            }));
        }
        let held = braked.held.clone();
        let mut request = self.off_request();
        let number = self.config.number;
        request.folder_rows = rows
            .iter()
            .map(|(id, row)| (number, *id, row.clone()))
            .collect();
        self.take_back(held, &mut request).await?;
        self.vault.commit(request).await?;
        self.take_rows(rows);
        Ok(())
    }

    /// What was recorded, the other way round.
    async fn take_back(
        &self,
        held: BTreeMap<FileId, BrakedFile>,
        request: &mut CommitRequest,
    ) -> Result<(), Halt> {
        let vault = self.vault.clone();
        let operations = blocking(move || {
            let (mut operations, mut rewritten, mut recheck) = (Vec::new(), Vec::new(), Vec::new());
            {
                let tree = vault.tree();
                for (id, why) in held {
                    if matches!(why, BrakedFile::Gone | BrakedFile::Changed) {
                        continue;
                    }
                    if tree.get(id).is_some_and(|known| known.trash.is_some())
                        && tree.shown(id).is_some_and(|shown| shown.trashed)
                    {
                        operations.push(Operation::RestoreFile { id });
                        recheck.push(id);
                        recheck.extend(tree.below(id));
                    }
                    let present = tree.get(id).and_then(|known| known.content);
                    let BrakedFile::Rewritten { before, place } = why else {
                        continue;
                    };
                    if let Some(before) = before
                        && present.is_some_and(|content| content.hash != before)
                    {
                        rewritten.push((id, before));
                        recheck.push(id);
                    }
                    if let Some((parent, name)) = place
                        && tree.lookup(FileId(parent), &name).is_none()
                    {
                        let parent = FileId(parent);
                        operations.push(Operation::MoveFile { id, parent, name });
                    }
                }
            }
            for (id, before) in rewritten {
                if let Some(content) = vault.past_content(id, &before)? {
                    let content = ContentDraft::from(&content);
                    operations.push(Operation::SetContent {
                        id,
                        content,
                        replaces: None,
                    });
                }
            }
            Ok::<_, Halt>((operations, recheck))
        });
        (request.operations, request.recheck) = operations.await??;
        Ok(())
    }
}

/// A row for a file as it is, with bytes that no file of the vault has.
fn unknown_row(read: &Read) -> FolderRow {
    row_of(read.parent, &read.name, read.kind, &read.stat, [0; 32])
}
