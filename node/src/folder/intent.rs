//! What the remote pass is about to do on disk, noted so that a start after a crash knows it for its own doing.
//!
//! Disk and rows become durable one after the other. If the node ends in between, the disk shows what the rows do not
//! say, and the local pass would take it for a person's work: a file that was put in place would be an edit, in conflict
//! with whatever came since; one that was moved or taken away would be moved back or deleted for everybody. So before
//! each batch its ends are written to `.vault/intent-1`: for each file the row that it will have, or none. The next start
//! compares them with the disk ([`done`]): what is so was done, what is not was not.
//!
//! The bytes of a file that was put in place are read again all the same, since the vault does not know yet where its
//! chunks are. The note is emptied when the rows are committed; one that is left from before says nothing new.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use coffer_crdt::files::{FileId, Kind};

use super::compare::row_of;
use super::ground::Stat;
use super::place::{HIDDEN, Place};
use super::plan::{Step, Want};
use super::rows::{Rows, kind_number, row_kind, unsure_time};
use super::scan::{Node, Snapshot, same_object};
use crate::vault::request::FolderRow;

/// The note's name in the hidden folder; the number is that of its layout.
const NOTE: &str = "intent-1";
/// What a note says at its head.
const HEAD: &[u8] = b"coffer intent 1\n";
/// Bytes of the hash at its end, which tells whether all of it was written.
const HASH_LEN: usize = 32;

/// A file, and the row that it is to have; `None` if it is to be gone. An inode number of 0 is not known beforehand.
pub type Intent = (FileId, Option<FolderRow>);

/// What steps come to. Links are left out: their targets are compared in any case.
pub fn of_steps(rows: &Rows, steps: &[Step]) -> Vec<Intent> {
    let mut order: Vec<FileId> = Vec::new();
    let mut ends: BTreeMap<FileId, Option<FolderRow>> = BTreeMap::new();
    for step in steps {
        let id = step.subject();
        let end = match step {
            Step::Make(_, parent, name) => Some(folder_row(*parent, name)),
            Step::Move(_, parent, name) => {
                let before = ends.get(&id).cloned().flatten();
                let Some(row) = before.or_else(|| rows.get(id).cloned()) else {
                    continue;
                };
                Some(FolderRow {
                    parent: parent.0,
                    name: name.clone(),
                    ..row
                })
            }
            Step::Keep(_) | Step::Remove(_) => None,
            Step::Mark(_, executable, Some(mtime_ms)) => {
                let before = ends.get(&id).cloned().flatten();
                let Some(row) = before.or_else(|| rows.get(id).cloned()) else {
                    continue;
                };
                Some(FolderRow {
                    executable: *executable,
                    mtime_ns: i128::from(*mtime_ms) * 1_000_000,
                    ..row
                })
            }
            Step::Park(_) | Step::Link(..) | Step::Mark(..) => continue,
        };
        if ends.insert(id, end).is_none() {
            order.push(id);
        }
    }
    order
        .into_iter()
        .filter_map(|id| Some((id, ends.remove(&id)?)))
        .collect()
}

fn folder_row(parent: FileId, name: &str) -> FolderRow {
    FolderRow {
        parent: parent.0,
        name: name.to_owned(),
        kind: kind_number(Kind::Folder),
        inode: 0,
        size: 0,
        mtime_ns: 0,
        ctime_ns: 0,
        executable: false,
        hash: [0; 32],
    }
}

/// What putting written files in place comes to: `files` as `Hands::place_content` takes them.
pub fn of_files(place: &Place, rows: &Rows, files: &[(FileId, Want, String)]) -> Vec<Intent> {
    let intent = |(id, want, temporary): &(FileId, Want, String)| {
        let content = want.content.as_ref()?;
        let stat = Stat {
            mtime_ns: i128::from(content.mtime_ms) * 1_000_000,
            ctime_ns: 0,
            executable: content.executable,
            ..place.tmp().stat_at(temporary).ok()?
        };
        let (parent, name) = rows.get(*id).map_or((want.parent, &want.name), |row| {
            (FileId(row.parent), &row.name)
        });
        Some((
            *id,
            Some(row_of(parent, name, Kind::File, &stat, content.hash)),
        ))
    };
    files.iter().filter_map(intent).collect()
}

/// Notes what is about to be done; durable when this returns.
///
/// # Errors
/// What the system says; nothing must be done then.
pub fn note(place: &Place, intents: &[Intent]) -> io::Result<()> {
    let body = postcard::to_stdvec(intents).map_err(io::Error::other)?;
    let bytes = [HEAD, &body, blake3::hash(&body).as_bytes()].concat();
    let hidden = place.folder(Path::new(HIDDEN))?;
    let is_new = hidden.stat_at(NOTE).is_err();
    hidden.write(NOTE, &bytes)?;
    if is_new {
        hidden.sync()?;
    }
    Ok(())
}

/// Empties the note: what it says is committed. Durable when this returns: a note that came back with a loss of power
/// would say that what people did since was never done.
///
/// # Errors
/// What the system says.
pub fn forget(place: &Place) -> io::Result<()> {
    place.folder(Path::new(HIDDEN))?.write(NOTE, &[])
}

/// What was noted; nothing if there is no note, or only a part of one.
pub fn noted(place: &Place) -> Vec<Intent> {
    let bytes = place
        .folder(Path::new(HIDDEN))
        .and_then(|hidden| hidden.read(NOTE, usize::MAX));
    bytes
        .ok()
        .and_then(|bytes| parse(&bytes))
        .unwrap_or_default()
}

fn parse(bytes: &[u8]) -> Option<Vec<Intent>> {
    let rest = bytes.strip_prefix(HEAD)?;
    let (body, hash) = rest.split_at_checked(rest.len().checked_sub(HASH_LEN)?)?;
    if blake3::hash(body).as_bytes() != hash {
        return None;
    }
    postcard::from_bytes(body).ok()
}

/// Something that was done before the node ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    /// The file.
    pub id: FileId,
    /// Its row from now on.
    pub row: Option<FolderRow>,
    /// Whether its bytes have to be read, so that the vault learns where they are; the row is made so that they are.
    pub read: bool,
}

/// Of what was noted, that which the disk shows to be done and the rows do not say yet.
pub fn done(rows: &Rows, disk: &Snapshot, noted: Vec<Intent>) -> Vec<Done> {
    let mut by_inode: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut by_name: BTreeMap<(u64, &str), usize> = BTreeMap::new();
    for (at, node) in disk.nodes.iter().enumerate().skip(1) {
        by_inode.entry(node.stat.inode).or_default().push(at);
        let parent = disk.nodes[node.parent].stat.inode;
        by_name.insert((parent, &node.name), at);
    }
    let mut made: BTreeMap<FileId, u64> = BTreeMap::new();
    let mut done = Vec::new();
    for (id, end) in noted {
        let known = rows.get(id);
        let Some(mut row) = end else {
            let is_there = known.is_some_and(|row| {
                by_inode.get(&row.inode).is_some_and(|found| {
                    found
                        .iter()
                        .any(|at| same_object(row, disk.nodes[*at].kind, &disk.nodes[*at].stat))
                })
            });
            if known.is_some() && !is_there {
                done.push(Done {
                    id,
                    row: None,
                    read: false,
                });
            }
            continue;
        };
        let parent = FileId(row.parent);
        let parent = match made.get(&parent) {
            Some(inode) => *inode,
            None if parent == rows.top() => disk.nodes[0].stat.inode,
            None => match rows.get(parent) {
                Some(row) => row.inode,
                None => continue,
            },
        };
        let Some(node) = by_name
            .get(&(parent, row.name.as_str()))
            .map(|at| &disk.nodes[*at])
            .filter(|node| node.kind == row_kind(&row) && !node.skipped)
        else {
            continue;
        };
        let is_it = match row.inode {
            0 => known.is_none() && rows.with_inode(node.stat.inode).next().is_none(),
            inode => node.stat.inode == inode,
        };
        let is_as_before = known.is_some_and(|known| {
            (known.parent, &known.name) == (row.parent, &row.name) && node.stat.agrees(known, false)
        });
        if !is_it || is_as_before || is_still(rows, id, &row, node) {
            continue;
        }
        let mut read = false;
        row.inode = node.stat.inode;
        row.ctime_ns = node.stat.ctime_ns;
        if row.kind == kind_number(Kind::Folder) {
            made.insert(id, row.inode);
        } else if !known.is_some_and(|known| {
            let now = (row.hash, row.inode, row.mtime_ns);
            (known.hash, known.inode, known.mtime_ns) == now
        }) || !node.stat.agrees(&row, true)
        {
            // A row that does not agree with the disk has the bytes read. Where it does not anyway, its time tells whether
            // somebody set another since.
            if row.mtime_ns == node.stat.mtime_ns {
                row.mtime_ns = unsure_time(&row);
            }
            read = true;
        }
        if known != Some(&row) {
            done.push(Done {
                id,
                row: Some(row),
                read,
            });
        }
    }
    done
}

/// Whether what is in the place that a file was to have is another that was there before, and has its inode number because
/// such numbers are used again: the file of the row was gone by then. Files that agree in all, and in their bytes, are
/// names of one.
fn is_still(rows: &Rows, id: FileId, end: &FolderRow, node: &Node) -> bool {
    let before = rows.child(FileId(end.parent), &end.name);
    let before = before.filter(|before| *before != id);
    before.and_then(|id| rows.get(id)).is_some_and(|before| {
        same_object(before, node.kind, &node.stat)
            && (node.kind == Kind::Folder
                || (before.hash != end.hash && node.stat.agrees(before, false)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk as _;
    use super::super::place::Marker;
    use super::super::plan::WantContent;
    use super::super::scan::scan_whole;
    use super::super::system::System;
    use super::*;
    use coffer_protocol::identity::VaultId;

    const TOP: FileId = FileId::ROOT;
    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    fn id(number: u8) -> FileId {
        FileId([number; 16])
    }

    struct Synced {
        dir: tempfile::TempDir,
        place: Place,
        rows: Rows,
    }

    impl Synced {
        fn new() -> Synced {
            let dir = tempfile::tempdir().unwrap();
            let marker = Marker {
                number: 1,
                vault: VaultId([1; 32]),
            };
            let place = Place::prepare(dir.path(), &marker).unwrap();
            let rows = Rows::new(TOP, BTreeMap::new());
            Synced { dir, place, rows }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join(name)
        }

        /// A file or (`None`) folder that disk and rows agree on.
        fn add(&mut self, number: u8, parent: FileId, name: &str, bytes: Option<&str>) {
            let path = self
                .path("")
                .join(self.rows.path(parent).unwrap())
                .join(name);
            let kind = match bytes {
                Some(bytes) => {
                    std::fs::write(&path, bytes).unwrap();
                    Kind::File
                }
                None => {
                    std::fs::create_dir(&path).unwrap();
                    Kind::Folder
                }
            };
            let folder = System.open(path.parent().unwrap()).unwrap();
            let stat = folder.stat_at(name).unwrap();
            self.rows
                .set(id(number), row_of(parent, name, kind, &stat, OLD));
        }

        fn done(&self) -> Vec<Done> {
            done(
                &self.rows,
                &scan_whole(&self.place).unwrap(),
                noted(&self.place),
            )
        }

        fn note_steps(&self, steps: &[Step]) {
            note(&self.place, &of_steps(&self.rows, steps)).unwrap();
        }
    }

    fn want(name: &str) -> Want {
        let content = WantContent {
            hash: NEW,
            size: 3,
            mtime_ms: 1_000,
            executable: false,
            target: None,
        };
        Want {
            parent: TOP,
            name: name.into(),
            kind: Kind::File,
            content: Some(content),
        }
    }

    #[test]
    fn of_steps_that_were_noted_those_that_were_done_are_known() {
        let mut synced = Synced::new();
        synced.add(1, TOP, "a", Some("1"));
        synced.add(2, TOP, "b", Some("2"));
        synced.add(3, TOP, "gone", Some("3"));
        synced.add(4, TOP, "stays", Some("4"));
        synced.note_steps(&[
            Step::Make(id(9), TOP, "new".into()),
            Step::Move(id(1), id(9), "moved".into()),
            Step::Move(id(2), TOP, "not yet".into()),
            Step::Keep(id(3)),
            Step::Keep(id(4)),
        ]);
        assert!(synced.done().is_empty(), "nothing was done yet");
        std::fs::create_dir(synced.path("new")).unwrap();
        std::fs::rename(synced.path("a"), synced.path("new/moved")).unwrap();
        std::fs::remove_file(synced.path("gone")).unwrap();
        let done = synced.done();
        let found: Vec<_> = done
            .iter()
            .map(|done| {
                (
                    done.id,
                    done.row.as_ref().map(|row| row.name.as_str()),
                    done.read,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (id(9), Some("new"), false),
                (id(1), Some("moved"), false),
                (id(3), None, false)
            ]
        );
        assert_eq!(done[1].row.as_ref().unwrap().parent, id(9).0);
        for Done { id, row, .. } in done {
            match row {
                Some(row) => synced.rows.set(id, row),
                None => drop(synced.rows.remove(id)),
            }
        }
        assert!(synced.done().is_empty(), "it is taken in once");
    }

    #[test]
    fn a_file_that_is_gone_was_not_moved_to_where_another_has_its_inode_number() {
        let mut synced = Synced::new();
        synced.add(2, TOP, "b", Some("2"));
        let other = synced.rows.get(id(2)).cloned().unwrap();
        let gone = FolderRow {
            name: "a".into(),
            ctime_ns: other.ctime_ns - 1,
            hash: NEW,
            ..other
        };
        synced.rows.set(id(1), gone);
        synced.note_steps(&[
            Step::Park(id(1)),
            Step::Move(id(2), TOP, "a".into()),
            Step::Move(id(1), TOP, "b".into()),
        ]);
        assert!(synced.done().is_empty(), "nothing was done yet");
        std::fs::rename(synced.path("b"), synced.path("a")).unwrap();
        let done = synced.done();
        let [Done { id: moved, row, .. }] = &done[..] else {
            panic!("{done:?}");
        };
        assert_eq!(*moved, id(2));
        assert_eq!(row.as_ref().unwrap().name, "a");
    }

    #[test]
    fn a_file_that_was_put_in_place_is_known_and_read_again() {
        let mut synced = Synced::new();
        synced.add(1, TOP, "f", Some("old"));
        std::fs::write(synced.place.tmp_path("t"), "new").unwrap();
        let files = [
            (id(1), want("f"), "t".to_owned()),
            (id(2), want("never written"), "u".to_owned()),
        ];
        let intents = of_files(&synced.place, &synced.rows, &files);
        note(&synced.place, &intents).unwrap();
        assert!(synced.done().is_empty(), "nothing was done yet");
        std::fs::rename(synced.place.tmp_path("t"), synced.path("f")).unwrap();
        let done = synced.done();
        let [
            Done {
                id: file,
                row: Some(row),
                read: true,
            },
        ] = &done[..]
        else {
            panic!("{done:?}");
        };
        assert_eq!((*file, row.hash), (id(1), NEW));
        let root = System.open(&synced.path("")).unwrap();
        assert!(!root.stat_at("f").unwrap().agrees(row, true));
    }

    #[test]
    fn a_note_that_is_damaged_cut_short_or_emptied_says_nothing() {
        let synced = Synced::new();
        assert!(noted(&synced.place).is_empty());
        note(&synced.place, &[(id(1), None), (id(2), None)]).unwrap();
        assert_eq!(noted(&synced.place), [(id(1), None), (id(2), None)]);
        let path = synced.path(HIDDEN).join(NOTE);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None);
            let mut damaged = whole.clone();
            damaged[length] ^= 1;
            assert_eq!(parse(&damaged), None);
        }
        forget(&synced.place).unwrap();
        assert!(noted(&synced.place).is_empty());
    }

    #[test]
    fn the_layout_of_a_note_is_what_it_was() {
        let row = FolderRow {
            parent: [3; 16],
            name: "f".into(),
            kind: 0,
            inode: 4,
            size: 5,
            mtime_ns: 6,
            ctime_ns: 7,
            executable: true,
            hash: [8; 32],
        };
        let body = postcard::to_stdvec(&[(id(1), Some(row)), (id(2), None)][..]).unwrap();
        let expected = [
            "02",
            &"01".repeat(16),
            "01",
            &"03".repeat(16),
            "0166",
            "00",
            "04",
            "05",
            "0c",
            "0e",
            "01",
            &"08".repeat(32),
            &"02".repeat(16),
            "00",
        ];
        assert_eq!(hex::encode(body), expected.concat());
    }
}
