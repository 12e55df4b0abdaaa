//! Contents: what devices bring to hosts, as `service/hosts/bring.rs` does, and how they challenge them, as `look.rs` does.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::FileId;
use coffer_node::hosts::lot::{Content, Lot};
use coffer_node::hosts::watch::Challenge;
use coffer_node::hosts::{ContentKey, HostChange, TroubleKind};
use coffer_node::vault::hosts::Confirmed;
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::relay::{Answer, Request};
use rand::RngExt;
use redb::ReadableDatabase;

use super::Household;
use crate::oracle;

impl Household {
    /// All contents that a device knows of: which, how many bytes, and what they are made of.
    fn contents(&self, place: usize) -> BTreeMap<ContentKey, ([u8; 32], u64, Vec<Hash>)> {
        let files = oracle::file_rows(self.core(place).database());
        let files = files.unwrap_or_else(|error| panic!("{error}"));
        let contents = files.into_values().filter_map(|state| state.content);
        contents
            .filter(|content| !content.root.list().chunks.is_empty())
            .map(|content| {
                let chunks = content.root.list().chunks.iter();
                let blobs = chunks.map(|chunk| Hash(chunk.blob)).collect();
                let key = ContentKey::of(&content.root);
                (key, (content.hash, content.size, blobs))
            })
            .collect()
    }

    fn confirmed(&self, place: usize, host: DeviceId) -> Confirmed {
        let read = self.core(place).database().begin_read();
        let read = read.unwrap_or_else(|error| panic!("{error}"));
        Confirmed::new(&read, host).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A device brings a host what it lacks; `again`: asks about all of it.
    pub(super) fn bring(&mut self, place: usize, slot: usize, again: bool) {
        if !self.is_connected(place, slot) {
            return;
        }
        let (device, host) = (self.devices[place].device, self.hosts[slot].id());
        let vault = self.core(place).state().vault;
        let here: BTreeSet<[u8; 32]> = self.devices[place]
            .bytes
            .iter()
            .map(|(_, hash)| *hash)
            .collect();
        let confirmed = self.confirmed(place, host);
        let (mut lot, mut can_put) = (Lot::default(), BTreeSet::new());
        for (key, (hash, bytes, blobs)) in self.contents(place) {
            let is_confirmed = confirmed
                .has(&key)
                .unwrap_or_else(|error| panic!("{error}"));
            if is_confirmed && !again {
                continue;
            }
            if here.contains(&hash) {
                can_put.extend(blobs.iter().copied());
            }
            lot.add(Content {
                key,
                file: FileId([0; 16]),
                earlier: false,
                elsewhere: Vec::new(),
                bytes,
                confirmed: is_confirmed,
                blobs,
            });
        }
        drop(confirmed);
        let ids = lot.blobs(&mut self.rng);
        let request = Request::Have {
            vault,
            ids: ids.clone(),
            claim: true,
        };
        let Answer::Have(bits) = self.hosts[slot].answer(device, request, self.now_ms) else {
            panic!("another answer");
        };
        let (mut there, mut lacking) = (Vec::new(), Vec::new());
        for (at, id) in ids.into_iter().enumerate() {
            match bits.get(at) {
                true => there.push(id),
                false if can_put.contains(&id) => lacking.push(id),
                false => {}
            }
        }
        lot.has(there);
        // What is there no more is noted before it is brought again.
        let lost = lot.learnt(host).into_iter();
        let lost = lost.filter(|change| !matches!(change, HostChange::Confirmed(..)));
        self.note(place, lost.collect());
        let blobs = lacking.iter().map(|id| (*id, blob_bytes(*id))).collect();
        self.hosts[slot].put(blobs);
        lot.has(lacking);
        let fresh = lot.learnt(host).into_iter();
        let fresh = fresh.filter(|change| matches!(change, HostChange::Confirmed(..)));
        self.note(place, fresh.collect());
        self.coverage.hit("run", "contents brought");
    }

    /// A device asks a host for some bytes of something that it confirmed, as `service/hosts/look.rs` does. Gives the blob.
    pub(super) fn challenge(&mut self, place: usize, slot: usize) -> Option<Hash> {
        if !self.is_connected(place, slot) {
            return None;
        }
        let (device, host) = (self.devices[place].device, self.hosts[slot].id());
        let vault = self.core(place).state().vault;
        let here: BTreeSet<[u8; 32]> = self.devices[place]
            .bytes
            .iter()
            .map(|(_, hash)| *hash)
            .collect();
        let confirmed = self.confirmed(place, host);
        let has = |key: &ContentKey| confirmed.has(key).unwrap_or_else(|error| panic!("{error}"));
        let contents = self.contents(place).into_iter();
        let contents: Vec<_> = contents
            .filter(|(key, (hash, _, _))| here.contains(hash) && has(key))
            .collect();
        drop(confirmed);
        if contents.is_empty() {
            return None;
        }
        let (key, (_, _, blobs)) = &contents[self.rng.random_range(0..contents.len())];
        let blob = blobs[self.rng.random_range(0..blobs.len())];
        let challenge = Challenge::draw(blob, &blob_bytes(blob), &mut self.rng);
        let answer = self.hosts[slot].answer(device, challenge.request(vault), self.now_ms);
        if challenge.is_met(&answer) == Some(false) {
            let lost = HostChange::Unconfirmed(host, vec![*key]);
            let trouble = HostChange::Trouble(host, TroubleKind::LostContents);
            self.note(place, vec![lost, trouble]);
        }
        self.coverage.hit("run", "challenges");
        Some(blob)
    }
}

/// The bytes of a blob, which follow from its name.
pub fn blob_bytes(id: Hash) -> Vec<u8> {
    let mut bytes = vec![0; 100 + 40 * usize::from(id.0[0])];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.0).finalize_xof().fill(&mut bytes);
    bytes
}
