//! `recover --backup`: with the words and a backup alone a device gets everything.
//!
//! The recovery key admits the device and changes the vault's key, as where a host is asked. Then entries are taken in,
//! the vault starts, and contents are brought into the store from the folder as from a device, earlier ones and those in
//! the trash too. Torn, the same command goes on: a device that is in the vault already is not admitted again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use coffer_protocol::grants::Membership;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::log::Clock;
use coffer_protocol::recovery::{Kit, RecoverError};

use super::super::bringing::{Brought, Wanted, bring};
use super::super::pairing::{make_room, network, read_places};
use super::super::recovering::{addresses, admit, gather, reach, read_kit};
use super::super::running::{Running, commit_error};
use super::super::{Node, device_name, founding_error, random, status, store_error};
use super::gather::each_content;
use super::scratch::{check_words, damaged, membership, take_all};
use super::{Leave, alone, blocking, open};
use crate::backup::Archive;
use crate::blobs::{Fetch, FromShelf, Priority, StoreJob, WriteError};
use crate::control::{ControlError, ErrorKind, Progress, RecoverWith, Reply, Session, Stage};
use crate::net::Multiaddr;
use crate::recovering::ask;
use crate::store;
use crate::vault::founding::{self, DATABASE, Recovered};
use crate::vault::identity::binding;
use crate::vault::{CommitRequest, wall_ms};

/// Contents that are brought at a time.
const BATCH: usize = 512;
/// Stands for a backup where the source of a vault that came back is remembered.
const BACKUP: DeviceId = DeviceId([0; 32]);

/// Gets the vault of the backup in `dir` back. Devices and hosts that are left, `at` these places, on the paper or around,
/// are shown that this device is in it: without that they would not talk to it.
pub async fn recover(
    node: &Arc<Node>,
    with: RecoverWith,
    (dir, at): (PathBuf, Vec<String>),
    name: Option<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    node.closed.check()?;
    let founding = node.founding.lock().await;
    let _alone = alone(node)?;
    let kit = read_kit(&with)?;
    drop(with);
    let at = read_places(&at).await?;
    let archive = open(&dir).await?;
    if kit.vault != archive.vault() {
        let text = "this recovery kit is of another vault than the backup";
        return Err(ControlError::refused(text).with_code("not-these-words"));
    }
    let from = archive.clone();
    let shown = blocking(move || membership(&from)).await?;
    check_words(&kit, &shown)?;
    let is_in_it = is_in(node, &archive).await?;
    if !is_in_it {
        make_room(node, session).await?;
    }
    session.progress(Progress {
        stage: Stage::Looking,
        done: 0,
        total: None,
        about: None,
    });
    let others = Others::find(node, &kit, &at).await;
    let grants = shown.grants();
    let mut grants: BTreeSet<Vec<u8>> = grants.map(|(_, grant)| grant.bytes().to_vec()).collect();
    let known = others.shown.iter().chain(&grants);
    if Membership::from_bytes(kit.vault, known).is_ok() {
        grants.extend(others.shown.iter().cloned());
    }
    let (begun, all) = match is_in_it {
        true => {
            let running = node.vault().await?;
            let look = running.vault.inspect(|core| core.welcome().grants);
            (None, look.await.map_err(commit_error)?)
        }
        false => {
            let name = device_name(name.or_else(|| node.options.device_name.clone()));
            let back = admit(&kit, &grants, &node.identity()?, &name)?;
            let all = back.grants.clone();
            (Some((back, name)), all)
        }
    };
    let bound = others.bind(node, &kit, &all).await;
    let addresses = addresses(&kit, &others.reached);
    let recovered = Recovered {
        at_ms: wall_ms(),
        source: (bound == 0).then_some(BACKUP),
        addresses: addresses.clone(),
    };
    drop(kit);
    node.stop_vault().await;
    let leave = Leave::default();
    let upto = archive.clock();
    let taken = {
        let (path, place) = (node.data_dir().join(DATABASE), binding(node.data_dir()));
        let identity = node.identity()?;
        let (from, left, report) = (archive.clone(), leave.left(), session.reporter());
        let upto = upto.clone();
        blocking(move || {
            let database = store::open(&path).map_err(store_error)?;
            if let Some((back, name)) = begun {
                founding::recover(
                    &database,
                    &identity,
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
    let request = CommitRequest {
        addresses,
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    running.vault.members_changed();
    contents(&running, &archive, session).await?;
    check_taken(&running, &upto).await?;
    Ok(Reply::Recovered {
        vault: archive.vault().to_string(),
        device: status::device_row(node, &running, node.device()?).await?,
        sources: 1 + bound,
        confirmed: bound > 0,
    })
}

/// Devices and hosts of the vault that are left and can be reached now.
#[derive(Default)]
struct Others {
    reached: Vec<(DeviceId, Vec<Multiaddr>)>,
    keepers: Vec<DeviceId>,
    /// What they know of who is in the vault.
    shown: BTreeSet<Vec<u8>>,
}

impl Others {
    async fn find(node: &Node, kit: &Kit, at: &[Multiaddr]) -> Others {
        let (Ok(net), Ok(me)) = (network(node), node.device()) else {
            return Others::default();
        };
        let reached = reach(&net, me, kit, at).await;
        match gather(&net, me, kit, &reached).await {
            Ok((keepers, shown)) => Others {
                reached,
                keepers,
                shown,
            },
            Err(error) => {
                tracing::info!(%error, "nobody but the backup knows of the vault");
                Others::default()
            }
        }
    }

    /// Shows them all grants; gives how many have this device in the vault now.
    async fn bind(&self, node: &Node, kit: &Kit, grants: &[Vec<u8>]) -> u64 {
        let (Ok(net), Ok(me)) = (network(node), node.device()) else {
            return 0;
        };
        let mut bound = 0;
        for keeper in &self.keepers {
            let all = grants.to_vec();
            let asked = ask(&net, (me, *keeper), kit.vault, &kit.key, |_| {
                Ok::<_, RecoverError>(Some(all))
            });
            match asked.await {
                Ok(()) => bound += 1,
                Err(error) => {
                    tracing::info!(%keeper, %error, "a device or host did not take this device")
                }
            }
        }
        bound
    }
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
            jobs.push(Wanted {
                file: found.is_present.then_some(found.file),
                job: StoreJob {
                    key: 0,
                    size: found.content.size,
                    hash: found.content.hash,
                    root: found.content.root.clone(),
                },
            });
            Ok(())
        })?;
        // Small ones first: most files are back soonest that way.
        jobs.sort_by_key(|wanted| (wanted.file.is_none(), wanted.job.size));
        Ok(jobs)
    });
    let jobs = jobs.await?;
    let total = jobs.iter().map(|wanted| wanted.job.size).sum();
    let fetch = Fetch::from(FromShelf::new(archive.vault(), archive.clone()))
        .with_priority(Priority::Person);
    for batch in jobs.chunks(BATCH) {
        recorded(bring(running, batch, &fetch).await)?;
        session.progress(Progress {
            stage: Stage::Writing,
            done: fetch.progress.done_bytes.load(Ordering::Relaxed),
            total: Some(total),
            about: None,
        });
    }
    Ok(())
}

/// What is not in the backup stays wanted, and comes from a device that has it; what this device has no room for ends it.
fn recorded(brought: Brought) -> Result<(), ControlError> {
    for (_, error) in brought.failed {
        if let WriteError::DiskFull = error {
            let text = "the disk is full; the same command goes on from here";
            return Err(ControlError::new(ErrorKind::DiskFull, text));
        }
        tracing::warn!(%error, "a content is not whole in the backup");
    }
    brought
        .unrecorded
        .map_or(Ok(()), |error| Err(commit_error(error)))
}
