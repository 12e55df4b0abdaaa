//! Hosts as people see them: what each says that it has, what it lacks, and what is wrong with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_protocol::identity::DeviceId;
use coffer_protocol::relay::SignedReceipt;
use coffer_protocol::relay::quota::{Fill, Usage};

use super::super::running::{Running, commit_error};
use super::super::{Node, status, store_error};
use super::At;
use crate::blobs::Rate;
use crate::control::{
    ControlError, HostFill, HostHolding, HostReceipt, HostRow, HostTrouble, Missing, Reply, Warning,
};
use crate::hosts::{Memory, Setting, TroubleKind};
use coffer_protocol::log::Clock;

/// `relay list`.
pub async fn list(node: &Arc<Node>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let hosts = all(node, &running, |_| true).await?;
    Ok(Reply::Hosts { hosts })
}

/// The hosts in use, for `status`.
pub async fn rows(node: &Arc<Node>, running: &Arc<Running>) -> Result<Vec<HostRow>, ControlError> {
    all(node, running, |setting| setting.in_use).await
}

async fn all(
    node: &Arc<Node>,
    running: &Arc<Running>,
    which: impl Fn(&Setting) -> bool,
) -> Result<Vec<HostRow>, ControlError> {
    let hosts = running.vault.hosts().await.map_err(store_error)?;
    let mut rows = Vec::new();
    for (host, setting) in hosts.iter().filter(|(_, setting)| which(setting)) {
        rows.push(row(node, running, *host, setting).await?);
    }
    rows.sort_by(|a, b| (!a.in_use, &a.name, &a.id).cmp(&(!b.in_use, &b.name, &b.id)));
    Ok(rows)
}

/// One host.
pub(super) async fn row(
    node: &Arc<Node>,
    running: &Arc<Running>,
    host: DeviceId,
    setting: &Setting,
) -> Result<HostRow, ControlError> {
    let (memory, clock) = running
        .vault
        .glance(move |core| {
            let state = core.state();
            (state.hosts.get(&host).cloned(), state.clock.clone())
        })
        .await
        .map_err(commit_error)?;
    let memory = memory.unwrap_or_default();
    let rates: BTreeMap<DeviceId, Rate> = running.blobs.rates();
    let rate = rates.get(&host).copied().unwrap_or_default();
    let addresses = setting.addresses.iter();
    let addresses: Vec<String> = addresses
        .map(|text| match text.parse() {
            Ok(address) => status::show_address(&address),
            Err(_) => text.clone(),
        })
        .collect();
    let at = running.hosts.at(&host);
    let reach = setting
        .in_use
        .then(|| status::reach(node, host, rate, addresses.clone()));
    Ok(HostRow {
        id: host.to_string(),
        name: setting.name.clone(),
        addresses,
        in_use: setting.in_use,
        added_ms: setting.added_ms,
        reach,
        contents_in: rate.received,
        contents_out: rate.sent,
        holding: setting
            .in_use
            .then(|| holding(&memory, &clock, &at))
            .flatten(),
        quota_bytes: memory
            .record
            .told
            .as_ref()
            .map_or(setting.quota_bytes, |told| told.value().quota_bytes),
        troubles: troubles(&memory),
        receipt: setting.erased.as_ref().and_then(|erased| {
            let receipt = SignedReceipt::decode(&erased.receipt).ok()?;
            Some(HostReceipt {
                at_ms: receipt.value().at_ms,
                pieces: receipt.value().blobs,
                bytes: receipt.value().bytes,
                signed: hex::encode(&erased.receipt),
            })
        }),
    })
}

/// What a host holds, as it said; `None` where it has said nothing yet, or that it does not keep the vault.
pub(super) fn holding(memory: &Memory, clock: &Clock, at: &At) -> Option<HostHolding> {
    if memory.trouble(TroubleKind::NotKept).is_some() {
        return None;
    }
    let told = memory.record.told.as_ref()?.value();
    let changes = clock
        .iter()
        .map(|(writer, seq, _)| seq.saturating_sub(told.entries.seq(writer)))
        .sum();
    let lacks = at.as_of.map(|_| Missing {
        changes,
        files: at.lacks.0,
        bytes: at.lacks.1,
    });
    let usage = Usage {
        entry_bytes: told.entry_bytes,
        blob_bytes: told.blob_bytes,
    };
    Some(HostHolding {
        as_of_ms: told.at_ms,
        everything: lacks == Some(Missing::default()) && !at.working,
        lacks,
        earlier_elsewhere: at.may_be_nowhere,
        change_bytes: told.entry_bytes,
        pieces: told.blobs,
        content_bytes: told.blob_bytes,
        fill: match usage.fill(told.quota_bytes) {
            Fill::Full => HostFill::Full,
            _ if at.full => HostFill::Full,
            Fill::Nearly => HostFill::NearlyFull,
            Fill::Room => HostFill::Room,
        },
    })
}

fn troubles(memory: &Memory) -> Vec<HostTrouble> {
    let troubles = memory.troubles.iter();
    troubles
        .map(|trouble| {
            let (code, text) = match trouble.kind {
                TroubleKind::RolledBack => (
                    "rolled-back",
                    "was put back to an earlier state, so it lost what came after",
                ),
                TroubleKind::Contradicts => (
                    "contradicts",
                    "has signed two different accounts of what it holds",
                ),
                TroubleKind::BeganAnew => ("began-anew", "lost all that it held, and began anew"),
                TroubleKind::Withholds => (
                    "withholds",
                    "does not pass on everything that it says it holds",
                ),
                TroubleKind::LostContents => (
                    "lost-contents",
                    "no longer has contents that it had confirmed",
                ),
                TroubleKind::Unproven => (
                    "unproven",
                    "does not answer when it is to show that it still holds what it had confirmed",
                ),
                TroubleKind::NotKept => ("not-kept", "says that it does not keep your vault"),
                TroubleKind::Forged => (
                    "forged",
                    "passed on something that was altered, or that nobody wrote; it was refused",
                ),
            };
            HostTrouble {
                code: code.into(),
                text: text.into(),
                first_ms: trouble.first_ms,
                last_ms: trouble.last_ms,
            }
        })
        .collect()
}

/// What a person should know of the hosts.
pub fn warnings(hosts: &[HostRow]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, text: String| {
        warnings.push(Warning {
            code: code.into(),
            text,
        });
    };
    for host in hosts {
        let name = &host.name;
        for trouble in &host.troubles {
            let way_out = match trouble.code.as_str() {
                "lost-contents" => {
                    "Your devices bring it what it lacks; this goes once it has shown that it holds everything again. If \
                     it comes back, use another host and \"coffer relay remove\" this one."
                }
                "not-kept" => {
                    "Ask who runs it for a new invitation, and add it anew with \"coffer relay add\"; or use another host and \
                     \"coffer relay remove\" this one, --without-erasing."
                }
                "withholds" | "unproven" => {
                    "This goes when it does so again. If it stays, ask who runs it, or use another host and \
                     \"coffer relay remove\" this one."
                }
                _ => {
                    "Your devices bring it what it lacks; if you do not trust it any more, use another one and \
                     \"coffer relay remove\" it, else add it anew: \"coffer relay add\" with a new invitation."
                }
            };
            warn(
                &format!("host-{}", trouble.code),
                format!("The host \"{name}\" {}. {way_out}", trouble.text),
            );
        }
        match host.holding.as_ref().map(|holding| holding.fill) {
            Some(HostFill::Full) => warn(
                "host-full",
                format!(
                    "The host \"{name}\" is full: new contents stay on your devices only. What it holds stays there; \
                     add another host, or ask for more room."
                ),
            ),
            Some(HostFill::NearlyFull) => warn(
                "host-nearly-full",
                format!("The host \"{name}\" is nearly full."),
            ),
            _ => {}
        }
    }
    warnings
}
