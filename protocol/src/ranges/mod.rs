//! Ranges: many entries of one log in the place of which one record can stand.
//!
//! A log of keystrokes is mostly headers, signatures and padding. A range holds the same changes of entries `from` to
//! `to` of one log, document by document and compressed together, with the hash of the header before it and of its
//! last entry's: so clocks, the chain of a log and everything that names an entry by number and hash go on meaning what
//! they meant. Whoever made the entries makes the range; of a closed log, the owner whom a revocation names.
//!
//! A range is only a claim. What it stands for may be dropped once a device *other* than its maker, with the keys, has
//! opened the entries and the range and [found them equal](Attestation), and every device that counts says that it has
//! them: see [`may_replace`]. So a stolen device cannot rewrite the past by "compacting" it.
//!
//! The [root](Content::root) is a hash over what every document got, in the order of the documents' names. It does not
//! depend on what a range leaves out: of a document that was purged it keeps the hash alone, so a range that was made anew
//! without it has the same root, and is checked against the old one when the entries are gone long since.
//!
//! `content.rs` says what a range holds and when two are equal, `range.rs` is its bytes, `attest.rs` what devices say of
//! it, `rule.rs` what may be made, and dropped. The bytes are in docs/protocol/ranges.md.

mod attest;
mod content;
mod range;
mod rule;
#[cfg(test)]
mod tests;

pub use attest::{Attestation, SignedAttestation};
pub use content::{
    Content, ContentError, Difference, Naming, Part, RANGE_MAX_DOCUMENTS, RANGE_MAX_ENTRIES,
    RANGE_MAX_SAID, Said,
};
pub use range::{
    HEAD_MAX_LEN, Head, RANGE_MAX_BODY_LEN, RANGE_MAX_LEN, RANGE_MAX_PLAIN_LEN, Range, RangeError,
    RangeParams, open_range, seal_longest, seal_range,
};
pub use rule::{is_vouched_for, keepers, may_attest, may_make, may_replace, said};
