//! Bytes that the remote pass takes off the disk: none of them is lost.
//!
//! Those that were written without knowledge of what replaces or deletes them are given back to the vault first. The
//! others were moved to the kept files, and the vault is told where their chunks are now.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::chunks::{ChunkList, ChunkRoot};
use coffer_crdt::files::FileId;
use coffer_protocol::frame::sealed_len;
use coffer_protocol::identity::Hash;

use super::apply::Kept;
use super::copies::{Rival, has_copy};
use super::decide;
use super::engine::{Engine, Halt, blocking};
use super::sparing::hidden;
use super::{Contents, FolderVault};
use crate::blobs::placement::Placement;
use crate::blobs::{Import, ImportJob};
use crate::vault::request::{CommitRequest, ContentDraft};

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Of the contents that the plan takes off the disk, those that were written without knowledge of what replaces
    /// them become conflict copies, or survive the deletion. Returns whether there were any: then the plan is void. Adds
    /// to `waiting` what has to stay until it is clear what became of its copy.
    pub(super) async fn preserve_rivals(
        &mut self,
        endangered: Vec<(FileId, [u8; 32], bool)>,
        waiting: &mut BTreeSet<FileId>,
    ) -> Result<bool, Halt> {
        if endangered.is_empty() {
            return Ok(false);
        }
        let vault = self.vault.clone();
        let rivals = blocking(move || {
            let mut rivals: Vec<(FileId, Rival, Option<Vec<Rival>>)> = Vec::new();
            for (id, hash, goes) in endangered {
                let mut found = vault.rival_contents(id)?.into_iter();
                let Some(content) = found.find(|rival| rival.hash == hash) else {
                    continue;
                };
                let label = vault.device_label_of(&content.dot);
                if goes || !has_copy(&*vault, id, &content, &label) {
                    let others = if goes {
                        Some(hidden(&*vault, id)?)
                    } else {
                        None
                    };
                    rivals.push((id, Rival { content, label }, others));
                }
            }
            Ok::<_, Halt>(rivals)
        });
        let mut any = false;
        for (id, lost, others) in rivals.await?? {
            let Rival {
                content: rival,
                label,
            } = &lost;
            let settled = {
                let tree = self.vault.tree();
                let rows = self.shared.rows();
                let view = self.view(&rows, &tree, label);
                if let Some(others) = &others {
                    decide::revive(&view, id, &lost, others)
                } else {
                    let written_ms = i64::try_from(rival.stamp.ms()).unwrap_or(i64::MAX);
                    decide::preserve(
                        &view,
                        id,
                        ContentDraft::from(rival),
                        label,
                        rival.stamp,
                        written_ms,
                    )
                }
            };
            let Some(settled) = settled else { continue };
            if let Some(copy) = settled.relies_on {
                // Perhaps it was moved over the very file.
                if self.doubted.contains(&copy) {
                    waiting.insert(id);
                }
                continue;
            }
            let chunks = self.chunks_of(&rival.root).await.unwrap_or_default();
            let number = self.config.number;
            let request = CommitRequest {
                operations: settled.operations,
                placements: places(&chunks, |offset, chunk| {
                    file_place(number, settled.owner, offset, chunk)
                }),
                folder_rows: settled
                    .rows
                    .iter()
                    .map(|(id, row)| (number, *id, row.clone()))
                    .collect(),
                held: vec![(settled.owner, rival.hash)],
                recheck: settled.copies,
                ..CommitRequest::default()
            };
            if let Err(error) = self.vault.commit(request).await {
                return Err(self.fall_back(error).await);
            }
            self.take_rows(settled.rows);
            self.conflicts += u64::from(settled.conflict);
            any = true;
        }
        Ok(any)
    }

    /// Says where the bytes are that were moved to the kept files.
    pub(super) async fn account_for_kept(&mut self, kept: &[Kept], request: &mut CommitRequest) {
        if kept.is_empty() {
            return;
        }
        let asked = kept.iter().map(|kept| (kept.id, kept.row.hash)).collect();
        let roots = self.roots_of(asked).await;
        let number = self.config.number;
        let mut unknown = Vec::new();
        for kept in kept {
            match roots.get(&kept.id) {
                Some(root) => {
                    let chunks = self.chunks_of(root).await.unwrap_or_default();
                    request.placements.extend(places(&chunks, |offset, chunk| {
                        file_place(number, kept.id, offset, chunk).in_kept(kept.name)
                    }));
                    request.displaced.extend(places(&chunks, |offset, chunk| {
                        file_place(number, kept.id, offset, chunk)
                    }));
                }
                None => unknown.push(kept.name),
            }
        }
        self.read_kept(&unknown, request).await;
    }

    /// Says that bytes on disk belong to another file from now on (former, present, content hash): the two were shown as
    /// one, and may be shown apart again.
    pub(super) async fn account_for_adopted(
        &mut self,
        adopted: Vec<(FileId, FileId, [u8; 32])>,
        request: &mut CommitRequest,
    ) {
        if adopted.is_empty() {
            return;
        }
        // Bytes that were read while the two showed as one are in the document of the one that stood for both.
        let of_new = adopted.iter().map(|(_, new, hash)| (*new, *hash)).collect();
        let of_old = adopted.iter().map(|(old, _, hash)| (*old, *hash)).collect();
        let (of_new, of_old) = (self.roots_of(of_new).await, self.roots_of(of_old).await);
        let number = self.config.number;
        for (old, new, _) in adopted {
            let Some(root) = of_new.get(&new).or_else(|| of_old.get(&old)) else {
                continue;
            };
            let chunks = self.chunks_of(root).await.unwrap_or_default();
            let place = |file| move |offset, chunk: &Chunk| file_place(number, file, offset, chunk);
            request.placements.extend(places(&chunks, place(new)));
            request.displaced.extend(places(&chunks, place(old)));
        }
    }

    /// Where the chunks are of contents that files have or had.
    async fn roots_of(&self, asked: Vec<(FileId, [u8; 32])>) -> BTreeMap<FileId, ChunkRoot> {
        let vault = self.vault.clone();
        let known = blocking(move || {
            let ids: Vec<FileId> = asked.iter().map(|(id, _)| *id).collect();
            let present = vault.file_contents(&ids).unwrap_or_default();
            let mut roots: BTreeMap<FileId, ChunkRoot> = BTreeMap::new();
            for ((id, hash), present) in asked.into_iter().zip(present) {
                let content = present
                    .filter(|content| content.hash == hash)
                    .or_else(|| vault.past_content(id, &hash).ok().flatten());
                roots.extend(content.map(|content| (id, content.root)));
            }
            roots
        });
        known.await.unwrap_or_default()
    }

    /// Reads kept files to learn what chunks they hold.
    pub(super) async fn read_kept(&mut self, names: &[[u8; 24]], request: &mut CommitRequest) {
        let Some(place) = self.place.clone() else {
            return;
        };
        let number = self.config.number;
        let jobs = names.iter().map(|name| ImportJob {
            path: place.kept_path(&format!("{}{}", hex::encode(name), super::hidden::PENDING)),
            into: Import::FileBacked {
                root: number,
                file: [0; 16],
            },
        });
        let results = self.contents.import(jobs.collect()).await;
        for (name, result) in names.iter().zip(results) {
            match result {
                Ok(imported) => {
                    request.chunks.extend(imported.rows.chunks);
                    request.holds.push(imported.hold);
                    request.placements.extend(
                        imported
                            .rows
                            .placements
                            .into_iter()
                            .map(|(blob, place)| (blob, place.in_kept(*name))),
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "a kept file cannot be read; its former content is only in the vault's history")
                }
            }
        }
    }

    async fn chunks_of(&self, root: &ChunkRoot) -> Option<Vec<Chunk>> {
        if let ChunkRoot::Inline(list) = root {
            return Some(inline(list));
        }
        let named = self.contents.expand(root).await.ok()?;
        Some(
            named
                .into_iter()
                .map(|named| Chunk {
                    blob: named.blob,
                    len: named.len,
                    sealed_len: named.sealed_len,
                    frame: named.frame.0,
                    epoch: named.epoch.0,
                })
                .collect(),
        )
    }
}

/// What a place needs to know of a chunk.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    blob: Hash,
    len: u32,
    sealed_len: u32,
    frame: [u8; 32],
    epoch: [u8; 32],
}

fn inline(list: &ChunkList) -> Vec<Chunk> {
    let chunks = list.chunks.iter();
    chunks
        .filter_map(|chunk| {
            let epoch = *list.epochs.get(usize::from(chunk.epoch))?;
            Some(Chunk {
                blob: Hash(chunk.blob),
                len: chunk.len,
                sealed_len: chunk.sealed_len,
                frame: chunk.frame,
                epoch,
            })
        })
        .collect()
}

/// The places of chunks within one file. A chunk that was compressed when it was sealed has none: its blob cannot be
/// made again from the file's bytes.
fn places(chunks: &[Chunk], place: impl Fn(u64, &Chunk) -> Placement) -> Vec<(Hash, Placement)> {
    let mut offset = 0;
    chunks
        .iter()
        .filter_map(|chunk| {
            let at = offset;
            offset += u64::from(chunk.len);
            let is_plain = chunk.sealed_len as usize == sealed_len(chunk.len as usize);
            is_plain.then(|| (chunk.blob, place(at, chunk)))
        })
        .collect()
}

fn file_place(root: u32, file: FileId, offset: u64, chunk: &Chunk) -> Placement {
    Placement::File {
        root,
        file: file.0,
        offset,
        len: chunk.len,
        frame: chunk.frame,
        epoch: chunk.epoch,
    }
}
