//! The vault's relay hosts: adding and removing them, and for each that is in use a session, the bringing of contents,
//! and a look at whether it can be trusted.
//!
//! - `add.rs`, `remove.rs`, `rows.rs`: requests · `talk.rs`: conversations with a host
//! - `keep.rs`: which contents hosts keep, for what may be dropped here and for what is at risk
//! - `link.rs`: replication · `bring.rs`, `gather.rs`: contents to it · `nowhere.rs`: what nobody may have · `passing.rs`: what only other hosts have · `look.rs`: challenges, withholding, releases
//! - `alive.rs`: devices of which a host has brought news · `losses.rs`: what it turned out to have lost, until it has shown that it has it again
//!
//! [`run`] has one task for each host in use, and ends it when the host is not in use any more.

mod add;
mod alive;
mod bring;
mod gather;
mod keep;
mod link;
mod look;
mod losses;
mod nowhere;
mod passing;
mod remove;
mod rows;
mod talk;

pub use add::add;
pub use keep::{AtHosts, keep, may_keep};
pub use remove::remove;
pub use rows::{list, rows, warnings};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use coffer_protocol::identity::DeviceId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::running::Running;
use super::{Node, stopped};
use crate::control::ControlError;
use crate::hosts::setting::DOCTYPE;
use crate::hosts::{HostChange, Setting};
use crate::net::Net;
use crate::vault::CommitRequest;

/// How far a host is, as its task last found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Transaction as of which it was looked through, once it was.
    pub as_of: Option<u64>,
    /// Contents that it lacks, and their bytes; without those of `may_be_nowhere`.
    pub lacks: (u64, u64),
    /// Files of which it lacks earlier contents that this device does not have either.
    pub may_be_nowhere: u64,
    /// It refused contents because they do not fit.
    pub full: bool,
    /// Something is asked of it, or brought to it.
    pub working: bool,
}

/// The tasks of hosts, and what they found.
#[derive(Default)]
pub struct Hosts {
    at: Mutex<BTreeMap<DeviceId, watch::Receiver<At>>>,
    net: OnceLock<Net>,
}

impl Hosts {
    /// How far a host in use is.
    pub fn at(&self, host: &DeviceId) -> At {
        let all = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(host)
            .map(|at| at.borrow().clone())
            .unwrap_or_default()
    }
}

/// The network, which hosts are of no use without.
fn network(node: &Node) -> Result<Net, ControlError> {
    node.net()
        .ok_or_else(|| ControlError::unavailable("this node was started without a network"))
}

/// Runs until `stop`.
pub async fn run(running: Arc<Running>, net: Net, mut stop: watch::Receiver<bool>) {
    let _ = running.hosts.net.set(net.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(alive::run(running.clone(), net.clone()));
    let mut in_use: BTreeMap<DeviceId, AbortHandle> = BTreeMap::new();
    let mut members = running.vault.members();
    let mut changes = running.vault.subscribe();
    loop {
        members.borrow_and_update();
        match running.vault.hosts().await {
            Ok(hosts) => {
                settle(&running, &hosts).await;
                let hosts: Vec<DeviceId> = hosts
                    .into_iter()
                    .filter(|(_, setting)| setting.in_use)
                    .map(|(host, _)| host)
                    .collect();
                adapt(&running, &net, &hosts, &mut in_use, &mut tasks);
            }
            Err(error) => tracing::warn!(%error, "the hosts of the vault cannot be read"),
        }
        loop {
            tokio::select! {
                () = stopped(&mut stop) => {
                    tasks.shutdown().await;
                    return;
                }
                changed = members.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                change = changes.recv() => match change {
                    Ok(change) if change.documents.iter().all(|(doctype, _)| doctype != DOCTYPE) => {}
                    // Who is to be kept connected follows from the hosts in use.
                    Ok(_) | Err(RecvError::Lagged(_)) => running.vault.members_changed(),
                    Err(RecvError::Closed) => return,
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

/// Forgets what was known of a host that is not in use any more, or was added (anew) since: a person knows of it.
async fn settle(running: &Arc<Running>, hosts: &[(DeviceId, Setting)]) {
    let known = running.vault.inspect(|core| core.state().hosts.clone());
    let Ok(known) = known.await else { return };
    let mut changes = Vec::new();
    for (host, setting) in hosts {
        let memory = known.get(host);
        if !setting.in_use {
            changes.extend(memory.map(|_| HostChange::Forget(*host)));
        } else if memory.and_then(|memory| memory.added) != Some(setting.added()) {
            changes.push(HostChange::Begins(*host, setting.added()));
        }
    }
    if changes.is_empty() {
        return;
    }
    let request = CommitRequest {
        hosts: changes,
        ..Default::default()
    };
    if let Err(error) = running.vault.commit(request).await {
        tracing::warn!(%error, "what was known of a host could not be forgotten");
    }
}

/// Begins the tasks of new hosts, and ends those of hosts that are not in use any more.
fn adapt(
    running: &Arc<Running>,
    net: &Net,
    hosts: &[DeviceId],
    in_use: &mut BTreeMap<DeviceId, AbortHandle>,
    tasks: &mut JoinSet<()>,
) {
    let mut at = running
        .hosts
        .at
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    in_use.retain(|host, task| {
        let keep = hosts.contains(host);
        if !keep {
            task.abort();
            at.remove(host);
        }
        keep
    });
    for host in hosts {
        if in_use.contains_key(host) {
            continue;
        }
        let (sender, receiver) = watch::channel(At::default());
        at.insert(*host, receiver);
        let (running, net, id) = (running.clone(), net.clone(), *host);
        let losses = Arc::new(losses::Losses::default());
        let task = tasks.spawn(async move {
            tokio::join!(
                link::run(running.clone(), net.clone(), id),
                bring::run(running.clone(), net.clone(), id, sender, losses.clone()),
                look::run(running, net, id, losses),
            );
        });
        in_use.insert(*host, task);
    }
}
