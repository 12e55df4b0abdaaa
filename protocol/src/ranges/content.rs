//! What a range holds, and when it holds the same as entries, or as another range.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bytes, List, Text};
use crate::domain;
use crate::identity::Hash;
use crate::log::{
    BODY_MAX_CHANGES, Body, CHANGE_MAX_LEN, Change, Clock, DOCTYPE_MAX_LEN, Header, ID_MAX_LEN,
    MAX_GRANT_HEADS,
};

/// Entries that one range stands for, at most. A range of single keystrokes reaches its size with fewer.
pub const RANGE_MAX_ENTRIES: u64 = 65_536;
/// Documents of which one range has changes.
pub const RANGE_MAX_DOCUMENTS: usize = 65_536;
/// Different sets of grant heads that the entries of one range name. Membership changes seldom; where it changes more
/// often than this, the range ends earlier.
pub const RANGE_MAX_SAID: usize = 64;

/// How documents are named where their type and id must not be: a hash of both that the caller chooses, the same for
/// all devices.
pub type Naming = fn(doctype: &str, id: &str) -> Hash;

/// Entries, or the parts of a range, do not make a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// No entries, or not of one log, one after the other.
    #[error("these are not the entries of one log, one after the other")]
    NotARun,
    /// More than a range can hold.
    #[error("{0} is over the bound of a range")]
    TooLarge(&'static str),
    /// Parts of the range contradict each other, or are not in the one order that they have.
    #[error("the parts of the range are inconsistent")]
    Inconsistent,
}

/// What the last of those entries said that named one set of grant heads: how far its author had got in every log. That of
/// the entries before it with the same heads is less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The number of that entry.
    pub seq: u64,
    /// The grant heads, ascending.
    #[serde(with = "List::<MAX_GRANT_HEADS>")]
    pub heads: Vec<Hash>,
    /// Its clock.
    pub clock: Clock,
}

/// What a range holds of one document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// All changes, in the order in which they were made.
    Kept {
        /// The document's type.
        #[serde(with = "Text::<DOCTYPE_MAX_LEN>")]
        doctype: String,
        /// Its id.
        #[serde(with = "Text::<ID_MAX_LEN>")]
        id: String,
        /// Its changes.
        #[serde(with = "List::<BODY_MAX_CHANGES>")]
        changes: Vec<ChangeBytes>,
    },
    /// Nothing: the document was purged.
    LeftOut {
        /// Its name.
        name: Hash,
        /// What stands for its changes in the root.
        leaf: Hash,
    },
}

/// One change, opaque here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBytes(#[serde(with = "Bytes::<CHANGE_MAX_LEN>")] pub Vec<u8>);

impl Part {
    fn name(&self, naming: Naming) -> Hash {
        match self {
            Part::Kept { doctype, id, .. } => naming(doctype, id),
            Part::LeftOut { name, .. } => *name,
        }
    }

    fn leaf(&self, naming: Naming) -> Hash {
        match self {
            Part::Kept {
                doctype,
                id,
                changes,
            } => {
                let name = naming(doctype, id);
                let lengths: Vec<[u8; 8]> = changes
                    .iter()
                    .map(|change| (change.0.len() as u64).to_le_bytes())
                    .collect();
                let parts = changes
                    .iter()
                    .zip(&lengths)
                    .flat_map(|(change, length)| [&length[..], &change.0]);
                let parts: Vec<&[u8]> = std::iter::once(&name.0[..]).chain(parts).collect();
                Hash::of(domain::RANGE_DOCUMENT, &parts)
            }
            Part::LeftOut { leaf, .. } => *leaf,
        }
    }
}

/// How a range differs from what it should hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// It stands for other entries, or for other changes of them.
    #[error("the range does not hold what its entries do")]
    Root,
    /// It leaves a document out that was not purged.
    #[error("the range leaves out a document that was not purged")]
    LeftOut(Hash),
}

/// Everything that a range holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What the entries said, ascending by number.
    #[serde(with = "List::<RANGE_MAX_SAID>")]
    said: Vec<Said>,
    /// What each document got, ascending by name.
    #[serde(with = "List::<RANGE_MAX_DOCUMENTS>")]
    parts: Vec<Part>,
}

impl Content {
    /// What these entries hold, given with what they are opened to, in the order of their numbers.
    pub fn of<'a>(
        entries: impl IntoIterator<Item = (&'a Header, &'a Body)>,
        naming: Naming,
    ) -> Result<Content, ContentError> {
        let mut said: BTreeMap<&[Hash], (u64, &Clock)> = BTreeMap::new();
        let mut parts: BTreeMap<Hash, (&str, &str, Vec<ChangeBytes>)> = BTreeMap::new();
        let mut before: Option<&Header> = None;
        let mut count = 0;
        for (header, body) in entries {
            let follows = before.is_none_or(|before| {
                header.writer == before.writer
                    && header.seq == before.seq + 1
                    && header.prev == before.hash()
            });
            if !follows {
                return Err(ContentError::NotARun);
            }
            before = Some(header);
            count += 1;
            said.insert(&header.grant_heads, (header.seq, &body.clock));
            for change in &body.changes {
                let name = naming(&change.doctype, &change.id);
                let part = parts
                    .entry(name)
                    .or_insert_with(|| (&change.doctype, &change.id, Vec::new()));
                part.2.push(ChangeBytes(change.bytes.clone()));
            }
        }
        if before.is_none() {
            return Err(ContentError::NotARun);
        }
        if count > RANGE_MAX_ENTRIES {
            return Err(ContentError::TooLarge("the number of entries"));
        }
        let mut said: Vec<Said> = said
            .into_iter()
            .map(|(heads, (seq, clock))| Said {
                seq,
                heads: heads.to_vec(),
                clock: clock.clone(),
            })
            .collect();
        said.sort_by_key(|said| said.seq);
        let parts = parts
            .into_values()
            .map(|(doctype, id, changes)| Part::Kept {
                doctype: doctype.into(),
                id: id.into(),
                changes,
            });
        let content = Content {
            said,
            parts: parts.collect(),
        };
        content.check_bounds()?;
        Ok(content)
    }

    /// The same without what was purged: of such a document only that it was there.
    pub fn without(mut self, purged: impl Fn(&Hash) -> bool, naming: Naming) -> Content {
        for part in &mut self.parts {
            let name = part.name(naming);
            if purged(&name) {
                *part = Part::LeftOut {
                    name,
                    leaf: part.leaf(naming),
                };
            }
        }
        self
    }

    /// The hash of everything that it holds, or that it says to leave out.
    pub fn root(&self, naming: Naming) -> Hash {
        let said = codec::encode(&self.said);
        let leaves: Vec<Hash> = self.parts.iter().map(|part| part.leaf(naming)).collect();
        let length = (said.len() as u64).to_le_bytes();
        let front = [&length[..], &said].into_iter();
        let parts: Vec<&[u8]> = front.chain(leaves.iter().map(|leaf| &leaf.0[..])).collect();
        Hash::of(domain::RANGE_ROOT, &parts)
    }

    /// What the entries said of membership and of other logs.
    pub fn said(&self) -> &[Said] {
        &self.said
    }

    /// What each document got.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The names of documents that are left out.
    pub fn left_out(&self) -> impl Iterator<Item = Hash> {
        self.parts.iter().filter_map(|part| match part {
            Part::LeftOut { name, .. } => Some(*name),
            Part::Kept { .. } => None,
        })
    }

    /// All changes, those of one document in the order in which they were made.
    pub fn into_changes(self) -> impl Iterator<Item = Change> {
        self.parts.into_iter().flat_map(|part| {
            let (doctype, id, changes) = match part {
                Part::Kept {
                    doctype,
                    id,
                    changes,
                } => (doctype, id, changes),
                Part::LeftOut { .. } => Default::default(),
            };
            changes.into_iter().map(move |ChangeBytes(bytes)| Change {
                doctype: doctype.clone(),
                id: id.clone(),
                bytes,
            })
        })
    }

    /// Compares with what it should hold, of entries or of a range that was compared with them before: nothing may be
    /// missing but documents that were purged.
    pub fn compare(
        &self,
        whole: &Content,
        purged: impl Fn(&Hash) -> bool,
        naming: Naming,
    ) -> Result<(), Difference> {
        if let Some(name) = self.left_out().find(|name| !purged(name)) {
            return Err(Difference::LeftOut(name));
        }
        match self.root(naming) == whole.root(naming) {
            true => Ok(()),
            false => Err(Difference::Root),
        }
    }

    /// Whether it has, of each document, the changes that `begun` has, and maybe more after them: so it is where `begun` is
    /// of the first of its entries. Of what is left out nothing can be said.
    pub fn begins_with(&self, begun: &Content, naming: Naming) -> bool {
        let by_name = |content: &Content| -> BTreeMap<Hash, Option<Vec<ChangeBytes>>> {
            let parts = content.parts.iter().map(|part| {
                let changes = match part {
                    Part::Kept { changes, .. } => Some(changes.clone()),
                    Part::LeftOut { .. } => None,
                };
                (part.name(naming), changes)
            });
            parts.collect()
        };
        let all = by_name(self);
        by_name(begun)
            .into_iter()
            .all(|(name, begun)| match (all.get(&name), begun) {
                (Some(Some(all)), Some(begun)) => all.starts_with(&begun),
                (Some(_), _) => true,
                (None, _) => false,
            })
    }

    fn check_bounds(&self) -> Result<(), ContentError> {
        if self.said.len() > RANGE_MAX_SAID {
            return Err(ContentError::TooLarge("the number of grant heads"));
        }
        if self.parts.len() > RANGE_MAX_DOCUMENTS {
            return Err(ContentError::TooLarge("the number of documents"));
        }
        let too_many = |part: &Part| matches!(part, Part::Kept { changes, .. } if changes.len() > BODY_MAX_CHANGES);
        match self.parts.iter().any(too_many) {
            true => Err(ContentError::TooLarge("the number of changes")),
            false => Ok(()),
        }
    }

    /// Whether it is as [`of`](Self::of) and [`without`](Self::without) make it for entries `from` to `to`: parts and
    /// what was said in their order and none twice, nothing said by an entry outside, and something by the last.
    pub(super) fn check(&self, from: u64, to: u64, naming: Naming) -> Result<(), ContentError> {
        let names: Vec<Hash> = self.parts.iter().map(|part| part.name(naming)).collect();
        let empty = |part: &Part| matches!(part, Part::Kept { changes, .. } if changes.is_empty());
        let heads: BTreeSet<&[Hash]> = self.said.iter().map(|said| &said.heads[..]).collect();
        let is_good = names.is_sorted_by(|a, b| a < b)
            && !self.parts.iter().any(empty)
            && self.said.is_sorted_by(|a, b| a.seq < b.seq)
            && heads.len() == self.said.len()
            && self.said.iter().all(|said| {
                said.seq >= from && !said.heads.is_empty() && said.heads.is_sorted_by(|a, b| a < b)
            })
            && self.said.last().is_some_and(|said| said.seq == to);
        match is_good {
            true => Ok(()),
            false => Err(ContentError::Inconsistent),
        }
    }
}
