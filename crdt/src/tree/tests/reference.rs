//! The rules of the tree once more, written for plainness: everything is worked out from the set of all states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::files::conflict_names::{conflict_name, conflict_name_with_id};
use crate::files::names::{shown_name, waiting_name};
use crate::files::{FileId, FileState, Kind, Trash};
use crate::tree::Shown;

pub type States = BTreeMap<FileId, FileState>;

/// What all states together must look like.
#[derive(Default)]
pub struct Picture {
    pub shown: BTreeMap<FileId, Shown>,
    pub lists: BTreeMap<FileId, BTreeMap<String, FileId>>,
    /// Which node each stands in or is merged into.
    pub ups: BTreeMap<FileId, FileId>,
}

struct Standing {
    level: usize,
    up: FileId,
    waiting: bool,
}

pub fn picture(states: &States) -> Picture {
    let standings = standings(states);
    let up = |id: &FileId| standings[id].up;
    let is_merged = |id: &FileId| standings[id].level == 0;
    let live: BTreeSet<FileId> = states
        .keys()
        .copied()
        .filter(|&id| is_live(id, states, &standings))
        .collect();

    let mut picture = Picture {
        ups: states.keys().map(|id| (*id, up(id))).collect(),
        ..Picture::default()
    };
    // Folders to list: the one that stands for them, and all that they are.
    let mut left = vec![(FileId::ROOT, vec![FileId::ROOT])];
    let mut hidden: BTreeMap<FileId, FileId> = states
        .keys()
        .filter(|id| is_merged(id))
        .map(|id| (*id, up(id)))
        .collect();
    while let Some((folder, mut parts)) = left.pop() {
        // What is merged into a part is a part.
        let mut at = 0;
        while at < parts.len() {
            let part = parts[at];
            parts.extend(states.keys().filter(|id| is_merged(id) && up(id) == part));
            at += 1;
        }
        let inside: Vec<FileId> = live
            .iter()
            .copied()
            .filter(|id| !is_merged(id) && parts.contains(&up(id)))
            .collect();
        let (waiting, named): (Vec<FileId>, Vec<FileId>) =
            inside.into_iter().partition(|id| standings[id].waiting);
        let name = |id: &FileId| shown_name(&states[id].place.name).into_owned();
        let order = |id: &FileId| (states[id].place.stamp, states[id].place.dot.writer, *id);
        let names: BTreeSet<String> = named.iter().map(name).collect();
        let mut list = BTreeMap::new();
        let mut displaced = Vec::new();
        for shared in &names {
            let mut group: Vec<FileId> = named
                .iter()
                .copied()
                .filter(|id| name(id) == *shared)
                .collect();
            group.sort_by_key(order);
            let mut classes: Vec<Vec<FileId>> = Vec::new();
            for id in group {
                match classes.iter_mut().find(|class| alike(states, class[0], id)) {
                    Some(class) => class.push(id),
                    None => classes.push(vec![id]),
                }
            }
            for (index, class) in classes.iter().enumerate() {
                hidden.extend(class[1..].iter().map(|id| (*id, class[0])));
                if index == 0 {
                    list.insert(shared.clone(), class[0]);
                } else {
                    displaced.push(class[0]);
                }
                left.push((class[0], class.clone()));
            }
        }
        let candidate = |id: &FileId, count: u32| {
            let place = &states[id].place;
            let is_file = states[id].kind != Kind::Folder;
            let ms = i64::try_from(place.stamp.ms()).unwrap();
            match count {
                0 => conflict_name(&name(id), is_file, &place.label, ms, 1),
                _ => conflict_name_with_id(&name(id), is_file, &place.label, ms, (*id, count)),
            }
        };
        for id in &displaced {
            let first = candidate(id, 0);
            let is_first = displaced
                .iter()
                .all(|other| candidate(other, 0) != first || order(other) >= order(id));
            let choice = if is_first && !names.contains(&first) {
                first
            } else {
                (1..)
                    .map(|count| candidate(id, count))
                    .find(|name| !names.contains(name))
                    .unwrap()
            };
            list.insert(choice, *id);
        }
        for id in waiting {
            let is_file = states[&id].kind != Kind::Folder;
            let choice = (1..)
                .map(|count| waiting_name(&name(&id), is_file, id, count))
                .find(|name| !names.contains(name))
                .unwrap();
            list.insert(choice, id);
            left.push((id, vec![id]));
        }
        picture.lists.insert(folder, list);
    }
    let stand_in = |id: FileId| {
        let mut shown = id;
        while let Some(next) = hidden.get(&shown) {
            shown = *next;
        }
        shown
    };
    let mut places = BTreeMap::new();
    for (folder, list) in &picture.lists {
        places.extend(list.iter().map(|(name, id)| (*id, (*folder, name.clone()))));
    }
    for &id in states.keys() {
        let shown = stand_in(id);
        let state = &states[&shown];
        let (parent, name) = places.get(&shown).cloned().unwrap_or_else(|| {
            (
                stand_in(up(&shown)),
                shown_name(&state.place.name).into_owned(),
            )
        });
        picture.shown.insert(
            id,
            Shown {
                parent,
                name: Arc::from(name),
                kind: state.kind,
                trashed: !live.contains(&shown),
                same_as: (shown != id).then_some(shown),
                waiting: standings[&shown].waiting,
            },
        );
    }
    picture
}

fn standings(states: &States) -> BTreeMap<FileId, Standing> {
    let is_folder = |id: FileId| {
        id == FileId::ROOT
            || states
                .get(&id)
                .is_some_and(|state| state.kind == Kind::Folder)
    };
    let standing = |id: FileId, level: usize| {
        let place = &states[&id].place;
        let (up, waiting) = match level {
            0 => (states[&id].merged_into.unwrap().into, false),
            1 if is_folder(place.parent) => (place.parent, false),
            1 => (FileId::ROOT, true),
            2 if is_folder(place.previous) => (place.previous, false),
            _ => (FileId::ROOT, false),
        };
        Standing { level, up, waiting }
    };
    let mut all: BTreeMap<FileId, Standing> = states
        .iter()
        .map(|(&id, state)| {
            let merges = state.merged_into.is_some_and(|merged| {
                merged.into != id
                    && states
                        .get(&merged.into)
                        .is_some_and(|target| target.kind == state.kind)
                    && merged.place == state.place.dot
                    && merged.content == state.content.as_ref().map(|content| content.dot)
            });
            (id, standing(id, if merges { 0 } else { 1 }))
        })
        .collect();
    while let Some(cycle) = find_cycle(&all) {
        let latest = cycle.into_iter().max_by_key(|id| {
            let state = &states[id];
            match state.merged_into {
                Some(merged) if all[id].level == 0 => (merged.stamp, merged.dot.writer, *id),
                _ => (state.place.stamp, state.place.dot.writer, *id),
            }
        });
        let latest = latest.unwrap();
        all.insert(latest, standing(latest, all[&latest].level + 1));
    }
    all
}

fn find_cycle(all: &BTreeMap<FileId, Standing>) -> Option<Vec<FileId>> {
    for &start in all.keys() {
        let mut way = vec![start];
        let mut at = all[&start].up;
        while at != FileId::ROOT {
            if let Some(first) = way.iter().position(|&id| id == at) {
                return Some(way.split_off(first));
            }
            way.push(at);
            at = all[&at].up;
        }
    }
    None
}

fn is_live(id: FileId, states: &States, standings: &BTreeMap<FileId, Standing>) -> bool {
    let has_live_kids = || {
        standings
            .iter()
            .any(|(kid, standing)| standing.up == id && is_live(*kid, states, standings))
    };
    if standings[&id].level == 0 {
        return has_live_kids();
    }
    let state = &states[&id];
    let sees = |trash: &Trash| {
        !trash.clock.is_empty()
            && trash.covers(state.place.dot)
            && state
                .content
                .as_ref()
                .is_none_or(|content| trash.covers(content.dot))
    };
    let (mut covered, mut between) = (false, Vec::new());
    let mut at = id;
    while at != FileId::ROOT {
        covered |= states[&at].deletions().any(|trash| {
            let mut folders = between.iter();
            sees(trash) && folders.all(|folder: &FileId| trash.covers(states[folder].place.dot))
        });
        if at != id {
            between.push(at);
        }
        at = standings[&at].up;
    }
    !covered || (state.kind == Kind::Folder && has_live_kids())
}

fn alike(states: &States, a: FileId, b: FileId) -> bool {
    let (a, b) = (&states[&a], &states[&b]);
    a.kind == b.kind
        && match (a.kind, &a.content, &b.content) {
            (Kind::Folder, _, _) => true,
            (_, Some(a), Some(b)) => a.hash == b.hash && (a.target == b.target),
            _ => false,
        }
}
