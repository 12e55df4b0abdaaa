//! How a data folder comes to hold a vault, and how it is opened again.
//!
//! A vault begins in one transaction, after the device's keys are durable: a crash in between leaves keys without a
//! vault, and the next start goes on from there. Opening compares the binding: a data folder that was copied to
//! another place, or restored there, writes under a new incarnation from its first write on.

use std::sync::Arc;

use coffer_protocol::grants::{self, GrantError, Membership, Opener, SignedGrant};
use coffer_protocol::identity::{DeviceId, Hash, SpaceId, VaultId};
use coffer_protocol::keys::Keyring;
use coffer_protocol::pairing::Welcome;
use rand::CryptoRng;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use zeroize::Zeroizing;

use super::core::Core;
use super::identity::Identity;
use crate::store::{StoreError, pieces, records, tables};

/// Name of the database in a data folder.
pub const DATABASE: &str = "vault.redb";

/// Why a vault could not be begun or joined.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the inviting device sent does not make a vault with this device in it.
    #[error("the other device's answer cannot be used: {0}")]
    Grants(#[from] GrantError),
    /// The data folder belongs to a vault already.
    #[error("this data folder belongs to a vault already")]
    Exists,
}

/// The vault that a database holds, if it holds one.
pub fn vault_of(database: &Database) -> Result<Option<VaultId>, StoreError> {
    let read = database.begin_read()?;
    let id = records::get(&read.open_table(tables::META)?, tables::meta::VAULT)?;
    Ok(id.and_then(|bytes| bytes.try_into().ok()).map(VaultId))
}

/// Begins a vault with this device in it, called `name`.
pub fn found(
    database: &Database,
    identity: &Identity,
    name: &str,
    binding: &[u8],
    now_ms: u64,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<VaultId, FoundingError> {
    let founded = grants::found(&identity.key, &identity.sealing, name, now_ms, rng)?;
    let vault = founded.membership.vault();
    let recovery = founded.recovery.seal_at_rest(&identity.key, &vault, rng);
    begin(
        database,
        identity,
        (&founded.membership, &founded.keyring),
        name,
        binding,
        Begins::Founded(&recovery),
        rng,
    )?;
    Ok(vault)
}

/// Begins with what an inviting device's welcome brought: the grants are checked from the vault's id alone.
pub fn join(
    database: &Database,
    identity: &Identity,
    vault: VaultId,
    welcome: &Welcome,
    name: &str,
    binding: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(), FoundingError> {
    let membership = Membership::from_bytes(vault, &welcome.grants)?;
    let keyring = membership.keyring(
        SpaceId::HOME,
        Opener::Device(identity.key.id(), &identity.sealing),
    )?;
    begin(
        database,
        identity,
        (&membership, &keyring),
        name,
        binding,
        Begins::Joined,
        rng,
    )
}

/// How a vault was got back.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The device or host that alone showed it; none if several did.
    pub source: Option<DeviceId>,
    /// Where devices and hosts of the vault are.
    pub addresses: Vec<(DeviceId, Vec<String>)>,
}

/// Begins with what somebody with the recovery key got back, this device admitted.
pub fn recover(
    database: &Database,
    identity: &Identity,
    (membership, keyring): (&Membership, &Keyring),
    name: &str,
    binding: &[u8],
    recovered: &Recovered,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(), FoundingError> {
    begin(
        database,
        identity,
        (membership, keyring),
        name,
        binding,
        Begins::Recovered(recovered),
        rng,
    )
}

/// What is written beside what every vault begins with.
enum Begins<'a> {
    /// The recovery key, sealed.
    Founded(&'a [u8]),
    Joined,
    Recovered(&'a Recovered),
}

impl Begins<'_> {
    fn write(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let mut meta = transaction.open_table(tables::META)?;
        match self {
            Begins::Founded(recovery) => {
                meta.insert(tables::meta::RECOVERY, *recovery)?;
            }
            Begins::Joined => {}
            Begins::Recovered(recovered) => {
                if let Some(source) = recovered.source {
                    let value = [&recovered.at_ms.to_be_bytes()[..], &source.0].concat();
                    meta.insert(tables::meta::RECOVERED, &value[..])?;
                }
                let mut addresses = transaction.open_table(tables::ADDRESSES)?;
                for (device, texts) in &recovered.addresses {
                    let bytes = postcard::to_stdvec(texts).map_err(|_| {
                        StoreError::Damaged("addresses could not be encoded".into())
                    })?;
                    addresses.insert(&device.0, &bytes[..])?;
                }
            }
        }
        Ok(())
    }
}

fn begin(
    database: &Database,
    identity: &Identity,
    (membership, keyring): (&Membership, &Keyring),
    name: &str,
    binding: &[u8],
    begins: Begins<'_>,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(), FoundingError> {
    if vault_of(database)?.is_some() {
        return Err(FoundingError::Exists);
    }
    let mut transaction = database.begin_write().map_err(StoreError::from)?;
    transaction.set_quick_repair(true);
    let mut write = |transaction: &WriteTransaction| -> Result<(), StoreError> {
        let mut meta = transaction.open_table(tables::META)?;
        let vault = membership.vault();
        meta.insert(tables::meta::VAULT, &vault.0[..])?;
        let sealed = keyring.seal_at_rest(&identity.key, &vault);
        meta.insert(tables::meta::KEYRING, &sealed[..])?;
        meta.insert(
            tables::meta::INCARNATION,
            &new_incarnation(rng).to_be_bytes()[..],
        )?;
        meta.insert(tables::meta::BINDING, binding)?;
        meta.insert(tables::meta::DEVICE_NAME, name.as_bytes())?;
        drop(meta);
        begins.write(transaction)?;
        let mut table = transaction.open_table(tables::GRANTS)?;
        for (id, grant) in membership.grants() {
            store_grant(&mut table, id, grant)?;
        }
        Ok(())
    };
    write(&transaction)?;
    transaction.commit().map_err(StoreError::from)?;
    Ok(())
}

/// Opens the vault in `database`. `binding` tells where the data folder is: see [`super::identity::binding`].
pub fn open(
    database: Arc<Database>,
    identity: Identity,
    binding: &[u8],
    mut rng: Box<dyn CryptoRng + Send>,
) -> Result<Core, StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let place;
    let mut changed;
    let label;
    {
        let mut meta = transaction.open_table(tables::META)?;
        let name = records::get(&meta, tables::meta::DEVICE_NAME)?.unwrap_or_default();
        label = String::from_utf8_lossy(&name).into_owned();
        place = Place::of(&meta, binding)?;
        changed = meta.remove(tables::meta::NEXT_BINDING)?.is_some();
        if place != Place::Same {
            meta.insert(tables::meta::BINDING, binding)?;
            changed = true;
        }
        if place == Place::Other {
            meta.insert(
                tables::meta::INCARNATION,
                &new_incarnation(&mut *rng).to_be_bytes()[..],
            )?;
        }
        changed |= seal_keyring(&mut meta, &identity)?;
    }
    if place == Place::Other {
        tracing::warn!(
            "this data folder was moved or copied: from now on it writes a log of its own"
        );
    }
    if changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Core::open(database, identity, label, rng)
}

/// Seals the keys of a vault that were stored as they are. Says whether there were any.
fn seal_keyring(
    meta: &mut redb::Table<'_, &'static str, &'static [u8]>,
    identity: &Identity,
) -> Result<bool, StoreError> {
    let Some(plain) = records::get(meta, tables::meta::KEYRING_1)?.map(Zeroizing::new) else {
        return Ok(false);
    };
    let damaged = |what: &str| StoreError::Damaged(what.into());
    let keyring =
        Keyring::from_bytes(&plain).map_err(|_| damaged("the vault's keys cannot be read"))?;
    let vault = records::get(meta, tables::meta::VAULT)?
        .and_then(|bytes| bytes.try_into().ok())
        .map(VaultId)
        .ok_or_else(|| damaged("the vault's id is missing"))?;
    let sealed = keyring.seal_at_rest(&identity.key, &vault);
    meta.insert(tables::meta::KEYRING, &sealed[..])?;
    meta.remove(tables::meta::KEYRING_1)?;
    Ok(true)
}

/// Where a data folder is, compared with where its vault was last opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Same,
    /// The same, with another identity file, which was announced before it took its place.
    Replaced,
    /// Another place, or another machine.
    Other,
}

impl Place {
    fn of(
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
        binding: &[u8],
    ) -> Result<Place, StoreError> {
        let is = |name| -> Result<bool, StoreError> {
            Ok(records::get(meta, name)?.as_deref() == Some(binding))
        };
        Ok(if is(tables::meta::BINDING)? {
            Place::Same
        } else if is(tables::meta::NEXT_BINDING)? {
            Place::Replaced
        } else {
            Place::Other
        })
    }
}

/// Whether a data folder is in another place, or on another machine, than when its vault was last opened.
pub fn was_moved(database: &Database, binding: &[u8]) -> Result<bool, StoreError> {
    let read = database.begin_read()?;
    let place = Place::of(&read.open_table(tables::META)?, binding)?;
    Ok(place == Place::Other)
}

/// Notes, before an identity file replaces the present one, what the binding will be then: whichever of the two a crash
/// leaves, the data folder is known to be where it was.
pub fn expect_binding(database: &Database, next: &[u8]) -> Result<(), StoreError> {
    change_meta(database, |meta| {
        meta.insert(tables::meta::NEXT_BINDING, next)?;
        Ok(())
    })
}

/// Notes which identity file it came to be.
pub fn settle_binding(database: &Database, binding: &[u8]) -> Result<(), StoreError> {
    change_meta(database, |meta| {
        meta.insert(tables::meta::BINDING, binding)?;
        meta.remove(tables::meta::NEXT_BINDING)?;
        Ok(())
    })
}

fn change_meta(
    database: &Database,
    change: impl FnOnce(&mut redb::Table<'_, &'static str, &'static [u8]>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    change(&mut transaction.open_table(tables::META)?)?;
    Ok(transaction.commit()?)
}

/// A number that two copies of one data folder will not both choose.
pub(super) fn new_incarnation(rng: &mut (impl CryptoRng + ?Sized)) -> u32 {
    rng.next_u32().max(1)
}

/// Writes one accepted grant.
pub(super) fn store_grant(
    table: &mut redb::Table<'_, &'static [u8; 34], &'static [u8]>,
    id: Hash,
    grant: &SignedGrant,
) -> Result<(), StoreError> {
    let mut key = [0; 34];
    key[..32].copy_from_slice(&id.0);
    Ok(pieces::write(table, &key, grant.bytes())?)
}

/// The recovery words' sealed form, until a person has confirmed them.
pub fn recovery_at_rest(database: &Database) -> Result<Option<Vec<u8>>, StoreError> {
    records::get(
        &database.begin_read()?.open_table(tables::META)?,
        tables::meta::RECOVERY,
    )
}

/// Notes that the node runs, or that it stopped cleanly; says whether it had been running before.
pub fn mark_running(database: &Database, running: bool) -> Result<bool, StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let before;
    {
        let mut meta = transaction.open_table(tables::META)?;
        before = meta.get(tables::meta::RUNNING)?.is_some();
        if running {
            meta.insert(tables::meta::RUNNING, &[1][..])?;
        } else {
            meta.remove(tables::meta::RUNNING)?;
        }
    }
    transaction.commit()?;
    Ok(before)
}

/// Where devices were last reached.
pub fn addresses(database: &Database) -> Result<Vec<(DeviceId, Vec<String>)>, StoreError> {
    let table = database.begin_read()?.open_table(tables::ADDRESSES)?;
    let mut found = Vec::new();
    for item in table.iter()? {
        let (device, list) = item?;
        found.push((
            DeviceId(*device.value()),
            postcard::from_bytes(list.value()).unwrap_or_default(),
        ));
    }
    Ok(found)
}
