//! Files and folders: what the `file` commands ask.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coffer_crdt::files::{self, FileId, Kind};
use rand::Rng;
use redb::ReadableDatabase;

use super::documents::Names;
use super::running::{Running, commit_error};
use super::{Node, random, store_error};
use crate::blobs::{
    Fetch, Import, ImportJob, Imported, Progress as Transfer, WriteError, WriteJob,
};
use crate::control::{
    Content, ControlError, ErrorKind, FileRevision, FileRow, Item, Progress, Reply, Session,
    Skipped, Stage,
};
use crate::store::documents::{DocumentKey, read_document, read_row};
use crate::vault::{CommitRequest, ContentDraft, FILES, Operation, wall_ms};

/// Files read into the vault per commit: progress is durable and seen as it is made.
const ADD_BATCH: usize = 512;
/// Files written to disk per round.
const GET_BATCH: usize = 512;
/// Rows per item of a list.
const LISTED_AT_ONCE: usize = 256;
/// Things skipped that are named; a count tells of more.
const SKIPPED_MAX: usize = 1000;
/// Depth of folders that is followed: far beyond what file systems take.
const MAX_DEPTH: usize = 512;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// A fresh id for a file or folder.
pub fn new_id() -> FileId {
    let mut id = [0; 16];
    random().fill_bytes(&mut id);
    FileId(id)
}

/// The file or folder at a path of the vault.
fn resolve(running: &Running, path: &str) -> Result<FileId, ControlError> {
    running
        .vault
        .tree()
        .resolve(path)
        .ok_or_else(|| ControlError::not_found(format!("there is no \"{path}\" in the vault")))
}

/// A folder of the vault at a path, made with its parents where it is not there.
pub async fn ensure_folder(running: &Arc<Running>, path: &str) -> Result<FileId, ControlError> {
    let mut parent = FileId::ROOT;
    let mut operations = Vec::new();
    for name in path.split('/').filter(|part| !part.is_empty()) {
        let found = if operations.is_empty() {
            let tree = running.vault.tree();
            tree.lookup(parent, name).map(|id| {
                (
                    id,
                    tree.shown(id)
                        .is_some_and(|shown| shown.kind == Kind::Folder),
                )
            })
        } else {
            None
        };
        parent = match found {
            Some((id, true)) => id,
            Some((_, false)) => {
                return Err(ControlError::conflict(format!(
                    "\"{name}\" in \"{path}\" is a file, not a folder"
                )));
            }
            None => {
                let id = new_id();
                operations.push(Operation::CreateFile {
                    id,
                    kind: Kind::Folder,
                    parent,
                    name: name.into(),
                    content: None,
                    created_ms: wall_ms() as i64,
                });
                id
            }
        };
    }
    if !operations.is_empty() {
        running
            .vault
            .commit(CommitRequest {
                operations,
                ..Default::default()
            })
            .await
            .map_err(commit_error)?;
    }
    Ok(parent)
}

/// What a file holds, as lists show it.
fn content_row(
    running: &Running,
    wanted: &std::collections::BTreeSet<FileId>,
    id: FileId,
) -> Option<Content> {
    let tree = running.vault.tree();
    let known = tree.get(id)?;
    let content = known.content?;
    Some(Content {
        size: content.size,
        modified_ms: content.mtime_ms,
        executable: content.executable,
        link: content.target.as_ref().map(ToString::to_string),
        here: !wanted.contains(&id),
    })
}

fn wanted(running: &Running) -> Result<std::collections::BTreeSet<FileId>, ControlError> {
    Ok(running
        .vault
        .wanted()
        .map_err(store_error)?
        .into_iter()
        .map(|wanted| wanted.id)
        .collect())
}

fn file_row(running: &Running, id: FileId) -> Result<FileRow, ControlError> {
    let wanted = wanted(running)?;
    let content = content_row(running, &wanted, id);
    let tree = running.vault.tree();
    let trashed = tree.shown(id).is_some_and(|shown| shown.trashed);
    let path = tree.path(id).unwrap_or_else(|| trash_path(&tree, id));
    Ok(FileRow {
        path,
        id: id.to_string(),
        content,
        trashed,
    })
}

/// How something in the trash is named: where it stood, as far as that is still there.
fn trash_path(tree: &coffer_crdt::tree::Tree, id: FileId) -> String {
    let Some(shown) = tree.shown(id) else {
        return id.to_string();
    };
    let mut parts = vec![shown.name.to_string()];
    let mut parent = shown.parent;
    while parent != FileId::ROOT && parts.len() < MAX_DEPTH {
        let Some(shown) = tree.shown(parent) else {
            break;
        };
        parts.push(shown.name.to_string());
        parent = shown.parent;
    }
    parts.reverse();
    parts.join("/")
}

/// `file list`.
pub async fn list(
    node: &Arc<Node>,
    path: String,
    recursive: bool,
    trash: bool,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let wanted = wanted(&running)?;
    let mut found: Vec<(String, FileId, bool)> = Vec::new();
    {
        let tree = running.vault.tree();
        if trash {
            for id in tree.trashed() {
                let name = trash_path(&tree, id);
                if path.is_empty() || name == path || name.starts_with(&format!("{path}/")) {
                    found.push((name, id, true));
                }
            }
        } else {
            let top = tree.resolve(&path).ok_or_else(|| {
                ControlError::not_found(format!("there is no \"{path}\" in the vault"))
            })?;
            let is_file = top != FileId::ROOT
                && tree
                    .shown(top)
                    .is_some_and(|shown| shown.kind != Kind::Folder);
            if is_file {
                found.push((path.trim_matches('/').to_string(), top, false));
            }
            let mut folders = if is_file {
                Vec::new()
            } else {
                vec![(path.trim_matches('/').to_string(), top, 0)]
            };
            while let Some((prefix, folder, depth)) = folders.pop() {
                for (name, id) in tree.children(folder) {
                    let name = if prefix.is_empty() {
                        name.to_string()
                    } else {
                        format!("{prefix}/{name}")
                    };
                    if recursive
                        && depth < MAX_DEPTH
                        && tree
                            .shown(id)
                            .is_some_and(|shown| shown.kind == Kind::Folder)
                    {
                        folders.push((name.clone(), id, depth + 1));
                    }
                    found.push((name, id, false));
                }
            }
        }
    }
    found.sort();
    let count = found.len() as u64;
    for part in found.chunks(LISTED_AT_ONCE) {
        let rows = part
            .iter()
            .map(|(path, id, trashed)| FileRow {
                path: path.clone(),
                id: id.to_string(),
                content: content_row(&running, &wanted, *id),
                trashed: *trashed,
            })
            .collect();
        session.item(Item::Files(rows)).await?;
    }
    Ok(Reply::Listed { count, more: false })
}

/// Marks those that show as one with `id`, so that an operation on it does not make them come apart.
fn merge_group(running: &Running, id: FileId) -> Vec<Operation> {
    running
        .vault
        .tree()
        .group(id)
        .into_iter()
        .map(|other| Operation::MergeFileInto {
            id: other,
            into: id,
        })
        .collect()
}

/// `file move`.
pub async fn move_to(node: &Arc<Node>, from: String, to: String) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let id = resolve(&running, &from)?;
    let (parent_path, name) = {
        let tree = running.vault.tree();
        let target = tree.resolve(&to);
        let into = target.is_some_and(|target| {
            target == FileId::ROOT
                || tree
                    .shown(target)
                    .is_some_and(|shown| shown.kind == Kind::Folder)
        });
        let own_name = from
            .trim_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_string();
        if (into && target != Some(id)) || to.ends_with('/') {
            (to.trim_matches('/').to_string(), own_name)
        } else {
            if target.is_some_and(|target| target != id) {
                return Err(
                    ControlError::conflict(format!("\"{to}\" already exists")).with_code("exists")
                );
            }
            match to.trim_matches('/').rsplit_once('/') {
                Some((parent, name)) => (parent.to_string(), name.to_string()),
                None => (String::new(), to.trim_matches('/').to_string()),
            }
        }
    };
    let source = from.trim_matches('/');
    if parent_path == source || parent_path.starts_with(&format!("{source}/")) {
        return Err(ControlError::usage("a folder cannot be moved into itself"));
    }
    let parent = ensure_folder(&running, &parent_path).await?;
    if let Some(there) = running.vault.tree().lookup(parent, &name)
        && there != id
    {
        return Err(
            ControlError::conflict(format!("\"{name}\" already exists there")).with_code("exists"),
        );
    }
    let mut operations = merge_group(&running, id);
    operations.push(Operation::MoveFile { id, parent, name });
    running
        .vault
        .commit(CommitRequest {
            operations,
            ..Default::default()
        })
        .await
        .map_err(commit_error)?;
    Ok(Reply::File(file_row(&running, id)?))
}

/// `file delete`.
pub async fn delete(node: &Arc<Node>, path: String) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let id = resolve(&running, &path)?;
    let mut operations = merge_group(&running, id);
    operations.push(Operation::TrashFile { id });
    running
        .vault
        .commit(CommitRequest {
            operations,
            ..Default::default()
        })
        .await
        .map_err(commit_error)?;
    Ok(Reply::File(file_row(&running, id)?))
}

/// `file restore`.
pub async fn restore(
    node: &Arc<Node>,
    path: String,
    at: Option<String>,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let wanted_path = path.trim_matches('/');
    let (id, trashed) = {
        let tree = running.vault.tree();
        let in_trash = || {
            let mut found: Vec<FileId> = tree
                .trashed()
                .filter(|id| trash_path(&tree, *id) == wanted_path || id.to_string() == wanted_path)
                .collect();
            // Of several of one name the one deleted last.
            found.sort_by_key(|id| {
                tree.get(*id)
                    .and_then(|known| known.trash.map(|trash| trash.stamp))
            });
            found.pop()
        };
        match tree.resolve(wanted_path).filter(|id| *id != FileId::ROOT) {
            Some(id) if at.is_some() => (id, false),
            Some(_) if in_trash().is_none() => {
                return Err(
                    ControlError::conflict(format!("\"{path}\" is not in the trash"))
                        .with_code("not-trashed"),
                );
            }
            _ => match in_trash() {
                Some(id) => (id, true),
                None => {
                    return Err(ControlError::not_found(format!(
                        "there is no \"{path}\" in the trash"
                    )));
                }
            },
        }
    };
    let mut request = CommitRequest::default();
    if trashed {
        request.operations.push(Operation::RestoreFile { id });
        request.recheck = running.vault.tree().below(id).collect();
    }
    if let Some(at) = at {
        let content = find_content(&running, id, &at)?;
        request.operations.push(Operation::SetContent {
            id,
            content: ContentDraft {
                size: content.size,
                mtime_ms: content.mtime_ms,
                executable: content.executable,
                hash: content.hash,
                target: content.target,
                root: content.root,
            },
        });
        request.recheck.push(id);
    }
    running.vault.commit(request).await.map_err(commit_error)?;
    Ok(Reply::File(file_row(&running, id)?))
}

/// The contents that a file had, oldest first, with what names each.
fn contents(
    running: &Running,
    id: FileId,
) -> Result<Vec<(coffer_crdt::Revision, files::Content)>, ControlError> {
    let key = DocumentKey::new(FILES, &id.to_string());
    let read = running
        .vault
        .database()
        .begin_read()
        .map_err(|error| store_error(error.into()))?;
    let row = read_row(&read, key)
        .map_err(store_error)?
        .ok_or_else(|| ControlError::not_found("that file is not known"))?;
    let document = read_document(&read, key, &row).map_err(store_error)?;
    files::contents(&document)
        .map_err(|error| ControlError::new(ErrorKind::Damaged, error.to_string()))
}

fn find_content(
    running: &Running,
    id: FileId,
    typed: &str,
) -> Result<files::Content, ControlError> {
    let typed = typed.trim().to_ascii_lowercase();
    let mut found = contents(running, id)?.into_iter().filter(|(revision, _)| {
        typed.len() >= 4 && hex::encode(revision.hash.0).starts_with(&typed)
    });
    match (found.next(), found.next()) {
        (Some((_, content)), None) => Ok(content),
        (Some(_), Some(_)) => Err(ControlError::usage(format!(
            "\"{typed}\" is the beginning of several revisions"
        ))),
        _ => Err(ControlError::not_found(format!(
            "there is no revision \"{typed}\" of that file"
        ))),
    }
}

/// `file history`.
pub async fn history(node: &Arc<Node>, path: String) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let id = resolve(&running, &path)?;
    let names = Names::read(&running).await?;
    let here = crate::blobs::placement::Reader::new(
        &running
            .vault
            .database()
            .begin_read()
            .map_err(|error| store_error(error.into()))?,
    )
    .map_err(|error| store_error(error.into()))?;
    let revisions = contents(&running, id)?
        .into_iter()
        .rev()
        .map(|(revision, content)| FileRevision {
            revision: hex::encode(revision.hash.0),
            at_ms: revision.time_ms,
            device: names.of(revision.actor),
            content: Content {
                size: content.size,
                modified_ms: content.mtime_ms,
                executable: content.executable,
                link: content.target.clone(),
                here: content.root.list().chunks.iter().all(|chunk| {
                    here.has(&coffer_protocol::identity::Hash(chunk.blob))
                        .unwrap_or(false)
                }),
            },
        });
    Ok(Reply::FileRevisions {
        revisions: revisions.collect(),
    })
}

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
    let mut adding = Adding {
        skipped: Vec::new(),
        files: 0,
        folders: 0,
        bytes: 0,
        unchanged: 0,
        reported: std::time::Instant::now(),
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
                adding.flush(&running, &mut batch, session).await?;
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
                running
                    .vault
                    .commit(CommitRequest {
                        operations: vec![create],
                        ..Default::default()
                    })
                    .await
                    .map_err(commit_error)?;
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
    adding.flush(&running, &mut batch, session).await?;
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
    reported: std::time::Instant,
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
        session: &Session,
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
        let mut imported = running.blobs.import(jobs).await.into_iter();
        let mut request = CommitRequest::default();
        for found in batch {
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
                Some((id, kind, _)) if kind == found.kind => {
                    request.operations.extend(merge_group(running, id));
                    request
                        .operations
                        .push(Operation::SetContent { id, content: draft });
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
                        name: found.name,
                        content: Some(draft),
                        created_ms: wall_ms() as i64,
                    });
                    self.files += 1;
                }
            }
        }
        running.vault.commit(request).await.map_err(commit_error)?;
        if self.reported.elapsed() > PROGRESS_EVERY {
            self.reported = std::time::Instant::now();
            session.progress(Progress {
                stage: Stage::Reading,
                done: self.files + self.unchanged,
                total: None,
                about: None,
            });
        }
        Ok(())
    }
}

/// What was read of a file, as the vault takes it; its rows go with the same request.
fn take_rows(request: &mut CommitRequest, imported: Imported) -> ContentDraft {
    let mtime_ms = i64::try_from(imported.mtime_ms()).unwrap_or(i64::MAX);
    request.placements.extend(imported.rows.placements);
    request.chunks.extend(imported.rows.chunks);
    ContentDraft {
        size: imported.size,
        mtime_ms,
        executable: imported.executable,
        hash: imported.hash,
        target: None,
        root: imported.root,
    }
}

/// A symbolic link as a content: its target, never what it points to.
fn read_link(local: &Path) -> Result<ContentDraft, String> {
    let target = std::fs::read_link(local).map_err(|error| error.to_string())?;
    let target = target
        .to_str()
        .ok_or("its target is not valid text")?
        .to_string();
    let meta = local
        .symlink_metadata()
        .map_err(|error| error.to_string())?;
    Ok(ContentDraft {
        size: target.len() as u64,
        mtime_ms: meta.mtime().saturating_mul(1000),
        executable: false,
        hash: crate::folder::decide::link_hash(&target),
        target: Some(target),
        root: coffer_crdt::chunks::ChunkRoot::empty(),
    })
}

/// One thing to write to this machine.
struct Writing {
    id: FileId,
    dest: PathBuf,
    content: files::Content,
}

/// `file get`: a file, or a tree. Nothing that is there is overwritten unless that is asked for; each file appears whole.
pub async fn get(
    node: &Arc<Node>,
    path: String,
    dest: PathBuf,
    at: Option<String>,
    overwrite: bool,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let id = resolve(&running, &path)?;
    let is_folder = id == FileId::ROOT
        || running
            .vault
            .tree()
            .shown(id)
            .is_some_and(|shown| shown.kind == Kind::Folder);
    if is_folder && at.is_some() {
        return Err(ControlError::usage(
            "earlier revisions are fetched file by file",
        ));
    }
    let mut skipped = Vec::new();
    let mut plan = Vec::new();
    if is_folder {
        plan_tree(&running, id, &dest, &mut plan, &mut skipped)?;
    } else {
        let content = match &at {
            Some(at) => find_content(&running, id, at)?,
            None => present_content(&running, id)?,
        };
        let dest = if dest.is_dir() {
            dest.join(path.trim_matches('/').rsplit('/').next().unwrap_or("file"))
        } else {
            dest.clone()
        };
        plan.push(Writing { id, dest, content });
    }
    let (files, bytes) = write_all(&running, plan, overwrite, session, &mut skipped).await?;
    if let (false, 0, [only]) = (is_folder, files, &skipped[..]) {
        let kind = if only.reason.contains("already") {
            ErrorKind::Conflict
        } else {
            ErrorKind::Unavailable
        };
        let error = ControlError::new(
            kind,
            format!("{} was not written: {}", only.path, only.reason),
        );
        return Err(match kind {
            ErrorKind::Conflict => error.with_code("file-exists"),
            _ => error,
        });
    }
    Ok(Reply::FilesGot {
        files,
        bytes,
        dest,
        skipped,
    })
}

fn present_content(running: &Running, id: FileId) -> Result<files::Content, ControlError> {
    let state = running.vault.file(id).map_err(store_error)?;
    state
        .and_then(|state| state.content)
        .ok_or_else(|| ControlError::not_found("that file has no content"))
}

/// All files below a folder of the vault, with where they go; makes the folders.
fn plan_tree(
    running: &Running,
    top: FileId,
    dest: &Path,
    plan: &mut Vec<Writing>,
    skipped: &mut Vec<Skipped>,
) -> Result<(), ControlError> {
    let mut folders = vec![(top, dest.to_path_buf(), 0)];
    while let Some((folder, dest, depth)) = folders.pop() {
        std::fs::create_dir_all(&dest).map_err(|error| {
            ControlError::io(format_args!("make the folder {}", dest.display()), &error)
        })?;
        let children: Vec<(String, FileId, Kind)> = {
            let tree = running.vault.tree();
            tree.children(folder)
                .filter_map(|(name, id)| Some((name.to_string(), id, tree.shown(id)?.kind)))
                .collect()
        };
        for (name, id, kind) in children {
            let dest = dest.join(&name);
            if kind == Kind::Folder {
                if depth < MAX_DEPTH {
                    folders.push((id, dest, depth + 1));
                }
                continue;
            }
            match present_content(running, id) {
                Ok(content) => plan.push(Writing { id, dest, content }),
                Err(error) => skipped.push(Skipped {
                    path: dest.display().to_string(),
                    reason: error.message,
                }),
            }
        }
    }
    Ok(())
}

/// Writes whole contents of the vault below `dest`, for the export too.
pub async fn write_tree(
    running: &Arc<Running>,
    dest: &Path,
    session: &Session,
    skipped: &mut Vec<Skipped>,
) -> Result<(u64, u64), ControlError> {
    let mut plan = Vec::new();
    plan_tree(running, FileId::ROOT, dest, &mut plan, skipped)?;
    write_all(running, plan, false, session, skipped).await
}

async fn write_all(
    running: &Arc<Running>,
    plan: Vec<Writing>,
    overwrite: bool,
    session: &Session,
    skipped: &mut Vec<Skipped>,
) -> Result<(u64, u64), ControlError> {
    let total: u64 = plan.iter().map(|writing| writing.content.size).sum();
    let progress = Arc::new(Transfer::default());
    progress.total_bytes.store(total, Ordering::Relaxed);
    let fetch = Fetch {
        sources: running.fetch.sources.clone(),
        progress: progress.clone(),
    };
    let reporter = session.reporter();
    let telling = tokio::spawn(async move {
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            reporter(Progress {
                stage: Stage::Writing,
                done: progress.done_bytes.load(Ordering::Relaxed),
                total: Some(total),
                about: None,
            });
        }
    });
    let (mut files, mut bytes) = (0, 0);
    let mut plan = plan.into_iter();
    let outcome = loop {
        let batch: Vec<Writing> = plan.by_ref().take(GET_BATCH).collect();
        if batch.is_empty() {
            break Ok((files, bytes));
        }
        match write_batch(running, batch, overwrite, &fetch, skipped).await {
            Ok((more_files, more_bytes)) => {
                files += more_files;
                bytes += more_bytes;
            }
            Err(error) => break Err(error),
        }
    };
    telling.abort();
    outcome
}

async fn write_batch(
    running: &Arc<Running>,
    batch: Vec<Writing>,
    overwrite: bool,
    fetch: &Fetch,
    skipped: &mut Vec<Skipped>,
) -> Result<(u64, u64), ControlError> {
    let mut jobs = Vec::new();
    let mut targets: BTreeMap<u64, (PathBuf, files::Content)> = BTreeMap::new();
    let (mut written, mut bytes) = (0, 0);
    for (key, writing) in batch.into_iter().enumerate() {
        let Writing { id, dest, content } = writing;
        if !overwrite && dest.symlink_metadata().is_ok() {
            skipped.push(Skipped {
                path: dest.display().to_string(),
                reason: "it is there already".into(),
            });
            continue;
        }
        if let Some(target) = &content.target {
            if overwrite {
                let _ = std::fs::remove_file(&dest);
            }
            match std::os::unix::fs::symlink(target, &dest) {
                Ok(()) => written += 1,
                Err(error) => skipped.push(Skipped {
                    path: dest.display().to_string(),
                    reason: error.to_string(),
                }),
            }
            continue;
        }
        let name = dest
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("file")
            .to_string();
        let short: String = name.chars().take(40).collect();
        let temp = dest.with_file_name(format!(".{short}.{}.coffer-part", &id.to_string()[..8]));
        jobs.push(WriteJob {
            key: key as u64,
            size: content.size,
            hash: content.hash,
            root: content.root.clone(),
            temp,
            folder: 0,
            file: id.0,
        });
        targets.insert(key as u64, (dest, content));
    }
    let temps: BTreeMap<u64, PathBuf> =
        jobs.iter().map(|job| (job.key, job.temp.clone())).collect();
    let (done, mut groups) = tokio::sync::mpsc::channel(4);
    let transfer = running.blobs.write_files(jobs, fetch, done);
    let place = async {
        let mut fatal = None;
        while let Some(group) = groups.recv().await {
            for (key, result) in group.jobs {
                let Some((dest, content)) = targets.get(&key) else {
                    continue;
                };
                let temp = &temps[&key];
                match result {
                    Ok(_) => match finish(temp, dest, content, overwrite) {
                        Ok(()) => {
                            written += 1;
                            bytes += content.size;
                        }
                        Err(error) => skipped.push(Skipped {
                            path: dest.display().to_string(),
                            reason: error.to_string(),
                        }),
                    },
                    Err(error) => {
                        let _ = std::fs::remove_file(temp);
                        match error {
                            WriteError::DiskFull => {
                                fatal =
                                    Some(ControlError::new(ErrorKind::DiskFull, "the disk is full"))
                            }
                            other => skipped.push(Skipped {
                                path: dest.display().to_string(),
                                reason: other.to_string(),
                            }),
                        }
                    }
                }
            }
        }
        fatal
    };
    let (_, fatal) = tokio::join!(transfer, place);
    match fatal {
        Some(error) => Err(error),
        None => Ok((written, bytes)),
    }
}

/// Gives a written file its time and mode, and its name.
fn finish(
    temp: &Path,
    dest: &Path,
    content: &files::Content,
    overwrite: bool,
) -> std::io::Result<()> {
    let file = std::fs::File::options().write(true).open(temp)?;
    file.set_permissions(std::fs::Permissions::from_mode(if content.executable {
        0o755
    } else {
        0o644
    }))?;
    let modified = UNIX_EPOCH
        .checked_add(Duration::from_millis(
            u64::try_from(content.mtime_ms).unwrap_or(0),
        ))
        .unwrap_or(SystemTime::UNIX_EPOCH);
    file.set_modified(modified)?;
    file.sync_all()?;
    if overwrite {
        std::fs::rename(temp, dest)
    } else {
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            temp,
            rustix::fs::CWD,
            dest,
            rustix::fs::RenameFlags::NOREPLACE,
        )
        .map_err(Into::into)
    }
}
