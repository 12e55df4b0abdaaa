//! Devices are put out, given other roles, and keys change; thieves go on with the keys of those who are out.

use std::collections::BTreeSet;

use coffer_node::vault::core::Ticket;
use coffer_node::vault::{Act, CommitError, Core, Input, Manage};
use coffer_protocol::grants::{
    Fate, Former, GrantBody, Membership, NewDevice, Recipient, Role, Seal, Writing,
};
use coffer_protocol::identity::{DeviceId, DeviceKey, EpochId, Hash, SpaceId, WriterId};
use coffer_protocol::keys::{Keyring, SealingKey};
use coffer_protocol::log::{self, Body, Entry, EntryParams};
use coffer_protocol::recovery::RecoveryKey;
use coffer_protocol::replication::Message;
use rand::RngExt;

use super::Fleet;
use super::healing::ROUNDS;
use crate::replica::Replica;

/// Decisions that a healed fleet may need: each settles the case of one device.
const DECISIONS: usize = 24;

/// Times that everybody meets everybody until all know who is in.
const CYCLES: usize = 8;

/// An entry that a thief signed.
#[derive(Clone, Debug)]
pub(super) struct Stolen {
    writer: WriterId,
    seq: u64,
    header: Hash,
}

impl Fleet {
    pub(super) fn manage(&mut self, place: usize, act: Act, words: Option<RecoveryKey>) {
        let name = match (&act, &words) {
            (Act::Revoke { .. }, None) => "revoke",
            (Act::Revoke { .. }, Some(_)) => "decided with the words",
            (Act::Role { .. }, None) => "role",
            (Act::Role { .. }, Some(_)) => "role given with the words",
            (Act::Rotate, _) => "rotate",
            (Act::Replace { .. }, _) => "other words",
            (Act::Take { .. }, _) => "let in with the words",
        };
        if self.replicas[place].node.is_none() {
            return;
        }
        self.next_ticket += 1;
        self.managing.insert(self.next_ticket, name);
        self.event(format!(
            "{} is asked {}: {act:?}",
            self.replicas[place].name, self.next_ticket
        ));
        let manage = Manage { act, words };
        self.input(place, Input::Manage(self.next_ticket, Box::new(manage)));
    }

    pub(super) fn managed(
        &mut self,
        place: usize,
        ticket: Ticket,
        result: Result<(), CommitError>,
    ) {
        let name = self.managing.remove(&ticket).unwrap_or("unknown");
        let outcome = match &result {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        self.event(format!(
            "{} answers {ticket}, {name}: {outcome}",
            self.replicas[place].name
        ));
        if result.is_ok() {
            self.coverage.hit("membership", name);
        }
    }

    /// Somebody whom `place` knows to be in, other than itself.
    fn another(&mut self, place: usize) -> Option<(DeviceId, Role)> {
        let replica = &self.replicas[place];
        let membership = &replica.node.as_ref()?.core.state().membership;
        let others: Vec<(DeviceId, Role)> = membership
            .devices()
            .iter()
            .filter(|(id, _)| **id != replica.device)
            .map(|(id, device)| (*id, device.role))
            .collect();
        self.pick(&others)
    }

    pub(super) fn revoke_some(&mut self, place: usize) {
        // Somebody stays.
        let few = self.replicas[place]
            .node
            .as_ref()
            .is_some_and(|node| node.core.state().membership.devices().len() < 3);
        if !few && let Some((device, _)) = self.another(place) {
            let undone = Vec::new();
            self.manage(place, Act::Revoke { device, undone }, None);
        }
    }

    /// Two who have not heard of it yet put each other out.
    pub(super) fn quarrel(&mut self, place: usize) {
        let enough = self.replicas[place]
            .node
            .as_ref()
            .is_some_and(|node| node.core.state().membership.devices().len() > 3);
        let Some((other, Role::Owner)) = self.another(place).filter(|_| enough) else {
            return;
        };
        let there = (0..self.replicas.len()).find(|there| {
            let replica = &self.replicas[*there];
            replica.device == other && replica.node.is_some()
        });
        if let Some(there) = there {
            let device = self.replicas[place].device;
            self.manage(
                there,
                Act::Revoke {
                    device,
                    undone: Vec::new(),
                },
                None,
            );
            let device = other;
            self.manage(
                place,
                Act::Revoke {
                    device,
                    undone: Vec::new(),
                },
                None,
            );
        }
    }

    /// Somebody admits a device while somebody else, who does not know of it, puts the admitter out.
    pub(super) fn admit_and_go(&mut self, place: usize) {
        let device = self.replicas[place].device;
        let others: Vec<usize> = (0..self.replicas.len())
            .filter(|there| {
                let Some(node) = &self.replicas[*there].node else {
                    return false;
                };
                let membership = &node.core.state().membership;
                let enough = membership.devices().len() > 3;
                self.replicas[*there].device != device && membership.is_member(&device) && enough
            })
            .collect();
        if let Some(there) = self.pick(&others) {
            self.admit(place);
            self.manage(
                there,
                Act::Revoke {
                    device,
                    undone: Vec::new(),
                },
                None,
            );
        }
    }

    /// What of the concurrent decisions a run had: counted before they are decided.
    pub(super) fn count_decisions(&mut self) {
        let Some(core) = self.replicas.iter().find_map(|replica| {
            let node = replica.node.as_ref()?;
            (!node.core.state().is_out()).then_some(&node.core)
        }) else {
            return;
        };
        let state = core.state();
        let former = state.membership.former();
        let contested = former
            .values()
            .filter(|former| former.outs.iter().any(|out| out.contested));
        let undone = state.membership.grants().filter(|(id, grant)| {
            matches!(grant.value().body, GrantBody::Admit { .. })
                && state.membership.fate(id) == Some(Fate::Void)
        });
        let late = state.clock.iter().filter(|(writer, seq, _)| {
            let Writing::Closed { upto, .. } = state.membership.writing(writer) else {
                return false;
            };
            upto.is_none_or(|(end, _)| end < *seq)
        });
        let (contested, undone) = (contested.count() as u64, undone.count() as u64);
        let late = late.count() as u64;
        let coverage = &mut self.coverage;
        coverage.add("membership", "mutual revocation", contested / 2);
        coverage.add("membership", "admitted by who was put out", undone);
        coverage.add("membership", "written before it was learned", late);
    }

    pub(super) fn change_role(&mut self, place: usize) {
        let role = [Role::Owner, Role::Member, Role::Reader][self.rng.random_range(0..3)];
        if let Some((device, had)) = self.another(place)
            && had != role
        {
            self.manage(place, Act::Role { device, role }, None);
        }
    }

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

    /// Everybody hears of everybody, and what is undecided is decided with the words; readers who may have written before
    /// they learned may write again.
    pub(super) fn decide(&mut self) {
        for decision in 0..DECISIONS {
            self.mingle_all();
            if decision == 0 {
                self.count_decisions();
            }
            let Some((place, act)) = self.open_case() else {
                return;
            };
            let words = self.words.clone();
            self.manage(place, act, words);
            self.settle(place);
        }
        panic!("the membership is not settled by {DECISIONS} decisions");
    }

    /// The first case that waits for a decision, and a device that knows of it.
    fn open_case(&self) -> Option<(usize, Act)> {
        let nodes = || {
            let all = self.replicas.iter().enumerate();
            all.filter_map(|(place, replica)| Some((place, replica.node.as_ref()?)))
        };
        let undecided = nodes().find_map(|(place, node)| {
            let former = node.core.state().membership.former();
            let (device, _) = former
                .iter()
                .find(|(_, former)| !former.outs.is_empty() && former.is_undecided())?;
            let (device, undone) = (*device, Vec::new());
            Some((place, Act::Revoke { device, undone }))
        });
        let members = self.members();
        let without_owner = || {
            nodes().find_map(|(place, node)| {
                let devices = node.core.state().membership.devices();
                let is_in = members.contains(&self.replicas[place].device);
                let owned = devices
                    .iter()
                    .any(|(id, device)| members.contains(id) && device.role == Role::Owner);
                let device = self.replicas[place].device;
                let role = Role::Owner;
                (is_in && !owned).then_some((place, Act::Role { device, role }))
            })
        };
        undecided.or_else(without_owner).or_else(|| {
            nodes().find_map(|(place, node)| {
                let devices = node.core.state().membership.devices();
                let (device, _) = devices
                    .iter()
                    .find(|(id, device)| members.contains(*id) && device.role == Role::Reader)?;
                let role = Role::Member;
                let is_in = members.contains(&self.replicas[place].device);
                is_in.then_some((
                    place,
                    Act::Role {
                        device: *device,
                        role,
                    },
                ))
            })
        })
    }

    /// All who know of each other talk, again and again until nobody hears anything new of who is in.
    fn mingle_all(&mut self) {
        let heads = |fleet: &Fleet| -> Vec<Vec<Hash>> {
            let nodes = fleet.replicas.iter();
            let nodes = nodes.filter_map(|replica| replica.node.as_ref());
            nodes
                .map(|node| node.core.state().membership.heads())
                .collect()
        };
        for _ in 0..CYCLES {
            let before = heads(self);
            for turn in 0..self.turns() {
                self.mingle(turn);
            }
            let after = heads(self);
            if after == before {
                assert!(
                    after.iter().all(|heads| *heads == after[0]),
                    "not all know the same of who is in"
                );
                return;
            }
        }
        panic!("who is in is not heard of by all in {CYCLES} cycles");
    }

    /// All who know of each other talk, also to those who are out.
    fn mingle(&mut self, turn: usize) {
        let everybody = self.replicas.iter().map(|replica| replica.device);
        let active = self.one_of_each(&everybody.collect(), turn);
        self.cut_others(&active);
        for (n, &a) in active.iter().enumerate() {
            for &b in &active[n + 1..] {
                self.connect(a, b);
            }
        }
        for _ in 0..ROUNDS {
            self.now_ms += 50;
            if !self.round(&[]) {
                return;
            }
        }
        panic!("the fleet does not come to rest before it is decided who is in");
    }

    /// The devices that take each other for members: the most of them, where there are several such groups (two devices
    /// that put each other out, and have nobody else, go on apart).
    pub(super) fn members(&self) -> BTreeSet<DeviceId> {
        let takes = |a: usize, b: usize| {
            let of = |place: usize, device: &DeviceId| {
                let node = self.replicas[place].node.as_ref();
                node.is_some_and(|node| node.core.state().membership.is_member(device))
            };
            let [one, other] = [a, b].map(|place| self.replicas[place].device);
            of(a, &other) && of(b, &one) && of(a, &one) && of(b, &other)
        };
        let firsts = (0..self.replicas.len()).filter(|first| takes(*first, *first));
        let groups = firsts.map(|first| {
            let mut group = vec![first];
            let mut next = 0;
            while let Some(&a) = group.get(next) {
                next += 1;
                let more = (0..self.replicas.len()).filter(|b| takes(a, *b));
                let more: Vec<usize> = more.filter(|b| !group.contains(b)).collect();
                group.extend(more);
            }
            let devices = group.iter().map(|place| self.replicas[*place].device);
            devices.collect::<BTreeSet<DeviceId>>()
        });
        // The first of the largest.
        groups
            .fold(None, |best: Option<BTreeSet<DeviceId>>, group| match best {
                Some(best) if best.len() >= group.len() => Some(best),
                _ => Some(group),
            })
            .unwrap_or_default()
    }

    /// What only devices acknowledged that are out may be lost.
    pub(super) fn forget_what_left(&mut self) {
        let members = self.members();
        let left = self
            .replicas
            .iter()
            .filter(|replica| !members.contains(&replica.device));
        for replica in left {
            self.coverage.hit("membership", "out in the end");
            for (id, character) in &replica.typed[0] {
                if let Some(typed) = self
                    .ledger
                    .typed
                    .get_mut(id)
                    .and_then(|all| all.get_mut(character))
                {
                    typed.acknowledged = false;
                }
            }
            for (id, character) in &replica.typed[1] {
                if let Some(typed) = self
                    .ledger
                    .typed
                    .get_mut(id)
                    .and_then(|all| all.get_mut(character))
                {
                    typed.erased = false;
                }
            }
            for file in &replica.made_files {
                self.ledger.files.remove(file);
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

/// Who is in, and what there is of whose log, as a replica sees it: for a person to read after a failure.
pub(super) fn told_of(replica: &Replica) -> String {
    let mut text = format!("{} is {}", replica.name, replica.device);
    let Some(node) = &replica.node else {
        return text + ", off";
    };
    let state = node.core.state();
    let membership = &state.membership;
    let due = if state.rotation_due {
        ", rotation due"
    } else {
        ""
    };
    text += &format!(
        ", writes {}, heads {:?}, seals under {:?}{due}\n",
        state.writer,
        membership.heads(),
        state.sealing_epoch()
    );
    for (id, device) in membership.devices() {
        text += &format!("    in: {id:?} {:?}\n", device.role);
    }
    for (id, former) in membership.former() {
        text += &format!("    out: {id:?} {:?}\n", former.outs);
    }
    for (writer, seq, header) in state.clock.iter() {
        let writing = membership.writing(writer);
        text += &format!("    {writer:?}: {seq} {header:?}, {writing:?}\n");
    }
    for (writer, named) in &state.named {
        text += &format!("    {writer:?} is named: {named:?}\n");
    }
    text
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
