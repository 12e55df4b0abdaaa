//! The thread that owns the [`Core`], and the handle that the rest of the node holds.
//!
//! Inputs: requests from handles, messages from sessions. The inbox is bounded: askers wait, sessions stop reading from
//! the network, nothing is dropped. All that is in the inbox when a commit ends shares the next one. Outputs for one
//! device go to its session's queue, where newer news replaces older: it stays small however slow the link, and the core
//! never waits for the network. The thread ends when it is told to, after answering what it had begun.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coffer_crdt::tree::{Changed, Tree};
use coffer_protocol::identity::DeviceId;
use coffer_protocol::pairing::Welcome;
use coffer_protocol::replication::Message;
use redb::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot, watch};

use super::core::{Admission, Changes, Core, Input, Output};
use super::members::Manage;
use super::queue::SessionQueue;
use super::request::{CommitError, CommitRequest, Committed};
use crate::store;

/// Inputs waiting for the core, at most. A batch of this many small edits commits in some 10 ms.
const INBOX: usize = 1024;
/// Looks that wait for the end of the commit under way, at most.
const LOOKS: usize = 64;
/// Inputs that share one commit, at most: it bounds the wait of the first among them.
const BATCH: usize = 1024;
/// Records that share one commit, at most, but for the last input: some tenths of a second of work. Else what waits while
/// a large batch is carried out makes the next one larger, and who asks something waits for all of it.
const BATCH_RECORDS: usize = 4096;
/// Bytes of received changes that count as one record.
const RECORD_BYTES: usize = 256;
/// Changes that a slow subscriber may lag behind before it has to look at everything.
const CHANGES_KEPT: usize = 1024;
/// After a change, how long the core waits for more before it states anew what this device holds.
const STATE_HELD_AFTER: Duration = Duration::from_millis(40);
/// But no longer than this while changes keep coming.
const STATE_HELD_AT_LEAST: Duration = Duration::from_millis(400);

enum Command {
    Input(Input),
    /// Entries that a device sent; the next ones come when these were taken in.
    Entries(Input, OwnedSemaphorePermit),
    Commit(
        Box<CommitRequest>,
        oneshot::Sender<Result<Committed, CommitError>>,
    ),
    Admit(Admission, oneshot::Sender<Result<Welcome, CommitError>>),
    Manage(Box<Manage>, oneshot::Sender<Result<(), CommitError>>),
    Inspect(Look),
    Stop,
}

impl Command {
    /// About how many records it writes.
    fn records(&self) -> usize {
        match self {
            Command::Commit(request, _) => {
                request.operations.len() + request.folder_rows.len() + request.placements.len()
            }
            Command::Entries(Input::Message(_, Message::Entries(entries)), _) => {
                entries.iter().map(Vec::len).sum::<usize>() / RECORD_BYTES
            }
            _ => 1,
        }
    }
}

/// Something that is read from the core.
type Look = Box<dyn FnOnce(&Core) + Send>;

type Sessions = Arc<Mutex<HashMap<DeviceId, Arc<SessionQueue>>>>;

/// A cheap, cloneable way to the vault.
#[derive(Clone)]
pub struct VaultHandle {
    inbox: mpsc::Sender<Command>,
    looks: mpsc::Sender<Look>,
    database: Arc<Database>,
    tree: Arc<RwLock<Tree>>,
    sessions: Sessions,
    changes: broadcast::Sender<Arc<Changes>>,
    tree_changes: broadcast::Sender<Arc<Vec<Changed>>>,
    members: watch::Sender<u64>,
    activity: watch::Sender<u64>,
    session_count: watch::Sender<u64>,
    hosts_news: watch::Sender<u64>,
    /// One message of entries is in the inbox at a time: each is many changes, and whoever asks something of the core
    /// would else wait for all of them.
    entries: Arc<Semaphore>,
    store_closed: watch::Sender<bool>,
    label: Arc<str>,
    labels: Arc<RwLock<BTreeMap<[u8; 16], String>>>,
    device: DeviceId,
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
        let (looks, looking) = mpsc::channel(LOOKS);
        let handle = VaultHandle {
            inbox,
            looks,
            database: core.database().clone(),
            tree: core.tree().clone(),
            sessions: Sessions::default(),
            changes: broadcast::channel(CHANGES_KEPT).0,
            tree_changes: broadcast::channel(CHANGES_KEPT).0,
            members: watch::channel(0).0,
            activity: watch::channel(0).0,
            session_count: watch::channel(0).0,
            hosts_news: watch::channel(0).0,
            entries: Arc::new(Semaphore::new(1)),
            store_closed: watch::channel(false).0,
            label: core.label.as_str().into(),
            labels: Arc::default(),
            device: core.identity.key.id(),
        };
        let thread = Thread {
            core,
            handle: handle.clone(),
            commits: BTreeMap::new(),
            admissions: BTreeMap::new(),
            managed: BTreeMap::new(),
            tickets: 0,
        };
        let runtime = tokio::runtime::Handle::current();
        let joined = std::thread::Builder::new()
            .name("vault".into())
            .spawn(move || runtime.block_on(thread.run(commands, looking)))?;
        Ok((handle, VaultThread(joined)))
    }

    /// Carries out a request; when this returns a success, it is durable.
    ///
    /// # Errors
    /// [`CommitError`]; nothing of the request is there then. Dropping the future does not take the request back.
    pub async fn commit(&self, request: CommitRequest) -> Result<Committed, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Commit(Box::new(request), answer))
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

    /// Changes who is in the vault, or its keys.
    pub async fn manage(&self, manage: Manage) -> Result<(), CommitError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Manage(Box::new(manage), answer))
            .await
            .map_err(|_| CommitError::Stopping)?;
        answered.await.unwrap_or(Err(CommitError::Stopping))
    }

    /// Reads something from the core between two batches, after all that was sent before.
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

    /// The same before whatever waits in the inbox: for people who want to know how things stand, while a great deal comes
    /// in. What was acknowledged before the call is seen.
    pub async fn glance<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, CommitError> {
        let (answer, answered) = oneshot::channel();
        let look = move |core: &Core| {
            let _ = answer.send(look(core));
        };
        self.looks
            .send(Box::new(look))
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

    /// Counts up when something is learnt of a relay host.
    pub fn hosts_news(&self) -> watch::Receiver<u64> {
        self.hosts_news.subscribe()
    }

    /// Resolves when the database takes nothing more until it is opened anew: after a failure of the disk.
    pub async fn store_closed(&self) {
        let _ = self
            .store_closed
            .subscribe()
            .wait_for(|closed| *closed)
            .await;
    }

    /// Finds out whether it is so, after a reader failed: only writes are noticed otherwise. Blocks.
    pub fn check_store(&self) {
        if store::is_closed(&self.database) {
            self.store_closed.send_replace(true);
        }
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

    /// The session with the device that is up: another one than before is another allocation.
    pub fn session(&self, device: DeviceId) -> Option<Weak<SessionQueue>> {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&device)
            .map(Arc::downgrade)
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
        if !matches!(message, Message::Entries(_)) {
            return self.input(Input::Message(from, message)).await;
        }
        let permit = self.entries.clone().acquire_owned().await;
        let permit = permit.map_err(|_| CommitError::Stopping)?;
        self.send(Command::Entries(Input::Message(from, message), permit))
            .await
            .map_err(|_| CommitError::Stopping)
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
    managed: BTreeMap<u64, oneshot::Sender<Result<(), CommitError>>>,
    tickets: u64,
}

impl Thread {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut looks: mpsc::Receiver<Look>) {
        let mut state_held: Option<(tokio::time::Instant, tokio::time::Instant)> = None;
        loop {
            let due = async {
                match state_held {
                    None => std::future::pending().await,
                    Some((soon, latest)) => tokio::time::sleep_until(soon.min(latest)).await,
                }
            };
            // Where there is always a command that waits, it would never be its turn.
            let overdue = state_held.is_some_and(|(_, latest): (_, tokio::time::Instant)| {
                latest <= tokio::time::Instant::now()
            });
            let first = tokio::select! {
                biased;
                () = std::future::ready(()), if overdue => Some(Command::Input(Input::StateHeld)),
                Some(look) = looks.recv() => {
                    look(&self.core);
                    continue;
                }
                command = commands.recv() => command,
                () = due => Some(Command::Input(Input::StateHeld)),
            };
            let Some(first) = first else { return };
            let mut inputs = Vec::new();
            let mut stop = false;
            let mut next = Some(first);
            let (mut records, mut taken) = (0, Vec::new());
            while let Some(command) = next {
                records += command.records();
                match command {
                    Command::Input(Input::StateHeld) => {
                        state_held = None;
                        inputs.push(Input::StateHeld);
                    }
                    Command::Input(input) => inputs.push(input),
                    Command::Entries(input, permit) => {
                        inputs.push(input);
                        taken.push(permit);
                    }
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
                    Command::Manage(manage, answer) => {
                        self.tickets += 1;
                        self.managed.insert(self.tickets, answer);
                        inputs.push(Input::Manage(self.tickets, manage));
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
                next = if inputs.len() < BATCH && records < BATCH_RECORDS {
                    commands.try_recv().ok()
                } else {
                    None
                };
            }
            self.process(inputs);
            drop(taken);
            if stop {
                if self.core.held_is_stale() {
                    self.process(vec![Input::StateHeld]);
                }
                return;
            }
            if self.core.held_is_stale() || self.core.owes_range() {
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
            Output::Managed(ticket, result) => {
                if let Some(answer) = self.managed.remove(&ticket) {
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
            Output::HostsChanged => self.handle.hosts_news.send_modify(|count| *count += 1),
            Output::StoreClosed(reason) => {
                if !self.handle.store_closed.send_replace(true) {
                    tracing::error!(reason, "the disk failed the data folder");
                }
            }
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
