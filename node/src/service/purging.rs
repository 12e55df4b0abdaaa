//! `doc purge`: a document is forgotten on every device.

use std::sync::Arc;

use coffer_protocol::grants::Role;
use redb::ReadableDatabase;

use super::documents::not_there;
use super::running::commit_error;
use super::{Node, store_error};
use crate::control::{Answer, ControlError, ErrorKind, Question, Reply, Session};
use crate::store::StoreError;
use crate::store::documents::{DocumentKey, read_row};
use crate::vault::purging::can_be_purged;
use crate::vault::{CommitRequest, FILES, Operation};

/// Purges a document after a yes.
pub async fn purge(
    node: &Arc<Node>,
    doctype: String,
    id: String,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    if doctype == FILES {
        return Err(ControlError::usage(
            "files and folders go for good from the trash: `coffer file delete`, then `coffer trash empty`",
        ));
    }
    if !can_be_purged(&doctype) {
        return Err(ControlError::usage(format!(
            "documents of type {doctype} are coffer's own and cannot be purged"
        )));
    }
    // Before anybody is asked: what is not there needs no yes.
    let database = running.vault.database().clone();
    let (of, name) = (doctype.clone(), id.clone());
    let found = tokio::task::spawn_blocking(move || -> Result<_, StoreError> {
        let read = database.begin_read()?;
        let row = read_row(&read, DocumentKey::new(&of, &name))?;
        match row {
            Some(_) => Ok(None),
            None => not_there(&read, &of, &name).map(Some),
        }
    });
    let found = found
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(store_error)?;
    if let Some(error) = found {
        return Err(error);
    }
    let question = Question::PurgeDocument {
        doctype: doctype.clone(),
        document: id.clone(),
    };
    if session.ask(question).await? != Answer::Yes {
        return Err(ControlError::new(ErrorKind::Refused, "nothing was purged"));
    }
    let request = CommitRequest {
        operations: vec![Operation::PurgeDocument {
            doctype: doctype.clone(),
            id: id.clone(),
        }],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    let (devices, told) = running
        .vault
        .glance(|core| {
            let own = core.device();
            let others = core.state().membership.devices().iter();
            let others = others.filter(|(id, device)| **id != own && device.role != Role::Relay);
            others.fold((0, 0), |(devices, told), (id, _)| {
                (devices + 1, told + u64::from(core.is_connected(id)))
            })
        })
        .await
        .map_err(commit_error)?;
    Ok(Reply::Purged {
        doctype,
        id,
        devices,
        told,
    })
}
