//! Many documents in one request: `doc put --lines` and `doc edit --lines`.
//!
//! All lines that are there share a commit; each is acknowledged, in order, when it is durable.

use std::sync::Arc;

use super::Node;
use super::documents::{named, object, state_read};
use super::running::{Running, commit_error};
use crate::control::{Ack, AckResult, ControlError, DocLine, Item, LinesMode, Reply, Session};
use crate::vault::{CommitRequest, Operation};

/// Lines that share one commit, at most.
const LINES_AT_ONCE: usize = 2048;

/// What became of a line: the new revision, none where nothing was different.
type Outcome = Result<Option<String>, ControlError>;

/// Takes lines until the client ends them.
pub async fn lines(
    node: &Arc<Node>,
    mode: LinesMode,
    texts: Vec<String>,
    create: bool,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let (mut written, mut unchanged, mut failed) = (0, 0, 0);
    while let Some(mut lines) = session.lines().await? {
        while lines.len() < LINES_AT_ONCE
            && let Some(more) = session.lines_waiting()
        {
            lines.extend(more);
        }
        let mut names = Vec::with_capacity(lines.len());
        let mut operations = Vec::with_capacity(lines.len());
        for line in lines {
            names.push((line.doctype.clone(), line.id.clone()));
            operations.push(operation(&running, line, mode, &texts, create).await);
        }
        let outcomes = carry_out(&running, operations).await;
        let mut acks = Vec::with_capacity(names.len());
        for ((doctype, id), outcome) in names.into_iter().zip(outcomes) {
            *match &outcome {
                Ok(Some(_)) => &mut written,
                Ok(None) => &mut unchanged,
                Err(_) => &mut failed,
            } += 1;
            acks.push(Ack {
                doctype,
                id,
                result: outcome.map_or_else(AckResult::Error, AckResult::Revision),
            });
        }
        session.item(Item::Acks(acks)).await?;
    }
    Ok(Reply::Lines {
        written,
        unchanged,
        failed,
    })
}

/// What a line asks of the vault.
async fn operation(
    running: &Running,
    line: DocLine,
    mode: LinesMode,
    texts: &[String],
    create: bool,
) -> Result<Operation, ControlError> {
    let DocLine {
        doctype,
        id,
        value,
        base,
    } = line;
    object(&value)?;
    let base = state_read(running, &doctype, &id, base).await?;
    let texts = texts.to_vec();
    Ok(match mode {
        LinesMode::Put => Operation::PutDocument {
            doctype,
            id,
            value,
            texts,
            base,
        },
        LinesMode::Edit => Operation::MergeDocument {
            doctype,
            id,
            patch: value,
            texts,
            base,
            must_exist: !create,
        },
    })
}

/// One request for all where all can be carried out; else each on its own, so that one bad line harms no other.
async fn carry_out(
    running: &Running,
    operations: Vec<Result<Operation, ControlError>>,
) -> Vec<Outcome> {
    let together: Option<Vec<Operation>> = operations
        .iter()
        .map(|operation| operation.as_ref().ok().cloned())
        .collect();
    if let Some(operations) = together
        && let Ok(outcomes) = commit(running, operations).await
    {
        return outcomes.into_iter().map(Ok).collect();
    }
    let mut outcomes = Vec::with_capacity(operations.len());
    for operation in operations {
        outcomes.push(match operation {
            Ok(operation) => commit(running, vec![operation])
                .await
                .map(|revisions| revisions.into_iter().next().flatten()),
            Err(error) => Err(error),
        });
    }
    outcomes
}

/// The revision that each operation leads to, once all are durable.
async fn commit(
    running: &Running,
    operations: Vec<Operation>,
) -> Result<Vec<Option<String>>, ControlError> {
    let request = CommitRequest {
        operations,
        ..Default::default()
    };
    let committed = running.vault.commit(request).await.map_err(commit_error)?;
    Ok(committed
        .revisions
        .iter()
        .map(|heads| named(heads))
        .collect())
}
