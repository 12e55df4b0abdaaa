//! What a device says of a range: in the clear, as hosts act on it too.

use serde::{Deserialize, Serialize};

use super::range::Head;
use crate::identity::{DeviceId, DeviceKey, Hash, VaultId, WriterId};
use crate::signed::{Signable, SignedError, Verified};
use crate::{domain, version};

/// One device has a range, durably, and so all that the entries for which it stands hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// [`version::ATTESTATION`].
    pub version: u16,
    /// The vault.
    pub vault: VaultId,
    /// Whose log the range is of.
    pub writer: WriterId,
    /// The last entry that it stands for.
    pub to: u64,
    /// The range: [`Head::id`].
    pub range: Hash,
    /// Which device says so, and signs.
    pub device: DeviceId,
    /// Whether it has opened the entries themselves, or a range that was compared with them, and this one, and found that
    /// this one holds the same. A device that came later has never seen the entries: it only has the range.
    pub compared: bool,
}

/// An attestation that its device did sign.
pub type SignedAttestation = Verified<Attestation>;

impl Attestation {
    /// Signs what `key`'s device says of a range.
    pub fn sign(
        key: &DeviceKey,
        head: &Head,
        compared: bool,
    ) -> Result<SignedAttestation, SignedError> {
        let attestation = Attestation {
            version: version::ATTESTATION,
            vault: head.vault,
            writer: head.writer,
            to: head.to,
            range: head.id(),
            device: key.id(),
            compared,
        };
        Verified::sign(attestation, key)
    }

    /// Whether it is of this range.
    pub fn is_of(&self, head: &Head) -> bool {
        self.vault == head.vault
            && self.writer == head.writer
            && self.to == head.to
            && self.range == head.id()
    }
}

impl Signable for Attestation {
    const CONTEXT: &'static str = domain::ATTESTATION_SIGNATURE;
    const VERSION: u16 = version::ATTESTATION;
    const MAX_LEN: usize = 512;

    fn signer(&self) -> DeviceId {
        self.device
    }
}
