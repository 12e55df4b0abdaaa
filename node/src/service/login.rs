//! The system's password store: what a desktop opens when its user logs in (GNOME Keyring, KWallet, KeePassXC, by the
//! Secret Service of freedesktop.org over D-Bus). It keeps 32 random bytes for this device; its keys are sealed under them.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use dbus_secret_service::{EncryptionType, Error, Item, SecretService};
use rand::Rng;
use zeroize::Zeroizing;

use super::random;
use crate::control::{ControlError, ErrorKind};

/// What a start waits for an answer: longer, and the device starts locked.
pub const AT_START: Duration = Duration::from_secs(10);
/// What a command waits for an answer: a person may have to open the password store first.
pub const FOR_PERSON: Duration = Duration::from_secs(120);
/// The kind of what is kept, as the store wants to know.
const CONTENT_TYPE: &str = "application/octet-stream";
/// The names of the attributes by which it is found.
const APPLICATION: (&str, &str) = ("application", "coffer");
const DEVICE: &str = "device";

/// A name in the store.
pub type Id = [u8; 16];

/// Has a new secret kept. Gives its name, and it.
pub async fn keep(data_dir: &Path) -> Result<(Id, Zeroizing<[u8; 32]>), ControlError> {
    let (mut id, mut secret) = ([0; 16], Zeroizing::new([0; 32]));
    let mut rng = random();
    rng.fill_bytes(&mut id);
    rng.fill_bytes(&mut secret[..]);
    let label = format!("coffer: {}", data_dir.display());
    let kept = secret.clone();
    within(FOR_PERSON, move || {
        let store = connect(FOR_PERSON)?;
        let collection = match store.get_default_collection() {
            // A store that was never used has none.
            Err(Error::NoResult) => store.get_any_collection()?,
            other => other?,
        };
        if collection.is_locked()? {
            collection.unlock()?;
        }
        let name = hex::encode(id);
        collection.create_item(&label, attributes(&name), &kept[..], true, CONTENT_TYPE)?;
        Ok(())
    })
    .await?;
    // What cannot be had back must not seal anything.
    let kept = find(&id, FOR_PERSON).await?;
    if *kept != *secret {
        return Err(failed("it gave back something else"));
    }
    Ok((id, secret))
}

/// The secret of this name.
pub async fn find(id: &Id, wait: Duration) -> Result<Zeroizing<[u8; 32]>, ControlError> {
    let id = *id;
    let bytes = within(wait, move || {
        let store = connect(wait)?;
        Ok(Zeroizing::new(item(&store, &id)?.get_secret()?))
    })
    .await?;
    let mut secret = Zeroizing::new([0; 32]);
    if bytes.len() != secret.len() {
        return Err(failed(
            "what it keeps for this device is not what was put there",
        ));
    }
    secret.copy_from_slice(&bytes);
    Ok(secret)
}

/// Takes a secret out of the store.
pub async fn forget(id: &Id) -> Result<(), ControlError> {
    let id = *id;
    within(FOR_PERSON, move || {
        let store = connect(FOR_PERSON)?;
        item(&store, &id)?.delete()
    })
    .await
}

/// A session that is not encrypted: what goes over the socket of the user's own D-Bus nobody sees who could not ask the
/// store for it as well.
fn connect(wait: Duration) -> Result<SecretService, Error> {
    SecretService::connect_with_max_prompt_timeout(EncryptionType::Plain, wait.as_secs())
}

/// The item of this name, unlocked.
fn item<'a>(store: &'a SecretService, id: &Id) -> Result<Item<'a>, Error> {
    let name = hex::encode(id);
    let mut found = store.search_items(attributes(&name))?;
    if let Some(item) = found.unlocked.pop() {
        return Ok(item);
    }
    let item = found.locked.pop().ok_or(Error::NoResult)?;
    item.unlock()?;
    Ok(item)
}

fn attributes(name: &str) -> HashMap<&str, &str> {
    HashMap::from([APPLICATION, (DEVICE, name)])
}

/// Talks to the store on a thread of its own: it waits for a person.
async fn within<T: Send + 'static>(
    wait: Duration,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, ControlError> {
    match tokio::time::timeout(wait, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(Ok(done))) => Ok(done),
        Ok(Ok(Err(error))) => Err(failed(&match error {
            Error::Unavailable => "there is none in this session".into(),
            Error::NoResult => "it has nothing for this device".into(),
            Error::Locked => "it is locked".into(),
            Error::Prompt => "it was not opened".to_owned(),
            other => other.to_string(),
        })),
        Ok(Err(error)) => Err(ControlError::internal(error.to_string())),
        Err(_) => Err(failed("it does not answer")),
    }
}

fn failed(why: &str) -> ControlError {
    let message = format!("the system's password store cannot be used: {why}");
    ControlError::new(ErrorKind::Unavailable, message).with_code("no-password-store")
}
