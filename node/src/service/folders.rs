//! The synced folders of this device: adding, listing, looking again. How one is removed is in `unsyncing.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coffer_crdt::files::FileId;
use coffer_crdt::tree::Tree;
use futures::future::join_all;
use tokio::sync::Mutex;

use super::running::{Running, commit_error};
use super::{Node, files, store_error};
use crate::control::{
    Answer, ControlError, ErrorKind, FolderBrake, FolderIssue, FolderMerge, FolderRow, FolderState,
    FolderStatus, Question, Reply, Session,
};
use crate::folder::conflicts::{conflicts, is_below};
use crate::folder::{
    self, Activity, BlobContents, FolderConfig, FolderEngine, FolderError, FolderHandle, Release,
    Unreleased,
};
use crate::vault::{CommitRequest, FolderSetting};

/// Synced folders on one device, at most: each has watches and an engine of its own.
const MAX_FOLDERS: usize = 64;
/// Issues and conflicts that a status names; it counts the others.
const NAMED: usize = 20;

/// How often, and with what pauses, a stop waits for those who ask an engine something.
const STOP_TRIES: u32 = 200;
const STOP_PAUSE: Duration = Duration::from_millis(10);
/// How long a command waits for folders to take in what was done to them: a look at a few folders, and the doubt whether
/// what is missing was moved. In the midst of very many changes it goes on without.
const TAKE_IN_WITHIN: Duration = Duration::from_secs(5);

/// The engines that run.
#[derive(Default)]
pub struct Synced {
    pub(super) engines: Mutex<BTreeMap<u32, Arc<FolderHandle>>>,
    pub(super) settings: std::sync::RwLock<BTreeMap<u32, FolderSetting>>,
    pub(super) states:
        std::sync::RwLock<BTreeMap<u32, tokio::sync::watch::Receiver<folder::FolderState>>>,
}

impl Synced {
    /// Whether every folder and the vault agree, as far as can be known now.
    pub async fn all_settled(&self) -> bool {
        let engines: Vec<Arc<FolderHandle>> = self.engines.lock().await.values().cloned().collect();
        for engine in engines {
            if !engine.is_settled().await {
                return false;
            }
        }
        true
    }

    /// Has what was done to the folders until now taken in, as far as that is done soon.
    pub async fn take_in(&self) {
        let engines: Vec<Arc<FolderHandle>> = self.engines.lock().await.values().cloned().collect();
        let all = join_all(engines.iter().map(|engine| engine.take_in()));
        let _ = tokio::time::timeout(TAKE_IN_WITHIN, all).await;
    }

    /// The folders of the vault that are synced here.
    pub fn vault_folders(&self) -> Vec<FileId> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        settings.values().map(|setting| setting.folder).collect()
    }

    /// Whether a synced folder has this content of a file on disk, as far as its rows say.
    pub fn holds(&self, running: &Running, file: FileId, hash: [u8; 32]) -> bool {
        let shown_as = running.vault.tree().representative(file);
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        let has_row = |number: u32, id: FileId| {
            let row = running.vault.folder_row(number, id);
            row.is_ok_and(|row| row.is_some_and(|row| row.hash == hash))
        };
        settings
            .keys()
            .any(|number| has_row(*number, file) || has_row(*number, shown_as))
    }

    /// What each folder is doing. `conflicts` are those of the whole vault, by path.
    pub fn statuses(&self, running: &Running, conflicts: &[FileId]) -> Vec<FolderStatus> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        states
            .iter()
            .filter_map(|(number, state)| {
                let setting = settings.get(number)?;
                Some(status(running, setting, &state.borrow(), conflicts))
            })
            .collect()
    }

    /// The state of each folder, now and from now on.
    pub(super) fn states(
        &self,
    ) -> BTreeMap<u32, tokio::sync::watch::Receiver<folder::FolderState>> {
        self.states
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The synced folder that a path of this machine lies in.
    pub(super) fn around(&self, path: &Path) -> Option<FolderSetting> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        let mut around = settings.values();
        around
            .find(|setting| path.starts_with(&setting.path))
            .cloned()
    }

    fn setting(&self, dir: &Path) -> Option<(u32, FolderSetting)> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        settings
            .iter()
            .find(|(_, setting)| setting.path == dir)
            .map(|(number, setting)| (*number, setting.clone()))
    }
}

fn status(
    running: &Running,
    setting: &FolderSetting,
    state: &folder::FolderState,
    conflicts: &[FileId],
) -> FolderStatus {
    let tree = running.vault.tree();
    let conflicts: Vec<FileId> = conflicts
        .iter()
        .copied()
        .filter(|copy| is_below(&tree, *copy, setting.folder))
        .collect();
    FolderStatus {
        dir: setting.path.clone(),
        in_trash: setting.folder != FileId::ROOT && tree.path(setting.folder).is_none(),
        to: tree
            .path(setting.folder)
            .unwrap_or_else(|| files::trash_path(&tree, setting.folder)),
        state: match &state.activity {
            Activity::Scanning => FolderState::Scanning,
            Activity::Applying => FolderState::Working,
            // What is still being written to is known, and not yet recorded.
            Activity::Idle if state.pending_local > 0 => FolderState::Working,
            Activity::Idle => FolderState::InSync,
            Activity::Braked => FolderState::Braked,
            Activity::Missing(_) => FolderState::NotThere,
            Activity::Stopped(reason) => FolderState::Stopped {
                reason: reason.clone(),
            },
        },
        files: state.files,
        folders: state.folders,
        bytes: state.bytes,
        to_record: state.pending_local,
        to_write: state.pending_remote,
        scanned_ms: state.scanned_ms,
        errors: state
            .problems
            .iter()
            .take(NAMED)
            .map(|problem| FolderIssue {
                path: match problem.path.is_empty() {
                    true => setting.path.display().to_string(),
                    false => problem.path.clone(),
                },
                text: problem.reason.clone(),
            })
            .collect(),
        error_count: state.problem_count,
        conflict_count: conflicts.len() as u64,
        conflicts: conflicts
            .iter()
            .take(NAMED)
            .filter_map(|copy| tree.path(*copy))
            .collect(),
        brake: state.brake.as_ref().map(brake),
    }
}

/// What a brake holds back, as it is told.
pub fn brake(report: &folder::BrakeReport) -> FolderBrake {
    FolderBrake {
        gone: report.gone,
        rewritten: report.rewritten,
        names: report.names.iter().take(NAMED).cloned().collect(),
    }
}

/// Starts the engines of all folders that are set.
pub async fn start_all(running: &Arc<Running>) -> Result<(), ControlError> {
    for (number, setting) in running.vault.folder_settings().map_err(store_error)? {
        start(running, number, setting).await?;
    }
    Ok(())
}

/// Stops them all.
pub async fn stop_all(running: &Running) {
    let engines = std::mem::take(&mut *running.folders.engines.lock().await);
    for engine in engines.into_values() {
        stop_engine(engine).await;
    }
}

/// Stops an engine, when those who ask it something now have their answer.
pub(super) async fn stop_engine(mut engine: Arc<FolderHandle>) {
    for _ in 0..STOP_TRIES {
        match Arc::try_unwrap(engine) {
            Ok(engine) => return engine.stop().await,
            Err(shared) => engine = shared,
        }
        tokio::time::sleep(STOP_PAUSE).await;
    }
    tracing::warn!("a synced folder is still being looked through; it ends with the node");
}

pub(super) async fn config(
    running: &Arc<Running>,
    number: u32,
    setting: &FolderSetting,
) -> Result<FolderConfig, ControlError> {
    let vault = running
        .vault
        .inspect(|core| core.state().vault)
        .await
        .map_err(commit_error)?;
    Ok(FolderConfig {
        number,
        path: setting.path.clone(),
        vault_folder: setting.folder,
        vault,
    })
}

async fn start(
    running: &Arc<Running>,
    number: u32,
    setting: FolderSetting,
) -> Result<(), ControlError> {
    let config = config(running, number, &setting).await?;
    let contents = Arc::new(contents(running));
    let engine = FolderEngine::start(
        config,
        Arc::new(running.vault.clone()),
        contents,
        &running.paths,
    )
    .await
    .map_err(folder_error)?;
    running
        .folders
        .states
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(number, engine.state());
    running
        .folders
        .settings
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(number, setting);
    running
        .folders
        .engines
        .lock()
        .await
        .insert(number, Arc::new(engine));
    Ok(())
}

fn contents(running: &Running) -> BlobContents {
    BlobContents {
        blobs: running.blobs.clone(),
        fetch: running.fetch.clone(),
    }
}

/// `folder add`: on a folder that is not empty, first says what would happen.
pub async fn add(
    node: &Arc<Node>,
    dir: PathBuf,
    to: String,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let dir = std::fs::canonicalize(&dir).map_err(|error| {
        ControlError::io(format_args!("use the folder {}", dir.display()), &error)
    })?;
    if !dir.is_dir() {
        return Err(ControlError::usage(format!(
            "{} is not a folder",
            dir.display()
        )));
    }
    let data =
        std::fs::canonicalize(node.data_dir()).unwrap_or_else(|_| node.data_dir().to_path_buf());
    if dir.starts_with(&data) || data.starts_with(&dir) {
        return Err(ControlError::usage(
            "the data folder itself cannot be kept in sync, nor a folder around it",
        ));
    }
    let settings: Vec<FolderSetting> = running
        .folders
        .settings
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .values()
        .cloned()
        .collect();
    if settings.len() >= MAX_FOLDERS {
        return Err(ControlError::conflict(format!(
            "at most {MAX_FOLDERS} folders are kept in sync"
        )));
    }
    if let Some(other) = settings
        .iter()
        .find(|other| dir.starts_with(&other.path) || other.path.starts_with(&dir))
    {
        let (asked, other) = (dir.display(), &other.path);
        let message = if dir == *other {
            format!("{asked} is kept in sync already")
        } else if dir.starts_with(other) {
            format!(
                "{asked} is in {}, which is kept in sync already",
                other.display()
            )
        } else {
            format!(
                "{} is in {asked} and is kept in sync already",
                other.display()
            )
        };
        return Err(ControlError::conflict(message).with_code("folder-synced"));
    }
    let target = running.vault.tree().resolve(&to);
    if let Some(target) = target {
        let tree = running.vault.tree();
        if let Some(other) = settings.iter().find(|other| {
            is_within(&tree, target, other.folder) || is_within(&tree, other.folder, target)
        }) {
            return Err(ControlError::conflict(format!(
                "that folder of the vault is kept in sync with {} already",
                other.path.display()
            ))
            .with_code("folder-synced"));
        }
    }
    let mut merge = FolderMerge {
        dir: dir.clone(),
        to: to.clone(),
        same: 0,
        new_here: 0,
        new_there: 0,
        conflicting: 0,
        examples: Vec::new(),
    };
    let occupied = std::fs::read_dir(&dir)
        .map_err(|error| ControlError::io(format_args!("read {}", dir.display()), &error))?
        .next()
        .is_some();
    if occupied {
        // A vault folder that is not there yet is like one that is empty: any id without children stands for it.
        let (top, contents) = (target.unwrap_or(FileId([0xff; 16])), contents(&running));
        let found = folder::preview(&dir, top, Arc::new(running.vault.clone()), &contents)
            .await
            .map_err(folder_error)?;
        (
            merge.same,
            merge.new_here,
            merge.new_there,
            merge.conflicting,
        ) = (
            found.same,
            found.new_here,
            found.new_there,
            found.conflicting,
        );
        if session.ask(Question::MergeFolder(merge.clone())).await? != Answer::Yes {
            return Err(ControlError::refused(
                "the folder was not added; nothing was changed",
            ));
        }
    }
    let folder = files::ensure_folder(&running, &to).await?;
    let number = running
        .vault
        .folder_settings()
        .map_err(store_error)?
        .iter()
        .map(|(number, _)| *number)
        .max()
        .unwrap_or(0)
        + 1;
    let setting = FolderSetting {
        path: dir.clone(),
        folder,
    };
    let config = config(&running, number, &setting).await?;
    tokio::task::spawn_blocking(move || folder::prepare(&config))
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(folder_error)?;
    let request = CommitRequest {
        folders: vec![(number, Some(setting.clone()))],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    start(&running, number, setting).await?;
    Ok(Reply::FolderAdded {
        folder: FolderRow { dir, to },
        merge,
    })
}

/// Whether `file` is `folder` or lies within it.
fn is_within(tree: &Tree, file: FileId, folder: FileId) -> bool {
    let mut at = file;
    for _ in 0..100_000 {
        if at == folder {
            return true;
        }
        match tree.shown(at) {
            Some(shown) => at = shown.parent,
            None => return false,
        }
    }
    false
}

/// What each folder is doing now.
fn statuses(running: &Running) -> Vec<FolderStatus> {
    let conflicts: Vec<FileId> = conflicts(&running.vault.tree(), FileId::ROOT)
        .iter()
        .map(|conflict| conflict.copy)
        .collect();
    running.folders.statuses(running, &conflicts)
}

/// `folder list`.
pub async fn list(node: &Arc<Node>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    Ok(Reply::Folders {
        folders: statuses(&running),
    })
}

/// `folder rescan`.
pub async fn rescan(node: &Arc<Node>, dir: Option<PathBuf>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let engines: Vec<Arc<FolderHandle>> = {
        let engines = running.folders.engines.lock().await;
        match &dir {
            None => engines.values().cloned().collect(),
            Some(dir) => {
                let (number, _) = find(&running, dir)?;
                engines.get(&number).cloned().into_iter().collect()
            }
        }
    };
    for engine in engines {
        engine.rescan().await;
    }
    Ok(Reply::Folders {
        folders: statuses(&running),
    })
}

/// `folder confirm` and `folder undo`.
pub async fn release(node: &Arc<Node>, dir: PathBuf, how: Release) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let (number, setting) = find(&running, &dir)?;
    let engine = running.folders.engines.lock().await.get(&number).cloned();
    let engine = engine.ok_or_else(|| ControlError::unavailable("the folder is being stopped"))?;
    let dir = setting.path;
    match engine.release(how).await {
        Ok(released) => Ok(Reply::FolderReleased {
            dir,
            undone: how == Release::Undo,
            gone: released.gone,
            rewritten: released.rewritten,
        }),
        Err(Unreleased::NotBraked) => Err(ControlError::conflict(format!(
            "nothing is held back in {}",
            dir.display()
        ))
        .with_code("not-braked")),
        Err(Unreleased::Failed(reason)) => Err(ControlError::new(ErrorKind::Io, reason)),
    }
}

pub(super) fn find(running: &Running, dir: &Path) -> Result<(u32, FolderSetting), ControlError> {
    let real = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let found = running
        .folders
        .setting(&real)
        .or_else(|| running.folders.setting(dir));
    found.ok_or_else(|| ControlError::not_found(format!("{} is not kept in sync", dir.display())))
}

/// The synced folder that a path of this machine lies in.
pub(super) fn around(running: &Running, path: &Path) -> Result<(u32, FolderSetting), ControlError> {
    let settings = running
        .folders
        .settings
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    let found = settings
        .iter()
        .find(|(_, setting)| path.starts_with(&setting.path));
    found
        .map(|(number, setting)| (*number, setting.clone()))
        .ok_or_else(|| {
            ControlError::not_found(format!(
                "{} is not in a folder that is kept in sync",
                path.display()
            ))
        })
}

fn folder_error(error: FolderError) -> ControlError {
    let kind = match &error {
        FolderError::Missing(_) => ErrorKind::NotFound,
        FolderError::Unmarked(_) | FolderError::Foreign(_) => ErrorKind::Conflict,
        FolderError::NotAFolder(_) => ErrorKind::Usage,
        FolderError::Io { path, error } => {
            return ControlError::io(format_args!("use {}", path.display()), error);
        }
        FolderError::Vault(_) => ErrorKind::Io,
    };
    ControlError::new(kind, error.to_string())
}
