//! The tree is held in memory for as long as a node runs, so what it takes is watched. Alone in its process, because
//! it reads what the process has.

#![cfg(target_os = "linux")]

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::{Content, Dot, FileId, FileState, Kind, Place, Stamp};
use coffer_crdt::tree::Tree;

/// Bytes of memory that are resident, by `/proc/self/smaps_rollup`.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("Private_Dirty:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        * 1024
}

fn id(n: u64) -> FileId {
    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = [1; 16];
    id[..8].copy_from_slice(&hash.to_be_bytes());
    FileId(id)
}

fn set(tree: &mut Tree, n: u64, kind: Kind, parent: FileId, name: String) {
    let (stamp, dot) = (
        Stamp(n),
        Dot {
            writer: [7; 16],
            seq: n,
        },
    );
    let content = Content {
        size: 0,
        mtime_ms: 0,
        executable: false,
        hash: [n as u8; 32],
        target: None,
        root: ChunkRoot::empty(),
        stamp,
        dot,
    };
    let place = Place::new(parent, name, stamp, dot, "laptop");
    let content = (kind == Kind::File).then_some(content);
    tree.set(
        id(n),
        &FileState {
            kind,
            created_ms: 0,
            place,
            content,
            trash: None,
            also_deleted: Vec::new(),
            merged_into: None,
        },
    );
}

#[test]
fn a_tree_of_20_000_files_takes_less_than_15_mb() {
    let before = resident();
    let mut tree = Tree::new();
    for folder in 0..200 {
        let parent = 1 + folder * 100;
        set(
            &mut tree,
            parent,
            Kind::Folder,
            FileId::ROOT,
            format!("folder {folder:03}"),
        );
        for n in 1..100 {
            set(
                &mut tree,
                parent + n,
                Kind::File,
                id(parent),
                format!("photograph {n:04}.jpeg"),
            );
        }
        // As a node does all the time; what is noted for it is not kept.
        tree.take_changed();
    }
    let used = resident() - before;
    println!(
        "{} bytes for each of {} nodes",
        used / tree.len(),
        tree.len()
    );
    assert_eq!(tree.len(), 20_000);
    assert!(used < 15_000_000, "{used} bytes");
}
