//! Pack files: many blobs in one file, so that thousands of small ones cost one fsync.
//!
//! ```text
//! packs/<number of the vault>/<number of the pack>.pack      a run of: blob id[32] · length u32 · bytes
//! ```
//!
//! A vault's newest pack is appended to until it is [`FULL`]; bytes are made durable before the rows that point to them.
//! What a crash leaves after the length in a pack's row is overwritten by the next append. Nothing else is ever
//! changed, and no pack's number is used again, so that a place which was read once points to that blob or to nothing.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coffer_protocol::identity::Hash;

use super::rows::{PackRow, Place};

/// Bytes from which a pack is not appended to: small enough to be rewritten at once, large enough that a terabyte is not
/// a burden of files.
pub const FULL: u32 = 16 << 20;
/// Bytes in front of each blob.
pub const HEADER: u32 = 36;
/// Free bytes of the disk below which no blob is taken, so that entries, releases and erasures still are.
const DISK_RESERVE: u64 = 64 << 20;
/// Bytes that are gathered for one write.
const BUFFER: usize = 256 << 10;

/// The folder of all packs.
#[derive(Clone, Debug)]
pub struct Packs(pub PathBuf);

impl Packs {
    /// The folder of a vault's packs.
    pub fn folder(&self, number: u32) -> PathBuf {
        self.0.join(number.to_string())
    }

    /// The file of a pack.
    pub fn file(&self, number: u32, pack: u32) -> PathBuf {
        self.folder(number).join(format!("{pack}.pack"))
    }

    /// Whether a pack has at least what its row counts.
    pub fn has(&self, number: u32, pack: u32, row: PackRow) -> bool {
        let found = self.file(number, pack).metadata();
        found.is_ok_and(|found| found.len() >= u64::from(row.len))
    }

    /// Writes blobs into a pack after what its row counts, and gives their places and the length after them. Not durable
    /// until [`sync`](Self::sync).
    pub fn append(
        &self,
        number: u32,
        pack: u32,
        row: PackRow,
        blobs: &[(Hash, Bytes)],
    ) -> io::Result<Written> {
        let bytes: usize = blobs.iter().map(|(_, bytes)| bytes.len()).sum();
        let free = rustix::fs::statvfs(&self.0)?;
        if free.f_bavail.saturating_mul(free.f_frsize) < DISK_RESERVE + bytes as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let is_new = row.len == 0;
        let folder = self.folder(number);
        if is_new && !folder.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)?;
            File::open(&self.0)?.sync_all()?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(is_new)
            .mode(0o600)
            .open(self.file(number, pack))?;
        file.set_len(u64::from(row.len))?;
        file.seek(SeekFrom::Start(u64::from(row.len)))?;
        let mut places = Vec::with_capacity(blobs.len());
        let mut len = row.len;
        let mut out = BufWriter::with_capacity(BUFFER, &file);
        for (id, bytes) in blobs {
            let size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            out.write_all(&id.0)?;
            out.write_all(&size.to_be_bytes())?;
            out.write_all(bytes)?;
            places.push(Place {
                pack,
                offset: len + HEADER,
                len: size,
            });
            len += HEADER + size;
        }
        out.flush()?;
        drop(out);
        Ok(Written {
            file,
            new_in: is_new.then_some(folder),
            places,
        })
    }

    /// Bytes of a pack, from `offset` on.
    pub fn read(&self, number: u32, pack: u32, offset: u32, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        File::open(self.file(number, pack))?.read_exact_at(&mut bytes, u64::from(offset))?;
        Ok(bytes.into())
    }

    /// Removes a pack, and says how many bytes it had; one that is not there is no error.
    pub fn remove(&self, number: u32, pack: u32) -> io::Result<u64> {
        let path = self.file(number, pack);
        let len = match path.metadata() {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(len),
        }
    }

    /// Removes all packs of a vault, durably, and says how many bytes they had.
    pub fn remove_all(&self, number: u32) -> io::Result<u64> {
        let folder = self.folder(number);
        let mut freed = 0;
        match std::fs::read_dir(&folder) {
            Ok(files) => {
                for file in files {
                    freed += file?.metadata()?.len();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        }
        std::fs::remove_dir_all(&folder)?;
        File::open(&self.0)?.sync_all()?;
        Ok(freed)
    }
}

/// Blobs that were written to a pack.
pub struct Written {
    file: File,
    new_in: Option<PathBuf>,
    pub places: Vec<Place>,
}

impl Written {
    /// Makes them durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        match &self.new_in {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// The number that a file or folder among the packs is named by.
pub fn number_of(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.parse().ok()
}
