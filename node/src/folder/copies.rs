//! Conflict copies of a file in the vault: which one is for a content that lost against another. Pure but for
//! [`has_copy`]; it does not matter who asks, and every device that does makes the same copy.

use coffer_crdt::files::{ConflictMark, Content, FileId, Stamp, conflict_name};
use coffer_crdt::tree::Tree;

use super::schedule::Spot;
use super::{FolderVault, names};
use crate::vault::request::{ContentDraft, Operation};

/// A content that lost.
#[derive(Clone, Debug)]
pub struct Rival {
    /// As the vault has it.
    pub content: Content,
    /// The name of the device that wrote it.
    pub label: String,
}

/// The conflict copy of `of` that shall hold a content: its id, its name, and whether it is there already.
pub(super) struct Copy {
    pub id: FileId,
    pub parent: FileId,
    pub name: String,
    pub exists: bool,
    /// Whether it has the content already, or had when a person settled it.
    pub holds_it: bool,
}

/// The first copy of the day that is free, or that holds these bytes already; the last one if there are too many. What
/// a person has settled (put in the trash, or given another name) is a copy no longer, and stays as they left it; it still
/// speaks for these bytes if they were `written` no later than it was made, for then it was their copy that was settled.
#[expect(clippy::too_many_arguments, reason = "what names a copy")]
pub(super) fn copy_for(
    tree: &Tree,
    of: FileId,
    (parent, name): Spot,
    label: &str,
    ms: i64,
    hash: &[u8; 32],
    written: Option<Stamp>,
    taken: &[FileId],
) -> Copy {
    let mut last = None;
    let mut copies = 0;
    for number in 1..=names::MAX_NUMBERS {
        if copies == names::MAX_COPIES {
            break;
        }
        let id = names::conflict_id(of, label, ms, number);
        let copy_name = conflict_name(&name, true, label, ms, number);
        match tree.get(id) {
            Some(known) => {
                let there = tree.shown(id).filter(|shown| !shown.trashed);
                let holds_it = known.content.is_some_and(|content| {
                    content.hash == *hash
                        && (there.is_some()
                            || written.is_some_and(|written| written <= content.stamp))
                });
                let copy = Copy {
                    id,
                    parent,
                    name: copy_name,
                    exists: true,
                    holds_it,
                };
                if holds_it {
                    return copy;
                }
                if there.is_some_and(|there| is_copy_name(&there.name)) {
                    copies += 1;
                    last = Some(copy);
                }
            }
            None if taken.contains(&id) => {}
            None if copy_name != name && tree.lookup(parent, &copy_name).is_none() => {
                return Copy {
                    id,
                    parent,
                    name: copy_name,
                    exists: false,
                    holds_it: false,
                };
            }
            None => {}
        }
    }
    last.unwrap_or_else(|| Copy {
        id: names::conflict_id(of, label, ms, 0),
        parent,
        name: conflict_name(&name, true, label, ms, 1),
        exists: tree.get(names::conflict_id(of, label, ms, 0)).is_some(),
        holds_it: false,
    })
}

fn is_copy_name(name: &str) -> bool {
    ConflictMark::read(name, true).is_some()
}

/// Copies of what `id` has beside the content that it shows, and what the vault would forget if it were written now: of
/// what nobody deleted knowingly. They are those that [`super::decide::preserve`] makes.
pub(super) fn rescue<'a>(
    tree: &Tree,
    now_ms: i64,
    id: FileId,
    rivals: impl Iterator<Item = &'a Rival>,
) -> Vec<Operation> {
    let (Some(known), Some(shown)) = (tree.get(id), tree.shown(id)) else {
        return Vec::new();
    };
    let spot: Spot = (shown.parent, shown.name.to_string());
    let (mut copies, mut taken) = (Vec::new(), Vec::new());
    for Rival { content, label } in rivals {
        let is_shown = known
            .content
            .is_some_and(|shown| shown.hash == content.hash);
        let is_deleted = known.is_deleted(content.dot);
        if is_shown || is_deleted {
            continue;
        }
        let copy = copy_for(
            tree,
            id,
            spot.clone(),
            label,
            i64::try_from(content.stamp.ms()).unwrap_or(i64::MAX),
            &content.hash,
            Some(content.stamp),
            &taken,
        );
        if !copy.holds_it {
            taken.push(copy.id);
            copies.push(fill(copy, content.into(), content.stamp, now_ms));
        }
    }
    copies
}

/// Gives a deleted file a content that whoever deleted it had not seen, and makes copies of `others` that lost as well and
/// that nobody deleted: this write makes the vault forget them.
pub(super) fn revival(
    tree: &Tree,
    now_ms: i64,
    id: FileId,
    content: &Content,
    others: &[Rival],
) -> Vec<Operation> {
    let deletion = tree.deletion(id);
    let unseen = others.iter().filter(|other| {
        let dot = other.content.dot;
        other.content.hash != content.hash && !deletion.is_some_and(|by| by.covers(dot))
    });
    let mut operations = rescue(tree, now_ms, id, unseen);
    operations.push(Operation::SetContent {
        id,
        content: ContentDraft::from(content),
        replaces: None,
    });
    operations
}

/// Gives a conflict copy its content, which was `written` then.
pub(super) fn fill(copy: Copy, content: ContentDraft, written: Stamp, now_ms: i64) -> Operation {
    if copy.exists {
        return Operation::SetContent {
            id: copy.id,
            content,
            replaces: None,
        };
    }
    Operation::CreateCopy {
        id: copy.id,
        parent: copy.parent,
        name: copy.name,
        content,
        written,
        created_ms: now_ms,
    }
}

/// Whether a conflict copy of `of` has, or had, a content that lost. What became of the copy since was a person's doing.
pub(super) fn has_copy<V: FolderVault>(
    vault: &V,
    of: FileId,
    rival: &Content,
    label: &str,
) -> bool {
    let ms = i64::try_from(rival.stamp.ms()).unwrap_or(i64::MAX);
    let copies: Vec<FileId> = {
        let tree = vault.tree();
        (0..=names::MAX_NUMBERS)
            .map(|number| names::conflict_id(of, label, ms, number))
            .filter(|id| tree.get(*id).is_some())
            .collect()
    };
    copies.into_iter().any(|copy| {
        let held = vault.past_content(copy, &rival.hash).ok().flatten();
        held.is_some_and(|held| held.stamp >= rival.stamp)
    })
}
