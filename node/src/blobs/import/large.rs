//! A large file: cut by one thread, sealed by all. The cutter helps as soon as the others are behind.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::chunking::{Chunker, Sizes};
use super::super::error::ImportError;
use super::super::workers;
use super::line::{Line, Task, Turn, WINDOW};
use super::{Desk, Import, Piece, Run, read_exact};

impl Run<'_> {
    /// Cuts a large file while all threads seal its chunks.
    pub(super) fn cut_and_seal(
        &self,
        file: &File,
        size: u64,
        sizes: Sizes,
        into: Import,
        reuse: bool,
    ) -> Result<Vec<Piece>, ImportError> {
        let line = Line::default();
        let work = |desk: &mut Desk, task: Task| {
            let plain = &task.window[task.range.clone()];
            let piece = self.seal(desk, plain, task.offset, into, reuse);
            line.finished(task, piece);
        };
        std::thread::scope(|scope| {
            for _ in 1..workers() {
                scope.spawn(|| match self.desk() {
                    Ok(mut desk) => {
                        while let Some(task) = line.wait_task() {
                            work(&mut desk, task);
                        }
                    }
                    Err(error) => line.fail(error.into()),
                });
            }
            let cut = self.cut(&line, file, size, sizes, work);
            line.close();
            cut
        })?;
        line.into_pieces()
    }

    fn cut(
        &self,
        line: &Line,
        file: &File,
        size: u64,
        sizes: Sizes,
        work: impl Fn(&mut Desk, Task),
    ) -> Result<(), ImportError> {
        let chunker = Chunker::new(sizes, self.keyring.secret().cdc_seed());
        let mut desk = self.desk()?;
        let mut index = 0;
        let mut read = 0;
        let mut rest: Option<(Arc<Vec<u8>>, usize)> = None;
        while read < size {
            let mut window = loop {
                match line.window_or_task() {
                    Turn::Window(window) => break window,
                    Turn::Task(task) => work(&mut desk, task),
                    Turn::Failed => return Ok(()),
                }
            };
            window.clear();
            if let Some((last, from)) = rest.take() {
                window.extend_from_slice(&last[from..]);
                line.release(last);
            }
            let begins = read - window.len() as u64;
            let from = window.len();
            let fresh = (size - read).min((WINDOW - from) as u64);
            window.resize(from + fresh as usize, 0);
            read_exact(file, &mut window[from..], read)?;
            read += fresh;
            self.read.fetch_add(fresh, Ordering::Relaxed);
            let window = Arc::new(window);
            let end = chunker.cut(&window, 0, read == size, |range| {
                line.push(Task {
                    index,
                    offset: begins + range.start as u64,
                    window: Arc::clone(&window),
                    range,
                });
                index += 1;
            });
            rest = Some((window, end));
        }
        drop(rest);
        while let Some(task) = line.try_task() {
            work(&mut desk, task);
        }
        Ok(())
    }
}
