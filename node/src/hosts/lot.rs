//! Contents that are brought to a host together.
//!
//! A lot holds some contents and all blobs that they are made of, each once, in an order that tells nothing of which
//! belong together. The host is asked which it has, and given those that it lacks; when it has all blobs of a content,
//! the content is confirmed. An earlier content of which a blob is neither there nor here may be nowhere any more: it is
//! brought by whoever has it, and nobody waits for it.

use std::collections::{BTreeMap, HashSet};

use coffer_crdt::files::FileId;
use coffer_protocol::identity::{DeviceId, Hash};
use rand::Rng;
use rand::seq::SliceRandom;

use super::content::ContentKey;
use super::{HostChange, TroubleKind};

/// Blobs of one lot, unless a single content has more: one question to the host.
pub const LOT_BLOBS: usize = coffer_protocol::relay::MAX_HAVE;
/// Bytes of one lot, unless a single content has more: what is confirmed at a time, some seconds' worth.
pub const LOT_BYTES: u64 = 256 << 20;

/// A content that is brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Which.
    pub key: ContentKey,
    /// The file that names it.
    pub file: FileId,
    /// Whether it is a former content of the file, or the file is in the trash.
    pub earlier: bool,
    /// Other hosts that have confirmed it, and against which nothing is known.
    pub elsewhere: Vec<DeviceId>,
    /// Bytes of it, as people count them.
    pub bytes: u64,
    /// Whether the host had confirmed it before.
    pub confirmed: bool,
    /// The blobs that it is made of.
    pub blobs: Vec<Hash>,
}

/// See above.
#[derive(Debug, Default)]
pub struct Lot {
    contents: Vec<Content>,
    count: usize,
    bytes: u64,
    there: HashSet<Hash>,
    not_here: HashSet<Hash>,
}

/// What a host lacks of a lot once all that is here was brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// Contents that it is to have, and their bytes.
    pub contents: (u64, u64),
    /// Files of which it lacks earlier contents that are not here either, nor at another host: nobody may have them any more.
    /// Each with a blob that is neither there nor here.
    pub may_be_nowhere: BTreeMap<FileId, Hash>,
}

impl Lacks {
    /// Adds what it lacks of another lot.
    pub fn add(&mut self, other: Lacks) {
        self.contents.0 += other.contents.0;
        self.contents.1 += other.contents.1;
        self.may_be_nowhere.extend(other.may_be_nowhere);
    }
}

impl Lot {
    /// Adds a content.
    pub fn add(&mut self, content: Content) {
        self.count += content.blobs.len();
        self.bytes += content.bytes;
        self.contents.push(content);
    }

    /// Whether it should be brought before more is added.
    pub fn is_full(&self) -> bool {
        self.count >= LOT_BLOBS || self.bytes >= LOT_BYTES || self.contents.len() >= LOT_BLOBS
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// All blobs, each once, shuffled.
    pub fn blobs(&self, rng: &mut impl Rng) -> Vec<Hash> {
        let blobs = self.contents.iter().flat_map(|content| &content.blobs);
        let mut blobs: Vec<Hash> = blobs.copied().collect();
        blobs.sort_unstable();
        blobs.dedup();
        blobs.shuffle(rng);
        blobs
    }

    /// The host has these.
    pub fn has(&mut self, blobs: impl IntoIterator<Item = Hash>) {
        self.there.extend(blobs);
    }

    /// Blobs of contents that another host has confirmed: of earlier ones, and of `present` ones too.
    pub fn at(&self, other: DeviceId, present: bool) -> HashSet<Hash> {
        let contents = self
            .contents
            .iter()
            .filter(|content| content.elsewhere.contains(&other) && (content.earlier || present));
        contents
            .flat_map(|content| &content.blobs)
            .copied()
            .collect()
    }

    /// Another host turned out not to have these blobs: what of these contents it had confirmed it has lost.
    pub fn lost_elsewhere(&mut self, other: DeviceId, blobs: &HashSet<Hash>) -> Vec<HostChange> {
        let mut keys = Vec::new();
        for content in &mut self.contents {
            let is_at = content.elsewhere.iter().position(|host| *host == other);
            if let Some(at) =
                is_at.filter(|_| content.blobs.iter().any(|blob| blobs.contains(blob)))
            {
                content.elsewhere.remove(at);
                keys.push(content.key);
            }
        }
        match keys.is_empty() {
            true => Vec::new(),
            false => vec![
                HostChange::Unconfirmed(other, keys),
                HostChange::Trouble(other, TroubleKind::LostContents),
            ],
        }
    }

    /// The host lacks these, and they are not here.
    pub fn not_here(&mut self, blobs: impl IntoIterator<Item = Hash>) {
        self.not_here.extend(blobs);
    }

    /// What the host lacks now.
    pub fn lacks(&self) -> Lacks {
        let mut lacks = Lacks::default();
        for content in self.split().1 {
            let mut blobs = content.blobs.iter();
            let is_gone = |blob: &&Hash| !self.there.contains(blob) && self.not_here.contains(blob);
            let may_be_nowhere = content.earlier && content.elsewhere.is_empty();
            match blobs.find(is_gone).filter(|_| may_be_nowhere) {
                Some(blob) => drop(lacks.may_be_nowhere.insert(content.file, *blob)),
                None => {
                    lacks.contents.0 += 1;
                    lacks.contents.1 += content.bytes;
                }
            }
        }
        lacks
    }

    /// What of its contents the host had confirmed and turns out not to have: to be noted before it is brought again, for
    /// it counts as not confirmed from then on.
    pub fn lost(&mut self, host: DeviceId) -> Vec<HostChange> {
        let mut learnt = self.learnt(host);
        learnt.retain(|change| !matches!(change, HostChange::Confirmed(..)));
        let there = &self.there;
        for content in &mut self.contents {
            content.confirmed &= content.blobs.iter().all(|blob| there.contains(blob));
        }
        learnt
    }

    /// Contents that the host turned out to have whole.
    pub fn whole(&self, host: DeviceId) -> Vec<HostChange> {
        let mut learnt = self.learnt(host);
        learnt.retain(|change| matches!(change, HostChange::Confirmed(..)));
        learnt
    }

    /// What was learnt of the host: contents that it has whole and had not confirmed before, and those that it had
    /// confirmed and does not have.
    pub fn learnt(&self, host: DeviceId) -> Vec<HostChange> {
        let keys = |contents: Vec<&Content>, confirmed: bool| -> Vec<ContentKey> {
            let contents = contents.into_iter();
            let contents = contents.filter(|content| content.confirmed == confirmed);
            contents.map(|content| content.key).collect()
        };
        let (whole, lacking) = self.split();
        let (fresh, lost) = (keys(whole, false), keys(lacking, true));
        let mut learnt = Vec::new();
        if !fresh.is_empty() {
            learnt.push(HostChange::Confirmed(host, fresh));
        }
        if !lost.is_empty() {
            learnt.push(HostChange::Unconfirmed(host, lost));
            learnt.push(HostChange::Trouble(host, TroubleKind::LostContents));
        }
        learnt
    }

    /// Contents of which the host has all blobs, and those of which it has not.
    pub fn split(&self) -> (Vec<&Content>, Vec<&Content>) {
        self.contents.iter().partition(|content| {
            let mut blobs = content.blobs.iter();
            blobs.all(|blob| self.there.contains(blob))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn hash(n: u8) -> Hash {
        Hash([n; 32])
    }

    fn content(n: u8, blobs: Vec<Hash>, bytes: u64) -> Content {
        Content {
            key: ContentKey([n; 32]),
            file: FileId([n; 16]),
            earlier: false,
            elsewhere: Vec::new(),
            bytes,
            confirmed: false,
            blobs,
        }
    }

    fn keys(contents: Vec<&Content>) -> Vec<u8> {
        contents.iter().map(|content| content.key.0[0]).collect()
    }

    #[test]
    fn a_content_is_confirmed_when_all_its_blobs_are_there_and_not_before() {
        let mut lot = Lot::default();
        lot.add(content(1, vec![hash(1), hash(2)], 10));
        lot.add(content(2, vec![hash(2), hash(3)], 10));
        lot.add(content(3, Vec::new(), 0));
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut blobs = lot.blobs(&mut rng);
        blobs.sort_unstable();
        assert_eq!(blobs, [hash(1), hash(2), hash(3)]);
        lot.has([hash(1)]);
        assert_eq!(keys(lot.split().0), [3]);
        lot.has([hash(2)]);
        let (whole, lacking) = lot.split();
        assert_eq!((keys(whole), keys(lacking)), (vec![1, 3], vec![2]));
    }

    #[test]
    fn what_is_whole_is_confirmed_once_and_what_was_confirmed_and_is_not_there_is_lost() {
        let host = DeviceId([1; 32]);
        let mut lot = Lot::default();
        for (n, confirmed) in [(1, false), (2, true), (3, true), (4, false)] {
            let blobs = vec![hash(n)];
            lot.add(Content {
                confirmed,
                ..content(n, blobs, 10)
            });
        }
        lot.has([hash(1), hash(2)]);
        let key = |n| vec![ContentKey([n; 32])];
        assert_eq!(
            lot.learnt(host),
            [
                HostChange::Confirmed(host, key(1)),
                HostChange::Unconfirmed(host, key(3)),
                HostChange::Trouble(host, TroubleKind::LostContents),
            ]
        );
        lot.has([hash(3), hash(4)]);
        let confirmed = vec![ContentKey([1; 32]), ContentKey([4; 32])];
        assert_eq!(lot.learnt(host), [HostChange::Confirmed(host, confirmed)]);
    }

    #[test]
    fn an_earlier_content_that_is_neither_there_nor_here_may_be_nowhere_and_is_not_waited_for() {
        let mut lot = Lot::default();
        let earlier = |n, blobs| Content {
            earlier: true,
            ..content(n, blobs, 10)
        };
        lot.add(earlier(1, vec![hash(1), hash(2)]));
        // Somebody was to have what is present, and what is here will come to be there.
        lot.add(content(2, vec![hash(2)], 10));
        lot.add(earlier(3, vec![hash(3)]));
        lot.add(earlier(4, vec![hash(4)]));
        lot.has([hash(1), hash(4)]);
        assert_eq!(lot.lacks().contents, (3, 30));
        lot.not_here([hash(2)]);
        let lacks = Lacks {
            contents: (2, 20),
            may_be_nowhere: [(FileId([1; 16]), hash(2))].into(),
        };
        assert_eq!(lot.lacks(), lacks);
        // Another device brought it.
        lot.has([hash(2), hash(3)]);
        assert_eq!(lot.lacks(), Lacks::default());
    }

    #[test]
    fn what_another_host_has_is_to_come_from_there_until_it_turns_out_to_have_lost_it() {
        let (other, third) = (DeviceId([7; 32]), DeviceId([8; 32]));
        let mut lot = Lot::default();
        let elsewhere = vec![other];
        lot.add(Content {
            earlier: true,
            elsewhere: elsewhere.clone(),
            ..content(1, vec![hash(1), hash(2)], 10)
        });
        lot.add(Content {
            elsewhere,
            ..content(2, vec![hash(3)], 10)
        });
        lot.not_here([hash(1), hash(2), hash(3)]);
        assert_eq!(lot.at(other, false), [hash(1), hash(2)].into());
        assert_eq!(lot.at(other, true).len(), 3);
        assert!(lot.at(third, true).is_empty());
        assert_eq!(lot.lacks().contents, (2, 20));
        assert_eq!(lot.lost_elsewhere(third, &[hash(2)].into()), []);
        assert_eq!(
            lot.lost_elsewhere(other, &[hash(2)].into()),
            [
                HostChange::Unconfirmed(other, vec![ContentKey([1; 32])]),
                HostChange::Trouble(other, TroubleKind::LostContents),
            ]
        );
        let lacks = lot.lacks();
        assert_eq!((lacks.contents, lacks.may_be_nowhere.len()), ((1, 10), 1));
        assert!(lot.at(other, false).is_empty());
    }

    #[test]
    fn a_lot_is_full_by_blobs_or_by_bytes() {
        let mut many = Lot::default();
        many.add(content(1, vec![hash(1); LOT_BLOBS], 1));
        let mut large = Lot::default();
        large.add(content(1, vec![hash(1)], LOT_BYTES));
        assert!(many.is_full() && large.is_full());
        assert!(Lot::default().is_empty() && !Lot::default().is_full());
    }
}
