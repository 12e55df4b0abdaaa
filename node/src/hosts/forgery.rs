//! What no honest host passes on.
//!
//! A host checks signatures, vault and form of everything before it keeps it. So whatever fails these checks where it
//! arrives was altered, put together or made up on the host, by its will or by its disk. What a host cannot check proves
//! nothing against it: what a device signed is the device's doing, a log may fork by a copied data folder, grants may be
//! on their way, and what was written by a newer version may be as it must be.

use coffer_protocol::codec::CodecError;
use coffer_protocol::grants::GrantError;
use coffer_protocol::held::HeldError;
use coffer_protocol::log::EntryError;
use coffer_protocol::ranges::RangeError;
use coffer_protocol::relay::HostStatementError;
use coffer_protocol::signed::SignedError;

/// Whether an entry that is refused for this was forged.
pub fn is_forged_entry(error: &EntryError) -> bool {
    match error {
        EntryError::Codec(error) => is_malformed(error),
        EntryError::Inconsistent
        | EntryError::WrongVault(_)
        | EntryError::BadSignature
        | EntryError::WrongBody => true,
        _ => false,
    }
}

/// The same for a range: of one that does not open its maker may be to blame.
pub fn is_forged_range(error: &RangeError) -> bool {
    match error {
        RangeError::Codec(error) => is_malformed(error),
        RangeError::Inconsistent
        | RangeError::WrongVault(_)
        | RangeError::BadSignature
        | RangeError::WrongBody => true,
        _ => false,
    }
}

/// The same for a grant.
pub fn is_forged_grant(error: &GrantError) -> bool {
    match error {
        GrantError::Signed(error) => is_unsigned(error),
        GrantError::WrongVault(_) => true,
        _ => false,
    }
}

/// The same for a device's statement.
pub fn is_forged_held(error: &HeldError) -> bool {
    match error {
        HeldError::Signed(error) => is_unsigned(error),
        HeldError::WrongVault(_) => true,
        _ => false,
    }
}

/// The same for a host's statement, its own or another's.
pub fn is_forged_statement(error: &HostStatementError) -> bool {
    match error {
        HostStatementError::Signed(error) => is_unsigned(error),
        HostStatementError::WrongVault(_) | HostStatementError::WrongHost(_) => true,
    }
}

fn is_unsigned(error: &SignedError) -> bool {
    match error {
        SignedError::Codec(error) => is_malformed(error),
        SignedError::Signature(_) | SignedError::NotTheSigner => true,
    }
}

fn is_malformed(error: &CodecError) -> bool {
    !matches!(error, CodecError::Newer { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_protocol::identity::{EpochId, VaultId};

    #[test]
    fn what_a_host_must_have_refused_is_forged_and_what_it_cannot_check_is_not() {
        let newer = || CodecError::Newer {
            found: 9,
            supported: 1,
        };
        let vault = VaultId([1; 32]);
        for (error, forged) in [
            (EntryError::BadSignature, true),
            (EntryError::WrongBody, true),
            (EntryError::WrongVault(vault), true),
            (EntryError::Codec(CodecError::Malformed), true),
            (EntryError::Codec(newer()), false),
            (EntryError::CannotOpen, false),
            (EntryError::WrongEpoch(EpochId([1; 32])), false),
        ] {
            assert_eq!(is_forged_entry(&error), forged, "{error}");
        }
        assert!(is_forged_grant(&GrantError::Signed(
            SignedError::NotTheSigner
        )));
        assert!(!is_forged_grant(&GrantError::TooManyGrants));
        assert!(!is_forged_held(&HeldError::Signed(SignedError::Codec(
            newer()
        ))));
        assert!(!is_forged_held(&HeldError::CannotOpen));
        assert!(is_forged_statement(&HostStatementError::WrongVault(vault)));
    }
}
