//! The reading seam: *where are this chunk's bytes?*
//!
//! In the blob store, in a pack, or in a file of a synced folder, which is sealed again on demand. Whatever a place gives is
//! checked before it is used, for files in folders change behind our back and disks rot: a sealed blob by its hash, a
//! plaintext by its chunk id. A place that fails is noted for the vault to forget, and the next one is tried.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use coffer_protocol::frame::{self, FRAME_HEADER_LEN, MAX_CHUNK};
use coffer_protocol::identity::{EpochId, Hash};
use coffer_protocol::keys::Keyring;
use redb::ReadableDatabase;

use super::Shared;
use super::content::Named;
use super::error::BlobsError;
use super::placement::{Placement, Reader};
use super::sources::FolderPaths;
use super::store::append_from;

/// Reads blobs and chunks as of one moment. Blocking. Cheap to make; made anew for each batch, so that it sees new rows
/// and keeps no file open for long.
pub(super) struct Seam<'a> {
    shared: &'a Shared,
    reader: Reader,
    keyring: Arc<Keyring>,
    folders: Option<Arc<dyn FolderPaths>>,
    /// The file that was read last: chunks of one file are mostly asked for together.
    last: Option<(Place, File)>,
    /// The file that was looked at last without opening it, and whether it is there as it was recorded.
    stood: Option<(Place, bool)>,
    /// Reused between calls.
    buffer: Vec<u8>,
}

/// Where a plaintext on this device was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In a file of a synced folder: its frame is uncompressed.
    File,
    /// In the blob store, which holds its ciphertext.
    Store {
        /// Whether its frame is compressed, and no file can stand for it.
        compressed: bool,
    },
}

/// A file that a placement names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    File(u32, [u8; 16]),
    Kept(u32, [u8; 24]),
}

/// A range of plaintext in a file.
struct Plain {
    place: Place,
    offset: u64,
    len: u32,
    frame: Hash,
    epoch: EpochId,
}

impl Plain {
    fn of(placement: &Placement) -> Option<Self> {
        let (place, offset, len, frame, epoch) = match *placement {
            Placement::Store | Placement::Pack { .. } => return None,
            Placement::File {
                root,
                file,
                offset,
                len,
                frame,
                epoch,
            } => (Place::File(root, file), offset, len, frame, epoch),
            Placement::Kept {
                root,
                name,
                offset,
                len,
                frame,
                epoch,
            } => (Place::Kept(root, name), offset, len, frame, epoch),
        };
        (len as usize <= MAX_CHUNK).then_some(Self {
            place,
            offset,
            len,
            frame: Hash(frame),
            epoch: EpochId(epoch),
        })
    }
}

impl<'a> Seam<'a> {
    pub fn new(shared: &'a Shared) -> Result<Self, BlobsError> {
        let transaction = shared
            .db
            .begin_read()
            .map_err(super::placement::PlacementError::from)?;
        Ok(Self {
            shared,
            reader: Reader::new(&transaction)?,
            keyring: shared.keyring(),
            folders: shared.folders(),
            last: None,
            stood: None,
            buffer: Vec::new(),
        })
    }

    /// Appends the ciphertext of `blob`, checked, to `out`; false, and nothing is appended, if it is not here.
    pub fn sealed(&mut self, blob: &Hash, out: &mut Vec<u8>) -> Result<bool, BlobsError> {
        for placement in self.reader.places(blob)? {
            let before = out.len();
            let good = match Plain::of(&placement) {
                Some(plain) => self.seal_again(&plain, blob, out),
                None => {
                    self.shared
                        .store
                        .read(blob, &placement, out)
                        .unwrap_or(false)
                        && frame::blob_id(&out[before..]) == *blob
                }
            };
            if good {
                return Ok(true);
            }
            out.truncate(before);
            self.note_failed(*blob, placement);
        }
        Ok(false)
    }

    /// Whether `blob` is here, by what lies where it should be: nothing is read, so what has gone bad counts.
    pub fn has(&mut self, blob: &Hash) -> Result<bool, BlobsError> {
        let places = self.reader.places(blob)?;
        Ok(places.iter().any(|placement| self.stands(blob, placement)))
    }

    /// Whether what a placement names is there, and a file as it was recorded.
    fn stands(&mut self, blob: &Hash, placement: &Placement) -> bool {
        let Some(place) = Plain::of(placement).map(|plain| plain.place) else {
            return self.shared.store.has_file(blob, placement);
        };
        if let Some((_, stood)) = self.stood.filter(|(last, _)| *last == place) {
            return stood;
        }
        let found = self
            .path(place)
            .and_then(|path| path.symlink_metadata().ok());
        let stands = found
            .filter(std::fs::Metadata::is_file)
            .is_some_and(|found| match place {
                Place::File(root, id) => {
                    let folders = self.folders.as_ref();
                    folders.is_some_and(|folders| folders.is_as_recorded(root, &id, &found))
                }
                Place::Kept(..) => true,
            });
        self.stood = Some((place, stands));
        stands
    }

    /// Whether one place of `blob` gives it; appends its ciphertext to `out` if so.
    pub fn check(&mut self, blob: &Hash, placement: &Placement, out: &mut Vec<u8>) -> bool {
        // Opened anew: the file that is remembered may have been replaced since.
        self.last = None;
        Plain::of(placement).is_some_and(|plain| self.seal_again(&plain, blob, out))
    }

    /// Whether the file behind a place can be opened.
    pub fn can_open(&self, placement: &Placement) -> bool {
        Plain::of(placement)
            .and_then(|plain| self.path(plain.place))
            .is_some_and(|path| open_regular(&path).is_some())
    }

    /// Whether this device has the key of an epoch.
    pub fn has_epoch(&self, epoch: &[u8; 32]) -> bool {
        self.keyring.epoch(&EpochId(*epoch)).is_some()
    }

    /// Puts the plaintext of `chunk`, checked, into `out` (cleared first), and tells where it was; `None` if it is not
    /// here.
    pub fn plain(
        &mut self,
        chunk: &Named,
        out: &mut Vec<u8>,
    ) -> Result<Option<Origin>, BlobsError> {
        for placement in self.reader.places(&chunk.blob)? {
            out.clear();
            let origin = match Plain::of(&placement) {
                Some(plain) => {
                    let good = plain.len == chunk.len
                        && self.read(&plain, out)
                        && self.keyring.secret().chunk_id(out) == chunk.id;
                    good.then_some(Origin::File)
                }
                None => self
                    .open_stored(chunk, &placement, out)
                    .map(|compressed| Origin::Store { compressed }),
            };
            if origin.is_some() {
                return Ok(origin);
            }
            self.note_failed(chunk.blob, placement);
        }
        out.clear();
        Ok(None)
    }

    /// A place did not give what it should. It is one to forget if it can never give it again: not while its folder has
    /// not started yet or is not there, nor while a file is not as it was recorded. Then a move or a change was not
    /// looked at yet, and what follows from it for the place is known when it was.
    fn note_failed(&self, blob: Hash, placement: Placement) {
        let opened = |place| match &self.last {
            Some((last, file)) if *last == place => Some(file),
            _ => None,
        };
        let folders = self.folders.as_ref();
        let for_good = match Plain::of(&placement).map(|plain| plain.place) {
            None => true,
            Some(place @ Place::File(root, id)) => opened(place)
                .and_then(|file| file.metadata().ok())
                .zip(folders)
                .is_some_and(|(found, folders)| folders.is_as_recorded(root, &id, &found)),
            Some(place @ Place::Kept(root, _)) => {
                opened(place).is_some() || folders.is_some_and(|folders| folders.is_there(root))
            }
        };
        if for_good {
            self.shared.note_stale(blob, placement);
        }
    }

    /// Whether the frame of a chunk of the store is compressed; `None` if it is not there, or not whole.
    fn open_stored(
        &mut self,
        chunk: &Named,
        placement: &Placement,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let epoch = self.keyring.epoch(&chunk.epoch)?;
        let mut sealed = std::mem::take(&mut self.buffer);
        sealed.clear();
        let read = self.shared.store.read(&chunk.blob, placement, &mut sealed);
        let opened = read.unwrap_or(false).then(|| {
            let (expected, secret) = (chunk.expected(), self.keyring.secret());
            frame::open_frame_into(&sealed, &expected, secret, epoch, out)
        });
        self.buffer = sealed;
        opened?.ok()
    }

    /// Seals a range of a file as it was sealed when it was named. Sealing is deterministic: the same plaintext gives the
    /// same blob, and any other does not.
    fn seal_again(&mut self, plain: &Plain, blob: &Hash, out: &mut Vec<u8>) -> bool {
        let keyring = Arc::clone(&self.keyring);
        let Some(epoch) = keyring.epoch(&plain.epoch) else {
            return false;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.resize(FRAME_HEADER_LEN, 0);
        let good = self.read(plain, &mut buffer)
            && frame::seal_frame_in_place(&mut buffer, keyring.secret(), epoch)
                .is_ok_and(|ids| ids.frame == plain.frame && ids.blob == *blob);
        if good {
            out.extend_from_slice(&buffer);
        }
        self.buffer = buffer;
        good
    }

    /// Appends a range of a file to `out`.
    fn read(&mut self, plain: &Plain, out: &mut Vec<u8>) -> bool {
        if self
            .last
            .as_ref()
            .is_none_or(|(place, _)| *place != plain.place)
        {
            self.last = self
                .path(plain.place)
                .and_then(|path| open_regular(&path))
                .map(|file| (plain.place, file));
        }
        let Some((_, file)) = &self.last else {
            return false;
        };
        append_from(file, plain.offset, plain.len as usize, out).unwrap_or(false)
    }

    fn path(&self, place: Place) -> Option<std::path::PathBuf> {
        let folders = self.folders.as_ref()?;
        match place {
            Place::File(root, file) => folders.file(root, &file),
            Place::Kept(root, name) => folders.kept(root, &name),
        }
    }
}

/// Opens a file that lies where anybody may have put anything: no link is followed, and no pipe is waited for.
fn open_regular(path: &Path) -> Option<File> {
    let file = super::import::open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}
