//! Whether this data folder goes on with its log, or was put back to an earlier state of itself.
//!
//! A copy in another place is known by its [binding](super::identity::binding). A data folder, or the whole disk, that was
//! put back where it was has the same one. What it had written after that state is on other devices, and the next entry
//! under the same incarnation would fork the log. So where it may have been put back, the first write looks at the
//! devices that are connected: has one of them just as much of this log, it goes on, else a new incarnation begins. Who
//! gets entries of its own log from another device was put back, and begins anew at once.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use coffer_protocol::identity::Hash;
use redb::ReadableDatabase;

use super::core::Core;
use super::founding::new_incarnation;
use super::work::Work;
use crate::store::{StoreError, records, tables};

/// How long nothing was written, if it was not put back: a machine that was off for a night was not, as far as can be told.
const NIGHT_MS: u64 = 24 * 3600 * 1000;

/// What is the same for as long as nobody put the data folder back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuity {
    /// When the identity file was last changed in any way, in seconds and nanoseconds since 1970. The system sets it, so
    /// that one that was written over with an earlier copy of itself has another.
    changed: [u8; 16],
    /// The machine's present start.
    boot: Vec<u8>,
}

impl Continuity {
    /// That of a data folder.
    pub fn of(data_dir: &Path) -> Continuity {
        let about = std::fs::metadata(super::identity::path(data_dir));
        let (seconds, nanoseconds) =
            about.map_or((0, 0), |about| (about.ctime(), about.ctime_nsec()));
        let ns = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Continuity {
            changed: ns.to_be_bytes(),
            boot: std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        [&self.changed[..], &self.boot].concat()
    }

    /// Whether a folder that was left like `before`, when it was last written to at `written_ms`, may have been put back.
    fn is_doubtful(&self, before: Option<&[u8]>, written_ms: u64, now_ms: u64) -> bool {
        let Some((changed, boot)) = before.and_then(|before| before.split_at_checked(16)) else {
            return false;
        };
        let is_long_ago = now_ms.saturating_sub(written_ms) > NIGHT_MS;
        changed != self.changed || boot != self.boot && is_long_ago
    }
}

impl Core {
    /// Says what the data folder is like at this start, at `now_ms` (milliseconds since 1970).
    ///
    /// # Errors
    /// That the database cannot be read or written.
    pub fn started(&mut self, present: &Continuity, now_ms: u64) -> Result<(), StoreError> {
        let bytes = present.to_bytes();
        let before = {
            let read = self.database.begin_read()?;
            records::get(&read.open_table(tables::META)?, tables::meta::CONTINUITY)?
        };
        if before.as_deref() == Some(&bytes) {
            return Ok(());
        }
        let has_written = self.state.clock.seq(&self.state.writer) > 0;
        let has_others = self.state.membership.devices().len() > 1;
        let written_ms = self.state.hlc.last().ms();
        if has_written && has_others && present.is_doubtful(before.as_deref(), written_ms, now_ms) {
            self.state.doubtful = Some(bytes.into());
            return Ok(());
        }
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        transaction
            .open_table(tables::META)?
            .insert(tables::meta::CONTINUITY, &bytes[..])?;
        Ok(transaction.commit()?)
    }
}

impl Work<'_, '_> {
    /// Before anything is written here: goes on with the log, or begins anew.
    pub(super) fn settle_doubt(&mut self) -> Result<(), StoreError> {
        let Some(present) = self.core.state.doubtful.take() else {
            return Ok(());
        };
        let state = &self.core.state;
        let (seq, hash) = state.clock.get(&state.writer).unwrap_or((0, Hash::ZERO));
        if !self.core.is_elsewhere_up_to(state.writer, seq, hash) {
            self.begin_anew()?;
        }
        self.meta.insert(tables::meta::CONTINUITY, &present[..])?;
        self.done.wrote = true;
        Ok(())
    }

    /// From now on this device writes under a new incarnation.
    pub(super) fn begin_anew(&mut self) -> Result<(), StoreError> {
        self.close_entry()?;
        let incarnation = new_incarnation(&mut *self.core.rng);
        tracing::warn!(
            "this data folder was put back to an earlier state, or may have been: from now on it writes a log of its own"
        );
        self.meta
            .insert(tables::meta::INCARNATION, &incarnation.to_be_bytes()[..])?;
        self.core.state.writer.incarnation = incarnation;
        self.done.wrote = true;
        Ok(())
    }
}
