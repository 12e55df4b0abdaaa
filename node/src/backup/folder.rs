//! Names of the files in a backup, its header, and the text for people.
//!
//! Names are 8.3 in capitals: every file system takes them, and none changes them. They are read in any case, for some
//! show them in small letters.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use coffer_protocol::identity::VaultId;

use super::error::ArchiveError;

/// The header: that this is a backup, of which version, of which vault.
pub(super) const HEADER: &str = "COFFER.TXT";
/// The text for people.
const README: &str = "README.TXT";
/// The folder of data files.
pub(super) const DATA: &str = "DATA";
/// What is being written.
const UNFINISHED: &str = "NEW.TMP";
/// Ends of names.
const DATA_KIND: &str = "CBD";
const LISTS_KIND: &str = "CBL";
/// The first line of the header, without the version.
const FIRST: &str = "coffer backup ";
/// The version of all that lies in the folder.
pub(super) const VERSION: u32 = 1;
/// Bytes of a header that are looked at.
const MAX_HEADER: u64 = 4096;
/// What a disk of its own has in it beside what people put there.
const DISK: [&str; 5] = [
    "lost+found",
    "system volume information",
    "$recycle.bin",
    ".trashes",
    ".fseventsd",
];

const TEXT: &str = "This folder is a backup made by coffer, a personal data vault.\r\n\
\r\n\
All of it is encrypted. To get everything back, install coffer on any computer\r\n\
and run, with the recovery kit (the sheet of paper with 24 words) at hand:\r\n\
\r\n\
    coffer recover --backup FOLDER\r\n\
\r\n\
    coffer backup list FOLDER              when it was made\r\n\
    coffer backup verify FOLDER            is all of it whole?\r\n\
    coffer backup restore FOLDER --to DIR  write files of it to DIR\r\n\
\r\n\
Do not change or rename anything in here. To keep it elsewhere, copy the whole\r\n\
folder. To make it newer, run \"coffer backup FOLDER\" again.\r\n";

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// A backup of this vault.
    Of(VaultId),
    /// A backup by a later program.
    Newer,
    /// There is none.
    Missing,
    /// It cannot be read.
    Damaged,
}

/// Reads the text of a header.
pub(super) fn parse_header(bytes: &[u8]) -> Header {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Header::Damaged;
    };
    let mut lines = text.lines().map(str::trim);
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix(FIRST))
        .and_then(|version| version.parse::<u32>().ok());
    match version {
        Some(version) if version > VERSION => return Header::Newer,
        Some(VERSION) => {}
        _ => return Header::Damaged,
    }
    let vault = lines.next().and_then(|line| line.strip_prefix("vault "));
    match vault.and_then(|vault| vault.parse().ok()) {
        Some(vault) if text == header_text(vault) => Header::Of(vault),
        _ => Header::Damaged,
    }
}

/// The text of a header.
pub(super) fn header_text(vault: VaultId) -> String {
    // A digit of the id that the disk changed would else be another vault's.
    let check = &blake3::hash(&vault.0).to_hex()[..8];
    format!("{FIRST}{VERSION}\r\nvault {vault}\r\ncheck {check}\r\n")
}

/// Reads the header of a folder.
pub(super) fn read_header(dir: &Path) -> Result<Header, ArchiveError> {
    let path = dir.join(HEADER);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Header::Missing),
        Err(error) => return Err(ArchiveError::io(format!("open {}", path.display()))(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_HEADER)
        .read_to_end(&mut bytes)
        .map_err(ArchiveError::io(format!("read {}", path.display())))?;
    Ok(parse_header(&bytes))
}

/// Makes a folder one for backups of `vault`: the header comes last.
pub(super) fn begin(dir: &Path, vault: VaultId) -> Result<(), ArchiveError> {
    let failed = |what: &str| ArchiveError::io(format!("{what} {}", dir.display()));
    // Not its parents: where a disk is not there, they would be made in its stead.
    for folder in [dir, &dir.join(DATA)] {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make the folder")(error));
            }
            _ => {}
        }
    }
    write_whole(dir, README, TEXT.as_bytes()).map_err(failed("write in"))?;
    write_whole(dir, HEADER, header_text(vault).as_bytes()).map_err(failed("write in"))?;
    match dir.parent() {
        // Its own name. A folder above may belong to somebody else, and need not be readable.
        Some(parent) => sync_folder(parent).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Ok(()),
            _ => Err(failed("write in")(error)),
        }),
        None => Ok(()),
    }
}

/// Whether there is nothing in a folder, or only what a begun backup or a disk of its own leaves.
pub(super) fn is_free(dir: &Path) -> Result<bool, ArchiveError> {
    let failed = || ArchiveError::io(format!("look into {}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed()(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let ours = [README, UNFINISHED]
            .iter()
            .any(|own| own.to_lowercase() == name);
        let begun = name == DATA.to_lowercase()
            && fs::read_dir(entry.path())
                .map_err(failed())?
                .next()
                .is_none();
        if !(ours || begun || DISK.contains(&name.as_str())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes a small file durably, under its name only when it is whole.
pub(super) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = dir.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&unfinished, dir.join(name))?;
    sync_folder(dir)
}

/// Makes names durable, as far as the file system can.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // Some file systems do not let folders be synced; they write names at once, or when they are unmounted.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Where data files are written before they have their names.
pub(super) fn unfinished(dir: &Path) -> PathBuf {
    dir.join(DATA).join(UNFINISHED)
}

/// The data file of a number.
pub(super) fn piece_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(DATA).join(piece_name(number))
}

/// Its name, as people are told it.
pub(super) fn piece_name(number: u32) -> String {
    format!("{number:08X}.{DATA_KIND}")
}

/// The name of a file of lists.
pub(super) fn lists_name(number: u32) -> String {
    format!("{number:08X}.{LISTS_KIND}")
}

/// The data files that there are, with their numbers and lengths, ascending.
pub(super) fn pieces(dir: &Path) -> Result<Vec<(u32, u64)>, ArchiveError> {
    match numbered(&dir.join(DATA), DATA_KIND) {
        Err(ArchiveError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        found => found,
    }
}

/// The files of lists, ascending.
pub(super) fn lists(dir: &Path) -> Result<Vec<(u32, u64)>, ArchiveError> {
    numbered(dir, LISTS_KIND)
}

fn numbered(dir: &Path, kind: &str) -> Result<Vec<(u32, u64)>, ArchiveError> {
    let failed = || ArchiveError::io(format!("look into {}", dir.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if let Some(number) = entry
            .file_name()
            .to_str()
            .and_then(|name| number(name, kind))
        {
            found.push((number, entry.metadata().map_err(failed())?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn number(name: &str, kind: &str) -> Option<u32> {
    let (number, end) = name.split_once('.')?;
    let digits = number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits && end.eq_ignore_ascii_case(kind))
        .then(|| u32::from_str_radix(number, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_read_back_and_one_of_a_later_program_is_told() {
        let vault = VaultId([7; 32]);
        assert_eq!(
            parse_header(header_text(vault).as_bytes()),
            Header::Of(vault)
        );
        assert_eq!(parse_header(b"coffer backup 2\nwhatever"), Header::Newer);
        assert_eq!(parse_header(b"coffer backup 1\nvault 00"), Header::Damaged);
        assert_eq!(parse_header(b""), Header::Damaged);
    }

    #[test]
    fn names_are_8_3_and_read_in_any_case() {
        assert_eq!(piece_name(0xabc), "00000ABC.CBD");
        assert_eq!(number("00000abc.cbd", DATA_KIND), Some(0xabc));
        for other in ["ABC.CBD", "00000ABC.CBL", "00000ABC", "+0000ABC.CBD"] {
            assert_eq!(number(other, DATA_KIND), None, "{other}");
        }
    }

    #[test]
    fn a_disk_of_its_own_is_free_and_a_folder_of_somebody_is_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("System Volume Information")).unwrap();
        fs::create_dir(dir.path().join(DATA)).unwrap();
        assert!(is_free(dir.path()).unwrap());
        fs::write(dir.path().join("letter.txt"), "").unwrap();
        assert!(!is_free(dir.path()).unwrap());
    }

    proptest! {
        #[test]
        fn arbitrary_headers_and_names_never_panic(bytes: Vec<u8>, name: String) {
            let _ = parse_header(&bytes);
            let _ = number(&name, DATA_KIND);
        }
    }
}
