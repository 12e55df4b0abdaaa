//! Earlier contents: the rule by which they are kept, and tags.

use std::sync::Arc;

use coffer_crdt::retention::Rule;
use redb::ReadableDatabase;

use super::running::{Running, commit_error};
use super::{Node, store_error, trash};
use crate::control::{
    Amount, Answer, ControlError, Limit, Question, Reply, RuleChange, Session, Versions,
};
use crate::vault::{CommitRequest, Operation, rule};

/// `versions show`.
pub async fn show(node: &Arc<Node>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    Ok(Reply::Versions(versions(&running)?))
}

fn in_force(running: &Running) -> Result<(Rule, Option<String>), ControlError> {
    let read = running.vault.database().begin_read();
    let read = read.map_err(|error| store_error(error.into()))?;
    rule::read(&read).map_err(store_error)
}

fn versions(running: &Running) -> Result<Versions, ControlError> {
    let (rule, problem) = in_force(running)?;
    let looked = running.collector.looked();
    Ok(Versions {
        all_s: rule.all_ms / 1000,
        hourly_s: rule.hourly_ms / 1000,
        daily_s: rule.daily_ms / 1000,
        weekly_s: rule.weekly_ms / 1000,
        trash_s: rule.trash_ms.map(|ms| ms / 1000),
        trash_bytes: rule.trash_bytes,
        problem,
        in_trash_bytes: trash::bytes(running),
        looked_ms: looked.at_ms,
        freed_bytes: looked.freed_bytes,
        waiting_bytes: looked.waiting_bytes,
        look_failed: looked.failed,
        purged: Amount::default(),
    })
}

/// `versions set`: for the whole vault.
pub async fn set(
    node: &Arc<Node>,
    change: RuleChange,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let (before, _) = in_force(&running)?;
    let mut wanted = before;
    if change.reset {
        wanted = Rule::default();
    }
    let ms = |seconds: u64| match seconds <= rule::MAX_S {
        true => Ok(seconds * 1000),
        false => Err(ControlError::usage("a hundred years are the longest time")),
    };
    for (seconds, field) in [
        (change.all_s, &mut wanted.all_ms),
        (change.hourly_s, &mut wanted.hourly_ms),
        (change.daily_s, &mut wanted.daily_ms),
        (change.weekly_s, &mut wanted.weekly_ms),
    ] {
        if let Some(seconds) = seconds {
            *field = ms(seconds)?;
        }
    }
    match change.trash_s {
        None => {}
        Some(Limit::None) => wanted.trash_ms = None,
        Some(Limit::At(seconds)) => wanted.trash_ms = Some(ms(seconds)?),
    }
    match change.trash_bytes {
        None => {}
        Some(Limit::None) => wanted.trash_bytes = None,
        Some(Limit::At(bytes)) => wanted.trash_bytes = Some(bytes),
    }
    let going = trash::going(&running, &before, &wanted);
    if !going.operations.is_empty() {
        let question = Question::EmptyTrash {
            files: going.files,
            bytes: going.bytes,
        };
        if session.ask(question).await? != Answer::Yes {
            return Err(ControlError::refused(
                "the rule was not changed, and nothing was purged",
            ));
        }
    }
    let put = Operation::PutDocument {
        doctype: rule::DOCTYPE.into(),
        id: rule::ID.into(),
        value: rule::to_json(&wanted),
        texts: Vec::new(),
        base: Vec::new(),
    };
    let request = CommitRequest {
        operations: std::iter::once(put).chain(going.operations).collect(),
        ..CommitRequest::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    running.collector.look_soon();
    Ok(Reply::Versions(Versions {
        purged: Amount {
            files: going.files,
            bytes: going.bytes,
        },
        ..versions(&running)?
    }))
}
