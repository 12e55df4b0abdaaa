//! `file get`: a file or a tree of the vault, written to this machine.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coffer_crdt::files::{self, FileId, Kind};

use super::super::running::{Running, commit_error};
use super::super::whereabouts::{self, Sought};
use super::super::{Node, storage, store_error};
use super::history::find_content;
use super::telling::Telling;
use super::{MAX_DEPTH, resolve};
use crate::blobs::{
    Blobs, Fetch, NO_FOLDER, Priority, Progress as Transfer, Sources, StoreJob, WriteError,
    WriteJob,
};
use crate::control::{ControlError, ErrorKind, Reply, Session, Skipped, Stage};
use crate::vault::{CommitRequest, VaultHandle};

/// Files written to disk per round.
const GET_BATCH: usize = 512;

/// The vault that files are written from.
#[derive(Clone, Copy)]
pub struct From<'a> {
    /// Its documents.
    pub vault: &'a VaultHandle,
    /// Its bytes.
    pub blobs: &'a Blobs,
    /// Where else they may be.
    pub sources: &'a Arc<dyn Sources>,
    /// This device's own vault, which knows who has what is missing; none for a backup.
    pub running: Option<&'a Arc<Running>>,
}

impl<'a> From<'a> {
    /// This device's own vault.
    pub fn own(running: &'a Arc<Running>) -> From<'a> {
        From {
            vault: &running.vault,
            blobs: &running.blobs,
            sources: &running.fetch.sources,
            running: Some(running),
        }
    }
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
        plan_tree(&running.vault, id, &dest, &mut plan, &mut skipped)?;
    } else {
        let content = match &at {
            Some(at) => find_content(&running, id, at)?,
            None => present_content(&running.vault, id)?,
        };
        let dest = if dest.is_dir() {
            dest.join(path.trim_matches('/').rsplit('/').next().unwrap_or("file"))
        } else {
            dest.clone()
        };
        plan.push(Writing { id, dest, content });
    }
    if at.is_none() {
        let ids: Vec<FileId> = plan.iter().map(|writing| writing.id).collect();
        let progress = Arc::new(Transfer::default());
        let fetch = Fetch {
            sources: running.fetch.sources.clone(),
            progress: progress.clone(),
            priority: Priority::Person,
        };
        let _telling = Telling::start(session, Stage::Fetching, move || {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            (
                read(&progress.done_bytes),
                Some(read(&progress.total_bytes)),
            )
        });
        storage::bring_here(&running, &ids, &fetch).await?;
    }
    let from = From::own(&running);
    let (files, bytes) = write_all(from, plan, overwrite, session, &mut skipped).await?;
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
            _ if running.blobs.limits().borrow().paused => error.with_code("paused"),
            _ if !running.blobs.paused_elsewhere().borrow().devices.is_empty() => {
                error.with_code("paused-there")
            }
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

fn present_content(vault: &VaultHandle, id: FileId) -> Result<files::Content, ControlError> {
    let state = vault.file(id).map_err(store_error)?;
    state
        .and_then(|state| state.content)
        .ok_or_else(|| ControlError::not_found("that file has no content"))
}

/// All files below a folder of the vault, with where they go; makes the folders.
fn plan_tree(
    vault: &VaultHandle,
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
            let tree = vault.tree();
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
            match present_content(vault, id) {
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
    write_from(From::own(running), FileId::ROOT, dest, session, skipped).await
}

/// Writes a file or a tree of any vault to `dest`; nothing that is there is overwritten.
pub async fn write_from(
    from: From<'_>,
    top: FileId,
    dest: &Path,
    session: &Session,
    skipped: &mut Vec<Skipped>,
) -> Result<(u64, u64), ControlError> {
    let mut plan = Vec::new();
    let is_folder = top == FileId::ROOT || {
        let tree = from.vault.tree();
        (tree.shown(top)).is_some_and(|shown| shown.kind == Kind::Folder)
    };
    if is_folder {
        plan_tree(from.vault, top, dest, &mut plan, skipped)?;
    } else {
        plan.push(Writing {
            id: top,
            dest: dest.to_path_buf(),
            content: present_content(from.vault, top)?,
        });
    }
    write_all(from, plan, false, session, skipped).await
}

async fn write_all(
    from: From<'_>,
    plan: Vec<Writing>,
    overwrite: bool,
    session: &Session,
    skipped: &mut Vec<Skipped>,
) -> Result<(u64, u64), ControlError> {
    let total: u64 = plan.iter().map(|writing| writing.content.size).sum();
    let progress = Arc::new(Transfer::default());
    progress.total_bytes.store(total, Ordering::Relaxed);
    let fetch = Fetch {
        sources: from.sources.clone(),
        progress: progress.clone(),
        priority: Priority::Person,
    };
    let _telling = Telling::start(session, Stage::Writing, move || {
        (progress.done_bytes.load(Ordering::Relaxed), Some(total))
    });
    let (mut files, mut bytes) = (0, 0);
    let mut plan = plan.into_iter();
    loop {
        let batch: Vec<Writing> = plan.by_ref().take(GET_BATCH).collect();
        if batch.is_empty() {
            return Ok((files, bytes));
        }
        let (more_files, more_bytes) = write_batch(from, batch, overwrite, &fetch, skipped).await?;
        files += more_files;
        bytes += more_bytes;
    }
}

async fn write_batch(
    from: From<'_>,
    batch: Vec<Writing>,
    overwrite: bool,
    fetch: &Fetch,
    skipped: &mut Vec<Skipped>,
) -> Result<(u64, u64), ControlError> {
    let mut jobs = Vec::new();
    let mut targets: BTreeMap<u64, (FileId, PathBuf, files::Content)> = BTreeMap::new();
    let mut not_here = Vec::new();
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
            content: StoreJob {
                key: key as u64,
                size: content.size,
                hash: content.hash,
                root: content.root.clone(),
            },
            temp,
            folder: NO_FOLDER,
            file: id.0,
        });
        targets.insert(key as u64, (id, dest, content));
    }
    let temps: BTreeMap<u64, PathBuf> = jobs
        .iter()
        .map(|job| (job.content.key, job.temp.clone()))
        .collect();
    let (done, mut groups) = tokio::sync::mpsc::channel(4);
    let transfer = from.blobs.write_files(jobs, fetch, done);
    let place = async {
        let mut fatal = None;
        while let Some(group) = groups.recv().await {
            // Pieces of lists, and what could not be written out: they are named, so they stay.
            let request = CommitRequest {
                placements: group.shared.placements,
                chunks: group.shared.chunks,
                ..Default::default()
            };
            if !request.placements.is_empty()
                && let Err(error) = from.vault.commit(request).await
            {
                fatal = Some(commit_error(error));
            }
            for (key, result) in group.jobs {
                let Some((id, dest, content)) = targets.get(&key) else {
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
                            WriteError::Unavailable { .. } => {
                                not_here.push((*id, dest.clone(), content.clone()))
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
    for (id, dest, content) in not_here {
        skipped.push(Skipped {
            path: dest.display().to_string(),
            reason: match from.running {
                Some(running) => not_to_be_had(running, id, &content).await,
                None => "this content is not whole in the backup".into(),
            },
        });
    }
    match fatal {
        Some(error) => Err(error),
        None => Ok((written, bytes)),
    }
}

/// Why a content cannot be had now.
async fn not_to_be_had(running: &Arc<Running>, id: FileId, content: &files::Content) -> String {
    let sought = [Sought::of(running, id, content)];
    let found = whereabouts::find(running, &sought).await;
    match found.unwrap_or_default().pop() {
        Some(found) if !found.here => found.why_not_here(running.blobs.limits().borrow().paused),
        _ => "its content cannot be read on this device now".into(),
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
