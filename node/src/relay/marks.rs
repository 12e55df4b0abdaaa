//! What stands in the log in place of ids: marks that are drawn anew at each start.
//!
//! Lines of one run about one vault can be put together; lines of two runs, or of two hosts, cannot, and none says whose
//! they are. With `log.identities = true` the ids themselves are written.

use std::fmt;

use coffer_protocol::identity::{DeviceId, VaultId};

/// Makes marks.
pub struct Marks {
    /// Random; `None` writes ids as they are.
    key: Option<[u8; 32]>,
}

/// A mark, or what it stands for.
#[derive(Clone, PartialEq, Eq)]
pub struct Mark(String);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Marks {
    /// Marks from a random key, or the ids themselves.
    pub fn new(with_identities: bool, key: [u8; 32]) -> Self {
        Self {
            key: (!with_identities).then_some(key),
        }
    }

    /// For a vault.
    pub fn vault(&self, vault: VaultId) -> Mark {
        self.of("v", &vault.0, || vault.to_string())
    }

    /// For a device.
    pub fn device(&self, device: DeviceId) -> Mark {
        self.of("d", &device.0, || device.to_string())
    }

    fn of(&self, kind: &str, bytes: &[u8], plain: impl FnOnce() -> String) -> Mark {
        Mark(match &self.key {
            None => plain(),
            Some(key) => {
                let mut hasher = blake3::Hasher::new_keyed(key);
                hasher.update(kind.as_bytes()).update(bytes);
                format!("{kind}-{}", hex::encode(&hasher.finalize().as_bytes()[..4]))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_same_all_through_a_run_and_another_in_the_next() {
        let (first, second) = (Marks::new(false, [1; 32]), Marks::new(false, [2; 32]));
        let vault = VaultId([0xab; 32]);
        assert_eq!(
            first.vault(vault).to_string(),
            first.vault(vault).to_string()
        );
        assert_ne!(
            first.vault(vault).to_string(),
            second.vault(vault).to_string()
        );
        assert!(!first.vault(vault).to_string().contains("abab"));
        let plain = Marks::new(true, [1; 32]);
        assert_eq!(plain.vault(vault).to_string(), vault.to_string());
    }
}
