//! A backup, opened: where each of its records lies.
//!
//! In memory are some 100 bytes for each record. Records are read when they are asked for, and what is not as it was
//! written counts as not there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use coffer_protocol::grants::MAX_GRANTS;
use coffer_protocol::identity::{Hash, VaultId, WriterId};
use coffer_protocol::log::Clock;
use coffer_protocol::replication::Message;
use coffer_protocol::signed::{Signable, Verified};

use super::error::ArchiveError;
use super::folder::{self, Header};
use super::piece::{self, BEGIN_LEN, Key, PieceError, RECORD_HEADER, Row};
use super::run::{Lists, Run};
use crate::blobs::Shelf;

/// Data files that are kept open.
const OPEN_FILES: usize = 16;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In which data file.
    pub piece: u32,
    /// Where its header begins.
    pub at: u64,
    /// Bytes of its own.
    pub len: u32,
}

/// What is known of a data file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// The seal over its list; `None` where that is damaged.
    pub seal: Option<Hash>,
    /// Bytes of the file.
    pub len: u64,
    /// Bytes of its records.
    pub records: u64,
}

/// Of a range: the first entry, the hash of the last one's header, the hash of the record, and where it is.
pub(super) type RangeAt = (u64, Hash, Hash, Place);

/// A backup.
pub struct Archive {
    dir: PathBuf,
    vault: VaultId,
    pub(super) header: Header,
    pub(super) pieces: BTreeMap<u32, Piece>,
    /// Data files of which nothing can be read, and why.
    pub(super) unreadable: Vec<(u32, String)>,
    pub(super) grants: BTreeMap<Hash, Place>,
    pub(super) entries: BTreeMap<WriterId, BTreeMap<u64, (Hash, Hash, Place)>>,
    /// By log and last entry.
    pub(super) ranges: BTreeMap<WriterId, BTreeMap<u64, RangeAt>>,
    pub(super) blobs: HashMap<Hash, Place>,
    pub(super) runs: BTreeMap<u64, (Hash, Place)>,
    /// The newest lists that can be read.
    pub(super) lists: Option<Verified<Lists>>,
    /// Files of lists that cannot be read.
    pub(super) damaged_lists: Vec<String>,
    /// The highest number that a data file has or had, and one of lists.
    pub(super) last: (u32, u32),
    open: Mutex<Vec<(u32, File)>>,
}

/// What a backup keeps, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bytes of its data files.
    pub bytes: u64,
    /// Data files.
    pub files: u64,
    /// Entries of logs.
    pub entries: u64,
    /// Sealed blobs.
    pub blobs: u64,
}

impl Archive {
    /// Opens the backup in `dir`. Blocking.
    ///
    /// # Errors
    /// [`ArchiveError::NotThere`], [`ArchiveError::Newer`]; [`ArchiveError::Damaged`] where nothing tells whose it is.
    pub fn open(dir: &Path) -> Result<Archive, ArchiveError> {
        let header = folder::read_header(dir)?;
        let vault = match header {
            Header::Of(vault) => vault,
            Header::Newer => return Err(ArchiveError::Newer(dir.into())),
            // The data files say it too.
            Header::Missing | Header::Damaged => match told_by_pieces(dir)? {
                Some(vault) => vault,
                None if header == Header::Missing => {
                    return Err(ArchiveError::NotThere(dir.into()));
                }
                None => {
                    let why = "neither COFFER.TXT nor a data file can be read";
                    return Err(ArchiveError::Damaged(dir.into(), why));
                }
            },
        };
        let mut archive = Archive {
            dir: dir.into(),
            vault,
            header,
            pieces: BTreeMap::new(),
            unreadable: Vec::new(),
            grants: BTreeMap::new(),
            entries: BTreeMap::new(),
            ranges: BTreeMap::new(),
            blobs: HashMap::new(),
            runs: BTreeMap::new(),
            lists: None,
            damaged_lists: Vec::new(),
            last: (0, 0),
            open: Mutex::default(),
        };
        archive.read_lists()?;
        for (number, len) in folder::pieces(dir)? {
            archive.read_piece(number, len)?;
        }
        Ok(archive)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The vault that it is of.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    fn read_lists(&mut self) -> Result<(), ArchiveError> {
        for (number, len) in folder::lists(&self.dir)? {
            self.last.1 = self.last.1.max(number);
            let name = folder::lists_name(number);
            let path = self.dir.join(&name);
            let read = match len <= Lists::MAX_LEN as u64 {
                true => std::fs::read(&path).ok(),
                false => None,
            };
            match read.and_then(|bytes| Verified::<Lists>::decode(&bytes).ok()) {
                Some(lists) if lists.value().vault == self.vault => {
                    let retired = lists.value().retired.iter();
                    let pieces = lists.value().pieces.iter().map(|(number, _)| number);
                    let highest = retired.chain(pieces).copied().max().unwrap_or(0);
                    self.last.0 = self.last.0.max(highest);
                    self.lists = Some(lists);
                }
                _ => self.damaged_lists.push(name),
            }
        }
        Ok(())
    }

    fn read_piece(&mut self, number: u32, len: u64) -> Result<(), ArchiveError> {
        self.last.0 = self.last.0.max(number);
        let retired = self.lists.as_ref().map(|lists| &lists.value().retired);
        if retired.is_some_and(|retired| retired.contains(&number)) {
            return Ok(());
        }
        let path = folder::piece_path(&self.dir, number);
        let read = open_piece(&self.dir, number)
            .map_err(PieceError::from)
            .and_then(|file| piece::contents(&file, len, self.vault, number));
        match read {
            Ok(contents) => {
                self.take(number, len, &contents, false);
                Ok(())
            }
            Err(PieceError::Newer) => Err(ArchiveError::Newer(self.dir.clone())),
            Err(PieceError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(ArchiveError::io(format!("read {}", path.display()))(error))
            }
            Err(error) => {
                self.unreadable.push((number, error.to_string()));
                Ok(())
            }
        }
    }

    /// Notes where the records of a data file are. What is there already stays where it is, unless they were `moved`.
    pub(super) fn take(&mut self, number: u32, len: u64, contents: &piece::Contents, moved: bool) {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V, moved: bool) {
            if moved || !map.contains_key(&key) {
                map.insert(key, value);
            }
        }
        let mut at = BEGIN_LEN;
        for row in &contents.rows {
            let place = Place {
                piece: number,
                at,
                len: row.len,
            };
            at += RECORD_HEADER + u64::from(row.len);
            match row.key {
                Key::Grant => put(&mut self.grants, row.hash, place, moved),
                Key::Run { number } => put(&mut self.runs, number, (row.hash, place), moved),
                Key::Blob if moved => {
                    self.blobs.insert(row.hash, place);
                }
                Key::Blob => {
                    self.blobs.entry(row.hash).or_insert(place);
                }
                Key::Entry {
                    writer,
                    seq,
                    header,
                } => {
                    let log = self.entries.entry(writer).or_default();
                    put(log, seq, (header, row.hash, place), moved);
                }
                Key::Range {
                    writer,
                    from,
                    to,
                    last,
                } => {
                    let log = self.ranges.entry(writer).or_default();
                    put(log, to, (from, last, row.hash, place), moved);
                }
            }
        }
        let piece = Piece {
            seal: contents.seal,
            len,
            records: at - BEGIN_LEN,
        };
        self.pieces.insert(number, piece);
    }

    /// Up to where each log is here without a gap.
    pub fn clock(&self) -> Clock {
        let mut clock = Clock::new();
        let writers: BTreeSet<&WriterId> = self.entries.keys().chain(self.ranges.keys()).collect();
        for writer in writers {
            let entries = self.entries.get(writer);
            let ranges = self.ranges.get(writer);
            let (mut next, mut last) = (1, None);
            loop {
                let whole = (next..)
                    .zip(entries.into_iter().flat_map(|log| log.range(next..)))
                    .take_while(|(next, (seq, _))| next == *seq);
                if let Some((seq, (_, (header, ..)))) = whole.last() {
                    last = Some((seq, *header));
                    next = seq + 1;
                }
                let over = ranges.and_then(|log| log.range(next..).next());
                match over.filter(|(_, (from, ..))| *from <= next) {
                    Some((to, (_, header, ..))) => {
                        last = Some((*to, *header));
                        next = to + 1;
                    }
                    None => break,
                }
            }
            if let Some((seq, header)) = last {
                clock.observe(*writer, seq, header);
            }
        }
        clock
    }

    /// The range that stands for this entry, and what was said of it, if it can be read. Blocking.
    pub fn range_over(&self, writer: WriterId, seq: u64) -> Result<Option<Message>, ArchiveError> {
        let over = self
            .ranges
            .get(&writer)
            .and_then(|log| log.range(seq..).next());
        let Some((to, (from, last, hash, place))) = over.filter(|(_, (from, ..))| *from <= seq)
        else {
            return Ok(None);
        };
        let key = Key::Range {
            writer,
            from: *from,
            to: *to,
            last: *last,
        };
        let bytes = self.read(place, &row(key, *hash, place))?;
        Ok(bytes.and_then(|bytes| Message::decode(&bytes).ok()))
    }

    /// Whether a grant, by the hash of its bytes, is here.
    pub fn has_grant(&self, bytes: &[u8]) -> bool {
        self.grants.contains_key(&piece::hash(bytes))
    }

    /// Whether a blob is here.
    pub fn has_blob(&self, blob: &Hash) -> bool {
        self.blobs.contains_key(blob)
    }

    /// All grants that can be read, at most as many as a vault may have. Blocking.
    pub fn grants(&self) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let mut found = Vec::new();
        for (hash, place) in self.grants.iter().take(MAX_GRANTS) {
            let row = row(Key::Grant, *hash, place);
            found.extend(self.read(place, &row)?);
        }
        Ok(found)
    }

    /// Entries of a log from `from` to `to`, as far as they follow one another and can be read, until they have
    /// `max_bytes`; one at least. Blocking.
    pub fn entries(
        &self,
        writer: WriterId,
        (from, to): (u64, u64),
        max_bytes: usize,
    ) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let Some(log) = self.entries.get(&writer).filter(|_| from <= to) else {
            return Ok(found);
        };
        for (next, (seq, (header, hash, place))) in (from..).zip(log.range(from..=to)) {
            bytes += place.len as usize;
            if next != *seq || !found.is_empty() && bytes > max_bytes {
                break;
            }
            let key = Key::Entry {
                writer,
                seq: *seq,
                header: *header,
            };
            match self.read(place, &row(key, *hash, place))? {
                Some(entry) => found.push(entry),
                None => break,
            }
        }
        Ok(found)
    }

    /// All runs that can be read, oldest first. Blocking.
    pub fn runs(&self) -> Result<Vec<Run>, ArchiveError> {
        let mut runs = Vec::new();
        for (number, (hash, place)) in &self.runs {
            let row = row(Key::Run { number: *number }, *hash, place);
            let run = self.read(place, &row)?;
            let run = run.and_then(|bytes| Verified::<Run>::decode(&bytes).ok());
            runs.extend(run.map(|run| run.value().clone()));
        }
        Ok(runs)
    }

    /// What it keeps.
    pub fn kept(&self) -> Kept {
        let ranges = self.ranges.values().flatten();
        Kept {
            bytes: self.pieces.values().map(|piece| piece.len).sum(),
            files: self.pieces.len() as u64,
            entries: self
                .entries
                .values()
                .map(|log| log.len() as u64)
                .sum::<u64>()
                + ranges.map(|(to, (from, ..))| to - from + 1).sum::<u64>(),
            blobs: self.blobs.len() as u64,
        }
    }

    fn read(&self, place: &Place, row: &Row) -> Result<Option<Vec<u8>>, ArchiveError> {
        let mut bytes = Vec::new();
        let path = || folder::piece_path(&self.dir, place.piece);
        match self.read_onto(place, row, &mut bytes) {
            Ok(true) => Ok(Some(bytes)),
            Ok(false) => {
                tracing::warn!(file = %path().display(), at = place.at, "a record of a backup is damaged");
                Ok(None)
            }
            Err(error) => Err(ArchiveError::io(format!("read {}", path().display()))(
                error,
            )),
        }
    }

    pub(super) fn read_onto(
        &self,
        place: &Place,
        row: &Row,
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = open.iter().position(|(piece, _)| *piece == place.piece);
        let file = match found {
            Some(at) => open.remove(at),
            None => (place.piece, open_piece(&self.dir, place.piece)?),
        };
        // The one used last comes last, and the first goes.
        if open.len() >= OPEN_FILES {
            open.remove(0);
        }
        let read = piece::read_record(&file.1, place.at, row, out);
        open.push(file);
        read
    }

    /// Closes what is open of data files, so that they can be removed everywhere.
    pub(super) fn close_files(&self) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// The row of a blob.
    pub(super) fn blob_row(blob: Hash, place: &Place) -> Row {
        row(Key::Blob, blob, place)
    }
}

impl Shelf for Archive {
    fn sealed(&self, blob: &Hash, out: &mut Vec<u8>) -> bool {
        let Some(place) = self.blobs.get(blob) else {
            return false;
        };
        match self.read_onto(place, &Archive::blob_row(*blob, place), out) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a data file of a backup cannot be read");
                false
            }
        }
    }
}

fn row(key: Key, hash: Hash, place: &Place) -> Row {
    Row {
        key,
        hash,
        len: place.len,
    }
}

fn open_piece(dir: &Path, number: u32) -> io::Result<File> {
    let path = folder::piece_path(dir, number);
    match File::open(&path) {
        // Where names are told apart by case, and somebody's copy has made them small.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let small = folder::piece_name(number).to_lowercase();
            File::open(path.with_file_name(small)).map_err(|_| error)
        }
        opened => opened,
    }
}

/// The vault that the first readable data file is of.
fn told_by_pieces(dir: &Path) -> Result<Option<VaultId>, ArchiveError> {
    for (number, _) in folder::pieces(dir)? {
        match open_piece(dir, number).map_err(PieceError::from) {
            Ok(file) => match piece::vault_of(&file) {
                Ok(vault) => return Ok(Some(vault)),
                Err(PieceError::Newer) => return Err(ArchiveError::Newer(dir.into())),
                Err(_) => {}
            },
            Err(error) => tracing::debug!(%error, "a data file cannot be opened"),
        }
    }
    Ok(None)
}
