//! Every context string of the protocol, in one table.
//!
//! A signature, key derivation, MAC or hash that is made for one purpose must mean nothing for any
//! other; so each has its own string here, and none is used twice. They are frozen: a purpose that
//! changes its meaning gets a new string. `docs/protocol/keys.md` shows the same table with what
//! goes in and what comes out.
//!
//! libp2p signs with the same device key (`libp2p-tls-handshake:`, `noise-libp2p-static-key:`);
//! none of ours is a prefix of those, or they of ours.

// Signatures: Ed25519 over `context ‖ 0x00 ‖ message`.

/// Signature of a grant by its author.
pub const GRANT_SIGNATURE: &str = "coffer 2026-11 grant signature";
/// Signature of an entry's header by its writer.
pub const ENTRY_SIGNATURE: &str = "coffer 2026-11 entry signature";
/// Signature of a range's head by its maker.
pub const RANGE_SIGNATURE: &str = "coffer 2026-11 range signature";
/// Signature by a device of what it says of a range.
pub const ATTESTATION_SIGNATURE: &str = "coffer 2026-11 range attestation signature";
/// Signature of a held statement by its device.
pub const HELD_SIGNATURE: &str = "coffer 2026-11 held statement signature";

/// Signature by which the recovery key shows that its holder asks for the vault.
pub const RECOVERY_PROOF_SIGNATURE: &str = "coffer 2026-11 recovery proof signature";
/// Signature of a relay host's statement.
pub const HOST_STATEMENT_SIGNATURE: &str = "coffer 2026-11 host statement signature";
/// Signature of an order to erase a vault on a relay host, by an owner.
pub const ERASE_ORDER_SIGNATURE: &str = "coffer 2026-11 erase order signature";
/// Signature of the receipt for it, by the host.
pub const ERASE_RECEIPT_SIGNATURE: &str = "coffer 2026-11 erase receipt signature";
/// Signature of a run of a backup, by the device that made it.
pub const BACKUP_RUN_SIGNATURE: &str = "coffer 2026-11 backup run signature";
/// Signature of the list of a backup's files, by the device that wrote it.
pub const BACKUP_LISTS_SIGNATURE: &str = "coffer 2026-11 backup lists signature";

// Hashes that name public things: BLAKE3 in key-derivation mode with the context.

/// Id of a grant; of the genesis grant it is the vault's id.
pub const GRANT_ID: &str = "coffer 2026-11 grant id";
/// Hash of an entry's header, by which its successor and clocks name it.
pub const HEADER_HASH: &str = "coffer 2026-11 entry header hash";
/// Hash of an entry's sealed body.
pub const BODY_HASH: &str = "coffer 2026-11 entry body hash";
/// Hash of a range's head, by which attestations name it.
pub const RANGE_ID: &str = "coffer 2026-11 range id";
/// Hash of a range's sealed body.
pub const RANGE_BODY_HASH: &str = "coffer 2026-11 range body hash";
/// What stands in a range's root for the changes of one document.
pub const RANGE_DOCUMENT: &str = "coffer 2026-11 range document";
/// Hash of all that a range holds.
pub const RANGE_ROOT: &str = "coffer 2026-11 range root";
/// What devices have said of a range, as one hash.
pub const RANGE_SAID: &str = "coffer 2026-11 range said";
/// Automerge actor id of a writer, cut to 16 bytes.
pub const ACTOR: &str = "coffer 2026-11 actor of a writer";
/// Public commitment to an epoch's key: the epoch id.
pub const EPOCH_ID: &str = "coffer 2026-11 epoch id";
/// Public commitment to a space secret, carried by every epoch grant.
pub const SPACE_SECRET_ID: &str = "coffer 2026-11 space secret id";

// Keys below an epoch key.

/// Key below which the key of every frame is derived.
pub const EPOCH_FRAMES: &str = "coffer 2026-11 epoch frames";
/// Key below which the key of every entry body is derived.
pub const EPOCH_ENTRIES: &str = "coffer 2026-11 epoch entries";
/// Key below which the key of every range's body is derived.
pub const EPOCH_RANGES: &str = "coffer 2026-11 epoch ranges";
/// Key below which the sealed names in grants are derived.
pub const EPOCH_NAMES: &str = "coffer 2026-11 epoch names";
/// Key below which sealed held statements are derived.
pub const EPOCH_HELD: &str = "coffer 2026-11 epoch held statements";
/// Key below which older epochs' keys are sealed.
pub const EPOCH_OLDER: &str = "coffer 2026-11 epoch older keys";

// Keys below a space secret.

/// Keyed hash of a chunk's plaintext (and of any frame's payload).
pub const SPACE_CHUNK: &str = "coffer 2026-11 space chunk id";
/// Keyed hash of the frame that is sealed.
pub const SPACE_FRAME: &str = "coffer 2026-11 space frame id";
/// Keyed hash over a file's chunk ids.
pub const SPACE_CONTENT: &str = "coffer 2026-11 space content hash";
/// Seed of content-defined chunking.
pub const SPACE_CDC: &str = "coffer 2026-11 space cdc seed";

// HPKE `info` prefixes.

/// Seal of an epoch key and space secret to one recipient.
pub const SEAL: &str = "coffer 2026-11 seal to recipient";

// Keys below the recovery key's entropy, and its form at rest.

/// The recovery key's Ed25519 secret.
pub const RECOVERY_SIGNING: &str = "coffer 2026-11 recovery signing key";
/// The recovery key's X-Wing seed.
pub const RECOVERY_SEALING: &str = "coffer 2026-11 recovery sealing key";
/// Checksum of a recovery kit, against damage and not against malice.
pub const KIT_CHECKSUM: &str = "coffer 2026-11 recovery kit checksum";
/// Key below which the unconfirmed recovery key is sealed on the device that made it.
pub const RECOVERY_AT_REST: &str = "coffer 2026-11 recovery key at rest";

// Keys below a device's secret.

/// Key below which the keys of a vault are sealed in a device's database.
pub const KEYRING_AT_REST: &str = "coffer 2026-11 keyring at rest";
/// The X-Wing seed of a device, where it is derived and not stored on its own.
pub const DEVICE_SEALING: &str = "coffer 2026-11 device sealing key";

// What seals a device's own keys at rest.

/// Key below which they are sealed, from a stretched passphrase.
pub const DEVICE_BY_PASSPHRASE: &str = "coffer 2026-11 device keys under a passphrase";
/// Key below which they are sealed, from a secret that the system keeps for who is logged in.
pub const DEVICE_BY_LOGIN: &str = "coffer 2026-11 device keys under a login";

// Pairing.

/// Checksum of a pairing link, against damage and not against malice.
pub const LINK_CHECKSUM: &str = "coffer 2026-11 pairing link checksum";
/// Hash over all that both sides said before the proofs.
pub const PAIRING_TRANSCRIPT: &str = "coffer 2026-11 pairing transcript";
/// Key of one pairing, from the shared secret and the transcript.
pub const PAIRING_KEY: &str = "coffer 2026-11 pairing key";
/// Key of the joiner's proof.
pub const PAIRING_JOINER_PROOF: &str = "coffer 2026-11 pairing joiner proof";
/// Key of the inviter's proof.
pub const PAIRING_INVITER_PROOF: &str = "coffer 2026-11 pairing inviter proof";
/// Key of the MAC over the joiner's request.
pub const PAIRING_REQUEST: &str = "coffer 2026-11 pairing request";
/// Key of the MAC over the inviter's welcome.
pub const PAIRING_WELCOME: &str = "coffer 2026-11 pairing welcome";

// Relay hosts.

/// Checksum of an invitation to a relay host, against damage and not against malice.
pub const HOST_LINK_CHECKSUM: &str = "coffer 2026-11 host invitation checksum";
/// What a relay host keeps of the secret of an invitation that it made.
pub const HOST_INVITATION_ID: &str = "coffer 2026-11 host invitation id";
/// Names an order to erase in its receipt.
pub const ERASE_ORDER_ID: &str = "coffer 2026-11 erase order id";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// How every context begins; in two pieces, so that it is not found here.
    const BEGIN: &str = concat!("coffer", " 2026-11 ");

    /// Every context of the workspace, read from its sources so that none can be left out: those of this file, and the
    /// few that `node` needs for what it alone makes.
    fn contexts() -> Vec<String> {
        let mut found = Vec::new();
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut folders: Vec<_> = ["cli", "crdt", "node", "protocol"]
            .map(|part| top.join(part).join("src"))
            .into();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let literals = text.split('"').filter(|text| text.starts_with(BEGIN));
                    found.extend(literals.map(str::to_owned));
                }
            }
        }
        found
    }

    #[test]
    fn no_context_is_used_twice() {
        let contexts = contexts();
        assert!(contexts.len() > 30, "{contexts:?}");
        let mut seen = BTreeSet::new();
        for context in &contexts {
            assert!(seen.insert(context), "{context}");
            assert!(!context.contains('\0'), "{context}");
        }
        let here = include_str!("domain.rs").lines();
        for line in here.filter(|line| line.starts_with("pub const")) {
            assert!(line.contains(BEGIN), "{line}");
        }
    }

    #[test]
    fn the_written_table_has_every_context_and_no_other() {
        let table = include_str!("../../docs/protocol/keys.md");
        let contexts: BTreeSet<String> = contexts().into_iter().collect();
        let written: BTreeSet<String> = table
            .split('`')
            .filter(|word| word.starts_with(BEGIN))
            .map(str::to_owned)
            .collect();
        assert_eq!(written, contexts);
    }
}
