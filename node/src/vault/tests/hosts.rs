//! What the core remembers of relay hosts.

use coffer_protocol::grants::Role;
use coffer_protocol::identity::{DeviceId, DeviceKey, Hash, StoreId, WriterId};
use coffer_protocol::keys::SealingKey;
use coffer_protocol::log::Clock;
use coffer_protocol::relay::{HostState, HostStatement};
use coffer_protocol::replication::{Action, Message};
use redb::ReadableDatabase;

use super::*;
use crate::hosts::{Added, ContentKey, HostChange, TroubleKind};
use crate::vault::Admission;
use crate::vault::hosts::Confirmed;
use crate::vault::state::State;
use crate::vault::storage::{Eviction, Rule, StorageChange};

const CONTENT: ContentKey = ContentKey([3; 32]);

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_secret([n; 32])
}

/// A vault with a host (key 9) and another device (key 2), both connected.
fn with_host() -> Core {
    let mut core = vault();
    for (n, role) in [(9, Role::Relay), (2, Role::Owner)] {
        let admission = Admission {
            device: key(n).id(),
            sealing: SealingKey::of_device(&key(n)).public(),
            name: "another".into(),
            role,
        };
        core.process(vec![Input::Admit(1, admission)], 1);
        core.process(vec![Input::Connected(key(n).id())], 1);
        let hello = Message::Hello {
            versions: vec![1],
            vault: core.state().vault,
            grant_heads: core.state().membership.heads(),
            clock: Clock::new(),
        };
        core.process(vec![Input::Message(key(n).id(), hello)], 1);
    }
    core
}

fn statement(core: &Core, counter: u64, seq: u64) -> Vec<u8> {
    statement_of(core, 9, counter, seq)
}

fn statement_of(core: &Core, host: u8, counter: u64, seq: u64) -> Vec<u8> {
    let writer = WriterId {
        device: key(2).id(),
        incarnation: 0,
    };
    let entries = [(writer, (seq, Hash([1; 32])))];
    let state = HostState {
        version: 1,
        vault: core.state().vault,
        host: key(host).id(),
        store: StoreId([4; 16]),
        counter,
        at_ms: counter,
        entries: entries.into_iter().collect(),
        entry_bytes: 1,
        blobs: 1,
        blob_bytes: 1,
        quota_bytes: 100,
    };
    HostStatement::sign(state, &key(host))
        .unwrap()
        .bytes()
        .to_vec()
}

fn says(core: &mut Core, from: DeviceId, statement: Vec<u8>) -> Vec<Output> {
    let held = Message::Held {
        device: key(9).id(),
        statement,
    };
    core.process(vec![Input::Message(from, held)], 7)
}

fn change(core: &mut Core, change: HostChange) {
    let request = CommitRequest {
        hosts: vec![change],
        ..Default::default()
    };
    core.process(vec![Input::Commit(1, Box::new(request))], 7);
}

fn is_confirmed(core: &Core) -> bool {
    let read = core.database().begin_read().unwrap();
    let confirmed = Confirmed::new(&read, key(9).id()).unwrap();
    let has = confirmed.has(&CONTENT).unwrap();
    assert_eq!(confirmed.is_empty().unwrap(), !has);
    has
}

fn troubles(core: &Core) -> Vec<TroubleKind> {
    let memory = core.state().hosts.get(&key(9).id());
    let troubles = memory.into_iter().flat_map(|memory| &memory.troubles);
    troubles.map(|trouble| trouble.kind).collect()
}

#[test]
fn a_hosts_statement_is_kept_and_passed_on_to_other_devices() {
    let mut core = with_host();
    let first = statement(&core, 5, 5);
    let outputs = says(&mut core, key(9).id(), first.clone());
    let passed_on = outputs.iter().any(|output| {
        matches!(output, Output::To(to, Action::Send { message: Message::Held { device, statement }, .. })
            if *to == key(2).id() && *device == key(9).id() && *statement == first)
    });
    assert!(passed_on);
    let told = |output: &Output| matches!(output, Output::HostsChanged);
    assert!(outputs.iter().any(told));
    // The same again, by way of the other device, is nothing new.
    assert!(!says(&mut core, key(2).id(), first.clone()).iter().any(told));
    // After a restart it is still known.
    let (state, statements) = State::read(core.database(), &core.identity).unwrap();
    assert_eq!(state.hosts, core.state().hosts);
    assert!(statements.contains(&(key(9).id(), first)));
}

#[test]
fn what_a_host_confirmed_is_void_once_it_was_put_back() {
    let mut core = with_host();
    let later = statement(&core, 5, 5);
    says(&mut core, key(9).id(), later);
    change(&mut core, HostChange::Confirmed(key(9).id(), vec![CONTENT]));
    assert!(is_confirmed(&core));
    // An old one that another device passes on is no sign of anything.
    let old = statement(&core, 2, 2);
    says(&mut core, key(2).id(), old.clone());
    assert!(is_confirmed(&core) && troubles(&core).is_empty());
    says(&mut core, key(9).id(), old);
    assert!(!is_confirmed(&core));
    assert_eq!(troubles(&core), [TroubleKind::RolledBack]);
}

#[test]
fn two_accounts_of_one_number_are_noted_wherever_they_come_from() {
    let mut core = with_host();
    let (one, other) = (statement(&core, 5, 5), statement(&core, 5, 6));
    says(&mut core, key(9).id(), one);
    change(&mut core, HostChange::Confirmed(key(9).id(), vec![CONTENT]));
    says(&mut core, key(2).id(), other);
    assert_eq!(troubles(&core), [TroubleKind::Contradicts]);
    assert!(
        is_confirmed(&core),
        "it may still have what it confirmed here"
    );
}

#[test]
fn a_host_that_is_forgotten_begins_anew() {
    let mut core = with_host();
    let first = statement(&core, 5, 5);
    says(&mut core, key(9).id(), first);
    change(&mut core, HostChange::Confirmed(key(9).id(), vec![CONTENT]));
    change(
        &mut core,
        HostChange::Trouble(key(9).id(), TroubleKind::LostContents),
    );
    assert_eq!(troubles(&core), [TroubleKind::LostContents]);
    change(&mut core, HostChange::Forget(key(9).id()));
    assert!(troubles(&core).is_empty() && !is_confirmed(&core));
    let (state, _) = State::read(core.database(), &core.identity).unwrap();
    assert!(state.hosts.is_empty());
}

#[test]
fn what_is_over_and_what_was_before_a_host_was_added_anew_is_held_against_it_no_longer() {
    let mut core = with_host();
    let host = key(9).id();
    let first = statement(&core, 5, 5);
    says(&mut core, host, first);
    for kind in [TroubleKind::LostContents, TroubleKind::Forged] {
        change(&mut core, HostChange::Trouble(host, kind));
    }
    change(&mut core, HostChange::Over(host, TroubleKind::LostContents));
    assert_eq!(troubles(&core), [TroubleKind::Forged]);
    change(&mut core, HostChange::Confirmed(host, vec![CONTENT]));
    let added = |store: u8| Added {
        at_ms: 8,
        store: Some(StoreId([store; 16])),
    };
    // To the store that it has told of already: that stays known.
    change(&mut core, HostChange::Begins(host, added(4)));
    assert!(troubles(&core).is_empty() && !is_confirmed(&core));
    let known = |core: &Core| core.state().hosts[&host].clone();
    assert!(known(&core).record.told.is_some());
    change(&mut core, HostChange::Begins(host, added(5)));
    assert_eq!(known(&core).record.told, None);
    let (state, _) = State::read(core.database(), &core.identity).unwrap();
    assert_eq!(state.hosts[&host], known(&core));
    assert_eq!(state.hosts[&host].added, Some(added(5)));
}

#[test]
fn nothing_that_is_no_statement_of_that_host_is_taken() {
    let mut core = with_host();
    let mut damaged = statement(&core, 5, 5);
    damaged[40] ^= 1;
    // A device that passes one on is not held to answer for it.
    says(&mut core, key(2).id(), damaged.clone());
    assert!(core.state().hosts.is_empty());
    // Who is no host makes none.
    let held = Message::Held {
        device: key(2).id(),
        statement: statement(&core, 5, 5),
    };
    core.process(vec![Input::Message(key(2).id(), held)], 7);
    assert!(core.state().hosts.is_empty());
    // A host that says so itself has made it up.
    for bytes in [damaged, Vec::new(), vec![1; 300]] {
        says(&mut core, key(9).id(), bytes);
    }
    assert_eq!(troubles(&core), [TroubleKind::Forged]);
    let memory = &core.state().hosts[&key(9).id()];
    assert_eq!(
        (&memory.record.told, &memory.record.furthest),
        (&None, &None)
    );
}

#[test]
fn a_content_is_dropped_when_two_hosts_keep_it_and_never_for_one_or_a_doubtful_one() {
    let mut core = with_host();
    let second = Admission {
        device: key(8).id(),
        sealing: SealingKey::of_device(&key(8)).public(),
        name: "another".into(),
        role: Role::Relay,
    };
    core.process(vec![Input::Admit(1, second)], 1);
    let id = FileId([1; 16]);
    let create = Operation::CreateFile {
        id,
        kind: Kind::File,
        parent: FileId::ROOT,
        name: "letter".into(),
        content: Some(content(1)),
        created_ms: 1,
    };
    commit(&mut core, vec![create]).unwrap();
    let on_demand = StorageChange::Rule(FileId::ROOT, Some(Rule::OnDemand));
    settle(&mut core, on_demand).unwrap();
    core.process(vec![Input::StateHeld], 8);
    let evict = |core: &mut Core| {
        let eviction = Eviction {
            as_of: core.state().transaction,
            files: vec![(id, [1; 32])],
            ..Eviction::default()
        };
        settle(core, StorageChange::Evict(eviction))
    };
    let made_of = ContentKey::of(&ChunkRoot::empty());
    let confirm = |core: &mut Core, n: u8| {
        change(core, HostChange::Confirmed(key(n).id(), vec![made_of]));
        // What is known of a host begins with its first statement.
        change(
            core,
            HostChange::Trouble(key(n).id(), TroubleKind::Withholds),
        );
    };
    assert!(evict(&mut core).is_err());
    confirm(&mut core, 9);
    confirm(&mut core, 8);
    assert!(evict(&mut core).is_err(), "both are doubtful");
    for n in [9, 8] {
        assert!(evict(&mut core).is_err());
        change(&mut core, HostChange::Forget(key(n).id()));
        let first = statement_of(&core, n, 1, 1);
        let held = Message::Held {
            device: key(n).id(),
            statement: first,
        };
        core.process(vec![Input::Message(key(2).id(), held)], 7);
        change(&mut core, HostChange::Confirmed(key(n).id(), vec![made_of]));
    }
    evict(&mut core).unwrap();
}

fn settle(core: &mut Core, change: StorageChange) -> Result<Committed, CommitError> {
    let request = CommitRequest {
        storage: vec![change],
        ..Default::default()
    };
    let outputs = core.process(vec![Input::Commit(1, Box::new(request))], 8);
    let mut answers = outputs.into_iter().filter_map(|output| match output {
        Output::Committed(_, result) => Some(result),
        _ => None,
    });
    answers.next().expect("an answer")
}
