//! The contents that a file had: listing them, finding one, and keeping one for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_crdt::files::{self, FileId, Kind, lasting};
use coffer_crdt::retention::{Kept, Version, VersionId, kept};
use redb::ReadableDatabase;

use super::super::documents::Names;
use super::super::running::{Running, commit_error};
use super::super::whereabouts::{self, Sought, Whereabouts};
use super::super::{Node, keeper, store_error};
use super::resolve;
use crate::blobs::Hold;
use crate::control::{Content, ControlError, ErrorKind, FileRevision, KeptAs, Reply};
use crate::store::documents::{DocumentKey, read_document, read_row};
use crate::vault::{CommitRequest, FILES, Operation, rule, wall_ms};

/// What a file was.
struct Past {
    /// Its contents, oldest first, with what names each.
    contents: Vec<(coffer_crdt::Revision, files::Content)>,
    tags: BTreeMap<VersionId, String>,
    kept: BTreeMap<VersionId, Kept>,
    present: Option<VersionId>,
}

fn past(running: &Running, id: FileId) -> Result<Past, ControlError> {
    let key = DocumentKey::new(FILES, &id.to_string());
    let read = running.vault.database().begin_read();
    let read = read.map_err(|error| store_error(error.into()))?;
    let row = read_row(&read, key)
        .map_err(store_error)?
        .ok_or_else(|| ControlError::not_found("that file is not known"))?;
    let document = read_document(&read, key, &row).map_err(store_error)?;
    let damaged =
        |error: files::FileError| ControlError::new(ErrorKind::Damaged, error.to_string());
    let contents = files::contents(&document).map_err(damaged)?;
    let tags = lasting::tags(&document);
    let (rule, _) = rule::read(&read).map_err(store_error)?;
    let versions: Vec<Version> = contents
        .iter()
        .map(|(_, content)| Version {
            id: content.version(),
            tagged: tags.contains_key(&content.version()),
        })
        .collect();
    Ok(Past {
        kept: kept(&versions, &rule).into_iter().collect(),
        present: files::read(&document)
            .map_err(damaged)?
            .content
            .map(|content| content.version()),
        contents,
        tags,
    })
}

impl Past {
    /// The content whose revision begins with what was typed.
    fn find(self, typed: &str) -> Result<(coffer_crdt::Revision, files::Content), ControlError> {
        let typed = typed.trim().to_ascii_lowercase();
        let mut found = self.contents.into_iter().filter(|(revision, _)| {
            typed.len() >= 4 && hex::encode(revision.hash.0).starts_with(&typed)
        });
        match (found.next(), found.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => Err(ControlError::usage(format!(
                "\"{typed}\" is the beginning of several revisions"
            ))),
            _ => Err(ControlError::not_found(format!(
                "there is no revision \"{typed}\" of that file"
            ))),
        }
    }

    fn row(
        &self,
        revision: &coffer_crdt::Revision,
        content: &files::Content,
        names: &Names,
        found: Whereabouts,
    ) -> FileRevision {
        let version = content.version();
        let until = match self.kept.get(&version) {
            Some(Kept::Until(until)) => Some(*until),
            _ => None,
        };
        let tag = self.tags.get(&version).cloned();
        FileRevision {
            revision: hex::encode(revision.hash.0),
            at_ms: revision.time_ms,
            device: names.of(revision.actor),
            content: Content {
                size: content.size,
                modified_ms: content.mtime_ms,
                executable: content.executable,
                link: content.target.clone(),
                here: found.here,
            },
            on: found.on,
            perhaps_on: found.perhaps_on,
            kept: match until {
                _ if self.present == Some(version) => KeptAs::Present,
                _ if tag.is_some() => KeptAs::Tagged,
                Some(until) if until >= wall_ms() => KeptAs::Until,
                _ => KeptAs::No,
            },
            kept_until_ms: until.filter(|_| tag.is_none() && self.present != Some(version)),
            tag,
        }
    }
}

/// The content of a file whose revision begins with what was typed.
pub(super) fn find_content(
    running: &Running,
    id: FileId,
    typed: &str,
) -> Result<files::Content, ControlError> {
    Ok(past(running, id)?.find(typed)?.1)
}

/// Keeps what an earlier content is made of from being freed while it becomes the present one.
///
/// # Errors
/// [`ErrorKind::Unavailable`] where nobody who is connected gives what is not here: a file must not be given a content
/// that no device has.
pub(super) async fn hold_for_restoring(
    running: &Arc<Running>,
    id: FileId,
    content: &files::Content,
) -> Result<Hold, ControlError> {
    let held = running.blobs.hold_content(&content.root, &running.fetch);
    let held = held.await.ok();
    if let Some((hold, 0)) = held {
        return Ok(hold);
    }
    let sought = [Sought::of(running, id, content)];
    let found = whereabouts::find(running, &sought).await?.pop();
    let (found, paused) = (
        found.unwrap_or_default(),
        running.blobs.limits().borrow().paused,
    );
    match held {
        Some((hold, _)) if found.here || found.comes() && !paused => Ok(hold),
        _ => {
            let error = ControlError::unavailable(found.why_not_here(paused));
            Err(match found.code(paused) {
                Some(code) => error.with_code(code),
                None => error,
            })
        }
    }
}

/// Where contents of a file are, in their order.
async fn find<'a>(
    running: &Arc<Running>,
    id: FileId,
    contents: impl Iterator<Item = &'a files::Content>,
) -> Result<Vec<Whereabouts>, ControlError> {
    // What was replaced a moment ago must not count as here any more.
    keeper::forget_left(running).await;
    let sought: Vec<Sought> = contents
        .map(|content| Sought::of(running, id, content))
        .collect();
    whereabouts::find(running, &sought).await
}

/// `file history`.
pub async fn history(node: &Arc<Node>, path: String) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let id = resolve(&running, &path)?;
    let shown = running.vault.tree().shown(id);
    if shown.is_some_and(|shown| shown.kind == Kind::Folder) {
        return Err(ControlError::usage(format!(
            "{path:?} is a folder; only files have earlier contents"
        )));
    }
    let names = Names::read(&running).await?;
    let past = past(&running, id)?;
    let contents = past.contents.iter().rev();
    let found = find(&running, id, contents.clone().map(|(_, content)| content)).await?;
    let revisions = contents
        .zip(found)
        .map(|((revision, content), found)| past.row(revision, content, &names, found))
        .collect();
    Ok(Reply::FileRevisions { revisions })
}

/// `file tag`. A content that is tagged keeps its label unless it is given another one.
pub async fn tag(
    node: &Arc<Node>,
    path: String,
    revision: String,
    label: Option<String>,
) -> Result<Reply, ControlError> {
    set_tag(node, path, revision, |old| {
        Ok(Some(label.or(old).unwrap_or_default()))
    })
    .await
}

/// `file untag`.
pub async fn untag(
    node: &Arc<Node>,
    path: String,
    revision: String,
) -> Result<Reply, ControlError> {
    let not_tagged = || ControlError::conflict("that content is not tagged");
    set_tag(node, path, revision, |old| match old {
        Some(_) => Ok(None),
        None => Err(not_tagged().with_code("not-tagged")),
    })
    .await
}

/// Sets the tag of a content to what `label` makes of the present one.
async fn set_tag(
    node: &Arc<Node>,
    path: String,
    revision: String,
    label: impl FnOnce(Option<String>) -> Result<Option<String>, ControlError>,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let id = resolve(&running, &path)?;
    let known = past(&running, id)?;
    let tags = known.tags.clone();
    let (revision, content) = known.find(&revision)?;
    let version = content.version();
    let label = label(tags.get(&version).cloned())?;
    let mut request = CommitRequest {
        operations: vec![Operation::TagFile { id, version, label }],
        ..CommitRequest::default()
    };
    // What is here must not go while the tag is on its way; what is not may be on a device that hears of it later.
    let held = running.blobs.hold_content(&content.root, &running.fetch);
    request.holds.extend(held.await.ok().map(|(hold, _)| hold));
    running.vault.commit(request).await.map_err(commit_error)?;
    let names = Names::read(&running).await?;
    let found = find(&running, id, std::iter::once(&content)).await?.pop();
    let found = found.unwrap_or_default();
    let revision = past(&running, id)?.row(&revision, &content, &names, found);
    Ok(Reply::FileTagged { revision })
}
