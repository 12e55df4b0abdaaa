//! The thread that owns the [`Core`], and the handle that the rest of the node holds.
//!
//! Inputs: requests from handles, messages from sessions. The inbox is bounded: askers wait, sessions stop reading from
//! the network, nothing is dropped. All that is in the inbox when a commit ends shares the next one. Outputs for one
//! device go to its session's queue, where newer news replaces older: it stays small however slow the link, and the core
//! never waits for the network. The thread ends when it is told to, after answering what it had begun.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coffer_crdt::document::Document;
use coffer_crdt::files::{Content, Dot, FileId, FileState};
use coffer_crdt::tree::{Changed, Tree};
use coffer_protocol::identity::{DeviceId, WriterId};
use coffer_protocol::pairing::Welcome;
use coffer_protocol::replication::{Action, Message, Outbox, Work};
use redb::{Database, ReadableDatabase, ReadableTable};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use super::core::{Admission, Changes, Core, Input, Output};
use super::request::{BrakedFile, CommitError, CommitRequest, Committed, FolderRow, FolderSetting};
use super::work::FILES;
use crate::folder::FolderVault;
use crate::store::documents::{DocumentKey, read_document, read_row};
use crate::store::{StoreError, pieces, tables};

/// Inputs waiting for the core, at most. A batch of this many small edits commits in some 10 ms.
const INBOX: usize = 1024;
/// Inputs that share one commit, at most: it bounds the wait of the first among them.
const BATCH: usize = 1024;
/// Changes that a slow subscriber may lag behind before it has to look at everything.
const CHANGES_KEPT: usize = 1024;
/// After a change, how long the core waits for more before it states anew what this device holds.
const STATE_HELD_AFTER: Duration = Duration::from_millis(40);
/// But no longer than this while changes keep coming.
const STATE_HELD_AT_LEAST: Duration = Duration::from_millis(400);

/// What is to be sent to one device: filled by the core, drained by the device's session as the link takes it.
#[derive(Default)]
pub struct SessionQueue {
    outbox: Mutex<Outbox>,
    filled: Notify,
    closed: AtomicBool,
}

impl SessionQueue {
    /// The next thing to send; `None` when the session is to end.
    pub async fn next(&self) -> Option<Work> {
        loop {
            let filled = self.filled.notified();
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            if let Some(work) = self.lock().take_next() {
                return Some(work);
            }
            filled.await;
        }
    }

    /// Entries named by [`Work::Entries`] were sent up to and including `seq`.
    pub fn sent(&self, writer: WriterId, seq: u64) {
        self.lock().sent(writer, seq);
    }

    fn push(&self, action: Action) {
        self.lock().push(action);
        self.filled.notify_one();
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Command {
    Input(Input),
    Commit(
        CommitRequest,
        oneshot::Sender<Result<Committed, CommitError>>,
    ),
    Admit(Admission, oneshot::Sender<Result<Welcome, CommitError>>),
    Inspect(Box<dyn FnOnce(&Core) + Send>),
    Stop,
}

type Sessions = Arc<Mutex<HashMap<DeviceId, Arc<SessionQueue>>>>;

/// A cheap, cloneable way to the vault.
#[derive(Clone)]
pub struct VaultHandle {
    inbox: mpsc::Sender<Command>,
    database: Arc<Database>,
    tree: Arc<RwLock<Tree>>,
    sessions: Sessions,
    changes: broadcast::Sender<Arc<Changes>>,
    tree_changes: broadcast::Sender<Arc<Vec<Changed>>>,
    members: watch::Sender<u64>,
    activity: watch::Sender<u64>,
    session_count: watch::Sender<u64>,
    label: Arc<str>,
    labels: Arc<RwLock<BTreeMap<[u8; 16], String>>>,
    device: DeviceId,
}

/// A file of which bytes are still to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The file.
    pub id: FileId,
    /// Hash of the content wanted.
    pub hash: [u8; 32],
    /// Its length in bytes.
    pub size: u64,
}

/// The thread, to be joined when the node stops.
pub struct VaultThread(std::thread::JoinHandle<()>);

impl VaultThread {
    /// Waits for the thread to end; call [`VaultHandle::stop`] before.
    pub async fn join(self) {
        let _ = tokio::task::spawn_blocking(move || self.0.join()).await;
    }
}

/// Wall clock in milliseconds since 1970.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

impl VaultHandle {
    /// Starts the thread that owns `core`.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(core: Core) -> std::io::Result<(VaultHandle, VaultThread)> {
        let (inbox, commands) = mpsc::channel(INBOX);
        let handle = VaultHandle {
            inbox,
            database: core.database().clone(),
            tree: core.tree().clone(),
            sessions: Sessions::default(),
            changes: broadcast::channel(CHANGES_KEPT).0,
            tree_changes: broadcast::channel(CHANGES_KEPT).0,
            members: watch::channel(0).0,
            activity: watch::channel(0).0,
            session_count: watch::channel(0).0,
            label: core.label.as_str().into(),
            labels: Arc::default(),
            device: core.identity.key.id(),
        };
        let thread = Thread {
            core,
            handle: handle.clone(),
            commits: BTreeMap::new(),
            admissions: BTreeMap::new(),
            tickets: 0,
        };
        let runtime = tokio::runtime::Handle::current();
        let joined = std::thread::Builder::new()
            .name("vault".into())
            .spawn(move || runtime.block_on(thread.run(commands)))?;
        Ok((handle, VaultThread(joined)))
    }

    /// Carries out a request; when this returns a success, it is durable.
    ///
    /// # Errors
    /// [`CommitError`]; nothing of the request is there then. Dropping the future does not take the request back.
    pub async fn commit(&self, request: CommitRequest) -> Result<Committed, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Commit(request, answer))
            .await
            .map_err(|_| CommitError::Stopping)?;
        answered.await.unwrap_or(Err(CommitError::Stopping))
    }

    /// Admits a device whose person was asked.
    pub async fn admit(&self, admission: Admission) -> Result<Welcome, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Admit(admission, answer))
            .await
            .map_err(|_| CommitError::Stopping)?;
        answered.await.unwrap_or(Err(CommitError::Stopping))
    }

    /// Reads something from the core between two batches.
    pub async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, CommitError> {
        let (answer, answered) = oneshot::channel();
        let look = move |core: &Core| {
            let _ = answer.send(look(core));
        };
        self.send(Command::Inspect(Box::new(look)))
            .await
            .map_err(|_| CommitError::Stopping)?;
        answered.await.map_err(|_| CommitError::Stopping)
    }

    /// The tree as it durably is.
    pub fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which files change, batch by batch; a subscriber that lags looks at the whole tree.
    pub fn subscribe_tree(&self) -> broadcast::Receiver<Arc<Vec<Changed>>> {
        self.tree_changes.subscribe()
    }

    /// What each transaction changes.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Changes>> {
        self.changes.subscribe()
    }

    /// Counts up when devices join or leave.
    pub fn members(&self) -> watch::Receiver<u64> {
        self.members.subscribe()
    }

    /// Makes those who follow the members look again: addresses of one were learnt.
    pub fn members_changed(&self) {
        self.members.send_modify(|count| *count += 1);
    }

    /// Counts up whenever the sync state may have changed.
    pub fn activity(&self) -> watch::Receiver<u64> {
        self.activity.subscribe()
    }

    /// The database, for readers.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// This device's id.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// This device's name as conflict copies show it.
    pub fn device_label(&self) -> String {
        self.label.to_string()
    }

    /// The name of the device behind an author of changes.
    pub fn device_label_of(&self, actor: &[u8; 16]) -> String {
        let labels = self.labels.read().unwrap_or_else(PoisonError::into_inner);
        labels
            .get(actor)
            .cloned()
            .unwrap_or_else(|| "another device".into())
    }

    /// The rows of a synced folder.
    pub fn folder_rows(&self, folder: u32) -> Result<BTreeMap<FileId, FolderRow>, CommitError> {
        let read = || -> Result<_, StoreError> {
            let table = self
                .database
                .begin_read()?
                .open_table(tables::FOLDER_ROWS)?;
            let (mut from, mut to) = ([0; 20], [0xff; 20]);
            from[..4].copy_from_slice(&folder.to_be_bytes());
            to[..4].copy_from_slice(&folder.to_be_bytes());
            let mut rows = BTreeMap::new();
            for item in table.range::<&[u8; 20]>(&from..=&to)? {
                let (key, value) = item?;
                let mut id = [0; 16];
                id.copy_from_slice(&key.value()[4..]);
                let row = postcard::from_bytes(value.value())
                    .map_err(|_| StoreError::Damaged("a folder row cannot be read".into()))?;
                rows.insert(FileId(id), row);
            }
            Ok(rows)
        };
        read().map_err(|error| CommitError::from(&error))
    }

    /// What the brake of a synced folder holds.
    pub fn folder_brakes(&self, folder: u32) -> Result<BTreeMap<FileId, BrakedFile>, CommitError> {
        let read = || -> Result<_, StoreError> {
            let mut held = BTreeMap::new();
            let table = match self
                .database
                .begin_read()?
                .open_table(tables::FOLDER_BRAKES)
            {
                // A data folder from before there were brakes.
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(held),
                table => table?,
            };
            let (mut from, mut to) = ([0; 20], [0xff; 20]);
            from[..4].copy_from_slice(&folder.to_be_bytes());
            to[..4].copy_from_slice(&folder.to_be_bytes());
            for item in table.range::<&[u8; 20]>(&from..=&to)? {
                let (key, value) = item?;
                let mut id = [0; 16];
                id.copy_from_slice(&key.value()[4..]);
                let why = postcard::from_bytes(value.value())
                    .map_err(|_| StoreError::Damaged("a held file cannot be read".into()))?;
                held.insert(FileId(id), why);
            }
            Ok(held)
        };
        read().map_err(|error| CommitError::from(&error))
    }

    /// One row of a synced folder.
    pub fn folder_row(&self, folder: u32, file: FileId) -> Result<Option<FolderRow>, StoreError> {
        let table = self
            .database
            .begin_read()?
            .open_table(tables::FOLDER_ROWS)?;
        let mut key = [0; 20];
        key[..4].copy_from_slice(&folder.to_be_bytes());
        key[4..].copy_from_slice(&file.0);
        let row = table.get(&key)?;
        row.map(|row| {
            postcard::from_bytes(row.value())
                .map_err(|_| StoreError::Damaged("a folder row cannot be read".into()))
        })
        .transpose()
    }

    /// Files of which bytes are still to be fetched.
    pub fn wanted(&self) -> Result<Vec<Wanted>, StoreError> {
        let table = self.database.begin_read()?.open_table(tables::WANTED)?;
        let mut wanted = Vec::new();
        for item in table.iter()? {
            let (id, value) = item?;
            let (mut hash, mut size) = ([0; 32], [0; 8]);
            hash.copy_from_slice(&value.value()[..32]);
            size.copy_from_slice(&value.value()[32..]);
            wanted.push(Wanted {
                id: FileId(*id.value()),
                hash,
                size: u64::from_be_bytes(size),
            });
        }
        Ok(wanted)
    }

    /// The state of a file, with where its bytes are.
    pub fn file(&self, id: FileId) -> Result<Option<FileState>, StoreError> {
        let table = self.database.begin_read()?.open_table(tables::FILES)?;
        let mut key = [0; 18];
        key[..16].copy_from_slice(&id.0);
        let bytes = pieces::read(&table, &key)?;
        bytes
            .map(|bytes| {
                postcard::from_bytes(&bytes)
                    .map_err(|_| StoreError::Damaged("the state of a file cannot be read".into()))
            })
            .transpose()
    }

    /// The document behind a file, with all that it was.
    pub fn file_document(&self, id: FileId) -> Result<Option<Document>, StoreError> {
        let read = self.database.begin_read()?;
        let key = DocumentKey::new(FILES, &id.to_string());
        read_row(&read, key)?
            .map(|row| read_document(&read, key, &row))
            .transpose()
    }

    /// The synced folders of this device.
    pub fn folder_settings(&self) -> Result<Vec<(u32, FolderSetting)>, StoreError> {
        let table = self.database.begin_read()?.open_table(tables::FOLDERS)?;
        let mut settings = Vec::new();
        for item in table.iter()? {
            let (number, value) = item?;
            let setting = postcard::from_bytes(value.value()).map_err(|_| {
                StoreError::Damaged("a synced folder's setting cannot be read".into())
            })?;
            settings.push((number.value(), setting));
        }
        Ok(settings)
    }

    /// A stream to a device of the vault is open: what is to be sent comes out of the queue. A session that was there
    /// before is ended by it.
    pub async fn connected(&self, device: DeviceId) -> Result<Arc<SessionQueue>, CommitError> {
        let queue = Arc::new(SessionQueue::default());
        let replaced = self
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(device, queue.clone());
        if let Some(replaced) = replaced {
            replaced.close();
            self.input(Input::Disconnected(device)).await?;
        }
        self.input(Input::Connected(device)).await?;
        self.session_count.send_modify(|count| *count += 1);
        Ok(queue)
    }

    /// The session of this queue is over.
    pub async fn disconnected(&self, device: DeviceId, queue: &Arc<SessionQueue>) {
        let ours = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let ours = sessions
                .get(&device)
                .is_some_and(|current| Arc::ptr_eq(current, queue));
            if ours {
                sessions.remove(&device);
            }
            ours
        };
        if ours {
            let _ = self.input(Input::Disconnected(device)).await;
            self.session_count.send_modify(|count| *count += 1);
        }
    }

    /// Whether a session with the device is up.
    pub fn has_session(&self, device: DeviceId) -> bool {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&device)
    }

    /// Counts up when a session begins or ends.
    pub fn sessions_changed(&self) -> watch::Receiver<u64> {
        let mut changes = self.session_count.subscribe();
        changes.borrow_and_update();
        changes
    }

    /// Whether this queue is still the one of its device's session.
    pub fn is_current(&self, device: DeviceId, queue: &Arc<SessionQueue>) -> bool {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&device)
            .is_some_and(|current| Arc::ptr_eq(current, queue))
    }

    /// A device says something.
    pub async fn message(&self, from: DeviceId, message: Message) -> Result<(), CommitError> {
        self.input(Input::Message(from, message)).await
    }

    /// Ends the thread when it has answered what came before.
    pub async fn stop(&self) {
        let _ = self.send(Command::Stop).await;
    }

    async fn input(&self, input: Input) -> Result<(), CommitError> {
        self.send(Command::Input(input))
            .await
            .map_err(|_| CommitError::Stopping)
    }

    async fn send(&self, command: Command) -> Result<(), ()> {
        self.inbox.send(command).await.map_err(|_| ())
    }
}

struct Thread {
    core: Core,
    handle: VaultHandle,
    commits: BTreeMap<u64, oneshot::Sender<Result<Committed, CommitError>>>,
    admissions: BTreeMap<u64, oneshot::Sender<Result<Welcome, CommitError>>>,
    tickets: u64,
}

impl Thread {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut state_held: Option<(tokio::time::Instant, tokio::time::Instant)> = None;
        loop {
            let first = match state_held {
                None => commands.recv().await,
                Some((soon, latest)) => {
                    match tokio::time::timeout_at(soon.min(latest), commands.recv()).await {
                        Ok(command) => command,
                        Err(_) => Some(Command::Input(Input::StateHeld)),
                    }
                }
            };
            let Some(first) = first else { return };
            let mut inputs = Vec::new();
            let mut stop = false;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Input(Input::StateHeld) => {
                        state_held = None;
                        inputs.push(Input::StateHeld);
                    }
                    Command::Input(input) => inputs.push(input),
                    Command::Commit(request, answer) => {
                        self.tickets += 1;
                        self.commits.insert(self.tickets, answer);
                        inputs.push(Input::Commit(self.tickets, request));
                    }
                    Command::Admit(admission, answer) => {
                        self.tickets += 1;
                        self.admissions.insert(self.tickets, answer);
                        inputs.push(Input::Admit(self.tickets, admission));
                    }
                    Command::Inspect(look) => {
                        self.process(std::mem::take(&mut inputs));
                        look(&self.core);
                    }
                    Command::Stop => {
                        stop = true;
                        break;
                    }
                }
                next = if inputs.len() < BATCH {
                    commands.try_recv().ok()
                } else {
                    None
                };
            }
            self.process(inputs);
            if stop {
                if self.core.held_is_stale() {
                    self.process(vec![Input::StateHeld]);
                }
                return;
            }
            if self.core.held_is_stale() {
                let now = tokio::time::Instant::now();
                let latest = state_held.map_or(now + STATE_HELD_AT_LEAST, |(_, latest)| latest);
                state_held = Some((now + STATE_HELD_AFTER, latest));
            }
        }
    }

    fn process(&mut self, inputs: Vec<Input>) {
        if inputs.is_empty() {
            return;
        }
        for output in self.core.process(inputs, wall_ms()) {
            self.publish(output);
        }
        self.name_authors();
        self.handle.activity.send_modify(|count| *count += 1);
    }

    /// Keeps the names of authors in step with the logs.
    fn name_authors(&mut self) {
        let state = self.core.state();
        let mut labels = self
            .handle
            .labels
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if labels.len() > state.clock.len() {
            return;
        }
        for writer in state
            .clock
            .iter()
            .map(|(writer, _, _)| *writer)
            .chain([state.writer])
        {
            let own = writer.device == self.handle.device;
            let name = if own {
                Some(self.handle.label.to_string())
            } else {
                state.membership.device_name(&writer.device, &state.keyring)
            };
            labels.insert(
                writer.actor(),
                name.unwrap_or_else(|| "another device".into()),
            );
        }
    }

    fn publish(&mut self, output: Output) {
        match output {
            Output::Committed(ticket, result) => {
                if let Some(answer) = self.commits.remove(&ticket) {
                    let _ = answer.send(result);
                }
            }
            Output::Admitted(ticket, result) => {
                if let Some(answer) = self.admissions.remove(&ticket) {
                    let _ = answer.send(result);
                }
            }
            Output::To(device, action) => {
                let queue = self
                    .handle
                    .sessions
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get(&device)
                    .cloned();
                if let Some(queue) = queue {
                    queue.push(action);
                }
            }
            Output::Close(device, reason) => self.end_session(device, reason),
            Output::Changed(changes) => {
                let changes = Arc::new(changes);
                if !changes.files.is_empty() {
                    let _ = self
                        .handle
                        .tree_changes
                        .send(Arc::new(changes.files.clone()));
                }
                let _ = self.handle.changes.send(changes);
            }
            Output::MembersChanged => self.handle.members.send_modify(|count| *count += 1),
            Output::HeldChanged => {}
            Output::Forked(writer, seq) => {
                tracing::error!(device = %writer.device, seq, "two different entries stand at one place of a log: a data folder was copied or restored");
            }
        }
    }

    fn end_session(&mut self, device: DeviceId, reason: String) {
        tracing::info!(%device, reason, "a session is ended");
        if let Some(queue) = self
            .handle
            .sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&device)
        {
            queue.close();
            self.handle.session_count.send_modify(|count| *count += 1);
        }
    }
}

impl FolderVault for VaultHandle {
    async fn commit(&self, request: CommitRequest) -> Result<Committed, CommitError> {
        VaultHandle::commit(self, request).await
    }

    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        VaultHandle::tree(self)
    }

    fn subscribe_tree(&self) -> broadcast::Receiver<Arc<Vec<Changed>>> {
        VaultHandle::subscribe_tree(self)
    }

    fn folder_rows(&self, folder: u32) -> Result<BTreeMap<FileId, FolderRow>, CommitError> {
        VaultHandle::folder_rows(self, folder)
    }

    fn folder_brakes(&self, folder: u32) -> Result<BTreeMap<FileId, BrakedFile>, CommitError> {
        VaultHandle::folder_brakes(self, folder)
    }

    fn device_label(&self) -> String {
        VaultHandle::device_label(self)
    }

    fn device_label_of(&self, dot: &Dot) -> String {
        VaultHandle::device_label_of(self, &dot.writer)
    }

    fn file_contents(&self, files: &[FileId]) -> Result<Vec<Option<Content>>, CommitError> {
        let read = || {
            files
                .iter()
                .map(|id| Ok(self.file(*id)?.and_then(|state| state.content)))
                .collect::<Result<Vec<_>, StoreError>>()
        };
        read().map_err(|error| CommitError::from(&error))
    }

    fn rival_contents(&self, file: FileId) -> Result<Vec<Content>, CommitError> {
        let document = self
            .file_document(file)
            .map_err(|error| CommitError::from(&error))?;
        Ok(document
            .and_then(|document| coffer_crdt::files::rivals(&document).ok())
            .unwrap_or_default())
    }

    fn past_content(&self, file: FileId, hash: &[u8; 32]) -> Result<Option<Content>, CommitError> {
        let document = self
            .file_document(file)
            .map_err(|error| CommitError::from(&error))?;
        let contents = document
            .and_then(|document| coffer_crdt::files::contents(&document).ok())
            .unwrap_or_default();
        Ok(contents
            .into_iter()
            .map(|(_, content)| content)
            .find(|content| content.hash == *hash))
    }
}
