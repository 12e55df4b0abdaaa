//! Ending the syncing of a folder: its bytes are kept by the vault first, its files stay where they are.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use redb::ReadableDatabase;

use super::folders::{config, find, stop_engine};
use super::running::{Running, commit_error};
use super::{Node, displaced, store_error};
use crate::blobs::{FolderPaths, Import, ImportError, ImportJob, placement};
use crate::control::{
    Answer, ControlError, ErrorKind, FolderRow, Progress, Question, Reply, Session, Stage,
};
use crate::folder::{self, Activity};
use crate::vault::{CommitRequest, FolderSetting};

/// Files copied into the store per commit when a folder is removed.
const KEPT_AT_ONCE: usize = 256;

/// `folder remove`: deletes nothing. Bytes that only the folder held for this device are kept by the vault's own store.
pub async fn remove(
    node: &Arc<Node>,
    dir: PathBuf,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let (number, setting) = find(&running, &dir)?;
    let paths = present_files(&running, number)?;
    if is_away(&running, number) {
        let question = Question::RemoveFolder {
            dir: setting.path.clone(),
            files: paths.len() as u64,
        };
        if session.ask(question).await? != Answer::Yes {
            return Err(ControlError::refused(
                "the folder was not removed; nothing was changed",
            ));
        }
    }
    let engine = running.folders.engines.lock().await.remove(&number);
    if let Some(engine) = engine {
        stop_engine(engine).await;
    }
    running
        .folders
        .states
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&number);
    running
        .folders
        .settings
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&number);
    keep_bytes(&running, paths, &setting, session).await?;
    let path = running
        .vault
        .tree()
        .path(setting.folder)
        .unwrap_or_default();
    let database = running.vault.database().clone();
    let places = tokio::task::spawn_blocking(move || -> Result<_, crate::store::StoreError> {
        Ok(placement::Reader::new(&database.begin_read()?)?.in_folder(number)?)
    });
    let places = places
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(store_error)?;
    let request = CommitRequest {
        folders: vec![(number, None)],
        displaced: places,
        ..Default::default()
    };
    displaced::forget(&running.vault, &running.blobs, request).await?;
    let look_again = &running.keeping.look_again;
    look_again.store(true, std::sync::atomic::Ordering::Release);
    let config = config(&running, number, &setting).await?;
    let released = tokio::task::spawn_blocking(move || folder::release(&config)).await;
    if let Ok(Err(error)) = released {
        tracing::warn!(%error, "the folder's hidden part was not removed");
    }
    Ok(Reply::FolderRemoved {
        folder: FolderRow {
            dir: setting.path,
            to: path,
        },
    })
}

/// Whether a synced folder is not there, or rests because so much of it is gone.
fn is_away(running: &Running, number: u32) -> bool {
    running.folders.states().get(&number).is_some_and(|state| {
        let activity = &state.borrow().activity;
        matches!(activity, Activity::Missing(_) | Activity::Braked)
    })
}

/// Where the files of a synced folder are; to be asked while its engine runs.
fn present_files(running: &Running, number: u32) -> Result<Vec<PathBuf>, ControlError> {
    let rows = running.vault.folder_rows(number).map_err(commit_error)?;
    let files = rows.into_iter().filter(|(_, row)| row.kind == 0);
    Ok(files
        .filter_map(|(id, _)| running.paths.file(number, &id.0))
        .collect())
}

/// Brings into the store what this device holds only as files of a synced folder: the folder's present files, and the
/// contents that were moved aside in it.
async fn keep_bytes(
    running: &Arc<Running>,
    mut paths: Vec<PathBuf>,
    setting: &FolderSetting,
    session: &Session,
) -> Result<(), ControlError> {
    let kept = std::fs::read_dir(setting.path.join(".vault").join("kept"));
    paths.extend(
        kept.into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    let total = paths.len() as u64;
    for (round, batch) in paths.chunks(KEPT_AT_ONCE).enumerate() {
        session.progress(Progress {
            stage: Stage::Saving,
            done: (round * KEPT_AT_ONCE) as u64,
            total: Some(total),
            about: None,
        });
        let jobs = batch.iter().map(|path| ImportJob {
            path: path.clone(),
            into: Import::Store,
        });
        let mut request = CommitRequest::default();
        for imported in running.blobs.import(jobs.collect()).await {
            match imported {
                Ok(imported) => {
                    request.placements.extend(imported.rows.placements);
                    request.chunks.extend(imported.rows.chunks);
                    request.holds.push(imported.hold);
                }
                Err(ImportError::DiskFull) => {
                    return Err(ControlError::new(
                        ErrorKind::DiskFull,
                        "the disk of the vault has no room for a copy of the folder",
                    ));
                }
                // It was changed or removed after the last look: the vault holds what it was elsewhere, or not at all.
                Err(error) => tracing::warn!(%error, "a file of the folder could not be kept"),
            }
        }
        running.vault.commit(request).await.map_err(commit_error)?;
    }
    Ok(())
}
