//! Every table of `host.redb`, in one place.
//!
//! A table's name ends in its version; what shipped never changes meaning. Keys are fixed-width bytes, integers
//! big-endian; values are at most [`crate::store::pieces::PIECE`] bytes, longer ones are split over pieces.
//! docs/storage/relay.md describes each value.
//!
//! A vault is named by a *number* in all tables but three: it makes keys short, and since no number is used twice, what
//! an interrupted erasure left can never be taken for a vault that came back.

use redb::{ReadableDatabase, TableDefinition};

/// The layout that this program reads and writes, kept in [`META`] under [`LAYOUT_NAME`].
pub const LAYOUT: u32 = 1;
/// Where the layout is kept.
pub const LAYOUT_NAME: &str = "layout";
/// Where the next vault's number is kept.
pub const NEXT_NUMBER: &str = "next number";

/// Single values: name → number.
pub const META: TableDefinition<&str, u32> = TableDefinition::new("host_meta_1");
/// Invitations: id → [`super::rows::InvitationRow`].
pub const INVITATIONS: TableDefinition<&[u8; 32], &[u8]> =
    TableDefinition::new("host_invitations_1");
/// Vaults that are served: vault id → [`super::rows::VaultRow`].
pub const VAULTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("host_vaults_1");
/// Receipts of erased vaults: vault id → when, in ms (u64) ‖ receipt.
pub const RECEIPTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("host_receipts_1");
/// Numbers of vaults of which something may still have to be erased.
pub const ERASING: TableDefinition<u32, ()> = TableDefinition::new("host_erasing_1");
/// Who may be here for a vault: device ‖ number → vault id.
pub const MEMBERS: TableDefinition<&[u8; 36], &[u8; 32]> = TableDefinition::new("host_members_1");
/// The same, to be replaced as a whole: number → devices, 32 bytes each.
pub const MEMBERS_OF: TableDefinition<u32, &[u8]> = TableDefinition::new("host_members_of_1");
/// When a device was last here: number ‖ device → milliseconds since 1970.
pub const SEEN: TableDefinition<&[u8; 36], u64> = TableDefinition::new("host_seen_1");
/// Grants in the order in which they came: number ‖ order (u32) ‖ piece (u16) → grant.
pub const GRANTS: TableDefinition<&[u8; 10], &[u8]> = TableDefinition::new("host_grants_1");
/// Which grants there are: number ‖ grant id → order.
pub const GRANT_IDS: TableDefinition<&[u8; 36], u32> = TableDefinition::new("host_grant_ids_1");
/// Entries: number ‖ device ‖ incarnation (u32) ‖ seq (u64) ‖ piece (u16) → header hash ‖ entry.
pub const ENTRIES: TableDefinition<&[u8; 50], &[u8]> = TableDefinition::new("host_entries_1");
/// The end of every log: number ‖ device ‖ incarnation → seq (u64) ‖ header hash.
pub const HEADS: TableDefinition<&[u8; 40], &[u8; 40]> = TableDefinition::new("host_heads_1");
/// Ranges: number ‖ device ‖ incarnation ‖ last entry (u64) ‖ piece (u16) → range.
pub const RANGES: TableDefinition<&[u8; 50], &[u8]> = TableDefinition::new("host_ranges_1");
/// The same without bodies: number ‖ device ‖ incarnation ‖ last entry → whether it is alone (u8) ‖ head.
pub const RANGE_HEADS: TableDefinition<&[u8; 48], &[u8]> =
    TableDefinition::new("host_range_heads_1");
/// What was said of ranges: number ‖ device ‖ incarnation ‖ last entry ‖ who says it → attestation.
pub const SAID: TableDefinition<&[u8; 80], &[u8]> = TableDefinition::new("host_said_1");
/// Held statements: number ‖ device ‖ piece (u16) → counter (u64) ‖ statement.
pub const HELD: TableDefinition<&[u8; 38], &[u8]> = TableDefinition::new("host_held_1");
/// The host's own statement: number ‖ piece (u16) → counter (u64) ‖ statement.
pub const STATEMENTS: TableDefinition<&[u8; 6], &[u8]> = TableDefinition::new("host_statements_1");
/// Where a blob is: number ‖ blob id → pack (u32) ‖ offset (u32) ‖ length (u32).
pub const BLOBS: TableDefinition<&[u8; 36], &[u8; 12]> = TableDefinition::new("host_blobs_1");
/// Who released a blob: number ‖ blob id → device ‖ when, in ms (u64); for each, ascending.
pub const RELEASED: TableDefinition<&[u8; 36], &[u8]> = TableDefinition::new("host_released_1");
/// Packs: number ‖ pack (u32) → length (u32) ‖ bytes of it that blobs use, their headers included (u32).
pub const PACKS: TableDefinition<&[u8; 8], &[u8; 8]> = TableDefinition::new("host_packs_1");

/// A key of these parts, in this order; pieces count in the last two bytes, left as zeros.
pub fn key<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut key = [0; N];
    let mut at = 0;
    for part in parts {
        key[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    key
}

/// The first and the last key that vault `number` can have.
pub fn all_of<const N: usize>(number: u32) -> ([u8; N], [u8; N]) {
    let mut last = [0xff; N];
    last[..4].copy_from_slice(&number.to_be_bytes());
    (key(&[&number.to_be_bytes()]), last)
}

/// Makes every table, and notes the layout.
pub fn make_all(database: &redb::Database) -> Result<(), crate::relay::store::StoreError> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    {
        let mut meta = write.open_table(META)?;
        meta.insert(LAYOUT_NAME, LAYOUT)?;
        write.open_table(INVITATIONS)?;
        write.open_table(VAULTS)?;
        write.open_table(RECEIPTS)?;
        write.open_table(ERASING)?;
        write.open_table(MEMBERS)?;
        write.open_table(MEMBERS_OF)?;
        write.open_table(SEEN)?;
        write.open_table(GRANTS)?;
        write.open_table(GRANT_IDS)?;
        write.open_table(ENTRIES)?;
        write.open_table(HEADS)?;
        write.open_table(HELD)?;
        write.open_table(STATEMENTS)?;
        write.open_table(BLOBS)?;
        write.open_table(RELEASED)?;
        write.open_table(PACKS)?;
    }
    write.commit()?;
    make_later(database)
}

/// Makes the tables that a program which knew no ranges did not make.
pub fn make_later(database: &redb::Database) -> Result<(), crate::relay::store::StoreError> {
    match database.begin_read()?.open_table(SAID) {
        Ok(_) => return Ok(()),
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    write.open_table(RANGES)?;
    write.open_table(RANGE_HEADS)?;
    write.open_table(SAID)?;
    Ok(write.commit()?)
}
