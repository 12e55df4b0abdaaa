//! Why an operation on files and blobs did not end well. None of these leaves anything half-done in sight.

use std::io;

use coffer_protocol::identity::EpochId;

use super::placement::PlacementError;

/// Why a file was not read into the vault. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It was written to meanwhile: try again when it has come to rest.
    #[error("the file changed while it was read")]
    Changed,
    /// It, or a folder above it, is gone.
    #[error("the file is no longer there")]
    Vanished,
    /// The file may not be read.
    #[error("no permission to read the file")]
    NoPermission,
    /// A folder, socket, device or symbolic link.
    #[error("this is not a regular file")]
    NotAFile,
    /// No room in the data folder.
    #[error("the disk is full")]
    DiskFull,
    /// Any other failure while reading it.
    #[error("the file could not be read: {0}")]
    Read(#[source] io::Error),
    /// The blob store or the placement tables failed.
    #[error(transparent)]
    Store(BlobsError),
}

impl ImportError {
    pub(super) fn reading(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Vanished,
            io::ErrorKind::PermissionDenied => Self::NoPermission,
            // ELOOP of O_NOFOLLOW, and ENXIO of a socket or of a pipe without a reader.
            _ if [rustix::io::Errno::LOOP, rustix::io::Errno::NXIO]
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
            {
                Self::NotAFile
            }
            _ => Self::Read(error),
        }
    }
}

impl From<BlobsError> for ImportError {
    fn from(error: BlobsError) -> Self {
        match error {
            BlobsError::DiskFull => Self::DiskFull,
            error => Self::Store(error),
        }
    }
}

/// Why a content could not be written or read. What was written stays where it is, and is not fetched again.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No connected device gave these blobs. Ask again when others are connected.
    #[error("{missing} pieces are on no device that can be reached now")]
    Unavailable {
        /// How many distinct blobs are lacking.
        missing: usize,
    },
    /// No room.
    #[error("the disk is full")]
    DiskFull,
    /// The temporary file may not be made or written.
    #[error("no permission to write the file")]
    NoPermission,
    /// The folder to write into is gone.
    #[error("the folder to write into is gone")]
    Vanished,
    /// The list of chunks contradicts itself, its size or the content's hash: no device can help.
    #[error("the list of the file's pieces is damaged")]
    BadList,
    /// More was asked for at once than is allowed.
    #[error("more than {max} bytes were asked for at once")]
    TooLong {
        /// The limit, in bytes.
        max: u64,
    },
    /// The key of this epoch has not arrived.
    #[error("no key for epoch {0}")]
    NoKey(EpochId),
    /// Any other failure of the temporary file.
    #[error("the file could not be written: {0}")]
    Write(#[source] io::Error),
    /// The blob store or the placement tables failed.
    #[error(transparent)]
    Store(BlobsError),
}

impl WriteError {
    pub(super) fn writing(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NoPermission
            }
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Vanished,
            _ => Self::Write(error),
        }
    }
}

impl From<BlobsError> for WriteError {
    fn from(error: BlobsError) -> Self {
        match error {
            BlobsError::DiskFull => Self::DiskFull,
            error => Self::Store(error),
        }
    }
}

/// Why the blob store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BlobsError {
    /// No room in the data folder (or less than is kept free for the vault itself).
    #[error("the disk is full")]
    DiskFull,
    /// The placement tables failed.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// A file of the blob store could not be read or written.
    #[error("reading or writing the contents of files failed: {0}")]
    Io(#[source] io::Error),
    /// The blob store itself failed.
    #[error("the store of contents failed: {0}")]
    Store(String),
    /// The store's own database is not what was written.
    #[error("the file blobs/blobs.db is not as coffer wrote it")]
    Damaged,
}

impl From<io::Error> for BlobsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io(error),
        }
    }
}

/// Why a stream on which blobs were asked for ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Stream(#[from] io::Error),
    /// The other side asked for something that is no request.
    #[error("a request does not decode: {0}")]
    BadRequest(String),
    /// Nothing moved for so long that the stream was given up.
    #[error("the other side takes nothing")]
    Stalled,
    /// A person has paused transfers.
    #[error("transfers are paused")]
    Paused,
    /// The placement tables failed.
    #[error(transparent)]
    Store(#[from] BlobsError),
}

/// The same error once more: what fails for a batch fails for each in it, and the causes beneath cannot be cloned.
impl BlobsError {
    pub(super) fn again(&self) -> Self {
        match self {
            Self::DiskFull => Self::DiskFull,
            Self::Damaged => Self::Damaged,
            other => Self::Store(other.to_string()),
        }
    }
}

impl WriteError {
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Unavailable { missing } => Self::Unavailable { missing: *missing },
            Self::DiskFull => Self::DiskFull,
            Self::NoPermission => Self::NoPermission,
            Self::Vanished => Self::Vanished,
            Self::BadList => Self::BadList,
            Self::TooLong { max } => Self::TooLong { max: *max },
            Self::NoKey(epoch) => Self::NoKey(*epoch),
            Self::Write(error) => Self::Write(std::io::Error::new(error.kind(), error.to_string())),
            Self::Store(error) => Self::Store(error.again()),
        }
    }
}
