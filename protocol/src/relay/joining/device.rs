//! The device's side of joining.

use super::super::invitation::{HostInvitation, host_name};
use super::{Host, JoinError, MAX_BIND, ToDevice, ToHost, refused};
use crate::codec;
use crate::identity::{DeviceId, VaultId};
use crate::version;

/// What the device's shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceStep {
    /// Send these bytes as one message.
    Send(Vec<u8>),
    /// Admit the host by a grant, as [`Role::Relay`](crate::grants::Role::Relay), unless it is; then call [`DeviceSide::admitted`].
    Admit(Box<Host>),
    /// The host keeps the vault from now on.
    Bound(Box<Host>),
    /// It came to nothing. Close the stream.
    Failed(JoinError),
}

/// The device's side of joining one host.
pub struct DeviceSide {
    state: DeviceState,
}

enum DeviceState {
    Joining,
    Admitting(Box<Host>),
    Binding(Box<Host>),
    Over,
}

impl DeviceSide {
    /// Binds `vault` to the host of the invitation. `peer` is who is at the other end of the stream.
    pub fn by_invitation(
        vault: VaultId,
        peer: DeviceId,
        invitation: &HostInvitation,
    ) -> (Self, Vec<DeviceStep>) {
        if peer != invitation.host {
            let state = DeviceState::Over;
            return (
                Self { state },
                vec![DeviceStep::Failed(JoinError::WrongHost)],
            );
        }
        Self::join(vault, Some(invitation.secret))
    }

    /// Makes this device known to a host that keeps `vault` already.
    pub fn as_member(vault: VaultId) -> (Self, Vec<DeviceStep>) {
        Self::join(vault, None)
    }

    fn join(vault: VaultId, secret: Option<[u8; 32]>) -> (Self, Vec<DeviceStep>) {
        let message = ToHost::Join {
            versions: vec![version::HOST_JOIN],
            vault,
            secret,
        };
        let state = DeviceState::Joining;
        (
            Self { state },
            vec![DeviceStep::Send(codec::encode(&message))],
        )
    }

    /// The host sent a message.
    pub fn on_message(&mut self, bytes: &[u8]) -> Vec<DeviceStep> {
        let state = std::mem::replace(&mut self.state, DeviceState::Over);
        let message = ToDevice::decode(bytes);
        match (state, message) {
            (DeviceState::Over, _) => Vec::new(),
            (_, Ok(ToDevice::Refused { reason })) => self.fail(refused(reason)),
            (
                DeviceState::Joining,
                Ok(ToDevice::Welcome {
                    version,
                    sealing,
                    name,
                    quota_bytes,
                    store,
                }),
            ) => {
                if version != version::HOST_JOIN {
                    return self.fail(JoinError::NoCommonVersion);
                }
                if host_name(&name) != name {
                    return self.fail(JoinError::Malformed);
                }
                let host = Box::new(Host {
                    sealing,
                    name,
                    quota_bytes,
                    store,
                });
                self.state = DeviceState::Admitting(host.clone());
                vec![DeviceStep::Admit(host)]
            }
            (DeviceState::Binding(host), Ok(ToDevice::Bound)) => vec![DeviceStep::Bound(host)],
            _ => self.fail(JoinError::Malformed),
        }
    }

    /// The host's admission is durable: `grants` are all grants of the vault, that one among them. `None`
    /// says that it could not be admitted.
    pub fn admitted(&mut self, grants: Option<Vec<Vec<u8>>>) -> Vec<DeviceStep> {
        match std::mem::replace(&mut self.state, DeviceState::Over) {
            DeviceState::Admitting(host) => {
                let message = grants.map(|grants| codec::encode(&ToHost::Bind { grants }));
                let Some(message) = message.filter(|message| message.len() <= MAX_BIND) else {
                    return self.fail(JoinError::NotAdmitted);
                };
                self.state = DeviceState::Binding(host);
                vec![DeviceStep::Send(message)]
            }
            other => {
                self.state = other;
                Vec::new()
            }
        }
    }

    /// The stream ended.
    pub fn disconnected(&mut self) -> Vec<DeviceStep> {
        match self.state {
            DeviceState::Over => Vec::new(),
            _ => self.fail(JoinError::Disconnected),
        }
    }

    fn fail(&mut self, why: JoinError) -> Vec<DeviceStep> {
        self.state = DeviceState::Over;
        vec![DeviceStep::Failed(why)]
    }
}
