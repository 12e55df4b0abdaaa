//! The core over a database in memory, asked directly.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coffer_crdt::chunks::{ChunkList, ChunkRef, ChunkRoot};
use coffer_crdt::files::{FileId, Kind};
use rand::SeedableRng;
use rand::rngs::StdRng;
use redb::backends::InMemoryBackend;
use redb::{ReadableDatabase, StorageBackend};

use super::identity::Identity;
use super::{
    CommitError, CommitRequest, Committed, ContentDraft, Core, FolderRow, Input, Operation, Output,
};
use super::{founding, wall_ms};
use crate::blobs::Placement;
use crate::store;
use coffer_protocol::identity::Hash;

mod hosts;
mod purging;
mod ranges;
mod several;

fn vault() -> Core {
    let mut rng = StdRng::seed_from_u64(1);
    let identity = Identity::generate(&mut rng);
    let database = store::open_with(InMemoryBackend::new()).unwrap();
    founding::found(&database, &identity, "first", b"here", 1, &mut rng).unwrap();
    founding::open(database, identity, b"here", Box::new(rng)).unwrap()
}

fn commit(core: &mut Core, operations: Vec<Operation>) -> Result<Committed, CommitError> {
    let request = CommitRequest {
        operations,
        ..Default::default()
    };
    let outputs = core.process(vec![Input::Commit(1, Box::new(request))], wall_ms());
    let mut answers = outputs.into_iter().filter_map(|output| match output {
        Output::Committed(_, result) => Some(result),
        _ => None,
    });
    answers.next().expect("an answer")
}

fn content(byte: u8) -> ContentDraft {
    ContentDraft {
        size: 0,
        mtime_ms: 1,
        executable: false,
        hash: [byte; 32],
        target: None,
        root: ChunkRoot::empty(),
    }
}

fn hash(core: &Core, id: FileId) -> [u8; 32] {
    let tree = Arc::clone(core.tree());
    let tree = tree.read().unwrap();
    tree.get(id).unwrap().content.unwrap().hash
}

/// A disk that can be made to fail, and keeps what it holds for who opens it again.
#[derive(Clone, Debug)]
struct FailingDisk {
    disk: Arc<InMemoryBackend>,
    fails: Arc<AtomicBool>,
}

impl FailingDisk {
    fn check(&self) -> io::Result<()> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the cable fell out")),
            false => Ok(()),
        }
    }
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        self.disk.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.disk.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.disk.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.disk.write(offset, data)
    }
}

fn put(core: &mut Core, id: u32) -> Vec<Output> {
    let operation = Operation::PutDocument {
        doctype: "t".into(),
        id: id.to_string(),
        value: serde_json::json!({ "n": id }),
        texts: Vec::new(),
        base: Vec::new(),
    };
    let request = CommitRequest {
        operations: vec![operation],
        ..Default::default()
    };
    core.process(vec![Input::Commit(1, Box::new(request))], wall_ms())
}

fn is_acknowledged(outputs: &[Output]) -> bool {
    outputs
        .iter()
        .any(|output| matches!(output, Output::Committed(_, Ok(_))))
}

#[test]
fn disk_that_failed_once_is_told_of_and_the_vault_goes_on_when_opened_anew() {
    let disk = FailingDisk {
        disk: Arc::default(),
        fails: Arc::default(),
    };
    let identity = || Identity::generate(&mut StdRng::seed_from_u64(2));
    let open = |database, seed| {
        let rng = StdRng::seed_from_u64(seed);
        founding::open(database, identity(), b"here", Box::new(rng)).unwrap()
    };
    let database = store::open_with(disk.clone()).unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    founding::found(&database, &identity(), "first", b"here", 1, &mut rng).unwrap();
    let mut core = open(database, 4);
    assert!(is_acknowledged(&put(&mut core, 1)));
    disk.fails.store(true, Ordering::Relaxed);
    let closed = |outputs: &[Output]| {
        let is_closed = |output: &Output| matches!(output, Output::StoreClosed(_));
        !is_acknowledged(outputs) && outputs.iter().any(is_closed)
    };
    assert!(closed(&put(&mut core, 2)), "the failure is told");
    disk.fails.store(false, Ordering::Relaxed);
    assert!(
        closed(&put(&mut core, 3)),
        "nothing is taken until it is opened anew"
    );
    drop(core);
    let database = store::open_with(disk).unwrap();
    let mut core = open(database, 5);
    let seq = core.state().clock.seq(&core.state().writer);
    assert!(
        (1..=2).contains(&seq),
        "what was acknowledged is there: {seq}"
    );
    assert!(is_acknowledged(&put(&mut core, 4)));
}

#[test]
fn content_that_was_not_seen_is_not_replaced() {
    let mut core = vault();
    let id = FileId([7; 16]);
    let create = Operation::CreateFile {
        id,
        kind: Kind::File,
        parent: FileId::ROOT,
        name: "letter".into(),
        content: Some(content(1)),
        created_ms: 1,
    };
    let set = |byte: u8, replaces: Option<u8>| Operation::SetContent {
        id,
        content: content(byte),
        replaces: replaces.map(|byte| [byte; 32]),
    };
    commit(&mut core, vec![create]).unwrap();
    commit(&mut core, vec![set(2, Some(1))]).unwrap();
    let document = Operation::PutDocument {
        doctype: "t".into(),
        id: "a".into(),
        value: serde_json::json!({}),
        texts: Vec::new(),
        base: Vec::new(),
    };
    let refused = commit(&mut core, vec![document, set(3, Some(1))]);
    assert!(
        matches!(refused, Err(CommitError::Changed(_))),
        "{refused:?}"
    );
    assert_eq!(hash(&core, id), [2; 32]);
    assert_eq!(
        core.state().clock.seq(&core.state().writer),
        2,
        "nothing of it is there"
    );
    commit(&mut core, vec![set(4, None)]).unwrap();
    assert_eq!(hash(&core, id), [4; 32]);

    // A time is for one content as well, and there for as long as that is.
    let time = |core: &Core| {
        let tree = Arc::clone(core.tree());
        let tree = tree.read().unwrap();
        tree.get(id).unwrap().content.unwrap().mtime_ms
    };
    let set_time = |mtime_ms: i64, byte: u8| Operation::SetTime {
        id,
        mtime_ms,
        of: [byte; 32],
    };
    let refused = commit(&mut core, vec![set_time(77, 3)]);
    assert!(matches!(refused, Err(CommitError::Changed(_))));
    for mtime_ms in [77, 88, -1] {
        commit(&mut core, vec![set_time(mtime_ms, 4)]).unwrap();
        assert_eq!(time(&core), mtime_ms);
    }
    commit(&mut core, vec![set(5, Some(4))]).unwrap();
    assert_eq!(time(&core), content(5).mtime_ms);
}

/// A content of one chunk, and the blob of that.
fn one_chunk(byte: u8) -> (ContentDraft, Hash) {
    let chunk = ChunkRef {
        id: [byte; 32],
        frame: [byte; 32],
        blob: [byte; 32],
        len: 10,
        sealed_len: 64,
        epoch: 0,
    };
    let list = ChunkList {
        epochs: vec![[9; 32]],
        chunks: vec![chunk],
    };
    let draft = ContentDraft {
        size: 10,
        root: ChunkRoot::Inline(list),
        ..content(byte)
    };
    (draft, Hash([byte; 32]))
}

#[test]
fn bytes_that_a_file_on_disk_no_longer_holds_have_no_place_there_whatever_the_vault_has_by_then() {
    let (mut core, id) = (vault(), FileId([5; 16]));
    let ((first, old), (second, new)) = (one_chunk(1), one_chunk(2));
    let row = |byte: u8| FolderRow {
        parent: [0; 16],
        name: "f".into(),
        kind: 0,
        inode: u64::from(byte),
        size: 10,
        mtime_ns: 0,
        ctime_ns: 0,
        executable: false,
        hash: [byte; 32],
    };
    let place = Placement::File {
        root: 1,
        file: id.0,
        offset: 0,
        len: 10,
        frame: [0; 32],
        epoch: [9; 32],
    };
    let mut carry_out = |request: CommitRequest| {
        let input = vec![Input::Commit(1, Box::new(request))];
        assert!(is_acknowledged(&core.process(input, wall_ms())));
        let read = core.database().begin_read().unwrap();
        let places = crate::blobs::placement::Reader::new(&read).unwrap();
        [old, new].map(|blob| places.places(&blob).unwrap().len())
    };
    let create = Operation::CreateFile {
        id,
        kind: Kind::File,
        parent: FileId::ROOT,
        name: "f".into(),
        content: Some(first),
        created_ms: 1,
    };
    let set = Operation::SetContent {
        id,
        content: second,
        replaces: None,
    };
    let on_disk = |byte: u8, blob: Hash| CommitRequest {
        placements: vec![(blob, place.clone())],
        folder_rows: vec![(1, id, Some(row(byte)))],
        ..Default::default()
    };
    let created = CommitRequest {
        operations: vec![create],
        ..on_disk(1, old)
    };
    assert_eq!(carry_out(created), [1, 0]);
    // As if it had come from elsewhere: the document first, and the disk later.
    let operations = vec![set];
    let came = CommitRequest {
        operations,
        ..Default::default()
    };
    assert_eq!(carry_out(came), [1, 0]);
    assert_eq!(carry_out(on_disk(2, new)), [0, 1]);
}

#[test]
fn when_places_are_forgotten_only_those_that_lack_bytes_for_it_count_as_not_here() {
    let mut core = vault();
    let (small, blob) = one_chunk(1);
    let ChunkRoot::Inline(list) = one_chunk(2).0.root else {
        panic!("a list in the document");
    };
    let long = ContentDraft {
        root: ChunkRoot::Indirect { depth: 1, list },
        ..content(2)
    };
    let ids = [FileId([1; 16]), FileId([2; 16])];
    let create = |n: usize, content: &ContentDraft| Operation::CreateFile {
        id: ids[n],
        kind: Kind::File,
        parent: FileId::ROOT,
        name: n.to_string(),
        content: Some(content.clone()),
        created_ms: 1,
    };
    let mut carry_out = |request: CommitRequest| {
        let input = vec![Input::Commit(1, Box::new(request))];
        assert!(is_acknowledged(&core.process(input, wall_ms())));
        core.state().wanted
    };
    let created = CommitRequest {
        operations: vec![create(0, &small), create(1, &long)],
        placements: vec![(blob, Placement::Store)],
        ..Default::default()
    };
    assert_eq!(carry_out(created), 0);
    let forgotten = |recheck: Vec<FileId>| CommitRequest {
        displaced: vec![(blob, Placement::Store)],
        recheck,
        recheck_all: true,
        ..Default::default()
    };
    // The large one has lost nothing; what its list names, whoever forgets a place has read.
    assert_eq!(carry_out(forgotten(Vec::new())), 1);
    assert_eq!(carry_out(forgotten(vec![ids[1]])), 2);
}
