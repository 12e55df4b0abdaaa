//! What `status` says of all files in numbers: gathered in one look at everything.
//!
//! Where there are many files such a look takes a while, and while much comes in everything changes all the time; whoever
//! asks often shall not cost more than what is asked about, nor wait for it. So a look is used again while nothing changed,
//! and, while this device has something to do, for some time after: many times as long as the look took, and until the
//! next one has ended. Once nothing is left to do here, what is said is always of this moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use coffer_crdt::files::{Dot, FileId, Kind};
use coffer_protocol::held::Held;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::log::Clock;
use tokio::sync::Mutex;

use super::running::Running;
use super::status::Known;
use super::storage::{self, Due};
use super::store_error;
use crate::control::{Amount, ControlError, Missing, StorageStatus};
use crate::folder::conflicts::conflicts;

/// A look is used again for so many times as long as it took: a fortieth of one processor is spent on looking, at most.
const REUSED: u32 = 40;

/// What a look may take beyond what the last one took, as far as who asks often goes on being told what that one found.
const LOOK_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Only where there are so many files: a look at fewer takes a few milliseconds.
const MANY: u64 = 10_000;

/// The last look, for those who ask next.
#[derive(Default)]
pub struct Figures {
    last: std::sync::Mutex<Option<Arc<Taken>>>,
    /// Held by who looks: one look at a time.
    looking: Arc<Mutex<()>>,
}

struct Taken {
    /// What it depends on: the vault's transaction, and which of its folders are synced.
    of: (u64, Vec<FileId>),
    at: Instant,
    took: Duration,
    look: Arc<Look>,
}

impl Taken {
    fn is_fresh(&self) -> bool {
        self.is_large() && self.at.elapsed() < self.took * REUSED
    }

    /// Whether it may be told once more while the next look is under way: not to somebody who asks now and then.
    fn is_usable(&self) -> bool {
        self.is_large() && self.at.elapsed() < self.took * REUSED * 2 + LOOK_ENDS_WITHIN
    }

    fn is_large(&self) -> bool {
        self.look.files.files >= MANY
    }
}

/// What one look found.
pub struct Look {
    /// Files and links that are shown, and their bytes.
    pub files: Amount,
    /// Folders that are shown.
    pub folders: u64,
    /// Of these files, what each other device is not known to hold.
    pub lacking: BTreeMap<DeviceId, Amount>,
    /// And what this device holds and none of them is known to.
    pub only_here: Amount,
    /// What is to be here and is not.
    pub due: Amount,
    /// What this device keeps.
    pub storage: StorageStatus,
    /// Conflict copies, by path.
    pub conflicts: Vec<FileId>,
}

impl Figures {
    /// The figures; of this very moment where `exact`.
    pub async fn look(
        &self,
        running: &Arc<Running>,
        known: &Arc<Known>,
        exact: bool,
    ) -> Result<Arc<Look>, ControlError> {
        let of = (known.transaction, running.folders.vault_folders());
        if let Some(taken) = self.last()
            && (taken.of == of || (!exact && taken.is_fresh()))
        {
            return Ok(taken.look.clone());
        }
        if let Some(taken) = self.last().filter(|taken| !exact && taken.is_usable()) {
            // The next who asks has the figures of now; whoever looks already looks for this one, too.
            if let Ok(looking) = self.looking.clone().try_lock_owned() {
                let (running, known) = (running.clone(), known.clone());
                running.clone().spawn(async move {
                    let _looking = looking;
                    if let Err(error) = running.figures.look_now(&running, &known, of).await {
                        tracing::debug!(%error, "the files could not be counted");
                    }
                });
            }
            return Ok(taken.look.clone());
        }
        let _looking = self.looking.lock().await;
        if let Some(taken) = self.last().filter(|taken| taken.of == of) {
            return Ok(taken.look.clone());
        }
        self.look_now(running, known, of).await
    }

    fn last(&self) -> Option<Arc<Taken>> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn look_now(
        &self,
        running: &Arc<Running>,
        known: &Arc<Known>,
        of: (u64, Vec<FileId>),
    ) -> Result<Arc<Look>, ControlError> {
        let begun = Instant::now();
        let look = Arc::new(take(running, known).await?);
        let taken = Taken {
            of,
            at: Instant::now(),
            took: begun.elapsed(),
            look: look.clone(),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(taken));
        Ok(look)
    }
}

async fn take(running: &Arc<Running>, known: &Arc<Known>) -> Result<Look, ControlError> {
    let (of, by) = (running.clone(), known.clone());
    let looked = tokio::task::spawn_blocking(move || at_all(&of, &by));
    let mut look = looked
        .await
        .map_err(|error| ControlError::internal(error.to_string()))??;
    look.storage = storage::status(running, Some(look.files)).await?;
    Ok(look)
}

fn at_all(running: &Running, known: &Known) -> Result<Look, ControlError> {
    let due = Due::of(running, &known.storage)?.0;
    let mut absent: BTreeSet<FileId> = BTreeSet::new();
    let each = running.vault.each_wanted(|file| absent.insert(file.id));
    each.map_err(store_error)?;
    let tree = running.vault.tree();
    let me = running.vault.device();
    let mut others: Vec<Other> = known
        .others(me)
        .filter_map(|(device, held)| Some(Other::of(device, held?, &known.clock)))
        .collect();
    let one_has_all = others.iter().any(|other| other.has_all);
    let (mut files, mut folders, mut only_here) = (Amount::default(), 0, Amount::default());
    for every in tree.every() {
        if every.trashed || !every.is_itself {
            continue;
        }
        let Some(content) = every.content.filter(|_| every.kind != Kind::Folder) else {
            match every.kind {
                Kind::Folder => folders += 1,
                Kind::File | Kind::Symlink => files.add(0),
            }
            continue;
        };
        files.add(content.size);
        let mut elsewhere = one_has_all;
        for other in &mut others {
            if other.holds(every.id, content.dot) {
                elsewhere = true;
            } else {
                other.lacking.add(content.size);
            }
        }
        if !elsewhere && !absent.contains(&every.id) {
            only_here.add(content.size);
        }
    }
    let lacking = others.iter().map(|other| (other.device, other.lacking));
    let copies = conflicts(&tree, FileId::ROOT);
    Ok(Look {
        files,
        folders,
        lacking: lacking.collect(),
        only_here,
        due,
        storage: StorageStatus::default(),
        conflicts: copies.iter().map(|conflict| conflict.copy).collect(),
    })
}

/// Contents that no other device is known to hold, those of the trash with the others.
pub fn only_here(running: &Running, known: &Known) -> Amount {
    let others = known.others(running.vault.device());
    let others: Vec<Other> = others
        .filter_map(|(device, held)| Some(Other::of(device, held?, &known.clock)))
        .collect();
    let mut only_here = Amount::default();
    for every in running.vault.tree().every() {
        let content = every.content.filter(|_| every.is_itself);
        if let Some(content) = content
            && !others
                .iter()
                .any(|other| other.holds(every.id, content.dot))
        {
            only_here.add(content.size);
        }
    }
    only_here
}

/// Another device by its statement, and what it lacks as far as was counted.
struct Other {
    device: DeviceId,
    has_all: bool,
    covered: BTreeMap<[u8; 16], u64>,
    exceptions: BTreeSet<FileId>,
    lacking: Amount,
}

impl Other {
    fn of(device: DeviceId, held: &Held, clock: &Clock) -> Other {
        let covered = held.chunks.iter();
        Other {
            device,
            has_all: held.chunks.covers_clock(clock)
                && held.exceptions.is_empty()
                && held.more_missing == 0,
            covered: covered
                .map(|(writer, seq, _)| (writer.actor(), seq))
                .collect(),
            exceptions: held
                .exceptions
                .iter()
                .filter_map(|id| id.parse().ok())
                .collect(),
            lacking: Amount::default(),
        }
    }

    fn holds(&self, id: FileId, dot: Dot) -> bool {
        self.has_all
            || self
                .covered
                .get(&dot.writer)
                .is_some_and(|seq| *seq >= dot.seq)
                && !self.exceptions.contains(&id)
    }
}

impl Look {
    /// What a device is not known to hold of the files, with these changes.
    pub fn lacks(&self, device: &DeviceId, changes: u64) -> Missing {
        missing(
            changes,
            self.lacking.get(device).copied().unwrap_or(self.files),
        )
    }
}

/// Changes and files that are missing somewhere.
pub fn missing(changes: u64, of: Amount) -> Missing {
    Missing {
        changes,
        files: of.files,
        bytes: of.bytes,
    }
}
