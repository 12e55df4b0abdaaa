//! Relay hosts: invitations, joining, messages, statements, rules.

mod bytes;
mod faults;
mod joining;
mod rules;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::grants::{self, Founded, NewDevice, Role};
use crate::identity::{DeviceKey, Hash, StoreId, VaultId, WriterId};
use crate::keys::{SealingKey, SealingPublic};
use crate::log::Clock;
use crate::version;

const VAULT: VaultId = VaultId([7; 32]);
const STORE: StoreId = StoreId([8; 16]);

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_secret([n; 32])
}

fn host_key() -> DeviceKey {
    key(9)
}

fn sealing(n: u8) -> SealingPublic {
    SealingKey::of_device(&key(n)).public()
}

fn clock(entries: &[(u8, u64)]) -> Clock {
    entries
        .iter()
        .map(|(device, seq)| {
            let writer = WriterId {
                device: key(*device).id(),
                incarnation: 0,
            };
            (writer, (*seq, Hash([*seq as u8; 32])))
        })
        .collect()
}

fn state(counter: u64, entries: Clock) -> HostState {
    HostState {
        version: version::HOST_STATEMENT,
        vault: VAULT,
        host: host_key().id(),
        store: STORE,
        counter,
        at_ms: 1_764_000_000_000 + counter,
        entries,
        entry_bytes: 300,
        blobs: 2,
        blob_bytes: 70_000,
        quota_bytes: 10 << 30,
    }
}

fn said(state: HostState) -> HostStatement {
    HostStatement::sign(state, &host_key()).unwrap()
}

fn invitation() -> HostInvitation {
    HostInvitation {
        host: host_key().id(),
        name: "attic".into(),
        addresses: vec!["/dns4/host.example/tcp/4242".into()],
        secret: std::array::from_fn(|i| 200 + i as u8),
        quota_bytes: 10 << 30,
        expires_ms: 1_793_000_000_000,
    }
}

fn order(store: StoreId) -> SignedOrder {
    let order = EraseOrder {
        version: version::ERASE_ORDER,
        vault: VAULT,
        host: host_key().id(),
        store,
        owner: key(1).id(),
        at_ms: 1_764_000_000_000,
    };
    SignedOrder::sign(order, &key(1)).unwrap()
}

fn receipt(order: &SignedOrder) -> SignedReceipt {
    let receipt = EraseReceipt {
        version: version::ERASE_RECEIPT,
        vault: VAULT,
        host: host_key().id(),
        order: order.id(),
        at_ms: 1_764_000_000_001,
        counter: 57,
        blobs: 2,
        bytes: 70_300,
    };
    SignedReceipt::sign(receipt, &host_key()).unwrap()
}

/// A vault whose owner is device 1, with device 2 as a member and, if asked for, the host.
fn vault(with_host: bool) -> Founded {
    let mut founded = grants::found(
        &key(1),
        &SealingKey::of_device(&key(1)),
        "laptop",
        1,
        &mut rng(1),
    )
    .unwrap();
    admit(&mut founded, 2, Role::Member);
    if with_host {
        admit(&mut founded, 9, Role::Relay);
    }
    founded
}

fn admit(founded: &mut Founded, device: u8, role: Role) {
    let new = NewDevice {
        device: key(device).id(),
        sealing: &sealing(device),
        role,
        name: "another",
    };
    let grant = founded
        .membership
        .admit(&key(1), &founded.keyring, &new, 2, &mut rng(2))
        .unwrap();
    founded.membership.insert(grant).unwrap();
}
