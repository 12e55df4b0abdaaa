//! The vault's key is changed from time to time, without anybody's asking: see [`lock_rule`] for when, and by whom.

use std::sync::Arc;
use std::time::Duration;

use redb::ReadableDatabase;
use tokio::sync::{Notify, watch};

use super::running::{Running, commit_error};
use super::{Node, stopped, store_error};
use crate::control::{ControlError, Limit, LockStatus, Reply};
use crate::store::tables;
use crate::vault::lock_rule::{self, Present, Seen, Turn};
use crate::vault::{Act, CommitRequest, Manage, Operation, wall_ms};

/// After a start: once the vault has settled, as others may have changed the key meanwhile.
const FIRST_AFTER: Duration = Duration::from_secs(5);
/// Between looks.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Has the schedule looked at again.
#[derive(Default)]
pub struct Schedule {
    changed: Notify,
}

/// Runs until `stop`.
pub async fn run(running: Arc<Running>, mut stop: watch::Receiver<bool>) {
    let mut members = running.vault.members();
    let mut after = FIRST_AFTER;
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(after) => {}
            () = running.relocking.changed.notified() => {}
            // Whoever changed the key, or was let in.
            Ok(()) = members.changed() => {}
        }
        if let Err(error) = look(&running).await {
            tracing::debug!(%error, "the key's schedule was not looked at");
        }
        after = EVERY;
    }
}

async fn look(running: &Running) -> Result<(), ControlError> {
    let present = running.vault.inspect(Present::of).await;
    let Some(present) = present.map_err(commit_error)? else {
        return Ok(());
    };
    let (seen, every_s, _) = known(running)?;
    match present.turn(seen, every_s, wall_ms()) {
        Turn::Wait => Ok(()),
        Turn::Note(seen) => {
            let request = CommitRequest {
                meta: vec![(tables::meta::LOCK_SEEN, seen.to_bytes())],
                ..Default::default()
            };
            let noted = running.vault.commit(request).await;
            noted.map(drop).map_err(commit_error)
        }
        Turn::Change => {
            tracing::info!("the vault's key is changed, as it is time");
            let (act, words) = (Act::Rotate, None);
            let manage = Manage { act, words };
            running.vault.manage(manage).await.map_err(commit_error)
        }
    }
}

type Known = (Option<Seen>, Option<u64>, Option<String>);

fn known(running: &Running) -> Result<Known, ControlError> {
    let read = || {
        let read = running.vault.database().begin_read()?;
        let (every_s, problem) = lock_rule::read(&read)?;
        Ok((Seen::read(&read)?, every_s, problem))
    };
    read().map_err(store_error)
}

/// When this device first saw the present epoch, where it has noted it.
pub(super) fn seen(running: &Running) -> Result<Option<Seen>, ControlError> {
    Ok(known(running)?.0)
}

/// What there is to say of the lock.
pub(super) fn status(running: &Running) -> Result<LockStatus, ControlError> {
    let (seen, every_s, problem) = known(running)?;
    Ok(LockStatus {
        seen_ms: seen.map(|seen| seen.at_ms),
        every_s,
        problem,
    })
}

/// `relock --every`: for the whole vault.
pub async fn set(node: &Arc<Node>, every: Limit) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let every_s = match every {
        Limit::None => None,
        Limit::At(every_s) if (lock_rule::MIN_S..=lock_rule::MAX_S).contains(&every_s) => {
            Some(every_s)
        }
        Limit::At(_) => {
            let message =
                "the lock is changed once a day at most, and once in a hundred years at least";
            return Err(ControlError::usage(message));
        }
    };
    let put = Operation::PutDocument {
        doctype: crate::vault::rule::DOCTYPE.into(),
        id: lock_rule::ID.into(),
        value: lock_rule::to_json(every_s),
        texts: Vec::new(),
        base: Vec::new(),
    };
    let request = CommitRequest {
        operations: vec![put],
        ..CommitRequest::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    running.relocking.changed.notify_one();
    Ok(Reply::LockSchedule(status(&running)?))
}
