//! `file add`: files and trees of this machine, copied into the vault.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coffer_crdt::files::{self, FileId, Kind};

use super::super::Node;
use super::super::running::{Running, commit_error};
use super::super::sparing;
use super::telling::{Measuring, Telling};
use super::{MAX_DEPTH, commit, ensure_folder, merge_group, new_id};
use crate::blobs::{Import, ImportJob, Imported};
use crate::control::{ControlError, ErrorKind, Reply, Session, Skipped, Stage};
use crate::folder::decide::link_draft;
use crate::vault::{CommitError, CommitRequest, ContentDraft, Operation, wall_ms};

/// Files read into the vault per commit: progress is durable and seen as it is made.
const ADD_BATCH: usize = 512;
/// Things skipped that are named; a count tells of more.
const SKIPPED_MAX: usize = 1000;

/// Something of this machine that is to be added.
struct Found {
    local: PathBuf,
    parent: FileId,
    name: String,
    kind: Kind,
}

/// `file add`: whole trees, batch by batch; what is in the vault already with the same bytes is left alone.
pub async fn add(
    node: &Arc<Node>,
    locals: Vec<PathBuf>,
    to: String,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    for local in &locals {
        // What a person names must be there; what a folder holds may go while it is read.
        local.symlink_metadata().map_err(|error| {
            let what = format_args!("read {}", local.display());
            match error.kind() {
                std::io::ErrorKind::NotFound => {
                    ControlError::not_found(format!("there is no {}", local.display()))
                }
                _ => ControlError::io(what, &error),
            }
        })?;
    }
    let one_file = locals.len() == 1
        && locals[0]
            .symlink_metadata()
            .is_ok_and(|meta| !meta.is_dir());
    let names_itself = one_file && !to.is_empty() && !to.ends_with('/') && {
        let tree = running.vault.tree();
        tree.resolve(&to).is_none_or(|id| {
            id != FileId::ROOT
                && tree
                    .shown(id)
                    .is_some_and(|shown| shown.kind != Kind::Folder)
        })
    };
    let (folder, rename) = if names_itself {
        let (parent, name) = to
            .trim_matches('/')
            .rsplit_once('/')
            .unwrap_or(("", to.trim_matches('/')));
        if files::check_name(name).is_err() {
            return Err(ControlError::usage(format!(
                "\"{name}\" is not a name that every device can take"
            )));
        }
        (parent.to_string(), Some(name.to_string()))
    } else {
        (to.clone(), None)
    };
    let top = ensure_folder(&running, &folder).await?;
    let named = locals.clone();
    let read = Arc::new(AtomicU64::new(0));
    let measuring = Measuring::start(locals.clone());
    let _telling = Telling::start(session, Stage::Reading, {
        let (read, measure) = (read.clone(), measuring.measure());
        move || (read.load(Ordering::Relaxed), measure.total())
    });
    let mut adding = Adding {
        skipped: Vec::new(),
        files: 0,
        folders: 0,
        bytes: 0,
        unchanged: 0,
        read,
    };
    let mut queue: Vec<(PathBuf, FileId, Option<String>, usize)> = locals
        .into_iter()
        .rev()
        .map(|local| (local, top, rename.clone(), 0))
        .collect();
    let mut batch: Vec<Found> = Vec::new();
    while let Some((local, parent, rename, depth)) = queue.pop() {
        let Some((name, meta)) = adding.look(&local, rename) else {
            continue;
        };
        let kind = if meta.is_dir() {
            Kind::Folder
        } else if meta.is_file() {
            Kind::File
        } else if meta.file_type().is_symlink() {
            Kind::Symlink
        } else {
            adding.skip(&local, "it is neither a file nor a folder nor a link");
            continue;
        };
        if kind != Kind::Folder {
            batch.push(Found {
                local,
                parent,
                name,
                kind,
            });
            if batch.len() >= ADD_BATCH {
                adding.flush(&running, &mut batch).await?;
            }
            continue;
        }
        if depth >= MAX_DEPTH {
            adding.skip(&local, "its folders are nested too deeply");
            continue;
        }
        let existing = {
            let tree = running.vault.tree();
            tree.lookup(parent, &name).filter(|id| {
                tree.shown(*id)
                    .is_some_and(|shown| shown.kind == Kind::Folder)
            })
        };
        let id = match existing {
            Some(id) => id,
            None => {
                let id = new_id();
                let create = Operation::CreateFile {
                    id,
                    kind,
                    parent,
                    name,
                    content: None,
                    created_ms: wall_ms() as i64,
                };
                commit(&running, vec![create]).await?;
                adding.folders += 1;
                id
            }
        };
        match std::fs::read_dir(&local) {
            Ok(entries) => queue.extend(
                entries
                    .flatten()
                    .map(|entry| (entry.path(), id, None, depth + 1)),
            ),
            Err(error) => adding.skip(&local, &error.to_string()),
        }
    }
    adding.flush(&running, &mut batch).await?;
    adding.any_of(&named)?;
    Ok(Reply::FilesAdded {
        files: adding.files,
        folders: adding.folders,
        bytes: adding.bytes,
        unchanged: adding.unchanged,
        skipped: adding.skipped,
    })
}

struct Adding {
    skipped: Vec<Skipped>,
    files: u64,
    folders: u64,
    bytes: u64,
    unchanged: u64,
    /// Bytes read so far.
    read: Arc<AtomicU64>,
}

impl Adding {
    fn skip(&mut self, path: &Path, reason: &str) {
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(Skipped {
                path: path.display().to_string(),
                reason: reason.into(),
            });
        }
    }

    /// # Errors
    /// Where all that the person named was left out: nothing was done of what was asked.
    fn any_of(&self, named: &[PathBuf]) -> Result<(), ControlError> {
        let left_out = |path: &PathBuf| {
            let path = path.display().to_string();
            self.skipped.iter().find(|skipped| skipped.path == path)
        };
        let Some(first) = named.first().and_then(left_out) else {
            return Ok(());
        };
        if !named.iter().all(|path| left_out(path).is_some()) {
            return Ok(());
        }
        let message = format!("nothing was added: {}: {}", first.path, first.reason);
        Err(ControlError::conflict(message).with_code("nothing-added"))
    }

    /// The name and kind of something to add, unless it cannot be.
    fn look(
        &mut self,
        local: &Path,
        rename: Option<String>,
    ) -> Option<(String, std::fs::Metadata)> {
        let meta = match local.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) => {
                self.skip(local, &error.to_string());
                return None;
            }
        };
        let name = rename.or_else(|| {
            local
                .file_name()
                .and_then(|name| name.to_str())
                .map(str::to_string)
        });
        match name {
            Some(name) if files::check_name(&name).is_ok() => Some((name, meta)),
            Some(_) => {
                self.skip(local, "its name is not one that every device can take");
                None
            }
            None => {
                self.skip(local, "its name is not valid text");
                None
            }
        }
    }

    async fn flush(
        &mut self,
        running: &Arc<Running>,
        batch: &mut Vec<Found>,
    ) -> Result<(), ControlError> {
        let batch = std::mem::take(batch);
        let jobs: Vec<ImportJob> = batch
            .iter()
            .filter(|found| found.kind == Kind::File)
            .map(|found| ImportJob {
                path: found.local.clone(),
                into: Import::Store,
            })
            .collect();
        let mut imported = running
            .blobs
            .import_counted(jobs, self.read.clone())
            .await
            .into_iter();
        let mut requests = Vec::with_capacity(batch.len());
        for found in batch {
            let mut request = CommitRequest::default();
            let draft = match found.kind {
                Kind::File => match imported.next() {
                    Some(Ok(imported)) => take_rows(&mut request, imported),
                    Some(Err(error)) => {
                        if let crate::blobs::ImportError::DiskFull = error {
                            return Err(ControlError::new(
                                ErrorKind::DiskFull,
                                "the disk of the vault is full",
                            ));
                        }
                        self.skip(&found.local, &error.to_string());
                        continue;
                    }
                    None => continue,
                },
                _ => match read_link(&found.local) {
                    Ok(draft) => draft,
                    Err(reason) => {
                        self.skip(&found.local, &reason);
                        continue;
                    }
                },
            };
            let existing = {
                let tree = running.vault.tree();
                tree.lookup(found.parent, &found.name).and_then(|id| {
                    Some((
                        id,
                        tree.shown(id)?.kind,
                        tree.get(id)?.content.map(|content| content.hash),
                    ))
                })
            };
            self.bytes += draft.size;
            match existing {
                Some((_, _, Some(hash))) if hash == draft.hash => self.unchanged += 1,
                Some((id, kind, replaces)) if kind == found.kind => {
                    let mut operations = merge_group(running, id);
                    operations.push(Operation::SetContent {
                        id,
                        content: draft,
                        replaces,
                    });
                    let spared = sparing::request(running, operations).await?;
                    request.operations = spared.operations;
                    request.recheck = spared.recheck;
                    self.files += 1;
                }
                Some(_) => self.skip(
                    &found.local,
                    "something of another kind has its name in the vault",
                ),
                None => {
                    request.operations.push(Operation::CreateFile {
                        id: new_id(),
                        kind: found.kind,
                        parent: found.parent,
                        name: found.name.clone(),
                        content: Some(draft),
                        created_ms: wall_ms() as i64,
                    });
                    self.files += 1;
                }
            }
            requests.push((found.local, request));
        }
        self.commit(running, requests).await
    }
}

impl Adding {
    /// All in one commit; if a file got other bytes since it was looked at, each by itself and that one not at all.
    async fn commit(
        &mut self,
        running: &Running,
        requests: Vec<(PathBuf, CommitRequest)>,
    ) -> Result<(), ControlError> {
        let mut all = CommitRequest::default();
        for (_, request) in &requests {
            all.operations.extend(request.operations.iter().cloned());
            all.placements.extend(request.placements.iter().cloned());
            all.chunks.extend(request.chunks.iter().cloned());
            all.recheck.extend(&request.recheck);
        }
        match running.vault.commit(all).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Changed(_)) => {}
            Err(error) => return Err(commit_error(error)),
        }
        for (local, request) in requests {
            match running.vault.commit(request).await {
                Ok(_) => {}
                Err(CommitError::Changed(_)) => {
                    self.files -= 1;
                    self.skip(&local, "another device changed it in the vault meanwhile");
                }
                Err(error) => return Err(commit_error(error)),
            }
        }
        Ok(())
    }
}

/// What was read of a file, as the vault takes it; its rows go with the same request.
fn take_rows(request: &mut CommitRequest, imported: Imported) -> ContentDraft {
    let draft = ContentDraft::from(&imported);
    request.placements.extend(imported.rows.placements);
    request.chunks.extend(imported.rows.chunks);
    request.holds.push(imported.hold);
    draft
}

/// A symbolic link as a content: its target, never what it points to.
fn read_link(local: &Path) -> Result<ContentDraft, String> {
    let target = std::fs::read_link(local).map_err(|error| error.to_string())?;
    let target = target.to_str().ok_or("its target is not valid text")?;
    let meta = local
        .symlink_metadata()
        .map_err(|error| error.to_string())?;
    let mtime_ms = meta.mtime().saturating_mul(1000);
    Ok(link_draft(target, mtime_ms))
}
