//! What a person says of a file's contents beyond the present one: that one is to be kept for ever, or that what was in
//! the trash is to go for good.
//!
//! A [`Tag`] stands under a root key of its own for each content, so that tags which two devices set both stay. A
//! [`Purge`] is one register; like a deletion it carries the clock of what its author had seen, and reaches only that: a
//! deletion or an edit that the author did not know of keeps the file in the trash, or out of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::{FileError, Stamped, latest_of, scalar};
use super::registers::{MAX_CLOCK_WRITERS, Register, RegisterError};
use super::{Actor, Content, Dot, Stamp};
use crate::retention::VersionId;
use crate::{Document, NewChange};

/// The longest label of a tag, in bytes.
pub const MAX_TAG_BYTES: usize = 256;

/// Before the id of the content that it is for, the root key of a [`Tag`].
const TAG_PREFIX: &str = "tag ";

/// That a file or folder that was in the trash is to go for good, with all that is in the trash below it: the register
/// `purge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// What its author had seen: writer → number of that writer's last entry, the purging entry included.
    pub clock: BTreeMap<Actor, u64>,
    /// When it was purged.
    pub stamp: Stamp,
    /// The entry that did so.
    pub dot: Dot,
}

impl Purge {
    /// Whether the author had seen what was written with that dot.
    pub fn covers(&self, dot: Dot) -> bool {
        self.clock
            .get(&dot.writer)
            .is_some_and(|&seen| dot.seq <= seen)
    }
}

impl Register for Purge {
    const FIELD: &'static str = "purge";
    const MAX_BYTES: usize = MAX_CLOCK_WRITERS * 26 + 64;

    fn flaw(&self) -> Option<&'static str> {
        (self.clock.len() > MAX_CLOCK_WRITERS).then_some("the clock names too many writers")
    }
}

/// That a content is to be kept for ever, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// What a person calls it, up to [`MAX_TAG_BYTES`], perhaps nothing; `None` where the tag was taken away.
    pub label: Option<String>,
    /// When it was set or taken away.
    pub stamp: Stamp,
    /// The entry that did so.
    pub dot: Dot,
}

impl Register for Tag {
    const FIELD: &'static str = "tag";
    const MAX_BYTES: usize = MAX_TAG_BYTES + 64;

    fn flaw(&self) -> Option<&'static str> {
        self.label
            .as_ref()
            .is_some_and(|label| label.len() > MAX_TAG_BYTES)
            .then_some("the label of the tag is too long")
    }
}

impl Stamped for Purge {
    fn stamp(&self) -> (Stamp, Dot) {
        (self.stamp, self.dot)
    }
}

impl Stamped for Tag {
    fn stamp(&self) -> (Stamp, Dot) {
        (self.stamp, self.dot)
    }
}

impl Content {
    /// What names this content among those of its file.
    pub fn version(&self) -> VersionId {
        VersionId {
            stamp: self.stamp,
            writer: self.dot.writer,
        }
    }
}

/// What a document says of purging: the latest value that can be read.
pub fn purge(document: &Document) -> Option<Purge> {
    latest_of(&document.get_all_scalars(Purge::FIELD))
        .ok()
        .flatten()
}

/// The tags of a file: which of its contents, and the label. What cannot be read is left out.
pub fn tags(document: &Document) -> BTreeMap<VersionId, String> {
    document
        .keys_from(TAG_PREFIX)
        .into_iter()
        .filter_map(|key| {
            let version = version_of(&key)?;
            let tag: Tag = latest_of(&document.get_all_scalars(&key)).ok()??;
            Some((version, tag.label?))
        })
        .collect()
}

/// Whether any tag was ever set.
pub fn has_tags(document: &Document) -> bool {
    !document.keys_from(TAG_PREFIX).is_empty()
}

/// The tag of one content as it was last set or taken away: a new one must be stamped after it.
pub fn tag(document: &Document, version: VersionId) -> Option<Tag> {
    latest_of(&document.get_all_scalars(&tag_key(version)))
        .ok()
        .flatten()
}

/// Purges a file, as one change.
pub fn set_purge(
    document: &mut Document,
    purge: &Purge,
    actor: Actor,
    time_ms: i64,
) -> Result<NewChange, FileError> {
    Ok(document.set_scalars(&[scalar(purge)?], actor, time_ms)?)
}

/// Sets or takes away the tag of one content, as one change.
///
/// # Errors
/// [`FileError::Register`] for a label that is too long.
pub fn set_tag(
    document: &mut Document,
    version: VersionId,
    tag: &Tag,
    actor: Actor,
    time_ms: i64,
) -> Result<NewChange, FileError> {
    let (_, value) = scalar(tag)?;
    Ok(document.set_scalars(&[(&tag_key(version), value)], actor, time_ms)?)
}

fn tag_key(version: VersionId) -> String {
    format!(
        "{TAG_PREFIX}{:016x}{}",
        version.stamp.0,
        hex::encode(version.writer)
    )
}

/// Reads exactly what [`tag_key`] writes.
fn version_of(key: &str) -> Option<VersionId> {
    let mut bytes = [0; 24];
    hex::decode_to_slice(key.strip_prefix(TAG_PREFIX)?, &mut bytes).ok()?;
    let (stamp, writer) = bytes.split_at(8);
    let version = VersionId {
        stamp: Stamp(u64::from_be_bytes(stamp.try_into().ok()?)),
        writer: writer.try_into().ok()?,
    };
    (tag_key(version) == key).then_some(version)
}

/// Checks what a person calls a tag.
///
/// # Errors
/// [`RegisterError::OutOfBounds`].
pub fn check_label(label: &str) -> Result<(), RegisterError> {
    if label.len() > MAX_TAG_BYTES || label.chars().any(char::is_control) {
        return Err(RegisterError::OutOfBounds {
            field: Tag::FIELD,
            what: "the label of a tag has up to 256 bytes and no control characters",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScalarValue;
    use proptest::prelude::*;

    const ME: Actor = [7; 16];

    fn dot(seq: u64) -> Dot {
        Dot { writer: ME, seq }
    }

    fn version(ms: i64) -> VersionId {
        VersionId {
            stamp: Stamp::from_ms(ms),
            writer: ME,
        }
    }

    fn tagged(label: Option<&str>, ms: i64) -> Tag {
        Tag {
            label: label.map(str::to_owned),
            stamp: Stamp::from_ms(ms),
            dot: dot(1),
        }
    }

    #[test]
    fn tags_of_two_devices_both_stay_and_can_be_taken_away() {
        let mut document = Document::empty();
        let first = set_tag(&mut document, version(5), &tagged(Some("a"), 10), ME, 0).unwrap();
        let mut other = Document::empty();
        other.apply(&first.bytes).unwrap();
        set_tag(&mut document, version(6), &tagged(Some(""), 11), ME, 0).unwrap();
        let apart = set_tag(&mut other, version(7), &tagged(Some("b"), 12), [8; 16], 0).unwrap();
        document.apply(&apart.bytes).unwrap();
        assert_eq!(
            tags(&document).into_iter().collect::<Vec<_>>(),
            [
                (version(5), "a".to_owned()),
                (version(6), String::new()),
                (version(7), "b".to_owned())
            ]
        );
        set_tag(&mut document, version(5), &tagged(None, 13), ME, 0).unwrap();
        assert_eq!(tags(&document).len(), 2);
        assert_eq!(tag(&document, version(5)), Some(tagged(None, 13)));
    }

    /// These bytes are in people's vaults: a change here is a new version, never another reading of this one.
    #[test]
    fn bytes_of_tags_and_purges_are_frozen() {
        let tag = tagged(Some("as sent"), 1_795_305_600_000);
        let purge = Purge {
            clock: [(ME, 300)].into(),
            stamp: Stamp(5),
            dot: dot(300),
        };
        assert_eq!(
            hex::encode(tag.encode().unwrap()),
            format!(
                "01010761732073656e74808080a0d79180d101{}01",
                "07".repeat(16)
            )
        );
        assert_eq!(
            hex::encode(purge.encode().unwrap()),
            format!("0101{0}ac0205{0}ac02", "07".repeat(16))
        );
        assert_eq!(
            tag_key(version(1_795_305_600_000)),
            format!("tag 01a2008d74000000{}", "07".repeat(16))
        );
        assert_eq!(Purge::decode(&purge.encode().unwrap()), Ok(purge));
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_read_one_way_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(tag) = Tag::decode(&bytes) {
                prop_assert_eq!(tag.encode().unwrap(), bytes.clone());
            }
            if let Ok(purge) = Purge::decode(&bytes) {
                prop_assert_eq!(purge.encode().unwrap(), bytes);
            }
        }

        #[test]
        fn foreign_keys_and_values_never_panic(key in "(tag )?[0-9a-fA-F]{0,50}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut document = Document::empty();
            document.set_scalars(&[(&*key, ScalarValue::Bytes(bytes.clone())), ("purge", ScalarValue::Bytes(bytes))], ME, 0).ok();
            let _ = (tags(&document), purge(&document));
        }
    }
}
