//! Small typed values in the table of single values.

use redb::{ReadableTable, Table};

use super::StoreError;

/// The table of single values, open for writing.
pub type Meta<'t> = Table<'t, &'static str, &'static [u8]>;

/// A u32 by name.
pub fn get_u32(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<u32>, StoreError> {
    get(meta, name)?
        .map(|bytes| {
            bytes
                .try_into()
                .map(u32::from_be_bytes)
                .map_err(|_| wrong(name))
        })
        .transpose()
}

/// A u64 by name.
pub fn get_u64(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<u64>, StoreError> {
    get(meta, name)?
        .map(|bytes| {
            bytes
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|_| wrong(name))
        })
        .transpose()
}

/// Bytes by name.
pub fn get(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(meta.get(name)?.map(|value| value.value().to_vec()))
}

fn wrong(name: &str) -> StoreError {
    StoreError::Damaged(format!("the record \"{name}\" has the wrong length"))
}
