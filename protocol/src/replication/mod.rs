//! How two admitted devices bring each other up to date and stay so.
//!
//! Both say [`Message::Hello`]: the vault, the heads of their grants, their durable [`Clock`](crate::log::Clock). Each
//! then sends what the other lacks, grants first, and both stay connected: whatever is committed
//! later is forwarded at once to every peer that lacks it. What a peer *durably* has is only what
//! its own clock announced; what was sent to it is remembered apart, so that nothing is sent twice.
//!
//! [`Replicator`] decides and does nothing: events go in, [`Action`]s come out, and the same events
//! give the same actions. It never sees an entry's content; its shell verifies, stores and streams.
//! [`Outbox`] keeps the actions for one slow peer bounded. The bytes are in `docs/protocol/replication.md`.
//!
//! Neighbours: [`crate::log`] for entries and clocks, [`crate::grants`] for who may take part. Who
//! may connect at all is decided before: [`Replicator::connected`] is called for members only.

mod message;
mod outbox;
mod peer;
mod ranges;
mod replicator;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use message::{
    ByeReason, ENTRIES_TARGET, MAX_ATTESTATIONS, MAX_ENTRIES, MAX_GRANTS, MAX_HEADS, MAX_MESSAGE,
    MAX_RANGES, MAX_STATEMENT, Message, RangeName,
};
pub use outbox::{Outbox, Work};
pub use replicator::{MAX_HELD, Replicator};

use crate::identity::{DeviceId, Hash, WriterId};

/// What the shell has to do, in the order given (for each peer; peers are independent).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this message.
    Send {
        /// To whom.
        peer: DeviceId,
        /// What.
        message: Message,
    },
    /// Read the writer's entries `from..=to` from the store and send them in order, in
    /// [`Message::Entries`] of about [`ENTRIES_TARGET`] bytes. Nothing needs to be reported back.
    SendEntries {
        /// To whom.
        peer: DeviceId,
        /// Whose entries.
        writer: WriterId,
        /// Sequence number of the first.
        from: u64,
        /// Sequence number of the last.
        to: u64,
    },
    /// Send all grants that a peer with these heads lacks, as [`Message::Grants`] with our heads:
    /// also when it lacks none, as this may be the answer to a question.
    SendGrants {
        /// To whom.
        peer: DeviceId,
        /// The heads that it named last.
        they_have: Vec<Hash>,
    },
    /// Verify and store these grants; then call [`Replicator::grants_changed`] if the heads changed.
    IngestGrants {
        /// From whom.
        peer: DeviceId,
        /// Signed grants, encoded.
        grants: Vec<Vec<u8>>,
    },
    /// Verify and store these entries, then report [`Replicator::committed`] for what is durable
    /// and [`Replicator::rejected`] for the first that was refused.
    Ingest {
        /// From whom.
        peer: DeviceId,
        /// Encoded entries, in the order in which they came.
        entries: Vec<Vec<u8>>,
        /// To be given back with [`Replicator::rejected`].
        round: u32,
    },
    /// Verify this held statement; then call [`Replicator::held_changed`] if it is newer than what
    /// is stored.
    IngestHeld {
        /// From whom it came, which need not be whose it is.
        peer: DeviceId,
        /// Whose it claims to be.
        device: DeviceId,
        /// The signed, sealed statement.
        statement: Vec<u8>,
    },
    /// The peer knows [ranges](crate::ranges), as we do: they may be sent to it, in the place of entries too.
    KnowsRanges {
        /// Who.
        peer: DeviceId,
    },
    /// Read this range and what was said of it from the store, and send both as [`Message::Range`]. Where another one is
    /// there now, that one.
    SendRange {
        /// To whom.
        peer: DeviceId,
        /// Which.
        name: RangeName,
    },
    /// Read what was said of this range, and send it as [`Message::Attestations`].
    SendAttestations {
        /// To whom.
        peer: DeviceId,
        /// Of which.
        name: RangeName,
    },
    /// Verify and store this range, and what was said of it; then call [`Replicator::ranges_changed`] for what is new. Where
    /// it was taken in the place of entries that were not here, report [`Replicator::committed`] too; where those are
    /// not here and it was refused, [`Replicator::rejected`].
    IngestRange {
        /// From whom.
        peer: DeviceId,
        /// The range, encoded.
        range: Vec<u8>,
        /// Signed attestations, encoded.
        attestations: Vec<Vec<u8>>,
        /// To be given back with [`Replicator::rejected`].
        round: u32,
    },
    /// Verify and store what is said of ranges; then call [`Replicator::ranges_changed`] for what is new.
    IngestAttestations {
        /// From whom they came, which need not be who said it.
        peer: DeviceId,
        /// Signed attestations, encoded.
        attestations: Vec<Vec<u8>>,
    },
    /// Two different entries have one place in a log: this writer's key signs in two places. Nothing
    /// more of this log is sent to that peer on this connection.
    Fork {
        /// Who named the other entry.
        peer: DeviceId,
        /// Whose log.
        writer: WriterId,
        /// At which entry.
        seq: u64,
        /// Header hash of the entry that we have.
        ours: Hash,
        /// Header hash of the entry that the peer has.
        theirs: Hash,
    },
    /// Close the connection's replication stream, after what was to be sent before. Everything that
    /// still comes from the peer is ignored.
    Close {
        /// With whom.
        peer: DeviceId,
        /// Why.
        reason: CloseReason,
    },
}

/// Why replication with a peer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Something else came before its Hello.
    #[error("the peer did not introduce itself")]
    HelloExpected,
    /// It said Hello twice on one connection.
    #[error("the peer introduced itself twice")]
    SecondHello,
    /// It replicates another vault.
    #[error("the peer belongs to another vault")]
    OtherVault,
    /// It speaks no version that we speak.
    #[error("the peer's program speaks no version of the protocol that this one knows")]
    NoCommonVersion,
    /// It asked for the same again and again without getting on.
    #[error("the peer keeps asking for the same entries")]
    TooManyAsks,
    /// It sent entries that fail verification again and again.
    #[error("the peer keeps sending entries that are not valid")]
    InvalidEntries,
    /// It announced a clock or answer that no honest peer would.
    #[error("the peer broke the protocol")]
    Violation,
    /// One of the two was put out of the vault.
    #[error("one of the two is not in the vault any more")]
    PutOut,
    /// It said goodbye.
    #[error("the peer ended replication ({0})")]
    PeerLeft(ByeReason),
}

/// Why the shell did not take an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No grant that we have admits its writer, or it names grants that we lack.
    UnknownWriter,
    /// Its predecessor is missing.
    Gap,
    /// Its bytes, signature, or link to its predecessor are wrong.
    Invalid,
    /// It is beyond what counts of its log, as far as is known here. It is asked for again when more
    /// does: after a change of membership, or [`Replicator::more_counts`].
    NotYet,
    /// A different entry with the same writer and number is already stored.
    Forked {
        /// Whose log.
        writer: WriterId,
        /// At which entry.
        seq: u64,
        /// Header hash of the stored entry.
        ours: Hash,
        /// Header hash of the refused entry.
        theirs: Hash,
    },
}
