//! A vault that is put together from a backup, for as long as it takes to read in it: its own database and contents, in a
//! folder of the data folder that goes with it. No device hears of it, and it writes no log.

use std::path::Path;
use std::sync::Arc;

use coffer_protocol::grants::{Membership, Opener};
use coffer_protocol::identity::SpaceId;
use coffer_protocol::keys::Keyring;
use coffer_protocol::log::Clock;
use coffer_protocol::recovery::Kit;
use coffer_protocol::replication::Message;
use tempfile::TempDir;

use super::super::recovering::read_kit;
use super::super::running::{blobs_error, commit_error};
use super::super::{Node, founding_error, random, store_error};
use super::{Left, archive_error, blocking};
use crate::backup::Archive;
use crate::blobs::{Blobs, FromShelf, Sources};
use crate::control::{ControlError, ErrorKind, Progress, RecoverWith, Stage};
use crate::store;
use crate::vault::founding::{self, DATABASE, Recovered};
use crate::vault::identity::Identity;
use crate::vault::{Core, VaultHandle, VaultThread, wall_ms};

/// Where such vaults lie in the data folder.
const FOLDER: &str = "scratch";
/// Bytes of entries in one transaction.
const ENTRY_BYTES: usize = 4 << 20;

/// With what a backup is opened.
pub(super) enum Keys {
    /// Those that this device has of the same vault.
    Own(Arc<Keyring>),
    /// The recovery kit.
    Kit(Box<Kit>),
}

impl Keys {
    /// The keys that there are for a backup; `None` where there are none.
    pub async fn find(
        node: &Node,
        archive: &Archive,
        with: Option<&RecoverWith>,
    ) -> Result<Option<Keys>, ControlError> {
        if let Some(with) = with {
            let kit = read_kit(with)?;
            return match kit.vault == archive.vault() {
                true => Ok(Some(Keys::Kit(Box::new(kit)))),
                false => Err(ControlError::refused(
                    "this recovery kit is of another vault than the backup",
                )
                .with_code("not-these-words")),
            };
        }
        let running = match node.vault().await {
            Ok(running) => running,
            Err(error) if error.kind == ErrorKind::NoVault => return Ok(None),
            Err(error) => return Err(error),
        };
        let look = running
            .vault
            .inspect(|core| (core.state().vault, core.state().keyring.clone()));
        let (vault, keyring) = look.await.map_err(commit_error)?;
        Ok((vault == archive.vault()).then_some(Keys::Own(keyring)))
    }

    /// The keys of the vault whose grants these are.
    fn keyring(&self, membership: &Membership) -> Result<Keyring, ControlError> {
        let kit = match self {
            Keys::Own(keyring) => return Ok((**keyring).clone()),
            Keys::Kit(kit) => kit,
        };
        check_words(kit, membership)?;
        membership
            .keyring(SpaceId::HOME, Opener::Recovery(&kit.key))
            .map_err(|error| damaged(&error.to_string()))
    }
}

/// Refuses words that are not those of the backup.
pub(super) fn check_words(kit: &Kit, membership: &Membership) -> Result<(), ControlError> {
    if membership.recovery() == Some(&kit.key.public()) {
        return Ok(());
    }
    let text =
        "these words do not open the backup: they are of another vault, or newer or older than it";
    Err(ControlError::refused(text).with_code("not-these-words"))
}

/// Who is in the vault, as a backup says.
pub(super) fn membership(archive: &Archive) -> Result<Membership, ControlError> {
    let grants = archive.grants().map_err(archive_error)?;
    Membership::from_bytes(archive.vault(), &grants).map_err(|error| damaged(&error.to_string()))
}

pub(super) fn damaged(why: &str) -> ControlError {
    ControlError::new(
        ErrorKind::Damaged,
        format!("the backup cannot be read: {why}"),
    )
    .with_code("damaged-backup")
}

/// Takes all entries of a backup up to `upto` into a vault, over and over, for some count only once others are there.
pub(super) fn take_all(
    core: &mut Core,
    archive: &Archive,
    upto: &Clock,
    left: &Left,
    report: &impl Fn(Progress),
) -> Result<(), ControlError> {
    let total = upto.iter().map(|(_, seq, _)| seq).sum();
    loop {
        let before = core.state().clock.clone();
        for range in upto.ahead_of(&before) {
            let mut next = range.from;
            while next <= range.to {
                left.check()?;
                let entries = archive
                    .entries(range.writer, (next, range.to), ENTRY_BYTES)
                    .map_err(archive_error)?;
                if !entries.is_empty() {
                    core.take_in(entries, wall_ms()).map_err(store_error)?;
                } else if let Some(Message::Range {
                    range: whole,
                    attestations,
                }) = archive
                    .range_over(range.writer, next)
                    .map_err(archive_error)?
                {
                    core.take_in_range(whole, attestations, wall_ms())
                        .map_err(store_error)?;
                } else {
                    break;
                }
                let got = core.state().clock.seq(&range.writer) + 1;
                if got == next {
                    break;
                }
                next = got;
                report(Progress {
                    stage: Stage::Receiving,
                    done: core.state().clock.iter().map(|(_, seq, _)| seq).sum(),
                    total: Some(total),
                    about: None,
                });
            }
        }
        if core.state().clock == before || upto.ahead_of(&core.state().clock).is_empty() {
            return Ok(());
        }
    }
}

/// Such a vault.
pub(super) struct Scratch {
    /// Its documents.
    pub vault: VaultHandle,
    /// Its bytes, none of which it has itself.
    pub blobs: Blobs,
    /// The backup, as where they are.
    pub sources: Arc<dyn Sources>,
    /// How far each log could be read.
    pub clock: Clock,
    thread: VaultThread,
    _dir: TempDir,
}

impl Scratch {
    /// Puts one together, as of `upto`.
    pub async fn open(
        node: &Node,
        archive: &Arc<Archive>,
        keys: Keys,
        upto: Clock,
        left: Left,
        report: impl Fn(Progress) + Send + 'static,
    ) -> Result<Scratch, ControlError> {
        let dir = folder(node.data_dir())?;
        let (path, from) = (dir.path().join(DATABASE), archive.clone());
        let (core, keyring) = blocking(move || {
            let membership = membership(&from)?;
            let keyring = keys.keyring(&membership)?;
            let database = store::open(&path).map_err(store_error)?;
            let recovered = Recovered {
                at_ms: 0,
                source: None,
                addresses: Vec::new(),
            };
            let identity = Identity::generate(&mut random());
            founding::recover(
                &database,
                &identity,
                (&membership, &keyring),
                "backup",
                &[],
                &recovered,
                &mut random(),
            )
            .map_err(founding_error)?;
            let mut core =
                founding::open(database, identity, &[], Box::new(random())).map_err(store_error)?;
            take_all(&mut core, &from, &upto, &left, &report)?;
            Ok((core, keyring))
        })
        .await?;
        let clock = core.state().clock.clone();
        let database = core.database().clone();
        let contents = dir.path().join("blobs");
        let blobs = Blobs::open(&contents, archive.vault(), database, Arc::new(keyring));
        let blobs = blobs.await.map_err(blobs_error)?;
        let (vault, thread) =
            VaultHandle::start(core).map_err(|error| ControlError::io("start a thread", &error))?;
        Ok(Scratch {
            vault,
            blobs,
            sources: FromShelf::new(archive.vault(), archive.clone()),
            clock,
            thread,
            _dir: dir,
        })
    }

    /// Ends it; its folder goes.
    pub async fn close(self) {
        self.vault.stop().await;
        self.thread.join().await;
        if let Err(error) = self.blobs.shutdown().await {
            tracing::debug!(%error, "the contents of a vault that is not needed any more");
        }
    }
}

/// A folder for one, after what an earlier end left there is gone.
fn folder(data_dir: &Path) -> Result<TempDir, ControlError> {
    let all = data_dir.join(FOLDER);
    let make = || -> std::io::Result<TempDir> {
        match std::fs::remove_dir_all(&all) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir(&all)?;
        tempfile::Builder::new().tempdir_in(&all)
    };
    make().map_err(|error| ControlError::io("make room to read the backup", &error))
}
