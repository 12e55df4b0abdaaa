//! What a data folder holds, by its files: before anything in it is opened or made.
//!
//! A vault leaves more than its database. The contents' folder and the index are made whenever it is opened, before
//! anything is acknowledged, and they go first where an empty vault makes room for another. Where they lie and the
//! database does not, the folder was damaged or restored in part, and no vault may begin in its place: the person would
//! take an empty one for theirs. A folder with nothing but this device's keys is none of that: a `join` that failed, and
//! a node that waits to join, leave it so.

use std::io;
use std::path::Path;

use redb::ReadableDatabase;

use super::store_error;
use crate::control::{ControlError, DataLock, ErrorKind, Protection};
use crate::store::{StoreError, records, tables};
use crate::vault::founding::DATABASE;
use crate::vault::identity;

/// What is made with a vault, beside its database.
const BESIDE: [&str; 2] = ["blobs", "index.sqlite"];

/// Whether a vault is or was in a data folder, whole or damaged.
pub fn has_vault(dir: &Path) -> bool {
    dir.join(DATABASE).exists() || has_remains(dir)
}

/// Whether what is made only with a vault lies there.
pub(super) fn has_remains(dir: &Path) -> bool {
    BESIDE.iter().any(|name| dir.join(name).exists())
}

/// Refuses a folder from which a part is missing that a vault cannot be without.
///
/// # Errors
/// [`ErrorKind::Damaged`].
pub(super) fn check_whole(dir: &Path) -> Result<(), ControlError> {
    match std::fs::metadata(dir.join(DATABASE)) {
        Ok(about) if about.len() == 0 => return Err(damaged(dir, "the file vault.redb is empty")),
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_remains(dir) => {
            return Err(damaged(dir, "the file vault.redb is missing"));
        }
        _ => {}
    }
    if has_vault(dir) && !dir.join("identity").exists() {
        return Err(damaged(dir, "the file identity is missing"));
    }
    Ok(())
}

/// The vault of this folder cannot be used, and `why`.
pub(super) fn damaged(dir: &Path, why: &str) -> ControlError {
    let message = format!("the vault in {} is damaged: {why}", dir.display());
    ControlError::new(ErrorKind::Damaged, message).with_code(DAMAGED)
}

/// The short name of damage to the data folder itself.
pub(super) const DAMAGED: &str = "damaged-vault";

/// Looks at a data folder that no node may be working on; says whether there is a vault. Nothing is changed.
///
/// # Errors
/// What a start would say of it: [`ErrorKind::Damaged`], [`ErrorKind::NewerVersion`], [`ErrorKind::Permission`];
/// [`ErrorKind::Usage`] where it is no folder.
pub fn look(dir: &Path) -> Result<bool, ControlError> {
    match std::fs::metadata(dir) {
        Ok(about) if about.is_dir() => {}
        Ok(_) => return Err(not_a_folder(dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(not_a_folder(dir));
        }
        Err(error) => {
            let what = format!("look into the data folder {}", dir.display());
            return Err(ControlError::io(what, &error));
        }
    }
    if !has_vault(dir) {
        return Ok(false);
    }
    // A node that starts or runs says itself what is wrong; and while this looks, none should start.
    let Ok(_lock) = DataLock::acquire(dir) else {
        return Ok(true);
    };
    check_whole(dir)?;
    identity::read(dir).map_err(store_error)?;
    layout(&dir.join(DATABASE)).map_err(store_error)?;
    Ok(true)
}

/// What seals the keys of a data folder; nothing where there are none.
///
/// # Errors
/// As [`look`].
pub fn protection(dir: &Path) -> Result<Protection, ControlError> {
    let stored = identity::read(dir).map_err(store_error)?;
    Ok(stored
        .as_ref()
        .map_or_else(Protection::default, super::locking::protection_of))
}

/// A data folder that is something else.
pub(super) fn not_a_folder(dir: &Path) -> ControlError {
    ControlError::usage(format!("{} is not a folder", dir.display())).with_code("no-data-folder")
}

/// Refuses a database of a layout that this program does not know. One that needs repair first is left to a start.
fn layout(path: &Path) -> Result<(), StoreError> {
    let database = match redb::ReadOnlyDatabase::open(path) {
        Ok(database) => database,
        Err(redb::DatabaseError::RepairAborted) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let found = match database.begin_read()?.open_table(tables::META) {
        Ok(meta) => records::get_u32(&meta, tables::meta::LAYOUT)?,
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match found {
        Some(found) if found > tables::LAYOUT => Err(StoreError::Newer {
            found,
            known: tables::LAYOUT,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::random;
    use crate::store;
    use crate::vault::identity::Identity;

    fn folder_with(parts: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for part in parts {
            match *part {
                "identity" => Identity::generate(&mut random()).save(dir.path()).unwrap(),
                "blobs" => std::fs::create_dir(dir.path().join("blobs")).unwrap(),
                DATABASE => drop(store::open(&dir.path().join(DATABASE)).unwrap()),
                other => std::fs::write(dir.path().join(other), "").unwrap(),
            }
        }
        dir
    }

    fn kind(found: Result<bool, ControlError>) -> Result<bool, ErrorKind> {
        found.map_err(|error| error.kind)
    }

    #[test]
    fn a_folder_with_keys_only_is_whole_and_has_no_vault() {
        for parts in [&[][..], &["identity"], &["identity", "coffer.log", "lock"]] {
            let dir = folder_with(parts);
            check_whole(dir.path()).unwrap();
            assert_eq!(kind(look(dir.path())), Ok(false), "{parts:?}");
        }
        let dir = folder_with(&[]);
        assert_eq!(kind(look(&dir.path().join("not there"))), Ok(false));
    }

    #[test]
    fn what_a_vault_leaves_without_its_database_or_keys_is_damage() {
        for parts in [
            &["identity", "blobs"][..],
            &["identity", "index.sqlite"],
            &["identity", "blobs", "index.sqlite"],
            &["blobs", "index.sqlite"],
            &[DATABASE],
            &[DATABASE, "blobs"],
        ] {
            let dir = folder_with(parts);
            let error = check_whole(dir.path()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Damaged, "{parts:?}");
            assert_eq!(kind(look(dir.path())), Err(ErrorKind::Damaged), "{parts:?}");
        }
        let dir = folder_with(&["identity", DATABASE]);
        assert_eq!(kind(look(dir.path())), Ok(true));
        for damage in [
            "",
            "something else altogether, and long enough to be looked at",
        ] {
            std::fs::write(dir.path().join(DATABASE), damage).unwrap();
            assert_eq!(kind(look(dir.path())), Err(ErrorKind::Damaged), "{damage}");
        }
    }

    #[test]
    fn a_file_is_no_data_folder() {
        let dir = folder_with(&["notes.txt"]);
        let file = dir.path().join("notes.txt");
        for place in [file.join("deeper"), file] {
            assert_eq!(kind(look(&place)), Err(ErrorKind::Usage), "{place:?}");
        }
    }

    #[test]
    fn a_newer_layout_is_seen_without_a_start() {
        let dir = folder_with(&["identity", DATABASE]);
        {
            let database = store::open(&dir.path().join(DATABASE)).unwrap();
            let write = database.begin_write().unwrap();
            let newer = (tables::LAYOUT + 1).to_be_bytes();
            let mut meta = write.open_table(tables::META).unwrap();
            meta.insert(tables::meta::LAYOUT, &newer[..]).unwrap();
            drop(meta);
            write.commit().unwrap();
        }
        assert_eq!(kind(look(dir.path())), Err(ErrorKind::NewerVersion));
    }
}
