//! Registers as bytes, and files as documents: what the tests of both use.

mod bytes;
mod documents;

use super::registers::{CreatedAt, Register};
use super::*;
use crate::chunks::{ChunkList, ChunkRef, ChunkRoot};

const LAPTOP: Actor = [0x11; 16];
const PHONE: Actor = [0x22; 16];
const DAY: i64 = 1_795_305_600_000; // 2026-11-22

fn dot(writer: Actor, seq: u64) -> Dot {
    Dot { writer, seq }
}

fn place() -> Place {
    Place {
        parent: FileId([0xaa; 16]),
        name: "Grüße.txt".into(),
        stamp: Stamp::from_ms(DAY),
        dot: dot(LAPTOP, 7),
        label: "laptop".into(),
        previous: FileId::ROOT,
    }
}

fn content() -> Content {
    let mut list = ChunkList::default();
    let chunk = ChunkRef {
        id: [1; 32],
        frame: [2; 32],
        blob: [3; 32],
        len: 1000,
        sealed_len: 1056,
        epoch: 0,
    };
    list.push(chunk, &[9; 32]).unwrap();
    Content {
        size: 1000,
        mtime_ms: DAY - 5,
        executable: true,
        hash: [4; 32],
        target: None,
        root: ChunkRoot::Inline(list),
        stamp: Stamp::from_ms(DAY).next(),
        dot: dot(LAPTOP, 8),
    }
}

fn state() -> FileState {
    FileState {
        kind: Kind::File,
        created_ms: DAY,
        place: place(),
        content: Some(content()),
        trash: None,
        also_deleted: Vec::new(),
        merged_into: None,
    }
}

fn trash() -> Trash {
    Trash {
        clock: [(LAPTOP, 8), (PHONE, 300)].into(),
        stamp: Stamp::from_ms(DAY + 1),
        dot: dot(PHONE, 301),
    }
}

/// A time that was set to a content on the phone.
fn touched(content: &Content, mtime_ms: i64, seq: u64) -> Times {
    Times {
        mtime_ms,
        content: content.version(),
        stamp: Stamp(Stamp::from_ms(DAY + 9).0 + seq),
        dot: dot(PHONE, seq),
    }
}
