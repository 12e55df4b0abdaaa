//! What it costs to put a device out and to change the keys of ten spaces, with 2, 10 and 50 devices in the vault: time where
//! it is done, time where it is heard of, and the bytes that go to each device.
//!
//! `cargo bench -p coffer-protocol --bench revoking` prints the bytes first.

use std::hint::black_box;

use coffer_protocol::grants::{self, Cutoff, Membership, NewDevice, Opener, Role, SignedGrant};
use coffer_protocol::identity::{DeviceKey, Hash, SpaceId, WriterId};
use coffer_protocol::keys::{EpochKey, Keyring, SealingKey, SpaceSecret};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

/// Spaces whose keys change.
const SPACES: u8 = 10;
/// When all of it happens.
const NOW_MS: u64 = 1_780_000_000_000;

struct Vault {
    membership: Membership,
    keyrings: Vec<Keyring>,
    /// The owner who puts out, the member who hears of it, the device that is put out.
    devices: Vec<(DeviceKey, SealingKey)>,
}

fn device(n: u8) -> (DeviceKey, SealingKey) {
    (
        DeviceKey::from_secret([n + 1; 32]),
        SealingKey::from_seed([n + 101; 32]),
    )
}

/// A vault of so many devices, all of them owners, and [`SPACES`] spaces.
fn vault(devices: u8) -> Vault {
    let mut rng = ChaCha12Rng::seed_from_u64(u64::from(devices));
    let devices: Vec<_> = (0..devices).map(device).collect();
    let (key, sealing) = &devices[0];
    let founded = grants::found(key, sealing, "device 0", NOW_MS, &mut rng).expect("founded");
    let (mut membership, mut home) = (founded.membership, founded.keyring);
    for (number, (device, sealing)) in devices.iter().enumerate().skip(1) {
        let new = NewDevice {
            device: device.id(),
            sealing: &sealing.public(),
            role: Role::Owner,
            name: &format!("device {number}"),
        };
        let grant = membership.admit(key, &home, &new, NOW_MS, &mut rng);
        membership.insert(grant.expect("admitted")).expect("counts");
    }
    let (grant, fresh) = membership.rotate(key, &home, &mut rng).expect("rotated");
    membership.insert(grant).expect("counts");
    home.add(fresh);
    let mut keyrings = vec![home];
    for space in 1..SPACES {
        let secret = SpaceSecret::generate(&mut rng);
        let first = EpochKey::generate(&mut rng);
        let mut keyring = Keyring::new(SpaceId([space; 16]), secret, first);
        let (grant, fresh) = membership
            .rotate(key, &keyring, &mut rng)
            .expect("a space begins");
        membership.insert(grant).expect("counts");
        keyring.add(fresh);
        keyrings.push(keyring);
    }
    Vault {
        membership,
        keyrings,
        devices,
    }
}

/// Puts the last device out and changes all keys. Gives the grants, as they go to the others.
fn put_out(vault: &Vault, membership: &mut Membership, rng: &mut ChaCha12Rng) -> Vec<SignedGrant> {
    let (author, _) = &vault.devices[0];
    let (last, _) = &vault.devices[vault.devices.len() - 1];
    let cutoff = Cutoff {
        writer: WriterId {
            device: last.id(),
            incarnation: 1,
        },
        seq: 1000,
        header: Hash([7; 32]),
    };
    let revocation = membership.revoke(author, last.id(), vec![cutoff], &[], NOW_MS);
    let mut grants = vec![revocation.expect("revoked")];
    membership.insert(grants[0].clone()).expect("counts");
    for keyring in &vault.keyrings {
        let (grant, _) = membership.rotate(author, keyring, rng).expect("rotated");
        membership.insert(grant.clone()).expect("counts");
        grants.push(grant);
    }
    grants
}

/// Takes the grants in, and the keys of all spaces out of them.
fn hear(vault: &Vault, membership: &mut Membership, grants: &[SignedGrant]) -> usize {
    for grant in grants {
        membership.insert_bytes(grant.bytes()).expect("counts");
    }
    let hears = vault.devices.len().saturating_sub(2);
    let (key, sealing) = &vault.devices[hears];
    let opened = vault.keyrings.iter().map(|keyring| {
        let opener = Opener::Device(key.id(), sealing);
        let keyring = membership.keyring(keyring.space(), opener);
        keyring.expect("its keys").epochs().count()
    });
    opened.sum()
}

fn revoking(c: &mut Criterion) {
    let mut group = c.benchmark_group("revocation, and 10 new keys");
    group.sample_size(10);
    for devices in [2, 10, 50] {
        let vault = vault(devices);
        let mut rng = ChaCha12Rng::seed_from_u64(9);
        let grants = put_out(&vault, &mut vault.membership.clone(), &mut rng);
        let bytes: usize = grants.iter().map(|grant| grant.bytes().len()).sum();
        println!("{devices} devices, {SPACES} spaces: {bytes} bytes to each device");
        let size = BatchSize::LargeInput;
        group.bench_function(BenchmarkId::new("done", devices), |b| {
            let membership = || vault.membership.clone();
            b.iter_batched(
                membership,
                |mut membership| black_box(put_out(&vault, &mut membership, &mut rng)),
                size,
            );
        });
        group.bench_function(BenchmarkId::new("heard of", devices), |b| {
            let membership = || vault.membership.clone();
            b.iter_batched(
                membership,
                |mut membership| black_box(hear(&vault, &mut membership, &grants)),
                size,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, revoking);
criterion_main!(benches);
