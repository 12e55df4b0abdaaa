//! The actor of one synced folder.
//!
//! *Inputs*: the watcher's notes, changes of the tree, groups of files that were written to the temporary place, a few
//! commands, time. *States*: [`super::Activity`]. It owns the rows, the folder's open root and the transfers that it
//! started, and waits for them when it ends. Blocking work runs on threads for that; the loop itself only waits and
//! decides what is next: what was done here before what was done elsewhere, so that nothing unseen stands in the way.
//!
//! Under pressure it sheds nothing: what there is to do is kept as *sets* of folders and files, bounded by what there
//! is, and commands wait in a bounded inbox.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coffer_crdt::files::FileId;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::compare::View;
pub(super) use super::halt::Halt;
use super::handle::Command;
use super::noted::RESCAN;
use super::paths::Shared;
use super::place::{FolderError, Place};
use super::plan::Bring;
use super::rows::Rows;
use super::scan::{Depth, Parts};
use super::state::{Activity, FolderState, Problem};
use super::surroundings::Surroundings;
use super::survey::Survey;
use super::watch::Watcher;
use super::{Contents, FolderConfig, FolderVault};
use crate::blobs::Group;
use crate::vault::request::{CommitError, CommitRequest, FolderRow};

/// Groups of written files waiting to be put in place, at most: the writer waits then, which bounds what is open.
const GROUPS: usize = 4;
/// How long something must be missing before it counts as deleted: the other half of a move may be on its way.
pub(super) const DOUBT: Duration = Duration::from_millis(150);
/// How long until a folder that is missing, a full disk or a refused step is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// How long until contents that no reachable device had are asked for again, if no device comes before.
pub(super) const RETRY_UNREACHABLE: Duration = Duration::from_secs(30);
/// The same the first time: a device that is just starting, or whose file was moved a moment ago, will have it soon. It
/// doubles up to [`RETRY_UNREACHABLE`].
pub(super) const RETRY_UNREACHABLE_FIRST: Duration = Duration::from_secs(1);

/// Who waits for something that the engine is doing.
#[derive(Default)]
struct Waiting {
    /// Until all of the folder was looked at.
    for_a_look: Vec<oneshot::Sender<()>>,
    /// Until nothing is left to look at, and nothing missing is in doubt.
    for_certainty: Vec<oneshot::Sender<()>>,
}

/// A content on its way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub bring: Bring,
    pub transfer: u64,
}

pub(super) struct Engine<V, C> {
    pub config: FolderConfig,
    pub vault: Arc<V>,
    pub contents: Arc<C>,
    pub shared: Arc<Shared>,
    pub around: Arc<dyn Surroundings>,
    pub place: Option<Arc<Place>>,
    pub watcher: Option<Watcher>,
    pub tree_changes: broadcast::Receiver<Arc<Vec<coffer_crdt::tree::Changed>>>,
    pub state: watch::Sender<FolderState>,
    stop: watch::Receiver<bool>,

    // What to look at on disk.
    pub parts: Parts,
    pub everything: bool,
    pub noted_since: Option<Instant>,
    /// To be looked at later: files still being written, folders that are new.
    pub later: Vec<(Instant, PathBuf, Depth)>,
    /// Rows whose files were not there, and where to look again before that is believed.
    pub doubted: BTreeSet<FileId>,
    pub doubted_parts: Option<(Instant, Parts, bool)>,
    /// Files that the present pass has to read, and whose bytes on disk the vault does not know yet.
    pub unread: BTreeSet<FileId>,
    pub rescan_at: Instant,
    /// Wall clock in milliseconds when watching began, until all of it was looked through for the first time after that.
    pub watched_since: Option<i64>,
    /// When all of it was last looked through, in milliseconds since 1970.
    pub scanned_ms: Option<u64>,
    pub closed: BTreeSet<PathBuf>,
    /// Inode numbers of files that are backups of others, and have not been read yet.
    pub backups: BTreeSet<u64>,
    /// Files that are shown as one with another that is missing, or whose bytes only a copy has that is missing, and so
    /// not put away before that is clear.
    pub twins: BTreeSet<FileId>,
    /// Whether the note of what was about to be done is one of before, and the rows that it gave to files that have to
    /// be read first.
    pub old_note: Option<BTreeMap<FileId, FolderRow>>,

    // What to look at in the tree.
    pub questions: BTreeSet<FileId>,
    pub all_questions: bool,
    /// All files, folder by folder, where all are in question: they become questions some at a time.
    pub survey: Survey,
    /// Contents to bring, and those on their way, by key.
    pub wanted: BTreeMap<FileId, Bring>,
    /// The order in which to bring them: folder by folder. May name what is no longer wanted, and lack the newest.
    pub order: VecDeque<FileId>,
    /// The same for large files, which come last.
    pub large: VecDeque<FileId>,
    pub flights: BTreeMap<u64, Flight>,
    pub next_key: u64,
    pub transfers: JoinSet<u64>,
    pub groups: (mpsc::Sender<Group>, mpsc::Receiver<Group>),
    /// Contents that no reachable device has.
    pub unreachable: BTreeSet<FileId>,
    /// How long until they are asked for again.
    pub patience: Duration,
    /// Steps that were refused, and how often a file surprised us in a row.
    pub refused: BTreeMap<FileId, Problem>,
    pub surprises: BTreeMap<FileId, u32>,
    /// Ignored files that are other here than in the vault, and folders that stay because of ignored files.
    pub alone: BTreeSet<FileId>,
    pub left: BTreeMap<PathBuf, String>,
    pub retry_at: Option<Instant>,

    pub scan_problems: Vec<Problem>,
    pub read_problems: BTreeMap<PathBuf, String>,
    pub conflicts: u64,
    pub passes: u64,
    pub halted: Option<Activity>,
    /// Whether the folder is away, as the vault was told last.
    pub told_away: Option<bool>,
    pub cookie: u64,
    /// Whether rows and tree agreed when last compared, and the revisions of both before that.
    pub agreed: Option<((u64, u64), bool)>,

    // The brake.
    pub losses: super::brake::Window,
    pub braked: Option<super::braked::Braked>,
    /// Since when files that are being written are waited for, to judge them.
    pub screening_since: Option<Instant>,
    /// Losses that a person said were meant, not yet recorded.
    pub consent: Option<super::release::Consent>,
}

impl<V: FolderVault, C: Contents> Engine<V, C> {
    #[expect(
        clippy::too_many_arguments,
        reason = "everything that it works with, given once"
    )]
    pub fn new(
        config: FolderConfig,
        vault: Arc<V>,
        contents: Arc<C>,
        shared: Arc<Shared>,
        around: Arc<dyn Surroundings>,
        tree_changes: broadcast::Receiver<Arc<Vec<coffer_crdt::tree::Changed>>>,
        state: watch::Sender<FolderState>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Engine {
            config,
            vault,
            contents,
            shared,
            rescan_at: around.now() + RESCAN,
            around,
            place: None,
            watcher: None,
            tree_changes,
            state,
            stop,
            parts: Parts::new(),
            everything: true,
            noted_since: None,
            later: Vec::new(),
            doubted: BTreeSet::new(),
            doubted_parts: None,
            unread: BTreeSet::new(),
            watched_since: None,
            scanned_ms: None,
            closed: BTreeSet::new(),
            backups: BTreeSet::new(),
            twins: BTreeSet::new(),
            old_note: None,
            questions: BTreeSet::new(),
            all_questions: true,
            survey: Survey::default(),
            wanted: BTreeMap::new(),
            order: VecDeque::new(),
            large: VecDeque::new(),
            flights: BTreeMap::new(),
            next_key: 0,
            transfers: JoinSet::new(),
            groups: mpsc::channel(GROUPS),
            unreachable: BTreeSet::new(),
            patience: RETRY_UNREACHABLE_FIRST,
            refused: BTreeMap::new(),
            surprises: BTreeMap::new(),
            alone: BTreeSet::new(),
            left: BTreeMap::new(),
            retry_at: None,
            scan_problems: Vec::new(),
            read_problems: BTreeMap::new(),
            conflicts: 0,
            passes: 0,
            halted: None,
            told_away: None,
            cookie: 0,
            agreed: None,
            losses: super::brake::Window::default(),
            braked: None,
            screening_since: None,
            consent: None,
        }
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut waiting = Waiting::default();
        loop {
            if *self.stop.borrow() {
                break;
            }
            match self.work().await {
                Ok(()) => self.halted = None,
                Err(Halt::Stop) => break,
                Err(Halt::Missing(reason)) => self.halt(Activity::Missing(reason)),
                Err(Halt::Failed(reason)) => self.halt(Activity::Stopped(reason)),
            }
            self.tell_whether_away().await;
            self.tell_waiting(&mut waiting);
            self.publish();
            if self.has_work() {
                // Nothing to wait for; but who asks something is answered in between.
                if let Ok(command) = commands.try_recv() {
                    self.command(command, &mut waiting).await;
                }
                continue;
            }
            if let Some(place) = &self.place {
                place.rest();
            }
            let (deadline, asking) = (self.deadline(), !self.unreachable.is_empty());
            tokio::select! {
                biased;
                _ = self.stop.changed() => break,
                command = commands.recv() => match command {
                    Some(command) => self.command(command, &mut waiting).await,
                    None => break,
                },
                changed = self.tree_changes.recv() => {
                    if !self.tree_changed(changed) { break }
                }
                Some(group) = self.groups.1.recv() => {
                    if let Err(halt) = self.put_in_place(group).await {
                        self.halt_by(halt);
                    }
                }
                Some(ended) = self.transfers.join_next() => {
                    if let Err(halt) = self.transfer_ended(ended.ok()).await {
                        self.halt_by(halt);
                    }
                }
                _ = noted(&self.watcher) => self.note_events(),
                _ = reachable(&*self.contents, asking) => {
                    self.patience = RETRY_UNREACHABLE_FIRST;
                    self.ask_again();
                }
                _ = self.around.sleep_until(deadline) => self.tick(),
            }
        }
        self.transfers.shutdown().await;
        self.watcher = None;
        self.publish();
    }

    /// Others must not count on this device for what is in a folder that is not there, that cannot be read or written, or
    /// that rests because so much of it is gone.
    async fn tell_whether_away(&mut self) {
        let is_halted = matches!(
            self.halted,
            Some(Activity::Missing(_) | Activity::Stopped(_))
        );
        let is_away = is_halted || self.braked.is_some();
        if self.told_away == Some(is_away) {
            return;
        }
        let request = CommitRequest {
            folders_away: vec![(self.config.number, is_away)],
            ..CommitRequest::default()
        };
        if self.vault.commit(request).await.is_ok() {
            self.told_away = Some(is_away);
        }
    }

    /// One round: opens the folder if need be, then the local pass, then the remote one.
    async fn work(&mut self) -> Result<(), Halt> {
        if self.halted.is_some() && self.retry_at.is_some_and(|at| at > self.around.now()) {
            return match self.halted.clone() {
                Some(Activity::Missing(reason)) => Err(Halt::Missing(reason)),
                Some(Activity::Stopped(reason)) => Err(Halt::Failed(reason)),
                _ => Ok(()),
            };
        }
        if self.place.is_none() {
            self.open().await?;
        }
        self.absorb();
        let now = self.around.now();
        let due = self.braked.as_ref().is_none_or(|braked| braked.is_due(now));
        if self.has_local_work() && due {
            self.halted = None;
            self.publish();
            if self.braked.is_none() {
                self.local_pass().await?;
            }
            self.look_at_losses().await?;
            self.passes += 1;
        }
        if !self.has_local_work() && self.braked.is_none() {
            while let Ok(group) = self.groups.1.try_recv() {
                self.put_in_place(group).await?;
            }
            self.remote_pass().await?;
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), Halt> {
        let (path, marker) = (self.config.path.clone(), super::marker(&self.config));
        let around = self.around.clone();
        self.watched_since = Some(around.wall_ms());
        let opened = blocking(move || {
            let place = Place::open_on(around.disk(), &path, &marker)?;
            // Watching begins before looking, so that nothing falls between.
            let watcher = around.watch(&path);
            Ok::<_, FolderError>((place, watcher))
        })
        .await?;
        let (place, watcher) = opened?;
        self.place = Some(Arc::new(place));
        self.watcher = Some(watcher);
        self.everything = true;
        self.all_questions = true;
        let recovered = self.recover().await;
        if recovered.is_err() {
            // Not before everything is seen to that the last run left.
            self.place = None;
        }
        recovered
    }

    pub(super) fn has_local_work(&self) -> bool {
        self.everything || !self.parts.is_empty()
    }

    pub(super) fn has_work(&self) -> bool {
        let work = match &self.braked {
            Some(braked) => self.has_local_work() && braked.is_due(self.around.now()),
            None => {
                self.has_local_work()
                    || self.all_questions
                    || !self.questions.is_empty()
                    || self.can_survey()
            }
        };
        self.halted.is_none() && work
    }

    /// Everything that was refused or out of reach is in question again.
    pub(super) fn ask_again(&mut self) {
        self.retry_at = None;
        self.halted = None;
        self.questions.append(&mut self.unreachable);
        self.questions
            .extend(std::mem::take(&mut self.refused).into_keys());
        self.surprises.clear();
        if self.place.is_some()
            && self.read_problems.len()
                > usize::from(self.read_problems.contains_key(&PathBuf::new()))
        {
            for path in self
                .read_problems
                .keys()
                .filter(|path| !path.as_os_str().is_empty())
            {
                let folder = path.parent().map(PathBuf::from).unwrap_or_default();
                add_part(&mut self.parts, folder, Depth::Shallow);
            }
        }
    }

    pub(super) fn retry_in(&mut self, after: Duration) {
        let at = self.around.now() + after;
        self.retry_at = Some(self.retry_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn halt_by(&mut self, halt: Halt) {
        match halt {
            Halt::Stop => {}
            Halt::Missing(reason) => self.halt(Activity::Missing(reason)),
            Halt::Failed(reason) => self.halt(Activity::Stopped(reason)),
        }
    }

    fn halt(&mut self, activity: Activity) {
        if self.halted.as_ref() != Some(&activity) {
            tracing::warn!(folder = self.config.number, reason = ?activity, "a synced folder cannot go on");
        }
        if matches!(activity, Activity::Missing(_)) {
            self.place = None;
            self.watcher = None;
        }
        self.halted = Some(activity);
        // Whatever the interrupted pass had taken up is looked at again.
        self.everything = true;
        self.all_questions = true;
        let now = self.around.now();
        if self.retry_at.is_none_or(|at| at <= now) {
            self.retry_at = Some(now + RETRY);
        }
    }

    /// Tells those who wait for what is done now.
    fn tell_waiting(&self, waiting: &mut Waiting) {
        let is_halted = self.halted.is_some();
        let mut done = Vec::new();
        if !self.everything || is_halted {
            done.append(&mut waiting.for_a_look);
        }
        let is_clear = !self.has_local_work() && self.doubted_parts.is_none();
        if is_clear || is_halted || self.braked.is_some() {
            done.append(&mut waiting.for_certainty);
        }
        for answer in done {
            // Who does not wait any more has no need of it.
            let _ = answer.send(());
        }
    }

    async fn command(&mut self, command: Command, waiting: &mut Waiting) {
        match command {
            Command::Rescan(answer) => {
                self.ask_again();
                self.absorb_now();
                self.everything = true;
                if let Some(braked) = &mut self.braked {
                    braked.look_at = self.around.now();
                }
                waiting.for_a_look.push(answer);
            }
            Command::TakeIn(answer) => {
                let is_watching = self.watcher.as_ref().is_some_and(Watcher::is_watching);
                self.everything |= !is_watching || !self.events_have_come().await;
                self.absorb_now();
                waiting.for_certainty.push(answer);
            }
            // Who asked found out otherwise that there is work.
            Command::Settled(answer) if answer.is_closed() => {}
            Command::Settled(answer) => {
                let settled = self.is_settled().await;
                let _ = answer.send(settled);
            }
            Command::Retry => self.ask_again(),
            Command::Release(how, answer) => {
                let released = self.release(how).await;
                let _ = answer.send(released);
            }
        }
    }

    pub(super) fn view<'a>(
        &self,
        rows: &'a Rows,
        tree: &'a coffer_crdt::tree::Tree,
        label: &'a str,
    ) -> View<'a> {
        let profile = self
            .place
            .as_ref()
            .map(|place| place.profile())
            .unwrap_or_default();
        View {
            rows,
            tree,
            vault_folder: self.config.vault_folder,
            profile,
            label,
            now_ms: self.around.wall_ms(),
        }
    }

    pub(super) fn place(&self) -> Result<Arc<Place>, Halt> {
        self.place
            .clone()
            .ok_or_else(|| Halt::Failed("the folder is not open".into()))
    }

    /// Waits for something unless the engine is stopped before.
    pub(super) async fn unless_stopped<T>(
        stop: &mut watch::Receiver<bool>,
        work: impl Future<Output = T>,
    ) -> Result<T, Halt> {
        tokio::select! {
            done = work => Ok(done),
            _ = stop.wait_for(|stop| *stop) => Err(Halt::Stop),
        }
    }

    pub(super) fn stop_signal(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    /// A commit failed after rows in memory had followed the disk: back to what is durable, and look at everything.
    pub(super) async fn fall_back(&mut self, error: CommitError) -> Halt {
        let (vault, number, top) = (
            self.vault.clone(),
            self.config.number,
            self.config.vault_folder,
        );
        if let Ok(Ok(rows)) = blocking(move || vault.folder_rows(number)).await {
            *self.shared.rows_mut() = Rows::new(top, rows);
            self.agreed = None;
        }
        self.everything = true;
        self.all_questions = true;
        // What was noted is found out by looking now: later on the note would say what is no longer so.
        self.old_note.get_or_insert_default();
        error.into()
    }

    /// A request with the present rows of these files.
    pub(super) fn rows_request(&self, touched: &BTreeSet<FileId>) -> CommitRequest {
        let rows = self.shared.rows();
        let folder_rows = touched
            .iter()
            .map(|id| (self.config.number, *id, rows.get(*id).cloned()))
            .collect();
        CommitRequest {
            folder_rows,
            ..CommitRequest::default()
        }
    }
}

pub(super) fn add_part(parts: &mut Parts, path: PathBuf, depth: Depth) {
    let part = parts.entry(path).or_insert(depth);
    *part = depth.max(*part);
}

/// Runs blocking work on a thread for that; right here where the runtime has one thread only, which is the simulation's
/// way: then one thing happens after the other, and the same twice.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Halt> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Halt::Failed(format!("a task of the synced folder failed: {error}")))
}

async fn noted(watcher: &Option<Watcher>) {
    match watcher {
        Some(watcher) => watcher.noted().await,
        None => std::future::pending().await,
    }
}

async fn reachable<C: Contents>(contents: &C, wanted: bool) {
    if wanted {
        contents.reachable().await;
    } else {
        std::future::pending().await
    }
}
