//! A year of editing, before and after its log is put together into ranges: what it takes on a device, what a newcomer
//! downloads and how long that takes it. In memory, without a disk or a network.
//!
//! ```text
//! cargo run --release -p coffer-tests --example year -- 100000 50000     # keystrokes in one text, changes of files
//! ```

use std::time::Instant;

use coffer_crdt::chunks::{ChunkList, ChunkRef, ChunkRoot};
use coffer_crdt::files::{FileId, Kind};
use coffer_node::store::{self, ranges, tables};
use coffer_node::vault::identity::Identity;
use coffer_node::vault::{
    Admission, CommitRequest, ContentDraft, Core, Input, Operation, Output, founding,
};
use coffer_protocol::grants::Role;
use coffer_protocol::replication::{ENTRIES_TARGET, Message, Outbox, Work};
use rand::SeedableRng;
use rand::rngs::StdRng;
use redb::{ReadableDatabase, ReadableTable};
use serde_json::json;

/// Files that are saved again and again.
const FILES: u64 = 500;
/// A saved text stays a page: a person deletes, too, and what is measured is the log.
const PAGE: usize = 2000;

/// Devices of a vault in memory, and a clock of their own.
struct Vault {
    now_ms: u64,
    devices: u64,
}

impl Vault {
    fn found(&mut self) -> Core {
        let (identity, database) = self.device();
        let mut rng = StdRng::seed_from_u64(1);
        founding::found(&database, &identity, "first", b"", self.now_ms, &mut rng)
            .expect("a vault is founded");
        founding::open(database, identity, b"", Box::new(rng)).expect("the vault opens")
    }

    fn device(&mut self) -> (Identity, std::sync::Arc<redb::Database>) {
        self.devices += 1;
        let identity = Identity::generate(&mut StdRng::seed_from_u64(self.devices));
        let memory = redb::backends::InMemoryBackend::new();
        let database = store::open_with(memory).expect("a database in memory opens");
        (identity, database)
    }

    /// Another device of the vault of `first`, which has the keys and nothing else.
    fn join(&mut self, first: &mut Core) -> Core {
        let (identity, database) = self.device();
        let admission = Admission {
            device: identity.key.id(),
            sealing: identity.sealing.public(),
            name: "other".into(),
            role: Role::Owner,
        };
        let outputs = first.process(vec![Input::Admit(0, admission)], self.now_ms);
        let welcome = outputs.into_iter().find_map(|output| match output {
            Output::Admitted(_, Ok(welcome)) => Some(welcome),
            _ => None,
        });
        let welcome = welcome.expect("the device is admitted");
        let vault = welcome.vault;
        let mut rng = StdRng::seed_from_u64(self.devices + 1000);
        founding::join(
            &database, &identity, vault, &welcome, "other", b"", &mut rng,
        )
        .expect("the device joins");
        founding::open(database, identity, b"", Box::new(rng)).expect("the vault opens")
    }

    /// One change in a commit of its own.
    fn change(&mut self, core: &mut Core, operation: Operation) {
        self.now_ms += 1000;
        let request = CommitRequest {
            operations: vec![operation],
            ..CommitRequest::default()
        };
        let outputs = core.process(vec![Input::Commit(1, Box::new(request))], self.now_ms);
        let done = outputs
            .iter()
            .any(|output| matches!(output, Output::Committed(_, Ok(_))));
        assert!(done, "a change is refused");
    }

    /// Two devices say all that they have to say; gives the bytes that went from the first to the second.
    fn meet(&mut self, a: &mut Core, b: &mut Core) -> u64 {
        let mut sides = [(a, Outbox::new()), (b, Outbox::new())];
        let mut sent = 0;
        for at in 0..2 {
            let other = sides[1 - at].0.device();
            hand(&mut sides[at], Input::Connected(other), self.now_ms);
        }
        while sides.iter().any(|(_, outbox)| !outbox.is_empty()) {
            for at in 0..2 {
                while let Some(work) = sides[at].1.take_next() {
                    let from = sides[at].0.device();
                    for message in messages(&mut sides[at], work) {
                        if at == 0 {
                            sent += message.encode().len() as u64;
                        }
                        let input = Input::Message(from, message);
                        hand(&mut sides[1 - at], input, self.now_ms);
                    }
                }
            }
        }
        for at in 0..2 {
            let other = sides[1 - at].0.device();
            hand(&mut sides[at], Input::Disconnected(other), self.now_ms);
        }
        sent
    }
}

fn hand((core, outbox): &mut (&mut Core, Outbox), input: Input, now_ms: u64) {
    for output in core.process(vec![input], now_ms) {
        if let Output::To(_, action) = output {
            outbox.push(action);
        }
    }
}

fn messages((core, outbox): &mut (&mut Core, Outbox), work: Work) -> Vec<Message> {
    match work {
        Work::Message(message) => vec![message],
        Work::Grants { they_have } => vec![core.grants_after(&they_have)],
        Work::Entries {
            writer,
            from,
            to,
            ranges,
        } => {
            let run = core.run_of(writer, (from, to), ranges);
            let run = run.expect("the store is read").expect("it is there");
            outbox.sent(writer, run.last);
            run.message.into_iter().collect()
        }
        Work::Range(_) | Work::Attestations(_) => {
            let message = core.range_of(&work).expect("the store is read");
            message.into_iter().collect()
        }
        Work::Close(reason) => panic!("they part: {reason}"),
    }
}

/// Bytes of the entries that a device has, and of ranges, and how many of each.
fn kept(core: &Core) -> [(u64, u64); 2] {
    let read = core.database().begin_read().expect("a transaction");
    let entries = read.open_table(tables::ENTRIES).expect("a table");
    let entries = entries.iter().expect("rows").map(|row| {
        let (key, value) = row.expect("a row");
        (
            u64::from(key.value()[44..] == [0, 0]),
            value.value().len() as u64,
        )
    });
    let ranges = read.open_table(tables::RANGES).expect("a table");
    let ranges = ranges.iter().expect("rows").map(|row| {
        let (key, value) = row.expect("a row");
        (
            u64::from(key.value()[44..] == [0, 0]),
            value.value().len() as u64,
        )
    });
    let sum = |rows: &mut dyn Iterator<Item = (u64, u64)>| {
        rows.fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1))
    };
    [sum(&mut { entries }), sum(&mut { ranges })]
}

/// What somebody who has nothing of the log of `core` downloads of it, as who knows ranges or does not.
fn download(core: &Core, knows_ranges: bool) -> Vec<Message> {
    let state = core.state();
    let (to, _) = state.clock.get(&state.writer).expect("a log");
    let read = core.database().begin_read().expect("a transaction");
    let (mut from, mut messages) = (1, Vec::new());
    while from <= to {
        let run = ranges::read_run(
            &read,
            state.writer,
            (from, to),
            knows_ranges,
            ENTRIES_TARGET,
        );
        let run = run.expect("the store is read").expect("it is there");
        from = run.last + 1;
        messages.extend(run.message);
    }
    messages
}

fn measure(name: &str, changes: u64, mut act: impl FnMut(&mut Vault, &mut Core, u64)) {
    let mut vault = Vault {
        now_ms: 1_795_000_000_000,
        devices: 0,
    };
    let mut first = vault.found();
    let mut second = vault.join(&mut first);
    first.set_stretch(u64::MAX / 2);
    for n in 0..changes {
        act(&mut vault, &mut first, n);
        if n % 4096 == 4095 {
            vault.meet(&mut first, &mut second);
        }
    }
    vault.meet(&mut first, &mut second);
    second.process(vec![Input::StateHeld], vault.now_ms);
    vault.meet(&mut first, &mut second);
    let [(entries, bytes), _] = kept(&first);
    println!("{name}: {changes} changes");
    println!("  before   {entries} entries, {bytes} bytes");
    let messages = download(&first, false);
    let len: usize = messages.iter().map(|message| message.encode().len()).sum();
    let mut newcomer = vault.join(&mut first);
    let begun = Instant::now();
    for message in messages {
        let Message::Entries(entries) = message else {
            panic!("entries go to who knows no ranges");
        };
        newcomer
            .take_in(entries, vault.now_ms)
            .expect("it is taken");
    }
    println!(
        "           a newcomer downloads {len} bytes and takes {:.1?}",
        begun.elapsed()
    );
    first.set_stretch(coffer_node::vault::ranges::STRETCH);
    let begun = Instant::now();
    while first.owes_range() {
        first.process(vec![Input::StateHeld], vault.now_ms);
    }
    let made = begun.elapsed();
    let begun = Instant::now();
    vault.meet(&mut first, &mut second);
    println!(
        "           ranges are made in {made:.1?}, compared in {:.1?}",
        begun.elapsed()
    );
    // All three say what they have, and hear it of each other.
    for _ in 0..2 {
        vault.meet(&mut first, &mut newcomer);
        vault.meet(&mut first, &mut second);
    }
    for core in [&mut first, &mut second] {
        while core.owes_range() {
            core.process(vec![Input::StateHeld], vault.now_ms);
        }
    }
    vault.meet(&mut first, &mut second);
    let [(entries, entry_bytes), (ranges, range_bytes)] = kept(&first);
    println!(
        "  after    {ranges} ranges and {entries} entries, {} bytes",
        range_bytes + entry_bytes
    );
    let mut newcomer = vault.join(&mut second);
    let begun = Instant::now();
    let len = vault.meet(&mut second, &mut newcomer);
    println!(
        "           a newcomer downloads {len} bytes and takes {:.1?}",
        begun.elapsed()
    );
    assert_eq!(newcomer.state().clock, second.state().clock, "it has all");
}

/// A hash of this number.
fn hash(n: u64, of: u8) -> [u8; 32] {
    *blake3::hash(&[&n.to_be_bytes()[..], &[of]].concat()).as_bytes()
}

fn main() {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .map(|number| number.parse().expect("a number of changes"))
        .collect();
    let [keystrokes, saves] = numbers[..] else {
        panic!("how many keystrokes, and how many changes of files?");
    };
    let mut text = String::new();
    measure("keystrokes in one text", keystrokes, |vault, core, n| {
        if text.len() >= PAGE {
            text.truncate(PAGE / 2);
        }
        text.push(char::from(b'a' + (n * 7 % 26) as u8));
        let (doctype, id) = ("io.cozy.notes".to_owned(), "year".to_owned());
        let texts = vec!["/text".to_owned()];
        let operation = match n {
            0 => Operation::PutDocument {
                doctype,
                id,
                value: json!({ "text": text }),
                texts,
                base: Vec::new(),
            },
            _ => Operation::MergeDocument {
                doctype,
                id,
                patch: json!({ "text": text }),
                texts,
                base: Vec::new(),
                must_exist: true,
            },
        };
        vault.change(core, operation);
    });
    measure("changes of files", saves, |vault, core, n| {
        let id = FileId(
            (n % FILES + 1)
                .to_be_bytes()
                .repeat(2)
                .try_into()
                .expect("16 bytes"),
        );
        let content = ContentDraft {
            size: 40_000,
            mtime_ms: n as i64,
            executable: false,
            hash: hash(n, 0),
            target: None,
            root: ChunkRoot::Inline(ChunkList {
                epochs: vec![[7; 32]],
                chunks: vec![ChunkRef {
                    id: hash(n, 1),
                    frame: hash(n, 2),
                    blob: hash(n, 3),
                    len: 40_000,
                    sealed_len: 40_960,
                    epoch: 0,
                }],
            }),
        };
        let operation = match n < FILES {
            true => Operation::CreateFile {
                id,
                kind: Kind::File,
                parent: FileId::ROOT,
                name: format!("report {n}.odt"),
                content: Some(content),
                created_ms: n as i64,
            },
            false => Operation::SetContent {
                id,
                content,
                replaces: None,
            },
        };
        vault.change(core, operation);
    });
}
