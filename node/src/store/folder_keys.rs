//! The keys of [`super::tables::FOLDER_ROWS`] and [`super::tables::FOLDER_BRAKES`]: a synced folder's number, and a file's id.

use coffer_crdt::files::FileId;

/// Number (big-endian) and id.
pub type FolderKey = [u8; 20];

/// The key of a file in a synced folder.
pub fn folder_key(folder: u32, file: FileId) -> FolderKey {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&folder.to_be_bytes());
    key[4..].copy_from_slice(&file.0);
    key
}

/// The first and the last key that a synced folder can have.
pub fn keys_of_folder(folder: u32) -> (FolderKey, FolderKey) {
    let (first, last) = (FileId([0; 16]), FileId([0xff; 16]));
    (folder_key(folder, first), folder_key(folder, last))
}

/// The file that a key names.
pub fn file_of(key: &FolderKey) -> FileId {
    let mut id = [0; 16];
    id.copy_from_slice(&key[4..]);
    FileId(id)
}
