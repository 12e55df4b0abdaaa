//! Agreement: in the end all replicas show the same, from the same entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use coffer_crdt::change::ChangeHash;
use coffer_crdt::document::Document;
use coffer_crdt::files::{self, FileId, FileState, Kind};
use coffer_crdt::tree::Tree;
use coffer_node::store::documents::{DocumentKey, Row, read_document, read_row};
use coffer_node::store::{StoreError, tables};
use coffer_node::vault::state::read_tree;
use coffer_node::vault::{Core, FILES};
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceId, Hash, WriterId};
use coffer_protocol::log::Clock;
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};
use serde_json::Value;

use super::file_rows;

/// All that must be equal on all replicas in the end.
pub struct Picture {
    clock: Clock,
    grant_heads: Vec<Hash>,
    documents: BTreeMap<(String, String), Reading>,
    files: BTreeMap<FileId, FileState>,
    tree: Vec<String>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Stretches of logs of which only ranges are here.
    gone: Vec<(WriterId, u64, u64)>,
}

#[derive(PartialEq, Debug)]
struct Reading {
    json: Value,
    deleted: bool,
    heads: Vec<ChangeHash>,
    changes: u32,
}

/// Everything that a tree shows, line by line.
fn lines(tree: &Tree, files: impl Iterator<Item = FileId>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![FileId::ROOT];
    for id in files {
        let shown = tree.shown(id);
        if shown
            .as_ref()
            .is_some_and(|shown| shown.kind == Kind::Folder)
        {
            folders.push(id);
        }
        lines.push(format!("{id} {shown:?} {:?}", tree.path(id)));
    }
    for folder in folders {
        let listed: Vec<String> = tree
            .children(folder)
            .map(|(name, id)| format!("{name}={id}"))
            .collect();
        lines.push(format!("{folder} lists {listed:?}"));
    }
    lines
}

/// Takes the picture of a core, and checks that what it derives follows from its documents.
pub fn picture(name: &str, core: &Core) -> Picture {
    take_picture(name, core).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn take_picture(name: &str, core: &Core) -> Result<Picture, StoreError> {
    let database = core.database();
    let read = database.begin_read()?;
    let mut documents = BTreeMap::new();
    let files = file_rows(database)?;
    for item in read.open_table(tables::DOCUMENTS)?.iter()? {
        let key = DocumentKey(*item?.0.value());
        let Some(row) = read_row(&read, key)? else {
            continue;
        };
        let document = read_document(&read, key, &row)?;
        check_row(name, &row, &document, &files);
        let reading = Reading {
            json: document.json(),
            deleted: row.deleted,
            heads: document.heads(),
            changes: row.changes,
        };
        documents.insert((row.doctype, row.id), reading);
    }
    let waiting = read.open_table(tables::WAITING)?.len()?;
    // What others of the vault had of a device that is out counts, and nobody who has it may be left: then what was made
    // upon it waits.
    let named = &core.state().named;
    assert!(
        waiting == 0 || !named.is_empty(),
        "{name}: {waiting} changes still wait for others"
    );
    let tree = lines(
        &core.tree().read().unwrap_or_else(PoisonError::into_inner),
        files.keys().copied(),
    );
    let anew = lines(&read_tree(database)?, files.keys().copied());
    assert_eq!(
        tree, anew,
        "{name}: the tree in memory is not the one in the store"
    );
    let mut entries = BTreeMap::new();
    for item in read.open_table(tables::ENTRIES)?.iter()? {
        let (key, value) = item?;
        entries.insert(key.value().to_vec(), value.value().to_vec());
    }
    let state = core.state();
    let gone = state.ranges.values().filter(|known| known.marks.alone);
    let gone = gone.map(|known| (known.head.writer, known.head.from, known.head.to));
    let gone = gone.collect();
    Ok(Picture {
        clock: state.clock.clone(),
        grant_heads: state.membership.heads(),
        documents,
        files,
        tree,
        entries,
        gone,
    })
}

/// What the store says of a document follows from its changes.
fn check_row(name: &str, row: &Row, document: &Document, files: &BTreeMap<FileId, FileState>) {
    let (doctype, id) = (&row.doctype, &row.id);
    assert_eq!(
        row.changes as usize,
        document.history().len(),
        "{name}: {doctype}/{id} counts its changes wrongly"
    );
    assert_eq!(
        row.deleted,
        document.is_deleted(),
        "{name}: {doctype}/{id} is deleted in its row or its changes only"
    );
    if doctype == FILES {
        let state =
            files::read(document).unwrap_or_else(|error| panic!("{name}: {doctype}/{id}: {error}"));
        let file: FileId = id
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {id} is no file id"));
        assert_eq!(
            files.get(&file),
            Some(&state),
            "{name}: the stored state of {id} is not that of its document"
        );
    }
}

impl Picture {
    /// Says where two pictures differ.
    pub fn difference(&self, other: &Picture) -> Option<String> {
        if self.clock != other.clock {
            return Some(format!("clocks: {:?} / {:?}", self.clock, other.clock));
        }
        if self.grant_heads != other.grant_heads {
            return Some("grants".into());
        }
        for (id, mine) in &self.documents {
            let theirs = other.documents.get(id);
            if theirs != Some(mine) {
                return Some(format!("document {id:?}: {mine:?} / {theirs:?}"));
            }
        }
        if self.documents.len() != other.documents.len() {
            return Some("the number of documents".into());
        }
        if let Some((mine, theirs)) = self
            .tree
            .iter()
            .zip(&other.tree)
            .find(|(mine, theirs)| mine != theirs)
        {
            return Some(format!("tree: {mine} / {theirs}"));
        }
        if self.tree.len() != other.tree.len() || self.files != other.files {
            return Some("files".into());
        }
        let differs = self.entries.iter().any(|(key, mine)| {
            let theirs = other.entries.get(key);
            theirs.is_some_and(|theirs| theirs != mine)
        });
        let lacks = self.lacks(other) || other.lacks(self);
        (differs || lacks).then(|| "the bytes of entries".into())
    }

    /// Whether the other one has an entry that is not here, and no range stands for it.
    fn lacks(&self, other: &Picture) -> bool {
        other.entries.keys().any(|key| {
            let writer = |gone: &&(WriterId, u64, u64)| {
                key[..32] == gone.0.device.0 && key[32..36] == gone.0.incarnation.to_be_bytes()
            };
            let mut seq = [0; 8];
            seq.copy_from_slice(&key[36..44]);
            let seq = u64::from_be_bytes(seq);
            !self.entries.contains_key(key)
                && !self
                    .gone
                    .iter()
                    .filter(writer)
                    .any(|(_, from, to)| (*from..=*to).contains(&seq))
        })
    }

    /// Where the logs end.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// What devices state to hold in the end: everything.
pub fn statements_lack(core: &Core, devices: &BTreeSet<DeviceId>) -> Option<String> {
    devices.iter().find_map(|device| {
        let held: Option<&Held> = core.held(*device);
        let Some(held) = held else {
            return Some(format!("no statement of {device}"));
        };
        if held.entries != core.state().clock {
            return Some(format!(
                "the last statement of {device} is not of all entries: {:?}",
                held.entries
            ));
        }
        (held.exceptions.len() as u64 + held.more_missing > 0)
            .then(|| format!("{device} states that bytes are missing"))
    })
}
