//! Contents that were written elsewhere at the same time, and lost: what has become of them.
//!
//! Whoever has one on disk makes a conflict copy of it before the winner comes ([`super::kept`]). But a register of the
//! vault forgets its losing values with the next write, and whoever writes next need not have seen them: then nobody
//! would know any more, on the device that has the loser, that it was not overwritten knowingly. So who writes makes the
//! copies first, in the same commit ([`super::copies::rescue`]); its id is the same on every device.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::FileId;

use super::compare::View;
use super::copies::{self, Rival};
use super::decide;
use super::engine::{Engine, Halt, blocking};
use super::reading::Found;
use super::sparing::{Spared, given_content, hidden, spare};
use super::{Contents, FolderVault};
use crate::vault::request::Operation;

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
                // Which of the two is written is decided later.
                .flat_map(|id| [id, tree.representative(id)])
                .collect()
        };
        if files.is_empty() {
            return Ok(Rivals::new());
        }
        let vault = self.vault.clone();
        let read = blocking(move || {
            let mut all = Rivals::new();
            for file in files {
                let rivals = hidden(&*vault, file)?;
                if !rivals.is_empty() {
                    all.insert(file, rivals);
                }
            }
            Ok::<_, Halt>(all)
        });
        read.await?
    }

    /// [`spare`], for deletions of files that were on this disk: what was there was seen.
    pub(super) async fn spare_unseen(
        &self,
        gone: &[FileId],
        operations: Vec<Operation>,
    ) -> Result<Spared, Halt> {
        if gone.is_empty() {
            return Ok(Spared {
                operations,
                ..Spared::default()
            });
        }
        let seen: BTreeMap<FileId, [u8; 32]> = {
            let (tree, rows) = (self.vault.tree(), self.shared.rows());
            let gone = gone.iter();
            gone.filter_map(|id| Some((tree.representative(*id), rows.get(*id)?.hash)))
                .collect()
        };
        let (vault, now_ms) = (self.vault.clone(), self.around.wall_ms());
        Ok(blocking(move || spare(&*vault, operations, &seen, now_ms)).await??)
    }
}

/// [`super::copies::rescue`] of what a file's write would make the vault forget.
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
        let copies = copies::rescue(view.tree, view.now_ms, id, lost);
        settled.conflict |= !copies.is_empty();
        settled
            .copies
            .extend(copies.iter().filter_map(given_content));
        settled.operations.splice(at..at, copies);
    }
}
