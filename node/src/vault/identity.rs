//! The device's own keys at rest: `<data>/identity`, mode 0600.
//!
//! Plain, version 1: the 8 bytes `coffer-i`, the version, device secret (32 bytes), sealing seed (32 bytes), BLAKE3 of all
//! that (32 bytes). Sealed, version 2: see [`super::locked`]. The file is never changed in place: another takes its place
//! whole, and what it replaces is written over.
//!
//! The binding says on which machine and in which file the incarnation of this data folder was opened: a copied folder has
//! another, and writes under a new incarnation (DESIGN: no forks from backups). Whoever replaces the file says so to the
//! vault's database first ([`super::founding::expect_binding`]).

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coffer_protocol::identity::DeviceKey;
use coffer_protocol::keys::SealingKey;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::locked::Locked;
use crate::store::StoreError;

/// How every identity file begins.
pub(super) const MAGIC: &[u8; 8] = b"coffer-i";
/// Keys as they are.
const PLAIN: u8 = 1;
/// Keys that are sealed.
pub(super) const LOCKED: u8 = 2;
/// Bytes of a plain file.
const PLAIN_LEN: usize = 8 + 1 + 32 + 32 + CHECK_LEN;
/// Bytes of the checksum at the end.
pub(super) const CHECK_LEN: usize = 32;
/// Longest file that is read: no kind is half as long.
const MAX_LEN: u64 = 1024;

/// The keys of this device.
#[derive(Clone)]
pub struct Identity {
    /// Signs entries and grants; its public half is the device's id and libp2p identity.
    pub key: DeviceKey,
    /// Opens what others seal to this device.
    pub sealing: SealingKey,
}

/// What a data folder has of its device's keys.
pub enum Stored {
    /// The keys.
    Open(Identity),
    /// The keys, sealed.
    Locked(Locked),
}

impl Identity {
    /// Fresh keys.
    pub fn generate(rng: &mut impl CryptoRng) -> Identity {
        let (mut device, mut sealing) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        rng.fill_bytes(&mut device[..]);
        rng.fill_bytes(&mut sealing[..]);
        Identity {
            key: DeviceKey::from_secret(*device),
            sealing: SealingKey::from_seed(*sealing),
        }
    }

    /// Reads keys that are not sealed, or `None` where there are none yet.
    ///
    /// # Errors
    /// As [`read`], and [`StoreError::Damaged`] where they are sealed: only a device's can be, not a relay host's.
    pub fn load(data_dir: &Path) -> Result<Option<Identity>, StoreError> {
        match read(data_dir)? {
            None => Ok(None),
            Some(Stored::Open(identity)) => Ok(Some(identity)),
            Some(Stored::Locked(_)) => Err(StoreError::Damaged(
                "the file \"identity\" is of a device with a passphrase".into(),
            )),
        }
    }

    /// Writes the keys as they are, durably and whole or not at all.
    pub fn save(&self, data_dir: &Path) -> Result<(), StoreError> {
        let replacing = Replacing::write(data_dir, &self.to_bytes())?;
        replacing.finish()
    }

    /// The bytes of a plain file.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(PLAIN_LEN));
        bytes.extend_from_slice(MAGIC);
        bytes.push(PLAIN);
        bytes.extend_from_slice(&self.key.secret_bytes()[..]);
        bytes.extend_from_slice(self.sealing.seed_bytes());
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        bytes
    }
}

/// Reads what is in `data_dir`, or `None` where there are no keys yet.
///
/// # Errors
/// [`StoreError::Damaged`] and [`StoreError::Newer`], or that the file cannot be read.
pub fn read(data_dir: &Path) -> Result<Option<Stored>, StoreError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN as usize));
    let read =
        File::open(path(data_dir)).and_then(|file| file.take(MAX_LEN).read_to_end(&mut bytes));
    match read {
        Ok(_) => parse(&bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::from_io(error)),
    }
}

/// Reads the bytes of an identity file.
fn parse(bytes: &[u8]) -> Result<Stored, StoreError> {
    if bytes.get(..8) != Some(&MAGIC[..]) {
        return Err(StoreError::Damaged(
            "the file \"identity\" is not one of coffer's".into(),
        ));
    }
    let altered = || StoreError::Damaged("the file \"identity\" is cut short or altered".into());
    let version = *bytes.get(8).ok_or_else(altered)?;
    if version > LOCKED {
        return Err(StoreError::Newer {
            found: u32::from(version),
            known: u32::from(LOCKED),
        });
    }
    let body = bytes.len().checked_sub(CHECK_LEN).ok_or_else(altered)?;
    let (said, check) = bytes.split_at(body);
    if blake3::hash(said).as_bytes()[..] != *check {
        return Err(altered());
    }
    match version {
        PLAIN if bytes.len() == PLAIN_LEN => {
            let mut halves = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
            halves[0].copy_from_slice(&bytes[9..41]);
            halves[1].copy_from_slice(&bytes[41..73]);
            Ok(Stored::Open(Identity {
                key: DeviceKey::from_secret(*halves[0]),
                sealing: SealingKey::from_seed(*halves[1]),
            }))
        }
        LOCKED => Locked::parse(said).map(Stored::Locked),
        _ => Err(altered()),
    }
}

pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("identity")
}

fn temporary(data_dir: &Path) -> PathBuf {
    data_dir.join("identity.new")
}

/// An identity file that is durably written beside the one in use, and not in use yet.
pub struct Replacing<'a> {
    data_dir: &'a Path,
    file: File,
}

impl<'a> Replacing<'a> {
    /// Writes it.
    pub fn write(data_dir: &'a Path, bytes: &[u8]) -> Result<Replacing<'a>, StoreError> {
        remove_unfinished(data_dir);
        let write = || -> std::io::Result<File> {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(temporary(data_dir))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|error| {
            remove_unfinished(data_dir);
            StoreError::from_io(error)
        })?;
        Ok(Replacing { data_dir, file })
    }

    /// The [`binding`] of the data folder once it is in use.
    pub fn binding(&self) -> Result<Vec<u8>, StoreError> {
        let about = self.file.metadata().map_err(StoreError::from_io)?;
        Ok(binding_of(about.ino()))
    }

    /// Takes it into use, durably, and writes over the one before, so that the keys in it, or those sealed under an earlier
    /// passphrase, do not stay on the disk where the file system writes in place.
    pub fn finish(self) -> Result<(), StoreError> {
        let before = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path(self.data_dir));
        let replace = || -> std::io::Result<()> {
            std::fs::rename(temporary(self.data_dir), path(self.data_dir))?;
            File::open(self.data_dir)?.sync_all()
        };
        replace().map_err(StoreError::from_io)?;
        if let Ok(before) = before {
            wipe(before);
        }
        Ok(())
    }
}

/// Takes away what a replacement left that was not finished: it may hold keys as they are.
pub fn remove_unfinished(data_dir: &Path) {
    let place = temporary(data_dir);
    let Ok(file) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&place)
    else {
        return;
    };
    if std::fs::remove_file(&place).is_ok() {
        wipe(file);
    }
}

/// Takes the keys away for good: no file of them stays, and where the file system writes in place no bytes either.
pub fn destroy(data_dir: &Path) -> std::io::Result<()> {
    remove_unfinished(data_dir);
    let place = path(data_dir);
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&place);
    match std::fs::remove_file(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Ok(file) = opened {
        wipe(file);
    }
    File::open(data_dir)?.sync_all()
}

/// Writes zeros over a file that has no name any more. Whoever made a second name for it keeps it as it is.
fn wipe(mut file: File) {
    let mut wiped = || -> std::io::Result<()> {
        let about = file.metadata()?;
        if about.nlink() > 0 {
            return Ok(());
        }
        let zeros = vec![0; about.len().min(MAX_LEN) as usize];
        file.rewind()?;
        file.write_all(&zeros)?;
        file.sync_all()
    };
    if let Err(error) = wiped() {
        tracing::debug!(%error, "the keys' former place on the disk was not written over");
    }
}

/// What binds an incarnation to its place: the machine's id, and the inode of the identity file.
pub fn binding(data_dir: &Path) -> Vec<u8> {
    // Device numbers change between boots; the inode does not.
    let inode = std::fs::metadata(path(data_dir)).map_or(0, |about| about.ino());
    binding_of(inode)
}

fn binding_of(inode: u64) -> Vec<u8> {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    blake3::Hasher::new_derive_key("coffer 2026-11 data folder binding")
        .update(&machine)
        .update(&inode.to_be_bytes())
        .finalize()
        .as_bytes()
        .to_vec()
}
