//! Getting a vault's grants back with the recovery key: `/coffer/recover/1`.
//!
//! Whoever has the words has no device in the vault yet. They ask one that is, or a host, prove that they have the
//! recovery key of today, and get all grants. With these and the key a new device admits itself, and sends the grants
//! back with its own among them. libp2p has authenticated both ends before; the proof names both, so that it is of no use
//! to anybody else.
//!
//! ```text
//! who has the words                        who keeps the vault
//!   Ask{versions, vault}          ───────►
//!                                 ◄───────  Challenge{version, nonce}
//!   Proof{signed}                 ───────►        of the recovery key that counts
//!                                 ◄───────  Grants{all}
//!   Bind{all, and the new}        ───────►        checked from the vault's id alone; stored
//!                                 ◄───────  Bound
//! ```
//!
//! A stranger learns only that it is refused, and not before it has signed: whether the vault is kept here shows in
//! nothing.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use super::RecoveryKey;
use crate::byte_strings::ByteStrings;
use crate::codec::{self, Bytes, List};
use crate::grants::{GRANT_MAX_LEN, MAX_GRANTS};
use crate::identity::{DeviceId, VaultId};
use crate::signed::{SIGNATURE_LEN, Signable, Verified};
use crate::{domain, version};

/// Most bytes of a message other than those with grants: what a stranger can make either side hold.
pub const MAX_RECOVER_MESSAGE: usize = 1024;
/// Most bytes of a message with grants. It is read only after the proof.
pub const MAX_RECOVER_GRANTS: usize = 16 << 20;
/// How long either side waits for the next message, in milliseconds.
pub const RECOVER_TIMEOUT_MS: u64 = 30_000;

const MAX_VERSIONS: usize = 16;
const PROOF_MAX_LEN: usize = 256 + SIGNATURE_LEN;

/// Why nothing was got back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// The other side sent what no message of this conversation is, or out of turn.
    #[error("the other side sent something that is not part of this conversation")]
    Malformed,
    /// The programs speak no version in common.
    #[error("the other side runs a version of coffer that does this differently")]
    NoCommonVersion,
    /// It does not keep the vault, or these are not its words.
    #[error("it does not keep this vault, or these are not the vault's words of today")]
    NotYours,
    /// The grants that were sent back cannot be taken.
    #[error("it did not take this device in")]
    NotTaken,
    /// Too much at once, or a disk fails. Later.
    #[error("it cannot do this now")]
    Busy,
    /// The connection ended in between.
    #[error("the connection ended")]
    Disconnected,
}

/// What the recovery key signs: that its holder talks to this keeper from this device, now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    version: u16,
    vault: VaultId,
    keeper: DeviceId,
    asker: DeviceId,
    nonce: [u8; 32],
    recovery: DeviceId,
}

impl Signable for Proof {
    const CONTEXT: &'static str = domain::RECOVERY_PROOF_SIGNATURE;
    const VERSION: u16 = version::RECOVER;
    const MAX_LEN: usize = PROOF_MAX_LEN;

    fn signer(&self) -> DeviceId {
        self.recovery
    }
}

#[derive(Serialize, Deserialize)]
enum ToKeeper {
    Ask {
        #[serde(with = "List::<MAX_VERSIONS>")]
        versions: Vec<u16>,
        vault: VaultId,
    },
    Proof {
        #[serde(with = "Bytes::<PROOF_MAX_LEN>")]
        proof: Vec<u8>,
    },
    Bind {
        #[serde(with = "ByteStrings::<MAX_GRANTS, GRANT_MAX_LEN>")]
        grants: Vec<Vec<u8>>,
    },
}

#[derive(Serialize, Deserialize)]
enum ToAsker {
    Challenge {
        version: u16,
        nonce: [u8; 32],
    },
    Grants {
        #[serde(with = "ByteStrings::<MAX_GRANTS, GRANT_MAX_LEN>")]
        grants: Vec<Vec<u8>>,
    },
    Bound,
    Refused {
        reason: u16,
    },
}

fn reason(why: RecoverError) -> u16 {
    match why {
        RecoverError::NotYours => 1,
        RecoverError::NoCommonVersion => 2,
        RecoverError::NotTaken => 3,
        RecoverError::Malformed => 4,
        RecoverError::Busy | RecoverError::Disconnected => 5,
    }
}

fn refused(reason: u16) -> RecoverError {
    match reason {
        1 => RecoverError::NotYours,
        2 => RecoverError::NoCommonVersion,
        3 => RecoverError::NotTaken,
        4 => RecoverError::Malformed,
        _ => RecoverError::Busy,
    }
}

/// What the shell of who keeps the vault has to do.
#[derive(Debug)]
pub enum KeeperStep {
    /// Send these bytes as one message.
    Send(Vec<u8>),
    /// Look whether the vault is kept here and this is its recovery key, then call [`Keeper::found`].
    LookUp {
        /// The vault.
        vault: VaultId,
        /// The signing half of the key that gave the proof.
        recovery: DeviceId,
    },
    /// Take in these grants, then call [`Keeper::stored`] with whether the asking device is in the vault now.
    Store {
        /// The vault.
        vault: VaultId,
        /// All of its grants, and those of the new device.
        grants: Vec<Vec<u8>>,
    },
    /// It is over. Close the stream once all is sent.
    Over,
}

/// The side of who keeps the vault.
pub struct Keeper {
    me: DeviceId,
    asker: DeviceId,
    state: KeeperState,
}

enum KeeperState {
    Waiting,
    Challenged(VaultId, [u8; 32]),
    Looking(VaultId),
    Served(VaultId),
    Storing,
    Over,
}

impl Keeper {
    /// `asker` opened a stream to `me`.
    pub fn new(me: DeviceId, asker: DeviceId) -> Self {
        Self {
            me,
            asker,
            state: KeeperState::Waiting,
        }
    }

    /// Most bytes of the next message that is worth reading.
    pub fn message_limit(&self) -> usize {
        match self.state {
            KeeperState::Served(_) => MAX_RECOVER_GRANTS,
            _ => MAX_RECOVER_MESSAGE,
        }
    }

    /// The other side sent a message.
    pub fn on_message(
        &mut self,
        bytes: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Vec<KeeperStep> {
        let message = codec::decode::<ToKeeper>(bytes, self.message_limit());
        let state = std::mem::replace(&mut self.state, KeeperState::Over);
        match (state, message) {
            (KeeperState::Over, _) => Vec::new(),
            (KeeperState::Waiting, Ok(ToKeeper::Ask { versions, vault })) => {
                if !versions.contains(&version::RECOVER) {
                    return self.refuse(RecoverError::NoCommonVersion);
                }
                let mut nonce = [0; 32];
                rng.fill_bytes(&mut nonce);
                self.state = KeeperState::Challenged(vault, nonce);
                let message = ToAsker::Challenge {
                    version: version::RECOVER,
                    nonce,
                };
                vec![KeeperStep::Send(codec::encode(&message))]
            }
            (KeeperState::Challenged(vault, nonce), Ok(ToKeeper::Proof { proof })) => {
                let Ok(proof) = Verified::<Proof>::decode(&proof) else {
                    return self.refuse(RecoverError::NotYours);
                };
                let proof = proof.value();
                let said = (proof.vault, proof.keeper, proof.asker, proof.nonce);
                if said != (vault, self.me, self.asker, nonce) {
                    return self.refuse(RecoverError::NotYours);
                }
                self.state = KeeperState::Looking(vault);
                vec![KeeperStep::LookUp {
                    vault,
                    recovery: proof.recovery,
                }]
            }
            (KeeperState::Served(vault), Ok(ToKeeper::Bind { grants })) => {
                self.state = KeeperState::Storing;
                vec![KeeperStep::Store { vault, grants }]
            }
            _ => self.refuse(RecoverError::Malformed),
        }
    }

    /// The answer to [`KeeperStep::LookUp`]: all grants; or why there are none, and of that nobody is told more than
    /// [`RecoverError::NotYours`] or [`RecoverError::Busy`].
    pub fn found(&mut self, grants: Result<Vec<Vec<u8>>, RecoverError>) -> Vec<KeeperStep> {
        match (
            std::mem::replace(&mut self.state, KeeperState::Over),
            grants,
        ) {
            (KeeperState::Looking(vault), Ok(grants)) => {
                self.state = KeeperState::Served(vault);
                vec![KeeperStep::Send(codec::encode(&ToAsker::Grants { grants }))]
            }
            (KeeperState::Looking(_), Err(RecoverError::Busy)) => self.refuse(RecoverError::Busy),
            (KeeperState::Looking(_), Err(_)) => self.refuse(RecoverError::NotYours),
            (other, _) => {
                self.state = other;
                Vec::new()
            }
        }
    }

    /// The answer to [`KeeperStep::Store`].
    pub fn stored(&mut self, outcome: Result<(), RecoverError>) -> Vec<KeeperStep> {
        match (
            std::mem::replace(&mut self.state, KeeperState::Over),
            outcome,
        ) {
            (KeeperState::Storing, Ok(())) => vec![
                KeeperStep::Send(codec::encode(&ToAsker::Bound)),
                KeeperStep::Over,
            ],
            (KeeperState::Storing, Err(why)) => self.refuse(why),
            (other, _) => {
                self.state = other;
                Vec::new()
            }
        }
    }

    fn refuse(&mut self, why: RecoverError) -> Vec<KeeperStep> {
        self.state = KeeperState::Over;
        let message = ToAsker::Refused {
            reason: reason(why),
        };
        vec![KeeperStep::Send(codec::encode(&message)), KeeperStep::Over]
    }
}

/// What the shell of who has the words has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum AskerStep {
    /// Send these bytes as one message.
    Send(Vec<u8>),
    /// All grants that the keeper has, unread. With them a device can be admitted: then call [`Asker::bind`].
    Grants(Vec<Vec<u8>>),
    /// The keeper has taken the new device in.
    Bound,
    /// It came to nothing. Close the stream.
    Failed(RecoverError),
}

/// The side of who has the words.
pub struct Asker {
    me: DeviceId,
    keeper: DeviceId,
    vault: VaultId,
    key: RecoveryKey,
    state: AskerState,
}

#[derive(PartialEq, Eq)]
enum AskerState {
    Asking,
    Proving,
    Given,
    Binding,
    Over,
}

impl Asker {
    /// Asks `keeper`, who is at the other end of the stream, for `vault`.
    pub fn new(
        me: DeviceId,
        keeper: DeviceId,
        vault: VaultId,
        key: RecoveryKey,
    ) -> (Self, Vec<AskerStep>) {
        let message = ToKeeper::Ask {
            versions: vec![version::RECOVER],
            vault,
        };
        let asker = Self {
            me,
            keeper,
            vault,
            key,
            state: AskerState::Asking,
        };
        (asker, vec![AskerStep::Send(codec::encode(&message))])
    }

    /// Most bytes of the next message that is worth reading.
    pub fn message_limit(&self) -> usize {
        match self.state {
            AskerState::Proving => MAX_RECOVER_GRANTS,
            _ => MAX_RECOVER_MESSAGE,
        }
    }

    /// The other side sent a message.
    pub fn on_message(&mut self, bytes: &[u8]) -> Vec<AskerStep> {
        let message = codec::decode::<ToAsker>(bytes, self.message_limit());
        let state = std::mem::replace(&mut self.state, AskerState::Over);
        match (state, message) {
            (AskerState::Over, _) => Vec::new(),
            (_, Ok(ToAsker::Refused { reason })) => vec![AskerStep::Failed(refused(reason))],
            (AskerState::Asking, Ok(ToAsker::Challenge { version, nonce })) => {
                if version != version::RECOVER {
                    return vec![AskerStep::Failed(RecoverError::NoCommonVersion)];
                }
                let signing = self.key.signing();
                let proof = Proof {
                    version,
                    vault: self.vault,
                    keeper: self.keeper,
                    asker: self.me,
                    nonce,
                    recovery: signing.id(),
                };
                let Ok(proof) = Verified::sign(proof, &signing) else {
                    return vec![AskerStep::Failed(RecoverError::Malformed)];
                };
                self.state = AskerState::Proving;
                let proof = proof.bytes().to_vec();
                vec![AskerStep::Send(codec::encode(&ToKeeper::Proof { proof }))]
            }
            (AskerState::Proving, Ok(ToAsker::Grants { grants })) => {
                self.state = AskerState::Given;
                vec![AskerStep::Grants(grants)]
            }
            (AskerState::Binding, Ok(ToAsker::Bound)) => vec![AskerStep::Bound],
            _ => vec![AskerStep::Failed(RecoverError::Malformed)],
        }
    }

    /// Sends the grants back, with those that admit this device.
    pub fn bind(&mut self, grants: Vec<Vec<u8>>) -> Vec<AskerStep> {
        if self.state != AskerState::Given {
            return Vec::new();
        }
        let message = codec::encode(&ToKeeper::Bind { grants });
        if message.len() > MAX_RECOVER_GRANTS {
            self.state = AskerState::Over;
            return vec![AskerStep::Failed(RecoverError::NotTaken)];
        }
        self.state = AskerState::Binding;
        vec![AskerStep::Send(message)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    use super::*;
    use crate::identity::DeviceKey;

    const VAULT: VaultId = VaultId([5; 32]);

    fn ids() -> [DeviceId; 2] {
        [1, 2].map(|byte| DeviceKey::from_secret([byte; 32]).id())
    }

    fn rng() -> ChaCha12Rng {
        ChaCha12Rng::seed_from_u64(8)
    }

    fn sent_by_asker(steps: &[AskerStep]) -> Vec<u8> {
        match steps {
            [AskerStep::Send(bytes)] => bytes.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn sent(steps: &[KeeperStep]) -> Vec<u8> {
        match steps {
            [KeeperStep::Send(bytes), ..] => bytes.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// Both sides up to the proof.
    fn proven(key: &RecoveryKey) -> (Keeper, Asker, Vec<u8>) {
        let [me, keeper_id] = ids();
        let mut keeper = Keeper::new(keeper_id, me);
        let (mut asker, steps) = Asker::new(me, keeper_id, VAULT, key.clone());
        let challenge = sent(&keeper.on_message(&sent_by_asker(&steps), &mut rng()));
        let proof = sent_by_asker(&asker.on_message(&challenge));
        (keeper, asker, proof)
    }

    #[test]
    fn who_has_the_words_gets_the_grants_and_is_taken_in() {
        let key = RecoveryKey::generate(&mut rng());
        let (mut keeper, mut asker, proof) = proven(&key);
        let steps = keeper.on_message(&proof, &mut rng());
        let [KeeperStep::LookUp { vault, recovery }] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!((*vault, *recovery), (VAULT, key.signing().id()));
        let grants = vec![vec![1], vec![2]];
        let given = asker.on_message(&sent(&keeper.found(Ok(grants.clone()))));
        assert_eq!(given, [AskerStep::Grants(grants)]);
        let all = vec![vec![1], vec![2], vec![3]];
        let bind = sent_by_asker(&asker.bind(all.clone()));
        let steps = keeper.on_message(&bind, &mut rng());
        let [KeeperStep::Store { grants, .. }] = &steps[..] else {
            panic!("{steps:?}")
        };
        assert_eq!(*grants, all);
        let bound = sent(&keeper.stored(Ok(())));
        assert_eq!(asker.on_message(&bound), [AskerStep::Bound]);
    }

    #[test]
    fn a_proof_is_of_no_use_on_another_connection_or_later() {
        let key = RecoveryKey::generate(&mut rng());
        let (_, _, proof) = proven(&key);
        let [me, keeper_id] = ids();
        let thief = DeviceKey::from_secret([3; 32]).id();
        let ask = codec::encode(&ToKeeper::Ask {
            versions: vec![version::RECOVER],
            vault: VAULT,
        });
        // Another asker, another keeper, another nonce.
        for (keeper_id, asker, seed) in [(keeper_id, thief, 8), (thief, me, 8), (keeper_id, me, 9)]
        {
            let mut keeper = Keeper::new(keeper_id, asker);
            keeper.on_message(&ask, &mut ChaCha12Rng::seed_from_u64(seed));
            let steps = keeper.on_message(&proof, &mut rng());
            let refusal = ToAsker::Refused { reason: 1 };
            assert_eq!(sent(&steps), codec::encode(&refusal));
        }
    }

    #[test]
    fn whether_a_vault_is_kept_shows_in_nothing() {
        let key = RecoveryKey::generate(&mut rng());
        let answers = [RecoverError::NotYours, RecoverError::NotTaken].map(|why| {
            let (mut keeper, _, proof) = proven(&key);
            keeper.on_message(&proof, &mut rng());
            sent(&keeper.found(Err(why)))
        });
        assert_eq!(answers[0], answers[1]);
        let (mut keeper, _, mut forged) = proven(&key);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(sent(&keeper.on_message(&forged, &mut rng())), answers[0]);
    }

    #[test]
    fn nothing_is_done_out_of_turn() {
        let [me, keeper_id] = ids();
        let mut keeper = Keeper::new(keeper_id, me);
        let bind = codec::encode(&ToKeeper::Bind { grants: Vec::new() });
        let steps = keeper.on_message(&bind, &mut rng());
        let refusal = ToAsker::Refused { reason: 4 };
        assert_eq!(sent(&steps), codec::encode(&refusal));
        assert!(keeper.on_message(&bind, &mut rng()).is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(messages: Vec<Vec<u8>>) {
            let [me, keeper_id] = ids();
            let mut keeper = Keeper::new(keeper_id, me);
            let key = RecoveryKey::generate(&mut rng());
            let (mut asker, _) = Asker::new(me, keeper_id, VAULT, key);
            for bytes in &messages {
                keeper.on_message(bytes, &mut rng());
                asker.on_message(bytes);
            }
        }
    }
}
