//! `backup restore`: files of a backup as they were at one of its runs, on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_crdt::files::FileId;

use super::super::Node;
use super::super::export::export_documents;
use super::super::files::{self, From};
use super::scratch::{Keys, Scratch};
use super::{Leave, alone, archive_error, blocking, open, row};
use crate::backup::{Archive, Run};
use crate::control::{BackupAt, ControlError, RecoverWith, Reply, Session, Skipped};

/// What was written.
#[derive(Default)]
struct Written {
    documents: u64,
    files: u64,
    bytes: u64,
    skipped: Vec<Skipped>,
}

/// Writes `paths` of the backup in `dir`, or everything, into `to`.
pub async fn restore(
    node: &Arc<Node>,
    (dir, to): (PathBuf, PathBuf),
    paths: Vec<String>,
    at: Option<BackupAt>,
    with: Option<RecoverWith>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let _alone = alone(node)?;
    prepare(&to, paths.is_empty())?;
    let archive = open(&dir).await?;
    let run = choose(&archive, at).await?;
    let Some(keys) = Keys::find(node, &archive, with.as_ref()).await? else {
        return Err(ControlError::refused(
            "the backup is not of the vault of this device, so it takes the recovery kit to read it",
        )
        .with_code("backup-needs-kit"));
    };
    let leave = Leave::default();
    let scratch = Scratch::open(
        node,
        &archive,
        keys,
        run.clock.clone(),
        leave.left(),
        session.reporter(),
    )
    .await?;
    let written = tokio::select! {
        written = write(&scratch, &paths, &to, session) => written,
        () = session.closed() => Err(crate::control::Gone.into()),
    };
    scratch.close().await;
    let written = written?;
    Ok(Reply::BackupRestored {
        run: row(&run),
        documents: written.documents,
        files: written.files,
        bytes: written.bytes,
        dir: to,
        skipped: written.skipped,
    })
}

/// Makes the folder; for everything it has to be empty.
fn prepare(to: &Path, everything: bool) -> Result<(), ControlError> {
    if to.exists() && !to.is_dir() {
        return Err(ControlError::usage(format!(
            "{} is not a folder",
            to.display()
        )));
    }
    std::fs::create_dir_all(to).map_err(|error| {
        ControlError::io(format_args!("make the folder {}", to.display()), &error)
    })?;
    let mut there = std::fs::read_dir(to)
        .map_err(|error| ControlError::io(format_args!("read {}", to.display()), &error))?;
    match everything && there.next().is_some() {
        true => Err(
            ControlError::conflict(format!("{} is not empty", to.display())).with_code("not-empty"),
        ),
        false => Ok(()),
    }
}

/// The run that is meant.
async fn choose(archive: &Arc<Archive>, at: Option<BackupAt>) -> Result<Run, ControlError> {
    let archive = archive.clone();
    let runs = blocking(move || archive.runs().map_err(archive_error)).await?;
    let found = match at {
        None => runs.into_iter().next_back(),
        Some(BackupAt::Run(number)) => runs.into_iter().find(|run| run.number == number),
        Some(BackupAt::Time(ms)) => {
            let before = runs.into_iter().filter(|run| run.at_ms <= ms);
            before.max_by_key(|run| (run.at_ms, run.number))
        }
    };
    found.ok_or_else(|| {
        let text = match at {
            None => "no backup came to its end in that folder",
            Some(BackupAt::Run(_)) => "there is no backup of that number in that folder",
            Some(BackupAt::Time(_)) => "there is no backup of that time or before in that folder",
        };
        ControlError::not_found(text).with_code("no-such-backup")
    })
}

async fn write(
    scratch: &Scratch,
    paths: &[String],
    to: &Path,
    session: &Session,
) -> Result<Written, ControlError> {
    let mut written = Written::default();
    let from = From {
        vault: &scratch.vault,
        blobs: &scratch.blobs,
        sources: &scratch.sources,
        running: None,
    };
    let mut wanted: Vec<(FileId, PathBuf)> = Vec::new();
    for path in paths {
        let found = scratch.vault.tree().resolve(path);
        let id = found.ok_or_else(|| {
            ControlError::not_found(format!("there is no \"{path}\" in the backup of that time"))
        })?;
        let name = path.trim_matches('/').rsplit('/').next();
        wanted.push((id, to.join(name.unwrap_or_default())));
    }
    if paths.is_empty() {
        wanted.push((FileId::ROOT, to.join("files")));
        let (database, target) = (scratch.vault.database().clone(), to.join("documents"));
        let report = session.reporter();
        let exported = blocking(move || export_documents(&database, &target, &report));
        (written.documents, written.skipped) = exported.await?;
    }
    for (id, dest) in wanted {
        let (files, bytes) =
            files::write_from(from, id, &dest, session, &mut written.skipped).await?;
        written.files += files;
        written.bytes += bytes;
    }
    Ok(written)
}
