//! Several cores that talk without a network: what one says the other hears at once.

use coffer_protocol::grants::Role;
use coffer_protocol::keys::SealingKey;
use coffer_protocol::replication::{Message, Outbox, Work};

use super::*;
use crate::vault::Admission;

/// Another device of the vault of `first`, as it is right after its admission: it has the keys and nothing else.
pub(super) fn joined(first: &mut Core, n: u64) -> Core {
    let mut rng = StdRng::seed_from_u64(n);
    let identity = Identity::generate(&mut rng);
    let admission = Admission {
        device: identity.key.id(),
        sealing: SealingKey::public(&identity.sealing),
        name: format!("device {n}"),
        role: Role::Owner,
    };
    let outputs = first.process(vec![Input::Admit(1, admission)], wall_ms());
    let mut welcomes = outputs.into_iter().filter_map(|output| match output {
        Output::Admitted(_, welcome) => Some(welcome.unwrap()),
        _ => None,
    });
    let (vault, welcome) = (first.state().vault, welcomes.next().expect("an answer"));
    let database = store::open_with(InMemoryBackend::new()).unwrap();
    founding::join(
        &database, &identity, vault, &welcome, "other", b"there", &mut rng,
    )
    .unwrap();
    founding::open(database, identity, b"there", Box::new(rng)).unwrap()
}

/// The two meet, say all that they have to say, and part. Gives what the first has said.
pub(super) fn meet(a: &mut Core, b: &mut Core) -> Vec<Message> {
    let mut said = Vec::new();
    let mut sides = [(a, Outbox::new()), (b, Outbox::new())];
    for at in 0..2 {
        let other = sides[1 - at].0.device();
        hand(&mut sides[at], Input::Connected(other));
    }
    while sides.iter().any(|(_, outbox)| !outbox.is_empty()) {
        for at in 0..2 {
            while let Some(work) = sides[at].1.take_next() {
                let messages = messages(&mut sides[at], work);
                let from = sides[at].0.device();
                if at == 0 {
                    said.extend(messages.iter().cloned());
                }
                for message in messages {
                    hand(&mut sides[1 - at], Input::Message(from, message));
                }
            }
        }
    }
    for at in 0..2 {
        let other = sides[1 - at].0.device();
        hand(&mut sides[at], Input::Disconnected(other));
    }
    said
}

fn hand((core, outbox): &mut (&mut Core, Outbox), input: Input) {
    for output in core.process(vec![input], wall_ms()) {
        match output {
            Output::To(_, action) => assert_eq!(outbox.push(action), None),
            Output::Close(device, why) => panic!("{device} is closed on: {why}"),
            _ => {}
        }
    }
}

fn messages((core, outbox): &mut (&mut Core, Outbox), work: Work) -> Vec<Message> {
    match work {
        Work::Message(message) => vec![message],
        Work::Grants { they_have } => {
            let membership = &core.state().membership;
            let missing = membership.missing(&they_have).into_iter();
            let grants = missing.map(|grant| grant.bytes().to_vec()).collect();
            Message::grants(&membership.heads(), grants)
        }
        Work::Entries {
            writer,
            from,
            to,
            ranges,
        } => {
            let run = core.run_of(writer, (from, to), ranges).unwrap().unwrap();
            outbox.sent(writer, run.last);
            run.message.into_iter().collect()
        }
        Work::Range(_) | Work::Attestations(_) => {
            core.range_of(&work).unwrap().into_iter().collect()
        }
        Work::Close(reason) => panic!("they part: {reason}"),
    }
}
