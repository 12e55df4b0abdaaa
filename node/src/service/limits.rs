//! Limits and pauses of transfers: kept on this device, and told to the blobs, which hold them.
//!
//! A pause stops the contents of files both ways. Documents, the names of files and what devices say of themselves flow
//! on: they are small, and a vault that does not know of a change cannot warn of it.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_protocol::codec;
use redb::{Database, ReadableDatabase};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::running::{Running, commit_error};
use super::{Node, stopped};
use crate::blobs::{Blobs, Limits};
use crate::control::{ControlError, LimitsRow, PausedRow, RateChange, Reply};
use crate::store::{StoreError, records, tables};
use crate::vault::{CommitRequest, wall_ms};

/// Least limit in bytes a second: below it a single piece of a file takes hours.
const MIN_RATE: u64 = 1000;

/// Longest pause with an end, in seconds: ten years. A longer one is meant to have none.
const MAX_PAUSE_S: u64 = 10 * 365 * 24 * 3600;

/// How often the end of a pause is compared with the clock, which people and time servers set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Version of [`Setting`]: its first field.
const VERSION: u16 = 1;

/// Most bytes of a stored setting.
const MAX_SETTING: usize = 64;

/// What is stored under [`tables::meta::LIMITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Setting {
    version: u16,
    /// Bytes a second, 0 for no limit.
    up: u64,
    down: u64,
    pause: Option<Pause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pause {
    /// Milliseconds since 1970; absent until a person ends it.
    until_ms: Option<u64>,
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            version: VERSION,
            up: 0,
            down: 0,
            pause: None,
        }
    }
}

impl Setting {
    /// How long the pause still lasts at `now_ms`; `None` where there is none, or it is over.
    fn pause_left(&self, now_ms: u64) -> Option<Option<Duration>> {
        match self.pause?.until_ms {
            None => Some(None),
            Some(until) => (until > now_ms).then(|| Some(Duration::from_millis(until - now_ms))),
        }
    }

    fn limits(&self, now_ms: u64) -> Limits {
        Limits {
            up: NonZeroU64::new(self.up),
            down: NonZeroU64::new(self.down),
            paused: self.pause_left(now_ms).is_some(),
        }
    }

    fn row(&self, now_ms: u64) -> LimitsRow {
        let rate = |bytes| (bytes > 0).then_some(bytes);
        LimitsRow {
            up: rate(self.up),
            down: rate(self.down),
            paused: self.pause_left(now_ms).map(|_| PausedRow {
                until_ms: self.pause.and_then(|pause| pause.until_ms),
            }),
        }
    }
}

/// The present limits of this device.
pub struct Limiting {
    setting: Mutex<Setting>,
    changed: Notify,
}

impl Limiting {
    /// Reads what was set, and has `blobs` keep to it.
    pub(super) fn load(database: &Database, blobs: &Blobs) -> Result<Limiting, StoreError> {
        let meta = database.begin_read()?.open_table(tables::META)?;
        let setting = match records::get(&meta, tables::meta::LIMITS)? {
            Some(bytes) => codec::decode_versioned::<Setting>(&bytes, MAX_SETTING, VERSION)
                .map_err(|error| StoreError::Damaged(format!("the limits: {error}")))?,
            None => Setting::default(),
        };
        blobs.set_limits(setting.limits(wall_ms()));
        Ok(Limiting {
            setting: Mutex::new(setting),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Setting> {
        self.setting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For `status`.
    pub fn row(&self) -> LimitsRow {
        self.lock().row(wall_ms())
    }
}

/// Ends pauses when their time has come, until `stop`.
pub async fn run(running: Arc<Running>, mut stop: watch::Receiver<bool>) {
    loop {
        let setting = *running.limiting.lock();
        running.blobs.set_limits(setting.limits(wall_ms()));
        let wait = match setting.pause_left(wall_ms()) {
            Some(Some(left)) => left.min(LOOK_AGAIN),
            Some(None) | None => Duration::MAX,
        };
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = running.limiting.changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// `limits show`.
pub async fn show(node: &Arc<Node>) -> Result<Reply, ControlError> {
    Ok(Reply::Limits(node.vault().await?.limiting.row()))
}

/// `limits set`.
pub async fn set(
    node: &Arc<Node>,
    up: Option<RateChange>,
    down: Option<RateChange>,
) -> Result<Reply, ControlError> {
    for change in [up, down].into_iter().flatten() {
        if let RateChange::PerSecond(bytes) = change
            && bytes < MIN_RATE
        {
            let least = format!("a limit is at least {MIN_RATE} bytes a second");
            return Err(ControlError::usage(least));
        }
    }
    let apply = |old: u64, change: Option<RateChange>| match change {
        None => old,
        Some(RateChange::None) => 0,
        Some(RateChange::PerSecond(bytes)) => bytes,
    };
    change(node, |setting| Setting {
        up: apply(setting.up, up),
        down: apply(setting.down, down),
        ..setting
    })
    .await
}

/// `pause`.
pub async fn pause(node: &Arc<Node>, for_s: Option<u64>) -> Result<Reply, ControlError> {
    if for_s.is_some_and(|seconds| seconds == 0 || seconds > MAX_PAUSE_S) {
        return Err(ControlError::usage(
            "a pause lasts from one second to ten years; without a time it lasts until it is ended",
        ));
    }
    let until_ms = for_s.map(|seconds| wall_ms().saturating_add(seconds * 1000));
    change(node, |setting| Setting {
        pause: Some(Pause { until_ms }),
        ..setting
    })
    .await
}

/// `resume`.
pub async fn resume(node: &Arc<Node>) -> Result<Reply, ControlError> {
    change(node, |setting| Setting {
        pause: None,
        ..setting
    })
    .await
}

/// Changes the setting: durable first, then in force.
async fn change(
    node: &Arc<Node>,
    change: impl FnOnce(Setting) -> Setting,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let new = change(*running.limiting.lock());
    let request = CommitRequest {
        meta: vec![(tables::meta::LIMITS, codec::encode(&new))],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    *running.limiting.lock() = new;
    running.blobs.set_limits(new.limits(wall_ms()));
    running.limiting.changed.notify_one();
    Ok(Reply::Limits(running.limiting.row()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_setting_is_frozen() {
        let setting = Setting {
            version: VERSION,
            up: 2_000_000,
            down: 0,
            pause: Some(Pause {
                until_ms: Some(1_795_392_270_000),
            }),
        };
        let bytes = codec::encode(&setting);
        assert_eq!(hex::encode(&bytes), "0180897a000101b0dddfada034");
        assert_eq!(
            codec::decode_versioned::<Setting>(&bytes, MAX_SETTING, VERSION),
            Ok(setting)
        );
    }

    #[test]
    fn a_pause_ends_by_the_clock() {
        let mut setting = Setting {
            pause: Some(Pause {
                until_ms: Some(5_000),
            }),
            ..Setting::default()
        };
        assert!(setting.limits(4_999).paused);
        assert_eq!(setting.row(4_999).paused.unwrap().until_ms, Some(5_000));
        assert!(!setting.limits(5_000).paused);
        assert_eq!(setting.row(5_000).paused, None);
        setting.pause = Some(Pause { until_ms: None });
        assert!(setting.limits(u64::MAX).paused);
    }
}
