//! The inviting side of pairing.

use std::collections::BTreeMap;

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::PairingError;
use super::code::ShortCode;
use super::link::Invitation;
use super::proof::{Keys, Spake, Transcript, same};
use super::wire::{Method, NewDevice, ToInviter, ToJoiner, Welcome, refusal};
use crate::codec;
use crate::identity::DeviceId;
use crate::keys::SealingPublic;
use crate::version;

/// Devices that may be between their start and their proof at once. When more come, the oldest is
/// forgotten: strangers can slow a pairing down, not make the node grow.
pub const MAX_SESSIONS: usize = 16;
/// Times that one device may ask for a nameplate: a person's typing errors are caught before.
pub const MAX_LOOKS: u8 = 8;
/// Devices of which questions for a nameplate are counted; later ones are told no.
const MAX_LOOKERS: usize = 256;
/// Time from the start to the proof, in milliseconds: two round trips, and no person in between.
const PROOF_TIMEOUT_MS: u64 = 60_000;
/// Time for the person at the inviter to answer, in milliseconds.
pub const PERSON_TIMEOUT_MS: u64 = 10 * 60_000;

/// What the inviter's shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InviterStep {
    /// Send these bytes as one message.
    Send {
        /// To whom.
        to: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Ask the person whether this device may join; then call [`Inviter::confirm`].
    AskPerson {
        /// The device, which has proved the secret.
        device: DeviceId,
        /// What its person calls it: one line, safe to print.
        name: String,
        /// Its program and version; safe to print.
        program: String,
    },
    /// Make the grant that admits this device, or find the one made before; then call
    /// [`Inviter::granted`].
    NeedGrant {
        /// The device.
        device: DeviceId,
        /// The key to which secrets are sealed for it.
        sealing: SealingPublic,
        /// Its name, for the grant.
        name: String,
    },
    /// The welcome is under way; flush it, then the stream may close. The invitation is used.
    Done {
        /// The device that was admitted.
        device: DeviceId,
    },
    /// The attempt of this device is over; close its stream.
    Failed {
        /// Which device.
        device: DeviceId,
        /// Why.
        why: PairingError,
        /// Whether the typed code became void by it: the person needs another.
        code_void: bool,
    },
}

/// The inviting side: an invitation by link, by typed code, or both, for one device.
///
/// Many devices may try at once; the first that proves the secret is the chosen one, and for all
/// others the invitation is used. The chosen one may come again (a connection may break) until the
/// invitation expires. The shell keeps one stream for each device and says when it has ended
/// ([`disconnected`](Self::disconnected)) before it hands in messages of the next.
pub struct Inviter {
    me: DeviceId,
    link: Option<Invitation>,
    code: Option<OpenCode>,
    codes_offered: u32,
    sessions: BTreeMap<DeviceId, Session>,
    looks: BTreeMap<DeviceId, u8>,
    chosen: Option<DeviceId>,
    /// What the person said yes to, encoded.
    accepted: Option<Vec<u8>>,
}

struct OpenCode {
    /// Tells a code from those that were offered before.
    serial: u32,
    code: ShortCode,
    expires_ms: u64,
}

struct Session {
    since_ms: u64,
    state: State,
}

enum State {
    Challenged { by: Means, keys: Keys },
    Proven(Keys),
    Asked { keys: Keys, request: Vec<u8> },
    Granting { keys: Keys, request: Vec<u8> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Means {
    Link,
    /// By the typed code of this serial number.
    Code(u32),
}

impl Inviter {
    /// Invites by `link`; `me` is this device.
    pub fn new(me: DeviceId, link: Option<Invitation>) -> Self {
        Self {
            me,
            link,
            code: None,
            codes_offered: 0,
            sessions: BTreeMap::new(),
            looks: BTreeMap::new(),
            chosen: None,
            accepted: None,
        }
    }

    /// Invites by a typed code too, until `expires_ms` (usually
    /// [`CODE_LIFETIME_MS`](super::CODE_LIFETIME_MS) from now). An earlier code is void.
    pub fn offer_code(&mut self, code: ShortCode, expires_ms: u64) {
        self.looks.clear();
        self.codes_offered = self.codes_offered.wrapping_add(1);
        self.code = Some(OpenCode {
            serial: self.codes_offered,
            code,
            expires_ms,
        });
    }

    /// Whether a device that is not known yet could still pair.
    pub fn is_open(&self, now_ms: u64) -> bool {
        let link = self.link.as_ref().is_some_and(|l| !l.is_expired(now_ms));
        self.chosen.is_none() && (link || self.code_is_open(now_ms))
    }

    /// Whether time has run out with no device chosen: nobody can pair any more.
    pub fn has_ended(&self, now_ms: u64) -> bool {
        self.chosen.is_none() && !self.is_open(now_ms)
    }

    /// Whether the typed code can still be used.
    pub fn code_is_open(&self, now_ms: u64) -> bool {
        self.code
            .as_ref()
            .is_some_and(|code| now_ms < code.expires_ms)
    }

    /// `peer` sent a message of at most [`MAX_TO_INVITER`](super::MAX_TO_INVITER) bytes.
    pub fn on_message(
        &mut self,
        peer: DeviceId,
        bytes: &[u8],
        now_ms: u64,
        rng: &mut impl CryptoRng,
    ) -> Vec<InviterStep> {
        let Ok(message) = ToInviter::decode(bytes) else {
            return self.refuse(peer, PairingError::Malformed);
        };
        match message {
            ToInviter::LookFor { nameplate } => self.looked_for(peer, nameplate, now_ms),
            ToInviter::Start {
                versions,
                nonce: _,
                method,
            } => {
                if !versions.contains(&version::PAIRING) {
                    return self.refuse(peer, PairingError::NoCommonVersion);
                }
                self.started(peer, bytes, &method, now_ms, rng)
            }
            ToInviter::Proof { mac } => match self.sessions.remove(&peer) {
                Some(Session {
                    since_ms,
                    state: State::Challenged { by, keys },
                }) => self.proved(peer, &mac, by, keys, since_ms, now_ms),
                _ => self.refuse(peer, PairingError::OutOfTurn),
            },
            ToInviter::Request { device, mac } => match self.sessions.remove(&peer) {
                Some(Session {
                    state: State::Proven(keys),
                    ..
                }) => self.requested(peer, device, &mac, keys, now_ms),
                _ => self.refuse(peer, PairingError::OutOfTurn),
            },
        }
    }

    /// The person answered the question about the chosen device. Nothing comes out if that device is
    /// gone; it may come again and is then not asked about again, if the answer was yes.
    pub fn confirm(&mut self, yes: bool, now_ms: u64) -> Vec<InviterStep> {
        let Some((device, since_ms, keys, request)) = self.take_asked() else {
            return Vec::new();
        };
        if !yes {
            // The secret is in hands that the person does not want it in.
            self.link = None;
            self.code = None;
            return self.refuse(device, PairingError::Declined);
        }
        if now_ms >= since_ms.saturating_add(PERSON_TIMEOUT_MS) {
            return self.refuse(device, PairingError::Expired);
        }
        self.accepted = Some(request.clone());
        self.need_grant(device, keys, request, now_ms)
    }

    /// The grant is durable: `welcome` carries it and all others.
    pub fn granted(&mut self, welcome: &Welcome) -> Vec<InviterStep> {
        let Some((device, keys, request)) = self.take_granting() else {
            return Vec::new();
        };
        let Some(welcome) = welcome.encode() else {
            return self.refuse(device, PairingError::TooLarge);
        };
        let message = ToJoiner::Welcome {
            mac: keys.welcome_mac(&request, &welcome),
            welcome,
        };
        vec![
            InviterStep::Send {
                to: device,
                bytes: message.encode(),
            },
            InviterStep::Done { device },
        ]
    }

    /// Takes the invitation back, or says that the grant could not be made: everyone is refused.
    pub fn withdraw(&mut self) -> Vec<InviterStep> {
        self.link = None;
        self.code = None;
        self.accepted = None;
        let devices: Vec<DeviceId> = self.sessions.keys().copied().collect();
        devices
            .into_iter()
            .flat_map(|device| self.refuse(device, PairingError::Withdrawn))
            .collect()
    }

    /// The stream to `peer` ended.
    pub fn disconnected(&mut self, peer: DeviceId) -> Vec<InviterStep> {
        match self.sessions.remove(&peer) {
            Some(_) => vec![failed(peer, PairingError::Disconnected)],
            None => Vec::new(),
        }
    }

    fn looked_for(&mut self, peer: DeviceId, nameplate: u8, now_ms: u64) -> Vec<InviterStep> {
        if self.looks.len() >= MAX_LOOKERS && !self.looks.contains_key(&peer) {
            return vec![send(peer, &ToJoiner::Here { yes: false })];
        }
        let looks = self.looks.entry(peer).or_default();
        *looks = looks.saturating_add(1);
        let yes = *looks <= MAX_LOOKS
            && self.chosen.is_none_or(|chosen| chosen == peer)
            && self.code_is_open(now_ms)
            && self
                .code
                .as_ref()
                .is_some_and(|open| open.code.nameplate() == nameplate);
        vec![send(peer, &ToJoiner::Here { yes })]
    }

    fn started(
        &mut self,
        peer: DeviceId,
        start: &[u8],
        method: &Method,
        now_ms: u64,
        rng: &mut impl CryptoRng,
    ) -> Vec<InviterStep> {
        // A device that the person is being asked about does not change its name meanwhile.
        if self
            .sessions
            .get(&peer)
            .is_some_and(|session| !matches!(session.state, State::Challenged { .. }))
        {
            return self.refuse(peer, PairingError::OutOfTurn);
        }
        let mut nonce = [0; 32];
        rng.fill_bytes(&mut nonce);
        let challenge = |spake: Vec<u8>| {
            ToJoiner::Challenge {
                version: version::PAIRING,
                nonce,
                spake,
            }
            .encode()
        };
        let (by, secret, invitation, challenge) = match method {
            Method::Link => {
                let Some(link) = &self.link else {
                    return self.refuse(peer, PairingError::NotInviting);
                };
                let secret = Zeroizing::new(link.secret);
                let invitation = Some((link.vault, link.expires_ms));
                (Means::Link, secret, invitation, challenge(Vec::new()))
            }
            Method::Code(theirs) => {
                let open = self.code_is_open(now_ms);
                let Some(code) = self.code.as_ref().filter(|_| open) else {
                    return self.refuse(peer, PairingError::NotInviting);
                };
                let (spake, ours) = Spake::inviter(&code.code, peer, self.me, rng);
                let Some(secret) = spake.finish(theirs) else {
                    return self.refuse(peer, PairingError::Malformed);
                };
                (Means::Code(code.serial), secret, None, challenge(ours))
            }
        };
        let keys = Keys::new(
            &secret,
            &Transcript {
                version: version::PAIRING,
                joiner: peer,
                inviter: self.me,
                invitation,
                start,
                challenge: &challenge,
            },
        );
        let session = Session {
            since_ms: now_ms,
            state: State::Challenged { by, keys },
        };
        let forgotten = self.make_room(peer);
        self.sessions.insert(peer, session);
        forgotten
            .into_iter()
            .chain([InviterStep::Send {
                to: peer,
                bytes: challenge,
            }])
            .collect()
    }

    fn proved(
        &mut self,
        peer: DeviceId,
        mac: &[u8; 32],
        by: Means,
        keys: Keys,
        since_ms: u64,
        now_ms: u64,
    ) -> Vec<InviterStep> {
        // Another guess may have made the code void since this device started.
        if matches!(by, Means::Code(serial) if !self.shows_code(serial)) {
            return self.refuse(peer, PairingError::NotInviting);
        }
        if !same(mac, &keys.joiner_proof()) {
            return self.refuse_guess(peer, by);
        }
        // From here on the peer is someone who was given the secret.
        let open = match by {
            Means::Link => self.link.as_ref().is_some_and(|l| !l.is_expired(now_ms)),
            Means::Code(_) => self.code_is_open(now_ms),
        };
        if !open || now_ms >= since_ms.saturating_add(PROOF_TIMEOUT_MS) {
            return self.refuse(peer, PairingError::Expired);
        }
        if self.chosen.is_some_and(|chosen| chosen != peer) {
            return self.refuse(peer, PairingError::Used);
        }
        self.chosen = Some(peer);
        let mac = keys.inviter_proof();
        self.sessions.insert(
            peer,
            Session {
                since_ms: now_ms,
                state: State::Proven(keys),
            },
        );
        vec![send(peer, &ToJoiner::Proof { mac })]
    }

    fn requested(
        &mut self,
        peer: DeviceId,
        request: Vec<u8>,
        mac: &[u8; 32],
        keys: Keys,
        now_ms: u64,
    ) -> Vec<InviterStep> {
        if !same(mac, &keys.request_mac(&request)) {
            return self.refuse(peer, PairingError::Malformed);
        }
        let device: NewDevice = match codec::decode(&request, request.len()) {
            Ok(device) if NewDevice::is_showable(&device) => device,
            _ => return self.refuse(peer, PairingError::Malformed),
        };
        if self.accepted.as_ref() == Some(&request) {
            return self.need_grant(peer, keys, request, now_ms);
        }
        self.sessions.insert(
            peer,
            Session {
                since_ms: now_ms,
                state: State::Asked { keys, request },
            },
        );
        vec![InviterStep::AskPerson {
            device: peer,
            name: device.name,
            program: device.program,
        }]
    }

    fn need_grant(
        &mut self,
        device: DeviceId,
        keys: Keys,
        request: Vec<u8>,
        now_ms: u64,
    ) -> Vec<InviterStep> {
        // It was decoded before the person was asked.
        let Ok(new) = codec::decode::<NewDevice>(&request, request.len()) else {
            return self.refuse(device, PairingError::Malformed);
        };
        self.sessions.insert(
            device,
            Session {
                since_ms: now_ms,
                state: State::Granting { keys, request },
            },
        );
        vec![InviterStep::NeedGrant {
            device,
            sealing: new.sealing,
            name: new.name,
        }]
    }

    fn take_asked(&mut self) -> Option<(DeviceId, u64, Keys, Vec<u8>)> {
        let device = self.chosen?;
        match self.sessions.remove(&device)? {
            Session {
                since_ms,
                state: State::Asked { keys, request },
            } => Some((device, since_ms, keys, request)),
            other => {
                self.sessions.insert(device, other);
                None
            }
        }
    }

    fn take_granting(&mut self) -> Option<(DeviceId, Keys, Vec<u8>)> {
        let device = self.chosen?;
        match self.sessions.remove(&device)? {
            Session {
                state: State::Granting { keys, request },
                ..
            } => Some((device, keys, request)),
            other => {
                self.sessions.insert(device, other);
                None
            }
        }
    }

    /// Forgets the oldest device that has proved nothing, if there are too many for one more.
    fn make_room(&mut self, newcomer: DeviceId) -> Option<InviterStep> {
        if self.sessions.len() < MAX_SESSIONS || self.sessions.contains_key(&newcomer) {
            return None;
        }
        let oldest = self
            .sessions
            .iter()
            .filter(|(_, session)| matches!(session.state, State::Challenged { .. }))
            .min_by_key(|(_, session)| session.since_ms)
            .map(|(device, _)| *device)?;
        self.sessions.remove(&oldest);
        Some(failed(oldest, PairingError::Expired))
    }

    fn shows_code(&self, serial: u32) -> bool {
        self.code.as_ref().is_some_and(|code| code.serial == serial)
    }

    /// A wrong proof: one guess is all that a typed code allows.
    fn refuse_guess(&mut self, peer: DeviceId, by: Means) -> Vec<InviterStep> {
        let code_void = matches!(by, Means::Code(_));
        if code_void {
            self.code = None;
        }
        self.refuse_with(peer, PairingError::WrongSecret, code_void)
    }

    /// Ends a device's attempt and tells it why.
    fn refuse(&mut self, peer: DeviceId, why: PairingError) -> Vec<InviterStep> {
        self.refuse_with(peer, why, false)
    }

    fn refuse_with(
        &mut self,
        device: DeviceId,
        why: PairingError,
        code_void: bool,
    ) -> Vec<InviterStep> {
        self.sessions.remove(&device);
        vec![
            InviterStep::Send {
                to: device,
                bytes: refusal(why),
            },
            InviterStep::Failed {
                device,
                why,
                code_void,
            },
        ]
    }
}

fn failed(device: DeviceId, why: PairingError) -> InviterStep {
    InviterStep::Failed {
        device,
        why,
        code_void: false,
    }
}

fn send(to: DeviceId, message: &ToJoiner) -> InviterStep {
    InviterStep::Send {
        to,
        bytes: message.encode(),
    }
}
