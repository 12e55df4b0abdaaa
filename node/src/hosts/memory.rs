//! What this device remembers of one host: its statements, and what is wrong with it.

use coffer_protocol::relay::HostStatement;
use coffer_protocol::relay::freshness::{Fault, Heard, Record};
use serde::{Deserialize, Serialize};

/// Version of the stored form.
const VERSION: u8 = 1;

/// What is wrong with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TroubleKind {
    /// It was put back to an earlier state.
    RolledBack,
    /// It told two devices different things.
    Contradicts,
    /// It began anew, without what it had.
    BeganAnew,
    /// It does not pass on what it has.
    Withholds,
    /// It does not have contents any more that it had confirmed.
    LostContents,
    /// It passed on what no honest host can have taken: see [`forgery`](super::forgery).
    Forged,
}

impl From<Fault> for TroubleKind {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::RolledBack => Self::RolledBack,
            Fault::Contradicts => Self::Contradicts,
            Fault::BeganAnew => Self::BeganAnew,
        }
    }
}

/// Something that was found wrong with a host, once or again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What.
    pub kind: TroubleKind,
    /// When it was seen first, in milliseconds since 1970, by this device's clock.
    pub first_ms: u64,
    /// When it was seen last.
    pub last_ms: u64,
}

/// What this device remembers of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Its statements.
    pub record: Record,
    /// What is wrong with it, at most one of each kind, by kind.
    pub troubles: Vec<Trouble>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    told: Option<Vec<u8>>,
    furthest: Option<Vec<u8>>,
    troubles: Vec<Trouble>,
}

impl Memory {
    /// Hears a verified statement; `told` says that the host itself told it.
    pub fn hear(&mut self, statement: &HostStatement, told: bool, now_ms: u64) -> Heard {
        let heard = self.record.hear(statement, told);
        if let Some(fault) = heard.fault {
            self.note(fault.into(), now_ms);
        }
        heard
    }

    /// Notes that something is wrong.
    pub fn note(&mut self, kind: TroubleKind, now_ms: u64) {
        match self
            .troubles
            .binary_search_by_key(&kind, |trouble| trouble.kind)
        {
            Ok(at) => self.troubles[at].last_ms = now_ms,
            Err(at) => self.troubles.insert(
                at,
                Trouble {
                    kind,
                    first_ms: now_ms,
                    last_ms: now_ms,
                },
            ),
        }
    }

    /// Whether this device may rely on what the host confirmed: nothing is known against it.
    pub fn is_trusted(&self) -> bool {
        self.troubles.is_empty()
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |statement: &Option<HostStatement>| {
            statement
                .as_ref()
                .map(|statement| statement.bytes().to_vec())
        };
        postcard::to_stdvec(&Stored {
            version: VERSION,
            told: bytes(&self.record.told),
            furthest: bytes(&self.record.furthest),
            troubles: self.troubles.clone(),
        })
        .unwrap_or_default()
    }

    /// Reads the stored form. `None` for one that cannot be read: it is replaceable, but for the troubles.
    pub fn decode(bytes: &[u8]) -> Option<Memory> {
        let stored: Stored = postcard::from_bytes(bytes).ok()?;
        let statement =
            |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| HostStatement::decode(&bytes).ok());
        (stored.version == VERSION).then(|| Memory {
            record: Record {
                told: statement(stored.told),
                furthest: statement(stored.furthest),
            },
            troubles: stored.troubles,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_protocol::identity::{DeviceKey, StoreId, VaultId};
    use coffer_protocol::log::Clock;
    use coffer_protocol::relay::HostState;

    fn statement(counter: u64) -> HostStatement {
        let key = DeviceKey::from_secret([9; 32]);
        let state = HostState {
            version: 1,
            vault: VaultId([1; 32]),
            host: key.id(),
            store: StoreId([2; 16]),
            counter,
            at_ms: counter,
            entries: Clock::new(),
            entry_bytes: 0,
            blobs: 0,
            blob_bytes: 0,
            quota_bytes: 0,
        };
        HostStatement::sign(state, &key).unwrap()
    }

    #[test]
    fn a_memory_returns_from_its_bytes_and_foreign_bytes_are_none() {
        let mut memory = Memory::default();
        memory.hear(&statement(5), true, 1);
        memory.hear(&statement(3), true, 2);
        assert_eq!(memory.troubles[0].kind, TroubleKind::RolledBack);
        assert_eq!(Memory::decode(&memory.encode()), Some(memory));
        for bytes in [&[][..], &[1], &[2, 0, 0, 0], &[0xff; 40]] {
            assert_eq!(Memory::decode(bytes), None);
        }
    }

    /// Table `hosts_1`.
    #[test]
    fn troubles_are_encoded_as_they_always_were() {
        let mut memory = Memory::default();
        for kind in [
            TroubleKind::Forged,
            TroubleKind::LostContents,
            TroubleKind::Withholds,
            TroubleKind::BeganAnew,
            TroubleKind::Contradicts,
            TroubleKind::RolledBack,
        ] {
            memory.note(kind, 1);
        }
        memory.note(TroubleKind::Withholds, 300);
        let frozen = "010000060001010101010201010301ac02040101050101";
        assert_eq!(hex::encode(memory.encode()), frozen);
        assert!(!memory.is_trusted());
    }
}
