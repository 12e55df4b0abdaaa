//! When a host may forget a blob.
//!
//! A host cannot see what the documents of a vault name. Its devices tell it: they *claim* blobs that they
//! name, by asking with a claim or by putting them, and *release* those that they no longer name. A blob goes
//! when every device that counts has released it since the last claim, and a grace has passed. So the word of
//! one device frees nothing while another still names the blob, and a device that was silent for long does not
//! keep everything for ever. Such a device resyncs, and claims, when it comes back.

use crate::grants::Role;
use crate::identity::DeviceId;

/// How long a blob stays after the last word about it, unless the host is set otherwise, in milliseconds: a
/// day, in which a device that names it again finds it.
pub const GRACE_MS: u64 = 24 * 3_600_000;
/// How long a device counts after the host last heard of it, in milliseconds: 90 days.
pub const COUNTS_FOR_MS: u64 = 90 * 24 * 3_600_000;

/// A device of the vault, as the host knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// What it may do, by the vault's grants.
    pub role: Role,
    /// When the host last had a session with it, or learnt of its admission if that was later; in
    /// milliseconds since 1970, by the host's clock.
    pub heard_ms: u64,
}

/// What was said about one blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// When it was last claimed or put, in milliseconds since 1970, by the host's clock. Releases from before
    /// that are void, and best deleted with the claim.
    pub claimed_ms: u64,
    /// Who released it since, and when, in any order. Devices repeat releases; the first counts, so that
    /// repeating does not put the grace off.
    pub released: &'a [(DeviceId, u64)],
}

/// Whether a device has a say in what is freed.
pub fn counts(member: &Member, now_ms: u64) -> bool {
    member.role.holds_keys() && now_ms.saturating_sub(member.heard_ms) < COUNTS_FOR_MS
}

/// Whether the host may free a blob at `now_ms`. Never while no device counts: then nobody's word is left.
pub fn may_free(word: Word<'_>, members: &[Member], now_ms: u64, grace_ms: u64) -> bool {
    let mut last = word.claimed_ms;
    let mut any = false;
    for member in members.iter().filter(|member| counts(member, now_ms)) {
        let released = word
            .released
            .iter()
            .filter(|(device, at)| *device == member.device && *at >= word.claimed_ms)
            .map(|(_, at)| *at)
            .min();
        match released {
            Some(at) => last = last.max(at),
            None => return false,
        }
        any = true;
    }
    any && now_ms.saturating_sub(last) >= grace_ms
}
