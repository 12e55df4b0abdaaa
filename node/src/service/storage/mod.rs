//! What this device keeps: the settings, what they come to, and what is at risk.
//!
//! `survey.rs` looks at every file once; `trim.rs` drops what takes more room than the limit allows; `fetch.rs` brings
//! contents here that somebody asked for.

mod fetch;
mod survey;
mod trim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use coffer_crdt::files::{FileId, Kind};
use coffer_crdt::tree::Tree;
use coffer_protocol::eviction::{Copies, Keepers, Naming};
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceId, WriterId};

use super::hosts::AtHosts;
use super::running::{Running, commit_error};
use super::{Node, returned, store_error};
use crate::control::{
    Amount, AtRisk, ControlError, KeepAs, Reply, StorageMode, StorageRule, StorageStatus,
};
use crate::vault::storage::{Plan, Rule, Storage, StorageChange};
use crate::vault::{CommitRequest, Core};

pub use fetch::bring_here;
use survey::Seen;
pub use survey::{Due, Survey};
pub use trim::run;

/// Files at risk that are named.
const NAMED: usize = 20;

/// What the parts of this room share while a vault is open.
pub struct Keeping {
    /// Whether contents on demand that count as not here are to be looked at again: their bytes may all be here.
    pub look_again: AtomicBool,
    /// Whether parts of contents on demand may lie here: a transfer broke off, or a setting changed in the middle of one.
    pub parts: AtomicBool,
    /// Bytes of such parts when they were last looked for.
    pub part_bytes: AtomicU64,
    /// Requests that bring contents here now.
    pub fetching: AtomicUsize,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            look_again: AtomicBool::new(true),
            parts: AtomicBool::new(true),
            part_bytes: AtomicU64::new(0),
            fetching: AtomicUsize::new(0),
        }
    }
}

/// The settings of this device.
pub async fn settings(running: &Running) -> Result<Arc<Storage>, ControlError> {
    running
        .vault
        .glance(|core| core.state().storage.clone())
        .await
        .map_err(commit_error)
}

/// `storage show`.
pub async fn show(node: &Arc<Node>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    Ok(Reply::Storage(Box::new(status(&running, None).await?)))
}

/// `storage full|on-demand|pin|unpin`.
pub async fn set(node: &Arc<Node>, path: String, keep: KeepAs) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let storage = settings(&running).await?;
    let (top, change) = {
        let tree = running.vault.tree();
        let id = tree.resolve(&path).ok_or_else(|| {
            ControlError::not_found(format!("there is no \"{path}\" in the vault"))
        })?;
        let is_folder = id == FileId::ROOT
            || tree
                .shown(id)
                .is_some_and(|shown| shown.kind == Kind::Folder);
        let change = match keep {
            KeepAs::OnDemand if !is_folder => {
                return Err(ControlError::usage(format!(
                    "\"{path}\" is a file; folders of the vault can be on demand, or all of it"
                )));
            }
            KeepAs::OnDemand => StorageChange::Rule(id, Some(Rule::OnDemand)),
            KeepAs::Full if id == FileId::ROOT => StorageChange::KeepEverything,
            KeepAs::Full => {
                let mut without = Storage::clone(&storage);
                without.rules.remove(&id);
                // Within a folder that is on demand it takes a rule of its own.
                let kept = Plan::new(&tree, &without, running.folders.vault_folders()).keeps(id);
                StorageChange::Rule(id, (!kept).then_some(Rule::Full))
            }
            KeepAs::Pin if id == FileId::ROOT => {
                return Err(ControlError::usage(
                    "to keep everything here, say \"storage full\"",
                ));
            }
            KeepAs::Pin => StorageChange::Rule(id, Some(Rule::Pinned)),
            KeepAs::Unpin => match storage.rules.get(&id) {
                Some(Rule::Pinned) => StorageChange::Rule(id, None),
                _ => {
                    return Err(
                        ControlError::conflict(format!("\"{path}\" itself is not pinned"))
                            .with_code("not-pinned"),
                    );
                }
            },
        };
        (id, change)
    };
    commit(&running, change).await?;
    let mut status = status(&running, None).await?;
    if matches!(keep, KeepAs::Pin | KeepAs::Full) {
        let lacking = returned::lacking(&running, &[top]).await?;
        (status.lacking_count, status.lacking) = (lacking.count, lacking.named);
    }
    Ok(Reply::Storage(Box::new(status)))
}

/// `storage limit`.
pub async fn limit(node: &Arc<Node>, bytes: Option<u64>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    commit(&running, StorageChange::Limit(bytes)).await?;
    Ok(Reply::Storage(Box::new(status(&running, None).await?)))
}

async fn commit(running: &Running, change: StorageChange) -> Result<(), ControlError> {
    let request = CommitRequest {
        storage: vec![change],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    running.keeping.parts.store(true, Ordering::Release);
    Ok(())
}

/// What is known of other devices, for what they keep.
struct Others {
    me: DeviceId,
    own: Option<Held>,
    held: Vec<(coffer_protocol::eviction::Kind, Held)>,
    clock: coffer_protocol::log::Clock,
}

impl Others {
    fn read(core: &Core) -> Others {
        let state = core.state();
        let me = core.device();
        Others {
            me,
            own: state
                .own_held
                .as_ref()
                .filter(|_| state.announced)
                .map(|(held, _)| held.clone()),
            held: state
                .others(me)
                .map(|(kind, held)| (kind, held.clone()))
                .collect(),
            clock: state.clock.clone(),
        }
    }

    fn known(&self) -> Keepers<'_> {
        let held = self.held.iter().map(|(kind, held)| (*kind, held));
        Keepers::known(held, Copies::default())
    }

    fn confirmed(&self) -> Option<Keepers<'_>> {
        let held = self.held.iter().map(|(kind, held)| (*kind, held));
        let own = self.own.as_ref().filter(|own| own.device == self.me)?;
        Some(Keepers::confirmed(own, held, Copies::default()))
    }

    /// Whether one device keeps all that there is: then nothing is at risk, and no file need be looked at.
    fn one_keeps_all(&self) -> bool {
        self.held.iter().any(|(kind, held)| {
            *kind == coffer_protocol::eviction::Kind::Device
                && held.pinned
                && held.chunks.covers_clock(&self.clock)
                && held.exceptions.is_empty()
                && held.more_missing == 0
        })
    }
}

/// Which contents one device says that it has, kept or not.
pub struct Has<'a>(&'a Held, BTreeMap<[u8; 16], u64>);

impl<'a> Has<'a> {
    /// By this statement.
    pub fn of(held: &'a Held) -> Has<'a> {
        let covered = held.chunks.iter();
        Has(
            held,
            covered
                .map(|(writer, seq, _)| (WriterId::actor(writer), seq))
                .collect(),
        )
    }

    /// Whether it has this one, which is present.
    pub fn has(&self, id: FileId, naming: Naming) -> bool {
        self.1
            .get(&naming.actor)
            .is_some_and(|seq| *seq >= naming.seq)
            && (self.0.exceptions.is_empty()
                || self.0.exceptions.binary_search(&id.to_string()).is_err())
    }
}

/// Those of `files`, which are not here, that neither another device nor one of these hosts is known to keep.
pub async fn kept_by_nobody(
    running: &Arc<Running>,
    files: &BTreeSet<FileId>,
    at_hosts: &AtHosts,
) -> Result<Vec<FileId>, ControlError> {
    let (storage, others) = running
        .vault
        .glance(|core| (core.state().storage.clone(), Others::read(core)))
        .await
        .map_err(commit_error)?;
    let keepers = others.known();
    // One is better than nobody.
    let copies = Copies {
        devices: 1,
        hosts: 1,
    };
    let survey = Survey::of(running, &storage)?;
    let mut lonely = Vec::new();
    for file in &survey.files {
        if files.contains(&file.id)
            && file.size > 0
            && !keepers.enough(file.naming, || file.id.to_string())
            && !copies.enough(0, at_hosts.count(file.id).map_err(store_error)?)
        {
            lonely.push(file.id);
        }
    }
    Ok(lonely)
}

/// What this device keeps, in numbers. Who knows what `all` files come to spares it looking at each where everything is
/// kept, here and by others.
pub async fn status(
    running: &Arc<Running>,
    all: Option<Amount>,
) -> Result<StorageStatus, ControlError> {
    let (storage, others) = running
        .vault
        .glance(|core| (core.state().storage.clone(), Others::read(core)))
        .await
        .map_err(commit_error)?;
    let at_hosts = AtHosts::known(running, None).await?;
    let nothing_lacks = storage.keeps_everything()
        && enough_keep_all(&others, &at_hosts)
        && running.vault.wanted_count().is_ok_and(|wanted| wanted == 0);
    if let Some(kept) = all.filter(|_| nothing_lacks) {
        return Ok(StorageStatus {
            rules: rules(running, &storage),
            limit: storage.limit,
            kept,
            ..StorageStatus::default()
        });
    }
    let running = running.clone();
    let looked =
        tokio::task::spawn_blocking(move || looked(&running, &storage, &others, &at_hosts));
    looked
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
}

/// Whether enough others keep all that there is: then nothing is at risk, and no file need be looked at.
fn enough_keep_all(others: &Others, at_hosts: &AtHosts) -> bool {
    others.one_keeps_all() || Copies::default().enough(0, at_hosts.hold_all())
}

/// The same by a look at each file.
fn looked(
    running: &Running,
    storage: &Storage,
    others: &Others,
    at_hosts: &AtHosts,
) -> Result<StorageStatus, ControlError> {
    let confirmed = others.confirmed();
    let mut risks = Risks::new(others, at_hosts);
    let mut evictable = Amount::default();
    let totals = survey::each(running, storage, |tree, file| {
        if !file.is_itself {
            return;
        }
        if let Some(keepers) = confirmed.as_ref().filter(|_| file.may_be_dropped())
            && keepers.enough(file.naming, || file.id.to_string())
        {
            evictable.add(file.size);
        }
        risks.see(tree, &file);
    })?;
    Ok(StorageStatus {
        mode: match storage.rules.get(&FileId::ROOT) {
            Some(Rule::OnDemand) => StorageMode::OnDemand,
            _ if storage.keeps_everything() => StorageMode::Full,
            _ => StorageMode::Mixed,
        },
        rules: rules(running, storage),
        limit: storage.limit,
        used: totals.used,
        elsewhere: totals.elsewhere,
        kept: totals.kept,
        evictable,
        at_risk: risks.found?,
        ..StorageStatus::default()
    })
}

/// Contents that too few devices and hosts keep.
struct Risks<'a> {
    keepers: Keepers<'a>,
    at_hosts: &'a AtHosts,
    has: Vec<Has<'a>>,
    enough_keep_all: bool,
    found: Result<AtRisk, ControlError>,
}

impl<'a> Risks<'a> {
    fn new(others: &'a Others, at_hosts: &'a AtHosts) -> Risks<'a> {
        Risks {
            keepers: others.known(),
            at_hosts,
            has: others.held.iter().map(|(_, held)| Has::of(held)).collect(),
            enough_keep_all: enough_keep_all(others, at_hosts),
            found: Ok(AtRisk::default()),
        }
    }

    fn see(&mut self, tree: &Tree, file: &Seen) {
        let Ok(found) = &mut self.found else { return };
        let is_kept = || self.keepers.enough(file.naming, || file.id.to_string());
        if file.size == 0 || self.enough_keep_all || is_kept() {
            return;
        }
        let hosts = match self.at_hosts.count(file.id) {
            Ok(hosts) => hosts,
            Err(error) => {
                self.found = Err(store_error(error));
                return;
            }
        };
        if Copies::default().enough(0, hosts) {
            return;
        }
        let has = || self.has.iter().any(|has| has.has(file.id, file.naming));
        let elsewhere = hosts > 0 || has();
        match (file.here, elsewhere) {
            (true, false) => found.only_here.add(file.size),
            (false, false) => found.nowhere.add(file.size),
            _ => {}
        }
        found.all.add(file.size);
        if found.names.len() < NAMED {
            found.names.extend(tree.path(file.id));
        }
    }
}

fn rules(running: &Running, storage: &Storage) -> Vec<StorageRule> {
    let tree = running.vault.tree();
    let mut rules: Vec<StorageRule> = storage
        .rules
        .iter()
        .map(|(id, rule)| StorageRule {
            path: tree.path(*id).unwrap_or_else(|| id.to_string()),
            rule: rule.name().into(),
        })
        .collect();
    rules.sort_by(|a, b| a.path.cmp(&b.path));
    rules
}
