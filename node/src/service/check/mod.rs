//! Reading all that this device keeps, to find what has gone bad before somebody needs it.
//!
//! [`sweep`] goes through contents, documents and logs, one step at a time, and can be taken up anywhere; [`mend`] sees to
//! what it found: a damaged place is forgotten and its bytes are fetched from another device, a damaged document is put
//! together again from the logs. A person runs a whole sweep with `check`; by itself a slice of one runs each hour, so
//! that everything is seen once a month. What could not be mended is kept, and told by `status` until it is.
//!
//! A damaged record of a log is named and nothing more: what it did is in the documents, which are checked themselves.

mod mend;
mod sweep;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coffer_protocol::codec::{self, List};
use redb::{Database, ReadableDatabase};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::running::{Running, commit_error};
use super::{Node, stopped};
use crate::control::{
    CheckReport, ControlError, Damage, DamageKind, Progress, Reply, Session, Stage, Warning,
};
use crate::store::{StoreError, records, tables};
use crate::vault::{CommitRequest, wall_ms};
use sweep::{Cursor, Found};

/// How often a slice of everything is looked at.
const EVERY: Duration = Duration::from_secs(3600);

/// Slices in which all is seen once: a month of hours.
const SLICES: u64 = 30 * 24;

/// Least number of things in a slice: what is small is seen sooner.
const MIN_SLICE: u64 = 500;

/// After each step a slice rests so many times as long as the step took.
const REST: u32 = 4;

/// Damaged things that are remembered, at most: their row stays under one piece of the store.
const MAX_DAMAGED: usize = 26;

/// Longest name that is remembered, in bytes.
const MAX_NAME: usize = 400;

/// Longest text that is remembered, in bytes.
const MAX_TEXT: usize = 120;

/// Damaged things that a report names, at most.
const MAX_REPORTED: usize = 100;

/// Version of [`Kept`]: its first field. Since 2 an earlier content is named by its file.
const VERSION: u16 = 2;

/// Most bytes of a stored [`Kept`].
const MAX_KEPT: usize = 16 << 10;

/// Something that is damaged and could not be mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flaw {
    kind: DamageKind,
    name: String,
    text: String,
    about: About,
}

/// What a flaw is about, so that it can be seen whether it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum About {
    /// Only a look at it can tell.
    Itself,
    /// A content that is to be fetched.
    File([u8; 16]),
    /// A file of the vault on the disk, which had this change time (nanoseconds since 1970) when it was found bad.
    OnDisk([u8; 16], i128),
    /// An earlier content of a file, by its hash.
    Earlier([u8; 16], [u8; 32]),
}

impl Flaw {
    fn new(kind: DamageKind, name: impl Into<String>, text: &str) -> Flaw {
        Flaw {
            kind,
            name: name.into(),
            text: text.into(),
            about: About::Itself,
        }
    }

    fn about(self, about: About) -> Flaw {
        Flaw { about, ..self }
    }

    fn shown(&self) -> Damage {
        Damage {
            kind: self.kind,
            name: self.name.clone(),
            text: self.text.clone(),
        }
    }

    fn shortened(&self) -> Flaw {
        let short = |text: &String, max| text[..text.floor_char_boundary(max)].to_owned();
        Flaw {
            name: short(&self.name, MAX_NAME),
            text: short(&self.text, MAX_TEXT),
            ..self.clone()
        }
    }
}

/// What is stored under [`tables::meta::CHECK`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u16,
    cursor: Cursor,
    /// When everything had been seen for the last time, in milliseconds since 1970; 0 for never.
    seen_all_ms: u64,
    #[serde(with = "List::<MAX_DAMAGED>")]
    flaws: Vec<Flaw>,
}

/// What checks have found so far, and how far the present one is.
pub struct Checking {
    kept: Mutex<Kept>,
    /// Held by whoever checks: one at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Checking {
    /// Reads what earlier runs found.
    pub(super) fn load(database: &Database) -> Result<Checking, StoreError> {
        let meta = database.begin_read()?.open_table(tables::META)?;
        let kept = records::get(&meta, tables::meta::CHECK)?
            .and_then(|bytes| codec::decode_versioned::<Kept>(&bytes, MAX_KEPT, VERSION).ok());
        // A position that cannot be read costs a check from the beginning, and nothing else.
        let kept = kept.unwrap_or(Kept {
            version: VERSION,
            cursor: Cursor::default(),
            seen_all_ms: 0,
            flaws: Vec::new(),
        });
        Ok(Checking {
            kept: Mutex::new(kept),
            turn: tokio::sync::Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a person should know, for `status`: what is whole again is not.
    pub async fn warnings(&self, running: &Running) -> Vec<Warning> {
        let known = self.lock().flaws.clone();
        let flaws = mend::still_there(running, known).await;
        let warning = |flaw: &Flaw| Warning {
            code: "damaged".into(),
            text: format!("Damaged: {}: {}.", flaw.name, flaw.text),
        };
        flaws.iter().map(warning).collect()
    }

    /// Remembers what is damaged now, durably.
    async fn keep(
        &self,
        running: &Running,
        change: impl FnOnce(&mut Kept),
    ) -> Result<(), ControlError> {
        let kept = {
            let mut kept = self.lock();
            change(&mut kept);
            kept.clone()
        };
        let request = CommitRequest {
            meta: vec![(tables::meta::CHECK, codec::encode(&kept))],
            ..Default::default()
        };
        running.vault.commit(request).await.map_err(commit_error)?;
        Ok(())
    }
}

/// Adds `new` to what is remembered, unless it is there.
fn remember(kept: &mut Kept, new: &[Flaw]) {
    for flaw in new.iter().map(Flaw::shortened) {
        if kept.flaws.len() < MAX_DAMAGED && !kept.flaws.contains(&flaw) {
            kept.flaws.push(flaw);
        }
    }
}

/// `check`: all of it, now.
pub async fn check(node: &Arc<Node>, session: &Session) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let _turn = running.checking.turn.lock().await;
    let total = sweep::size(&running)?;
    let mut cursor = Cursor::default();
    let mut found = Found::default();
    loop {
        let more = sweep::step(&running, &mut cursor, &mut found).await?;
        session.progress(Progress {
            stage: Stage::Checking,
            done: found.things().min(total),
            total: Some(total),
            about: None,
        });
        if !more {
            break;
        }
    }
    let report = mend::all(&running, &mut found).await?;
    // What was forgotten as damaged before is not seen by a sweep again.
    let before = running.checking.lock().flaws.clone();
    for flaw in mend::still_there(&running, before).await {
        if flaw.about != About::Itself && !found.flaws.iter().any(|new| new.about == flaw.about) {
            found.flaws.push(flaw);
        }
    }
    let flaws = found.flaws;
    let now = wall_ms();
    running
        .checking
        .keep(&running, |kept| {
            kept.flaws.clear();
            remember(kept, &flaws);
            kept.cursor = Cursor::default();
            kept.seen_all_ms = now;
        })
        .await?;
    Ok(Reply::Checked(CheckReport {
        damaged_count: flaws.len() as u64,
        damaged: flaws.iter().take(MAX_REPORTED).map(Flaw::shown).collect(),
        ..report
    }))
}

/// Checks a slice each hour, until `stop`.
pub async fn run(running: Arc<Running>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let outcome = tokio::select! {
            () = stopped(&mut stop) => return,
            outcome = slice(&running) => outcome,
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "a part of the regular check could not be done");
        }
    }
}

/// Checks the next slice, at a low priority, and mends what it finds.
async fn slice(running: &Arc<Running>) -> Result<(), ControlError> {
    let _turn = running.checking.turn.lock().await;
    let enough = (sweep::size(running)? / SLICES).max(MIN_SLICE);
    let mut cursor = running.checking.lock().cursor.clone();
    let mut found = Found::default();
    let mut more = true;
    while more && found.things() < enough {
        let begun = Instant::now();
        more = sweep::step(running, &mut cursor, &mut found).await?;
        tokio::time::sleep(begun.elapsed() * REST).await;
    }
    mend::all(running, &mut found).await?;
    let before = running.checking.lock().flaws.clone();
    let still = mend::still_there(running, before).await;
    running
        .checking
        .keep(running, |kept| {
            kept.flaws = still;
            remember(kept, &found.flaws);
            kept.cursor = if more { cursor } else { Cursor::default() };
            if !more {
                kept.seen_all_ms = wall_ms();
            }
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_frozen_and_fits_one_piece() {
        let mut kept = Kept {
            version: VERSION,
            cursor: Cursor::default(),
            seen_all_ms: 300,
            flaws: Vec::new(),
        };
        let long = Flaw::new(DamageKind::FolderFile, "ü".repeat(900), &"x".repeat(900))
            .about(About::OnDisk([7; 16], i128::MAX));
        let flaws: Vec<Flaw> = (0..2 * MAX_DAMAGED)
            .map(|n| Flaw {
                text: format!("{n} {}", long.text),
                ..long.clone()
            })
            .collect();
        remember(&mut kept, &flaws);
        remember(&mut kept, &flaws);
        assert_eq!(kept.flaws.len(), MAX_DAMAGED);
        let bytes = codec::encode(&kept);
        assert!(bytes.len() <= MAX_KEPT, "{}", bytes.len());
        assert_eq!(
            codec::decode_versioned::<Kept>(&bytes, MAX_KEPT, VERSION).as_ref(),
            Ok(&kept)
        );
        kept.flaws = vec![Flaw::new(DamageKind::File, "a", "b")];
        assert_eq!(hex::encode(codec::encode(&kept)), "0200ac0201000161016200");
    }
}
