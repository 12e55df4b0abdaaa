//! Held statements: what one device durably has, said by itself.
//!
//! Each device has one, outside the logs, which a later one of the same device replaces; nobody
//! answers it. Two clocks say it: up to where entries are durable, and up to where every chunk that
//! those entries name is durable too, with a bounded list of the documents for which that is not
//! (yet) so. Whoever decides that bytes may be dropped relies on it: a device says only what its
//! disk would still say after a power cut.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::codec::{self, Bytes, CodecError, List, Text};
use crate::identity::{DeviceId, DeviceKey, EpochId, SpaceId, VaultId};
use crate::keys::{self, BOX_OVERHEAD, EpochKey};
use crate::log::{CLOCK_MAX_LEN, Clock, ID_MAX_LEN};
use crate::signed::{Signable, SignedError, Verified};
use crate::{domain, padded, version};

/// Documents that a statement names as lacking chunks; it counts the others.
pub const MAX_EXCEPTIONS: usize = 64;

/// Devices whose statements a statement says it has seen. More than a vault of one person has.
pub const MAX_SEEN: usize = 256;

/// Bytes of the longest plaintext: two clocks, the exceptions, what was seen, and some numbers.
const PLAIN_MAX_LEN: usize =
    2 * CLOCK_MAX_LEN + MAX_EXCEPTIONS * (2 + ID_MAX_LEN) + MAX_SEEN * (33 + 10) + 64;
const SEALED_MAX_LEN: usize = padded::packed_len(PLAIN_MAX_LEN) + BOX_OVERHEAD;
/// Bytes of the longest statement as it is sent.
pub const HELD_MAX_LEN: usize = SEALED_MAX_LEN + 256;

/// What a device durably has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which device says so.
    pub device: DeviceId,
    /// Grows with every statement of the device; of two the one with the larger counter holds.
    pub counter: u64,
    /// Every entry up to here is durable.
    pub entries: Clock,
    /// Every chunk that entries up to here name is durable, except those of `exceptions` and
    /// `more_missing`.
    pub chunks: Clock,
    /// Ids of documents of which chunks are missing, ascending, at most [`MAX_EXCEPTIONS`].
    pub exceptions: Vec<String>,
    /// How many further documents lack chunks.
    pub more_missing: u64,
    /// Whether the device keeps all that it has: only then others may count on it when they drop
    /// bytes of theirs. Otherwise it is a cache.
    pub pinned: bool,
    /// While it is not pinned: the counter of the statement that announced so, the first of those
    /// without a pinned one between. 0 while it is.
    pub unpinned_since: u64,
    /// Contents that the device is to have and lacks, or as many of them as it counted. What it leaves to
    /// others is not among them, nor what is in the trash. Each synced folder of it that cannot be brought
    /// up to date before a person does something counts as one.
    pub awaited: u64,
    /// The newest statement of each other device that this one had when it said this, by device,
    /// ascending, at most [`MAX_SEEN`].
    pub seen: Vec<(DeviceId, u64)>,
    /// When, in milliseconds since 1970, by the device's clock.
    pub at_ms: u64,
}

/// Why a statement was not made, taken or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeldError {
    /// Not a statement, or not signed by the device that it is of.
    #[error("not a held statement: {0}")]
    Signed(#[from] SignedError),
    /// It belongs to another vault.
    #[error("the held statement is of vault {0}")]
    WrongVault(VaultId),
    /// It is sealed under an epoch whose key this is not.
    #[error("the held statement is of epoch {0}")]
    WrongEpoch(EpochId),
    /// It does not open, or what opens is not what a statement holds.
    #[error("the held statement does not open")]
    CannotOpen,
    /// More than a statement can say.
    #[error("{0} is over the bound of a held statement")]
    TooLarge(&'static str),
}

/// The public part of a statement, and its sealed part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// [`version::HELD`].
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// The space.
    pub space: SpaceId,
    /// Which device says so, and signs.
    pub device: DeviceId,
    /// Grows with every statement of the device.
    pub counter: u64,
    /// The epoch under whose key the rest is sealed.
    pub epoch: EpochId,
    /// The rest.
    #[serde(with = "Bytes::<SEALED_MAX_LEN>")]
    pub sealed: Vec<u8>,
}

/// A statement that its device did sign.
pub type HeldStatement = Verified<Statement>;

impl Signable for Statement {
    const CONTEXT: &'static str = domain::HELD_SIGNATURE;
    const VERSION: u16 = version::HELD;
    const MAX_LEN: usize = HELD_MAX_LEN;

    fn signer(&self) -> DeviceId {
        self.device
    }
}

/// What version 1 sealed. It is read, and no longer written.
#[derive(Serialize, Deserialize)]
struct Plain1 {
    entries: Clock,
    chunks: Clock,
    #[serde(with = "List::<MAX_EXCEPTIONS>")]
    exceptions: Vec<Exception>,
    more_missing: u64,
    pinned: bool,
    at_ms: u64,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Plain {
    entries: Clock,
    chunks: Clock,
    #[serde(with = "List::<MAX_EXCEPTIONS>")]
    exceptions: Vec<Exception>,
    more_missing: u64,
    /// 0: pinned.
    unpinned_since: u64,
    awaited: u64,
    #[serde(with = "List::<MAX_SEEN>")]
    seen: Vec<(DeviceId, u64)>,
    at_ms: u64,
}

impl From<Plain1> for Plain {
    /// Who wrote version 1 had seen nobody, and kept everything: whoever did not may have said so
    /// at any time, so it counts as announced only now.
    fn from(old: Plain1) -> Self {
        Self {
            awaited: old.exceptions.len() as u64 + old.more_missing,
            entries: old.entries,
            chunks: old.chunks,
            exceptions: old.exceptions,
            more_missing: old.more_missing,
            unpinned_since: if old.pinned { 0 } else { u64::MAX },
            seen: Vec::new(),
            at_ms: old.at_ms,
        }
    }
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Exception(#[serde(with = "Text::<ID_MAX_LEN>")] String);

impl Held {
    /// The counter of the newest statement of `device` that this one's device had when it said this;
    /// 0 if it had none.
    pub fn has_seen(&self, device: &DeviceId) -> u64 {
        self.seen
            .binary_search_by(|(known, _)| known.cmp(device))
            .map_or(0, |at| self.seen[at].1)
    }

    /// The statement that says this, for a space of a vault, sealed under `epoch` and signed with
    /// the key of [`device`](Self::device).
    pub fn seal(
        &self,
        key: &DeviceKey,
        vault: VaultId,
        space: SpaceId,
        epoch: &EpochKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<HeldStatement, HeldError> {
        let exceptions: Vec<_> = self.exceptions.iter().cloned().map(Exception).collect();
        if exceptions.len() > MAX_EXCEPTIONS || !exceptions.is_sorted_by(|a, b| a < b) {
            return Err(HeldError::TooLarge("the list of exceptions"));
        }
        if self.seen.len() > MAX_SEEN || !self.seen.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(HeldError::TooLarge("what was seen of others"));
        }
        let plain = Zeroizing::new(codec::encode(&Plain {
            entries: self.entries.clone(),
            chunks: self.chunks.clone(),
            exceptions,
            more_missing: self.more_missing,
            unpinned_since: match self.pinned {
                true => 0,
                false => self.unpinned_since.clamp(1, self.counter.max(1)),
            },
            awaited: self.awaited,
            seen: self.seen.clone(),
            at_ms: self.at_ms,
        }));
        if plain.len() > PLAIN_MAX_LEN {
            return Err(HeldError::TooLarge("what is held"));
        }
        let mut statement = Statement {
            version: version::HELD,
            vault,
            space,
            device: self.device,
            counter: self.counter,
            epoch: epoch.id(),
            sealed: Vec::new(),
        };
        let mut packed = Zeroizing::new(Vec::new());
        padded::pack(&plain, true, &mut packed);
        let associated_data = statement.associated_data();
        statement.sealed = keys::seal_box(epoch.held(), &associated_data, &packed, rng);
        Ok(HeldStatement::sign(statement, key)?)
    }
}

impl Statement {
    /// What the encryption vouches for: the statement without what is sealed.
    fn associated_data(&self) -> Vec<u8> {
        codec::encode(&Statement {
            sealed: Vec::new(),
            ..*self
        })
    }

    /// Whether this takes the place of `older`: the same device of the same space said it later.
    pub fn replaces(&self, older: &Statement) -> bool {
        (self.vault, self.space, self.device) == (older.vault, older.space, older.device)
            && self.counter > older.counter
    }
}

impl HeldStatement {
    /// Reads a statement of `vault` and checks its signature. Whether the device is in the vault is
    /// a question to the grants.
    pub fn read(bytes: &[u8], vault: &VaultId) -> Result<Self, HeldError> {
        let statement = Self::decode(bytes)?;
        if statement.value().vault != *vault {
            return Err(HeldError::WrongVault(statement.value().vault));
        }
        Ok(statement)
    }

    /// What it says, for who holds its epoch's key.
    pub fn open(&self, epoch: &EpochKey) -> Result<Held, HeldError> {
        let statement = self.value();
        if statement.epoch != epoch.id() {
            return Err(HeldError::WrongEpoch(statement.epoch));
        }
        let packed = keys::open_box(
            epoch.held(),
            &statement.associated_data(),
            &statement.sealed,
        )
        .map_err(|_| HeldError::CannotOpen)?;
        let unpacked = padded::unpack(&packed, PLAIN_MAX_LEN).map_err(|_| HeldError::CannotOpen)?;
        let mut unpressed = Zeroizing::new(Vec::new());
        let bytes = if unpacked.compressed {
            padded::decompress(unpacked.payload, unpacked.plain_len, &mut unpressed)
                .map_err(|_| HeldError::CannotOpen)?;
            &unpressed[..]
        } else {
            unpacked.payload
        };
        let decoded: Result<Plain, CodecError> = match statement.version {
            1 => codec::decode::<Plain1>(bytes, PLAIN_MAX_LEN).map(Plain::from),
            _ => codec::decode(bytes, PLAIN_MAX_LEN),
        };
        let mut plain = decoded.map_err(|_| HeldError::CannotOpen)?;
        if statement.version == 1 {
            plain.unpinned_since = plain.unpinned_since.min(statement.counter);
        }
        if !plain.exceptions.is_sorted_by(|a, b| a < b)
            || !plain.seen.is_sorted_by(|a, b| a.0 < b.0)
            || plain.unpinned_since > statement.counter
        {
            return Err(HeldError::CannotOpen);
        }
        Ok(Held {
            device: statement.device,
            counter: statement.counter,
            entries: plain.entries,
            chunks: plain.chunks,
            exceptions: plain.exceptions.into_iter().map(|id| id.0).collect(),
            more_missing: plain.more_missing,
            pinned: plain.unpinned_since == 0,
            unpinned_since: plain.unpinned_since,
            awaited: plain.awaited,
            seen: plain.seen,
            at_ms: plain.at_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Hash, WriterId};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    const VAULT: VaultId = VaultId([1; 32]);

    fn key() -> DeviceKey {
        DeviceKey::from_secret([2; 32])
    }

    fn epoch() -> EpochKey {
        EpochKey::from_secret(&[5; 32])
    }

    fn held(writers: u8) -> Held {
        let clock: Clock = (0..writers)
            .map(|n| {
                let device = DeviceId(Hash::of("test", &[&[n]]).0);
                let writer = WriterId {
                    device,
                    incarnation: 0,
                };
                (writer, (u64::from(n) + 1, Hash::of("header", &[&[n]])))
            })
            .collect();
        Held {
            device: key().id(),
            counter: 3,
            entries: clock.clone(),
            chunks: clock,
            exceptions: vec!["a".into(), "b".into()],
            more_missing: 4,
            pinned: true,
            unpinned_since: 0,
            awaited: 6,
            seen: vec![(DeviceId([1; 32]), 7), (DeviceId([2; 32]), 1)],
            at_ms: 5,
        }
    }

    #[test]
    fn a_statement_tells_whose_statements_it_has_seen_and_since_when_it_is_not_pinned() {
        let mut loose = held(1);
        (loose.pinned, loose.unpinned_since) = (false, 2);
        let read = seal(&loose).unwrap().open(&epoch()).unwrap();
        assert_eq!(read, loose);
        assert_eq!(read.has_seen(&DeviceId([1; 32])), 7);
        assert_eq!(read.has_seen(&DeviceId([3; 32])), 0);
    }

    #[test]
    fn more_seen_than_a_statement_says_or_twice_is_refused() {
        let mut many = held(0);
        many.seen = (0..=MAX_SEEN)
            .map(|n| (DeviceId(Hash::of("test", &[&n.to_le_bytes()]).0), 1))
            .collect();
        many.seen.sort();
        assert!(matches!(seal(&many), Err(HeldError::TooLarge(_))));
        many.seen.pop();
        assert!(seal(&many).is_ok());
        many.seen[1] = many.seen[0];
        assert!(seal(&many).is_err());
    }

    fn seal(held: &Held) -> Result<HeldStatement, HeldError> {
        let mut rng = ChaCha12Rng::seed_from_u64(6);
        held.seal(&key(), VAULT, SpaceId::HOME, &epoch(), &mut rng)
    }

    #[test]
    fn a_statement_returns_what_it_said() {
        for writers in [0, 1, 200] {
            let sealed = seal(&held(writers)).unwrap();
            let read = HeldStatement::read(sealed.bytes(), &VAULT).unwrap();
            assert_eq!(read.open(&epoch()), Ok(held(writers)));
        }
    }

    #[test]
    fn another_vault_or_epoch_is_refused() {
        let sealed = seal(&held(1)).unwrap();
        assert_eq!(
            HeldStatement::read(sealed.bytes(), &VaultId::NONE),
            Err(HeldError::WrongVault(VAULT))
        );
        assert_eq!(
            sealed.open(&EpochKey::from_secret(&[6; 32])),
            Err(HeldError::WrongEpoch(epoch().id()))
        );
    }

    #[test]
    fn only_a_later_statement_of_the_same_device_replaces() {
        let with = |change: fn(&mut Statement)| {
            let mut statement = seal(&held(1)).unwrap().value().clone();
            change(&mut statement);
            statement
        };
        let old = with(|_| ());
        assert!(with(|statement| statement.counter = 4).replaces(&old));
        assert!(!with(|_| ()).replaces(&old));
        assert!(!with(|statement| statement.counter = 2).replaces(&old));
        let other = with(|statement| {
            statement.counter = 4;
            statement.device = DeviceId([9; 32]);
        });
        assert!(!other.replaces(&old));
    }

    #[test]
    fn what_was_sealed_for_one_counter_does_not_open_under_another() {
        let mut statement = seal(&held(1)).unwrap().value().clone();
        statement.counter += 1;
        let replayed = HeldStatement::sign(statement, &key()).unwrap();
        assert_eq!(replayed.open(&epoch()), Err(HeldError::CannotOpen));
    }

    #[test]
    fn too_many_or_unordered_exceptions_are_not_said() {
        let mut many = held(0);
        many.exceptions = (0..=MAX_EXCEPTIONS).map(|n| format!("{n:03}")).collect();
        assert!(matches!(seal(&many), Err(HeldError::TooLarge(_))));
        many.exceptions.pop();
        assert!(seal(&many).is_ok());
        many.exceptions.reverse();
        assert!(seal(&many).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn an_altered_statement_is_refused(at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = seal(&held(2)).unwrap().bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(HeldStatement::read(&bytes, &VAULT).is_err());
            prop_assert!(HeldStatement::read(&bytes[..at], &VAULT).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_no_statement(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(HeldStatement::decode(&bytes).is_err());
            for each in [1, 2] {
                if let Some(version) = bytes.first_mut() {
                    *version = each;
                }
                prop_assert!(HeldStatement::decode(&bytes).is_err());
            }
            let _ = codec::decode::<Plain>(&bytes, PLAIN_MAX_LEN);
            let _ = codec::decode::<Plain1>(&bytes, PLAIN_MAX_LEN);
        }
    }
}
