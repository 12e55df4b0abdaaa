//! What can be said of a backup without a key of its vault: that every byte is as it was written, that what is signed was
//! signed by devices of the vault, that no data file is missing, and that what the last run says to be there is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use coffer_protocol::grants::{MAX_GRANTS, Membership};
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::log::Entry;
use coffer_protocol::ranges::Range;
use coffer_protocol::replication::Message;
use coffer_protocol::signed::Verified;

use super::archive::Archive;
use super::error::ArchiveError;
use super::folder::{self, Header};
use super::piece::{self, BEGIN_LEN, Key, RECORD_HEADER};
use super::run::Run;

/// Something that is wrong, most damage being one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The file, within the folder.
    pub file: String,
    /// The byte at which the damaged record begins, where it is one.
    pub at: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// What is wrong.
    pub flaws: Vec<Flaw>,
    /// The last run.
    pub last: Option<Run>,
}

/// Flaws that are told, at most.
const MAX_FLAWS: usize = 1000;

/// Takes flaws, and counts bytes.
struct Looking<'a> {
    archive: &'a Archive,
    flaws: Vec<Flaw>,
    grants: Vec<Vec<u8>>,
    runs: Vec<(u32, u64, Run)>,
}

impl Archive {
    /// Reads everything. `read` is told the bytes that were read so far, and says whether to go on. Blocking.
    ///
    /// # Errors
    /// Those of the disk. What is wrong with the backup is no error.
    pub fn verify(&self, mut read: impl FnMut(u64) -> bool) -> Result<Outside, ArchiveError> {
        let mut looking = Looking {
            archive: self,
            flaws: Vec::new(),
            grants: Vec::new(),
            runs: Vec::new(),
        };
        looking.beside();
        let mut done = 0;
        for (number, known) in &self.pieces {
            if !looking.piece(*number, known.len, |bytes| read(done + bytes))? {
                break;
            }
            done += known.len;
        }
        let last = looking.signed();
        Ok(Outside {
            flaws: looking.flaws,
            last,
        })
    }
}

impl Looking<'_> {
    fn flaw(&mut self, file: impl Into<String>, at: Option<u64>, what: impl Into<String>) {
        if self.flaws.len() < MAX_FLAWS {
            self.flaws.push(Flaw {
                file: file.into(),
                at,
                what: what.into(),
            });
        }
    }

    fn piece_name(number: u32) -> String {
        format!("{}/{}", folder::DATA, folder::piece_name(number))
    }

    /// Header, lists, and which data files there are.
    fn beside(&mut self) {
        let archive = self.archive;
        match archive.header {
            Header::Of(_) | Header::Newer => {}
            Header::Missing => self.flaw(folder::HEADER, None, "it is missing"),
            Header::Damaged => self.flaw(folder::HEADER, None, "it is damaged"),
        }
        for name in &archive.damaged_lists {
            self.flaw(name, None, "it is damaged");
        }
        for (number, why) in &archive.unreadable {
            self.flaw(Self::piece_name(*number), None, why);
        }
        let Some(lists) = &archive.lists else {
            if !archive.runs.is_empty() {
                self.flaw(
                    folder::HEADER,
                    None,
                    "no list of the data files can be read, so it is not known whether one is missing",
                );
            }
            return;
        };
        let is_unreadable: BTreeSet<u32> = (archive.unreadable.iter())
            .map(|(number, _)| *number)
            .collect();
        for (number, seal) in &lists.value().pieces {
            let name = Self::piece_name(*number);
            match archive.pieces.get(number) {
                None if is_unreadable.contains(number) => {}
                None => self.flaw(name, None, "it is missing"),
                Some(piece) if piece.seal.is_some_and(|found| found != *seal) => {
                    self.flaw(
                        name,
                        None,
                        "it is another file than the one that was written",
                    );
                }
                Some(_) => {}
            }
        }
    }

    /// Reads one data file.
    fn piece(
        &mut self,
        number: u32,
        len: u64,
        mut read: impl FnMut(u64) -> bool,
    ) -> Result<bool, ArchiveError> {
        let name = Self::piece_name(number);
        let path = folder::piece_path(self.archive.dir(), number);
        let failed = || ArchiveError::io(format!("read {}", path.display()));
        let file = File::open(&path).map_err(failed())?;
        let contents = match piece::contents(&file, len, self.archive.vault(), number) {
            Ok(contents) => contents,
            Err(piece::PieceError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(failed()(error));
            }
            Err(error) => {
                self.flaw(name, None, error.to_string());
                return Ok(true);
            }
        };
        if contents.seal.is_none() {
            self.flaw(
                &name,
                None,
                "its beginning or the list at its end is damaged",
            );
        }
        let mut at = BEGIN_LEN;
        let mut bytes = Vec::new();
        for row in &contents.rows {
            bytes.clear();
            if piece::read_record(&file, at, row, &mut bytes).map_err(failed())? {
                self.record(&name, number, at, &row.key, &bytes);
            } else {
                self.flaw(&name, Some(at), "what begins here is not as it was written");
            }
            at += RECORD_HEADER + u64::from(row.len);
            if !read(at) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at what can be judged at once, and keeps the rest.
    fn record(&mut self, name: &str, piece: u32, at: u64, key: &Key, bytes: &[u8]) {
        let vault = self.archive.vault();
        match key {
            Key::Blob => {}
            Key::Grant if self.grants.len() < MAX_GRANTS => self.grants.push(bytes.to_vec()),
            Key::Grant => self.flaw(
                name,
                Some(at),
                "it says more of who is in the vault than a vault can have",
            ),
            Key::Entry { .. } => {
                let entry = Entry::decode(bytes);
                if !entry.is_ok_and(|entry| entry.verify(&vault).is_ok()) {
                    self.flaw(
                        name,
                        Some(at),
                        "a change is not signed by the device that is said to have made it",
                    );
                }
            }
            Key::Range { .. } => {
                let range = match Message::decode(bytes) {
                    Ok(Message::Range { range, .. }) => Range::decode(&range).ok(),
                    _ => None,
                };
                if range.is_none_or(|range| range.verify(&vault).is_err()) {
                    self.flaw(
                        name,
                        Some(at),
                        "changes are not signed by the device that is said to have put them together",
                    );
                }
            }
            Key::Run { .. } => match Verified::<Run>::decode(bytes) {
                Ok(run) if run.value().vault == vault => {
                    self.runs.push((piece, at, run.value().clone()));
                }
                _ => self.flaw(
                    name,
                    Some(at),
                    "a backup is not signed by the device that is said to have made it",
                ),
            },
        }
    }

    /// Looks at who signed, and whether the last run finds all that it says. Gives that run.
    fn signed(&mut self) -> Option<Run> {
        let vault = self.archive.vault();
        let mut grants = std::mem::take(&mut self.grants);
        grants.sort_unstable();
        grants.dedup();
        let membership = match Membership::from_bytes(vault, &grants) {
            Ok(membership) => membership,
            Err(error) => {
                let what = format!("it does not say who is in the vault: {error}");
                self.flaw(folder::DATA, None, what);
                return None;
            }
        };
        let knows = |device: &DeviceId| {
            membership.is_member(device) || membership.former().contains_key(device)
        };
        let strangers: Vec<String> = (self.archive.entries.keys())
            .chain(self.archive.ranges.keys())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|writer| !knows(&writer.device))
            .map(|writer| {
                format!(
                    "changes are by a device that was never in the vault: {}",
                    writer.device
                )
            })
            .collect();
        for stranger in strangers {
            self.flaw(folder::DATA, None, stranger);
        }
        let runs = std::mem::take(&mut self.runs);
        let mut last: Option<Run> = None;
        for (piece, at, run) in runs {
            if !knows(&run.device) {
                let what = "a backup was made by a device that was never in the vault";
                self.flaw(Self::piece_name(piece), Some(at), what);
            } else if last.as_ref().is_none_or(|last| last.number < run.number) {
                last = Some(run);
            }
        }
        let run = last?;
        let here = self.archive.clock();
        for (writer, seq, header) in run.clock.iter() {
            let found = self.archive.entries.get(writer);
            let found = found
                .and_then(|log| log.get(&seq))
                .map(|(found, ..)| *found);
            if !here.covers(writer, seq) || found.is_some_and(|found: Hash| found != header) {
                let what = format!("changes by the device {} are missing", writer.device);
                self.flaw(folder::DATA, None, what);
            }
        }
        if (grants.len() as u64) < u64::from(run.grants) {
            self.flaw(
                folder::DATA,
                None,
                "something of who is in the vault is missing",
            );
        }
        Some(run)
    }
}
