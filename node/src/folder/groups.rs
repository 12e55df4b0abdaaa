//! Groups of files that were written to the temporary place are put where they belong, made durable and committed.
//!
//! Of a first copy many groups come one after the other. What one comes to is committed while the next is put in place:
//! the one keeps the vault's thread busy, the other the file system. The note of what is about to be done then names both,
//! for neither is committed yet. Where something was moved aside, or did not go as it should, nothing overlaps.

use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::FileId;

use super::apply::{Hands, Outcome};
use super::engine::{
    Engine, Flight, Halt, RETRY, RETRY_UNREACHABLE, RETRY_UNREACHABLE_FIRST, blocking,
};
use super::hidden::temporary_name;
use super::intent::{self, Intent};
use super::plan::{Want, Wish};
use super::remote::{is_empty, unnoted};
use super::state::Problem;
use super::{Contents, FolderVault};
use crate::blobs::{Group, Rows, WriteError};
use crate::vault::request::CommitRequest;

/// Groups put in place in one go, at most: what people do meanwhile is to be seen, too.
const IN_A_ROW: usize = 8;

/// A group whose files are in place.
struct Placed {
    outcome: Outcome,
    request: CommitRequest,
    intents: Vec<Intent>,
}

impl Placed {
    /// Whether the next group may be put in place before this one is committed.
    fn can_wait(&self) -> bool {
        let Outcome {
            kept,
            surprises,
            refused,
            ..
        } = &self.outcome;
        kept.is_empty() && surprises.is_empty() && refused.is_empty()
    }
}

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Puts a group of written files in place, and those that have come meanwhile.
    pub(super) async fn put_in_place(&mut self, first: Group) -> Result<(), Halt> {
        let (mut next, mut before, mut count) = (Some(first), None, 0);
        while let Some(group) = next.take() {
            if self.braked.is_some() {
                // Nothing comes to disk; what was written stays in its temporary file, and is asked for again.
                let ended = group.jobs.iter().map(|(key, _)| key);
                let flights = ended.filter_map(|key| self.flights.remove(key));
                self.questions.extend(flights.map(|flight| flight.bring.id));
            } else {
                let placed = self.place_group(group, before.take()).await?;
                self.publish();
                if placed.can_wait() {
                    before = Some(placed);
                } else {
                    self.commit_placed(placed).await?;
                }
                self.start_transfers().await?;
            }
            count += 1;
            if count < IN_A_ROW && !*self.stop_signal().borrow() {
                next = self.groups.1.try_recv().ok();
            }
        }
        match before {
            Some(placed) => self.commit_placed(placed).await,
            None => Ok(()),
        }
    }

    async fn commit_placed(&mut self, placed: Placed) -> Result<(), Halt> {
        if !is_empty(&placed.request) {
            if let Err(error) = self.vault.commit(placed.request).await {
                return Err(self.fall_back(error).await);
            }
            self.forget_intents().await?;
        }
        self.committed(placed.outcome).await?;
        self.publish();
        Ok(())
    }

    /// Puts one group in place while what the one `before` comes to is committed.
    async fn place_group(&mut self, group: Group, before: Option<Placed>) -> Result<Placed, Halt> {
        let place = self.place()?;
        let mut request = CommitRequest {
            placements: group.shared.placements,
            chunks: group.shared.chunks,
            ..CommitRequest::default()
        };
        request.holds.extend(group.hold);
        let (ready, mut rows) = self.ready(group.jobs);
        if !self.refused.is_empty() {
            self.retry_in(RETRY);
        }
        if !self.unreachable.is_empty() {
            if !rows.is_empty() {
                self.patience = RETRY_UNREACHABLE_FIRST;
            }
            self.retry_in(self.patience);
            self.patience = (self.patience * 2).min(RETRY_UNREACHABLE);
        }
        let (uncommitted, earlier) = match before {
            Some(placed) => (Some((placed.outcome, placed.request)), placed.intents),
            None => (None, Vec::new()),
        };
        let (shared, around) = (self.shared.clone(), self.around.clone());
        let placing = blocking(move || {
            place.check()?;
            let intents = intent::of_files(&place, &shared.rows(), &ready);
            if !intents.is_empty() {
                let both: Vec<Intent> = earlier.into_iter().chain(intents.clone()).collect();
                intent::note(&place, &both).map_err(unnoted)?;
            }
            let mut unique = || around.fresh();
            let mut hands = Hands::new(&place, &shared, &mut unique);
            for (id, want, temporary) in &ready {
                hands.place_content(*id, want, temporary);
            }
            let outcome = hands.finish();
            // The bytes were durable before they were renamed; now the names are.
            place
                .sync()
                .map_err(|error| Halt::Failed(format!("writing to the folder failed: {error}")))?;
            Ok::<_, Halt>((outcome, intents))
        });
        let vault = self.vault.clone();
        let committing = async {
            match uncommitted {
                Some((outcome, request)) if !is_empty(&request) => {
                    Some((outcome, vault.commit(request).await.map(drop)))
                }
                Some((outcome, _)) => Some((outcome, Ok(()))),
                None => None,
            }
        };
        let (placed, committed) = tokio::join!(placing, committing);
        match committed {
            Some((outcome, Ok(()))) => self.committed(outcome).await?,
            // The rows of what was just put in place go, too: it is found again, as after a crash.
            Some((_, Err(error))) => return Err(self.fall_back(error).await),
            None => {}
        }
        let (outcome, intents) = placed??;
        {
            let known = self.shared.rows();
            // Also of what somebody took away the moment it was there: its row says that these bytes came.
            for id in &outcome.touched {
                if let (Some(written), Some(row)) = (rows.remove(id), known.get(*id)) {
                    request.placements.extend(written.placements);
                    request.chunks.extend(written.chunks);
                    request.held.push((*id, row.hash));
                }
            }
        }
        self.account_for(&outcome, &mut request).await;
        Ok(Placed {
            outcome,
            request,
            intents,
        })
    }

    /// Of written files, those that are still wanted so, with where their bytes will be.
    #[expect(clippy::type_complexity, reason = "two lists")]
    fn ready(
        &mut self,
        jobs: Vec<(u64, Result<Rows, WriteError>)>,
    ) -> (Vec<(FileId, Want, String)>, BTreeMap<FileId, Rows>) {
        let (mut ready, mut rows) = (Vec::new(), BTreeMap::new());
        let (vault, shared) = (self.vault.clone(), self.shared.clone());
        let tree = vault.tree();
        let known = shared.rows();
        for (key, result) in jobs {
            let Some(Flight { bring, .. }) = self.flights.remove(&key) else {
                continue;
            };
            match (result, self.view(&known, &tree, "").wish(bring.id)) {
                (Ok(written), Wish::Here(want))
                    if want
                        .content
                        .as_ref()
                        .is_some_and(|content| content.hash == bring.content.hash) =>
                {
                    rows.insert(bring.id, written);
                    let temporary = temporary_name(bring.id, &bring.content.hash);
                    ready.push((bring.id, want, temporary));
                }
                (Ok(_), _) => drop(self.questions.insert(bring.id)),
                (Err(error), _) => {
                    // What was written of it takes the room in which others could come and be deleted.
                    if let (WriteError::DiskFull, Some(place)) = (&error, &self.place) {
                        let temporary = temporary_name(bring.id, &bring.content.hash);
                        let _ = place.tmp().unlink(&temporary);
                    }
                    let (unreachable, refused) = (&mut self.unreachable, &mut self.refused);
                    failures(&error, bring.id, &tree, unreachable, refused);
                }
            }
        }
        (ready, rows)
    }
}

fn failures(
    error: &WriteError,
    id: FileId,
    tree: &coffer_crdt::tree::Tree,
    unreachable: &mut BTreeSet<FileId>,
    refused: &mut BTreeMap<FileId, Problem>,
) {
    match error {
        WriteError::Unavailable { .. } | WriteError::NoKey(_) => {
            unreachable.insert(id);
        }
        error => {
            refused.insert(
                id,
                Problem {
                    path: tree.path(id).unwrap_or_default(),
                    reason: error.to_string(),
                },
            );
        }
    }
}
