//! What only other hosts have goes from them to a new one, by way of this device.
//!
//! A former content whose file was written anew is mostly nowhere but at hosts, and so is what all devices leave to them.
//! Whoever changes hosts is not to lose it. One device is enough for it: one that keeps everything, or any where none does.

use std::collections::HashSet;
use std::sync::Arc;

use coffer_protocol::eviction::Kind;
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::version;
use tokio::sync::mpsc;

use super::super::running::Running;
use super::bring::BringError;
use super::gather::GatherError;
use crate::blobs::Filled;
use crate::hosts::lot::Lot;
use crate::net::{Net, StreamProtocol};

/// Whose contents are passed on to a host, and which.
#[derive(Clone, Debug, Default)]
pub struct Passing {
    /// Other hosts in use against which nothing is known.
    pub others: Vec<DeviceId>,
    /// Whether this device passes anything on.
    does: bool,
    /// Whether it passes on present contents too: it does not fetch them for itself.
    present: bool,
}

/// Blobs to be asked of one host.
pub type Asked = (DeviceId, HashSet<Hash>);

impl Passing {
    /// As of now, for what is brought to `host`.
    pub async fn look(running: &Arc<Running>, host: DeviceId) -> Result<Passing, BringError> {
        let hosts = running.vault.hosts().await.map_err(GatherError::from)?;
        let look = running.vault.inspect(move |core| {
            let state = core.state();
            let in_use = hosts.into_iter().filter(|(_, setting)| setting.in_use);
            let others = in_use.map(|(other, _)| other).filter(|other| {
                let memory = state.hosts.get(other);
                *other != host && memory.is_some_and(|memory| memory.is_trusted())
            });
            let keeps_all = state.storage.keeps_everything();
            let another = state
                .others(core.device())
                .any(|(kind, held)| kind == Kind::Device && held.pinned);
            Passing {
                others: others.collect(),
                does: keeps_all || !another,
                present: !keeps_all,
            }
        });
        Ok(look.await?)
    }

    /// What of a lot may be asked of each of the others, where it is not here.
    pub fn to_ask(&self, running: &Running, lot: &Lot) -> Vec<Asked> {
        let others = self.others.iter().filter(|_| self.does);
        others
            .filter(|other| running.vault.has_session(**other))
            .map(|other| (*other, lot.at(*other, self.present)))
            .filter(|(_, blobs)| !blobs.is_empty())
            .collect()
    }
}

/// Asks others for what of `not_here` they are thought to have, and gives it to `ready`. Gives what each turned out not to
/// have. One that does not answer is passed over.
pub async fn pass_on(
    running: &Running,
    net: &Net,
    asked: Vec<Asked>,
    not_here: &[Hash],
    batch_bytes: usize,
    ready: &mpsc::Sender<Filled>,
) -> Vec<Asked> {
    let mut lost = Vec::new();
    let mut rest = not_here.to_vec();
    for (other, has) in asked {
        let ids: Vec<Hash> = rest.iter().copied().filter(|id| has.contains(id)).collect();
        if ids.is_empty() {
            continue;
        }
        let stream = match net.open(other.0, StreamProtocol::new(version::BLOBS)).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%other, %error, "a host was not asked for what another lacks");
                continue;
            }
        };
        let passed = running
            .blobs
            .pass_on(other, stream, &ids, batch_bytes, ready);
        match passed.await {
            Ok(missing) => {
                let missing: HashSet<Hash> = missing.into_iter().collect();
                rest.retain(|id| !has.contains(id) || missing.contains(id));
                if !missing.is_empty() {
                    lost.push((other, missing));
                }
            }
            Err(error) => tracing::debug!(%other, %error, "a host did not give what another lacks"),
        }
    }
    lost
}
