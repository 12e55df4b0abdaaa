//! What the engine says of itself: its state, and whether all is settled.

use std::time::Duration;

use tokio::sync::broadcast;

use super::engine::{Engine, blocking};
use super::plan::Wish;
use super::state::{Activity, FolderState, MAX_PROBLEMS, Problem};
use super::watch::{COOKIE, Watcher};
use super::{Contents, FolderVault};

/// How long to wait for the event of a cookie.
const COOKIE_WAIT: Duration = Duration::from_secs(1);

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// See [`super::FolderHandle::is_settled`].
    pub(super) async fn is_settled(&mut self) -> bool {
        if !self.is_quiet() {
            return false;
        }
        if self.watcher.as_ref().is_some_and(Watcher::is_watching) && !self.events_have_come().await
        {
            return false;
        }
        loop {
            match self.tree_changes.try_recv() {
                Ok(changed) => self.note_changed(&changed),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.all_questions = true,
                Err(_) => break,
            }
        }
        self.is_quiet() && self.agrees()
    }

    fn is_quiet(&self) -> bool {
        let watcher_quiet = self.watcher.as_ref().is_some_and(Watcher::is_quiet);
        self.halted.is_none()
            && self.braked.is_none()
            && watcher_quiet
            && self.noted_since.is_none()
            && !self.has_work()
            && self.place.is_some()
            && self.later.is_empty()
            && self.doubted_parts.is_none()
            && self.survey.len() == 0
            && self.wanted.is_empty()
            && self.flights.is_empty()
            && self.unreachable.is_empty()
            && self.refused.is_empty()
            && self.groups.1.is_empty()
    }

    /// Makes a file and waits for its event: all events before it have come then.
    pub(super) async fn events_have_come(&mut self) -> bool {
        self.cookie += 1;
        let path = self
            .config
            .path
            .join(super::place::HIDDEN)
            .join(format!("{COOKIE}{}", self.cookie));
        let made = blocking(move || {
            let made = std::fs::File::create_new(&path).is_ok();
            let _ = std::fs::remove_file(&path);
            made
        });
        if !matches!(made.await, Ok(true)) {
            return false;
        }
        let Some(watcher) = &self.watcher else {
            return false;
        };
        let seen = async {
            while !watcher.has_seen(self.cookie) {
                watcher.noted().await;
            }
        };
        let came = tokio::time::timeout(COOKIE_WAIT, seen).await.is_ok();
        self.note_events();
        came
    }

    /// Whether rows and tree say the same, all of them: announcements of changes may still be on their way. Who waits for
    /// it asks often, so what was found is remembered until either changes.
    fn agrees(&mut self) -> bool {
        let revisions = (self.vault.tree().revision(), self.shared.rows().revision());
        if let Some((at, agrees)) = self.agreed
            && at == revisions
        {
            return agrees;
        }
        let agrees = self.agrees_now();
        self.agreed = Some((revisions, agrees));
        agrees
    }

    fn agrees_now(&self) -> bool {
        let tree = self.vault.tree();
        let rows = self.shared.rows();
        let view = self.view(&rows, &tree, "");
        let shown = view.below(self.config.vault_folder);
        let (mut unclear, mut crowd) = (0, super::spelling::Crowd::default());
        for id in &shown {
            if self.alone.contains(id) {
                // Not the same, and not to be made so.
                unclear += usize::from(rows.get(*id).is_none());
                continue;
            }
            match (view.wish_among(*id, &mut crowd), rows.get(*id)) {
                (Wish::Here(want), Some(row)) => {
                    let content = want
                        .content
                        .as_ref()
                        .is_none_or(|content| content.hash == row.hash);
                    if want.parent.0 != row.parent || want.name != row.name || !content {
                        return false;
                    }
                }
                (Wish::Unclear, None) => unclear += 1,
                _ => return false,
            }
        }
        shown.len() - unclear == rows.len()
    }

    pub(super) fn publish(&mut self) {
        let (files, folders, bytes) = {
            let rows = self.shared.rows();
            let (files, bytes) = rows.totals();
            (files, rows.len() as u64 - files, bytes)
        };
        let pending_remote = (self.questions.len()
            + self.survey.len()
            + self.wanted.len()
            + self.flights.len()
            + self.unreachable.len()
            + self.refused.len()) as u64;
        let pending_local =
            (self.parts.len() + usize::from(self.everything) + self.later.len()) as u64;
        let activity = match &self.halted {
            Some(activity) => activity.clone(),
            None if self.braked.is_some() => Activity::Braked,
            None if self.has_local_work() => Activity::Scanning,
            None if pending_remote > 0 || self.all_questions => Activity::Applying,
            None => Activity::Idle,
        };
        let read = self.read_problems.iter().map(|(path, reason)| Problem {
            path: path.to_string_lossy().into_owned(),
            reason: reason.clone(),
        });
        let problem_count = (self.scan_problems.len()
            + self.read_problems.len()
            + self.refused.len()
            + self.left.len()) as u64;
        let problems: Vec<Problem> = self
            .scan_problems
            .iter()
            .cloned()
            .chain(read)
            .chain(self.refused.values().cloned())
            .chain(self.folders_left())
            .take(MAX_PROBLEMS)
            .collect();
        let vault_path = self
            .vault
            .tree()
            .path(self.config.vault_folder)
            .unwrap_or_default();
        let (conflicts, passes, scanned_ms) = (self.conflicts, self.passes, self.scanned_ms);
        let brake = self.brake_report();
        self.state.send_if_modified(|state| {
            let new = FolderState {
                number: state.number,
                path: std::mem::take(&mut state.path),
                vault_path,
                activity,
                files,
                folders,
                bytes,
                scanned_ms,
                pending_local,
                pending_remote,
                problems,
                problem_count,
                conflicts,
                brake,
                passes,
            };
            let path = new.path.clone();
            let old = std::mem::replace(state, new);
            FolderState { path, ..old } != *state
        });
    }
}
