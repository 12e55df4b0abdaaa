//! One node of the fleet: a disk that stays, and while it runs a core and its sessions.
//!
//! What `node/src/vault/handle.rs` and `node/src/service/sessions.rs` do with threads and streams is done here in single
//! steps: an inbox that becomes one batch, outputs that are published a moment later, an outbox for each session, a
//! session that is replaced by a newer one and ended by what the core says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coffer_node::store::{self, StoreError};
use coffer_node::vault::core::Ticket;
use coffer_node::vault::identity::Identity;
use coffer_node::vault::{Core, Input, Output, founding};
use coffer_protocol::identity::{DeviceId, DeviceKey, VaultId};
use coffer_protocol::keys::SealingKey;
use coffer_protocol::pairing::Welcome;
use coffer_protocol::replication::{Outbox, Work};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::disk::{Call, Crash, Disk};
use crate::ledger::Acknowledged;
use crate::network::ConnectionId;
use crate::operations::Issued;
use crate::oracle::Durably;

/// How a replica comes to its vault.
#[derive(Clone)]
pub enum Origin {
    /// It begins one.
    Founds,
    /// It was admitted to one.
    Joins(VaultId, Box<Welcome>),
    /// Its data folder was copied from another replica's.
    Copied,
}

/// A device of the fleet, running or not.
pub struct Replica {
    /// What its person calls it.
    pub name: String,
    /// Its id; a copy of a data folder has the same.
    pub device: DeviceId,
    secrets: [[u8; 32]; 2],
    /// Tells a copied data folder apart.
    pub binding: Vec<u8>,
    origin: Origin,
    /// Whether the file of its database has its name.
    made: bool,
    /// Its clock is off by so many milliseconds.
    pub skew_ms: i64,
    /// Its disk.
    pub disk: Disk,
    /// While it runs.
    pub node: Option<Node>,
    /// It stays off until then.
    pub off_until_ms: u64,
    /// What it acknowledged to its person.
    pub acknowledged: Acknowledged,
    /// Characters that it acknowledged to be typed, and to be erased: (document, character).
    pub typed: [Vec<(String, char)>; 2],
    /// Files that it acknowledged to be made.
    pub made_files: Vec<coffer_crdt::files::FileId>,
    /// What its disk was last seen to hold.
    pub durably: Durably,
    /// Contents of which the bytes are here although no placement says so: those with a list of lists.
    pub bytes: BTreeSet<(coffer_crdt::files::FileId, [u8; 32])>,
}

/// Entries of a stretch that becomes a range: few, as a run has some hundred.
const STRETCH: u64 = 6;

/// The running half of a replica.
pub struct Node {
    /// The core.
    pub core: Core,
    /// One session for each device.
    pub sessions: BTreeMap<DeviceId, Session>,
    /// What the next batch is made of.
    pub inbox: Vec<Input>,
    /// What the core wants done and was not yet done.
    pub outputs: VecDeque<Output>,
    /// Requests without an answer.
    pub tickets: BTreeMap<Ticket, Issued>,
}

/// A session with a device.
pub struct Session {
    /// On which connection.
    pub connection: ConnectionId,
    /// What is to be sent.
    pub outbox: Outbox,
    /// What is being sent: taken from the outbox, not yet on the wire.
    pub sending: Option<Work>,
}

impl Replica {
    /// A device that is not running and has nothing on its disk.
    pub fn new(name: String, origin: Origin, rng: &mut impl Rng) -> Replica {
        let secrets = [rng.random(), rng.random()];
        Replica {
            device: DeviceKey::from_secret(secrets[0]).id(),
            binding: name.clone().into_bytes(),
            name,
            secrets,
            origin,
            made: false,
            skew_ms: rng.random_range(-120_000..120_000),
            disk: Disk::new(),
            node: None,
            off_until_ms: 0,
            acknowledged: Acknowledged::default(),
            typed: Default::default(),
            made_files: Vec::new(),
            durably: Durably::default(),
            bytes: BTreeSet::new(),
        }
    }

    /// A copy of its data folder, in another place.
    pub fn copy(&self, name: String, rng: &mut impl Rng) -> Replica {
        Replica {
            binding: name.clone().into_bytes(),
            name,
            origin: Origin::Copied,
            skew_ms: rng.random_range(-120_000..120_000),
            disk: self.disk.copy(),
            node: None,
            acknowledged: self.acknowledged.clone(),
            typed: Default::default(),
            made_files: Vec::new(),
            durably: Durably::default(),
            bytes: self.bytes.clone(),
            ..*self
        }
    }

    /// It was admitted.
    pub fn joins(&mut self, welcome: Welcome) {
        self.origin = Origin::Joins(welcome.vault, Box::new(welcome));
    }

    /// Its keys.
    pub fn identity(&self) -> Identity {
        Identity {
            key: DeviceKey::from_secret(self.secrets[0]),
            sealing: SealingKey::from_seed(self.secrets[1]),
        }
    }

    /// What its clock says.
    pub fn wall_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.skew_ms)
    }

    /// Whether it has a vault to open, or may begin or join one.
    fn settle(
        &self,
        database: &redb::Database,
        now_ms: u64,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), StoreError> {
        if founding::vault_of(database)?.is_some() {
            return Ok(());
        }
        let identity = self.identity();
        let done = match &self.origin {
            Origin::Founds => founding::found(
                database,
                &identity,
                &self.name,
                &self.binding,
                self.wall_ms(now_ms),
                rng,
            )
            .map(|_| ()),
            Origin::Joins(vault, welcome) => founding::join(
                database,
                &identity,
                *vault,
                welcome,
                &self.name,
                &self.binding,
                rng,
            ),
            Origin::Copied => panic!("a copied data folder has lost its vault"),
        };
        match done {
            Ok(()) => Ok(()),
            Err(founding::FoundingError::Store(error)) => Err(error),
            Err(error) => panic!("a vault could not be begun: {error}"),
        }
    }

    /// Starts it, as the program starts on its data folder.
    ///
    /// # Errors
    /// Those of the store; the caller knows whether the machine crashed meanwhile.
    pub fn start(&mut self, now_ms: u64, rng: &mut impl Rng) -> Result<(), StoreError> {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let mut own = ChaCha8Rng::from_seed(seed);
        if !self.made {
            // A database is made under another name and then renamed: what is left of an interrupted making is not it.
            self.disk.wipe();
        }
        let database = store::open_with(self.disk.clone())?;
        self.made = true;
        self.settle(&database, now_ms, &mut own)?;
        founding::mark_running(&database, true)?;
        let mut core = founding::open(database, self.identity(), &self.binding, Box::new(own))?;
        core.set_stretch(STRETCH);
        self.node = Some(Node {
            core,
            sessions: BTreeMap::new(),
            inbox: Vec::new(),
            outputs: VecDeque::new(),
            tickets: BTreeMap::new(),
        });
        Ok(())
    }

    /// Ends it as its person would: what it had begun is answered, the database closes.
    pub fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            let database = node.core.database().clone();
            drop(node);
            let _ = founding::mark_running(&database, false);
        }
    }

    /// The machine dies. Returns the sessions that died with it.
    pub fn die(&mut self, how: Crash, rng: &mut impl Rng) -> Vec<ConnectionId> {
        let survives = self.disk.crash(how, rng);
        let node = self.node.take();
        let connections = node
            .iter()
            .flat_map(|node| node.sessions.values().map(|session| session.connection))
            .collect();
        // What the old database still wants to write goes to a disk that is gone.
        drop(node);
        self.disk = survives;
        self.durably.forget_image();
        connections
    }

    /// In which call its machine died, if it did.
    pub fn died_in(&self) -> Option<Call> {
        self.disk.died_in()
    }
}
