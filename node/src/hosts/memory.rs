//! What this device remembers of one host: its statements, and what is wrong with it.

use coffer_protocol::identity::StoreId;
use coffer_protocol::relay::HostStatement;
use coffer_protocol::relay::freshness::{Fault, Heard, Record};
use serde::{Deserialize, Serialize};

/// Version of the stored form. Version 1 does not say since which addition of the host it is.
const VERSION: u8 = 2;
const WITHOUT_ADDITION: u8 = 1;

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
    /// It does not answer when it is to show what it confirmed.
    Unproven,
    /// It says that it does not keep the vault.
    NotKept,
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

/// Since when a host is in use: a person added it, for the first time or anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// What the host's document says of when. No time to reckon with: another device's clock may have said it.
    pub at_ms: u64,
    /// The store that the host keeps the vault in since then, where it was told.
    pub store: Option<StoreId>,
}

/// What this device remembers of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Since which addition of the host.
    pub added: Option<Added>,
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
    // Version 1 ends here.
    added: Option<Added>,
}

impl Memory {
    /// What is remembered of a host that a person added, or added anew: nothing but what it said since.
    pub fn begins(&mut self, added: Added) {
        self.troubles.clear();
        self.added = Some(added);
        let is_of_it =
            |said: &HostStatement| added.store.is_some_and(|store| said.value().store == store);
        let Record { told, furthest } = &mut self.record;
        for said in [told, furthest] {
            if !said.as_ref().is_some_and(is_of_it) {
                *said = None;
            }
        }
    }

    /// Hears a verified statement; `told` says that the host itself told it.
    pub fn hear(&mut self, statement: &HostStatement, told: bool, now_ms: u64) -> Heard {
        // Of the store that a person added it with. What others still pass on of one before it is no measure for it.
        let added = self.added.and_then(|added| added.store);
        if added == Some(statement.value().store) {
            let Record { told, furthest } = &mut self.record;
            for said in [told, furthest] {
                let other = said
                    .as_ref()
                    .is_some_and(|said| Some(said.value().store) != added);
                if other {
                    *said = None;
                }
            }
        }
        if told {
            self.over(TroubleKind::NotKept);
        }
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

    /// It is over with what was wrong.
    pub fn over(&mut self, kind: TroubleKind) {
        self.troubles.retain(|trouble| trouble.kind != kind);
    }

    /// What is wrong of this kind.
    pub fn trouble(&self, kind: TroubleKind) -> Option<&Trouble> {
        self.troubles.iter().find(|trouble| trouble.kind == kind)
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
            added: self.added,
        })
        .unwrap_or_default()
    }

    /// Reads the stored form. `None` for one that cannot be read: it is replaceable, but for the troubles.
    pub fn decode(bytes: &[u8]) -> Option<Memory> {
        let with_none;
        let bytes = match *bytes.first()? {
            VERSION => bytes,
            // An option that is not there.
            WITHOUT_ADDITION => {
                with_none = [bytes, &[0]].concat();
                &with_none
            }
            _ => return None,
        };
        let stored: Stored = postcard::from_bytes(bytes).ok()?;
        let statement =
            |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| HostStatement::decode(&bytes).ok());
        Some(Memory {
            added: stored.added,
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
        statement_of(2, counter)
    }

    fn statement_of(store: u8, counter: u64) -> HostStatement {
        let key = DeviceKey::from_secret([9; 32]);
        let state = HostState {
            version: 1,
            vault: VaultId([1; 32]),
            host: key.id(),
            store: StoreId([store; 16]),
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
        assert_eq!(Memory::decode(&memory.encode()), Some(memory.clone()));
        memory.begins(Added {
            at_ms: 7,
            store: Some(StoreId([2; 16])),
        });
        assert_eq!(Memory::decode(&memory.encode()), Some(memory));
        for bytes in [&[][..], &[1], &[2, 0, 0, 0], &[0xff; 40]] {
            assert_eq!(Memory::decode(bytes), None);
        }
    }

    #[test]
    fn a_host_that_does_not_keep_the_vault_does_so_when_it_states_something_of_it() {
        let mut memory = Memory::default();
        memory.hear(&statement(5), true, 1);
        memory.note(TroubleKind::NotKept, 2);
        // What another device still passes on says nothing of it as it is now.
        memory.hear(&statement(6), false, 3);
        assert!(!memory.is_trusted());
        memory.hear(&statement(6), true, 4);
        assert!(memory.is_trusted());
    }

    #[test]
    fn a_host_that_is_added_anew_has_no_past() {
        let mut memory = Memory::default();
        memory.hear(&statement_of(2, 9), true, 1);
        memory.hear(&statement_of(2, 3), true, 2);
        assert!(!memory.is_trusted());
        let added = |at_ms, store| Added {
            at_ms,
            store: Some(StoreId([store; 16])),
        };
        // The document first, then what it says since, and what others still pass on, in any order.
        let mut first = memory.clone();
        first.begins(added(5, 4));
        assert!(first.hear(&statement_of(2, 9), false, 6).news);
        assert!(!first.hear(&statement_of(4, 20), true, 7).void);
        first.hear(&statement_of(2, 9), false, 8);
        assert!(first.is_trusted() && !first.record.lags());
        // What it says first, then the document.
        memory.hear(&statement_of(4, 20), true, 3);
        assert!(memory.trouble(TroubleKind::BeganAnew).is_some());
        memory.begins(added(5, 4));
        assert!(memory.is_trusted());
        assert_eq!(memory.record.told, Some(statement_of(4, 20)));
        // That nobody added, it is still found out.
        memory.hear(&statement_of(6, 30), true, 9);
        assert!(memory.trouble(TroubleKind::BeganAnew).is_some());
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
        let before = "010000060001010101010201010301ac02040101050101";
        let read = Memory::decode(&hex::decode(before).unwrap());
        assert_eq!(read.as_ref(), Some(&memory));
        memory.note(TroubleKind::Unproven, 1);
        let frozen = "020000070001010101010201010301ac0204010105010106010100";
        assert_eq!(hex::encode(memory.encode()), frozen);
        memory.added = Some(Added {
            at_ms: 300,
            store: Some(StoreId([2; 16])),
        });
        let store = "02".repeat(16);
        let frozen = format!("{}01ac0201{store}", &frozen[..frozen.len() - 2]);
        assert_eq!(hex::encode(memory.encode()), frozen);
        assert!(!memory.is_trusted());
        memory.over(TroubleKind::Unproven);
        assert_eq!(memory.troubles.len(), 6);
        let mut memory = Memory::default();
        memory.note(TroubleKind::NotKept, 1);
        assert_eq!(hex::encode(memory.encode()), "0200000107010100");
    }
}
