//! The joining side of pairing.

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::PairingError;
use super::code::ShortCode;
use super::link::Invitation;
use super::proof::{Keys, Spake, Transcript, same};
use super::wire::{
    MAX_TO_INVITER, MAX_WELCOME, Method, NewDevice, ToInviter, ToJoiner, Welcome, refused,
};
use crate::codec;
use crate::identity::{DeviceId, VaultId};
use crate::version;

/// Devices with which one typed code may be tried: each one that says "here" and is an impostor gets
/// one guess at the code.
pub const MAX_CODE_CANDIDATES: usize = 4;

/// What the joiner's shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinerStep {
    /// Send these bytes as one message.
    Send(Vec<u8>),
    /// Both have proved the secret: now the person at the other device is asked.
    AwaitPerson,
    /// Admitted. The shell verifies the grants, stores, and then belongs to the vault.
    Done(Box<Welcome>),
    /// It came to nothing. Close the stream.
    Failed(PairingError),
}

/// The joining side of one attempt with one device.
pub struct Joiner {
    me: DeviceId,
    inviter: DeviceId,
    secret: Secret,
    request: Vec<u8>,
    /// Whether the peer said that it shows the code.
    here: bool,
    state: State,
}

enum Secret {
    Link(Box<Invitation>),
    Code(ShortCode),
}

enum State {
    /// Asked for the nameplate.
    Looking,
    /// Sent `Start`.
    Starting {
        start: Vec<u8>,
        spake: Option<Box<Spake>>,
    },
    /// Sent the proof.
    Proving(Keys),
    /// Sent the request.
    Requested(Keys),
    Over,
}

impl Joiner {
    /// Pairs by link or QR code with `peer`, the device at the other end of the stream. `me` is this
    /// device. Gives the machine and what to do first.
    pub fn by_link(
        me: DeviceId,
        peer: DeviceId,
        invitation: Invitation,
        device: &NewDevice,
        rng: &mut impl CryptoRng,
    ) -> (Self, Vec<JoinerStep>) {
        let wrong = peer != invitation.inviter;
        let secret = Secret::Link(Box::new(invitation));
        let mut joiner = Self::new(me, peer, secret, device);
        let steps = if wrong {
            joiner.fail(PairingError::WrongDevice)
        } else {
            joiner.start(rng)
        };
        (joiner, steps)
    }

    /// Pairs by typed code with `peer`, if that shows the code. `PairingError::NotHere` says that it
    /// does not: the shell goes on to the next device, up to [`MAX_CODE_CANDIDATES`] that did say
    /// "here" and failed otherwise.
    pub fn by_code(
        me: DeviceId,
        peer: DeviceId,
        code: ShortCode,
        device: &NewDevice,
    ) -> (Self, Vec<JoinerStep>) {
        let look = ToInviter::LookFor {
            nameplate: code.nameplate(),
        };
        let joiner = Self::new(me, peer, Secret::Code(code), device);
        (joiner, vec![JoinerStep::Send(look.encode())])
    }

    fn new(me: DeviceId, inviter: DeviceId, secret: Secret, device: &NewDevice) -> Self {
        Self {
            me,
            inviter,
            secret,
            request: codec::encode(device),
            here: false,
            state: State::Looking,
        }
    }

    /// Most bytes of the next message that is worth reading.
    pub fn message_limit(&self) -> usize {
        match self.state {
            State::Requested(_) => MAX_WELCOME,
            _ => MAX_TO_INVITER,
        }
    }

    /// Whether the peer said that it shows the typed code, so that this attempt counts as one of
    /// [`MAX_CODE_CANDIDATES`], also after it has failed.
    pub fn was_here(&self) -> bool {
        self.here
    }

    /// The inviter sent a message.
    pub fn on_message(&mut self, bytes: &[u8], rng: &mut impl CryptoRng) -> Vec<JoinerStep> {
        if matches!(self.state, State::Over) {
            return Vec::new();
        }
        let Ok(message) = ToJoiner::decode(bytes, self.message_limit()) else {
            return self.fail(PairingError::Malformed);
        };
        match (std::mem::replace(&mut self.state, State::Over), message) {
            (_, ToJoiner::Refused { reason }) => self.fail(refused(reason)),
            (State::Looking, ToJoiner::Here { yes: true }) => {
                self.here = true;
                self.start(rng)
            }
            (State::Looking, ToJoiner::Here { yes: false }) => self.fail(PairingError::NotHere),
            (
                State::Starting { start, spake },
                ToJoiner::Challenge {
                    version,
                    spake: theirs,
                    ..
                },
            ) => self.challenged(bytes, version, &start, spake, &theirs),
            (State::Proving(keys), ToJoiner::Proof { mac }) => {
                if !same(&mac, &keys.inviter_proof()) {
                    return self.fail(PairingError::WrongInviter);
                }
                let request = ToInviter::Request {
                    device: self.request.clone(),
                    mac: keys.request_mac(&self.request),
                };
                self.state = State::Requested(keys);
                vec![JoinerStep::Send(request.encode()), JoinerStep::AwaitPerson]
            }
            (State::Requested(keys), ToJoiner::Welcome { welcome, mac }) => {
                if !same(&mac, &keys.welcome_mac(&self.request, &welcome)) {
                    return self.fail(PairingError::Malformed);
                }
                self.welcomed(&welcome)
            }
            _ => self.fail(PairingError::OutOfTurn),
        }
    }

    /// The stream ended.
    pub fn disconnected(&mut self) -> Vec<JoinerStep> {
        match self.state {
            State::Over => Vec::new(),
            _ => self.fail(PairingError::Disconnected),
        }
    }

    fn start(&mut self, rng: &mut impl CryptoRng) -> Vec<JoinerStep> {
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let (method, spake) = match &self.secret {
            Secret::Link(_) => (Method::Link, None),
            Secret::Code(code) => {
                let (spake, message) = Spake::joiner(code, self.me, self.inviter, rng);
                (Method::Code(message), Some(Box::new(spake)))
            }
        };
        let start = ToInviter::Start {
            versions: vec![version::PAIRING],
            nonce,
            method,
        }
        .encode();
        self.state = State::Starting {
            start: start.clone(),
            spake,
        };
        vec![JoinerStep::Send(start)]
    }

    fn challenged(
        &mut self,
        challenge: &[u8],
        version: u16,
        start: &[u8],
        spake: Option<Box<Spake>>,
        theirs: &[u8],
    ) -> Vec<JoinerStep> {
        if version != version::PAIRING {
            return self.fail(PairingError::NoCommonVersion);
        }
        let secret = match (&self.secret, spake) {
            (Secret::Link(invitation), _) if theirs.is_empty() => {
                Some(Zeroizing::new(invitation.secret))
            }
            (Secret::Code(_), Some(spake)) => spake.finish(theirs),
            _ => None,
        };
        let Some(secret) = secret else {
            return self.fail(PairingError::Malformed);
        };
        let keys = Keys::new(
            &secret,
            &Transcript {
                version,
                joiner: self.me,
                inviter: self.inviter,
                invitation: self.invitation(),
                start,
                challenge,
            },
        );
        let proof = ToInviter::Proof {
            mac: keys.joiner_proof(),
        };
        self.state = State::Proving(keys);
        vec![JoinerStep::Send(proof.encode())]
    }

    fn invitation(&self) -> Option<(VaultId, u64)> {
        match &self.secret {
            Secret::Link(invitation) => Some((invitation.vault, invitation.expires_ms)),
            Secret::Code(_) => None,
        }
    }

    fn welcomed(&mut self, welcome: &[u8]) -> Vec<JoinerStep> {
        let Ok(welcome) = Welcome::decode(welcome) else {
            return self.fail(PairingError::Malformed);
        };
        if self
            .invitation()
            .is_some_and(|(vault, _)| vault != welcome.vault)
        {
            return self.fail(PairingError::OtherVault);
        }
        vec![JoinerStep::Done(Box::new(welcome))]
    }

    fn fail(&mut self, why: PairingError) -> Vec<JoinerStep> {
        self.state = State::Over;
        vec![JoinerStep::Failed(why)]
    }
}
