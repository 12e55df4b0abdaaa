//! Taking the brake off: a person says what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use coffer_crdt::files::FileId;
use tokio::time::Instant;

use super::apply::{Kept, PENDING, confirm_kept};
use super::brake::WINDOW;
use super::compare::Read;
use super::engine::{Engine, Halt, blocking, fresh};
use super::ground::stat_at;
use super::kept::draft_of;
use super::place::Place;
use super::recover::no_row;
use super::{Contents, FolderVault};
use crate::vault::request::{BrakedFile, CommitRequest, ContentDraft, Operation};

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
        self.consent
            .take_if(|consent| consent.until < Instant::now());
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
            until: Instant::now() + WINDOW,
        });
        Ok(())
    }

    /// The rewritten bytes go to the kept files, and the rows of all that is lost go: then the vault's files are merely
    /// not on disk yet. What was recorded before the brake took hold is recorded the other way round.
    async fn undo(&mut self) -> Result<(), Halt> {
        let place = self.place()?;
        let Some(braked) = &self.braked else {
            return Ok(());
        };
        let Some(losses) = &braked.losses else {
            return Ok(());
        };
        let mut lost = losses.missing.clone();
        let changed = if losses.is_rewriting {
            losses.changed.clone()
        } else {
            Vec::new()
        };
        let held = braked.held.clone();
        let aside = {
            let place = place.clone();
            blocking(move || set_aside(&place, changed)).await??
        };
        lost.extend(aside.iter().map(|kept| kept.id));
        let mut request = self.off_request();
        request.folder_rows = lost
            .iter()
            .map(|id| (self.config.number, *id, None))
            .collect();
        self.take_back(held, &mut request).await?;
        let names: Vec<[u8; 24]> = aside.iter().map(|kept| kept.name).collect();
        self.read_kept(&names, &mut request).await;
        self.vault.commit(request).await?;
        self.take_rows(lost.into_iter().map(|id| (id, None)).collect());
        if let Err(error) = blocking(move || confirm_kept(&place, &aside)).await? {
            tracing::warn!(%error, "kept files could not be given their final names; the next start will");
        }
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
                    if present.is_some_and(|content| content.hash != before) {
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
                    let content: ContentDraft = draft_of(&content);
                    operations.push(Operation::SetContent { id, content });
                }
            }
            Ok::<_, Halt>((operations, recheck))
        });
        (request.operations, request.recheck) = operations.await??;
        Ok(())
    }
}

/// Moves files, wherever they are now, to the kept ones. What is not as it was looked at stays: somebody is at work.
fn set_aside(place: &Place, changed: Vec<Read>) -> Result<Vec<Kept>, Halt> {
    place.check()?;
    let mut aside = Vec::new();
    for read in changed {
        let (Some(id), Some(parent)) = (read.id, read.path.parent()) else {
            continue;
        };
        let Ok(folder) = place.folder(parent) else {
            continue;
        };
        let is_same = stat_at(folder.as_fd(), &read.name).is_ok_and(|stat| stat == read.stat);
        if !is_same {
            continue;
        }
        let mut name = [0; 24];
        name[..16].copy_from_slice(&fresh().0);
        name[16..].copy_from_slice(&fresh().0[..8]);
        let pending = format!("{}{PENDING}", hex::encode(name));
        place
            .put(folder.as_fd(), &read.name, place.kept(), &pending)
            .map_err(|error| {
                Halt::Failed(format!(
                    "{} cannot be put aside: {error}",
                    read.path.display()
                ))
            })?;
        aside.push(Kept {
            id,
            row: no_row(),
            name,
        });
    }
    place
        .sync()
        .map_err(|error| Halt::Failed(format!("writing to the folder failed: {error}")))?;
    Ok(aside)
}
