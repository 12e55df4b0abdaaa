//! Which backups this device made.

use std::path::{Path, PathBuf};

use coffer_protocol::log::Clock;
use redb::ReadableDatabase;
use serde::{Deserialize, Serialize};

use super::super::running::{Running, commit_error};
use super::super::store_error;
use crate::backup::Run;
use crate::control::{BackupStatus, ControlError};
use crate::store::{StoreError, records, tables};
use crate::vault::CommitRequest;

/// Version of what is remembered.
const VERSION: u16 = 1;
/// Folders that are remembered.
const MOST: usize = 8;

/// What is remembered of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    dir: PathBuf,
    at_ms: u64,
    clock: Clock,
    missing: u64,
}

fn read(running: &Running) -> Result<Vec<Known>, ControlError> {
    let read = || -> Result<_, StoreError> {
        let read = running.vault.database().begin_read()?;
        records::get(&read.open_table(tables::META)?, tables::meta::BACKUPS)
    };
    let bytes = read().map_err(store_error)?.unwrap_or_default();
    // What cannot be read is forgotten: the folders themselves know it.
    Ok(match postcard::from_bytes::<(u16, Vec<Known>)>(&bytes) {
        Ok((VERSION, known)) => known,
        _ => Vec::new(),
    })
}

/// Remembers a run.
pub(super) async fn note(running: &Running, dir: &Path, run: &Run) -> Result<(), ControlError> {
    let mut known = read(running)?;
    known.retain(|known| known.dir != dir);
    known.insert(
        0,
        Known {
            dir: dir.into(),
            at_ms: run.at_ms,
            clock: run.clock.clone(),
            missing: run.missing,
        },
    );
    known.truncate(MOST);
    let bytes = postcard::to_stdvec(&(VERSION, known))
        .map_err(|error| ControlError::internal(error.to_string()))?;
    let request = CommitRequest {
        meta: vec![(tables::meta::BACKUPS, bytes)],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    Ok(())
}

/// The last backup that this device made, compared with what the vault holds now.
pub fn status(running: &Running, now: &Clock) -> Result<Option<BackupStatus>, ControlError> {
    Ok(read(running)?.into_iter().next().map(|known| BackupStatus {
        everything: known.missing == 0 && known.clock.covers_clock(now),
        dir: known.dir,
        at_ms: known.at_ms,
        missing: known.missing,
    }))
}
