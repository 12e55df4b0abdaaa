//! Thieves go on with the keys of devices that are out: what they sign and what they can read.

use std::collections::{BTreeMap, BTreeSet};

use coffer_node::vault::ranges::naming;
use coffer_node::vault::{Core, Input};
use coffer_protocol::grants::{
    Former, GrantBody, Membership, NewDevice, Recipient, Role, Seal, Writing,
};
use coffer_protocol::identity::{DeviceId, DeviceKey, EpochId, Hash, SpaceId, WriterId};
use coffer_protocol::keys::{Keyring, SealingKey};
use coffer_protocol::log::{self, Body, Entry, EntryParams, Header};
use coffer_protocol::ranges::{self, Attestation, Content, Range, RangeParams};
use coffer_protocol::replication::Message;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::Fleet;
use crate::replica::Replica;

/// An entry that a thief signed.
#[derive(Clone, Debug)]
pub(super) struct Stolen {
    writer: WriterId,
    seq: u64,
    header: Hash,
}

impl Fleet {
    /// Somebody with the keys of a device that is out has others pass on what it signs now, as of before.
    pub(super) fn thieve(&mut self, place: usize) {
        let Some(victim) = &self.replicas[place].node else {
            return;
        };
        let known = victim.core.state();
        let (former, clock) = (known.membership.former().clone(), known.clock.clone());
        let named = known.named.clone();
        let through: Vec<DeviceId> = victim.sessions.keys().copied().collect();
        let thieves: Vec<usize> = (0..self.replicas.len())
            .filter(|thief| {
                let replica = &self.replicas[*thief];
                let former = former.get(&replica.device);
                former.is_some_and(|former| !former.outs.is_empty()) && replica.node.is_some()
            })
            .collect();
        let (Some(through), Some(thief)) = (self.pick(&through), self.pick(&thieves)) else {
            return;
        };
        let identity = self.replicas[thief].identity();
        let Some(node) = &self.replicas[thief].node else {
            return;
        };
        let state = node.core.state();
        // It signs as of before it was put out, whatever it was told since.
        let outs = &former[&identity.key.id()].outs;
        let old = state.membership.grants().filter(|(id, _)| {
            let mut outs = outs.iter();
            !outs.any(|out| state.membership.builds_on(&[*id], &out.grant))
        });
        let old = old.map(|(_, grant)| grant.bytes());
        let Ok(old) = Membership::from_bytes(state.vault, old) else {
            return;
        };
        if self.rng.random_bool(0.3) {
            let core = &node.core;
            if let Some(range) = false_range(&identity.key, core, &mut self.rng) {
                self.coverage.hit("membership", "thief compacts");
                self.false_ranges.insert(range.head.id());
                let said = Attestation::sign(&identity.key, &range.head, true);
                let said = said.map(|said| said.bytes().to_vec());
                let message = Message::Range {
                    range: range.encode(),
                    attestations: said.into_iter().collect(),
                };
                self.input(place, Input::Message(through, message));
            }
            return;
        }
        if self.rng.random_bool(0.3) {
            let puppet = SealingKey::from_seed(self.rng.random()).public();
            let new = NewDevice {
                device: DeviceKey::from_secret(self.rng.random()).id(),
                sealing: &puppet,
                role: Role::Owner,
                name: "puppet",
            };
            let admission = old.admit(
                &identity.key,
                &state.keyring,
                &new,
                self.now_ms,
                &mut self.rng,
            );
            if let Ok(grant) = admission {
                self.coverage.hit("membership", "thief admits");
                let (heads, grants) = (Vec::new(), vec![grant.bytes().to_vec()]);
                self.input(
                    place,
                    Input::Message(through, Message::Grants { heads, grants }),
                );
            }
            return;
        }
        let logs: Vec<(WriterId, u64, Hash)> = clock
            .iter()
            .filter(|(writer, ..)| {
                writer.device == identity.key.id() && !named.contains_key(*writer)
            })
            .map(|(writer, seq, header)| (*writer, seq, header))
            .collect();
        let Some((writer, seq, prev)) = self.pick(&logs) else {
            return;
        };
        let Some(node) = &self.replicas[thief].node else {
            return;
        };
        let state = node.core.state();
        if is_within_a_cutoff(&self.replicas[place], &writer, seq) {
            return;
        }
        let heads = old.parents();
        let params = EntryParams {
            vault: state.vault,
            space: SpaceId::HOME,
            writer,
            seq: seq + 1,
            prev,
            grant_heads: &heads,
        };
        let body = Body {
            clock: state.clock.clone(),
            changes: Vec::new(),
        };
        let sealed = log::seal_entry(
            &identity.key,
            &params,
            &body,
            state.keyring.current(),
            &mut self.rng,
        );
        let Ok(entry) = sealed else { return };
        self.stolen.push(Stolen {
            writer,
            seq: seq + 1,
            header: entry.header_hash(),
        });
        self.coverage.hit("membership", "thief writes");
        self.event(format!(
            "a thief writes {writer} {} to {}",
            seq + 1,
            self.replicas[place].name
        ));
        let entries = vec![entry.encode()];
        self.input(place, Input::Message(through, Message::Entries(entries)));
    }

    /// What stands in the place of entries is what its writer wrote: no range that a thief made is with anybody, and the
    /// ranges of all who are in stand for the same entries.
    pub(super) fn check_ranges(&mut self) {
        let members = self.members();
        let mut seen: BTreeMap<(WriterId, u64), (u64, Hash)> = BTreeMap::new();
        for replica in &self.replicas {
            let Some(node) = replica.node.as_ref() else {
                continue;
            };
            for (place, known) in node.core.state().ranges.iter() {
                assert!(
                    !self.false_ranges.contains(&known.id),
                    "{} keeps a range that a thief made",
                    replica.name
                );
                if !members.contains(&replica.device) {
                    continue;
                }
                self.coverage.hit("compaction", "range kept");
                if known.marks.alone {
                    self.coverage.hit("compaction", "range alone");
                }
                let holds = (known.head.from, known.head.root);
                let before = *seen.entry(*place).or_insert(holds);
                assert_eq!(
                    before, holds,
                    "{}: another range of {place:?}",
                    replica.name
                );
            }
        }
    }

    /// Nobody who is in holds what a thief signed, and who is out can read nothing that was written by those who knew,
    /// with all the keys that it has and all grants at hand.
    pub(super) fn check_thieves(&self) {
        let members = self.members();
        let Some(core) = self.replicas.iter().find_map(|replica| {
            let node = replica.node.as_ref()?;
            members.contains(&replica.device).then_some(&node.core)
        }) else {
            return;
        };
        for stolen in &self.stolen {
            if !core.state().clock.covers(&stolen.writer, stolen.seq) {
                continue;
            }
            let entries = core.entries(stolen.writer, stolen.seq, stolen.seq);
            for entry in entries.unwrap_or_default() {
                let header = Entry::decode_header(&entry).map(|header| header.hash());
                assert_ne!(header, Ok(stolen.header), "a thief's entry was taken");
            }
        }
        let membership = &core.state().membership;
        for (ex, former) in membership.former() {
            if former.outs.is_empty() || former.is_undecided() {
                continue;
            }
            for (writer, last, _) in core.state().clock.iter() {
                let mut from = 1;
                while members.contains(&writer.device) && from <= last {
                    let Ok(entries) = core.entries(*writer, from, last) else {
                        return;
                    };
                    for entry in &entries {
                        check_reading(core, ex, former, entry);
                    }
                    from += entries.len().max(1) as u64;
                }
            }
        }
    }
}

/// A range of the first entries of a device's own log, made with its key, that leaves out what the first of them changed.
fn false_range(key: &DeviceKey, core: &Core, rng: &mut ChaCha8Rng) -> Option<Range> {
    let state = core.state();
    let entries = core.entries(state.writer, 1, 4).ok()?;
    let open = |bytes: &Vec<u8>| {
        let entry = Entry::decode(bytes).ok()?;
        let body = log::open_entry(&entry, state.keyring.epoch(&entry.header.epoch)?).ok()?;
        Some((entry.header, body))
    };
    let mut entries: Vec<(Header, Body)> = entries.iter().filter_map(open).collect();
    let (first, last) = (entries.first()?.0.clone(), entries.last()?.0.clone());
    let changed = entries
        .iter_mut()
        .find(|(_, body)| !body.changes.is_empty())?;
    changed.1.changes.pop();
    let run = entries.iter().map(|(header, body)| (header, body));
    let content = Content::of(run, naming).ok()?;
    let params = RangeParams {
        vault: first.vault,
        space: first.space,
        writer: first.writer,
        from: first.seq,
        to: last.seq,
        prev: first.prev,
        last: last.hash(),
    };
    let epoch = state.keyring.current();
    ranges::seal_range(key, &params, &content, naming, epoch, rng).ok()
}

/// That a device which is out cannot read an entry whose author knew of it: with all the keys that it was given by grants
/// which that author knew, or whose own authors knew that it was out. Somebody who did not know yet may pass on a key
/// meanwhile; nobody can help that.
fn check_reading(core: &Core, ex: &DeviceId, former: &Former, entry: &[u8]) {
    let membership = &core.state().membership;
    let header = Entry::decode_header(entry).expect("a stored entry can be read");
    if !membership.has_heard(&header.grant_heads, ex) {
        return;
    }
    let knew: BTreeSet<Hash> = membership
        .grants()
        .filter(|(_, grant)| membership.has_heard(&grant.value().parents, ex))
        .map(|(id, _)| id)
        .collect();
    let mut opened: BTreeSet<EpochId> = BTreeSet::new();
    loop {
        let before = opened.len();
        for (id, grant) in membership.grants() {
            let fair = membership.builds_on(&header.grant_heads, &id) || knew.contains(&id);
            if !fair {
                continue;
            }
            let is_to = |seal: &&Seal| seal.recipient == Recipient::Device(*ex);
            match &grant.value().body {
                GrantBody::Epoch(epoch) => {
                    opened.extend(epoch.seals.iter().filter(is_to).map(|seal| seal.epoch));
                    if opened.contains(&epoch.epoch) {
                        opened.extend(epoch.parents.iter().map(|parent| parent.epoch));
                    }
                }
                GrantBody::Admit { seals, .. } => {
                    opened.extend(seals.iter().filter(is_to).map(|seal| seal.epoch));
                }
                _ => {}
            }
        }
        if opened.len() == before {
            break;
        }
    }
    // An entry that only says what its author had seen may have to go under an older key.
    assert!(
        !opened.contains(&header.epoch) || is_empty(entry, &core.state().keyring),
        "{ex:?} reads what was written after it was known to be out: {header:?}, {former:?}"
    );
}

/// Whether an entry holds no changes.
fn is_empty(entry: &[u8], keyring: &Keyring) -> bool {
    let entry = Entry::decode(entry).expect("a stored entry can be read");
    let key = keyring
        .epoch(&entry.header.epoch)
        .expect("the key of an entry that was taken is here");
    let body = log::open_entry(&entry, key).expect("an entry that was taken can be opened");
    body.changes.is_empty()
}

/// Whether an entry beyond `seq` may count: then it is not for a thief to write it here.
fn is_within_a_cutoff(replica: &Replica, writer: &WriterId, seq: u64) -> bool {
    let Some(node) = &replica.node else {
        return true;
    };
    match node.core.state().membership.writing(writer) {
        Writing::Closed { upto, .. } => upto.is_some_and(|(end, _)| end > seq),
        Writing::Open | Writing::Unknown => true,
    }
}
