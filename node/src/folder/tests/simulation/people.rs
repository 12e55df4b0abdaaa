//! What people and their programs do to a folder.

use std::sync::{Arc, Mutex};

use coffer_crdt::files::Kind;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::super::super::profile::Profile;
use super::disk::VirtualDisk;
use super::image::{Image, OUTSIDE, ROOT};
use super::ledger::{Ledger, Slow};
use super::run::Log;

/// Something a person or a program does on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Write,
    Edit,
    Append,
    Save,
    SaveWithBackup,
    Rename,
    Move,
    MoveTree,
    Swap,
    Chain,
    TurnFolders,
    FolderForFile,
    FileForFolder,
    MoveOver,
    MoveOut,
    MoveIn,
    Delete,
    DeleteTree,
    MakeFolder,
    Link,
    Permit,
    Touch,
    Twin,
    Storm,
    BeginWriting,
    GoOnWriting,
}

/// All of them, with how often each is done among a hundred or so.
pub const DEEDS: [(Deed, u32); 26] = [
    (Deed::Write, 12),
    (Deed::Edit, 8),
    (Deed::Append, 4),
    (Deed::Save, 7),
    (Deed::SaveWithBackup, 3),
    (Deed::Rename, 6),
    (Deed::Move, 9),
    (Deed::MoveTree, 12),
    (Deed::Swap, 4),
    (Deed::Chain, 3),
    (Deed::TurnFolders, 9),
    (Deed::FolderForFile, 2),
    (Deed::FileForFolder, 2),
    (Deed::MoveOver, 6),
    (Deed::MoveOut, 2),
    (Deed::MoveIn, 6),
    (Deed::Delete, 5),
    (Deed::DeleteTree, 3),
    (Deed::MakeFolder, 6),
    (Deed::Link, 4),
    (Deed::Permit, 3),
    (Deed::Touch, 4),
    (Deed::Twin, 3),
    (Deed::Storm, 1),
    (Deed::BeginWriting, 3),
    (Deed::GoOnWriting, 6),
];

pub const NAMES: [&str; 12] = [
    "a",
    "b",
    "c.txt",
    "Report.ods",
    "report.ods",
    "D",
    "E",
    "F",
    "a:b",
    "é",
    "notes",
    "x.tar.gz",
];

/// Where something is: its path, its number, its folder and name.
#[derive(Clone)]
struct Spot {
    path: String,
    ino: u64,
    folder: u64,
    name: String,
    is_folder: bool,
}

/// Does things on one device's disk.
#[derive(Clone)]
pub struct Person {
    pub disk: Arc<VirtualDisk>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub log: Arc<Log>,
    pub index: usize,
}

impl Person {
    /// Does it, if there is something to do it to.
    pub fn act(&self, deed: Deed, dice: &mut ChaCha8Rng) {
        let image = self.disk.image();
        let spots = spots(&image);
        if let Some(what) = self.try_act(deed, dice, &image, &spots) {
            self.log.hit("deed", name_of(deed));
            self.log
                .event(|| format!("device {} person: {what}", self.index));
        }
    }

    fn try_act(
        &self,
        deed: Deed,
        dice: &mut ChaCha8Rng,
        image: &Image,
        spots: &[Spot],
    ) -> Option<String> {
        let files: Vec<&Spot> = spots.iter().filter(|spot| is_file(image, spot)).collect();
        let folders: Vec<&Spot> = spots.iter().filter(|spot| spot.is_folder).collect();
        let any: Vec<&Spot> = spots.iter().collect();
        let name = match NAMES[dice.random_range(0..NAMES.len())] {
            name if name.contains(':') && self.disk.profile() != Profile::EXT4 => "b",
            name => name,
        };
        let folder = match dice.random_range(0..=folders.len()) {
            0 => ROOT,
            number => folders[number - 1].ino,
        };
        let there = image.child(folder, name);
        let disk = &self.disk;
        match deed {
            Deed::Write => {
                let ino = match there {
                    Some(ino) if image.inodes[&ino].kind == Kind::File => ino,
                    Some(_) => return None,
                    None => disk.person_make(folder, name, Kind::File, ""),
                };
                self.fill(ino, dice);
                Some(format!("write {name} in {folder}"))
            }
            Deed::Edit => {
                let file = pick(&files, dice)?;
                self.fill(file.ino, dice);
                Some(format!("edit {}", file.path))
            }
            Deed::Append => {
                let file = pick(&files, dice)?;
                let mut bytes = image.inodes[&file.ino].bytes.to_vec();
                bytes.extend(self.ledger.lock().unwrap().content(dice));
                self.put(file.ino, &bytes);
                Some(format!("append to {}", file.path))
            }
            Deed::Save => {
                let file = pick(&files, dice)?;
                let draft = format!(".{}.tmp", file.name);
                if image.child(file.folder, &draft).is_some() {
                    return None;
                }
                let ino = disk.person_make(file.folder, &draft, Kind::File, "");
                self.fill(ino, dice);
                self.give_up(file.ino);
                disk.person_rename((file.folder, &draft), (file.folder, &file.name));
                Some(format!("save {}", file.path))
            }
            Deed::SaveWithBackup => {
                let file = pick(&files, dice)?;
                let backup = format!("{}~", file.name);
                if let Some(old) = image.child(file.folder, &backup) {
                    if image.inodes[&old].kind == Kind::Folder {
                        return None;
                    }
                    self.give_up(old);
                }
                disk.person_rename((file.folder, &file.name), (file.folder, &backup));
                let ino = disk.person_make(file.folder, &file.name, Kind::File, "");
                self.fill(ino, dice);
                Some(format!("save {} with a backup", file.path))
            }
            Deed::Rename => {
                let spot = pick(&any, dice)?;
                free(image, spot.folder, name)?;
                disk.person_rename((spot.folder, &spot.name), (spot.folder, name));
                Some(format!("rename {} to {name}", spot.path))
            }
            Deed::Move | Deed::MoveTree => {
                let among = if deed == Deed::Move { &any } else { &folders };
                let spot = pick(among, dice)?;
                free(image, folder, &spot.name)?;
                if is_within(image, folder, spot.ino) {
                    return None;
                }
                disk.person_rename((spot.folder, &spot.name), (folder, &spot.name));
                Some(format!("move {} to {folder}", spot.path))
            }
            Deed::Swap => {
                let (one, other) = (pick(&any, dice)?, pick(&any, dice)?);
                if is_within(image, one.ino, other.ino) || is_within(image, other.ino, one.ino) {
                    return None;
                }
                free(image, one.folder, "swapping")?;
                disk.person_rename((one.folder, &one.name), (one.folder, "swapping"));
                disk.person_rename((other.folder, &other.name), (one.folder, &one.name));
                disk.person_rename((one.folder, "swapping"), (other.folder, &other.name));
                Some(format!("swap {} and {}", one.path, other.path))
            }
            Deed::Chain => {
                let (one, other) = (pick(&any, dice)?, pick(&any, dice)?);
                if is_within(image, one.ino, other.ino) || is_within(image, other.ino, one.ino) {
                    return None;
                }
                free(image, other.folder, name)?;
                disk.person_rename((other.folder, &other.name), (other.folder, name));
                disk.person_rename((one.folder, &one.name), (other.folder, &other.name));
                Some(format!("{} to {} to {name}", one.path, other.path))
            }
            Deed::TurnFolders => {
                let inner: Vec<&Spot> = folders
                    .iter()
                    .filter(|spot| spot.folder != ROOT)
                    .copied()
                    .collect();
                let inner = pick(&inner, dice)?;
                let outer = spots.iter().find(|spot| spot.ino == inner.folder)?;
                free(image, outer.folder, name)?;
                if image.child(inner.ino, &outer.name).is_some() {
                    return None;
                }
                disk.person_rename((inner.folder, &inner.name), (outer.folder, name));
                disk.person_rename((outer.folder, &outer.name), (inner.ino, &outer.name));
                Some(format!("turn {} inside out", outer.path))
            }
            Deed::FolderForFile => {
                let file = pick(&files, dice)?;
                self.give_up(file.ino);
                disk.person_remove(file.folder, &file.name);
                let made = disk.person_make(file.folder, &file.name, Kind::Folder, "");
                let ino = disk.person_make(made, name, Kind::File, "");
                self.fill(ino, dice);
                Some(format!("a folder for the file {}", file.path))
            }
            Deed::FileForFolder => {
                let folder = pick(&folders, dice)?;
                self.delete(image, folder);
                let ino = disk.person_make(folder.folder, &folder.name, Kind::File, "");
                self.fill(ino, dice);
                Some(format!("a file for the folder {}", folder.path))
            }
            Deed::MoveOver => {
                let (one, other) = (pick(&files, dice)?, pick(&files, dice)?);
                if one.ino == other.ino {
                    return None;
                }
                self.give_up(other.ino);
                disk.person_rename((one.folder, &one.name), (other.folder, &other.name));
                Some(format!("move {} over {}", one.path, other.path))
            }
            Deed::MoveOut => {
                let spot = pick(&any, dice)?;
                free(image, OUTSIDE, &spot.name)?;
                let mut ledger = self.ledger.lock().unwrap();
                for bytes in contents_in(image, spot.ino) {
                    ledger.outside.entry(bytes).or_default().insert(self.index);
                }
                drop(ledger);
                disk.person_rename((spot.folder, &spot.name), (OUTSIDE, &spot.name));
                Some(format!("move {} out", spot.path))
            }
            Deed::MoveIn => {
                let outside = &image.inodes[&OUTSIDE].names;
                let names: Vec<&String> = outside.keys().collect();
                if names.is_empty() {
                    return None;
                }
                let name = names[dice.random_range(0..names.len())];
                free(image, folder, name)?;
                let ino = outside[name];
                let mut ledger = self.ledger.lock().unwrap();
                for bytes in contents_in(image, ino) {
                    // What another device's person moved out as well is gone from the vault all the same.
                    if let Some(devices) = ledger.outside.get_mut(&bytes) {
                        devices.remove(&self.index);
                        if devices.is_empty() {
                            ledger.outside.remove(&bytes);
                        }
                    }
                    // Half of something may come back as well.
                    ledger.written.insert(bytes);
                }
                drop(ledger);
                disk.person_rename((OUTSIDE, name), (folder, name));
                Some(format!("move {name} in, to {folder}"))
            }
            Deed::Delete => {
                let leaves: Vec<&Spot> =
                    any.iter().filter(|spot| !spot.is_folder).copied().collect();
                let spot = pick(&leaves, dice)?;
                self.delete(image, spot);
                Some(format!("delete {}", spot.path))
            }
            Deed::DeleteTree => {
                let spot = pick(&folders, dice)?;
                self.delete(image, spot);
                Some(format!("delete {} with all in it", spot.path))
            }
            Deed::MakeFolder => {
                free(image, folder, name)?;
                disk.person_make(folder, name, Kind::Folder, "");
                Some(format!("make the folder {name} in {folder}"))
            }
            Deed::Link => {
                if let Some(ino) = there {
                    if image.inodes[&ino].kind != Kind::Symlink {
                        return None;
                    }
                    disk.person_remove(folder, name);
                }
                let target = ["a", "../elsewhere", "/etc/passwd", "D"][dice.random_range(0..4)];
                disk.person_make(folder, name, Kind::Symlink, target);
                Some(format!("link {name} in {folder} to {target}"))
            }
            Deed::Permit | Deed::Touch => {
                let file = pick(&files, dice)?;
                let inode = &image.inodes[&file.ino];
                if deed == Deed::Permit {
                    disk.person_mark(file.ino, inode.mode ^ 0o111, inode.mtime_ns);
                } else {
                    let mtime_ns = match dice.random_range(0..4) {
                        0 => inode.mtime_ns + 1_000_000_007,
                        1 => inode.mtime_ns - 3_600_000_000_000,
                        2 => inode.mtime_ns + 3_000_000,
                        // As an earlier one may have been set, by somebody else.
                        _ => 1_000_000_000_123_456_789,
                    };
                    disk.person_mark(file.ino, inode.mode, mtime_ns);
                }
                Some(format!("{deed:?} {}", file.path))
            }
            Deed::Twin => {
                let file = pick(&files, dice)?;
                free(image, folder, name)?;
                let bytes = image.inodes[&file.ino].bytes.clone();
                let ino = disk.person_make(folder, name, Kind::File, "");
                disk.person_bytes(ino, &bytes, true);
                let mut ledger = self.ledger.lock().unwrap();
                ledger.want_again(&bytes, disk, ino);
                Some(format!("copy {} to {name} in {folder}", file.path))
            }
            Deed::Storm => {
                let file = pick(&files, dice)?;
                for _ in 0..dice.random_range(5..25) {
                    self.fill(file.ino, dice);
                }
                Some(format!("write {} again and again", file.path))
            }
            Deed::BeginWriting => {
                if there.is_some() {
                    return None;
                }
                let ino = disk.person_make(folder, name, Kind::File, "");
                let mut ledger = self.ledger.lock().unwrap();
                let mut whole = ledger.content(dice);
                whole.extend_from_slice(b" to the end");
                disk.person_bytes(ino, &whole[..12], false);
                ledger.halves.insert(Arc::new(whole[..12].to_vec()));
                let born = disk.look(|image| image.inodes[&ino].born);
                ledger.slow.push(Slow {
                    disk: disk.clone(),
                    ino,
                    born,
                    whole,
                });
                Some(format!("begin to write {name} in {folder}"))
            }
            Deed::GoOnWriting => self.finish_one().then(|| "finish a file".to_owned()),
        }
    }

    fn finish_one(&self) -> bool {
        let mut ledger = self.ledger.lock().unwrap();
        let at = ledger
            .slow
            .iter()
            .position(|slow| Arc::ptr_eq(&slow.disk, &self.disk));
        let Some(slow) = at.map(|at| ledger.slow.remove(at)) else {
            return false;
        };
        let still = slow.disk.look(|image| {
            let inode = image.inodes.get(&slow.ino)?;
            (inode.born == slow.born).then(|| inode.bytes.clone())
        });
        let Some(before) = still else { return true };
        // Also of what was moved in elsewhere later: half of something that is whole now.
        ledger.give_up([before]);
        slow.disk.person_bytes(slow.ino, &slow.whole, true);
        // A file that was replaced or deleted meanwhile takes what is still written to it along, to the kept files.
        let path = slow.disk.look(|image| image.path(slow.ino));
        if path.is_some_and(|path| !path.starts_with(".vault/")) {
            ledger.wrote(&slow.whole);
        }
        true
    }

    /// All files that are being written are finished.
    pub fn finish(&self) {
        while self.finish_one() {}
    }

    /// New content for a file.
    fn fill(&self, ino: u64, dice: &mut ChaCha8Rng) {
        let bytes = self.ledger.lock().unwrap().content(dice);
        self.put(ino, &bytes);
    }

    fn put(&self, ino: u64, bytes: &[u8]) {
        self.give_up(ino);
        self.disk.person_bytes(ino, bytes, true);
        self.ledger.lock().unwrap().wrote(bytes);
    }

    fn give_up(&self, ino: u64) {
        let bytes = self
            .disk
            .look(|image| image.inodes.get(&ino).map(|inode| inode.bytes.clone()));
        self.ledger.lock().unwrap().give_up(bytes);
    }

    fn give_up_all(&self, image: &Image, ino: u64) {
        let contents = contents_in(image, ino);
        self.ledger.lock().unwrap().give_up(contents);
    }

    fn delete(&self, image: &Image, spot: &Spot) {
        self.give_up_all(image, spot.ino);
        let mut below = match spot.is_folder {
            true => image.below(spot.ino),
            false => Vec::new(),
        };
        below.reverse();
        for (path, ino) in below {
            let folder = image.inodes[&ino].parent;
            let name = path.rsplit('/').next().unwrap_or(&path);
            self.disk.person_remove(folder, name);
        }
        self.disk.person_remove(spot.folder, &spot.name);
    }
}

/// What a deed is called in the counts.
pub fn name_of(deed: Deed) -> &'static str {
    match deed {
        Deed::Write => "write",
        Deed::Edit => "edit in place",
        Deed::Append => "append",
        Deed::Save => "save by rename",
        Deed::SaveWithBackup => "save with a backup",
        Deed::Rename => "rename",
        Deed::Move => "move",
        Deed::MoveTree => "move a folder",
        Deed::Swap => "swap",
        Deed::Chain => "chain",
        Deed::TurnFolders => "turn folders inside out",
        Deed::FolderForFile => "a folder for a file",
        Deed::FileForFolder => "a file for a folder",
        Deed::MoveOver => "move over a file",
        Deed::MoveOut => "move out",
        Deed::MoveIn => "move in",
        Deed::Delete => "delete",
        Deed::DeleteTree => "delete a folder",
        Deed::MakeFolder => "make a folder",
        Deed::Link => "link",
        Deed::Permit => "executable bit",
        Deed::Touch => "touch",
        Deed::Twin => "copy",
        Deed::Storm => "storm",
        Deed::BeginWriting => "begin to write",
        Deed::GoOnWriting => "go on writing",
    }
}

fn spots(image: &Image) -> Vec<Spot> {
    let all = image.below(ROOT).into_iter();
    let shown = all.filter(|(path, _)| path != ".vault" && !path.starts_with(".vault/"));
    shown
        .map(|(path, ino)| Spot {
            ino,
            folder: image.inodes[&ino].parent,
            name: path.rsplit('/').next().unwrap_or(&path).to_owned(),
            is_folder: image.inodes[&ino].kind == Kind::Folder,
            path,
        })
        .collect()
}

fn is_file(image: &Image, spot: &Spot) -> bool {
    image.inodes[&spot.ino].kind == Kind::File
}

fn pick<'a>(among: &[&'a Spot], dice: &mut ChaCha8Rng) -> Option<&'a Spot> {
    match among.len() {
        0 => None,
        len => Some(among[dice.random_range(0..len)]),
    }
}

fn free(image: &Image, folder: u64, name: &str) -> Option<()> {
    image.child(folder, name).is_none().then_some(())
}

/// Whether `at` is `of`, or below it.
fn is_within(image: &Image, mut at: u64, of: u64) -> bool {
    while at != of && at != ROOT && at != OUTSIDE {
        at = image.inodes[&at].parent;
    }
    at == of
}

fn contents_in(image: &Image, ino: u64) -> Vec<Arc<Vec<u8>>> {
    match image.inodes[&ino].kind {
        Kind::File => vec![image.inodes[&ino].bytes.clone()],
        Kind::Folder => {
            let below = image.below(ino).into_iter();
            let files = below.filter(|(_, ino)| image.inodes[ino].kind == Kind::File);
            files
                .map(|(_, ino)| image.inodes[&ino].bytes.clone())
                .collect()
        }
        Kind::Symlink => Vec::new(),
    }
}
