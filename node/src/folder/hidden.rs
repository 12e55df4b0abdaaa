//! What lies in the hidden folder of a synced folder, by its names: temporary files, parked ones, kept ones.

use std::io;
use std::path::Path;

use coffer_crdt::files::FileId;

use super::place::{HIDDEN, Place};

/// Ending of a kept file's name until the vault knows of it.
pub const PENDING: &str = ".pending";

/// How names of parked files begin.
pub const PARKED: &str = "park-";

/// How names of links begin that are about to be put in place.
pub const LINK: &str = "link-";

/// How names of files begin that an exchange puts aside for a moment.
pub const SPARE: &str = "spare-";

/// Name of a parked file.
pub fn park_name(id: FileId) -> String {
    format!("{PARKED}{}", hex::encode(id.0))
}

/// Name of what an exchange for a file puts aside for a moment.
pub fn spare_name(id: FileId) -> String {
    format!("{SPARE}{}", hex::encode(id.0))
}

/// Name of the temporary file for a content; the same after a restart, so that what was written is used again.
pub fn temporary_name(id: FileId, hash: &[u8; 32]) -> String {
    format!("{}-{}", hex::encode(id.0), hex::encode(&hash[..8]))
}

/// Lists the names in one of the hidden folders.
///
/// # Errors
/// What the system says.
pub fn hidden_names(place: &Place, folder: &str) -> io::Result<Vec<String>> {
    let folder = place.folder(&Path::new(HIDDEN).join(folder))?;
    let mut names: Vec<String> = folder
        .list()?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}
