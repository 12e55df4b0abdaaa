//! What the bytes of a file on disk mean, once they were read. Pure.
//!
//! A file has three contents: what its row says (what disk and vault last agreed on), what the vault shows now, and
//! what was read. Where only the disk differs from the row, the vault gets new content; where both do and not in the
//! same way, that is a **conflict**: what was read becomes a copy with a name of its own, and the vault's content
//! comes to disk under the old name. Equal bytes are never a conflict. A modification time that was set without them is
//! passed on by itself, which changes no content.

use coffer_crdt::chunks::{ChunkList, ChunkRoot};
use coffer_crdt::files::{FileId, Kind, Stamp, conflict_name};

use super::compare::{Read, View, merge_group, row_of};
use super::copies::{Rival, copy_for, fill, rescue, revival};
use super::names;
use super::sparing::given_content;
use crate::vault::request::{ContentDraft, FolderRow, Operation};

/// What follows from one file that was read.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// For the vault.
    pub operations: Vec<Operation>,
    /// Rows to commit with them.
    pub rows: Vec<(FileId, Option<FolderRow>)>,
    /// The file that these bytes on disk belong to from now on.
    pub owner: FileId,
    /// Files of which the vault has something that the disk has not.
    pub revisit: Vec<FileId>,
    /// Whether a conflict copy was made.
    pub conflict: bool,
    /// Copies of what is not on this disk: whether their bytes are here is to be looked at.
    pub copies: Vec<FileId>,
    /// The conflict copy that has these bytes already, so that none was made.
    pub relies_on: Option<FileId>,
}

/// The content of a symbolic link.
pub fn link_draft(target: &str, mtime_ms: i64) -> ContentDraft {
    ContentDraft {
        size: target.len() as u64,
        mtime_ms,
        executable: false,
        hash: link_hash(target),
        target: Some(target.to_owned()),
        root: ChunkRoot::Inline(ChunkList::default()),
    }
}

/// Context string of [`link_hash`].
pub const LINK_CONTEXT: &str = "coffer 2026-11 target of a symbolic link";

/// The content hash of a symbolic link: equal exactly when the targets are.
pub fn link_hash(target: &str) -> [u8; 32] {
    *blake3::Hasher::new_derive_key(LINK_CONTEXT)
        .update(target.as_bytes())
        .finalize()
        .as_bytes()
}

/// Decides about `read`, whose bytes are `draft`. `fresh` is the id it gets if it is new.
pub fn settle(view: &View<'_>, read: &Read, draft: ContentDraft, fresh: FileId) -> Settled {
    let row = row_of(read.parent, &read.name, read.kind, &read.stat, draft.hash);
    match read.id.and_then(|id| Some((id, view.rows.get(id)?))) {
        Some((id, old)) => changed(view, read, draft, id, old, row),
        None => new(view, read, draft, fresh, row),
    }
}

fn changed(
    view: &View<'_>,
    read: &Read,
    draft: ContentDraft,
    id: FileId,
    old: &FolderRow,
    row: FolderRow,
) -> Settled {
    // Where another that shows as one with it is here beside it, people see two files, and changed one of them.
    let is_beside = view.twins(id).any(|twin| view.rows.get(twin).is_some());
    let subject = if is_beside {
        id
    } else {
        view.tree.representative(id)
    };
    let shown = view.tree.shown(subject).filter(|shown| !shown.trashed);
    let known = view.tree.get(subject);
    let there = known.as_ref().and_then(|known| known.content);
    // Whether somebody set its time, and whether it is another than the vault's.
    let is_file = read.kind == Kind::File;
    let is_same_time = |ms: i64| !is_file || view.profile.is_same_time(ms, row.mtime_ns);
    let is_retimed = !is_same_time(whole_ms(old.mtime_ns));
    let only_row = |revisit: Vec<FileId>| Settled {
        rows: vec![(id, Some(row.clone()))],
        owner: id,
        revisit,
        ..Settled::default()
    };
    let write = || {
        let mut settled = only_row(Vec::new());
        if !is_beside {
            merge_group(view.tree, subject, &mut settled.operations);
        }
        let mut content = draft.clone();
        if let Some(there) = there.filter(|there| there.hash == draft.hash)
            && !is_retimed
            && content.mtime_ms != there.mtime_ms
        {
            // Only the executable bit was changed here; a time that was set elsewhere stays.
            content.mtime_ms = there.mtime_ms;
            settled.revisit.push(id);
        }
        settled.operations.push(Operation::SetContent {
            id: subject,
            content,
            replaces: there.map(|there| there.hash),
        });
        settled
    };
    let touched_only = draft.hash == old.hash && draft.executable == old.executable;
    match there {
        // Deleted elsewhere: an edit that the deleter had not seen brings it back; a touch does not.
        _ if shown.is_none() => {
            if touched_only {
                only_row(vec![id])
            } else {
                write()
            }
        }
        Some(there)
            if there.hash == draft.hash
                && (there.executable == draft.executable || draft.executable == old.executable) =>
        {
            let is_other_time = !is_same_time(there.mtime_ms);
            let sets = is_other_time && is_retimed && draft.hash == old.hash;
            // Where only the vault has another time, that is in question already, or this disk cannot keep it; but not
            // where the disk's moved just so far, within its step, that it is the vault's no longer.
            let has_moved = whole_ms(row.mtime_ns) != whole_ms(old.mtime_ns);
            let is_timed = sets || !is_other_time || draft.hash == old.hash && !has_moved;
            let is_settled = there.executable == draft.executable && is_timed;
            let mut settled = only_row(if is_settled { Vec::new() } else { vec![id] });
            if sets {
                settled.operations.push(Operation::SetTime {
                    id: subject,
                    mtime_ms: draft.mtime_ms,
                    of: draft.hash,
                });
            }
            settled
        }
        Some(there) if there.hash == old.hash || there.hash == draft.hash => write(),
        Some(_) if touched_only => only_row(vec![id]),
        // Only the executable bit was changed here, the bytes elsewhere: the bytes matter more.
        Some(_) if draft.hash == old.hash => only_row(vec![id]),
        Some(_) => conflict(view, read, draft, id, row),
        None => write(),
    }
}

/// Milliseconds, as the vault keeps them; the ends of what it can say for what is beyond.
fn whole_ms(ns: i128) -> i64 {
    let ms = ns.div_euclid(1_000_000);
    i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

fn new(
    view: &View<'_>,
    read: &Read,
    draft: ContentDraft,
    fresh: FileId,
    row: FolderRow,
) -> Settled {
    let parent = view.vault_parent(read.parent);
    let name = view.new_name(read.parent, &read.name);
    let Some(there) = view.tree.lookup(parent, &name) else {
        let create = create(read, draft, fresh, parent, name, view.now_ms);
        return Settled {
            operations: vec![create],
            rows: vec![(fresh, Some(row))],
            owner: fresh,
            ..Settled::default()
        };
    };
    let kind = view.tree.shown(there).map(|shown| shown.kind);
    if view.rows.get(there).is_none() && kind == Some(read.kind) {
        let same = view
            .tree
            .get(there)
            .and_then(|known| known.content)
            .filter(|content| content.hash == draft.hash);
        return match same {
            Some(content) => {
                let is_same_time = read.kind != Kind::File
                    || view.profile.is_same_time(content.mtime_ms, row.mtime_ns);
                let revisit = if content.executable == draft.executable && is_same_time {
                    Vec::new()
                } else {
                    vec![there]
                };
                let mut operations = Vec::new();
                if read.is_backup {
                    // Whoever deletes that one has not seen that what was in another file here is in this one alone now.
                    merge_group(view.tree, there, &mut operations);
                    operations.push(Operation::SetContent {
                        id: there,
                        content: draft,
                        replaces: Some(content.hash),
                    });
                }
                Settled {
                    operations,
                    rows: vec![(there, Some(row))],
                    owner: there,
                    revisit,
                    ..Settled::default()
                }
            }
            None => conflict(view, read, draft, there, row),
        };
    }
    // The name belongs to something of another kind, or to something that is on its way here from another place.
    let name = free_conflict_name(view, parent, &name, true);
    let create = create(read, draft, fresh, parent, name, view.now_ms);
    Settled {
        operations: vec![create],
        rows: vec![(fresh, Some(row))],
        owner: fresh,
        revisit: vec![fresh, there],
        conflict: true,
        ..Settled::default()
    }
}

/// A conflict name that nothing has in the vault.
pub fn free_conflict_name(view: &View<'_>, parent: FileId, name: &str, is_file: bool) -> String {
    let names = (1..=names::MAX_COPIES)
        .map(|number| conflict_name(name, is_file, view.label, view.now_ms, number));
    let free = names
        .into_iter()
        .find(|candidate| candidate != name && view.tree.lookup(parent, candidate).is_none());
    // Where all are taken the tree tells them apart by their ids.
    free.unwrap_or_else(|| conflict_name(name, is_file, view.label, view.now_ms, 1))
}

/// What was read becomes a conflict copy of `of`, whose content in the vault is another.
fn conflict(
    view: &View<'_>,
    read: &Read,
    draft: ContentDraft,
    of: FileId,
    row: FolderRow,
) -> Settled {
    let spot = view.spot(of).unwrap_or_else(|| {
        (
            view.vault_parent(read.parent),
            view.vault_name(read.parent, &read.name),
        )
    });
    // Bytes that lie in a settled copy are a conflict all the same: they were written anew.
    let copy = copy_for(
        view.tree,
        of,
        spot,
        view.label,
        view.now_ms,
        &draft.hash,
        None,
        &[],
    );
    let mut settled = Settled {
        owner: of,
        conflict: !copy.holds_it,
        revisit: vec![of, copy.id],
        relies_on: copy.holds_it.then_some(copy.id),
        ..Settled::default()
    };
    if !copy.exists {
        settled.operations.push(create(
            read,
            draft,
            copy.id,
            copy.parent,
            copy.name,
            view.now_ms,
        ));
    } else if !copy.holds_it {
        settled.operations.push(Operation::SetContent {
            id: copy.id,
            content: draft,
            replaces: None,
        });
    }
    if view.rows.get(copy.id).is_some() {
        // The copy is on disk already, with what it held before: it gets the new content by way of the vault. Here the
        // vault's own content may come now, for what was read is safe.
        settled.rows.push((of, Some(row)));
    } else {
        // The file on disk *is* the copy now. It will be renamed, and the vault's content comes beside it.
        settled.owner = copy.id;
        settled.rows.push((of, None));
        settled.rows.push((copy.id, Some(row)));
    }
    settled
}

/// Another device's content replaced, in the vault, one that was written here (or seen here) without either knowing
/// of the other. The row still holds the loser: it becomes the copy, before the winner comes to disk.
///
/// `rival` is the loser as the vault has it, put there at `written`, `label` the name of the device that wrote it. Every
/// device that does this makes the same copy. There is nothing to do where that [was made before](Settled::relies_on).
pub fn preserve(
    view: &View<'_>,
    id: FileId,
    rival: ContentDraft,
    label: &str,
    written: Stamp,
    written_ms: i64,
) -> Option<Settled> {
    let row = view.rows.get(id)?.clone();
    let copy = copy_for(
        view.tree,
        id,
        view.spot(id)?,
        label,
        written_ms,
        &rival.hash,
        // It may have been settled on another device, before this one came to it.
        Some(written),
        &[],
    );
    if copy.holds_it {
        return Some(Settled {
            relies_on: Some(copy.id),
            ..Settled::default()
        });
    }
    let mut settled = Settled {
        owner: copy.id,
        revisit: vec![id, copy.id],
        conflict: true,
        ..Settled::default()
    };
    let id_of_copy = copy.id;
    settled
        .operations
        .push(fill(copy, rival, written, view.now_ms));
    if view.rows.get(id_of_copy).is_some() {
        // Both are on disk: the copy gets these bytes by way of the vault, while they are still here.
        settled.owner = id;
    } else {
        settled.rows = vec![(id, None), (id_of_copy, Some(row))];
    }
    Some(settled)
}

/// The same for a file that goes from here: where it was deleted by someone who had not seen `rival`, the edit survives
/// the deletion, and so do `others` that lost as well. Where it only went elsewhere in the vault, what it shows there
/// stays, and `rival` becomes a copy beside it. `None` if the deleter had seen it, or the copy is there already.
pub fn revive(view: &View<'_>, id: FileId, rival: &Rival, others: &[Rival]) -> Option<Settled> {
    if view.tree.get(id)?.is_deleted(rival.content.dot) {
        return None;
    }
    let row = view.rows.get(id)?.clone();
    let is_live = view.tree.shown(id).is_some_and(|shown| !shown.trashed);
    let operations = if is_live {
        rescue(view.tree, view.now_ms, id, std::iter::once(rival))
    } else {
        revival(view.tree, view.now_ms, id, &rival.content, others)
    };
    if operations.is_empty() {
        return None;
    }
    let copies = operations.iter().filter_map(given_content);
    Some(Settled {
        copies: copies.filter(|copy| *copy != id).collect(),
        operations,
        rows: vec![(id, Some(row))],
        owner: id,
        revisit: vec![id],
        conflict: is_live,
        ..Settled::default()
    })
}

fn create(
    read: &Read,
    draft: ContentDraft,
    id: FileId,
    parent: FileId,
    name: String,
    now_ms: i64,
) -> Operation {
    let born = read.stat.birth_ns.unwrap_or(read.stat.mtime_ns) / 1_000_000;
    let created_ms = i64::try_from(born).unwrap_or(0).min(now_ms);
    Operation::CreateFile {
        id,
        kind: read.kind,
        parent,
        name,
        content: Some(draft),
        created_ms,
    }
}
