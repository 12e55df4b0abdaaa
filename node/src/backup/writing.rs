//! A run: what is new is added, data files of which little is needed are written anew, and the run says that it is over.
//!
//! Data files come one after the other, each durable before the next begins, so what a torn run leaves is a shorter one.
//! The lists come last. Data files that they retire are removed after them, and by the next run where that was torn.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use coffer_protocol::identity::{DeviceKey, Hash, VaultId, WriterId};
use coffer_protocol::ranges::Head;
use coffer_protocol::replication::Message;
use coffer_protocol::signed::Verified;
use rustix::fs::FlockOperation;

use super::archive::{Archive, Place};
use super::error::ArchiveError;
use super::folder::{self, Header};
use super::piece::{self, BEGIN_LEN, Contents, Key, MAX_RECORD, MAX_ROWS, RECORD_HEADER, Row};
use super::run::{Lists, MAX_PIECES, Run};

/// A data file ends when it has so many bytes: what a torn run loses at most, and what is written anew for a little that
/// is given up. Every file system takes files of this size.
const PIECE_BYTES: u64 = 64 << 20;
/// A data file that stayed below this is small.
const SMALL: u64 = 4 << 20;
/// More small ones than this are made into one: many runs that add little would else leave as many files.
const MANY_SMALL: usize = 32;
/// Bytes that are written at a time.
const BUFFER: usize = 1 << 20;

/// What a run added and took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Entries of logs that were new.
    pub entries: u64,
    /// Blobs that were new.
    pub blobs: u64,
    /// Bytes written that were new.
    pub bytes: u64,
    /// Bytes of data files before and after that are not needed any more, and are gone.
    pub freed_bytes: u64,
}

/// A run under way. One at a time in a folder.
pub struct Writer {
    archive: Archive,
    piece: Option<Open>,
    added: Added,
    /// Whether what is added was there before.
    moving: bool,
    /// Bytes with which a data file ends.
    piece_bytes: u64,
    _lock: File,
}

/// A data file that is being written.
struct Open {
    file: BufWriter<File>,
    number: u32,
    rows: Vec<Row>,
    len: u64,
}

impl Writer {
    /// Begins a run in `dir`, which is made a backup of `vault` if nothing is in it. Blocking.
    ///
    /// # Errors
    /// [`ArchiveError::NotABackup`], [`ArchiveError::OtherVault`], [`ArchiveError::InUse`], and those of [`Archive::open`].
    pub fn begin(dir: &Path, vault: VaultId) -> Result<Writer, ArchiveError> {
        let is_new =
            folder::read_header(dir)? == Header::Missing && folder::pieces(dir)?.is_empty();
        if is_new {
            if !folder::is_free(dir)? {
                return Err(ArchiveError::NotABackup(dir.into()));
            }
            folder::begin(dir, vault)?;
        }
        let lock = lock(dir)?;
        let mut archive = Archive::open(dir)?;
        if archive.vault() != vault {
            return Err(ArchiveError::OtherVault(dir.into()));
        }
        if matches!(archive.header, Header::Missing | Header::Damaged) {
            folder::begin(dir, vault)?;
            archive.header = Header::Of(vault);
        }
        let mut writer = Writer {
            archive,
            piece: None,
            added: Added::default(),
            moving: false,
            piece_bytes: PIECE_BYTES,
            _lock: lock,
        };
        writer.clear_up()?;
        Ok(writer)
    }

    /// What is there already.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Ends data files earlier than people's disks need it.
    #[cfg(test)]
    pub(super) fn end_pieces_at(&mut self, bytes: u64) {
        self.piece_bytes = bytes;
    }

    /// Removes what a torn run left.
    fn clear_up(&mut self) -> Result<(), ArchiveError> {
        let path = folder::unfinished(self.archive.dir());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
        let lists = self.archive.lists.as_ref();
        let retired = lists.map_or(Vec::new(), |lists| lists.value().retired.clone());
        self.remove(&retired).map(drop)
    }

    fn remove(&mut self, retired: &[u32]) -> Result<u64, ArchiveError> {
        self.archive.close_files();
        let mut freed = 0;
        for number in retired {
            let path = folder::piece_path(self.archive.dir(), *number);
            let len = fs::metadata(&path).map_or(0, |about| about.len());
            match fs::remove_file(&path) {
                Ok(()) => freed += len,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("remove", &path)(error)),
            }
        }
        Ok(freed)
    }

    /// Adds a grant.
    pub fn grant(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        match self.archive.has_grant(bytes) {
            true => Ok(()),
            false => self.add(Row::of(Key::Grant, bytes), bytes),
        }
    }

    /// Adds an entry.
    pub fn entry(
        &mut self,
        writer: WriterId,
        (seq, header): (u64, Hash),
        bytes: &[u8],
    ) -> Result<(), ArchiveError> {
        let key = Key::Entry {
            writer,
            seq,
            header,
        };
        self.add(Row::of(key, bytes), bytes)?;
        self.added.entries += 1;
        Ok(())
    }

    /// Adds a range and what was said of it, in the place of entries.
    pub fn range(&mut self, head: &Head, range: &Message) -> Result<(), ArchiveError> {
        let bytes = range.encode();
        let key = Key::Range {
            writer: head.writer,
            from: head.from,
            to: head.to,
            last: head.last,
        };
        self.add(Row::of(key, &bytes), &bytes)?;
        self.added.entries += head.to - head.from + 1;
        Ok(())
    }

    /// Adds a blob, whose hash the caller has checked.
    pub fn blob(&mut self, blob: Hash, bytes: &[u8]) -> Result<(), ArchiveError> {
        let row = Row {
            key: Key::Blob,
            hash: blob,
            len: bytes.len() as u32,
        };
        self.add(row, bytes)?;
        self.added.blobs += 1;
        Ok(())
    }

    fn add(&mut self, row: Row, bytes: &[u8]) -> Result<(), ArchiveError> {
        if bytes.len() > MAX_RECORD {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(failed("write", self.archive.dir())(error));
        }
        let is_full = self.piece.as_ref().is_some_and(|piece| {
            piece.rows.len() == MAX_ROWS || piece.len + bytes.len() as u64 > self.piece_bytes
        });
        if is_full {
            self.end_piece()?;
        }
        let path = folder::unfinished(self.archive.dir());
        let piece = match &mut self.piece {
            Some(piece) => piece,
            none => {
                let number = self.archive.last.0 + 1;
                let mut file = File::create(&path).map_err(failed("make", &path))?;
                let begin = piece::beginning(self.archive.vault(), number);
                file.write_all(&begin).map_err(failed("write", &path))?;
                none.insert(Open {
                    file: BufWriter::with_capacity(BUFFER, file),
                    number,
                    rows: Vec::new(),
                    len: BEGIN_LEN,
                })
            }
        };
        let written = piece
            .file
            .write_all(&row.header())
            .and_then(|()| piece.file.write_all(bytes));
        piece.len += RECORD_HEADER + bytes.len() as u64;
        piece.rows.push(row);
        if !self.moving {
            self.added.bytes += bytes.len() as u64;
        }
        written.map_err(|error| self.give_up(error))
    }

    /// A write failed: what is unfinished goes, for it may be what fills the disk.
    fn give_up(&mut self, error: io::Error) -> ArchiveError {
        self.piece = None;
        let path = folder::unfinished(self.archive.dir());
        let _ = fs::remove_file(&path);
        failed("write", &path)(error)
    }

    /// Makes what was added so far durable.
    fn end_piece(&mut self) -> Result<(), ArchiveError> {
        let Some(mut piece) = self.piece.take() else {
            return Ok(());
        };
        let dir = self.archive.dir().to_path_buf();
        let (end, seal) = piece::ending(self.archive.vault(), piece.number, &piece.rows);
        let path = folder::piece_path(&dir, piece.number);
        let finish = || -> io::Result<()> {
            piece.file.write_all(&end)?;
            let file = piece
                .file
                .into_inner()
                .map_err(|error| error.into_error())?;
            file.sync_all()?;
            drop(file);
            fs::rename(folder::unfinished(&dir), &path)?;
            folder::sync_folder(&dir.join(folder::DATA))
        };
        finish().map_err(|error| self.give_up(error))?;
        self.archive.last.0 = piece.number;
        let contents = Contents {
            rows: piece.rows,
            seal: Some(seal),
        };
        let len = piece.len + end.len() as u64;
        self.archive.take(piece.number, len, &contents, self.moving);
        Ok(())
    }

    /// How much had been purged in the vault at the last run.
    pub fn purged(&self) -> u64 {
        let lists = self.archive.lists.as_ref();
        lists.map_or(0, |lists| lists.value().purged)
    }

    /// The number that this run has.
    pub fn number(&self) -> u64 {
        self.archive
            .runs
            .keys()
            .next_back()
            .map_or(1, |last| last + 1)
    }

    /// Ends the run, signed with `key`. Blobs for which `is_named` says no are given up: at once with `all`, else where
    /// they are more than half of a data file. With `None` nothing is. Gives what was added and freed.
    pub fn end(
        mut self,
        run: Run,
        purged: u64,
        key: &DeviceKey,
        is_named: Option<&dyn Fn(&Hash) -> bool>,
        all: bool,
    ) -> Result<(Archive, Added), ArchiveError> {
        let signing = |_| failed("sign for", self.archive.dir())(io::Error::other("wrong key"));
        let signed = Verified::sign(run, key).map_err(signing)?;
        let row_key = Key::Run {
            number: signed.value().number,
        };
        self.add(Row::of(row_key, signed.bytes()), signed.bytes())?;
        self.end_piece()?;
        let anew = self.to_write_anew(is_named, all);
        let retired = self.write_anew(&anew, is_named)?;
        let run = signed.value();
        let lists = Lists {
            version: Lists::VERSION,
            vault: run.vault,
            device: run.device,
            run: run.number,
            pieces: (self.archive.pieces.iter())
                .filter_map(|(number, piece)| Some((*number, piece.seal?)))
                .take(MAX_PIECES)
                .collect(),
            retired,
            purged,
        };
        let retired = lists.retired.clone();
        let signing = |_| failed("sign for", self.archive.dir())(io::Error::other("wrong key"));
        let lists = Verified::sign(lists, key).map_err(signing)?;
        let number = self.archive.last.1 + 1;
        let dir = self.archive.dir().to_path_buf();
        folder::write_whole(&dir, &folder::lists_name(number), lists.bytes())
            .map_err(failed("write in", &dir))?;
        let before = self.archive.last.1;
        self.archive.last.1 = number;
        self.archive.lists = Some(lists);
        self.added.freed_bytes = self.remove(&retired)?;
        // The one before stays, for the case that the newest does not last.
        for (number, _) in folder::lists(&dir)? {
            if number < before {
                let path = dir.join(folder::lists_name(number));
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok((self.archive, self.added))
    }

    /// Bytes of records that are needed, for each data file.
    fn needed(&self, is_named: Option<&dyn Fn(&Hash) -> bool>) -> BTreeMap<u32, u64> {
        let archive = &self.archive;
        let mut needed: BTreeMap<u32, u64> = BTreeMap::new();
        let mut count = |place: &Place| {
            *needed.entry(place.piece).or_default() += RECORD_HEADER + u64::from(place.len);
        };
        archive.grants.values().for_each(&mut count);
        archive.runs.values().for_each(|(_, place)| count(place));
        let entries = archive.entries.values().flat_map(BTreeMap::values);
        entries.for_each(|(.., place)| count(place));
        let ranges = archive.ranges.values().flat_map(BTreeMap::values);
        ranges.for_each(|(.., place)| count(place));
        for (blob, place) in &archive.blobs {
            if is_named.is_none_or(|is_named| is_named(blob)) {
                count(place);
            }
        }
        needed
    }

    /// Data files that are written anew.
    fn to_write_anew(&self, is_named: Option<&dyn Fn(&Hash) -> bool>, all: bool) -> BTreeSet<u32> {
        let needed = self.needed(is_named);
        let mut anew = BTreeSet::new();
        let mut small = Vec::new();
        for (number, piece) in &self.archive.pieces {
            if piece.seal.is_none() {
                // Of one that is damaged nothing is thrown away.
                continue;
            }
            let (needed, rows) = (needed.get(number).copied().unwrap_or(0), piece.records);
            if needed * 2 < rows || all && needed < rows {
                anew.insert(*number);
            } else if piece.len < SMALL {
                small.push(*number);
            }
        }
        if small.len() > MANY_SMALL {
            anew.extend(small);
        }
        anew
    }

    fn contents(&self, number: u32) -> Option<Contents> {
        let known = self.archive.pieces.get(&number)?;
        known.seal?;
        let path = folder::piece_path(self.archive.dir(), number);
        let file = File::open(path).ok()?;
        let contents = piece::contents(&file, known.len, self.archive.vault(), number).ok()?;
        (contents.seal == known.seal).then_some(contents)
    }

    /// Copies what is needed of data files into new ones. Gives those that are not needed any more.
    fn write_anew(
        &mut self,
        anew: &BTreeSet<u32>,
        is_named: Option<&dyn Fn(&Hash) -> bool>,
    ) -> Result<Vec<u32>, ArchiveError> {
        let mut retired = Vec::new();
        self.moving = true;
        for number in anew {
            let Some(contents) = self.contents(*number) else {
                continue;
            };
            if let Some(moved) = self.copy(*number, &contents, is_named)? {
                for (key, hash) in moved {
                    self.archive.forget(&key, &hash, *number);
                }
                retired.push(*number);
            }
        }
        // Only now do they lie elsewhere, and are found there.
        self.end_piece()?;
        for number in &retired {
            self.archive.pieces.remove(number);
        }
        self.moving = false;
        Ok(retired)
    }

    /// Copies what is needed of one data file; `None` where a record of it is damaged, and the file has to stay.
    fn copy(
        &mut self,
        number: u32,
        contents: &Contents,
        is_named: Option<&dyn Fn(&Hash) -> bool>,
    ) -> Result<Option<Vec<(Key, Hash)>>, ArchiveError> {
        let mut at = BEGIN_LEN;
        let mut gone = Vec::new();
        let mut bytes = Vec::new();
        for row in &contents.rows {
            let place = Place {
                piece: number,
                at,
                len: row.len,
            };
            at += RECORD_HEADER + u64::from(row.len);
            if !self.archive.lies_at(&row.key, &row.hash, &place) {
                continue;
            }
            let is_needed = row.key != Key::Blob || is_named.is_none_or(|named| named(&row.hash));
            if is_needed {
                bytes.clear();
                let path = folder::piece_path(self.archive.dir(), number);
                let read = self.archive.read_onto(&place, row, &mut bytes);
                if !read.map_err(failed("read", &path))? {
                    return Ok(None);
                }
                self.add(*row, &bytes)?;
            }
            gone.push((row.key, row.hash));
        }
        Ok(Some(gone))
    }
}

impl Archive {
    fn lies_at(&self, key: &Key, hash: &Hash, place: &Place) -> bool {
        let known = match key {
            Key::Grant => self.grants.get(hash),
            Key::Blob => self.blobs.get(hash),
            Key::Run { number } => self.runs.get(number).map(|(_, place)| place),
            Key::Entry { writer, seq, .. } => {
                let log = self.entries.get(writer);
                log.and_then(|log| log.get(seq)).map(|(.., place)| place)
            }
            Key::Range { writer, to, .. } => {
                let log = self.ranges.get(writer);
                log.and_then(|log| log.get(to)).map(|(.., place)| place)
            }
        };
        known == Some(place)
    }

    /// Forgets that a record lies in a data file.
    fn forget(&mut self, key: &Key, hash: &Hash, piece: u32) {
        match key {
            Key::Grant => {
                if self
                    .grants
                    .get(hash)
                    .is_some_and(|place| place.piece == piece)
                {
                    self.grants.remove(hash);
                }
            }
            Key::Blob => {
                if self
                    .blobs
                    .get(hash)
                    .is_some_and(|place| place.piece == piece)
                {
                    self.blobs.remove(hash);
                }
            }
            Key::Run { number } => {
                if self
                    .runs
                    .get(number)
                    .is_some_and(|(_, place)| place.piece == piece)
                {
                    self.runs.remove(number);
                }
            }
            Key::Entry { writer, seq, .. } => {
                if let Some(log) = self.entries.get_mut(writer)
                    && log.get(seq).is_some_and(|(.., place)| place.piece == piece)
                {
                    log.remove(seq);
                }
            }
            Key::Range { writer, to, .. } => {
                if let Some(log) = self.ranges.get_mut(writer)
                    && log.get(to).is_some_and(|(.., place)| place.piece == piece)
                {
                    log.remove(to);
                }
            }
        }
    }
}

/// One run at a time: held as long as the folder is open. Where a file system has no locks, there is none.
fn lock(dir: &Path) -> Result<File, ArchiveError> {
    let path = dir.join(folder::DATA);
    let folder = File::open(&path).map_err(failed("open", &path))?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ArchiveError::InUse(dir.into())),
        _ => Ok(folder),
    }
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    ArchiveError::io(format!("{what} {}", path.display()))
}
