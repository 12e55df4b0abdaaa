//! A vault of two devices: its grants, and entries of the first device.

use std::sync::{Mutex, PoisonError};

use coffer_node::vault::identity::Identity;
use coffer_protocol::grants::{self, Membership, NewDevice, Role};
use coffer_protocol::identity::{DeviceId, DeviceKey, Hash, SpaceId, VaultId, WriterId};
use coffer_protocol::keys::{Keyring, SealingPublic};
use coffer_protocol::log::{Body, Clock, EntryParams, seal_entry};
use coffer_protocol::relay::HostInvitation;

use super::Failed;
use super::host::Host;

pub struct Vault {
    pub id: VaultId,
    pub membership: Membership,
    keys: [DeviceKey; 2],
    keyring: Keyring,
    /// Where the log of the first device ends.
    end: Mutex<(u64, Hash)>,
}

impl Vault {
    /// A new one that admits the host, and the invitation with which it may be bound.
    pub async fn invited(host: &Host) -> Result<(Vault, HostInvitation), Failed> {
        let invitation = host.invite().await?;
        let mut random = rand::rng();
        let [first, second] = [0; 2].map(|_| Identity::generate(&mut random));
        let founded = grants::found(&first.key, &first.sealing, "first", 1, &mut random)?;
        let (mut membership, keyring) = (founded.membership, founded.keyring);
        let mut admit = |device: DeviceId, sealing: &SealingPublic, role| {
            let new = NewDevice {
                device,
                sealing,
                role,
                name: "another",
            };
            let grant = membership.admit(&first.key, &keyring, &new, 2, &mut rand::rng())?;
            membership.insert(grant)
        };
        admit(second.key.id(), &second.sealing.public(), Role::Owner)?;
        admit(host.id, &second.sealing.public(), Role::Relay)?;
        let vault = Vault {
            id: membership.vault(),
            membership,
            keys: [first.key, second.key],
            keyring,
            end: Mutex::new((0, Hash::ZERO)),
        };
        Ok((vault, invitation))
    }

    pub fn key(&self, which: usize) -> &DeviceKey {
        &self.keys[which]
    }

    pub fn grants(&self) -> Vec<Vec<u8>> {
        let grants = self.membership.grants();
        grants.map(|(_, grant)| grant.bytes().to_vec()).collect()
    }

    fn writer(&self) -> WriterId {
        WriterId {
            device: self.keys[0].id(),
            incarnation: 1,
        }
    }

    /// What the first device's log holds.
    pub fn clock(&self) -> Clock {
        let (seq, header) = *self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clock = Clock::new();
        if seq > 0 {
            clock.observe(self.writer(), seq, header);
        }
        clock
    }

    /// The next entry of the first device.
    pub fn next_entry(&self) -> Result<Vec<u8>, Failed> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let params = EntryParams {
            vault: self.id,
            space: SpaceId::HOME,
            writer: self.writer(),
            seq: end.0 + 1,
            prev: end.1,
            grant_heads: &self.membership.heads(),
        };
        let body = Body {
            clock: Clock::new(),
            changes: Vec::new(),
        };
        let epoch = self.keyring.current();
        let entry = seal_entry(&self.keys[0], &params, &body, epoch, &mut rand::rng())?;
        *end = (end.0 + 1, entry.header_hash());
        Ok(entry.encode())
    }
}
