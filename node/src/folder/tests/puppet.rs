//! A device whose passes are run by hand, without actor, watcher or time: the pure parts and the hands on a real disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::VaultId;

use super::super::apply::Hands;
use super::super::compare::{View, compare};
use super::super::copies::Rival;
use super::super::decide::{link_draft, preserve, revive, settle};
use super::super::hidden::temporary_name;
use super::super::names::Profile;
use super::super::paths::Shared;
use super::super::place::{Marker, Place};
use super::super::plan::{Wish, endangered, plan, same_files};
use super::super::rows::Rows;
use super::super::scan::scan_whole;
use super::super::sparing::hidden;
use super::cloud::Cloud;
use super::double::TestVault;
use crate::blobs::Import;
use crate::folder::FolderVault;
use crate::vault::request::{CommitRequest, ContentDraft, FolderRow};

/// A device of a test.
pub struct Puppet {
    pub dir: tempfile::TempDir,
    pub vault: TestVault,
    pub cloud: Arc<Cloud>,
    pub shared: Shared,
    pub place: Place,
    pub conflicts: usize,
    /// What the disk is taken for.
    pub profile: Profile,
    next: u64,
    number: u8,
}

impl Puppet {
    pub fn new(number: u8, cloud: Arc<Cloud>) -> Puppet {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::prepare(
            dir.path(),
            &Marker {
                number: 1,
                vault: VaultId([1; 32]),
            },
        )
        .unwrap();
        let shared = Shared::new(
            dir.path().to_path_buf(),
            Rows::new(FileId::ROOT, Default::default()),
            Box::new(|id| id),
        );
        Puppet {
            dir,
            vault: TestVault::new(number),
            cloud,
            shared,
            place,
            conflicts: 0,
            profile: Profile::EXT4,
            next: 0,
            number,
        }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn write(&self, path: &str, bytes: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
    }

    /// All files with their bytes, all folders with nothing.
    pub fn listing(&self) -> std::collections::BTreeMap<String, Option<String>> {
        listing(self.dir.path())
    }

    fn fresh(&mut self) -> FileId {
        self.next += 1;
        let mut id = [self.number; 16];
        id[8..].copy_from_slice(&self.next.to_be_bytes());
        FileId(id)
    }

    fn view<'a>(
        &'a self,
        rows: &'a Rows,
        tree: &'a coffer_crdt::tree::Tree,
        label: &'a str,
    ) -> View<'a> {
        View {
            rows,
            tree,
            vault_folder: FileId::ROOT,
            profile: self.profile,
            label,
            now_ms: 1_795_305_600_000,
        }
    }

    fn take_rows(&self, rows: &[(FileId, Option<FolderRow>)]) {
        let mut all = self.shared.rows_mut();
        for (id, row) in rows {
            match row {
                Some(row) => all.set(*id, row.clone()),
                None => drop(all.remove(*id)),
            }
        }
    }

    /// Disk to vault. Returns how many files were read.
    pub fn local(&mut self) -> usize {
        let mut believed = BTreeSet::new();
        let mut read_count = 0;
        loop {
            let disk = scan_whole(&self.place).unwrap();
            let mut ids: Vec<FileId> = (0..disk.nodes.len()).map(|_| self.fresh()).collect();
            let label = self.vault.device_label();
            let found = {
                let (tree, rows) = (self.vault.tree(), self.shared.rows());
                compare(
                    &self.view(&rows, &tree, &label),
                    &disk,
                    &believed,
                    &mut || ids.pop().unwrap(),
                )
            };
            self.conflicts += found.conflicts as usize;
            let request = CommitRequest {
                operations: found.operations,
                folder_rows: found
                    .rows
                    .iter()
                    .map(|(id, row)| (1, *id, row.clone()))
                    .collect(),
                ..CommitRequest::default()
            };
            self.vault.commit_now(request).unwrap();
            self.take_rows(&found.rows);
            for mut read in found.reads {
                read_count += 1;
                let draft = match &read.target {
                    Some(target) => link_draft(target, 0),
                    None => {
                        let imported = self
                            .cloud
                            .read(&self.dir.path().join(&read.path), Import::Store)
                            .unwrap();
                        read.stat.ctime_ns = imported.ctime_ns;
                        ContentDraft::from(&imported)
                    }
                };
                let id = self.fresh();
                let settled = {
                    let (tree, rows) = (self.vault.tree(), self.shared.rows());
                    settle(&self.view(&rows, &tree, &label), &read, draft, id)
                };
                self.conflicts += usize::from(settled.conflict);
                let folder_rows = settled
                    .rows
                    .iter()
                    .map(|(id, row)| (1, *id, row.clone()))
                    .collect();
                self.vault
                    .commit_now(CommitRequest {
                        operations: settled.operations,
                        folder_rows,
                        ..CommitRequest::default()
                    })
                    .unwrap();
                self.take_rows(&settled.rows);
            }
            if found.missing.is_empty() {
                return read_count;
            }
            believed = found.missing.into_iter().collect();
        }
    }

    /// Vault to disk. Returns how many contents were written. `interrupt` stops before that many things were done.
    pub fn remote(&mut self, interrupt: Option<usize>) -> usize {
        let mut written = 0;
        let mut budget = interrupt.unwrap_or(usize::MAX);
        for _ in 0..20 {
            let questions: BTreeSet<FileId> = {
                let (tree, rows) = (self.vault.tree(), self.shared.rows());
                self.view(&rows, &tree, "")
                    .below(FileId::ROOT)
                    .into_iter()
                    .chain(rows.iter().map(|(id, _)| id))
                    .collect()
            };
            let same = {
                let (tree, rows) = (self.vault.tree(), self.shared.rows());
                same_files(&self.view(&rows, &tree, ""), questions.iter().copied())
            };
            for (old, new) in same {
                let mut rows = self.shared.rows_mut();
                let below: Vec<FileId> = rows.children(old).map(|(_, id)| id).collect();
                let row = rows.remove(old).unwrap();
                rows.set(new, row);
                for id in below {
                    let row = rows.get(id).cloned().unwrap();
                    rows.set(
                        id,
                        FolderRow {
                            parent: new.0,
                            ..row
                        },
                    );
                }
            }
            let (planned, endangered) = {
                let (tree, rows) = (self.vault.tree(), self.shared.rows());
                let view = self.view(&rows, &tree, "");
                let planned = plan(&view, &questions);
                let endangered = endangered(&view, &planned);
                (planned, endangered)
            };
            if self.preserve(endangered) {
                continue;
            }
            let (mut steps, mut surprised) = (0, false);
            let mut next = self.next;
            let number = self.number;
            let mut unique = || {
                next += 1;
                let mut id = [number; 16];
                id[8..].copy_from_slice(&next.to_be_bytes());
                FileId(id)
            };
            let mut hands = Hands::new(&self.place, &self.shared, &mut unique);
            for step in planned.steps {
                if budget == 0 {
                    return written;
                }
                budget -= 1;
                hands.step(&step);
                steps += 1;
            }
            let outcome = hands.finish();
            surprised |= !outcome.surprises.is_empty();
            assert!(outcome.refused.is_empty(), "{:?}", outcome.refused);
            let mut hands = Hands::new(&self.place, &self.shared, &mut unique);
            for bring in &planned.bring {
                let want = {
                    let (tree, rows) = (self.vault.tree(), self.shared.rows());
                    match self.view(&rows, &tree, "").wish(bring.id) {
                        Wish::Here(want)
                            if want
                                .content
                                .as_ref()
                                .is_some_and(|content| content.hash == bring.content.hash) =>
                        {
                            want
                        }
                        _ => continue,
                    }
                };
                if budget == 0 {
                    return written;
                }
                budget -= 1;
                let temporary = temporary_name(bring.id, &bring.content.hash);
                std::fs::write(
                    self.place.tmp_path(&temporary),
                    self.cloud.get(&bring.content.hash).unwrap(),
                )
                .unwrap();
                hands.place_content(bring.id, &want, &temporary);
                written += 1;
            }
            let outcome = hands.finish();
            assert!(outcome.refused.is_empty(), "{:?}", outcome.refused);
            self.next = next;
            surprised |= !outcome.surprises.is_empty();
            let again = steps + planned.bring.len() > 0;
            let folder_rows = self.all_rows();
            self.vault
                .commit_now(CommitRequest {
                    folder_rows,
                    ..CommitRequest::default()
                })
                .unwrap();
            if surprised {
                self.local();
            } else if !again {
                return written;
            }
        }
        panic!("the remote pass does not come to an end");
    }

    /// As after `kill -9`: only rows that were committed are known.
    pub fn restart(&mut self) {
        *self.shared.rows_mut() = Rows::new(FileId::ROOT, self.vault.rows());
    }

    /// What the next start does first.
    pub fn unpark(&mut self) {
        let (tree, rows) = (self.vault.tree(), self.shared.rows());
        super::super::recover::unpark(&self.place, &self.view(&rows, &tree, "")).unwrap();
    }

    fn all_rows(&self) -> Vec<(u32, FileId, Option<FolderRow>)> {
        let rows = self.shared.rows();
        let gone = self
            .vault
            .rows()
            .into_keys()
            .filter(|id| rows.get(*id).is_none())
            .map(|id| (1, id, None))
            .collect::<Vec<_>>();
        rows.iter()
            .map(|(id, row)| (1, id, Some(row.clone())))
            .chain(gone)
            .collect()
    }

    fn preserve(&mut self, endangered: Vec<(FileId, [u8; 32], bool)>) -> bool {
        let mut any = false;
        for (id, hash, goes) in endangered {
            let Some(rival) = self
                .vault
                .rival_contents(id)
                .unwrap()
                .into_iter()
                .find(|rival| rival.hash == hash)
            else {
                continue;
            };
            let label = self.vault.device_label_of(&rival.dot);
            let others = if goes {
                hidden(&self.vault, id).unwrap()
            } else {
                Vec::new()
            };
            let settled = {
                let (tree, rows) = (self.vault.tree(), self.shared.rows());
                let view = self.view(&rows, &tree, &label);
                if goes {
                    let content = rival.clone();
                    let label = label.clone();
                    revive(&view, id, &Rival { content, label }, &others)
                } else {
                    let draft = ContentDraft::from(&rival);
                    preserve(&view, id, draft, &label, rival.stamp, 1_795_305_600_000)
                }
            };
            let Some(settled) = settled.filter(|settled| settled.relies_on.is_none()) else {
                continue;
            };
            self.conflicts += usize::from(settled.conflict);
            any = true;
            let folder_rows = settled
                .rows
                .iter()
                .map(|(id, row)| (1, *id, row.clone()))
                .collect();
            self.vault
                .commit_now(CommitRequest {
                    operations: settled.operations,
                    folder_rows,
                    ..CommitRequest::default()
                })
                .unwrap();
            self.take_rows(&settled.rows);
        }
        any
    }

    /// Both passes until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..10 {
            let before = self.vault.operations();
            self.local();
            let written = self.remote(None);
            if written == 0 && self.vault.operations() == before {
                return;
            }
        }
        panic!("passes do not come to an end");
    }
}

/// Two devices exchange all they have until nothing changes.
pub fn sync(one: &mut Puppet, other: &mut Puppet) {
    for _ in 0..12 {
        one.settle();
        other.settle();
        let before = (one.vault.operations(), other.vault.operations());
        one.vault.pull(&other.vault);
        other.vault.pull(&one.vault);
        one.settle();
        other.settle();
        if before == (one.vault.operations(), other.vault.operations()) {
            return;
        }
    }
    panic!("two devices do not agree");
}

/// Files and folders below a path, without the hidden place.
pub fn listing(root: &Path) -> std::collections::BTreeMap<String, Option<String>> {
    let mut all = std::collections::BTreeMap::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if name == ".vault" {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                all.insert(name, None);
                open.push(path);
            } else if kind.is_symlink() {
                all.insert(
                    name,
                    Some(format!(
                        "-> {}",
                        std::fs::read_link(path).unwrap().display()
                    )),
                );
            } else {
                all.insert(
                    name,
                    Some(String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()),
                );
            }
        }
    }
    all
}
