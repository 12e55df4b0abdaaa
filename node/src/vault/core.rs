//! The vault's core: a synchronous state machine over one redb database.
//!
//! Inputs go in by batches (what people and folders ask, what other devices send); each batch is one durable
//! transaction; outputs come out (answers, messages to send, what changed). It opens no socket, starts no thread and
//! reads no clock, so the simulation runs whole fleets of it in one thread from one seed, with a disk that crashes.
//!
//! Order of a batch: (A) messages go through the [`Replicator`], which says what to take in and what to answer;
//! (B) one transaction takes in entries and carries out requests, sealing the latter's changes into entries of this
//! device's log; (C) only after it is durable, memory changes, requests are answered and entries leave the machine.
//! A request that cannot be carried out is dropped and (B) runs again without it: the others do not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use coffer_crdt::files::FileId;
use coffer_crdt::tree::{Changed, Tree};
use coffer_protocol::grants::Role;
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceId, Hash, WriterId};
use coffer_protocol::keys::SealingPublic;
use coffer_protocol::log::Clock;
use coffer_protocol::pairing::Welcome;
use coffer_protocol::recovery::RecoveryKey;
use coffer_protocol::replication::{self, Action, ENTRIES_TARGET, Message, RangeName, Replicator};
use rand::CryptoRng;
use redb::{Database, ReadableDatabase};

use super::batch::{Done, Failure, Step};
use super::founding;
use super::identity::Identity;
use super::members::Manage;
use super::news::{FileChange, FileNews};
use super::request::{CommitError, CommitRequest, Committed};
use super::room::{self, HasRoom};
use super::state::{DocumentCache, State, read_tree};
use super::work::Work;
use crate::store::ranges::{self, Run};
use crate::store::{self, StoreError, logs};

/// The number by which the caller recognises an answer.
pub type Ticket = u64;

/// What the core is told.
pub enum Input {
    /// Carry out a request.
    Commit(Ticket, Box<CommitRequest>),
    /// Admit a device whose person was asked.
    Admit(Ticket, Admission),
    /// Change who is in the vault, or its keys.
    Manage(Ticket, Box<Manage>),
    /// A connection to a device of the vault is up.
    Connected(DeviceId),
    /// The last connection to it is gone.
    Disconnected(DeviceId),
    /// It says something.
    Message(DeviceId, Message),
    /// Say anew what this device holds, if that has changed.
    StateHeld,
}

/// A device to admit.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Its id.
    pub device: DeviceId,
    /// What to seal the vault's keys to.
    pub sealing: SealingPublic,
    /// The name its person gave it.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// What the core wants done, or tells.
#[derive(Debug)]
pub enum Output {
    /// The answer to [`Input::Commit`]; where it is a success, it is durable.
    Committed(Ticket, Result<Committed, CommitError>),
    /// The answer to [`Input::Admit`].
    Admitted(Ticket, Result<Welcome, CommitError>),
    /// The answer to [`Input::Manage`].
    Managed(Ticket, Result<(), CommitError>),
    /// Something for a device's session: goes into its [`Outbox`](coffer_protocol::replication::Outbox).
    To(DeviceId, Action),
    /// End the connection, which starts anew: the reason is for the log.
    Close(DeviceId, String),
    /// Durable state changed.
    Changed(Changes),
    /// Devices joined or left.
    MembersChanged,
    /// What some device holds changed; `status` may differ.
    HeldChanged,
    /// What is known of a relay host changed: it said something, or it was found out about.
    HostsChanged,
    /// The database takes nothing more: drop this core and all readers, and open it anew.
    StoreClosed(String),
    /// A log was seen to fork: what is known of it.
    Forked(WriterId, u64),
}

/// What a transaction changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Its number.
    pub transaction: u64,
    /// Files whose shown place, content or trash may differ.
    pub files: Vec<Changed>,
    /// How each file that was touched differs from before, for those who follow along.
    pub file_events: Vec<FileNews>,
    /// Files of which the content was not here and is now.
    pub arrived: Vec<FileId>,
    /// Contents that this device wrote, by their hashes, and that lost against others written at the same time.
    pub outdone: Vec<(FileId, [u8; 32])>,
    /// Whether this device made all of it.
    pub local: bool,
    /// Documents that changed: (doctype, id).
    pub documents: Vec<(String, String)>,
}

/// The core. One owner; readers use [`Core::database`] and [`Core::tree`].
pub struct Core {
    pub(super) database: Arc<Database>,
    pub(super) identity: Identity,
    pub(super) label: String,
    pub(super) state: State,
    pub(super) cache: DocumentCache,
    pub(super) rng: Box<dyn CryptoRng + Send>,
    replicator: Replicator,
    connected: BTreeSet<DeviceId>,
    pub(super) tree: Arc<RwLock<Tree>>,
    pub(super) has_room: Option<HasRoom>,
    /// Entries of which this device looks at a time for a range.
    pub(super) stretch: u64,
}

impl Core {
    /// Opens the vault in `database`. `label` names this device in conflict copies.
    pub fn open(
        database: Arc<Database>,
        identity: Identity,
        label: String,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Result<Core, StoreError> {
        super::past::prepare(&database)?;
        let (state, statements) = State::read(&database, &identity)?;
        let tree = Arc::new(RwLock::new(read_tree(&database)?));
        let replicator =
            Replicator::new(state.vault, state.membership.heads(), state.clock.clone())
                .with_ranges(Core::range_names(&state));
        let mut core = Core {
            database,
            identity,
            label,
            state,
            cache: DocumentCache::default(),
            rng,
            replicator,
            connected: BTreeSet::new(),
            tree,
            has_room: None,
            stretch: super::ranges::STRETCH,
        };
        for (device, bytes) in statements {
            let _ = core.replicator.held_changed(device, bytes, None);
        }
        core.find_lost()?;
        Ok(core)
    }

    /// From now on nothing is written while `has_room` says no to the bytes that it may take: a write that fails for want
    /// of space takes the whole database out of use until it is opened anew, so it must not be tried.
    pub fn write_only_while(&mut self, has_room: HasRoom) {
        self.has_room = Some(has_room);
    }

    /// The database, for readers.
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The tree, for readers; it changes only after the change is durable.
    pub fn tree(&self) -> &Arc<RwLock<Tree>> {
        &self.tree
    }

    /// What memory holds beside the tree.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What a connected device has announced to hold durably.
    pub fn acknowledged(&self, device: DeviceId) -> &Clock {
        self.replicator.acknowledged(&device)
    }

    /// Whether a device is connected and has said where it stands.
    pub fn has_greeted(&self, device: DeviceId) -> bool {
        self.replicator.has_greeted(&device)
    }

    /// Whether a connected device has announced just as much of a log.
    pub(super) fn is_elsewhere_up_to(&self, writer: WriterId, seq: u64, hash: Hash) -> bool {
        let mut connected = self.connected.iter();
        connected.any(|device| self.acknowledged(*device).get(&writer) == Some((seq, hash)))
    }

    /// Entries of a log that are stored: at most [`ENTRIES_TARGET`] bytes of them.
    pub fn entries(
        &self,
        writer: WriterId,
        from: u64,
        upto: u64,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        logs::read_entries(
            &self.database.begin_read()?,
            writer,
            from,
            upto,
            ENTRIES_TARGET,
        )
    }

    /// What goes out for [`Entries`](replication::Work::Entries): at most [`ENTRIES_TARGET`] bytes of
    /// entries, or a range; `None` if nothing is here.
    pub fn run_of(
        &self,
        writer: WriterId,
        (from, upto): (u64, u64),
        knows_ranges: bool,
    ) -> Result<Option<Run>, StoreError> {
        ranges::read_run(
            &self.database.begin_read()?,
            writer,
            (from, upto),
            knows_ranges,
            ENTRIES_TARGET,
        )
    }

    /// What goes out for [`Range`](replication::Work::Range) and [`Attestations`](replication::Work::Attestations), if it is
    /// still there.
    pub fn range_of(&self, work: &replication::Work) -> Result<Option<Message>, StoreError> {
        let read = self.database.begin_read()?;
        match work {
            replication::Work::Range(name) => ranges::range_message(&read, name.writer, name.to),
            replication::Work::Attestations(name) => ranges::said_message(&read, name),
            _ => Ok(None),
        }
    }

    /// Takes in a batch. `now_ms` is the wall clock in milliseconds since 1970.
    pub fn process(&mut self, inputs: Vec<Input>, now_ms: u64) -> Vec<Output> {
        let mut out = Vec::new();
        let mut steps = Vec::new();
        for input in inputs {
            match input {
                Input::Commit(ticket, request) => steps.push(Step::Commit(ticket, request)),
                Input::Admit(ticket, admission) => steps.push(Step::Admit(ticket, admission)),
                Input::Manage(ticket, manage) => steps.push(Step::Manage(ticket, manage)),
                Input::StateHeld => steps.push(Step::StateHeld),
                Input::Connected(device) => {
                    let membership = &self.state.membership;
                    let is_member = membership.is_member(&device);
                    let was_member = membership.former().contains_key(&device);
                    if was_member || is_member && self.state.is_out_for_good() {
                        self.connected.remove(&device);
                        self.replicator.disconnected(device);
                        let actions = self.replicator.part_with(device);
                        self.act(actions, &mut steps, &mut out);
                    } else if is_member {
                        self.connected.insert(device);
                        let actions = self.replicator.connected(device);
                        self.act(actions, &mut steps, &mut out);
                    } else {
                        out.push(Output::Close(
                            device,
                            "it is not a device of this vault".into(),
                        ));
                    }
                }
                Input::Disconnected(device) => {
                    self.connected.remove(&device);
                    self.replicator.disconnected(device);
                }
                Input::Message(device, message) => {
                    let actions = self.replicator.received(device, message);
                    self.act(actions, &mut steps, &mut out);
                }
            }
        }
        if !steps.is_empty() {
            self.run(steps, now_ms, &mut out);
        }
        out
    }

    /// Carries out `steps` in one transaction, again without a request that fails, until it is durable or storage fails.
    fn run(&mut self, mut steps: Vec<Step>, now_ms: u64, out: &mut Vec<Output>) {
        loop {
            let before = self.state.clone();
            match self.attempt(&steps, now_ms) {
                Ok(done) => return self.publish(done, out),
                Err(Failure::Request(index, error)) => {
                    self.state = before;
                    self.cache.clear();
                    out.push(match steps.remove(index) {
                        Step::Admit(ticket, _) => Output::Admitted(ticket, Err(error)),
                        Step::Commit(ticket, _) => Output::Committed(ticket, Err(error)),
                        Step::Manage(ticket, _) => Output::Managed(ticket, Err(error)),
                        Step::Ingest(..)
                        | Step::Grants(..)
                        | Step::Held(..)
                        | Step::Range(..)
                        | Step::Attestations(..)
                        | Step::StateHeld => continue,
                    });
                    if steps.is_empty() {
                        return;
                    }
                }
                Err(Failure::Store(error)) => {
                    self.state = before;
                    self.cache.clear();
                    self.fail(steps, &error, out);
                    if store::is_closed(&self.database) {
                        out.push(Output::StoreClosed(error.to_string()));
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn attempt(&mut self, steps: &[Step], now_ms: u64) -> Result<Done, Failure> {
        let has_room = self.has_room.as_ref();
        if has_room.is_some_and(|has_room| !has_room(room::may_take(steps))) {
            return Err(Failure::Store(StoreError::DiskFull));
        }
        let database = self.database.clone();
        let mut transaction = database.begin_write().map_err(StoreError::from)?;
        transaction.set_quick_repair(true);
        let done = {
            let mut work = Work::open(self, &transaction, now_ms)?;
            let mut state_held = false;
            if steps.iter().any(Step::is_own) {
                work.settle_doubt()?;
            }
            for (index, step) in steps.iter().enumerate() {
                match step {
                    Step::Ingest(from, entries, round) => work.ingest(*from, entries, *round)?,
                    Step::Grants(from, grants) => work.ingest_grants(*from, grants)?,
                    Step::Held(from, device, statement) => {
                        work.ingest_held(*from, *device, statement)?;
                    }
                    Step::Range(from, range, attestations, round) => {
                        work.ingest_range(*from, range, attestations, *round)?;
                    }
                    Step::Attestations(attestations) => work.ingest_attestations(attestations)?,
                    Step::StateHeld => {
                        state_held = true;
                        work.settle_epochs()?;
                        work.make_range()?;
                        work.drop_entries()?;
                    }
                    Step::Manage(ticket, manage) => work
                        .manage(*ticket, manage)
                        .map_err(|error| error.at(index))?,
                    Step::Commit(ticket, request) => work
                        .request(*ticket, request)
                        .map_err(|error| error.at(index))?,
                    Step::Admit(ticket, admission) => work
                        .admit(*ticket, admission)
                        .map_err(|error| error.at(index))?,
                }
            }
            // Last, so that it is true of all that becomes durable with it.
            if state_held || work.evicted {
                work.state_held()?;
            }
            work.finish()?
        };
        if done.is_empty() {
            transaction.abort().map_err(StoreError::from)?;
        } else {
            transaction.commit().map_err(StoreError::from)?;
        }
        Ok(done)
    }

    /// After the transaction is durable: memory, answers, and what may now leave the machine.
    pub(super) fn publish(&mut self, done: Done, out: &mut Vec<Output>) {
        let local = done.appended.iter().all(|(from, ..)| from.is_none());
        let mut changes = Changes {
            transaction: self.state.transaction,
            documents: done.documents,
            outdone: done.outdone,
            arrived: done.arrived,
            local,
            ..Changes::default()
        };
        if !done.files.is_empty() || !done.purges.is_empty() {
            let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
            for (id, state) in done.files {
                changes.file_events.push(FileNews {
                    id,
                    change: FileChange::between(tree.get(id).as_ref(), &state),
                    wanted: done.still_wanted.contains(&id),
                });
                tree.set(id, &state);
            }
            for (id, purge) in done.purges {
                tree.set_purge(id, Some(purge));
            }
            changes.files = tree.take_changed();
        }
        for (ticket, committed) in done.committed {
            out.push(Output::Committed(ticket, Ok(committed)));
        }
        for (ticket, welcome) in done.admitted {
            out.push(Output::Admitted(ticket, Ok(welcome)));
        }
        for ticket in done.managed {
            out.push(Output::Managed(ticket, Ok(())));
        }
        let mut actions = Vec::new();
        self.state.heard_of_ranges |= done.members_changed;
        if done.members_changed {
            actions.extend(
                self.replicator
                    .grants_changed(self.state.membership.heads()),
            );
            out.push(Output::MembersChanged);
        }
        if done.members_changed {
            let is_out = self.state.is_out_for_good();
            for device in self.connected.clone() {
                if is_out || !self.state.membership.is_member(&device) {
                    self.connected.remove(&device);
                    actions.extend(self.replicator.part_with(device));
                }
            }
        }
        // Before the entries: who took a range in their place would else ask for it, as it seems to lack only the range.
        if !done.ranges.is_empty() {
            let places = done.ranges.iter();
            let known = places.filter_map(|place| self.state.ranges.get(place));
            let names: Vec<RangeName> = known.map(super::ranges::Known::name).collect();
            actions.extend(self.replicator.ranges_changed(&names, &[]));
        }
        let mut by_origin: BTreeMap<Option<DeviceId>, Vec<(WriterId, u64, Hash)>> = BTreeMap::new();
        for (from, writer, seq, hash) in done.appended {
            by_origin.entry(from).or_default().push((writer, seq, hash));
        }
        for (from, appended) in by_origin {
            actions.extend(self.replicator.committed(&appended, from));
        }
        for device in self.connected.clone() {
            actions.extend(self.replicator.announce_clock(device));
        }
        for (from, round, why) in done.rejected {
            actions.extend(self.replicator.rejected(from, round, why));
        }
        if done.more_counts {
            actions.extend(self.replicator.more_counts());
        }
        if done.held_changed {
            out.push(Output::HeldChanged);
        }
        if done.hosts_changed {
            out.push(Output::HostsChanged);
        }
        if let Some(statement) = done.own_held {
            actions.extend(
                self.replicator
                    .held_changed(self.identity.key.id(), statement, None),
            );
        }
        for (device, statement, from) in done.others_held {
            actions.extend(self.replicator.held_changed(device, statement, Some(from)));
        }
        let mut more = Vec::new();
        self.act(actions, &mut more, out);
        debug_assert!(
            more.is_empty(),
            "what follows a commit never takes anything in"
        );
        if !changes.files.is_empty() || !changes.documents.is_empty() || done.wanted_changed {
            out.push(Output::Changed(changes));
        }
    }

    /// Storage failed: nothing of the batch is there. Connections start anew, for the replicator had counted on it.
    fn fail(&mut self, steps: Vec<Step>, error: &StoreError, out: &mut Vec<Output>) {
        let answer = CommitError::from(error);
        for step in steps {
            match step {
                Step::Commit(ticket, _) => out.push(Output::Committed(ticket, Err(answer.clone()))),
                Step::Admit(ticket, _) => out.push(Output::Admitted(ticket, Err(answer.clone()))),
                Step::Manage(ticket, _) => out.push(Output::Managed(ticket, Err(answer.clone()))),
                _ => {}
            }
        }
        for device in std::mem::take(&mut self.connected) {
            self.replicator.disconnected(device);
            out.push(Output::Close(device, format!("the store failed: {error}")));
        }
    }

    fn act(&mut self, actions: Vec<Action>, steps: &mut Vec<Step>, out: &mut Vec<Output>) {
        for action in actions {
            match action {
                Action::IngestGrants { peer, grants } => steps.push(Step::Grants(peer, grants)),
                Action::Ingest {
                    peer,
                    entries,
                    round,
                } => steps.push(Step::Ingest(peer, entries, round)),
                Action::IngestHeld {
                    peer,
                    device,
                    statement,
                } => steps.push(Step::Held(peer, device, statement)),
                Action::IngestRange {
                    peer,
                    range,
                    attestations,
                    round,
                } => steps.push(Step::Range(peer, range, attestations, round)),
                Action::IngestAttestations { attestations, .. } => {
                    steps.push(Step::Attestations(attestations));
                }
                Action::Fork { writer, seq, .. } => out.push(Output::Forked(writer, seq)),
                Action::KnowsRanges { peer }
                | Action::SendRange { peer, .. }
                | Action::SendAttestations { peer, .. }
                | Action::Send { peer, .. }
                | Action::SendEntries { peer, .. }
                | Action::SendGrants { peer, .. }
                | Action::Close { peer, .. } => {
                    out.push(Output::To(peer, action));
                }
            }
        }
    }

    /// Whether a session with the device is up.
    pub fn is_connected(&self, device: &DeviceId) -> bool {
        self.connected.contains(device)
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.identity.key.id()
    }

    /// What an admitted device needs to begin; its addresses are the caller's to add.
    pub fn welcome(&self) -> Welcome {
        let membership = &self.state.membership;
        Welcome {
            vault: membership.vault(),
            grants: membership
                .grants()
                .map(|(_, grant)| grant.bytes().to_vec())
                .collect(),
            grant_heads: membership.heads(),
            clock: self.state.clock.clone(),
            addresses: Vec::new(),
        }
    }

    /// The recovery words, until a person has confirmed them; `None` from then on.
    pub fn recovery(&self) -> Result<Option<RecoveryKey>, StoreError> {
        let sealed = founding::recovery_at_rest(&self.database)?;
        let open = |bytes: Vec<u8>| {
            RecoveryKey::open_at_rest(&bytes, &self.identity.key, &self.state.vault).map_err(
                |error| StoreError::Damaged(format!("the recovery words cannot be read: {error}")),
            )
        };
        sealed.map(open).transpose()
    }

    /// Grants that a device with these heads lacks, encoded, and this device's heads.
    pub fn grants_after(&self, they_have: &[Hash]) -> Message {
        let grants = self
            .state
            .membership
            .missing(they_have)
            .into_iter()
            .map(|grant| grant.bytes().to_vec())
            .collect();
        Message::Grants {
            heads: self.state.membership.heads(),
            grants,
        }
    }

    /// Whether what this device holds differs from what it last stated.
    pub fn held_is_stale(&self) -> bool {
        let state = &self.state;
        if state.is_out() || state.sealing_epoch().is_none() {
            // There is no key to say it under, or nobody to hear it.
            return self.owes_rotation();
        }
        let Some((own, _)) = &state.own_held else {
            return true;
        };
        self.owes_rotation()
            || own.entries != state.clock
            || !state.wanted_stated
            || state.restate
            || state.announced == state.keeps_everything()
            || own.pinned != state.keeps_everything()
            || state.owes_confirmation()
    }

    /// The statement of a device, this one's own included.
    pub fn held(&self, device: DeviceId) -> Option<&Held> {
        match &self.state.own_held {
            Some((held, _)) if held.device == device => Some(held),
            _ => self.state.held.get(&device),
        }
    }
}
