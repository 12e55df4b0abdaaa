//! The work on one large file: chunks that wait to be sealed, windows of the file that go round, pieces that are done.
//!
//! Who waits, waits for one of: a chunk to seal, a window to fill, a failure, the end.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::super::chunking::MAX_CHUNK;
use super::super::error::ImportError;
use super::super::lock;
use super::Piece;

/// Bytes of a window of a large file. Three longest chunks: what is copied to the next window is then a small part.
pub(super) const WINDOW: usize = 3 * MAX_CHUNK;

/// Windows of one file in memory: one is filled while two are worked on.
const WINDOWS: usize = 3;

/// A chunk to be sealed: a range of a window of the file.
pub(super) struct Task {
    pub index: usize,
    pub offset: u64,
    pub window: Arc<Vec<u8>>,
    pub range: Range<usize>,
}

/// What the cutter is to do next.
pub(super) enum Turn {
    Window(Vec<u8>),
    Task(Task),
    Failed,
}

/// What the threads of one file share.
#[derive(Default)]
pub(super) struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Default)]
struct LineState {
    tasks: VecDeque<Task>,
    free: Vec<Vec<u8>>,
    windows: usize,
    done: Vec<Option<Piece>>,
    failed: Option<ImportError>,
    closed: bool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LineState> {
        lock(&self.state)
    }

    pub fn push(&self, task: Task) {
        self.lock().tasks.push_back(task);
        self.changed.notify_one();
    }

    pub fn try_task(&self) -> Option<Task> {
        self.lock().tasks.pop_front()
    }

    /// The next chunk; `None` when there will be no more.
    pub fn wait_task(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A window to fill, or, while all are in use, a chunk to help with.
    pub fn window_or_task(&self) -> Turn {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return Turn::Failed;
            }
            if let Some(window) = state.free.pop() {
                return Turn::Window(window);
            }
            if state.windows < WINDOWS {
                state.windows += 1;
                return Turn::Window(Vec::with_capacity(WINDOW));
            }
            if let Some(task) = state.tasks.pop_front() {
                return Turn::Task(task);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn finished(&self, task: Task, piece: Result<Piece, ImportError>) {
        let index = task.index;
        self.release(task.window);
        let mut state = self.lock();
        match piece {
            Ok(piece) => {
                if state.done.len() <= index {
                    state.done.resize_with(index + 1, || None);
                }
                state.done[index] = Some(piece);
            }
            Err(error) => state.failed = Some(error),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The last user of a window gives it back.
    pub fn release(&self, window: Arc<Vec<u8>>) {
        if let Some(window) = Arc::into_inner(window) {
            self.lock().free.push(window);
            self.changed.notify_all();
        }
    }

    pub fn fail(&self, error: ImportError) {
        self.lock().failed = Some(error);
        self.changed.notify_all();
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub fn into_pieces(self) -> Result<Vec<Piece>, ImportError> {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        match state.failed {
            Some(error) => Err(error),
            // Without a failure every chunk was sealed; a gap would be a file cut short, so it is none.
            None => state
                .done
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .ok_or(ImportError::Changed),
        }
    }
}
