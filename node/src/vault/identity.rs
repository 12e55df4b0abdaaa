//! The device's own keys at rest: `<data>/identity`, mode 0600, written once.
//!
//! Layout: the 8 bytes `coffer-i`, version (1), device secret (32 bytes), sealing seed (32 bytes), BLAKE3 of all that
//! (32 bytes). The binding says on which machine and in which file the incarnation of this data folder was opened: a
//! copied folder has another, and writes under a new incarnation (DESIGN: no forks from backups).

use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use coffer_protocol::identity::DeviceKey;
use coffer_protocol::keys::SealingKey;
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::store::StoreError;

const MAGIC: &[u8; 8] = b"coffer-i";
const VERSION: u8 = 1;
const LEN: usize = 8 + 1 + 32 + 32 + 32;

/// The keys of this device.
#[derive(Clone)]
pub struct Identity {
    /// Signs entries and grants; its public half is the device's id and libp2p identity.
    pub key: DeviceKey,
    /// Opens what others seal to this device.
    pub sealing: SealingKey,
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

    /// Reads the keys in `data_dir`, or `None` where there are none yet.
    pub fn load(data_dir: &Path) -> Result<Option<Identity>, StoreError> {
        let bytes = match std::fs::read(data_dir.join("identity")) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::from_io(error)),
        };
        if bytes.get(..8) != Some(&MAGIC[..]) {
            return Err(StoreError::Damaged(
                "the file \"identity\" is not one of coffer's".into(),
            ));
        }
        if bytes.get(8).is_some_and(|version| *version > VERSION) {
            return Err(StoreError::Newer {
                found: u32::from(bytes[8]),
                known: u32::from(VERSION),
            });
        }
        if bytes.len() != LEN
            || blake3::hash(&bytes[..LEN - 32]).as_bytes()[..] != bytes[LEN - 32..]
        {
            return Err(StoreError::Damaged(
                "the file \"identity\" is cut short or altered".into(),
            ));
        }
        let mut halves = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
        halves[0].copy_from_slice(&bytes[9..41]);
        halves[1].copy_from_slice(&bytes[41..73]);
        Ok(Some(Identity {
            key: DeviceKey::from_secret(*halves[0]),
            sealing: SealingKey::from_seed(*halves[1]),
        }))
    }

    /// Writes the keys, durably and whole or not at all.
    pub fn save(&self, data_dir: &Path) -> Result<(), StoreError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LEN));
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.key.secret_bytes()[..]);
        bytes.extend_from_slice(self.sealing.seed_bytes());
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        let write = || -> std::io::Result<()> {
            let temporary = data_dir.join("identity.new");
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, data_dir.join("identity"))?;
            std::fs::File::open(data_dir)?.sync_all()
        };
        write().map_err(StoreError::from_io)
    }
}

/// What binds an incarnation to its place: the machine's id, and device and inode of the identity file.
pub fn binding(data_dir: &Path) -> Vec<u8> {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let (device, inode) = std::fs::metadata(data_dir.join("identity"))
        .map(|m| (m.dev(), m.ino()))
        .unwrap_or_default();
    let _ = device; // device numbers change between boots; the inode does not
    blake3::Hasher::new_derive_key("coffer 2026-11 data folder binding")
        .update(&machine)
        .update(&inode.to_be_bytes())
        .finalize()
        .as_bytes()
        .to_vec()
}
