//! `relay remove`: uses a host no longer, and has it erase what it keeps.

use std::collections::BTreeSet;
use std::sync::Arc;

use coffer_protocol::identity::{DeviceId, StoreId, VaultId};
use coffer_protocol::relay::{
    Answer, DeviceSide, EraseOrder, JoinError, Request, SignedOrder, SignedReceipt,
};
use coffer_protocol::version;

use super::super::running::{Running, commit_error};
use super::super::{Node, storage, store_error};
use super::talk::{self, Talk, TalkError};
use super::{AtHosts, add, rows};
use crate::control::{
    Answer as PersonsAnswer, ControlError, ErrorKind, Progress, Question, Reply, Session, Stage,
};
use crate::hosts::setting::Erased;
use crate::hosts::{HostChange, Setting};
use crate::net::Multiaddr;
use crate::vault::wall_ms;

/// Fewest letters by which a host's id may be named.
const ID_PREFIX: usize = 4;

/// Removes a host.
pub async fn remove(
    node: &Arc<Node>,
    named: &str,
    without_erasing: bool,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let hosts = running.vault.hosts().await.map_err(store_error)?;
    let (host, mut setting) = find(&hosts, named)?;
    let files = only_there(&running, host).await?;
    if files > 0 {
        let question = Question::RemoveHost {
            name: setting.name.clone(),
            files,
        };
        if session.ask(question).await? != PersonsAnswer::Yes {
            return Err(ControlError::refused("the host stays in use"));
        }
    }
    let left = left_behind(node, &running, host, &hosts).await?;
    if !left.is_empty() {
        let question = Question::LeaveDevices {
            name: setting.name.clone(),
            devices: left,
        };
        if session.ask(question).await? != PersonsAnswer::Yes {
            return Err(ControlError::refused("the host stays in use"));
        }
    }
    if !without_erasing {
        session.progress(Progress {
            stage: Stage::Connecting,
            done: 0,
            total: None,
            about: None,
        });
        setting.erased = Some(erase(node, &running, host, &setting).await?);
    }
    setting.in_use = false;
    add::write(&running, host, &setting, vec![HostChange::Forget(host)]).await?;
    running.vault.members_changed();
    Ok(Reply::HostRemoved {
        host: Box::new(rows::row(node, &running, host, &setting).await?),
    })
}

/// The host in use that a person means.
fn find(hosts: &[(DeviceId, Setting)], named: &str) -> Result<(DeviceId, Setting), ControlError> {
    let in_use = || hosts.iter().filter(|(_, setting)| setting.in_use);
    let mut found: Vec<_> = in_use()
        .filter(|(_, setting)| setting.name == named)
        .collect();
    if found.is_empty() && named.len() >= ID_PREFIX {
        let named = named.to_lowercase();
        found = in_use()
            .filter(|(host, _)| host.to_string().starts_with(&named))
            .collect();
    }
    match found[..] {
        [(host, setting)] => Ok((*host, setting.clone())),
        [] => Err(
            ControlError::not_found(format!("no host \"{named}\" is in use"))
                .with_code("no-such-host"),
        ),
        _ => Err(ControlError::conflict(format!(
            "several hosts are meant by \"{named}\""
        ))),
    }
}

/// Files whose contents are neither here, nor known to be kept by another device or host.
async fn only_there(running: &Arc<Running>, host: DeviceId) -> Result<u64, ControlError> {
    let wanted: BTreeSet<_> = running
        .vault
        .wanted()
        .map_err(store_error)?
        .into_iter()
        .map(|wanted| wanted.id)
        .collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let others = AtHosts::known(running, Some(host)).await?;
    let lonely = storage::kept_by_nobody(running, &wanted, &others).await?;
    Ok(lonely.len() as u64)
}

/// Names of devices that know of none of the hosts that stay: they were heard of last before any of those was added, and
/// are not connected.
async fn left_behind(
    node: &Arc<Node>,
    running: &Arc<Running>,
    host: DeviceId,
    hosts: &[(DeviceId, Setting)],
) -> Result<Vec<String>, ControlError> {
    let Some(since_ms) = others_since(host, hosts) else {
        return Ok(Vec::new());
    };
    let net = super::network(node)?;
    let me = running.vault.device();
    let names = running.vault.glance(move |core| {
        let state = core.state();
        let devices = state.membership.devices().iter();
        let left = devices.filter(|(device, entry)| {
            let heard = core.held(**device);
            **device != me
                && entry.role.holds_keys()
                && !net.is_connected(&device.0)
                && heard.is_none_or(|held| {
                    held.at_ms < since_ms && !held.entries.covers_clock(&state.clock)
                })
        });
        let names = left.map(|(device, _)| state.membership.device_name(device, &state.keyring));
        names.flatten().collect()
    });
    names.await.map_err(commit_error)
}

/// Since when there are others in use than this one; `None` where there are none.
fn others_since(host: DeviceId, hosts: &[(DeviceId, Setting)]) -> Option<u64> {
    let others = hosts
        .iter()
        .filter(|(other, setting)| *other != host && setting.in_use);
    others.map(|(_, setting)| setting.added_ms).min()
}

/// Has the host erase the vault, and gives what it signed.
async fn erase(
    node: &Arc<Node>,
    running: &Arc<Running>,
    host: DeviceId,
    setting: &Setting,
) -> Result<Erased, ControlError> {
    let net = super::network(node)?;
    if !net.is_connected(&host.0) {
        let addresses: Vec<Multiaddr> = setting
            .addresses
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        talk::reach(&net, host, &addresses)
            .await
            .map_err(unreachable)?;
    }
    let (vault, grants) = running
        .vault
        .inspect(|core| (core.state().vault, core.welcome().grants))
        .await
        .map_err(commit_error)?;
    // It says which store it keeps the vault in; nothing else would be erased.
    let introduced = talk::join(&net, host, DeviceSide::as_member(vault), |_| {
        std::future::ready(Some(grants.clone()))
    });
    let store = introduced.await.map_err(not_asked)?.store;
    let order = order(node, vault, host, store)?;
    let mut talk = Talk::open(&net, host, vault).await.map_err(talk_error)?;
    let request = Request::Erase {
        order: order.bytes().to_vec(),
    };
    let Answer::Erased(receipt) = talk.ask(&request).await.map_err(talk_error)? else {
        return Err(talk_error(TalkError::Nonsense));
    };
    SignedReceipt::read(&receipt, &order).map_err(|error| {
        ControlError::new(
            ErrorKind::Damaged,
            format!("the host's receipt is not good: {error}"),
        )
        .with_code("host-broken")
    })?;
    Ok(Erased {
        order: order.bytes().to_vec(),
        receipt,
    })
}

fn order(
    node: &Node,
    vault: VaultId,
    host: DeviceId,
    store: StoreId,
) -> Result<SignedOrder, ControlError> {
    let key = node.identity()?.key;
    let order = EraseOrder {
        version: version::ERASE_ORDER,
        vault,
        host,
        store,
        owner: key.id(),
        at_ms: wall_ms(),
    };
    SignedOrder::sign(order, &key).map_err(|error| ControlError::internal(error.to_string()))
}

fn unreachable(error: impl std::fmt::Display) -> ControlError {
    ControlError::unavailable(format!(
        "the host cannot be reached, so it cannot be asked to erase anything: {error}"
    ))
    .with_code("host-not-asked")
}

/// Whatever it was, the way out is another one than when a host is added.
fn not_asked(error: JoinError) -> ControlError {
    ControlError::unavailable(format!("the host was not asked to erase anything: {error}"))
        .with_code("host-not-asked")
}

fn talk_error(error: TalkError) -> ControlError {
    ControlError::unavailable(error.to_string()).with_code("host-not-asked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_there_since_the_first_of_them_that_is_in_use() {
        let setting = |added_ms, in_use| Setting {
            added_ms,
            in_use,
            ..Setting::default()
        };
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| DeviceId([n; 32]));
        let mut hosts = vec![(a, setting(1, true)), (b, setting(2, false))];
        assert_eq!(others_since(a, &hosts), None);
        hosts.extend([(c, setting(9, true)), (d, setting(5, true))]);
        assert_eq!(others_since(a, &hosts), Some(5));
    }

    #[test]
    fn a_host_is_found_by_its_name_or_the_beginning_of_its_id() {
        let setting = |name: &str, in_use| Setting {
            name: name.into(),
            in_use,
            ..Setting::default()
        };
        let hosts = [
            (DeviceId([0xab; 32]), setting("attic", true)),
            (DeviceId([0xcd; 32]), setting("abab", true)),
            (DeviceId([0xef; 32]), setting("old", false)),
        ];
        let found = |named: &str| find(&hosts, named).map(|(host, _)| host.0[0]).ok();
        assert_eq!(found("attic"), Some(0xab));
        assert_eq!(found("abab"), Some(0xcd));
        assert_eq!(found("ABABA"), Some(0xab));
        assert_eq!(found("aba"), None);
        assert_eq!(found("old"), None);
        assert_eq!(found(""), None);
    }
}
