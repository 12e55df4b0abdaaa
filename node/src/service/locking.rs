//! `lock`, `unlock`, and with what this device's keys are sealed.
//!
//! A locked node holds no secret: sessions, folders and connections are ended, the database is closed, keys are wiped.
//! Its process goes on and answers `status`, `unlock` and `stop`. Locking is a stop that keeps the control socket, and
//! unlocking a start. What seals the keys changes while they are open: the identity file is replaced whole, so that
//! whatever interrupts it leaves either the former or the new one.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::Database;
use tokio::sync::watch;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::awake::{apart, locked};
use super::running::Running;
use super::tries::Tries;
use super::{Node, data_folder, login, memory, random, store_error};
use crate::control::{
    Answer, ControlError, ErrorKind, MAX_PASSPHRASE, Options, Passphrase, Protection, Question,
    Reply, Session,
};
use crate::store::StoreError;
use crate::vault::founding;
use crate::vault::identity::{self, Identity, Replacing, Stored};
use crate::vault::locked::{By, Cost, Locked, Refused};

/// Requests under way may go on for so long once the device is to be locked.
const GRACE: Duration = Duration::from_millis(1500);
/// Whatever still reads the database lets it go within this, or the process ends.
const LET_GO_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Characters that a new passphrase has at least. A short one is found by trying, however slow each try is.
const SHORTEST: usize = 8;

/// How this device is locked and unlocked.
pub struct Locking {
    /// True from the moment when a lock begins until an unlock is done.
    shut: watch::Sender<bool>,
    protected_by: Mutex<Protection>,
    tries: Mutex<Tries>,
}

impl Locking {
    /// Of a node that starts.
    pub fn new(protected_by: Protection, shut: bool) -> Locking {
        Locking {
            shut: watch::channel(shut).0,
            protected_by: Mutex::new(protected_by),
            tries: Mutex::default(),
        }
    }

    /// With what the keys are sealed.
    pub fn protected_by(&self) -> Protection {
        *lock_of(&self.protected_by)
    }

    /// # Errors
    /// [`ErrorKind::Locked`].
    pub fn check(&self) -> Result<(), ControlError> {
        if *self.shut.borrow() {
            return Err(locked());
        }
        Ok(())
    }

    /// Resolves when the device is being locked and what is under way has had its time.
    pub fn ends_requests(&self) -> impl Future<Output = ()> + Send + 'static {
        let shut = self.is_shut();
        async move {
            shut.await;
            tokio::time::sleep(GRACE).await;
        }
    }

    /// Resolves when the device is being locked.
    pub fn is_shut(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut shut = self.shut.subscribe();
        async move {
            if shut.wait_for(|shut| *shut).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What seals the keys of a data folder.
pub fn protection_of(stored: &Stored) -> Protection {
    match stored {
        Stored::Open(_) => Protection::Nothing,
        Stored::Locked(sealed) => match sealed.by() {
            By::Passphrase { .. } => Protection::Passphrase,
            By::Login { .. } => Protection::Login,
        },
    }
}

/// The keys of a data folder at a start, new ones where there are none; none where they stay locked. Takes the passphrase
/// out of the options. Also gives what a person should be told.
pub async fn open_at_start(
    options: &mut Options,
) -> Result<(Option<Identity>, Protection, Vec<String>), ControlError> {
    let dir = options.data_dir.clone();
    identity::remove_unfinished(&dir);
    let passphrase = options.passphrase.take();
    let place = dir.clone();
    let read = apart(move || identity::read(&place)).await?;
    let Some(stored) = read.map_err(store_error)? else {
        let identity = Identity::generate(&mut random());
        identity.save(&dir).map_err(store_error)?;
        return Ok((Some(identity), Protection::Nothing, Vec::new()));
    };
    let by = protection_of(&stored);
    let sealed = match stored {
        Stored::Open(identity) => return Ok((Some(identity), by, Vec::new())),
        Stored::Locked(sealed) => sealed,
    };
    let opened = match (sealed.by(), passphrase) {
        (By::Passphrase { .. }, None) => return Ok((None, by, Vec::new())),
        (By::Passphrase { .. }, Some(passphrase)) => try_passphrase(sealed, passphrase).await?,
        (By::Login { id }, _) => match open_by_login(*id, &sealed, login::AT_START).await {
            Ok(identity) => identity,
            Err(error) => {
                let note = format!("it stays locked: {error}");
                return Ok((None, by, vec![note]));
            }
        },
    };
    Ok((Some(opened), by, Vec::new()))
}

/// `lock`.
pub async fn lock(node: &Arc<Node>) -> Result<Reply, ControlError> {
    if node.locking.protected_by() == Protection::Nothing {
        let message = "this device has no passphrase, so that nothing could unlock it again";
        return Err(ControlError::conflict(message).with_code("no-passphrase"));
    }
    // Requests end, and with them whoever holds up the beginning of a vault.
    let already = node.locking.shut.send_replace(true);
    let _founding = node.founding.lock().await;
    // An unlock that was under way has just ended.
    node.locking.shut.send_replace(true);
    if node.awake().is_err() {
        return Ok(Reply::Locked { already: true });
    }
    let running = node.running.read().await.clone();
    let database = running.map(|running| Arc::downgrade(running.vault.database()));
    node.stop_vault().await;
    node.fall_asleep().await;
    let began = Instant::now();
    while database
        .as_ref()
        .is_some_and(|database| database.strong_count() > 0)
    {
        if began.elapsed() > LET_GO_WITHIN {
            tracing::error!("something still reads the vault: coffer ends, so that it is locked");
            node.stop.send_replace(true);
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let _ = tokio::task::spawn_blocking(memory::trim).await;
    tracing::info!("locked");
    Ok(Reply::Locked { already })
}

/// `unlock`.
pub async fn unlock(node: &Arc<Node>, session: &mut Session) -> Result<Reply, ControlError> {
    if node.awake().is_ok() && node.locking.check().is_ok() {
        return Ok(Reply::Unlocked { already: true });
    }
    let passphrase = if node.locking.protected_by() == Protection::Passphrase {
        Some(ask(session, false).await?)
    } else {
        None
    };
    // A lock that is under way ends first.
    let _founding = node.founding.lock().await;
    if node.awake().is_ok() {
        return Ok(Reply::Unlocked { already: true });
    }
    let sealed = match read_stored(node.data_dir())? {
        Stored::Locked(sealed) => sealed,
        Stored::Open(identity) => return open(node, identity).await,
    };
    let (identity, weak) = match (*sealed.by(), passphrase) {
        (By::Passphrase { cost, .. }, Some(passphrase)) => {
            let identity = guarded(node, sealed, passphrase.clone()).await?;
            let weak = cost.is_less_than(&Cost::NOW).then_some(passphrase);
            (identity, weak)
        }
        // It was replaced by hand while it was asked about.
        (By::Passphrase { .. }, None) => return Err(changed()),
        (By::Login { id }, _) => (open_by_login(id, &sealed, login::FOR_PERSON).await?, None),
    };
    let reply = open(node, identity).await?;
    if let Some(passphrase) = weak {
        let sealed_anew = match node.vault().await {
            Ok(running) => seal_by_passphrase(node, &running, passphrase).await,
            Err(error) => Err(error),
        };
        match sealed_anew {
            Ok(()) => tracing::info!("the passphrase costs more to try from now on"),
            Err(error) => tracing::warn!(%error, "the passphrase could not be made harder to try"),
        }
    }
    Ok(reply)
}

/// Starts all that needs the keys; all or nothing of it.
async fn open(node: &Arc<Node>, identity: Identity) -> Result<Reply, ControlError> {
    for note in node.wake(identity).await? {
        tracing::info!(note);
    }
    let opened = match node.holds_vault().await {
        Ok(true) => node.start_vault().await.map(drop),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = opened {
        node.fall_asleep().await;
        return Err(error);
    }
    node.locking.shut.send_replace(false);
    tracing::info!("unlocked");
    Ok(Reply::Unlocked { already: false })
}

/// `passphrase set`, `remove` and `login`: seals the keys otherwise.
pub async fn protect(
    node: &Arc<Node>,
    by: Protection,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    node.vault().await?;
    let before = node.locking.protected_by();
    if before == Protection::Nothing && by == Protection::Nothing {
        let message = "this device has no passphrase";
        return Err(ControlError::conflict(message).with_code("no-passphrase"));
    }
    let stored = read_stored(node.data_dir())?;
    let known = match &stored {
        Stored::Locked(sealed) => Some(sealed.clone()),
        Stored::Open(_) => None,
    };
    drop(stored);
    if let Some(sealed) = &known
        && before == Protection::Passphrase
    {
        let present = ask(session, false).await?;
        guarded(node, sealed.clone(), present).await?;
    }
    let new = if by == Protection::Passphrase {
        let new = ask(session, true).await?;
        if new.text().chars().count() < SHORTEST {
            let message = format!("a passphrase has at least {SHORTEST} characters");
            return Err(ControlError::usage(message).with_code("short-passphrase"));
        }
        Some(new)
    } else {
        None
    };
    let kept = match by {
        Protection::Login => Some(login::keep(node.data_dir()).await?),
        _ => None,
    };
    let replaced = reseal(node, &known, new, kept.as_ref()).await;
    // Whichever secret of the password store opens nothing now.
    let of_no_use = match (&replaced, &known, kept) {
        (Err(_), _, kept) => kept.map(|(id, _)| id),
        (Ok(()), Some(sealed), _) => sealed.login(),
        (Ok(()), None, _) => None,
    };
    if let Some(id) = of_no_use
        && let Err(error) = login::forget(&id).await
    {
        tracing::warn!(%error, "the system's password store keeps a secret of no use");
    }
    replaced?;
    Ok(Reply::Protected { by, before })
}

/// Seals the keys under the passphrase, else under the secret, else under nothing, if they are still sealed as is `known`.
async fn reseal(
    node: &Arc<Node>,
    known: &Option<Locked>,
    passphrase: Option<Passphrase>,
    login: Option<&(login::Id, Zeroizing<[u8; 32]>)>,
) -> Result<(), ControlError> {
    let _founding = node.founding.lock().await;
    node.locking.check()?;
    let running = node.vault().await?;
    let still = match read_stored(node.data_dir())? {
        Stored::Locked(sealed) => Some(sealed),
        Stored::Open(_) => None,
    };
    if still != *known {
        return Err(changed());
    }
    if let Some(passphrase) = passphrase {
        return seal_by_passphrase(node, &running, passphrase).await;
    }
    let identity = node.identity()?;
    if let Some((id, secret)) = login {
        let sealed = Locked::by_login(&identity, *id, secret, &mut random());
        return replace(node, &running, Protection::Login, move || {
            Ok(Zeroizing::new(sealed.to_bytes()))
        })
        .await;
    }
    replace(node, &running, Protection::Nothing, move || {
        Ok(identity.to_bytes())
    })
    .await
}

async fn seal_by_passphrase(
    node: &Arc<Node>,
    running: &Running,
    passphrase: Passphrase,
) -> Result<(), ControlError> {
    let identity = node.identity()?;
    replace(node, running, Protection::Passphrase, move || {
        let text = normal(&passphrase)?;
        Locked::by_passphrase(&identity, &text, Cost::NOW, &mut random())
            .map(|sealed| Zeroizing::new(sealed.to_bytes()))
            .map_err(refused)
    })
    .await
}

/// Puts another identity file in the place of the present one, durably and whole. On a thread of its own, that runs to its
/// end whatever becomes of who asked.
async fn replace(
    node: &Arc<Node>,
    running: &Running,
    by: Protection,
    bytes: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, ControlError> + Send + 'static,
) -> Result<(), ControlError> {
    let (node, database) = (node.clone(), running.vault.database().clone());
    apart(move || {
        let bytes = bytes()?;
        swap(node.data_dir(), &database, &bytes).map_err(store_error)?;
        *lock_of(&node.locking.protected_by) = by;
        Ok(())
    })
    .await?
}

/// The order in which it is safe against an end at any moment: the new file durable under another name, the vault told
/// which file it will be bound to, the rename.
fn swap(dir: &Path, database: &Database, bytes: &[u8]) -> Result<(), StoreError> {
    let replacing = Replacing::write(dir, bytes)?;
    let told = replacing
        .binding()
        .and_then(|next| founding::expect_binding(database, &next));
    let replaced = told.and_then(|()| replacing.finish());
    if replaced.is_err() {
        identity::remove_unfinished(dir);
    }
    let settled = founding::settle_binding(database, &identity::binding(dir));
    replaced.and(settled)
}

/// Asks the person for a passphrase.
async fn ask(session: &mut Session, new: bool) -> Result<Passphrase, ControlError> {
    match session.ask(Question::Passphrase { new }).await? {
        Answer::Passphrase(passphrase) => Ok(passphrase),
        _ => Err(ControlError::refused("no passphrase was given").with_code("needs-passphrase")),
    }
}

/// A try at the passphrase, unless there were too many wrong ones.
async fn guarded(
    node: &Arc<Node>,
    sealed: Locked,
    passphrase: Passphrase,
) -> Result<Identity, ControlError> {
    let waits = lock_of(&node.locking.tries).check(Instant::now());
    if let Err(wait) = waits {
        let message = format!(
            "there were too many wrong passphrases: wait {} seconds",
            wait.as_secs() + 1
        );
        return Err(ControlError::refused(message).with_code("too-many-tries"));
    }
    let opened = try_passphrase(sealed, passphrase).await;
    let mut tries = lock_of(&node.locking.tries);
    match &opened {
        Ok(_) => tries.was_right(),
        Err(error) if error.code.as_deref() == Some(WRONG) => {
            tries.was_wrong(Instant::now());
            tracing::warn!("a wrong passphrase was given");
        }
        Err(_) => {}
    }
    opened
}

async fn try_passphrase(sealed: Locked, passphrase: Passphrase) -> Result<Identity, ControlError> {
    apart(move || {
        let text = normal(&passphrase)?;
        sealed.open_with_passphrase(&text).map_err(refused)
    })
    .await?
}

async fn open_by_login(
    id: [u8; 16],
    sealed: &Locked,
    within: Duration,
) -> Result<Identity, ControlError> {
    let secret = login::find(&id, within).await?;
    sealed.open_with_login(&secret).map_err(|_| {
        let message = "what the system's password store keeps does not unlock this device";
        ControlError::new(ErrorKind::Damaged, message).with_code("wrong-login")
    })
}

/// What is stretched: the same characters are the same bytes whatever keyboard they came from (Unicode's NFC).
fn normal(passphrase: &Passphrase) -> Result<Zeroizing<String>, ControlError> {
    let text = passphrase.text();
    if text.len() > MAX_PASSPHRASE {
        let message = format!("a passphrase has at most {MAX_PASSPHRASE} bytes");
        return Err(ControlError::usage(message));
    }
    // Nothing grows by more than this in NFC, so that no copy is left behind by growing.
    let mut normal = Zeroizing::new(String::with_capacity(3 * text.len()));
    normal.extend(text.nfc());
    Ok(normal)
}

const WRONG: &str = "wrong-passphrase";

fn refused(why: Refused) -> ControlError {
    match why {
        Refused::Wrong => ControlError::refused(why.to_string()).with_code(WRONG),
        Refused::Memory => ControlError::unavailable(why.to_string()).with_code("no-memory"),
    }
}

fn changed() -> ControlError {
    ControlError::conflict("the passphrase was changed meanwhile").with_code("changed-meanwhile")
}

fn read_stored(dir: &Path) -> Result<Stored, ControlError> {
    identity::read(dir)
        .map_err(store_error)?
        .ok_or_else(|| data_folder::damaged(dir, "the file identity is missing"))
}

#[cfg(test)]
#[path = "locking/tests.rs"]
mod tests;
