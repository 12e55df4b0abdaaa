//! A folder with a vault of which everything is made up, but signed and sealed as the real ones are.

mod damage;
mod frozen;
mod ranges;
mod runs;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use coffer_protocol::grants;
use coffer_protocol::identity::{DeviceKey, Hash, SpaceId, VaultId, WriterId};
use coffer_protocol::keys::SealingKey;
use coffer_protocol::log::{Body, Clock, EntryParams, seal_entry};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

use super::piece;
use super::{Added, Archive, ArchiveError, Run, Writer};
use crate::blobs::Shelf;

/// A vault with one device.
pub struct Made {
    pub vault: VaultId,
    pub key: DeviceKey,
    pub grants: Vec<Vec<u8>>,
    pub entries: Vec<(Hash, Vec<u8>)>,
    pub writer: WriterId,
}

impl Made {
    /// One whose device wrote `entries`.
    pub fn with(entries: u64) -> Made {
        let mut rng = ChaCha12Rng::seed_from_u64(7);
        let key = DeviceKey::generate(&mut rng);
        let sealing = SealingKey::from_seed([3; 32]);
        let founded = grants::found(&key, &sealing, "first", 1, &mut rng).unwrap();
        let vault = founded.membership.vault();
        let heads = founded.membership.heads();
        let epoch = founded.membership.writable_epoch(SpaceId::HOME).unwrap();
        let epoch = founded.keyring.epoch(&epoch).unwrap();
        let writer = WriterId {
            device: key.id(),
            incarnation: 9,
        };
        let mut made = Made {
            vault,
            grants: founded
                .membership
                .grants()
                .map(|(_, grant)| grant.bytes().to_vec())
                .collect(),
            key: key.clone(),
            entries: Vec::new(),
            writer,
        };
        for seq in 1..=entries {
            let params = EntryParams {
                vault,
                space: SpaceId::HOME,
                writer,
                seq,
                prev: made.entries.last().map_or(Hash::ZERO, |(hash, _)| *hash),
                grant_heads: &heads,
            };
            let body = Body {
                clock: Clock::new(),
                changes: Vec::new(),
            };
            let entry = seal_entry(&key, &params, &body, epoch, &mut rng).unwrap();
            made.entries.push((entry.header_hash(), entry.encode()));
        }
        made
    }

    /// What a run up to entry `upto` would say.
    pub fn run(&self, number: u64, upto: u64) -> Run {
        let mut clock = Clock::new();
        if upto > 0 {
            clock.observe(self.writer, upto, self.entries[upto as usize - 1].0);
        }
        Run {
            version: Run::VERSION,
            vault: self.vault,
            device: self.key.id(),
            number,
            at_ms: 1000 * number,
            clock,
            grants: self.grants.len() as u32,
            contents: 1,
            content_bytes: 2,
            missing: 0,
            missing_bytes: 0,
            missing_earlier: 0,
        }
    }

    /// Adds to `writer` all that it lacks of entries up to `upto`, and `blobs`.
    pub fn add(&self, writer: &mut Writer, upto: u64, blobs: &[Vec<u8>]) {
        for grant in &self.grants {
            writer.grant(grant).unwrap();
        }
        let there = writer.archive().clock().seq(&self.writer);
        for seq in there + 1..=upto {
            let (header, bytes) = &self.entries[seq as usize - 1];
            writer.entry(self.writer, (seq, *header), bytes).unwrap();
        }
        for blob in blobs {
            let name = piece::hash(blob);
            if !writer.archive().has_blob(&name) {
                writer.blob(name, blob).unwrap();
            }
        }
    }

    /// One whole run. Blobs that are not among `blobs` are given up, `all` of them or as the rule says.
    pub fn back_up(&self, dir: &Path, upto: u64, blobs: &[Vec<u8>], all: bool) -> Added {
        let mut writer = Writer::begin(dir, self.vault).unwrap();
        writer.end_pieces_at(64 << 10);
        self.add(&mut writer, upto, blobs);
        let named: HashSet<Hash> = blobs.iter().map(|blob| piece::hash(blob)).collect();
        let run = self.run(writer.number(), upto);
        let is_named = |blob: &Hash| named.contains(blob);
        let ended = writer.end(run, 0, &self.key, Some(&is_named), all);
        ended.unwrap().1
    }
}

/// Bytes that differ from those of every other number.
pub fn blob(n: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub fn has(archive: &Archive, blob: &[u8]) -> bool {
    let mut bytes = Vec::new();
    archive.sealed(&piece::hash(blob), &mut bytes) && bytes == blob
}

/// All files of a folder, with their names.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Why it cannot be opened.
pub fn refusal(dir: &Path) -> ArchiveError {
    Archive::open(dir).map(drop).unwrap_err()
}
