//! The checks.
//!
//! *Honesty*, whenever a replica says anything: a clock that it announces and a statement of what it holds must be true
//! of what a power cut at that moment would leave on its disk. *Completeness*, after each start: what it acknowledged is
//! there. *Agreement*, in the end: all replicas show the same, from the same entries, and nothing is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use coffer_crdt::change::ChangeHash;
use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::document::Document;
use coffer_crdt::files::{self, Actor, FileId, FileState, Kind, Stamp};
use coffer_crdt::history::Revision;
use coffer_crdt::tree::Tree;
use coffer_node::store::documents::{DocumentKey, Row, read_document, read_row};
use coffer_node::store::{self, StoreError, logs, pieces, tables};
use coffer_node::vault::state::{open_held, read_tree};
use coffer_node::vault::{Core, FILES};
use coffer_protocol::held::Held;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::log::{Clock, Entry};
use coffer_protocol::replication::Message;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use serde_json::Value;

use crate::coverage::Coverage;
use crate::ledger::{Acknowledged, Ledger};
use crate::operations::NOTES;
use crate::replica::Replica;

/// What a disk was last seen to hold; it only grows, so that it need not be opened for each message.
#[derive(Default)]
pub struct Durably {
    clock: Clock,
    /// Syncs of the disk when it was looked at.
    looked_at: Option<u64>,
    /// The last own statement that was checked, and the disk's syncs when it was.
    stated: (Vec<u8>, u64),
}

impl Durably {
    /// The disk was replaced by its crash image.
    pub fn forget_image(&mut self) {
        self.looked_at = None;
    }
}

/// Opens what a power cut at this moment would leave.
fn durable(replica: &Replica) -> Arc<Database> {
    store::open_with(replica.disk.durable()).unwrap_or_else(|error| {
        panic!(
            "{}: the durable image cannot be opened: {error}",
            replica.name
        )
    })
}

/// Whether the replica's durable store has all entries of `clock`, and really has them.
fn has_durably(replica: &mut Replica, clock: &Clock) -> bool {
    if replica.durably.clock.covers_clock(clock) {
        return true;
    }
    let syncs = replica.disk.syncs();
    if replica.durably.looked_at != Some(syncs) {
        let database = durable(replica);
        let there = stored_clock(&database, &replica.durably.clock)
            .unwrap_or_else(|error| panic!("{}: {error}", replica.name));
        replica.durably.clock = there;
        replica.durably.looked_at = Some(syncs);
    }
    replica.durably.clock.covers_clock(clock)
}

/// Where the logs of a store end, by the entries in it; those up to `known` were looked at before.
fn stored_clock(database: &Database, known: &Clock) -> Result<Clock, StoreError> {
    let read = database.begin_read()?;
    let clock = logs::read_clock(&read)?;
    assert!(
        clock.covers_clock(known),
        "the durable store has lost entries"
    );
    for (writer, last, hash) in clock.iter() {
        let mut seq = known.seq(writer) + 1;
        while seq <= last {
            let entries = logs::read_entries(&read, *writer, seq, last, usize::MAX)?;
            assert!(
                !entries.is_empty(),
                "the end of a log is stored without its entry {seq}"
            );
            for bytes in entries {
                let entry = Entry::decode(&bytes)
                    .unwrap_or_else(|error| panic!("a stored entry cannot be read: {error}"));
                assert_eq!(
                    (entry.header.writer, entry.header.seq),
                    (*writer, seq),
                    "a stored entry stands in another's place"
                );
                assert!(
                    seq < last || entry.header_hash() == hash,
                    "the end of a log names another entry"
                );
                seq += 1;
            }
        }
    }
    Ok(clock)
}

/// Checks what a replica is about to say.
pub fn check_honesty(replicas: &mut [Replica], place: usize, message: &Message) {
    match message {
        Message::Hello { clock, .. }
        | Message::Clock(clock)
        | Message::NeedEntries { clock, .. } => {
            let replica = &mut replicas[place];
            assert!(
                has_durably(replica, clock),
                "{} announces entries that its disk does not hold",
                replica.name
            );
        }
        Message::Held { device, statement } => {
            let Some(node) = &replicas[place].node else {
                return;
            };
            let state = node.core.state();
            let held = open_held(statement, &state.vault, &state.keyring).unwrap_or_else(|error| {
                panic!(
                    "{} passes on a statement that cannot be read: {error}",
                    replicas[place].name
                )
            });
            assert_eq!(
                held.device, *device,
                "a statement is passed on as another device's"
            );
            let true_of_one = replicas
                .iter_mut()
                .filter(|replica| replica.device == *device)
                .any(|replica| has_durably(replica, &held.entries));
            assert!(
                true_of_one,
                "{} passes on a statement of entries that no disk of its device holds",
                replicas[place].name
            );
        }
        Message::Grants { .. }
        | Message::Entries(_)
        | Message::NeedGrants { .. }
        | Message::Again { .. }
        | Message::Bye { .. } => {}
    }
}

/// Checks a replica's own newest statement against its disk, if it is new.
pub fn check_statement(replica: &mut Replica) {
    let Some(node) = &replica.node else { return };
    let Some((held, bytes)) = &node.core.state().own_held else {
        return;
    };
    // Until a moment after a change, the last statement may lag behind; what it says when the core is content with it
    // must be true, and a new one at once.
    let mark = (bytes.clone(), replica.disk.syncs());
    if (node.core.held_is_stale() && mark.0 == replica.durably.stated.0)
        || mark == replica.durably.stated
    {
        return;
    }
    let held = held.clone();
    replica.durably.stated = mark;
    assert!(
        has_durably(replica, &held.entries),
        "{} states entries that its disk does not hold",
        replica.name
    );
    let missing = missing_bytes(&durable(replica), &replica.bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", replica.name));
    if held.more_missing == 0 {
        for id in &missing {
            let state = file_rows(&durable(replica))
                .ok()
                .and_then(|rows| rows.get(id).cloned());
            let wanted = crate::operations::wanted(&replica.node.as_ref().unwrap().core);
            assert!(
                held.exceptions.contains(&id.to_string()),
                "{} states that it holds the bytes of {id}, and does not: {state:?} {wanted:?} {held:?}",
                replica.name
            );
        }
    } else {
        let counted = held.exceptions.len() as u64 + held.more_missing;
        assert!(
            counted >= missing.len() as u64,
            "{} counts {counted} files without bytes and lacks {}",
            replica.name,
            missing.len()
        );
    }
}

/// Files that are shown outside of the trash, have a content that `upto` covers, and whose bytes are not all here.
fn missing_bytes(
    database: &Database,
    bytes: &BTreeSet<(FileId, [u8; 32])>,
    upto: &Clock,
) -> Result<Vec<FileId>, StoreError> {
    let tree = read_tree(database)?;
    let read = database.begin_read()?;
    let placement = read.open_table(tables::PLACEMENT)?;
    let mut missing = Vec::new();
    for (id, state) in file_rows(database)? {
        let Some(content) = &state.content else {
            continue;
        };
        let covered = upto.iter().any(|(writer, seq, _)| writer.actor() == content.dot.writer && seq >= content.dot.seq);
        if !covered || tree.shown(id).is_some_and(|shown| shown.trashed) {
            continue;
        }
        let here = match &content.root {
            ChunkRoot::Indirect { .. } => bytes.contains(&(id, content.hash)),
            ChunkRoot::Inline(list) => {
                let mut all = true;
                for chunk in &list.chunks {
                    all &= placement.get(&chunk.blob)?.is_some();
                }
                all
            }
        };
        if !here {
            missing.push(id);
        }
    }
    Ok(missing)
}

/// Checks that what a replica acknowledged is in its store.
pub fn check_acknowledged(name: &str, database: &Database, acknowledged: &Acknowledged) {
    for ((doctype, id), changes) in acknowledged {
        let history =
            history(database, doctype, id).unwrap_or_else(|error| panic!("{name}: {error}"));
        let there: BTreeSet<ChangeHash> = history.iter().map(|revision| revision.hash).collect();
        let lost: Vec<_> = changes.difference(&there).collect();
        assert!(
            lost.is_empty(),
            "{name} has lost acknowledged changes of {doctype}/{id}: {lost:?}"
        );
    }
}

/// The changes of a document that one actor made.
pub fn changes_of(
    database: &Database,
    doctype: &str,
    id: &str,
    actor: Actor,
) -> Result<BTreeSet<ChangeHash>, StoreError> {
    let history = history(database, doctype, id)?;
    Ok(history
        .into_iter()
        .filter(|revision| revision.actor == actor)
        .map(|revision| revision.hash)
        .collect())
}

fn history(database: &Database, doctype: &str, id: &str) -> Result<Vec<Revision>, StoreError> {
    let read = database.begin_read()?;
    let key = DocumentKey::new(doctype, id);
    match read_row(&read, key)? {
        Some(row) => Ok(read_document(&read, key, &row)?.history()),
        None => Ok(Vec::new()),
    }
}

fn file_rows(database: &Database) -> Result<BTreeMap<FileId, FileState>, StoreError> {
    let read = database.begin_read()?;
    let table = read.open_table(tables::FILES)?;
    let mut rows = BTreeMap::new();
    for item in table.iter()? {
        let key = *item?.0.value();
        if key[16..] == [0, 0] {
            let mut id = FileId([0; 16]);
            id.0.copy_from_slice(&key[..16]);
            let bytes = pieces::read(&table, &key)?.unwrap_or_default();
            let state = postcard::from_bytes(&bytes)
                .unwrap_or_else(|error| panic!("the stored state of {id} cannot be read: {error}"));
            rows.insert(id, state);
        }
    }
    Ok(rows)
}

/// All that must be equal on all replicas in the end.
#[derive(PartialEq)]
pub struct Picture {
    clock: Clock,
    grant_heads: Vec<coffer_protocol::identity::Hash>,
    documents: BTreeMap<(String, String), Reading>,
    files: BTreeMap<FileId, FileState>,
    tree: Vec<String>,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
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
    assert_eq!(waiting, 0, "{name}: changes still wait for others");
    let tree = lines(
        &core.tree().read().unwrap_or_else(PoisonError::into_inner),
        files.keys().copied(),
    );
    let anew = lines(&read_tree(database)?, files.keys().copied());
    assert_eq!(
        tree, anew,
        "{name}: the tree in memory is not the one in the store"
    );
    let mut entries = Vec::new();
    for item in read.open_table(tables::ENTRIES)?.iter()? {
        let (key, value) = item?;
        entries.push((key.value().to_vec(), value.value().to_vec()));
    }
    let state = core.state();
    Ok(Picture {
        clock: state.clock.clone(),
        grant_heads: state.membership.heads(),
        documents,
        files,
        tree,
        entries,
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
        (self.entries != other.entries).then(|| "the bytes of entries".into())
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

/// Nothing that was acknowledged is lost.
pub fn check_complete(core: &Core, ledger: &Ledger) {
    let database = core.database();
    for (id, typed) in &ledger.typed {
        let read = database
            .begin_read()
            .unwrap_or_else(|error| panic!("{error}"));
        let key = DocumentKey::new(NOTES, id);
        let row = read_row(&read, key).unwrap_or_else(|error| panic!("{error}"));
        let json = row.map(|row| {
            read_document(&read, key, &row)
                .unwrap_or_else(|error| panic!("{error}"))
                .json()
        });
        let text = json
            .as_ref()
            .and_then(|json| json["content"].as_str())
            .unwrap_or_default();
        for (character, typed) in typed {
            let there = text.contains(*character);
            assert!(
                there || !typed.acknowledged || typed.erasing,
                "{character} was typed into {id} and is gone: {text:?}"
            );
            assert!(
                !there || !typed.erased,
                "{character} was erased from {id} and is there: {text:?}"
            );
        }
    }
    let tree = core.tree().read().unwrap_or_else(PoisonError::into_inner);
    for id in &ledger.files {
        let Some(shown) = tree.shown(*id) else {
            panic!("file {id} was made and is gone")
        };
        if let Some(other) = shown.same_as {
            check_same(&tree, *id, other, ledger);
        } else if shown.trashed {
            let above = std::iter::successors(Some(*id), |id| {
                tree.shown(*id)
                    .map(|shown| shown.parent)
                    .filter(|parent| *parent != FileId::ROOT)
            });
            // Bounded: the tree has no cycles; a bound all the same, as this is what checks it.
            let trashed = above.take(1000).any(|id| {
                ledger.trashing.contains(&id)
                    || tree
                        .group(id)
                        .iter()
                        .any(|other| ledger.trashing.contains(other))
            });
            let merged = ledger
                .trashing
                .iter()
                .any(|trashed| tree.below(*trashed).any(|below| below == *id));
            assert!(
                trashed || merged,
                "file {id} is in the trash, and nobody put it or what it stands in there"
            );
        } else {
            assert_eq!(
                tree.lookup(shown.parent, &shown.name),
                Some(*id),
                "file {id} is not found under its name"
            );
            assert!(tree.path(*id).is_some(), "file {id} has no path");
        }
    }
}

fn check_same(tree: &Tree, id: FileId, other: FileId, ledger: &Ledger) {
    let (mine, theirs) = (tree.get(id), tree.get(other));
    let (Some(mine), Some(theirs)) = (mine, theirs) else {
        panic!("file {id} is shown as {other}, which is not there")
    };
    assert_eq!(
        mine.kind, theirs.kind,
        "file {id} is shown as something else"
    );
    let equal =
        mine.content.map(|content| content.hash) == theirs.content.map(|content| content.hash);
    assert!(
        equal || ledger.merging.contains(&id),
        "file {id} is shown as {other}, which has other bytes"
    );
}

/// Counts the conflicts that the run ended up with, from the histories of all documents; checks their stamps.
pub fn count_conflicts(core: &Core, coverage: &mut Coverage) {
    let read = core
        .database()
        .begin_read()
        .unwrap_or_else(|error| panic!("{error}"));
    let table = read
        .open_table(tables::DOCUMENTS)
        .unwrap_or_else(|error| panic!("{error}"));
    let mut stamps = Stamps::default();
    for item in table.iter().unwrap_or_else(|error| panic!("{error}")) {
        let key = DocumentKey(*item.unwrap_or_else(|error| panic!("{error}")).0.value());
        let Ok(Some(row)) = read_row(&read, key) else {
            continue;
        };
        let document = read_document(&read, key, &row).unwrap_or_else(|error| panic!("{error}"));
        let history = document.history();
        count_concurrent(&row, &history, coverage);
        if row.doctype == FILES {
            stamps.note(&document);
        }
        if row.base_len > 0 {
            coverage.hit("store", "folded document");
        }
        if row.batches > 0 {
            coverage.hit("store", "batched changes");
        }
    }
    stamps.check();
    let tree = core.tree().read().unwrap_or_else(PoisonError::into_inner);
    for (id, state) in file_rows(core.database()).unwrap_or_else(|error| panic!("{error}")) {
        let Some(shown) = tree.shown(id) else {
            continue;
        };
        if shown.name.contains("(conflict from") {
            coverage.hit("conflict", "same name");
        }
        if !tree.group(id).is_empty() {
            coverage.hit("conflict", "shown as one");
        }
        if in_cycle(&tree, id) {
            coverage.hit("conflict", "cycle");
        }
        let deleted = state
            .trash
            .as_ref()
            .is_some_and(|trash| !trash.is_restored());
        if deleted && !shown.trashed {
            coverage.hit("conflict", "survives its trash");
        }
    }
}

/// Whether the places alone lead round in a circle.
fn in_cycle(tree: &Tree, id: FileId) -> bool {
    let mut at = id;
    for _ in 0..1000 {
        match tree.get(at) {
            Some(known) if known.place.parent == id => return true,
            Some(known) => at = known.place.parent,
            None => return false,
        }
    }
    false
}

fn count_concurrent(row: &Row, history: &[Revision], coverage: &mut Coverage) {
    let mut before: BTreeMap<ChangeHash, BTreeSet<ChangeHash>> = BTreeMap::new();
    for revision in history {
        let mut past: BTreeSet<ChangeHash> = revision.deps.iter().copied().collect();
        for dep in &revision.deps {
            past.extend(before.get(dep).into_iter().flatten().copied());
        }
        before.insert(revision.hash, past);
    }
    for (n, a) in history.iter().enumerate() {
        for b in history[..n]
            .iter()
            .filter(|b| !before[&a.hash].contains(&b.hash))
        {
            let both = |field: &str| {
                a.fields.iter().any(|f| f == field) && b.fields.iter().any(|f| f == field)
            };
            let one_each = |x: &str, y: &str| {
                let has =
                    |revision: &Revision, field: &str| revision.fields.iter().any(|f| f == field);
                (has(a, x) && has(b, y)) || (has(a, y) && has(b, x))
            };
            if row.doctype == FILES {
                if both("place") {
                    coverage.hit("conflict", "concurrent moves");
                }
                if both("content") {
                    coverage.hit("conflict", "concurrent content");
                }
                if both("trash") {
                    coverage.hit("conflict", "concurrent trash and restore");
                }
                if one_each("trash", "content") || one_each("trash", "place") {
                    coverage.hit("conflict", "trash vs edit");
                }
            } else {
                if row.doctype == NOTES && both("content") {
                    coverage.hit("conflict", "same text");
                }
                if a.deleted != b.deleted {
                    coverage.hit("conflict", "delete vs edit");
                }
                if row.doctype != NOTES && a.fields.iter().any(|field| b.fields.contains(field)) {
                    coverage.hit("conflict", "same field");
                }
                if a.deps.is_empty() && b.deps.is_empty() {
                    coverage.hit("conflict", "created twice");
                }
            }
        }
    }
}

/// Every stamp of the run, by writer.
#[derive(Default)]
struct Stamps(BTreeMap<Actor, BTreeSet<(u64, Stamp, String)>>);

impl Stamps {
    fn note(&mut self, document: &Document) {
        let Ok(state) = files::read(document) else {
            return;
        };
        let mut note = |dot: files::Dot, stamp: Stamp, what: String| {
            self.0
                .entry(dot.writer)
                .or_default()
                .insert((dot.seq, stamp, what));
        };
        let id = document
            .heads()
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        note(state.place.dot, state.place.stamp, format!("place {id}"));
        if let Some(trash) = &state.trash {
            note(trash.dot, trash.stamp, format!("trash {id}"));
        }
        if let Some(merged) = &state.merged_into {
            note(merged.dot, merged.stamp, format!("merging {id}"));
        }
        for (_, content) in files::contents(document).unwrap_or_default() {
            note(content.dot, content.stamp, format!("content {id}"));
        }
    }

    /// No writer gives a stamp out twice, or goes back in time from one entry to a later one.
    fn check(&self) {
        for (writer, stamps) in &self.0 {
            let mut given: BTreeMap<Stamp, &str> = BTreeMap::new();
            let (mut last_seq, mut last, mut highest) = (0, Stamp(0), Stamp(0));
            for (seq, stamp, what) in stamps {
                if let Some(other) = given.insert(*stamp, what) {
                    panic!(
                        "writer {} gave one stamp to {other} and to {what}",
                        hex::encode(writer)
                    );
                }
                if *seq > last_seq {
                    (last_seq, last) = (*seq, highest);
                }
                assert!(
                    *stamp > last,
                    "writer {} went back in time with entry {seq}",
                    hex::encode(writer)
                );
                highest = highest.max(*stamp);
            }
        }
    }
}
