//! `relay add`: lets a host keep the vault.

use std::sync::Arc;

use coffer_protocol::grants::Role;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::relay::{
    BindError, DeviceSide, HOST_NAME_MAX_LEN, Host, HostInvitation, HostLinkError, JoinError,
    MAX_HOST_ADDRESSES,
};

use super::super::Node;
use super::super::running::{Running, commit_error};
use super::{rows, talk};
use crate::control::{ControlError, ErrorKind, Progress, Reply, Session, Stage};
use crate::hosts::setting::DOCTYPE;
use crate::hosts::{HostChange, Setting};
use crate::net::{DEFAULT_PORT, Multiaddr};
use crate::relay::places;
use crate::vault::{Admission, CommitRequest, Operation, wall_ms};

/// Binds the vault to the host of an invitation, and tells all devices.
pub async fn add(
    node: &Arc<Node>,
    invitation: &str,
    name: Option<String>,
    at: Option<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let net = super::network(node)?;
    let invitation = HostInvitation::parse(invitation, wall_ms()).map_err(link_error)?;
    let host = invitation.host;
    let hosts = running
        .vault
        .hosts()
        .await
        .map_err(super::super::store_error)?;
    let name = match name {
        Some(name) => name,
        None => kept_name(host, &hosts).unwrap_or_else(|| invitation.name.clone()),
    };
    let name = free_name(&name, host, &hosts)?;
    session.progress(Progress {
        stage: Stage::Connecting,
        done: 0,
        total: None,
        about: None,
    });
    let addresses = addresses(&invitation, at.as_deref())?;
    talk::reach(&net, host, &addresses).await.map_err(|error| {
        ControlError::unavailable(format!("the host cannot be reached: {error}"))
            .with_code("host-unreachable")
    })?;
    let vault = running
        .vault
        .inspect(|core| core.state().vault)
        .await
        .map_err(commit_error)?;
    let side = DeviceSide::by_invitation(vault, host, &invitation);
    let joined = talk::join(&net, host, side, |introduced| {
        admit(running.clone(), host, introduced, name.clone())
    })
    .await
    .map_err(join_error)?;
    let setting = Setting {
        name,
        addresses: addresses.iter().map(ToString::to_string).collect(),
        quota_bytes: joined.quota_bytes,
        added_ms: wall_ms(),
        store: Some(joined.store),
        in_use: true,
        erased: None,
    };
    let begins = HostChange::Begins(host, setting.added());
    write(&running, host, &setting, vec![begins]).await?;
    running.vault.members_changed();
    Ok(Reply::HostAdded {
        host: Box::new(rows::row(node, &running, host, &setting).await?),
    })
}

/// Where the host is reached: what a person says goes before what the invitation says.
fn addresses(
    invitation: &HostInvitation,
    at: Option<&str>,
) -> Result<Vec<Multiaddr>, ControlError> {
    let mut addresses = Vec::new();
    if let Some(at) = at {
        addresses = places::read(at.trim(), DEFAULT_PORT);
        if addresses.is_empty() {
            let message = format!(
                "\"{at}\" is no place such as relay.example.org:{DEFAULT_PORT} or 192.0.2.7"
            );
            return Err(ControlError::usage(message).with_code("bad-address"));
        }
    }
    let told = invitation.addresses.iter();
    addresses.extend(told.filter_map(|text| text.parse().ok()));
    addresses.truncate(MAX_HOST_ADDRESSES);
    Ok(addresses)
}

/// Admits a host unless it is, and gives all grants; `None` where that cannot be.
async fn admit(
    running: Arc<Running>,
    host: DeviceId,
    introduced: Host,
    name: String,
) -> Option<Vec<Vec<u8>>> {
    let known = running
        .vault
        .inspect(move |core| {
            let role = core.state().membership.role(&host);
            (role == Some(Role::Relay)).then(|| core.welcome().grants)
        })
        .await;
    if let Ok(Some(grants)) = known {
        return Some(grants);
    }
    let admission = Admission {
        device: host,
        sealing: introduced.sealing,
        name,
        role: Role::Relay,
    };
    match running.vault.admit(admission).await {
        Ok(welcome) => Some(welcome.grants),
        Err(error) => {
            tracing::warn!(%error, "a host was not admitted");
            None
        }
    }
}

/// Writes the document of a host, with what is noted of it.
pub(super) async fn write(
    running: &Running,
    host: DeviceId,
    setting: &Setting,
    hosts: Vec<HostChange>,
) -> Result<(), ControlError> {
    let put = Operation::PutDocument {
        doctype: DOCTYPE.into(),
        id: host.to_string(),
        value: setting.to_json(),
        texts: Vec::new(),
        base: Vec::new(),
    };
    let request = CommitRequest {
        operations: vec![put],
        hosts,
        ..Default::default()
    };
    running
        .vault
        .commit(request)
        .await
        .map(drop)
        .map_err(commit_error)
}

/// The name that a host has had so far, unless another one in use has it by now.
fn kept_name(host: DeviceId, hosts: &[(DeviceId, Setting)]) -> Option<String> {
    let (_, setting) = hosts.iter().find(|(known, _)| *known == host)?;
    free_name(&setting.name, host, hosts).ok()
}

/// The name that a host gets: one line, and not that of another host in use.
fn free_name(
    asked: &str,
    host: DeviceId,
    hosts: &[(DeviceId, Setting)],
) -> Result<String, ControlError> {
    let name = asked.trim();
    let fits =
        !name.is_empty() && name.len() <= HOST_NAME_MAX_LEN && !name.chars().any(char::is_control);
    if !fits {
        let message = format!("a host's name has 1 to {HOST_NAME_MAX_LEN} bytes on one line");
        return Err(ControlError::usage(message));
    }
    let taken = |name: &str| {
        let mut hosts = hosts.iter();
        hosts.any(|(other, setting)| *other != host && setting.in_use && setting.name == name)
    };
    if !taken(name) {
        return Ok(name.to_owned());
    }
    let message = format!("another host is called \"{name}\"");
    Err(ControlError::conflict(message).with_code("host-name-taken"))
}

fn link_error(error: HostLinkError) -> ControlError {
    let kind = match error {
        HostLinkError::Foreign => ErrorKind::Usage,
        HostLinkError::Expired => ErrorKind::Expired,
        HostLinkError::Damaged => ErrorKind::Damaged,
        HostLinkError::Newer => ErrorKind::NewerVersion,
    };
    ControlError::new(kind, error.to_string()).with_code("bad-host-invitation")
}

/// A join that did not come about, for a person.
fn join_error(error: JoinError) -> ControlError {
    let (kind, code) = match error {
        JoinError::NotInvited => (ErrorKind::NotFound, "host-invitation-unknown"),
        JoinError::Expired => (ErrorKind::Expired, "host-invitation-expired"),
        JoinError::Used => (ErrorKind::Expired, "host-invitation-used"),
        JoinError::NoCommonVersion => (ErrorKind::NewerVersion, "other-version"),
        JoinError::WrongHost | JoinError::Refused(BindError::Host | BindError::Device) => {
            (ErrorKind::Refused, "host-refused")
        }
        JoinError::Malformed | JoinError::Refused(BindError::Grants) => {
            (ErrorKind::Damaged, "host-broken")
        }
        JoinError::NotAdmitted => (ErrorKind::Conflict, "host-not-admitted"),
        JoinError::Busy | JoinError::Disconnected => (ErrorKind::Unavailable, "host-unavailable"),
    };
    ControlError::new(kind, error.to_string()).with_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_added_anew_keeps_the_name_that_a_person_gave_it() {
        let (one, other) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let setting = |name: &str, in_use| Setting {
            name: name.into(),
            in_use,
            ..Setting::default()
        };
        let attic = || "attic".to_owned();
        assert_eq!(kept_name(one, &[]), None);
        assert_eq!(
            kept_name(one, &[(one, setting("attic", true))]),
            Some(attic())
        );
        let mut hosts = [
            (one, setting("attic", false)),
            (other, setting("cellar", true)),
        ];
        assert_eq!(kept_name(one, &hosts), Some(attic()));
        hosts[1].1.name = attic();
        assert_eq!(kept_name(one, &hosts), None);
    }

    #[test]
    fn a_name_is_one_line_and_no_other_hosts() {
        let (one, other) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let setting = |in_use| Setting {
            name: "attic".into(),
            in_use,
            ..Setting::default()
        };
        let hosts = [(one, setting(true))];
        assert_eq!(free_name(" attic ", one, &hosts).unwrap(), "attic");
        assert!(free_name("attic", other, &hosts).is_err());
        assert!(free_name("attic", other, &[(one, setting(false))]).is_ok());
        for bad in ["", " ", "a\nb", &"x".repeat(HOST_NAME_MAX_LEN + 1)] {
            assert!(free_name(bad, other, &[]).is_err(), "{bad:?}");
        }
    }
}
