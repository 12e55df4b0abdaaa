//! How often the vault's key is changed by itself: a document of the vault, so that it is the same on every device. And when
//! it is a device's turn to change it.
//!
//! Grants carry no time, so each device notes when it first saw the present epoch, and counts from there. Only owners change
//! the key, and one after the other: the owner with the smallest id when the time has come, each further one a day later
//! where the key is the same still. One that is off for good holds nobody up, and two that do it at once all the same agree
//! on one outcome, as after any such change.

use coffer_protocol::grants::Role;
use coffer_protocol::identity::EpochId;
use redb::{ReadTransaction, ReadableTable};
use serde_json::{Value, json};

use super::core::Core;
use super::rule::DOCTYPE;
use crate::index;
use crate::store::documents::{DocumentKey, read_row};
use crate::store::{StoreError, records, tables};

/// The document's id.
pub const ID: &str = "lock";
/// How often, where nobody has said: a year.
pub const DEFAULT_S: u64 = 365 * 24 * 60 * 60;
/// At least so long: each change is kept for good and is sealed to every device.
pub const MIN_S: u64 = 24 * 60 * 60;
/// At most: a hundred years.
pub const MAX_S: u64 = super::rule::MAX_S;
/// How much later than the owner before it each owner changes the key, in milliseconds.
const APART_MS: u64 = 24 * 60 * 60 * 1000;

/// Seconds between changes, `None` for never; and what is wrong with the document where the default stands in for it.
pub fn read(read: &ReadTransaction) -> Result<(Option<u64>, Option<String>), StoreError> {
    let key = DocumentKey::new(DOCTYPE, ID);
    let Some(row) = read_row(read, key)?.filter(|row| !row.deleted) else {
        return Ok((Some(DEFAULT_S), None));
    };
    let value = index::json(read, key, &row)?.unwrap_or(Value::Null);
    Ok(match from_json(&value) {
        Ok(every_s) => (every_s, None),
        Err(why) => (Some(DEFAULT_S), Some(why)),
    })
}

/// The document.
pub fn to_json(every_s: Option<u64>) -> Value {
    json!({ "change_every_s": every_s })
}

/// Reads a document.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn from_json(value: &Value) -> Result<Option<u64>, String> {
    let fields = value.as_object().ok_or("it is no JSON object")?;
    match fields.get("change_every_s") {
        None => Ok(Some(DEFAULT_S)),
        Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(every_s) if (MIN_S..=MAX_S).contains(&every_s) => Ok(Some(every_s)),
            _ => Err(format!(
                "\"change_every_s\" is not a number from {MIN_S} to {MAX_S}"
            )),
        },
    }
}

/// When this device first saw an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The epoch.
    pub epoch: EpochId,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Seen {
    /// What was noted.
    pub fn read(read: &ReadTransaction) -> Result<Option<Seen>, StoreError> {
        Seen::of(&read.open_table(tables::META)?)
    }

    fn of(
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
    ) -> Result<Option<Seen>, StoreError> {
        let bytes = records::get(meta, tables::meta::LOCK_SEEN)?.unwrap_or_default();
        let Some((epoch, at_ms)) = bytes.split_first_chunk::<32>() else {
            return Ok(None);
        };
        let at_ms = at_ms.try_into().map(u64::from_be_bytes);
        let epoch = EpochId(*epoch);
        Ok(at_ms.ok().map(|at_ms| Seen { epoch, at_ms }))
    }

    /// The record of it: epoch (32 bytes), time (u64).
    pub fn to_bytes(self) -> Vec<u8> {
        [&self.epoch.0[..], &self.at_ms.to_be_bytes()].concat()
    }
}

/// What has to be done about the present epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing now.
    Wait,
    /// It was not seen before: note it.
    Note(Seen),
    /// Change the key.
    Change,
}

/// What a device knows of the present epoch, and how many owners come before it; `None` if it is no owner.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// The epoch under which it writes.
    pub epoch: EpochId,
    /// Its place among the owners.
    pub rank: Option<u64>,
}

impl Present {
    /// Of this device; `None` while it may not write, or another change is due anyway.
    pub fn of(core: &Core) -> Option<Present> {
        let state = core.state();
        if state.is_out() || state.rotation_due {
            return None;
        }
        let (me, devices) = (core.device(), state.membership.devices());
        let owners = devices
            .iter()
            .filter(|(_, device)| device.role == Role::Owner);
        let rank = owners.map(|(id, _)| *id).position(|id| id == me);
        Some(Present {
            epoch: state.sealing_epoch()?,
            rank: rank.map(|rank| rank as u64),
        })
    }

    /// What has to be done, where the key is to be changed after `every_s`.
    pub fn turn(&self, seen: Option<Seen>, every_s: Option<u64>, now_ms: u64) -> Turn {
        let at_ms = match seen {
            // A time to come was noted by a clock that was wrong.
            Some(seen) if seen.epoch == self.epoch && seen.at_ms <= now_ms => seen.at_ms,
            _ => {
                return Turn::Note(Seen {
                    epoch: self.epoch,
                    at_ms: now_ms,
                });
            }
        };
        let (Some(rank), Some(every_s)) = (self.rank, every_s) else {
            return Turn::Wait;
        };
        let after = every_s
            .saturating_mul(1000)
            .saturating_add(rank.saturating_mul(APART_MS));
        match now_ms.saturating_sub(at_ms) >= after {
            true => Turn::Change,
            false => Turn::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YEAR_MS: u64 = DEFAULT_S * 1000;
    const NOW: u64 = 50 * YEAR_MS;

    fn present(rank: Option<u64>) -> Present {
        let epoch = EpochId([3; 32]);
        Present { epoch, rank }
    }

    fn seen(at_ms: u64) -> Option<Seen> {
        let epoch = EpochId([3; 32]);
        Some(Seen { epoch, at_ms })
    }

    #[test]
    fn an_epoch_is_noted_when_it_is_first_seen_and_its_key_changed_after_the_time_from_there() {
        let owner = present(Some(0));
        let noted = Turn::Note(Seen {
            epoch: EpochId([3; 32]),
            at_ms: NOW,
        });
        assert_eq!(owner.turn(None, Some(DEFAULT_S), NOW), noted);
        let other = Some(Seen {
            epoch: EpochId([4; 32]),
            at_ms: NOW - 5 * YEAR_MS,
        });
        assert_eq!(owner.turn(other, Some(DEFAULT_S), NOW), noted);
        assert_eq!(owner.turn(seen(NOW + 1), Some(DEFAULT_S), NOW), noted);
        let at = |at_ms| owner.turn(seen(at_ms), Some(DEFAULT_S), NOW);
        assert_eq!(at(NOW - YEAR_MS + 1), Turn::Wait);
        assert_eq!(at(NOW - YEAR_MS), Turn::Change);
        assert_eq!(owner.turn(seen(0), None, NOW), Turn::Wait);
    }

    #[test]
    fn owners_do_it_a_day_apart_and_nobody_else_does() {
        let turn = |rank, days: u64| {
            let at_ms = NOW - YEAR_MS - days * APART_MS;
            present(rank).turn(seen(at_ms), Some(DEFAULT_S), NOW)
        };
        assert_eq!(turn(Some(0), 0), Turn::Change);
        assert_eq!(turn(Some(2), 1), Turn::Wait);
        assert_eq!(turn(Some(2), 2), Turn::Change);
        assert_eq!(turn(None, 900), Turn::Wait);
    }

    #[test]
    fn a_setting_returns_from_its_document_and_nonsense_is_refused() {
        for every_s in [None, Some(MIN_S), Some(DEFAULT_S), Some(MAX_S)] {
            assert_eq!(from_json(&to_json(every_s)), Ok(every_s));
        }
        assert_eq!(from_json(&json!({"mine": 1})), Ok(Some(DEFAULT_S)));
        for wrong in [
            json!([]),
            json!({"change_every_s": 1}),
            json!({"change_every_s": "a year"}),
            json!({"change_every_s": -1}),
            json!({"change_every_s": u64::MAX}),
        ] {
            assert!(from_json(&wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn foreign_documents_never_panic(text in "\\{(\"change_every_s\":(null|-?[0-9]{1,25}|1e30|\"x\"|\\[\\]))?\\}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = from_json(&value);
            }
        }

        #[test]
        fn no_clock_overflows(at_ms: u64, now_ms: u64, every_s: u64, rank: u64) {
            let _ = present(Some(rank)).turn(seen(at_ms), Some(every_s), now_ms);
        }
    }
}
