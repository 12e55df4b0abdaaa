//! `recover --backup`: with the words and a backup alone a device gets everything.
//!
//! The recovery key admits the device and changes the vault's key, as where a host is asked. Then entries are taken in,
//! the vault starts, and contents are brought into the store from the folder as from a device, earlier ones and those in
//! the trash too. Torn, the same command goes on: a device that is in the vault already is not admitted again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::log::Clock;
use tokio::sync::mpsc;

use super::super::pairing::make_room;
use super::super::recovering::{admit, read_kit};
use super::super::running::{Running, commit_error};
use super::super::{Node, device_name, founding_error, random, status, store_error};
use super::gather::each_content;
use super::scratch::{check_words, damaged, membership, take_all};
use super::{Leave, alone, archive_error, blocking, open};
use crate::backup::Archive;
use crate::blobs::{Fetch, FromShelf, Priority, StoreJob};
use crate::control::{ControlError, ErrorKind, Progress, RecoverWith, Reply, Session, Stage};
use crate::store;
use crate::vault::founding::{self, DATABASE, Recovered};
use crate::vault::identity::binding;
use crate::vault::{CommitRequest, wall_ms};

/// Contents that are brought at a time.
const BATCH: usize = 512;
/// Stands for a backup where the source of a vault that came back is remembered.
const BACKUP: DeviceId = DeviceId([0; 32]);

/// Gets the vault of the backup in `dir` back.
pub async fn recover(
    node: &Arc<Node>,
    with: RecoverWith,
    dir: PathBuf,
    name: Option<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    node.closed.check()?;
    let founding = node.founding.lock().await;
    let _alone = alone(node)?;
    let kit = read_kit(&with)?;
    drop(with);
    let archive = open(&dir).await?;
    if kit.vault != archive.vault() {
        let text = "this recovery kit is of another vault than the backup";
        return Err(ControlError::refused(text).with_code("not-these-words"));
    }
    let from = archive.clone();
    let (shown, runs) = blocking(move || {
        Ok((
            membership(&from)?,
            from.runs().map_err(archive_error)?.len(),
        ))
    })
    .await?;
    check_words(&kit, &shown)?;
    if runs == 0 {
        tracing::warn!("no backup came to its end in that folder; what is in it is taken");
    }
    let is_in_it = is_in(node, &archive).await?;
    if !is_in_it {
        make_room(node, session).await?;
    }
    let upto = archive.clock();
    let begun = match is_in_it {
        true => None,
        false => {
            let grants = shown.grants();
            let grants = grants.map(|(_, grant)| grant.bytes().to_vec()).collect();
            let name = device_name(name.or_else(|| node.options.device_name.clone()));
            let back = admit(&kit, &grants, &node.identity()?, &name)?;
            Some((back, name))
        }
    };
    drop(kit);
    node.stop_vault().await;
    let leave = Leave::default();
    let taken = {
        let (path, place) = (node.data_dir().join(DATABASE), binding(node.data_dir()));
        let identity = node.identity()?;
        let (from, left, report) = (archive.clone(), leave.left(), session.reporter());
        let upto = upto.clone();
        blocking(move || {
            let database = store::open(&path).map_err(store_error)?;
            if let Some((back, name)) = begun {
                let recovered = Recovered {
                    at_ms: wall_ms(),
                    source: Some(BACKUP),
                    addresses: Vec::new(),
                };
                founding::recover(
                    &database,
                    (&back.membership, &back.keyring),
                    &name,
                    &place,
                    &recovered,
                    &mut random(),
                )
                .map_err(founding_error)?;
            }
            let mut core = founding::open(database, identity, &place, Box::new(random()))
                .map_err(store_error)?;
            take_all(&mut core, &from, &upto, &left, &report)
        })
        .await
    };
    // Whatever became of it, the vault is there and goes on.
    let running = node.start_vault().await?;
    drop(founding);
    taken?;
    running.vault.members_changed();
    contents(&running, &archive, session).await?;
    check_taken(&running, &upto).await?;
    Ok(Reply::Recovered {
        vault: archive.vault().to_string(),
        device: status::device_row(node, &running, node.device).await?,
        sources: 1,
        confirmed: false,
    })
}

/// Whether this data folder has the vault of the backup already, with this device in it.
async fn is_in(node: &Node, archive: &Archive) -> Result<bool, ControlError> {
    let running = match node.vault().await {
        Ok(running) => running,
        Err(error) if error.kind == ErrorKind::NoVault => return Ok(false),
        Err(error) => return Err(error),
    };
    let look = running
        .vault
        .inspect(|core| (core.state().vault, core.state().is_out()));
    let (vault, is_out) = look.await.map_err(commit_error)?;
    Ok(vault == archive.vault() && !is_out)
}

/// Says so where entries of the backup could not be taken.
async fn check_taken(running: &Running, upto: &Clock) -> Result<(), ControlError> {
    let look = running.vault.inspect(|core| core.state().clock.clone());
    let clock = look.await.map_err(commit_error)?;
    let left = clock.lacking(upto);
    if left.is_empty() {
        return Ok(());
    }
    let count: u64 = left.iter().map(|range| range.to - range.from + 1).sum();
    tracing::warn!(count, "changes of a backup could not be taken");
    Err(damaged(&format!(
        "{count} changes in it are damaged or do not belong there; all else is here"
    )))
}

/// Brings contents of files into the store.
async fn contents(
    running: &Arc<Running>,
    archive: &Arc<Archive>,
    session: &Session,
) -> Result<(), ControlError> {
    let (vault, purged) = (running.vault.clone(), running.vault.tree().purged_ids());
    let jobs = blocking(move || {
        let mut jobs = Vec::new();
        each_content(vault.database(), &purged, |found| {
            jobs.push((
                found.is_present.then_some(found.file),
                StoreJob {
                    key: 0,
                    size: found.content.size,
                    hash: found.content.hash,
                    root: found.content.root.clone(),
                },
            ));
            Ok(())
        })?;
        // Small ones first: most files are back soonest that way.
        jobs.sort_by_key(|(file, job)| (file.is_none(), job.size));
        Ok(jobs)
    });
    let jobs = jobs.await?;
    let total = jobs.iter().map(|(_, job)| job.size).sum();
    let fetch = Fetch::from(FromShelf::new(archive.vault(), archive.clone()))
        .with_priority(Priority::Person);
    for batch in jobs.chunks(BATCH) {
        bring(running, batch, &fetch).await?;
        session.progress(Progress {
            stage: Stage::Writing,
            done: fetch.progress.done_bytes.load(Ordering::Relaxed),
            total: Some(total),
            about: None,
        });
    }
    Ok(())
}

/// Brings some contents. What is not in the backup stays wanted, and comes from a device that has it.
async fn bring(
    running: &Arc<Running>,
    batch: &[(Option<FileId>, StoreJob)],
    fetch: &Fetch,
) -> Result<(), ControlError> {
    let jobs = (0..)
        .zip(batch)
        .map(|(key, (_, job))| StoreJob { key, ..job.clone() });
    let (done, mut groups) = mpsc::channel(4);
    let transfer = running.blobs.store_contents(jobs.collect(), fetch, done);
    let commit = async {
        let mut failed = None;
        while let Some(group) = groups.recv().await {
            let mut request = CommitRequest {
                placements: group.shared.placements,
                chunks: group.shared.chunks,
                ..Default::default()
            };
            for (key, result) in group.jobs {
                match result {
                    Ok(rows) => {
                        request.placements.extend(rows.placements);
                        request.chunks.extend(rows.chunks);
                        let (file, job) = &batch[key as usize];
                        request.held.extend(file.map(|file| (file, job.hash)));
                    }
                    Err(crate::blobs::WriteError::DiskFull) => {
                        failed = Some(ControlError::new(
                            ErrorKind::DiskFull,
                            "the disk is full; the same command goes on from here",
                        ));
                    }
                    Err(error) => tracing::warn!(%error, "a content is not whole in the backup"),
                }
            }
            if let Err(error) = running.vault.commit(request).await {
                failed = Some(commit_error(error));
            }
        }
        failed.map_or(Ok(()), Err)
    };
    tokio::join!(transfer, commit).1
}
