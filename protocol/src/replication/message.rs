//! The messages of replication and their bytes.
//!
//! Each is one length-prefixed frame of a stream (the shell's business) whose content is the
//! canonical encoding of [`Message`]: a variant number, then its fields. `Hello` is frozen for all
//! versions of the protocol; the other variants belong to the version that the two Hellos agree on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::byte_strings::ByteStrings;
use crate::codec::{self, CodecError};
use crate::identity::{DeviceId, Hash, VaultId, WriterId};
use crate::log::Clock;
use crate::ranges::RANGE_MAX_LEN;

/// Most bytes of one encoded message: one entry of the largest size and room for its neighbours.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Bytes of entries at which a sender closes an `Entries` message: large enough that framing costs
/// nothing, small enough that a live edit behind it does not wait long.
pub const ENTRIES_TARGET: usize = 1 << 20;
/// Most entries in one message. The smallest entry has some 300 bytes, so `ENTRIES_TARGET` comes first.
pub const MAX_ENTRIES: usize = 8192;
/// Most grants in one message: all that a vault can have.
pub const MAX_GRANTS: usize = crate::grants::MAX_GRANTS;
/// Bytes of grants at which a sender closes a `Grants` message. Larger than for entries: a receiver
/// that knows half of the grants only may send back what it thinks is lacking.
const GRANTS_TARGET: usize = 4 << 20;
/// Most heads of the grant DAG: as many owners as can act without having seen each other.
pub const MAX_HEADS: usize = 64;
/// Most bytes of one held statement.
pub const MAX_STATEMENT: usize = 1 << 20;
/// Most ranges that a vault has, and that one message names: of 4,096 entries each, thirty million entries.
pub const MAX_RANGES: usize = 8192;
/// Most attestations of one range: of each device that was ever in the vault, one.
pub const MAX_ATTESTATIONS: usize = 4096;
/// Most protocol versions that one Hello names.
const MAX_VERSIONS: usize = 16;

/// What one peer says to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The first message of each side.
    Hello {
        /// Versions of this protocol that the sender speaks.
        #[serde(with = "codec::List::<MAX_VERSIONS>")]
        versions: Vec<u16>,
        /// The vault that the sender replicates on this stream.
        vault: VaultId,
        /// Heads of the grants that the sender has.
        #[serde(with = "codec::List::<MAX_HEADS>")]
        grant_heads: Vec<Hash>,
        /// What the sender durably has.
        clock: Clock,
    },
    /// Grants that the receiver may lack, parents first.
    Grants {
        /// Heads of all grants that the sender has.
        #[serde(with = "codec::List::<MAX_HEADS>")]
        heads: Vec<Hash>,
        /// Signed grants, encoded.
        #[serde(with = "ByteStrings::<MAX_GRANTS, MAX_MESSAGE>")]
        grants: Vec<Vec<u8>>,
    },
    /// Entries; those of one writer in the order of their numbers.
    Entries(#[serde(with = "ByteStrings::<MAX_ENTRIES, MAX_MESSAGE>")] Vec<Vec<u8>>),
    /// The newest held statement of one device.
    Held {
        /// Whose it is; the statement proves it.
        device: DeviceId,
        /// Signed and sealed; of a host a [`HostStatement`](crate::relay::HostStatement), which is clear.
        #[serde(with = "codec::Bytes::<MAX_STATEMENT>")]
        statement: Vec<u8>,
    },
    /// Asks for the grants that a device with these heads lacks. Answered by `Grants`, maybe empty.
    NeedGrants {
        /// Heads of the grants that the sender has.
        #[serde(with = "codec::List::<MAX_HEADS>")]
        heads: Vec<Hash>,
    },
    /// Asks for everything beyond `clock` again. Answered by `Again`, then entries.
    NeedEntries {
        /// Counts the sender's questions on this connection, from 1.
        round: u32,
        /// What the sender durably has.
        clock: Clock,
    },
    /// What follows answers the question of this number.
    Again {
        /// The number from `NeedEntries`.
        round: u32,
    },
    /// What the sender durably has now, as far as it changed since its last announcement.
    Clock(Clock),
    /// The sender ends replication.
    Bye {
        /// Why.
        reason: ByeReason,
    },
    /// Ranges that the sender has, or of which it has heard more. From version 2 on, as what follows.
    Ranges(#[serde(with = "codec::List::<MAX_RANGES>")] Vec<RangeName>),
    /// Asks for ranges, or for what was said of them. Answered by `Range` and `Attestations`, as far as they are there.
    NeedRanges {
        /// Ranges that are lacking.
        #[serde(with = "codec::List::<MAX_RANGES>")]
        ranges: Vec<RangeName>,
        /// Those of which the sender has not heard the same.
        #[serde(with = "codec::List::<MAX_RANGES>")]
        said: Vec<RangeName>,
    },
    /// A range, and all that was said of it: an answer, or in the place of entries.
    Range {
        /// It, encoded.
        #[serde(with = "codec::Bytes::<RANGE_MAX_LEN>")]
        range: Vec<u8>,
        /// Signed attestations, encoded.
        #[serde(with = "ByteStrings::<MAX_ATTESTATIONS, MAX_MESSAGE>")]
        attestations: Vec<Vec<u8>>,
    },
    /// Signed attestations, encoded.
    Attestations(#[serde(with = "ByteStrings::<MAX_ATTESTATIONS, MAX_MESSAGE>")] Vec<Vec<u8>>),
}

/// By what two devices see whether they have the same of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeName {
    /// Whose log it is of.
    pub writer: WriterId,
    /// The last entry that it stands for.
    pub to: u64,
    /// Its [id](crate::ranges::Head::id).
    pub id: Hash,
    /// What was [said](crate::ranges::said) of it, as far as the sender has heard.
    pub said: Hash,
}

/// Why a peer ends replication: a number, so that a later program's reasons decode too.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByeReason(pub u16);

impl ByeReason {
    /// The program stops, or the stream is not needed now.
    pub const LEAVING: Self = Self(0);
    /// The receiver's Hello names another vault.
    pub const OTHER_VAULT: Self = Self(1);
    /// The receiver's Hello names no version that the sender speaks.
    pub const NO_COMMON_VERSION: Self = Self(2);
    /// The receiver broke the protocol.
    pub const VIOLATION: Self = Self(3);
    /// The receiver was put out of the vault, or asked for by a device that was; the grants that say so
    /// were sent before.
    pub const PUT_OUT: Self = Self(4);
}

impl fmt::Display for ByeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LEAVING => f.write_str("it is leaving"),
            Self::OTHER_VAULT => f.write_str("it belongs to another vault"),
            Self::NO_COMMON_VERSION => f.write_str("it speaks no version in common"),
            Self::VIOLATION => f.write_str("it refused what we sent"),
            Self::PUT_OUT => f.write_str("one of the two is not in the vault any more"),
            Self(other) => write!(f, "reason {other}"),
        }
    }
}

impl fmt::Debug for ByeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Message {
    /// The messages that carry these grants, parents first, with the sender's `heads`: each of at most
    /// 4 MiB and a grant, and at least one, as no grants are an answer too.
    pub fn grants(heads: &[Hash], grants: Vec<Vec<u8>>) -> Vec<Message> {
        let heads: Vec<Hash> = heads.iter().take(MAX_HEADS).copied().collect();
        let mut parts = vec![Vec::new()];
        let mut len = 0;
        for grant in grants {
            if len + grant.len() > GRANTS_TARGET
                || parts.last().is_some_and(|p| p.len() == MAX_GRANTS)
            {
                parts.push(Vec::new());
                len = 0;
            }
            len += grant.len();
            if let Some(part) = parts.last_mut() {
                part.push(grant);
            }
        }
        parts
            .into_iter()
            .map(|grants| Message::Grants {
                heads: heads.clone(),
                grants,
            })
            .collect()
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads one message, of at most [`MAX_MESSAGE`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, MAX_MESSAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::WriterId;
    use proptest::prelude::*;

    const B: DeviceId = DeviceId([0xbb; 32]);
    const C: DeviceId = DeviceId([0xcc; 32]);
    const NAME: RangeName = RangeName {
        writer: WriterId {
            device: B,
            incarnation: 0,
        },
        to: 300,
        id: Hash([1; 32]),
        said: Hash([2; 32]),
    };

    #[test]
    fn many_grants_are_split_and_none_are_one_message() {
        let heads = [Hash([1; 32])];
        assert_eq!(Message::grants(&heads, Vec::new()).len(), 1);
        let grants: Vec<Vec<u8>> = (0..20).map(|n| vec![n; 300 << 10]).collect();
        let messages = Message::grants(&heads, grants.clone());
        assert_eq!(messages.len(), 2);
        let mut sent = Vec::new();
        for message in messages {
            assert!(message.encode().len() <= MAX_MESSAGE);
            if let Message::Grants { grants, .. } = message {
                sent.extend(grants);
            }
        }
        assert_eq!(sent, grants);
    }

    #[test]
    fn frozen_messages() {
        let mut named = Clock::new();
        let writer = WriterId {
            device: B,
            incarnation: 0,
        };
        named.observe(writer, 300, Hash([0xdd; 32]));
        let name = [
            &"bb".repeat(32),
            "00ac02",
            &"01".repeat(32),
            &"02".repeat(32),
        ]
        .concat();
        let clock_hex = ["01", &"bb".repeat(32), "00ac02", &"dd".repeat(32)].concat();
        for (message, frozen) in [
            (
                Message::Hello {
                    versions: vec![1],
                    vault: VaultId([7; 32]),
                    grant_heads: vec![Hash([1; 32])],
                    clock: named.clone(),
                },
                [
                    "000101",
                    &"07".repeat(32),
                    "01",
                    &"01".repeat(32),
                    &clock_hex,
                ]
                .concat(),
            ),
            (
                Message::Grants {
                    heads: vec![Hash([5; 32])],
                    grants: vec![vec![1, 2, 3]],
                },
                ["0101", &"05".repeat(32), "0103010203"].concat(),
            ),
            (
                Message::Entries(vec![vec![0xe1, 0xe2], vec![0xe3]]),
                "020202e1e201e3".into(),
            ),
            (
                Message::Held {
                    device: C,
                    statement: vec![9],
                },
                ["03", &"cc".repeat(32), "0109"].concat(),
            ),
            (Message::NeedGrants { heads: Vec::new() }, "0400".into()),
            (
                Message::NeedEntries {
                    round: 1,
                    clock: named.clone(),
                },
                ["0501", &clock_hex].concat(),
            ),
            (Message::Again { round: 1 }, "0601".into()),
            (Message::Clock(named), ["07", &clock_hex].concat()),
            (
                Message::Bye {
                    reason: ByeReason::VIOLATION,
                },
                "0803".into(),
            ),
            (Message::Ranges(vec![NAME]), ["0901", &name].concat()),
            (
                Message::NeedRanges {
                    ranges: vec![NAME],
                    said: Vec::new(),
                },
                ["0a01", &name, "00"].concat(),
            ),
            (
                Message::Range {
                    range: vec![0xe1, 0xe2],
                    attestations: vec![vec![0xe3]],
                },
                "0b02e1e20101e3".into(),
            ),
            (Message::Attestations(vec![vec![9]]), "0c010109".into()),
        ] {
            assert_eq!(hex::encode(message.encode()), frozen);
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    proptest! {
        #[test]
        fn whatever_decodes_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }

        #[test]
        fn entries_read_back(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let message = Message::Entries(entries);
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }
}
