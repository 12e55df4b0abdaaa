//! Contents that were written elsewhere at the same time, and lost: what has become of them.
//!
//! Whoever has one on disk makes a conflict copy of it before the winner comes ([`super::kept`]). But a register of the
//! vault forgets its losing values with the next write, and whoever writes next need not have seen them: then nobody
//! would know any more, on the device that has the loser, that it was not overwritten knowingly. So who writes makes the
//! copies first, in the same commit ([`decide::rescue`]); its id is the same on every device.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::{Content, FileId};

use super::compare::View;
use super::decide;
use super::engine::{Engine, Halt, blocking};
use super::names;
use super::reading::Found;
use super::{Contents, FolderVault};
use crate::vault::request::Operation;

/// A content that lost.
#[derive(Clone, Debug)]
pub struct Rival {
    /// As the vault has it.
    pub content: Content,
    /// The name of the device that wrote it.
    pub label: String,
}

/// Those of some files.
pub(super) type Rivals = BTreeMap<FileId, Vec<Rival>>;

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Contents that the vault would forget if these files were written, and that nobody has made a copy of yet.
    pub(super) async fn rivals_of(&self, found: &[Found]) -> Result<Rivals, Halt> {
        let files: BTreeSet<FileId> = {
            let (tree, rows) = (self.vault.tree(), self.shared.rows());
            let known = found.iter().filter_map(|(read, ..)| read.id);
            known
                .filter(|id| rows.get(*id).is_some())
                .map(|id| tree.representative(id))
                .collect()
        };
        self.rivals_among(files).await
    }

    async fn rivals_among(&self, files: BTreeSet<FileId>) -> Result<Rivals, Halt> {
        if files.is_empty() {
            return Ok(Rivals::new());
        }
        let vault = self.vault.clone();
        let read = blocking(move || {
            let mut all = Rivals::new();
            for file in files {
                let mut rivals = Vec::new();
                for content in vault.rival_contents(file)? {
                    let label = vault.device_label_of(&content.dot);
                    if !has_copy(&*vault, file, &content, &label) {
                        rivals.push(Rival { content, label });
                    }
                }
                if !rivals.is_empty() {
                    all.insert(file, rivals);
                }
            }
            Ok::<_, Halt>(all)
        });
        read.await?
    }
}

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Takes back deletions of files that have contents which nobody here has seen, and of the folders that they are in:
    /// the deletion would cover those as well. The files come back, and what is unseen is made a copy of on the device
    /// that has it.
    pub(super) async fn spare_unseen(
        &self,
        gone: &[FileId],
        operations: &mut Vec<Operation>,
    ) -> Result<(), Halt> {
        if gone.is_empty() {
            return Ok(());
        }
        let seen: BTreeMap<FileId, [u8; 32]> = {
            let (tree, rows) = (self.vault.tree(), self.shared.rows());
            let gone = gone.iter();
            gone.filter_map(|id| Some((tree.representative(*id), rows.get(*id)?.hash)))
                .collect()
        };
        let mut rivals = self.rivals_among(seen.keys().copied().collect()).await?;
        rivals.retain(|id, rivals| rivals.iter().any(|rival| rival.content.hash != seen[id]));
        let mut spared: BTreeSet<FileId> = BTreeSet::new();
        {
            let tree = self.vault.tree();
            for id in rivals.into_keys() {
                let mut at = Some(id);
                while let Some(id) = at.filter(|id| spared.insert(*id)) {
                    at = tree.shown(id).map(|shown| shown.parent);
                }
            }
        }
        operations.retain(
            |operation| !matches!(operation, Operation::TrashFile { id } if spared.contains(id)),
        );
        Ok(())
    }
}

/// Whether a conflict copy of `of` has, or had, a content that lost. What became of the copy since was a person's doing.
pub(super) fn has_copy<V: FolderVault>(
    vault: &V,
    of: FileId,
    rival: &Content,
    label: &str,
) -> bool {
    let ms = i64::try_from(rival.stamp.ms()).unwrap_or(i64::MAX);
    let copies: Vec<FileId> = {
        let tree = vault.tree();
        (0..=names::MAX_NUMBERS)
            .map(|number| names::conflict_id(of, label, ms, number))
            .filter(|id| tree.get(*id).is_some())
            .collect()
    };
    copies.into_iter().any(|copy| {
        let held = vault.past_content(copy, &rival.hash).ok().flatten();
        held.is_some_and(|held| held.stamp >= rival.stamp)
    })
}

/// [`decide::rescue`] of what a file's write would make the vault forget.
pub(super) fn rescue(view: &View<'_>, settled: &mut decide::Settled, rivals: &Rivals) {
    if rivals.is_empty() {
        return;
    }
    let written = settled.operations.iter().position(|operation| {
        matches!(operation, Operation::SetContent { id, .. } if rivals.contains_key(id))
    });
    if let Some(at) = written
        && let Operation::SetContent { id, content, .. } = settled.operations[at].clone()
    {
        let seen = view.rows.get(id).map(|row| row.hash);
        let lost = rivals[&id]
            .iter()
            .filter(|rival| rival.content.hash != content.hash && Some(rival.content.hash) != seen);
        let copies = decide::rescue(view, id, lost);
        settled.conflict |= !copies.is_empty();
        settled.operations.splice(at..at, copies);
    }
}
