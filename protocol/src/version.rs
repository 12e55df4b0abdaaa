//! Every protocol id and format version, and what changed with each.
//!
//! What shipped is frozen: a version never changes its meaning, the next is added beside it. Every
//! signed or sealed format starts with its version as one varint, which is read before anything
//! else, so that a later program's bytes are refused as *newer* and not as damaged.

/// The libp2p protocol on which peers exchange clocks, grants, entries and held statements.
pub const REPLICATE: &str = "/coffer/replicate/1";
/// The libp2p protocol on which a new device is admitted.
pub const PAIR: &str = "/coffer/pair/1";
/// The libp2p protocol of batch GET for blobs. 1: bytes, or missing.
pub const BLOBS: &str = "/coffer/blobs/1";
/// 2: questions without bytes besides, and "paused" as an answer.
pub const BLOBS_2: &str = "/coffer/blobs/2";

/// The libp2p protocol on which a vault is bound to a relay host.
pub const RELAY_JOIN: &str = "/coffer/relay-join/1";
/// The libp2p protocol on which whoever has a vault's words gets its grants, and a new device in.
pub const RECOVER_PROTOCOL: &str = "/coffer/recover/1";
/// The libp2p protocol on which devices leave blobs with a relay host, and ask after them.
pub const RELAY_BLOBS: &str = "/coffer/relay-blobs/1";

/// Grants. 1: genesis, epoch, admit. 2: revoke, role, replace, and grants by the recovery key. A new
/// kind of grant comes with a new version, so that a program which cannot read it says so instead of
/// going on without it; the older kinds are still written as version 1.
pub const GRANT: u16 = 2;
/// Entries. 1: one author's changes and clock.
pub const ENTRY: u16 = 1;
/// Ranges. 1: the changes of one log's entries, document by document.
pub const RANGE: u16 = 1;
/// What devices say of ranges. 1: that they have one, and whether they compared it.
pub const ATTESTATION: u16 = 1;
/// Held statements. 1: two clocks, exceptions, pinned. 2: since when it is not pinned, contents awaited,
/// statements seen of others.
pub const HELD: u16 = 2;
/// The recovery key at rest. 1: 32 bytes of entropy.
pub const RECOVERY: u16 = 1;
/// Recovery kits. 1: a vault, its words, hosts with addresses.
pub const KIT: u16 = 1;
/// Messages of getting a vault back with its words. 1: a proof, grants, grants back.
pub const RECOVER: u16 = 1;
/// A keyring at rest. 1: one space's epochs and secret.
pub const KEYRING: u16 = 1;
/// A keyring as it lies in a device's database. 1: sealed under the device's secret.
pub const SEALED_KEYRING: u16 = 1;
/// Messages of replication. 1: hello, grants, entries, held statements, clocks, questions. 2: ranges, and what devices say
/// of them.
pub const REPLICATION: u16 = 1;
/// The version of them that has ranges.
pub const REPLICATION_RANGES: u16 = 2;
/// Messages of pairing. 1: by link or typed code.
pub const PAIRING: u16 = 1;
/// Pairing links. 1: one inviter, its addresses, a one-time secret.
pub const INVITATION: u16 = 1;
/// Invitations to a relay host. 1: one host, its addresses, a one-time secret, a quota.
pub const HOST_INVITATION: u16 = 1;
/// Messages of binding a vault to a relay host. 1: by invitation, or as a member.
pub const HOST_JOIN: u16 = 1;
/// Statements of a relay host about one vault. 1: durable clock, counts and bytes, quota.
pub const HOST_STATEMENT: u16 = 1;
/// Orders to erase a vault on a relay host. 1: one vault, one store of one host.
pub const ERASE_ORDER: u16 = 1;
/// Receipts for erasing. 1: which order, when, how much.
pub const ERASE_RECEIPT: u16 = 1;
