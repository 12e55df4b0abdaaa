//! Looks at the disk: the whole synced folder, or the parts of it that the watcher named.
//!
//! The result is a [`Snapshot`], a tree of what is there by name, inode and times; no file is opened. A part is looked
//! at together with what is needed to tell a move from a deletion: a file that appears here with an inode known from
//! elsewhere has that other folder looked at too. What the rules ignore ([`super::rules`]) is in the snapshot by name
//! only; where the rules themselves have changed, everything is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_crdt::files::Kind;

use super::disk::Dir;
use super::ground::{Ground, Stat};
use super::place::{HIDDEN, Place};
use super::rows::{Rows, row_kind, true_ctime};
use super::rules::Rules;
use super::state::{Problem, printable};
use crate::vault::request::FolderRow;

/// How far below a named folder to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The files in it, and whatever is in folders not known yet.
    Shallow,
    /// All below it.
    Deep,
}

/// Parts of the synced folder to look at, by path within it.
pub type Parts = BTreeMap<PathBuf, Depth>;

/// Problems listed by one scan, at most: a folder full of sockets must not fill the memory.
const MAX_SCAN_PROBLEMS: usize = 1000;

/// Folders looked at beyond the named ones in search of where moved files came from; beyond, the scan is made whole.
const MAX_EXTRA_PARTS: usize = 10_000;

/// A file, folder or link on disk.
#[derive(Clone, Debug)]
pub struct Node {
    /// Index of its folder in [`Snapshot::nodes`].
    pub parent: usize,
    /// Its name on disk.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What the file system says.
    pub stat: Stat,
    /// Where a link points.
    pub target: Option<String>,
    /// Whether everything in this folder is in the snapshot, so that what is not there is not on disk.
    pub listed: bool,
    /// Cannot be synced, or is ignored: it only occupies its name.
    pub skipped: bool,
    /// The rules say not to look at it.
    pub ignored: bool,
}

/// What was found on disk. Node 0 is the synced folder itself; parents stand before their children.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Everything found.
    pub nodes: Vec<Node>,
    /// What was skipped, and why.
    pub problems: Vec<Problem>,
    /// What is ignored.
    pub rules: Arc<Rules>,
    /// Folders to look into again soon: their ignore file has changed and does not rest yet, so that its former rules
    /// apply, or a link in them was exchanged for another while it was read.
    pub unsettled: Vec<PathBuf>,
}

impl Snapshot {
    /// Path of a node within the synced folder.
    pub fn path(&self, mut node: usize) -> PathBuf {
        let mut names = Vec::new();
        while node != 0 {
            names.push(self.nodes[node].name.as_str());
            node = self.nodes[node].parent;
        }
        names.iter().rev().collect()
    }
}

/// Whether what is on disk may be the very object that the row was made from, wherever it is now.
///
/// File systems use inode numbers again: an object made after the row was written is another one. Where the time of
/// birth is not told, files must agree in length and modification time.
pub fn same_object(row: &FolderRow, kind: Kind, stat: &Stat) -> bool {
    if row.inode != stat.inode || row_kind(row) != kind {
        return false;
    }
    match stat.birth_ns {
        Some(birth) => birth <= true_ctime(row),
        None => kind == Kind::Folder || (stat.size == row.size && stat.mtime_ns == row.mtime_ns),
    }
}

/// Looks at everything.
///
/// # Errors
/// When the synced folder itself cannot be read; what fails below is a problem in the snapshot.
pub fn scan_whole(place: &Place) -> io::Result<Snapshot> {
    let mut scanner = Scanner::new(Ground::of(place.root())?, place.rules())?;
    scanner.list(0, PathBuf::new(), &mut |_, _| true)?;
    let snapshot = scanner.finish();
    place.set_rules(snapshot.rules.clone());
    Ok(snapshot)
}

/// Looks at everything in a folder that is not synced (yet).
///
/// # Errors
/// When it cannot be read.
pub fn scan_path(path: &Path) -> io::Result<Snapshot> {
    let mut scanner = Scanner::new(Ground::open(path)?, Arc::default())?;
    scanner.list(0, PathBuf::new(), &mut |_, _| true)?;
    Ok(scanner.finish())
}

/// Looks at parts.
///
/// # Errors
/// When the synced folder itself cannot be read.
pub fn scan_parts(place: &Place, rows: &Rows, parts: &Parts) -> io::Result<Snapshot> {
    let mut scanner = Scanner::new(Ground::of(place.root())?, place.rules())?;
    scanner.known = Some(BTreeMap::new());
    let mut open: Vec<(PathBuf, Depth)> = parts
        .iter()
        .map(|(path, depth)| (path.clone(), *depth))
        .collect();
    let mut listed: BTreeSet<PathBuf> = BTreeSet::new();
    let mut extra = 0;
    while let Some((path, depth)) = open.pop() {
        let Some((node, path)) = scanner.reach(&path, rows, &mut open)? else {
            continue;
        };
        if depth == Depth::Shallow && listed.contains(&path) {
            continue;
        }
        let before = scanner.snapshot.nodes.len();
        let mut descend =
            |path: &Path, stat: &Stat| depth == Depth::Deep || is_unknown(rows, path, stat);
        scanner.list(node, path.clone(), &mut descend)?;
        listed.insert(path);
        for at in before..scanner.snapshot.nodes.len() {
            let found = &scanner.snapshot.nodes[at];
            let here = scanner.snapshot.path(at);
            for id in rows.with_inode(found.stat.inode) {
                let Some(known) = rows.path(id).filter(|known| *known != here) else {
                    continue;
                };
                let folder = known.parent().unwrap_or(Path::new("")).to_path_buf();
                if !listed.contains(&folder) && extra < MAX_EXTRA_PARTS {
                    extra += 1;
                    open.push((folder, Depth::Shallow));
                }
            }
        }
    }
    if extra == MAX_EXTRA_PARTS || scanner.rules_changed {
        scan_whole(place)
    } else {
        Ok(scanner.finish())
    }
}

/// A folder whose contents no row can vouch for: neither known at this path nor moved here from another.
fn is_unknown(rows: &Rows, path: &Path, stat: &Stat) -> bool {
    let here = rows
        .at(path)
        .and_then(|id| rows.get(id))
        .is_some_and(|row| same_object(row, Kind::Folder, stat));
    let moved = || {
        rows.with_inode(stat.inode)
            .filter_map(|id| rows.get(id))
            .any(|row| same_object(row, Kind::Folder, stat))
    };
    !here && !moved()
}

pub(super) struct Scanner {
    pub(super) place: Ground,
    pub(super) snapshot: Snapshot,
    /// As they were known before, and as they are found: whole scans start anew, so that none stays of a folder that is
    /// gone.
    pub(super) before: Arc<Rules>,
    pub(super) rules: Rules,
    /// Folders whose ignore file was looked at.
    pub(super) asked: BTreeSet<PathBuf>,
    pub(super) rules_changed: bool,
    /// Where each folder's children are, for parts that overlap; nothing in a look at everything, which has each once.
    known: Option<BTreeMap<(usize, String), usize>>,
}

impl Scanner {
    fn new(place: Ground, before: Arc<Rules>) -> io::Result<Scanner> {
        let stat = place.root().stat()?;
        let root = Node {
            parent: 0,
            name: String::new(),
            kind: Kind::Folder,
            stat,
            target: None,
            listed: false,
            skipped: false,
            ignored: false,
        };
        Ok(Scanner {
            place,
            snapshot: Snapshot {
                nodes: vec![root],
                ..Snapshot::default()
            },
            before,
            rules: Rules::default(),
            asked: BTreeSet::new(),
            rules_changed: false,
            known: None,
        })
    }

    /// The node of the folder at `path`, or of the nearest one above that is there. A folder on the way that is not
    /// the one its row knows has the folder above it looked at as well. `None` in an ignored folder.
    fn reach(
        &mut self,
        path: &Path,
        rows: &Rows,
        open: &mut Vec<(PathBuf, Depth)>,
    ) -> io::Result<Option<(usize, PathBuf)>> {
        let (mut node, mut at) = (0, PathBuf::new());
        // Open only where something has to be asked: what is on the way was often asked before.
        let mut open_here: Option<Dir> = None;
        self.ask_rules(&at, &mut open_here)?;
        for name in path.components() {
            let Some(text) = name.as_os_str().to_str() else {
                break;
            };
            let next = match self.known(node, text) {
                Some(next) => next,
                None => {
                    let Ok(folder) = self.opened(&at, &mut open_here) else {
                        break;
                    };
                    let Ok(stat) = folder.stat_at(text) else {
                        break;
                    };
                    if stat.kind != Some(Kind::Folder) || stat.device != self.place.device() {
                        break;
                    }
                    let here = at.join(text);
                    if rows
                        .at(&here)
                        .and_then(|id| rows.get(id))
                        .is_none_or(|row| !same_object(row, Kind::Folder, &stat))
                    {
                        open.push((at.clone(), Depth::Shallow));
                    }
                    self.add(node, text.to_owned(), Kind::Folder, stat)
                }
            };
            if self.rules.is_ignored_itself(&at.join(text), true) {
                return Ok(None);
            }
            if self.snapshot.nodes[next].kind != Kind::Folder || self.snapshot.nodes[next].skipped {
                break;
            }
            node = next;
            at.push(text);
            open_here = open_here.and_then(|folder| folder.below(Path::new(text)).ok());
            self.ask_rules(&at, &mut open_here)?;
        }
        Ok(Some((node, at)))
    }

    fn add(&mut self, parent: usize, name: String, kind: Kind, stat: Stat) -> usize {
        let at = self.snapshot.nodes.len();
        if let Some(known) = &mut self.known {
            known.insert((parent, name.clone()), at);
        }
        self.snapshot.nodes.push(Node {
            parent,
            name,
            kind,
            stat,
            target: None,
            listed: false,
            skipped: false,
            ignored: false,
        });
        at
    }

    fn known(&self, parent: usize, name: &str) -> Option<usize> {
        let known = self.known.as_ref()?;
        known.get(&(parent, name.to_owned())).copied()
    }

    /// What was found, with the rules that it was found by.
    fn finish(self) -> Snapshot {
        Snapshot {
            rules: Arc::new(self.rules),
            ..self.snapshot
        }
    }

    pub(super) fn problem(&mut self, path: &Path, reason: &str) {
        if self.snapshot.problems.len() < MAX_SCAN_PROBLEMS {
            self.snapshot.problems.push(Problem {
                path: printable(path),
                reason: reason.to_owned(),
            });
        }
    }

    /// Lists a folder, and those below it for which `descend` says so.
    fn list(
        &mut self,
        node: usize,
        path: PathBuf,
        descend: &mut dyn FnMut(&Path, &Stat) -> bool,
    ) -> io::Result<()> {
        let mut open = vec![(node, path)];
        while let Some((node, path)) = open.pop() {
            let first = open.len();
            match self.list_one(node, &path, descend, &mut open) {
                Ok(()) => {}
                Err(error) if node == 0 => return Err(error),
                // Gone since it was seen: its own folder's next listing will say so.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(&path, &format!("the folder cannot be read: {error}")),
            }
            open[first..].reverse();
        }
        Ok(())
    }

    fn list_one(
        &mut self,
        node: usize,
        path: &Path,
        descend: &mut dyn FnMut(&Path, &Stat) -> bool,
        open: &mut Vec<(usize, PathBuf)>,
    ) -> io::Result<()> {
        let folder = self.place.folder(path)?;
        self.learn_rules(&folder, path);
        let mut names = Vec::new();
        for name in folder.list()? {
            if node == 0 && name == HIDDEN {
                continue;
            }
            match name.into_string() {
                Ok(name) => names.push(name),
                Err(name) => self.problem(
                    &path.join(name),
                    "the name is not valid text (UTF-8); rename it to have it synced",
                ),
            }
        }
        names.sort_unstable();
        for name in names {
            let stat = match folder.stat_at(&name) {
                Ok(stat) => stat,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            self.take(node, path, &folder, name, stat, descend, open);
        }
        self.snapshot.nodes[node].listed = true;
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the state of one loop")]
    fn take(
        &mut self,
        parent: usize,
        path: &Path,
        folder: &Dir,
        name: String,
        stat: Stat,
        descend: &mut dyn FnMut(&Path, &Stat) -> bool,
        open: &mut Vec<(usize, PathBuf)>,
    ) {
        let here = path.join(&name);
        let known = self.known(parent, &name);
        let at = known.unwrap_or_else(|| {
            self.add(parent, name.clone(), stat.kind.unwrap_or(Kind::File), stat)
        });
        if self
            .rules
            .is_ignored_itself(&here, stat.kind == Some(Kind::Folder))
        {
            self.snapshot.nodes[at].skipped = true;
            self.snapshot.nodes[at].ignored = true;
            return;
        }
        match stat.kind {
            Some(Kind::Folder) if stat.device != self.place.device() => {
                self.skip(
                    at,
                    &here,
                    "another file system is mounted here; add it as a folder of its own",
                );
            }
            Some(Kind::Folder) => {
                if !self.snapshot.nodes[at].listed && descend(&here, &stat) {
                    open.push((at, here));
                }
            }
            Some(Kind::Symlink) => match folder.target(&name).map(|target| target.into_string()) {
                // Another may have come to its name since: then the target that was read is that one's.
                Ok(Ok(_)) if !is_still(folder, &name, &stat) => {
                    self.snapshot.nodes[at].skipped = true;
                    self.snapshot.unsettled.push(path.to_path_buf());
                }
                Ok(Ok(target)) => self.snapshot.nodes[at].target = Some(target),
                Ok(Err(_)) => self.skip(at, &here, "the link's target is not valid text (UTF-8)"),
                Err(error) => self.skip(at, &here, &format!("the link cannot be read: {error}")),
            },
            Some(Kind::File) => {}
            None => self.skip(at, &here, "neither a file, a folder nor a link"),
        }
    }

    fn skip(&mut self, at: usize, path: &Path, reason: &str) {
        self.snapshot.nodes[at].skipped = true;
        self.problem(path, reason);
    }
}

/// Whether a name is that of the same link as before.
fn is_still(folder: &Dir, name: &str, stat: &Stat) -> bool {
    folder
        .stat_at(name)
        .is_ok_and(|now| (now.inode, now.ctime_ns) == (stat.inode, stat.ctime_ns))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::super::place::Marker;
    use super::*;
    use coffer_crdt::files::FileId;
    use coffer_protocol::identity::VaultId;

    fn place(dir: &Path) -> Place {
        Place::prepare(
            dir,
            &Marker {
                number: 1,
                vault: VaultId([1; 32]),
            },
        )
        .unwrap()
    }

    fn paths(snapshot: &Snapshot) -> Vec<String> {
        (1..snapshot.nodes.len())
            .map(|at| snapshot.path(at).to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_whole_scan_sees_files_folders_and_links_but_not_the_hidden_place() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/f"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let snapshot = scan_whole(&place).unwrap();
        assert_eq!(paths(&snapshot), ["a", "link", "a/b", "a/b/f"]);
        assert_eq!(snapshot.nodes[2].target.as_deref(), Some("/etc"));
        assert!(
            snapshot
                .nodes
                .iter()
                .filter(|node| node.kind == Kind::Folder)
                .all(|node| node.listed)
        );
    }

    #[test]
    fn special_files_and_odd_names_are_skipped_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        std::fs::write(
            dir.path().join(std::ffi::OsStr::from_bytes(b"bad\xff")),
            "x",
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let snapshot = scan_whole(&place).unwrap();
        assert_eq!(snapshot.problems.len(), 2);
        assert!(snapshot.nodes[1].skipped);
    }

    #[test]
    fn a_part_is_looked_at_alone_and_new_folders_in_it_wholly() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        std::fs::create_dir_all(dir.path().join("a/new/deep")).unwrap();
        std::fs::create_dir_all(dir.path().join("other")).unwrap();
        std::fs::write(dir.path().join("a/new/deep/f"), "x").unwrap();
        let rows = Rows::new(FileId::ROOT, BTreeMap::new());
        let whole = scan_whole(&place).unwrap();
        let known = |name: &str, parent: FileId| FolderRow {
            parent: parent.0,
            name: name.into(),
            kind: 1,
            inode: whole
                .nodes
                .iter()
                .find(|node| node.name == name)
                .unwrap()
                .stat
                .inode,
            size: 0,
            mtime_ns: 0,
            ctime_ns: i128::MAX,
            executable: false,
            hash: [0; 32],
        };
        let mut rows = rows;
        rows.set(FileId([1; 16]), known("a", FileId::ROOT));
        rows.set(FileId([2; 16]), known("other", FileId::ROOT));
        let part = scan_parts(&place, &rows, &Parts::from([("a".into(), Depth::Shallow)])).unwrap();
        assert_eq!(paths(&part), ["a", "a/new", "a/new/deep", "a/new/deep/f"]);
        assert!(!part.nodes[0].listed && part.nodes[1].listed);
        let gone = scan_parts(
            &place,
            &rows,
            &Parts::from([("a/gone/x".into(), Depth::Shallow)]),
        )
        .unwrap();
        assert!(
            gone.nodes[1].listed,
            "the nearest folder above is looked at instead"
        );
    }
}
