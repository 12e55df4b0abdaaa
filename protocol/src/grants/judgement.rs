//! Which grants count, given all that are here.
//!
//! An *act* takes something away: a revocation, a change to a lesser role, the replacement of the
//! recovery key by itself. It undoes what its target signed that the act's author had not seen or that
//! it names, and all that follows from that: what was signed by those who owe their right to sign to
//! nothing else. Acts can undo each other. One that no standing act undoes stands. Those that undo each
//! other in a circle, and that nothing outside of it undoes, are *contested*: they take away, so that
//! nobody gains by being the last or the first, but who signed them is out as well.
//!
//! All of it is a function of the set of grants: neither arrival nor clocks decide.

use std::collections::BTreeMap;

use super::grant::{GrantBody, Role};
use super::membership::Accepted;
use super::places::Places;
use crate::identity::{DeviceId, Hash};

/// An act that has effect.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The act's place.
    pub(super) place: usize,
    /// What it undoes.
    pub(super) undone: Places,
    /// Whether it is undone itself by those whom it undoes.
    pub(super) contested: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Stands,
    Contested,
    Undone,
}

/// From whom a grant takes something away.
pub(super) fn target(accepted: &Accepted) -> Option<DeviceId> {
    let grant = accepted.grant.value();
    match &grant.body {
        GrantBody::Revoke(revocation) => Some(revocation.device),
        GrantBody::Role(change) if change.role != Role::Owner => Some(change.device),
        // Who has the old paper must not go on signing.
        GrantBody::Replace { .. } if accepted.by_recovery => Some(grant.author),
        _ => None,
    }
}

/// The acts that stand among the grants at the places of `order`, which is such that each comes after
/// its parents and holds all of their ancestors.
pub(super) fn judge(grants: &[Accepted], order: &[usize]) -> Vec<Standing> {
    let acts: Vec<usize> = order
        .iter()
        .copied()
        .filter(|place| target(&grants[*place]).is_some())
        .collect();
    if acts.is_empty() {
        return Vec::new();
    }
    let rights = rights(grants, order);
    let mut against: BTreeMap<DeviceId, Vec<usize>> = BTreeMap::new();
    for &act in &acts {
        if let Some(target) = target(&grants[act]) {
            against.entry(target).or_default().push(act);
        }
    }
    let rights = Rights { rights, against };
    let undone: Vec<Places> = acts
        .iter()
        .map(|act| undone_by(*act, grants, order, &rights))
        .collect();
    let undoers: Vec<Vec<usize>> = acts
        .iter()
        .map(|place| {
            let those = undone.iter().enumerate();
            those
                .filter(|(_, undone)| undone.contains(*place))
                .map(|(n, _)| n)
                .collect()
        })
        .collect();
    acts.into_iter()
        .zip(undone)
        .zip(verdicts(&undoers))
        .filter(|(_, verdict)| *verdict != Verdict::Undone)
        .map(|((place, undone), verdict)| Standing {
            place,
            undone,
            contested: verdict == Verdict::Contested,
        })
        .collect()
}

/// For everyone who signs, the grants that gave them the right to.
fn rights(grants: &[Accepted], order: &[usize]) -> BTreeMap<DeviceId, Vec<usize>> {
    let mut rights: BTreeMap<DeviceId, Vec<usize>> = BTreeMap::new();
    let mut give = |to: DeviceId, place: usize| rights.entry(to).or_default().push(place);
    for &place in order {
        let grant = grants[place].grant.value();
        match &grant.body {
            GrantBody::Genesis { recovery, .. } => {
                give(grant.author, place);
                give(recovery.signing, place);
            }
            GrantBody::Admit { device, role, .. } if *role == Role::Owner => give(*device, place),
            GrantBody::Role(change) if change.role == Role::Owner => give(change.device, place),
            GrantBody::Replace { recovery, .. } => give(recovery.signing, place),
            _ => {}
        }
    }
    rights
}

/// Where the right to sign comes from, and what took it away.
struct Rights {
    rights: BTreeMap<DeviceId, Vec<usize>>,
    against: BTreeMap<DeviceId, Vec<usize>>,
}

impl Rights {
    /// The grants from which the author of `accepted` had the right to sign it: those before it that
    /// nothing before it had taken back.
    fn of<'a>(
        &'a self,
        accepted: &'a Accepted,
        grants: &'a [Accepted],
    ) -> impl Iterator<Item = usize> + 'a {
        let author = accepted.grant.value().author;
        let against = self.against.get(&author);
        let rights = self.rights.get(&author).into_iter().flatten().copied();
        rights.filter(move |giver| {
            let taken_back = |act: &usize| {
                accepted.ancestors.contains(*act) && grants[*act].ancestors.contains(*giver)
            };
            accepted.ancestors.contains(*giver) && !against.into_iter().flatten().any(taken_back)
        })
    }
}

fn undone_by(act: usize, grants: &[Accepted], order: &[usize], rights: &Rights) -> Places {
    let (seen, target) = (&grants[act].ancestors, target(&grants[act]));
    // A revoked device can sign nothing any more; one with a lesser role can be given the greater
    // again, and what it signs then it signs knowing of this.
    let (for_good, named): (bool, &[Hash]) = match &grants[act].grant.value().body {
        GrantBody::Revoke(revocation) => (true, &revocation.undone),
        _ => (false, &[]),
    };
    let mut undone = Places::default();
    for &place in order {
        let accepted = &grants[place];
        let author = accepted.grant.value().author;
        if place == act || accepted.depth == 0 {
            continue;
        }
        let unseen = !seen.contains(place) && (for_good || !accepted.ancestors.contains(act));
        let directly =
            Some(author) == target && (unseen || named.binary_search(&accepted.id).is_ok());
        let mut givers = rights.of(accepted, grants).peekable();
        let follows = givers.peek().is_some() && givers.all(|giver| undone.contains(giver));
        if directly || follows {
            undone.insert(place);
        }
    }
    undone
}

fn verdicts(undoers: &[Vec<usize>]) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Open; undoers.len()];
    loop {
        let mut decided = false;
        for n in 0..undoers.len() {
            if verdicts[n] != Verdict::Open {
                continue;
            }
            let mut by = undoers[n].iter().map(|by| verdicts[*by]);
            if by
                .clone()
                .any(|by| matches!(by, Verdict::Stands | Verdict::Contested))
            {
                verdicts[n] = Verdict::Undone;
            } else if by.all(|by| by == Verdict::Undone) {
                verdicts[n] = Verdict::Stands;
            } else {
                continue;
            }
            decided = true;
        }
        if decided {
            continue;
        }
        // What is left is undone by something that is left: there are circles, and some that nothing
        // else reaches.
        let reach: Vec<Places> = (0..undoers.len())
            .map(|n| undoing(n, undoers, &verdicts))
            .collect();
        let open: Vec<usize> = (0..undoers.len())
            .filter(|n| verdicts[*n] == Verdict::Open)
            .collect();
        if open.is_empty() {
            return verdicts;
        }
        for &n in &open {
            let mut by = open.iter().filter(|by| reach[n].contains(**by));
            if by.all(|by| reach[*by].contains(n)) {
                verdicts[n] = Verdict::Contested;
            }
        }
    }
}

/// The open acts that undo act `n`, directly or by way of others.
fn undoing(n: usize, undoers: &[Vec<usize>], verdicts: &[Verdict]) -> Places {
    let mut found = Places::default();
    let mut todo = vec![n];
    while let Some(next) = todo.pop() {
        for &by in &undoers[next] {
            if verdicts[by] == Verdict::Open && !found.contains(by) {
                found.insert(by);
                todo.push(by);
            }
        }
    }
    found
}
