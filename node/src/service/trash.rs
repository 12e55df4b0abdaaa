//! The trash: what is in it, taking things out, and emptying it for good.

use std::collections::BTreeSet;
use std::sync::Arc;

use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::retention::{Rule, Trashed, overdue};
use coffer_crdt::tree::Tree;
use redb::ReadableDatabase;

use super::documents::Names;
use super::files::trash_path;
use super::running::{Running, commit_error};
use super::{Node, store_error};
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

fn look(tree: &Tree, id: FileId) -> Option<InTrash> {
    let deletion = tree.deletion(id)?;
    let mut found = InTrash {
        id,
        path: trash_path(tree, id),
        folder: tree.get(id)?.kind == Kind::Folder,
        deleted_ms: deletion.stamp.ms(),
        writer: deletion.dot.writer,
        files: 0,
        bytes: 0,
    };
    for part in std::iter::once(id).chain(tree.below(id)) {
        let Some(known) = tree.get(part) else {
            continue;
        };
        if known.kind != Kind::Folder && !tree.is_purged(part) {
            found.files += 1;
            found.bytes += known.content.map_or(0, |content| content.size);
        }
    }
    Some(found)
}

/// All of it, what was deleted last first.
fn all(tree: &Tree) -> Vec<InTrash> {
    let mut found: Vec<InTrash> = tree.trashed().filter_map(|id| look(tree, id)).collect();
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
        .filter_map(|id| look(tree, id))
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
    let tree = running.vault.tree();
    let count = restored.len() as u64;
    let items = restored
        .into_iter()
        .take(RESTORED_MAX)
        .filter_map(|(from, id)| tree.path(id).map(|path| TrashRestored { from, path }))
        .collect();
    Ok(Reply::TrashRestored { count, items })
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
    let with = tree.deleted_with(id, SAME_DELETION_MS);
    operations.extend(with.into_iter().map(|id| Operation::RestoreFile { id }));
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
        .map(|n| beside(&own, n))
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
    if from_above {
        for below in tree.below(id).filter(|below| !tree.is_purged(*below)) {
            if let Some(place) = tree.get(below).map(|known| known.place) {
                operations.push(Operation::MoveFile {
                    id: below,
                    parent: place.parent,
                    name: place.name,
                });
            }
        }
    }
}

/// `letter.pdf`, `letter (restored).pdf`, `letter (restored 2).pdf`.
fn beside(name: &str, n: u32) -> String {
    let mark = match n {
        0 => return name.to_owned(),
        1 => " (restored)".to_owned(),
        n => format!(" (restored {n})"),
    };
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    };
    let room = coffer_crdt::files::MAX_NAME_BYTES.saturating_sub(mark.len() + extension.len());
    let stem = &stem[..stem.floor_char_boundary(room)];
    format!("{stem}{mark}{extension}")
}

/// `trash empty`: all, or what lies at these paths. It cannot be undone, so it asks.
pub async fn empty(
    node: &Arc<Node>,
    paths: Vec<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let chosen: Vec<InTrash> = {
        let tree = running.vault.tree();
        if paths.is_empty() {
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
        }
    };
    let (count, files, bytes) = (
        chosen.len() as u64,
        chosen.iter().map(|found| found.files).sum(),
        chosen.iter().map(|found| found.bytes).sum(),
    );
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
        assert_eq!(beside("letter.pdf", 0), "letter.pdf");
        assert_eq!(beside("letter.pdf", 1), "letter (restored).pdf");
        assert_eq!(beside(".profile", 2), ".profile (restored 2)");
        let long = format!("{}.jpg", "é".repeat(125));
        let beside = beside(&long, 1);
        assert!(beside.len() <= 255 && beside.ends_with(" (restored).jpg"));
    }
}
