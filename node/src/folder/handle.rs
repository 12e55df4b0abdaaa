//! Starting, asking and stopping the actor of a synced folder.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::engine::Engine;
use super::paths::{Folders, Shared};
use super::place::FolderError;
use super::release::{Release, Released, Unreleased};
use super::rows::Rows;
use super::state::{Activity, FolderState};
use super::surroundings::Machine;
use super::{Contents, FolderConfig, FolderVault};

/// Commands waiting, at most; there are few, and who sends one waits for its answer.
const INBOX: usize = 16;

/// Starts engines.
pub struct FolderEngine;

/// A running engine. Dropping it stops the engine too, without waiting.
pub struct FolderHandle {
    inbox: mpsc::Sender<Command>,
    state: watch::Receiver<FolderState>,
    stop: watch::Sender<bool>,
    task: Option<tokio::task::JoinHandle<()>>,
}

pub(super) enum Command {
    Rescan(oneshot::Sender<()>),
    TakeIn(oneshot::Sender<()>),
    Settled(oneshot::Sender<bool>),
    Retry,
    Release(Release, oneshot::Sender<Result<Released, Unreleased>>),
}

impl FolderEngine {
    /// Starts to sync a folder that was [prepared](super::prepare). Reads its rows before it returns.
    ///
    /// # Errors
    /// When the rows cannot be read. A folder that is missing is no error: the engine waits for it.
    pub async fn start<V: FolderVault, C: Contents>(
        config: FolderConfig,
        vault: Arc<V>,
        contents: Arc<C>,
        folders: &Folders,
    ) -> Result<FolderHandle, FolderError> {
        let tree_changes = vault.subscribe_tree();
        let rows = {
            let (vault, number) = (vault.clone(), config.number);
            let read = tokio::task::spawn_blocking(move || vault.folder_rows(number)).await;
            read.map_err(|error| FolderError::Vault(error.to_string()))?
                .map_err(|error| FolderError::Vault(error.to_string()))?
        };
        let brakes = {
            let (vault, number) = (vault.clone(), config.number);
            let read = tokio::task::spawn_blocking(move || vault.folder_brakes(number)).await;
            read.map_err(|error| FolderError::Vault(error.to_string()))?
                .map_err(|error| FolderError::Vault(error.to_string()))?
        };
        let stand_in = {
            let vault = vault.clone();
            Box::new(move |id| vault.tree().representative(id))
        };
        let shared = Arc::new(Shared::new(
            config.path.clone(),
            Rows::new(config.vault_folder, rows),
            stand_in,
        ));
        folders.add(config.number, shared.clone());
        let state = watch::channel(FolderState {
            number: config.number,
            path: config.path.clone(),
            ..FolderState::default()
        });
        let (inbox, commands) = mpsc::channel(INBOX);
        let (stop, stopped) = watch::channel(false);
        let mut engine = Engine::new(
            config,
            vault,
            contents,
            shared,
            Arc::new(Machine),
            tree_changes,
            state.0,
            stopped,
        );
        engine.brake_again(brakes);
        let folders = folders.clone();
        let task = tokio::spawn(async move {
            let number = engine.config.number;
            engine.run(commands).await;
            folders.remove(number);
        });
        Ok(FolderHandle {
            inbox,
            state: state.1,
            stop,
            task: Some(task),
        })
    }
}

impl FolderHandle {
    /// What it is doing, now and from now on.
    pub fn state(&self) -> watch::Receiver<FolderState> {
        self.state.clone()
    }

    /// Looks at the whole folder now, and tries again whatever was refused. Returns when that was done.
    pub async fn rescan(&self) {
        let (answer, answered) = oneshot::channel();
        if self.inbox.send(Command::Rescan(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Takes in what was done to the folder before this call, also what is missing and might have been moved: returns when
    /// that is clear and in the vault, or cannot be for now. What somebody is still writing may come later.
    pub async fn take_in(&self) {
        let (answer, answered) = oneshot::channel();
        if self.inbox.send(Command::TakeIn(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }

    /// Whether everything done to the folder before this call is in the vault, and everything in the vault's tree is
    /// on disk. Asks the file system itself whether its events have all come, so it is safe to ask right after a write.
    /// Answers at once while it works: a look at a large folder takes minutes, and who asks meanwhile shall not wait.
    pub async fn is_settled(&self) -> bool {
        let mut state = self.state.clone();
        if state.borrow_and_update().activity != Activity::Idle {
            return false;
        }
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.inbox.send(Command::Settled(answer)).await.is_ok()
                && answered.await.unwrap_or(false)
        };
        let busy = state.wait_for(|state| state.activity != Activity::Idle);
        tokio::select! {
            biased;
            settled = asked => settled,
            _ = busy => false,
        }
    }

    /// Takes the brake off: what it held was meant, or is to be undone. Returns when the vault has it durably; the files
    /// come back, or go elsewhere, after that.
    ///
    /// # Errors
    /// [`Unreleased`] when the brake is not on, or nothing can be done now.
    pub async fn release(&self, how: Release) -> Result<Released, Unreleased> {
        let stopped = || Unreleased::Failed("it is being stopped".into());
        let (answer, answered) = oneshot::channel();
        self.inbox
            .send(Command::Release(how, answer))
            .await
            .map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Something outside may have changed for the better (a device came, keys came): tries again what failed.
    pub async fn retry(&self) {
        let _ = self.inbox.send(Command::Retry).await;
    }

    /// Stops it and waits until it has.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for FolderHandle {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}
