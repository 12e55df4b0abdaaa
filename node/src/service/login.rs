//! The system's password store: what a desktop opens when its user logs in (GNOME Keyring, KWallet, KeePassXC, by the
//! Secret Service of freedesktop.org over D-Bus). It keeps 32 random bytes for this device; its keys are sealed under them.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rand::Rng;
use secret_service::{EncryptionType, Error, Item, SecretService};
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
    within(FOR_PERSON, async {
        let store = connect().await?;
        let collection = match store.get_default_collection().await {
            Ok(collection) => collection,
            // A store that was never used has none.
            Err(Error::NoResult) => store.get_any_collection().await?,
            Err(error) => return Err(error),
        };
        if collection.is_locked().await? {
            collection.unlock().await?;
        }
        let name = hex::encode(id);
        collection
            .create_item(&label, attributes(&name), &secret[..], true, CONTENT_TYPE)
            .await?;
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
    let bytes = within(wait, async {
        let store = connect().await?;
        let item = item(&store, id).await?;
        Ok(Zeroizing::new(item.get_secret().await?))
    })
    .await?;
    let mut secret = Zeroizing::new([0; 32]);
    if bytes.len() != secret.len() {
        return Err(failed("what it keeps for this device is not what was put there"));
    }
    secret.copy_from_slice(&bytes);
    Ok(secret)
}

/// Takes a secret out of the store.
pub async fn forget(id: &Id) -> Result<(), ControlError> {
    within(FOR_PERSON, async {
        let store = connect().await?;
        item(&store, id).await?.delete().await
    })
    .await
}

async fn connect<'a>() -> Result<SecretService<'a>, Error> {
    SecretService::connect(EncryptionType::Dh).await
}

/// The item of this name, unlocked.
async fn item<'a>(store: &'a SecretService<'_>, id: &Id) -> Result<Item<'a>, Error> {
    let name = hex::encode(id);
    let mut found = store.search_items(attributes(&name)).await?;
    if let Some(item) = found.unlocked.pop() {
        return Ok(item);
    }
    let item = found.locked.pop().ok_or(Error::NoResult)?;
    item.unlock().await?;
    Ok(item)
}

fn attributes(name: &str) -> HashMap<&str, &str> {
    HashMap::from([APPLICATION, (DEVICE, name)])
}

async fn within<T>(
    wait: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, ControlError> {
    match tokio::time::timeout(wait, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(&match error {
            Error::Unavailable => "there is none in this session".into(),
            Error::NoResult => "it has nothing for this device".into(),
            Error::Locked => "it is locked".into(),
            Error::Prompt | Error::PromptDisconnected => "it was not opened".to_owned(),
            other => other.to_string(),
        })),
        Err(_) => Err(failed("it does not answer")),
    }
}

fn failed(why: &str) -> ControlError {
    let message = format!("the system's password store cannot be used: {why}");
    ControlError::new(ErrorKind::Unavailable, message).with_code("no-password-store")
}
