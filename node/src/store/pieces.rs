//! Values longer than one redb value should be, split over consecutive keys.

use redb::{ReadableTable, StorageError, Table};

/// Longest value written, in bytes: larger ones waste space in redb's pages.
pub const PIECE: usize = 16 * 1024;

/// Writes `bytes` under `key`, whose last two bytes count the pieces.
///
/// Older pieces past the new end stay unless the caller removed them: use it for values that are written once, or
/// call [`remove`] first.
pub fn write<const N: usize>(
    table: &mut Table<'_, &'static [u8; N], &'static [u8]>,
    key: &[u8; N],
    bytes: &[u8],
) -> Result<(), StorageError> {
    let mut key = *key;
    let mut rest = bytes;
    let mut piece = 0u16;
    loop {
        key[N - 2..].copy_from_slice(&piece.to_be_bytes());
        let (now, later) = rest.split_at(rest.len().min(PIECE));
        table.insert(&key, now)?;
        rest = later;
        if now.len() < PIECE {
            return Ok(());
        }
        piece = piece
            .checked_add(1)
            .ok_or_else(|| StorageError::ValueTooLarge(bytes.len()))?;
    }
}

/// Reads what [`write()`] wrote, or `None` where there is nothing.
pub fn read<const N: usize>(
    table: &impl ReadableTable<&'static [u8; N], &'static [u8]>,
    key: &[u8; N],
) -> Result<Option<Vec<u8>>, StorageError> {
    let mut key = *key;
    let mut bytes = Vec::new();
    for piece in 0..=u16::MAX {
        key[N - 2..].copy_from_slice(&piece.to_be_bytes());
        let Some(value) = table.get(&key)? else {
            return Ok((piece > 0).then_some(bytes));
        };
        bytes.extend_from_slice(value.value());
        if value.value().len() < PIECE {
            break;
        }
    }
    Ok(Some(bytes))
}

/// Removes every piece of `key`.
pub fn remove<const N: usize>(
    table: &mut Table<'_, &'static [u8; N], &'static [u8]>,
    key: &[u8; N],
) -> Result<(), StorageError> {
    let mut key = *key;
    for piece in 0..=u16::MAX {
        key[N - 2..].copy_from_slice(&piece.to_be_bytes());
        if table.remove(&key)?.is_none() {
            break;
        }
    }
    Ok(())
}
