//! What `coffer relay invite`, `vault` and `status` are answered.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use coffer_protocol::identity::{DeviceId, VaultId};
use coffer_protocol::relay::{HostInvitation, MAX_HOST_ADDRESSES};

use super::control::{HostReply, HostRequest, HostStatus, InvitationRow, MAX_ROWS, VaultRow};
use super::host::{Host, now_ms};
use super::store::{Invitation, StoreError, VaultRecord};
use super::{erasing, places};
use crate::control::{ControlError, ErrorKind};
use crate::net::Multiaddr;
use crate::service::random;
use crate::service::status::{free_bytes, show_address};

/// Longest that an invitation can be valid, in seconds: ten years.
const MAX_VALID_SECONDS: u64 = 10 * 366 * 24 * 3600;
/// Fewest digits of a vault's id that name one.
const FEWEST_DIGITS: usize = 4;

/// Answers one request.
pub async fn answer(
    host: Arc<Host>,
    data_dir: Arc<Path>,
    request: HostRequest,
) -> Result<HostReply, ControlError> {
    match request {
        HostRequest::Status => status(&host, &data_dir).await,
        HostRequest::Invite {
            quota,
            valid_seconds,
        } => invite(&host, quota, valid_seconds).await,
        HostRequest::Vaults { after } => {
            let after = after.as_deref().map(id_of).transpose()?;
            let mut rows = Vec::new();
            let records = host.store.vaults(after, MAX_ROWS).await;
            for record in records.map_err(|error| failed(&error))? {
                rows.push(row(&host, record).await?);
            }
            Ok(HostReply::Vaults { rows })
        }
        HostRequest::FindVault { beginning } => {
            let record = find(&host, &beginning).await?;
            Ok(HostReply::Vault(row(&host, record).await?))
        }
        HostRequest::RemoveVault { vault } => {
            let vault = id_of(&vault)?;
            let record = host
                .store
                .vault(vault)
                .await
                .map_err(|error| failed(&error))?;
            let row = row(&host, record.ok_or_else(|| unknown(&vault.to_string()))?).await?;
            match erasing::by_hand(&host, vault).await {
                Ok(true) => Ok(HostReply::Vault(row)),
                Ok(false) => Err(unknown(&vault.to_string())),
                Err(error) => Err(failed(&error)),
            }
        }
    }
}

fn failed(error: &StoreError) -> ControlError {
    let kind = match error {
        StoreError::DiskFull => ErrorKind::DiskFull,
        StoreError::Permission(_) => ErrorKind::Permission,
        StoreError::Newer { .. } => ErrorKind::NewerVersion,
        StoreError::Damaged(_) => ErrorKind::Damaged,
        StoreError::NoVault(_) => ErrorKind::NotFound,
        StoreError::Unavailable(_) => ErrorKind::Unavailable,
        StoreError::InUse => ErrorKind::AlreadyRunning,
        StoreError::TooLarge { .. } => ErrorKind::Conflict,
        StoreError::Closed | StoreError::Failed(_) => ErrorKind::Io,
    };
    ControlError::new(kind, error.to_string()).with_code("host-store")
}

/// A failure to open the store, or of a request to it.
pub fn store_error(error: &StoreError) -> ControlError {
    failed(error)
}

fn id_of(text: &str) -> Result<VaultId, ControlError> {
    text.parse()
        .map_err(|error| ControlError::usage(format!("\"{text}\" is no vault's id: {error}")))
}

fn unknown(what: &str) -> ControlError {
    ControlError::not_found(format!("this host serves no vault {what}")).with_code("no-such-vault")
}

async fn find(host: &Host, beginning: &str) -> Result<VaultRecord, ControlError> {
    let digits = beginning.trim().to_lowercase();
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || !(FEWEST_DIGITS..=2 * VaultId::LEN).contains(&digits.len()) {
        return Err(ControlError::usage(format!(
            "\"{beginning}\" is no vault's id, nor the first {FEWEST_DIGITS} or more digits of one"
        )));
    }
    let at_least = format!("{digits:0<64}");
    // Ids are ascending: the first that is not below the beginning, and the one behind it, decide.
    let from = id_of(&at_least)?;
    let exact = host
        .store
        .vault(from)
        .await
        .map_err(|error| failed(&error))?;
    let behind = host
        .store
        .vaults(Some(from), 2)
        .await
        .map_err(|error| failed(&error))?;
    let mut found = exact
        .into_iter()
        .chain(behind)
        .filter(|record| record.vault.to_string().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(unknown(&digits)),
        (Some(_), Some(_)) => Err(ControlError::usage(format!(
            "several vaults begin with {digits}; give more of the id"
        ))),
    }
}

async fn row(host: &Host, record: VaultRecord) -> Result<VaultRow, ControlError> {
    let seen = match host.store.seen(record.vault).await {
        Err(StoreError::NoVault(_)) => Vec::new(),
        seen => seen.map_err(|error| failed(&error))?,
    };
    let connected = match host.vaults.get(&record.vault) {
        Some(resident) => resident.connected().await as u64,
        None => 0,
    };
    Ok(VaultRow {
        vault: record.vault.to_string(),
        bound: record.grants > 0,
        quota: record.quota,
        entry_bytes: record.usage.entry_bytes,
        entries: record.usage.entries,
        blob_bytes: record.usage.blob_bytes,
        blobs: record.usage.blobs,
        added_ms: record.added_ms,
        connected,
        last_seen_ms: seen
            .iter()
            .filter(|(device, _)| *device != host.id)
            .map(|(_, at)| *at)
            .max(),
    })
}

/// What invitations name: what was configured, with the addresses behind names beside them, else what the machine sees.
async fn announced(host: &Host) -> Vec<Multiaddr> {
    let listening = host.net.listen_addresses();
    let port = listening_port(&listening).unwrap_or(host.config.port);
    if host.config.announce.is_empty() {
        return places::reachable(listening);
    }
    let texts = host.config.announce.iter();
    texts.flat_map(|text| places::read(text, port)).collect()
}

/// The port that is listened on, which may have been left to the system.
fn listening_port(listening: &[Multiaddr]) -> Option<u16> {
    listening.iter().find_map(|address| {
        address.iter().find_map(|part| match part {
            libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
            _ => None,
        })
    })
}

async fn invite(
    host: &Host,
    quota: Option<u64>,
    valid_seconds: Option<u64>,
) -> Result<HostReply, ControlError> {
    let quota = quota.unwrap_or(host.config.quota);
    if !super::config::QUOTAS.contains(&quota) {
        return Err(ControlError::usage("a quota is from 16 MiB to 1 EiB"));
    }
    let valid = valid_seconds.unwrap_or(host.config.invitation_valid.as_secs());
    if !(1..=MAX_VALID_SECONDS).contains(&valid) {
        return Err(ControlError::usage(
            "an invitation is valid from one second to ten years",
        ));
    }
    let now = now_ms();
    let expires_ms = now.saturating_add(valid.saturating_mul(1000));
    let addresses: Vec<String> = announced(host)
        .await
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut notes = Vec::new();
    if addresses.is_empty() {
        return Err(ControlError::unavailable(
            "this host knows no address at which devices reach it",
        )
        .with_code("no-announced-address"));
    }
    if host.config.announce.is_empty() {
        notes.push(
            "the invitation names the addresses that this machine sees; behind a router, set `announce` in [network]"
                .to_owned(),
        );
    }
    if addresses.len() > MAX_HOST_ADDRESSES {
        notes.push(format!(
            "only the first {MAX_HOST_ADDRESSES} addresses are in the invitation"
        ));
    }
    let invitation = HostInvitation::new(
        host.id,
        &host.name,
        &addresses,
        quota,
        expires_ms,
        &mut random(),
    );
    let record = Invitation {
        id: invitation.id(),
        check: Bytes::new(),
        quota,
        made_ms: now,
        expires_ms,
        used: None,
    };
    let added = host.store.add_invitation(record).await;
    added.map_err(|error| failed(&error))?;
    tracing::info!(quota, valid_seconds = valid, "an invitation was made");
    Ok(HostReply::Invitation(InvitationRow {
        link: invitation.to_link(),
        quota,
        expires_ms,
        addresses: invitation.addresses.clone(),
        notes,
    }))
}

async fn status(host: &Host, data_dir: &Path) -> Result<HostReply, ControlError> {
    let totals = host.store.totals().await.map_err(|error| failed(&error))?;
    let connections = host.net.connection_count() as u64;
    let mut sessions = 0;
    let resident = host.vaults.all();
    for vault in &resident {
        sessions += vault.connected().await as u64;
    }
    let announced = announced(host).await;
    Ok(HostReply::Status(Box::new(HostStatus {
        host: DeviceId::to_string(&host.id),
        name: host.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: host.started_ms,
        listening: host
            .net
            .listen_addresses()
            .iter()
            .map(show_address)
            .collect(),
        announced: announced.iter().map(show_address).collect(),
        http: host.config.http.map(|address| address.to_string()),
        not_ready: host.readiness().await.err(),
        vaults: totals.vaults,
        resident: resident.len() as u64,
        connections,
        sessions,
        invitations: open_invitations(host).await?,
        entry_bytes: totals.usage.entry_bytes,
        blob_bytes: totals.usage.blob_bytes,
        quota: totals.quota,
        disk_free: free_bytes(data_dir),
        memory: resident_bytes(),
    })))
}

/// Invitations that can still be used.
async fn open_invitations(host: &Host) -> Result<u64, ControlError> {
    let (mut open, mut after) = (0, None);
    loop {
        let some = host.store.invitations(after, MAX_ROWS).await;
        let some = some.map_err(|error| failed(&error))?;
        let now = now_ms();
        let usable = |one: &&Invitation| one.used.is_none() && one.expires_ms > now;
        open += some.iter().filter(usable).count() as u64;
        match some.last() {
            Some(last) if some.len() == MAX_ROWS => after = Some(last.id),
            _ => return Ok(open),
        }
    }
}

/// Resident memory of this process, where the system tells.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
