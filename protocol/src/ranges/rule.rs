//! Who may make a range, and when the entries that it stands for may be dropped.

use std::collections::BTreeSet;

use super::attest::SignedAttestation;
use super::range::Head;
use crate::domain;
use crate::grants::{GrantBody, Membership, Role, Writing};
use crate::identity::{DeviceId, Hash};
use crate::relay::freeing::{Member, counts};

/// The owners who may compact the closed logs of `device`: those that the grants which closed them name.
pub fn keepers(membership: &Membership, device: &DeviceId) -> BTreeSet<DeviceId> {
    let closers = membership.closers(device).into_keys();
    closers
        .filter_map(|id| match &membership.get(&id)?.value().body {
            GrantBody::Revoke(revocation) => revocation.keeper,
            _ => None,
        })
        .filter(|keeper| membership.role(keeper) == Some(Role::Owner))
        .collect()
}

/// Whether the maker of a range may make it: the writer of an open log, or the keeper of a closed one, within its cutoff.
pub fn may_make(membership: &Membership, head: &Head) -> bool {
    match membership.writing(&head.writer) {
        Writing::Open => head.maker == head.writer.device,
        Writing::Closed { upto, .. } => {
            upto.is_some_and(|(last, _)| head.to <= last)
                && keepers(membership, &head.writer.device).contains(&head.maker)
        }
        Writing::Unknown => false,
    }
}

/// Whether whoever never had the entries may take the range in their place: a device that is or was in the vault with the
/// keys, and neither made the range nor wrote the log, has compared it with them. What one said before it was put out
/// cannot be told from what a thief says with its keys; but a thief needs the keys of two devices then.
pub fn is_vouched_for<'a>(
    membership: &Membership,
    head: &Head,
    attestations: impl IntoIterator<Item = &'a SignedAttestation>,
) -> bool {
    attestations.into_iter().any(|attestation| {
        let said = attestation.value();
        said.compared
            && said.is_of(head)
            && said.device != head.maker
            && said.device != head.writer.device
            && may_attest(membership, &said.device)
    })
}

/// Whether what a device says of ranges is listened to: it holds the keys, or did before it was put out.
pub fn may_attest(membership: &Membership, device: &DeviceId) -> bool {
    let former = || {
        membership
            .former()
            .get(device)
            .map(|former| former.device.role)
    };
    let role = membership.role(device).or_else(former);
    role.is_some_and(Role::holds_keys)
}

/// What devices have said of a range, as one hash that is the same for all who have heard the same.
pub fn said<'a>(attestations: impl IntoIterator<Item = &'a SignedAttestation>) -> Hash {
    let said: BTreeSet<(DeviceId, bool)> = attestations
        .into_iter()
        .map(|attestation| (attestation.value().device, attestation.value().compared))
        .collect();
    let bytes: Vec<u8> = said
        .into_iter()
        .flat_map(|(device, compared)| device.0.into_iter().chain([u8::from(compared)]))
        .collect();
    Hash::of(domain::RANGE_SAID, &[&bytes])
}

/// Whether the entries for which a range stands may be dropped, on a device or a host: a device with the keys that
/// neither made the range nor wrote the log has compared it with them, and every other device that counts has it.
///
/// `members` are the devices of the vault. Nothing said by a device that is not among them, or holds no keys, counts.
pub fn may_replace(
    head: &Head,
    attestations: &[SignedAttestation],
    members: &[Member],
    now_ms: u64,
) -> bool {
    let said = |device: &DeviceId, compared: bool| {
        attestations.iter().any(|attestation| {
            let said = attestation.value();
            said.device == *device && said.is_of(head) && (said.compared || !compared)
        })
    };
    let is_another = |device: &DeviceId| *device != head.maker && *device != head.writer.device;
    let compared = members.iter().any(|member| {
        member.role.holds_keys() && is_another(&member.device) && said(&member.device, true)
    });
    let all_have_it = members
        .iter()
        .filter(|member| counts(member, now_ms) && member.device != head.maker)
        .all(|member| said(&member.device, false));
    compared && all_have_it
}
