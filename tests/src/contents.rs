//! Made-up file contents: chunk lists that are sound, of bytes that nobody has.
//!
//! Equal numbers are equal contents on every replica, as equal bytes would be.

use coffer_crdt::chunks::{ChunkList, ChunkRef, ChunkRoot};
use coffer_node::blobs::placement::Placement;
use coffer_node::vault::ContentDraft;
use coffer_protocol::identity::Hash;

/// Contents that are told apart: few, so that equal ones meet under one name.
pub const CONTENTS: u32 = 12;

/// The content of this number. One in six has a list of lists.
pub fn draft(number: u32, mtime_ms: i64) -> ContentDraft {
    let mut list = ChunkList::default();
    let mut size = 0;
    for chunk in 0..=number % 3 {
        let name =
            |what: &str| *blake3::hash(format!("{what} {number} {chunk}").as_bytes()).as_bytes();
        let len = 1000 + number;
        let reference = ChunkRef {
            id: name("chunk"),
            frame: name("frame"),
            blob: name("blob"),
            len,
            sealed_len: len + 100,
            epoch: 0,
        };
        list.push(reference, &[7; 32])
            .unwrap_or_else(|error| panic!("a made-up chunk list is unsound: {error}"));
        size += u64::from(len);
    }
    let root = match number % 6 {
        5 => ChunkRoot::Indirect { depth: 1, list },
        _ => ChunkRoot::Inline(list),
    };
    let size = if matches!(root, ChunkRoot::Inline(_)) {
        size
    } else {
        50_000_000
    };
    let hash = *blake3::hash(format!("content {number}").as_bytes()).as_bytes();
    ContentDraft {
        size,
        mtime_ms,
        executable: number.is_multiple_of(4),
        hash,
        target: None,
        root,
    }
}

/// The target of a symbolic link as content.
pub fn link(target: &str, mtime_ms: i64) -> ContentDraft {
    let hash = *blake3::hash(format!("link {target}").as_bytes()).as_bytes();
    let size = target.len() as u64;
    ContentDraft {
        size,
        mtime_ms,
        executable: false,
        hash,
        target: Some(target.into()),
        root: ChunkRoot::empty(),
    }
}

/// The rows that say that the blobs of these chunks are here.
pub fn placements(root: &ChunkRoot) -> Vec<(Hash, Placement)> {
    match root {
        ChunkRoot::Inline(list) => list
            .chunks
            .iter()
            .map(|chunk| (Hash(chunk.blob), Placement::Store))
            .collect(),
        ChunkRoot::Indirect { .. } => Vec::new(),
    }
}
