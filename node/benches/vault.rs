//! What the vault's core costs without a disk: carrying out a request of 1,000 new documents, and taking in the entries
//! that another device made of them.

use coffer_node::store;
use coffer_node::vault::core::{Admission, Core, Input, Output};
use coffer_node::vault::identity::Identity;
use coffer_node::vault::{CommitRequest, Operation, founding};
use coffer_protocol::grants::Role;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::replication::{Action, Message};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;

const DOCUMENTS: usize = 1000;
const NOW_MS: u64 = 1_795_000_000_000;

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn founded() -> Core {
    let database = store::open_with(redb::backends::InMemoryBackend::new())
        .expect("a database in memory opens");
    let identity = Identity::generate(&mut rng(1));
    founding::found(&database, &identity, "bench", b"here", NOW_MS, &mut rng(2))
        .expect("a vault is founded");
    founding::open(database, identity, b"here", Box::new(rng(3))).expect("the vault opens")
}

/// A second device of the vault that `first` holds.
fn joined(first: &mut Core) -> Core {
    let identity = Identity::generate(&mut rng(4));
    let admission = Admission {
        device: identity.key.id(),
        sealing: identity.sealing.public(),
        name: "second".into(),
        role: Role::Owner,
    };
    let outputs = first.process(vec![Input::Admit(0, admission)], NOW_MS);
    let welcome = outputs.into_iter().find_map(|output| match output {
        Output::Admitted(_, Ok(welcome)) => Some(welcome),
        _ => None,
    });
    let welcome = welcome.expect("the device is admitted");
    let database = store::open_with(redb::backends::InMemoryBackend::new())
        .expect("a database in memory opens");
    founding::join(
        &database,
        &identity,
        welcome.vault,
        &welcome,
        "second",
        b"there",
        &mut rng(5),
    )
    .expect("the device joins");
    founding::open(database, identity, b"there", Box::new(rng(6))).expect("the vault opens")
}

fn request(round: u64) -> CommitRequest {
    let operations = (0..DOCUMENTS).map(|n| Operation::PutDocument {
        doctype: "io.cozy.contacts".into(),
        id: format!("{round}-{n}"),
        value: serde_json::json!({"name": format!("Person {n}"), "n": n, "email": "a@b.example", "done": n % 3 == 0}),
        texts: Vec::new(),
        base: Vec::new(),
    });
    CommitRequest {
        operations: operations.collect(),
        ..Default::default()
    }
}

fn hello(core: &Core) -> Message {
    let state = core.state();
    Message::Hello {
        versions: vec![coffer_protocol::version::REPLICATION],
        vault: state.vault,
        grant_heads: state.membership.heads(),
        clock: state.clock.clone(),
    }
}

/// All entries that `from` sends to a device that has just connected.
fn entries(from: &mut Core, to: DeviceId, hello: Message) -> Vec<Vec<u8>> {
    from.process(vec![Input::Connected(to)], NOW_MS);
    let outputs = from.process(vec![Input::Message(to, hello)], NOW_MS);
    let mut entries = Vec::new();
    for output in outputs {
        if let Output::To(
            _,
            Action::SendEntries {
                writer,
                from: mut next,
                to,
                ..
            },
        ) = output
        {
            while next <= to {
                let part = from.entries(writer, next, to).expect("entries are read");
                next += part.len() as u64;
                entries.extend(part);
            }
        }
    }
    entries
}

fn vault(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("vault");
    group.throughput(Throughput::Elements(DOCUMENTS as u64));
    group.sample_size(20);
    let mut core = founded();
    let mut round = 0;
    group.bench_function("commit 1,000 new documents", |bench| {
        bench.iter_batched(
            || {
                round += 1;
                request(round)
            },
            |request| core.process(vec![Input::Commit(1, Box::new(request))], NOW_MS),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("take in 1,000 documents of another device", |bench| {
        bench.iter_batched(
            || {
                let mut first = founded();
                let mut second = joined(&mut first);
                first.process(vec![Input::Commit(1, Box::new(request(0)))], NOW_MS);
                let greeting = hello(&second);
                let entries = entries(&mut first, second.device(), greeting);
                let device = first.device();
                second.process(vec![Input::Connected(device)], NOW_MS);
                second.process(vec![Input::Message(device, hello(&first))], NOW_MS);
                (second, device, entries)
            },
            |(mut second, device, entries)| {
                second.process(
                    vec![Input::Message(device, Message::Entries(entries))],
                    NOW_MS,
                )
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, vault);
criterion_main!(benches);
