//! Devices are put out, given other roles, and keys change.

use std::collections::BTreeSet;

use coffer_node::vault::core::Ticket;
use coffer_node::vault::{Act, CommitError, Input, Manage};
use coffer_protocol::grants::{Fate, GrantBody, Role, Writing};
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::recovery::RecoveryKey;
use rand::RngExt;

use super::Fleet;
use super::healing::ROUNDS;
use crate::replica::Replica;

/// Decisions that a healed fleet may need: each settles the case of one device.
const DECISIONS: usize = 24;

/// Times that everybody meets everybody until all know who is in.
const CYCLES: usize = 8;

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
