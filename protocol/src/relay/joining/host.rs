//! The host's side of joining.

use super::super::invitation::{HostInvitation, host_name};
use super::{
    BindError, Host, JoinError, MAX_BIND, MAX_JOIN_MESSAGE, ToDevice, ToHost, check_binding, reason,
};
use crate::codec;
use crate::grants::Membership;
use crate::identity::{DeviceId, Hash, VaultId};
use crate::version;

/// What the host's shell has to do.
#[derive(Debug)]
pub enum HostStep {
    /// Send these bytes as one message.
    Send(Vec<u8>),
    /// Look how things stand between the vault and the invitation, then call [`HostSide::stands`].
    LookUp {
        /// The vault that asks.
        vault: VaultId,
        /// [`HostInvitation::id`] of the invitation that it shows; none if it shows none.
        invitation: Option<Hash>,
    },
    /// Merge these grants with those of the vault that are stored, if any, ask [`check_binding`] about the
    /// outcome, and store it, using the invitation up for this vault, in one transaction. Then call
    /// [`HostSide::stored`].
    Store {
        /// The vault.
        vault: VaultId,
        /// The invitation to use up; none for a vault that is bound.
        invitation: Option<Hash>,
        /// All grants, verified from the vault's id.
        membership: Box<Membership>,
    },
    /// The device may use the host from now on.
    Bound,
    /// It came to nothing. Close the stream.
    Failed(JoinError),
}

/// How things stand between a vault and an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The invitation is good for this vault, or the vault is bound already.
    Welcome(Box<Host>),
    /// It is not, and why: `NotInvited`, `Expired`, `Used` or `Busy`.
    No(JoinError),
}

/// The host's side of one device's attempt to join.
pub struct HostSide {
    me: DeviceId,
    device: DeviceId,
    state: HostSideState,
}

enum HostSideState {
    Waiting,
    Looking(VaultId, Option<Hash>),
    Welcomed(VaultId, Option<Hash>),
    Storing,
    Over,
}

impl HostSide {
    /// `device` opened a stream to `me`, this host.
    pub fn new(me: DeviceId, device: DeviceId) -> Self {
        Self {
            me,
            device,
            state: HostSideState::Waiting,
        }
    }

    /// Most bytes of the next message that is worth reading.
    pub fn message_limit(&self) -> usize {
        match self.state {
            HostSideState::Welcomed(..) => MAX_BIND,
            _ => MAX_JOIN_MESSAGE,
        }
    }

    /// The device sent a message.
    pub fn on_message(&mut self, bytes: &[u8]) -> Vec<HostStep> {
        let message = codec::decode::<ToHost>(bytes, self.message_limit());
        match (
            std::mem::replace(&mut self.state, HostSideState::Over),
            message,
        ) {
            (HostSideState::Over, _) => Vec::new(),
            (
                HostSideState::Waiting,
                Ok(ToHost::Join {
                    versions,
                    vault,
                    secret,
                }),
            ) => {
                if !versions.contains(&version::HOST_JOIN) {
                    return self.refuse(JoinError::NoCommonVersion);
                }
                let invitation = secret.map(|secret| HostInvitation::id_of(&secret));
                self.state = HostSideState::Looking(vault, invitation);
                vec![HostStep::LookUp { vault, invitation }]
            }
            (HostSideState::Welcomed(vault, invitation), Ok(ToHost::Bind { grants })) => {
                let membership = match Membership::from_bytes(vault, grants) {
                    Ok(membership) => membership,
                    Err(_) => return self.refuse(BindError::Grants.into()),
                };
                if let Err(why) =
                    check_binding(&membership, &self.device, &self.me, invitation.is_none())
                {
                    return self.refuse(why.into());
                }
                self.state = HostSideState::Storing;
                vec![HostStep::Store {
                    vault,
                    invitation,
                    membership: Box::new(membership),
                }]
            }
            _ => self.refuse(JoinError::Malformed),
        }
    }

    /// The answer to [`HostStep::LookUp`].
    pub fn stands(&mut self, standing: Standing) -> Vec<HostStep> {
        match std::mem::replace(&mut self.state, HostSideState::Over) {
            HostSideState::Looking(vault, invitation) => match standing {
                Standing::Welcome(host) => {
                    let message = ToDevice::Welcome {
                        version: version::HOST_JOIN,
                        sealing: host.sealing,
                        name: host_name(&host.name),
                        quota_bytes: host.quota_bytes,
                        store: host.store,
                    };
                    self.state = HostSideState::Welcomed(vault, invitation);
                    vec![HostStep::Send(codec::encode(&message))]
                }
                Standing::No(why) => self.refuse(why),
            },
            other => {
                self.state = other;
                Vec::new()
            }
        }
    }

    /// The answer to [`HostStep::Store`].
    pub fn stored(&mut self, outcome: Result<(), JoinError>) -> Vec<HostStep> {
        match (
            std::mem::replace(&mut self.state, HostSideState::Over),
            outcome,
        ) {
            (HostSideState::Storing, Ok(())) => vec![
                HostStep::Send(codec::encode(&ToDevice::Bound)),
                HostStep::Bound,
            ],
            (HostSideState::Storing, Err(why)) => self.refuse(why),
            (other, _) => {
                self.state = other;
                Vec::new()
            }
        }
    }

    /// The stream ended, or the device took longer than [`JOIN_TIMEOUT_MS`](crate::relay::JOIN_TIMEOUT_MS).
    pub fn disconnected(&mut self) -> Vec<HostStep> {
        match std::mem::replace(&mut self.state, HostSideState::Over) {
            HostSideState::Over => Vec::new(),
            _ => vec![HostStep::Failed(JoinError::Disconnected)],
        }
    }

    fn refuse(&mut self, why: JoinError) -> Vec<HostStep> {
        self.state = HostSideState::Over;
        let message = ToDevice::Refused {
            reason: reason(why),
        };
        vec![
            HostStep::Send(codec::encode(&message)),
            HostStep::Failed(why),
        ]
    }
}
