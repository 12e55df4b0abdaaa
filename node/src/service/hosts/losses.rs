//! What a host turned out to have lost, and how it comes to be held against it no longer.
//!
//! A host that lost something is named. It is asked about all that it confirmed, and given what it lacks; when it has said
//! since that it has everything, it has to show it: the very blobs that it failed to show, and some others. Then it is named
//! no longer. One that fails again is asked ever later: who throws away what it is given is not to keep devices busy.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_protocol::identity::{DeviceId, Hash, StoreId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::running::Running;
use super::bring::BringError;
use super::look::{self, Shown};
use crate::hosts::{HostChange, TroubleKind};
use crate::net::Net;
use crate::vault::CommitRequest;

/// Blobs that are remembered of those that it did not show; of more than these it is enough to see some again.
const REMEMBERED: usize = 64;
/// How often it has to show something before it is over.
const PROOFS: usize = 8;
/// Before the second and later times that a host is asked about everything because it lost something; doubled each time.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest such pause.
const PAUSE_AT_MOST: Duration = Duration::from_secs(60 * 60);
/// How often a host is asked about everything because it says that it has less than before, at most: it may have freed what
/// nobody names, once an hour at most. The first time it is asked at once.
const LESS_EVERY: Duration = Duration::from_secs(10 * 60);

/// Blobs that a host did not show although it had confirmed them.
#[derive(Default)]
pub struct Losses {
    blobs: Mutex<BTreeSet<Hash>>,
    more: Notify,
}

impl Losses {
    /// One more was found.
    pub fn found(&self, blob: Hash) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if blobs.len() < REMEMBERED {
            blobs.insert(blob);
        }
        self.more.notify_one();
    }

    /// Resolves when one was found since the last time.
    pub async fn more(&self) {
        self.more.notified().await;
    }

    fn all(&self) -> Vec<Hash> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.iter().copied().collect()
    }

    fn forget(&self) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.clear();
    }
}

/// When a host is asked about everything again, beyond what is done for every host.
#[derive(Debug)]
pub struct Asking {
    pause: Duration,
    /// When all of it was asked about last, by this device's clock, in milliseconds since 1970.
    asked_ms: u64,
    /// When it was or will be asked last because it says that it has less.
    less: Option<Instant>,
    /// How many blobs it said to have, and where.
    said: Option<(StoreId, u64)>,
}

impl Asking {
    /// Of a host that was not asked yet.
    pub fn new() -> Asking {
        Asking {
            pause: Duration::ZERO,
            asked_ms: 0,
            less: None,
            said: None,
        }
    }

    /// It was asked about everything, beginning at this time, and answered.
    pub fn asked(&mut self, began_ms: u64) {
        self.asked_ms = began_ms;
    }

    /// When it is asked because it has lost something.
    pub fn after_a_loss(&mut self) -> Instant {
        let at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_AT_MOST);
        at
    }

    /// When it is asked because it says that it has less than it said before; `None` if it does not.
    pub async fn if_less(&mut self, running: &Running, host: DeviceId) -> Option<Instant> {
        let look = running.vault.inspect(move |core| {
            let memory = core.state().hosts.get(&host)?;
            let told = memory.record.told.as_ref()?.value();
            let is_lost = memory.trouble(TroubleKind::LostContents).is_some();
            Some((told.store, told.blobs, is_lost))
        });
        let (store, blobs, is_lost) = look.await.ok()??;
        let before = self.said.replace((store, blobs));
        let has_less = before.is_some_and(|before| before.0 == store && before.1 > blobs);
        match (has_less, is_lost) {
            (false, _) => None,
            (true, true) => Some(self.after_a_loss()),
            (true, false) => Some(self.after_less(Instant::now())),
        }
    }

    /// When it is asked as it says now that it has less.
    fn after_less(&mut self, now: Instant) -> Instant {
        let at = match self.less {
            // That is still to come.
            Some(less) if less > now => less,
            Some(less) => now.max(less + LESS_EVERY),
            None => now,
        };
        self.less = Some(at);
        at
    }

    /// The host lacks nothing, as far as it says. If something is held against it that it lost, it has to show that it has
    /// it again. Gives when it is to be asked about everything once more, if it is.
    pub async fn settle(
        &mut self,
        running: &Arc<Running>,
        net: &Net,
        host: DeviceId,
        losses: &Losses,
    ) -> Result<Option<Instant>, BringError> {
        let look = running.vault.inspect(move |core| {
            let memory = core.state().hosts.get(&host)?;
            Some(memory.trouble(TroubleKind::LostContents)?.last_ms)
        });
        let Some(last_ms) = look.await? else {
            self.pause = Duration::ZERO;
            return Ok(None);
        };
        if self.asked_ms <= last_ms {
            return Ok(Some(self.after_a_loss()));
        }
        let shown = look::show(running, net, host, &losses.all(), PROOFS).await?;
        if let Shown::Not(blob) = shown {
            losses.found(blob);
            return Ok(None);
        }
        tracing::info!(%host, "a host has again what it had lost");
        losses.forget();
        self.pause = Duration::ZERO;
        let request = CommitRequest {
            hosts: vec![HostChange::Over(host, TroubleKind::LostContents)],
            ..Default::default()
        };
        running.vault.commit(request).await?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_says_it_has_less_is_asked_at_once_and_then_not_for_a_while() {
        let (mut asking, begin) = (Asking::new(), Instant::now());
        let minutes = |n: u64| begin + Duration::from_secs(60 * n);
        asking.asked(1);
        assert_eq!(asking.after_less(minutes(1)), minutes(1));
        assert_eq!(asking.after_less(minutes(2)), minutes(11));
        assert_eq!(asking.after_less(minutes(3)), minutes(11));
        assert_eq!(asking.after_less(minutes(60)), minutes(60));
    }
}
