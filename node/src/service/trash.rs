//! The trash: what is in it, taking things out, and emptying it for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coffer_crdt::files::names::with_mark;
use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::retention::{Rule, Trashed, overdue};
use coffer_crdt::tree::Tree;
use redb::ReadableDatabase;

use super::documents::Names;
use super::files::trash_path;
use super::running::{Running, commit_error};
use super::{Node, keeper, returned, store_error};
use crate::control::{
    Answer, ControlError, ErrorKind, Item, Question, Reply, Session, TrashRestored, TrashRow,
};
use crate::vault::{CommitRequest, Operation, rule, wall_ms};

/// Rows per item of a list.
const LISTED_AT_ONCE: usize = 256;
/// Things taken out that are named; a count tells of more.
const RESTORED_MAX: usize = 1000;
/// Names that are tried for something whose name is taken.
const NAMES_TRIED: u32 = 1000;
/// What was deleted from below a folder so long before the folder itself, on the same device, comes back with it.
pub(super) const SAME_DELETION_MS: u64 = 10 * 60 * 1000;
/// Another device than the one that deleted something waits this much longer before it purges it, so that mostly one does.
const OTHERS_WAIT_MS: u64 = 24 * 60 * 60 * 1000;

/// One thing in the trash, with all that is below it.
struct InTrash {
    id: FileId,
    path: String,
    folder: bool,
    deleted_ms: u64,
    writer: [u8; 16],
    files: u64,
    bytes: u64,
}

impl InTrash {
    fn begin(tree: &Tree, id: FileId) -> Option<InTrash> {
        let deletion = tree.deletion(id)?;
        Some(InTrash {
            id,
            path: trash_path(tree, id),
            folder: tree.get(id)?.kind == Kind::Folder,
            deleted_ms: deletion.stamp.ms(),
            writer: deletion.dot.writer,
            files: 0,
            bytes: 0,
        })
    }

    fn count(&mut self, tree: &Tree, id: FileId) {
        if let Some(known) = tree.get(id).filter(|known| known.kind != Kind::Folder) {
            self.files += 1;
            self.bytes += known.content.map_or(0, |content| content.size);
        }
    }
}

/// Something in the trash with what comes back with it, and, each by itself, what is below it and does not: what went
/// long before, or on another device.
fn look(tree: &Tree, id: FileId) -> Vec<InTrash> {
    let (mut found, mut lies_in) = (Vec::new(), BTreeMap::new());
    let mut with: BTreeSet<FileId> = BTreeSet::new();
    for part in std::iter::once(id).chain(tree.below(id)) {
        if tree.is_purged(part) || tree.deletion(part).is_none() {
            continue;
        }
        let above = tree.shown(part).and_then(|shown| {
            let index: Option<&usize> = lies_in.get(&shown.parent);
            index.copied()
        });
        let is_apart = part == id || went_by_itself(tree, part) && !with.contains(&part);
        let index = match is_apart.then(|| InTrash::begin(tree, part)).flatten() {
            Some(apart) => {
                with.extend(tree.deleted_with(part, SAME_DELETION_MS));
                found.push(apart);
                found.len() - 1
            }
            None => above.unwrap_or(0),
        };
        lies_in.insert(part, index);
        if let Some(owner) = found.get_mut(index) {
            owner.count(tree, part);
        }
    }
    found
}

/// Whether its own deletion keeps it in the trash, whatever becomes of what it stands in.
fn went_by_itself(tree: &Tree, id: FileId) -> bool {
    tree.get(id).is_some_and(|known| known.went_by_itself())
}

/// All of it, what was deleted last first.
fn all(tree: &Tree) -> Vec<InTrash> {
    let mut found: Vec<InTrash> = tree.trashed().flat_map(|id| look(tree, id)).collect();
    found.sort_by(|a, b| (b.deleted_ms, &a.path).cmp(&(a.deleted_ms, &b.path)));
    found
}

/// What a person means by a path: what lies there in the trash itself, else what is below something that does.
fn at(tree: &Tree, path: &str) -> Vec<InTrash> {
    let wanted = path.trim_matches('/');
    let is_it = |found: &InTrash| found.path == wanted || found.id.to_string() == wanted;
    let found: Vec<InTrash> = all(tree).into_iter().filter(is_it).collect();
    if !found.is_empty() {
        return found;
    }
    let tops: Vec<FileId> = tree.trashed().collect();
    let below = tops.iter().flat_map(|top| tree.below(*top));
    let mut found: Vec<InTrash> = below
        .filter(|id| !tree.is_purged(*id) && trash_path(tree, *id) == wanted)
        .filter_map(|id| look(tree, id).into_iter().next())
        .collect();
    found.sort_by_key(|found| std::cmp::Reverse(found.deleted_ms));
    found
}

fn not_there(path: &str) -> ControlError {
    ControlError::not_found(format!("there is no \"{path}\" in the trash"))
}

fn the_rule(running: &Running) -> Result<Rule, ControlError> {
    let read = running.vault.database().begin_read();
    let read = read.map_err(|error| store_error(error.into()))?;
    Ok(rule::read(&read).map_err(store_error)?.0)
}

/// Bytes that are in the trash.
pub(super) fn bytes(running: &Running) -> u64 {
    let tree = running.vault.tree();
    all(&tree).iter().map(|found| found.bytes).sum()
}

/// `trash list`.
pub async fn list(node: &Arc<Node>, session: &mut Session) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    // What was deleted in a synced folder a moment ago is in the trash for who deleted it. So below.
    running.folders.take_in().await;
    let rule = the_rule(&running)?;
    let names = Names::read(&running).await?;
    let rows: Vec<TrashRow> = {
        let tree = running.vault.tree();
        let found = all(&tree).into_iter();
        found
            .map(|found| TrashRow {
                path: found.path,
                id: found.id.to_string(),
                folder: found.folder,
                deleted_ms: found.deleted_ms,
                device: names.of(found.writer),
                files: found.files,
                bytes: found.bytes,
                until_ms: rule
                    .trash_ms
                    .map(|keep| found.deleted_ms.saturating_add(keep)),
            })
            .collect()
    };
    let count = rows.len() as u64;
    for part in rows.chunks(LISTED_AT_ONCE) {
        session.item(Item::Trash(part.to_vec())).await?;
    }
    Ok(Reply::Listed { count, more: false })
}

/// `trash restore`: one thing, or all of them.
pub async fn restore(node: &Arc<Node>, path: Option<String>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    running.folders.take_in().await;
    // What the deletion left behind must not count as places of the bytes any more.
    keeper::forget_left(&running).await;
    let mut request = CommitRequest::default();
    let mut taken = BTreeSet::new();
    let mut restored: Vec<(String, FileId)> = Vec::new();
    {
        let tree = running.vault.tree();
        let found = match &path {
            None => all(&tree),
            // Of several of one path the one that was deleted last.
            Some(path) => vec![
                at(&tree, path)
                    .into_iter()
                    .next()
                    .ok_or_else(|| not_there(path))?,
            ],
        };
        for found in found {
            bring_back(&tree, found.id, &mut taken, &mut request.operations);
            request.recheck.push(found.id);
            request.recheck.extend(tree.below(found.id));
            restored.push((found.path, found.id));
        }
    }
    running.vault.commit(request).await.map_err(commit_error)?;
    let tops: Vec<FileId> = restored.iter().map(|(_, id)| *id).collect();
    let lacking = returned::lacking(&running, &tops).await?;
    let tree = running.vault.tree();
    let count = restored.len() as u64;
    let items = restored
        .into_iter()
        .take(RESTORED_MAX)
        .filter_map(|(from, id)| tree.path(id).map(|path| TrashRestored { from, path }))
        .collect();
    Ok(Reply::TrashRestored {
        count,
        items,
        lacking_count: lacking.count,
        lacking: lacking.named,
    })
}

/// What it takes to bring something back to its place, or under a free name beside it.
fn bring_back(
    tree: &Tree,
    id: FileId,
    taken: &mut BTreeSet<(FileId, String)>,
    operations: &mut Vec<Operation>,
) {
    let (Some(known), Some(shown)) = (tree.get(id), tree.shown(id)) else {
        return;
    };
    if known.trash.is_some_and(|trash| !trash.is_restored()) {
        operations.push(Operation::RestoreFile { id });
    }
    let with: BTreeSet<FileId> = tree
        .deleted_with(id, SAME_DELETION_MS)
        .into_iter()
        .collect();
    operations.extend(with.iter().map(|id| Operation::RestoreFile { id: *id }));
    let comes_along = |part: &FileId| {
        !tree.is_purged(*part) && (with.contains(part) || !went_by_itself(tree, *part))
    };
    let own = known.place.name.clone();
    let is_free = |name: &str, taken: &BTreeSet<(FileId, String)>| {
        !taken.contains(&(shown.parent, name.to_owned()))
            && tree.lookup(shown.parent, name).is_none_or(|there| {
                // Folders of one name show as one, and so do files of one name and content.
                let there = tree.get(there);
                there.is_some_and(|there| match known.kind {
                    Kind::Folder => there.kind == Kind::Folder,
                    _ => {
                        there.kind == known.kind
                            && there.content.map(|content| content.hash)
                                == known.content.map(|content| content.hash)
                    }
                })
            })
    };
    let name = (0..NAMES_TRIED)
        .map(|n| beside(&own, known.kind != Kind::Folder, n))
        .find(|name| is_free(name, taken))
        .unwrap_or_else(|| own.clone());
    // What a deletion of something above covers comes out by being put where it is.
    let from_above = tree.is_deleted_from_above(id);
    if from_above || name != own {
        operations.push(Operation::MoveFile {
            id,
            parent: shown.parent,
            name: name.clone(),
        });
    }
    taken.insert((shown.parent, name));
    for below in tree.below(id).filter(comes_along) {
        let (Some(known), Some(shown)) = (tree.get(below), tree.shown(below)) else {
            continue;
        };
        let place = known.place;
        taken.insert((shown.parent, place.name.clone()));
        if from_above {
            operations.push(Operation::MoveFile {
                id: below,
                parent: place.parent,
                name: place.name,
            });
        }
    }
}

/// `letter.pdf`, `letter (restored).pdf`, `letter (restored 2).pdf`.
fn beside(name: &str, is_file: bool, n: u32) -> String {
    match n {
        0 => name.to_owned(),
        1 => with_mark(name, is_file, " (restored)"),
        n => with_mark(name, is_file, &format!(" (restored {n})")),
    }
}

/// `trash empty`: all, or what lies at these paths. It cannot be undone, so it asks.
pub async fn empty(
    node: &Arc<Node>,
    paths: Vec<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    running.folders.take_in().await;
    let (chosen, files, bytes) = {
        let tree = running.vault.tree();
        let chosen = if paths.is_empty() {
            all(&tree)
        } else {
            let mut chosen = Vec::new();
            for path in &paths {
                let found = at(&tree, path);
                if found.is_empty() {
                    return Err(not_there(path));
                }
                chosen.extend(found);
            }
            chosen.sort_by_key(|found| found.id);
            chosen.dedup_by_key(|found| found.id);
            chosen
        };
        // A folder goes with all that is in it, also what would not have come back with it.
        let mut going: BTreeMap<FileId, (u64, u64)> = BTreeMap::new();
        for part in chosen.iter().flat_map(|found| look(&tree, found.id)) {
            going.insert(part.id, (part.files, part.bytes));
        }
        let files = going.values().map(|(files, _)| files).sum();
        let bytes = going.values().map(|(_, bytes)| bytes).sum();
        (chosen, files, bytes)
    };
    let count = chosen.len() as u64;
    if count > 0 {
        let question = Question::EmptyTrash { files, bytes };
        if session.ask(question).await? != Answer::Yes {
            return Err(ControlError::new(ErrorKind::Refused, "nothing was purged"));
        }
        purge(&running, chosen.iter().map(|found| found.id)).await?;
        running.collector.look_soon();
    }
    Ok(Reply::TrashEmptied {
        count,
        files,
        bytes,
    })
}

/// What another rule would purge at once.
#[derive(Default)]
pub(super) struct Going {
    /// What it takes.
    pub operations: Vec<Operation>,
    /// Files that go.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What `after` would purge now and `before` would not; nothing where that is nothing.
pub(super) fn going(running: &Running, before: &Rule, after: &Rule) -> Going {
    let found = all(&running.vault.tree());
    let items: Vec<Trashed> = found.iter().map(trashed).collect();
    let now = wall_ms();
    let mut due = overdue(&items, now, after);
    if due.is_subset(&overdue(&items, now, before)) {
        due.clear();
    }
    let mut going = Going::default();
    for found in due.into_iter().map(|index| &found[index]) {
        going.operations.push(Operation::PurgeFile { id: found.id });
        going.files += found.files;
        going.bytes += found.bytes;
    }
    going
}

fn trashed(found: &InTrash) -> Trashed {
    Trashed {
        deleted_ms: found.deleted_ms,
        bytes: found.bytes,
    }
}

async fn purge(running: &Running, ids: impl Iterator<Item = FileId>) -> Result<(), ControlError> {
    let request = CommitRequest {
        operations: ids.map(|id| Operation::PurgeFile { id }).collect(),
        ..CommitRequest::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    Ok(())
}

/// Purges what the rule says has been in the trash for too long, or is too much.
pub(super) async fn purge_overdue(running: &Running) -> Result<(), ControlError> {
    let rule = the_rule(running)?;
    let own = running
        .vault
        .inspect(|core| core.state().writer.actor())
        .await
        .map_err(commit_error)?;
    let chosen: Vec<FileId> = {
        let tree = running.vault.tree();
        let found = all(&tree);
        let items: Vec<Trashed> = found
            .iter()
            .map(|found| Trashed {
                deleted_ms: match found.writer == own {
                    true => found.deleted_ms,
                    false => found.deleted_ms.saturating_add(OTHERS_WAIT_MS),
                },
                bytes: found.bytes,
            })
            .collect();
        let due = overdue(&items, wall_ms(), &rule);
        due.into_iter().map(|index| found[index].id).collect()
    };
    if !chosen.is_empty() {
        tracing::info!(
            count = chosen.len(),
            "what was in the trash for too long is purged"
        );
        purge(running, chosen.into_iter()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn a_name_beside_keeps_its_ending_and_fits() {
        assert_eq!(beside("letter.pdf", true, 0), "letter.pdf");
        assert_eq!(beside("letter.pdf", true, 1), "letter (restored).pdf");
        assert_eq!(beside("v1.2", false, 1), "v1.2 (restored)");
        assert_eq!(beside(".profile", true, 2), ".profile (restored 2)");
        let long = format!("{}.jpg", "é".repeat(125));
        let beside = beside(&long, true, 1);
        assert!(beside.len() <= 255 && beside.ends_with(" (restored).jpg"));
    }
}
