//! The disk under a synced folder: its root, the hidden `.vault/` in it, and the system calls used on both.
//!
//! Every path is walked folder by folder from an open root, and no symbolic link is ever followed: a link that appears
//! in the middle of a path while we work makes the call fail instead of leading out of the folder. Nothing is ever
//! renamed onto something that is there ([`Place::put`]), except by an exchange of the two ([`Place::exchange`]).
//!
//! ```text
//! .vault/marker   which synced folder of which vault this is; without it nothing is taken as deleted
//! .vault/tmp/     files being written; same file system, so that they can be renamed into place
//! .vault/kept/    contents that a remote change replaced or deleted
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use coffer_protocol::identity::VaultId;
use rustix::io::Errno;

use super::disk::{Dir, Disk, Onto};
use super::profile::{Limit, Profile};
use super::rules::Rules;
use super::system::System;

/// The hidden folder directly in a synced folder.
pub const HIDDEN: &str = ".vault";

const MARKER: &str = "marker";
const TMP: &str = "tmp";
const KEPT: &str = "kept";

/// A marker is one short line; anything longer is not ours.
const MAX_MARKER_BYTES: usize = 256;

/// What the marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The synced folder's number on this device.
    pub number: u32,
    /// The vault.
    pub vault: VaultId,
}

impl Marker {
    fn text(&self) -> String {
        format!("coffer synced folder 1 {} {}\n", self.number, self.vault)
    }
}

/// Why a folder cannot be synced.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder itself is not there.
    #[error("{0} is not there; if it is on another disk, connect it")]
    Missing(PathBuf),
    /// The folder is there and its marker is not: perhaps an empty mount point.
    #[error(
        "{0} is not the synced folder that it was: .vault/marker is missing; if its disk is not mounted, mount it, else add the folder again"
    )]
    Unmarked(PathBuf),
    /// The marker is of another synced folder.
    #[error(
        "{0} is already synced as another folder or with another vault; remove its .vault folder if that is no longer so"
    )]
    Foreign(PathBuf),
    /// Not a folder.
    #[error("{0} is not a folder")]
    NotAFolder(PathBuf),
    /// Reading or writing failed.
    #[error("{path} cannot be used: {error}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The vault could not be read.
    #[error("{0}")]
    Vault(String),
}

/// An open synced folder. Cheap to share by `Arc`.
#[derive(Debug)]
pub struct Place {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    marker: Marker,
    root: Dir,
    root_inode: u64,
    device: u64,
    tmp: Dir,
    kept: Dir,
    file_mode: u32,
    profile: Profile,
    rules: Mutex<Arc<Rules>>,
}

impl Place {
    /// Makes the folder, its hidden folder and the marker.
    ///
    /// # Errors
    /// [`FolderError::Foreign`] where another marker is, else what failed.
    pub fn prepare(path: &Path, marker: &Marker) -> Result<Place, FolderError> {
        Place::prepare_on(Arc::new(System), path, marker)
    }

    /// The same on any disk.
    ///
    /// # Errors
    /// As [`Place::prepare`].
    pub fn prepare_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        marker: &Marker,
    ) -> Result<Place, FolderError> {
        let failed = |error| io_failed(path, error);
        disk.make_all(path).map_err(failed)?;
        let root = open_root(&*disk, path)?;
        make_folder(&root, HIDDEN, 0o700).map_err(failed)?;
        let hidden = root.below(Path::new(HIDDEN)).map_err(failed)?;
        match hidden.read(MARKER, MAX_MARKER_BYTES) {
            Ok(text) if text == marker.text().as_bytes() => {}
            Ok(_) => return Err(FolderError::Foreign(path.to_path_buf())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let temporary = format!("{MARKER}.new");
                hidden
                    .write(&temporary, marker.text().as_bytes())
                    .map_err(failed)?;
                hidden
                    .rename(&temporary, &hidden, MARKER, Onto::Anything)
                    .map_err(failed)?;
                hidden.sync().map_err(failed)?;
                root.sync().map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Place::open_on(disk, path, marker)
    }

    /// Opens a folder that was prepared.
    ///
    /// # Errors
    /// [`FolderError::Missing`] and [`FolderError::Unmarked`] say that nothing may be concluded from what is not there.
    pub fn open(path: &Path, marker: &Marker) -> Result<Place, FolderError> {
        Place::open_on(Arc::new(System), path, marker)
    }

    /// The same on any disk.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        marker: &Marker,
    ) -> Result<Place, FolderError> {
        let failed = |error| io_failed(path, error);
        let root = open_root(&*disk, path)?;
        let unmarked = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                FolderError::Unmarked(path.to_path_buf())
            }
            _ => failed(error),
        };
        let hidden = root.below(Path::new(HIDDEN)).map_err(unmarked)?;
        let text = hidden.read(MARKER, MAX_MARKER_BYTES).map_err(unmarked)?;
        if text != marker.text().as_bytes() {
            return Err(FolderError::Foreign(path.to_path_buf()));
        }
        let own = root.stat().map_err(failed)?;
        make_folder(&hidden, TMP, 0o700).map_err(failed)?;
        make_folder(&hidden, KEPT, 0o700).map_err(failed)?;
        let tmp = hidden.below(Path::new(TMP)).map_err(failed)?;
        let kept = hidden.below(Path::new(KEPT)).map_err(failed)?;
        let (file_mode, time_step_ms) = probe_file(&tmp).map_err(failed)?;
        let profile = Profile {
            time_step_ms,
            ..probe_profile(&tmp)
        };
        let hidden = path.join(HIDDEN);
        let lasting = |dir, path: &Path| disk.lasting(dir, path).map_err(failed);
        let (root, tmp, kept) = (
            lasting(root, path)?,
            lasting(tmp, &hidden.join(TMP))?,
            lasting(kept, &hidden.join(KEPT))?,
        );
        Ok(Place {
            disk,
            path: path.to_path_buf(),
            marker: *marker,
            root,
            root_inode: own.inode,
            device: own.device,
            tmp,
            kept,
            file_mode,
            profile,
            rules: Mutex::default(),
        })
    }

    /// Removes the hidden folder.
    ///
    /// # Errors
    /// As [`Place::open`]; a folder that is gone is no error.
    pub fn release(path: &Path, marker: &Marker) -> Result<(), FolderError> {
        match Place::open(path, marker) {
            Ok(place) => {
                let hidden = path.join(HIDDEN);
                place
                    .disk
                    .remove_all(&hidden)
                    .map_err(|error| io_failed(&hidden, error))
            }
            Err(FolderError::Missing(_) | FolderError::Unmarked(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Checks that the path still leads to this very folder, and that its marker is there.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn check(&self) -> Result<(), FolderError> {
        let root = open_root(&*self.disk, &self.path)?;
        let own = root.stat().map_err(|error| io_failed(&self.path, error))?;
        if (own.inode, own.device) != (self.root_inode, self.device) {
            return Err(FolderError::Unmarked(self.path.clone()));
        }
        let hidden = root
            .below(Path::new(HIDDEN))
            .map_err(|_| FolderError::Unmarked(self.path.clone()))?;
        match hidden.read(MARKER, MAX_MARKER_BYTES) {
            Ok(text) if text == self.marker.text().as_bytes() => Ok(()),
            Ok(_) => Err(FolderError::Foreign(self.path.clone())),
            Err(_) => Err(FolderError::Unmarked(self.path.clone())),
        }
    }

    /// Nothing is to be done in it for a while. Nothing of it is kept open then, so that its disk can be unmounted.
    pub fn rest(&self) {
        for dir in [&self.root, &self.tmp, &self.kept] {
            dir.rest();
        }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of its file system.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// What its file system takes as names.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// What is ignored in it, as of the last look at all of it.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes over the rules that a look at all of it found.
    pub(super) fn set_rules(&self, rules: Arc<Rules>) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Permission bits that a new file gets here.
    pub fn file_mode(&self) -> u32 {
        self.file_mode
    }

    /// The synced folder itself.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// The folder for temporary files.
    pub fn tmp(&self) -> &Dir {
        &self.tmp
    }

    /// The folder for kept contents.
    pub fn kept(&self) -> &Dir {
        &self.kept
    }

    /// Absolute path of a temporary file.
    pub fn tmp_path(&self, name: &str) -> PathBuf {
        self.path.join(HIDDEN).join(TMP).join(name)
    }

    /// Absolute path of a kept file.
    pub fn kept_path(&self, name: &str) -> PathBuf {
        kept_path(&self.path, name)
    }

    /// Opens a folder within the synced folder.
    ///
    /// # Errors
    /// What the system says; a symbolic link on the way is `NotADirectory` or `FilesystemLoop`.
    pub fn folder(&self, relative: &Path) -> io::Result<Dir> {
        self.root.below(relative)
    }

    /// Makes everything written in this file system durable.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.root.sync_all()
    }

    /// Renames to a name that must be free.
    ///
    /// # Errors
    /// `AlreadyExists` where it is not.
    pub fn put(&self, from: &Dir, name: &str, to: &Dir, new: &str) -> io::Result<()> {
        match from.rename(name, to, new, Onto::Free) {
            Err(error) if is_unsupported(&error) => {
                // A file system that cannot promise it (NFS, some FUSE): look first. The window is ours to accept.
                match to.stat_at(new) {
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        from.rename(name, to, new, Onto::Anything)
                    }
                    Err(error) => Err(error),
                }
            }
            done => done,
        }
    }

    /// Exchanges two files in one step: at no moment is either name without a file. Where the file system cannot, the
    /// old file goes to `spare` in the folder of the first name, and from there to it.
    ///
    /// # Errors
    /// What the system says; both are as before then.
    pub fn exchange(&self, one: (&Dir, &str), other: (&Dir, &str), spare: &str) -> io::Result<()> {
        match one.0.rename(one.1, other.0, other.1, Onto::Exchange) {
            Err(error) if is_unsupported(&error) => {
                self.put(other.0, other.1, one.0, spare)?;
                if let Err(error) = self.put(one.0, one.1, other.0, other.1) {
                    self.put(one.0, spare, other.0, other.1)?;
                    return Err(error);
                }
                self.put(one.0, spare, one.0, one.1)
            }
            done => done,
        }
    }
}

/// Whether a synced folder is at `folder`, as far as a look can tell: an empty mount point has no marker.
pub fn has_marker(folder: &Path) -> bool {
    folder.join(HIDDEN).join(MARKER).is_file()
}

/// Whether the file system does not know this kind of rename.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP)
    )
}

/// Path of a kept file of the synced folder at `folder`.
pub fn kept_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(HIDDEN).join(KEPT).join(name)
}

fn open_root(disk: &dyn Disk, path: &Path) -> Result<Dir, FolderError> {
    disk.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FolderError::Missing(path.to_path_buf()),
        io::ErrorKind::NotADirectory => FolderError::NotAFolder(path.to_path_buf()),
        _ => io_failed(path, error),
    })
}

fn io_failed(path: &Path, error: io::Error) -> FolderError {
    FolderError::Io {
        path: path.to_path_buf(),
        error,
    }
}

fn make_folder(parent: &Dir, name: &str, mode: u32) -> io::Result<()> {
    match parent.make(name, mode) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Permission bits of a new file under the process's umask and the folder's defaults, found out by making one.
/// The mode of a new file, and the step in which the file system keeps times.
fn probe_file(tmp: &Dir) -> io::Result<(u32, i64)> {
    tmp.touch("probe", 0o666)?;
    let mode = tmp.stat_at("probe")?.mode & 0o666;
    let marked = tmp.mark("probe", mode, Some(ODD_TIME_MS));
    let step = match marked.and_then(|()| tmp.stat_at("probe")) {
        Ok(stat) => time_step(stat.mtime_ns),
        Err(_) => Profile::EXT4.time_step_ms,
    };
    tmp.unlink("probe")?;
    Ok((mode, step))
}

/// A time (milliseconds since 1970) that no file system with a coarser step can keep as it is.
const ODD_TIME_MS: i64 = 1_000_000_001_987;

/// The step of a file system that made this of [`ODD_TIME_MS`]: cut off or rounded, by less than the step. One that knows no
/// times at all is taken for a fine one.
fn time_step(disk_ns: i128) -> i64 {
    // NTFS and what Linux calls its own; exFAT; ext3, HFS+; FAT.
    let steps = [1, 10, 1000, 2000].map(|time_step_ms| Profile {
        time_step_ms,
        ..Profile::EXT4
    });
    let fitting = steps
        .iter()
        .find(|profile| profile.is_same_time(ODD_TIME_MS, disk_ns));
    fitting.unwrap_or(&Profile::EXT4).time_step_ms
}

/// What the file system does with names, found out by trying. What cannot be found out is taken for a plain disk: then
/// the system refuses what it does not take, and that is reported.
fn probe_profile(tmp: &Dir) -> Profile {
    let try_name = |name: &str| {
        tmp.touch(name, 0o600)?;
        Ok(tmp.stat_at(name)?.inode)
    };
    let is_windows = match try_name("probe?:") {
        Ok(_) => false,
        Err(error) => matches!(
            Errno::from_io_error(&error),
            Some(Errno::INVAL | Errno::ILSEQ)
        ),
    };
    let forget = |name: &str| {
        let _ = tmp.unlink(name);
    };
    forget("probe?:");
    let is_one = |name: &str, other: &str| {
        let made: io::Result<u64> = try_name(name);
        let found =
            made.is_ok_and(|inode| tmp.stat_at(other).is_ok_and(|stat| stat.inode == inode));
        forget(name);
        found
    };
    let limit = tmp.longest_name().unwrap_or(0);
    Profile {
        folds_case: is_one("probe-case", "PROBE-CASE"),
        folds_form: is_one("probe-\u{e9}", "probe-e\u{301}"),
        is_windows,
        limit: match usize::try_from(limit) {
            _ if is_windows => Profile::NTFS.limit,
            // Some encrypting file systems take less.
            Ok(limit) if (MIN_NAME_BYTES..255).contains(&limit) => Limit::Bytes(limit),
            _ => Profile::EXT4.limit,
        },
        time_step_ms: Profile::EXT4.time_step_ms,
    }
}

/// The least that a file system may say it takes as a name, to be believed: room for a mark and some of the name.
const MIN_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_crdt::files::Kind;

    fn marker() -> Marker {
        Marker {
            number: 3,
            vault: VaultId([7; 32]),
        }
    }

    #[test]
    fn a_folder_without_its_marker_is_not_the_synced_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("photos");
        assert!(matches!(
            Place::open(&path, &marker()),
            Err(FolderError::Missing(_))
        ));
        let place = Place::prepare(&path, &marker()).unwrap();
        place.check().unwrap();
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        assert!(matches!(place.check(), Err(FolderError::Missing(_))));
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(place.check(), Err(FolderError::Unmarked(_))));
        assert!(matches!(
            Place::open(&path, &marker()),
            Err(FolderError::Unmarked(_))
        ));
    }

    #[test]
    fn a_folder_of_another_vault_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Place::prepare(dir.path(), &marker()).unwrap();
        let other = Marker {
            number: 3,
            vault: VaultId([8; 32]),
        };
        assert!(matches!(
            Place::prepare(dir.path(), &other),
            Err(FolderError::Foreign(_))
        ));
        assert!(matches!(
            Place::open(dir.path(), &other),
            Err(FolderError::Foreign(_))
        ));
    }

    #[test]
    fn links_are_not_followed_and_nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::prepare(dir.path(), &marker()).unwrap();
        std::os::unix::fs::symlink("/tmp", dir.path().join("out")).unwrap();
        assert!(place.folder(Path::new("out")).is_err());
        std::fs::write(dir.path().join("a"), "a").unwrap();
        std::fs::write(dir.path().join("b"), "b").unwrap();
        let error = place.put(place.root(), "a", place.root(), "b").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        place
            .exchange((place.root(), "a"), (place.root(), "b"), "spare")
            .unwrap();
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"a");
        assert_eq!(
            place.root().stat_at("out").unwrap().kind,
            Some(Kind::Symlink)
        );
    }

    #[test]
    fn the_step_of_times_is_known_by_what_becomes_of_an_odd_one() {
        for (kept_ms, step) in [
            (ODD_TIME_MS, 1),
            (1_000_000_001_980, 10),
            (1_000_000_001_990, 10),
            (1_000_000_001_000, 1000),
            (1_000_000_002_000, 1000),
            (1_000_000_000_000, 2000),
            (0, 1),
        ] {
            assert_eq!(
                time_step(i128::from(kept_ms) * 1_000_000),
                step,
                "{kept_ms}"
            );
        }
    }
}
