//! The 24 words: shown to a person once, confirmed, and then on no device.

use std::sync::Arc;

use rand::Rng;

use super::running::commit_error;
use super::{Node, random, store_error};
use crate::control::{Answer, ControlError, Item, Question, Reply, Session};
use crate::vault::CommitRequest;

/// Words that a person types back.
const ASKED: usize = 3;
/// Times that a person may try.
const TRIES: u8 = 3;

/// `recovery show`.
pub async fn show(node: &Arc<Node>, session: &mut Session) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let key = running
        .vault
        .inspect(|core| core.recovery())
        .await
        .map_err(commit_error)?
        .map_err(store_error)?;
    let Some(key) = key else {
        return Err(ControlError::conflict("the 24 words were confirmed before, or were made on another device; they are not on this one")
            .with_code("recovery-confirmed"));
    };
    let words = key.words();
    let list: Vec<String> = words.split(' ').map(str::to_string).collect();
    session.item(Item::RecoveryWords(list.clone())).await?;
    for tries_left in (0..TRIES).rev() {
        let positions = choose(list.len());
        let answer = session
            .ask(Question::RecoveryWords {
                positions: positions.clone(),
                tries_left,
            })
            .await?;
        let Answer::Words(typed) = answer else { break };
        let right = typed.len() == positions.len()
            && positions.iter().zip(&typed).all(|(position, word)| {
                list[usize::from(*position) - 1] == word.trim().to_lowercase()
            });
        if right {
            let request = CommitRequest {
                forget_recovery: true,
                ..Default::default()
            };
            running.vault.commit(request).await.map_err(commit_error)?;
            return Ok(Reply::RecoveryConfirmed);
        }
    }
    Err(
        ControlError::refused("the words typed were not the right ones, so they are not confirmed")
            .with_code("recovery-not-confirmed"),
    )
}

/// Distinct positions from 1 to `count`, ascending.
fn choose(count: usize) -> Vec<u8> {
    let mut rng = random();
    let mut chosen = std::collections::BTreeSet::new();
    while chosen.len() < ASKED.min(count) {
        chosen.insert((rng.next_u64() % count as u64) as u8 + 1);
    }
    chosen.into_iter().collect()
}
