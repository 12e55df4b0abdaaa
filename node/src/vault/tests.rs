//! The core over a database in memory, asked directly.

use std::sync::Arc;

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::{FileId, Kind};
use rand::SeedableRng;
use rand::rngs::StdRng;
use redb::backends::InMemoryBackend;

use super::identity::Identity;
use super::{CommitError, CommitRequest, Committed, ContentDraft, Core, Input, Operation, Output};
use super::{founding, wall_ms};
use crate::store;

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
    let outputs = core.process(vec![Input::Commit(1, request)], wall_ms());
    let answers = outputs.into_iter().filter_map(|output| match output {
        Output::Committed(_, result) => Some(result),
        _ => None,
    });
    answers.last().expect("an answer")
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
}
