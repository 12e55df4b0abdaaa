//! Random histories, compared with the plain model answer by answer.

use std::future::Future;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use super::super::memory::MemoryStore;
use super::super::{HeldStatement, Released};
use super::*;

/// Small numbers all over, so that they meet.
#[derive(Clone, Debug)]
pub enum Step {
    Invite(u64, u64),
    Consume(u64, u64, u64),
    SetQuota(u64, u64),
    SetMembers(u64, Vec<u64>),
    Erase(u64),
    Forget(u64),
    Grants(u64, Vec<u64>),
    Append(u64, Vec<(u64, u64, u64, usize)>),
    Entries(u64, u64, u64, u64, usize),
    PutRange(u64, u64, u64, u64, usize),
    DropEntries(u64, u64, u64),
    Say(u64, u64, u64, u64),
    Held(u64, u64, u64),
    State(u64, u64),
    Have(u64, Vec<u64>, bool),
    Put(u64, Vec<u64>),
    Get(u64, Vec<u64>),
    Range(u64, u64, u64, u32),
    Release(u64, u64, Vec<u64>, u64),
    Free(u64, usize),
    /// As they were before the last [`Step::Free`], which may be stale.
    FreeAgain(u64),
    Tidy,
    Reopen,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let v = || prop_oneof![4 => Just(0u64), 1 => 1..3u64];
    let blobs = || prop::collection::vec(0..24u64, 1..8);
    let entry = (0..3u64, 1..8u64, 0..2u64, 0..3000usize);
    let step = prop_oneof![
        2 => (0..6u64, 0..120_000u64).prop_map(|(n, quota)| Step::Invite(n, quota)),
        3 => (0..6u64, v(), 0..1500u64).prop_map(|(n, v, at)| Step::Consume(n, v, at)),
        1 => (v(), 0..150_000u64).prop_map(|(v, quota)| Step::SetQuota(v, quota)),
        1 => (v(), prop::collection::vec(0..4u64, 0..4)).prop_map(|(v, of)| Step::SetMembers(v, of)),
        1 => v().prop_map(Step::Erase),
        1 => (0..2000u64).prop_map(Step::Forget),
        2 => (v(), prop::collection::vec(0..6u64, 0..4)).prop_map(|(v, of)| Step::Grants(v, of)),
        6 => (v(), prop::collection::vec(entry, 1..6)).prop_map(|(v, of)| Step::Append(v, of)),
        2 => (v(), 0..3u64, 0..8u64, 0..9u64, 0..9000usize)
            .prop_map(|(v, w, from, to, max)| Step::Entries(v, w, from, to, max)),
        4 => (v(), 0..3u64, 1..7u64, 0..4u64, 1..3000usize)
            .prop_map(|(v, w, from, more, len)| Step::PutRange(v, w, from, from + more, len)),
        2 => (v(), 0..3u64, 1..9u64).prop_map(|(v, w, to)| Step::DropEntries(v, w, to)),
        2 => (v(), 0..3u64, 1..9u64, 0..3u64).prop_map(|(v, w, to, d)| Step::Say(v, w, to, d)),
        2 => (v(), 0..3u64, 0..5u64).prop_map(|(v, d, counter)| Step::Held(v, d, counter)),
        2 => (v(), 0..5u64).prop_map(|(v, counter)| Step::State(v, counter)),
        4 => (v(), blobs(), any::<bool>()).prop_map(|(v, of, claim)| Step::Have(v, of, claim)),
        8 => (v(), blobs()).prop_map(|(v, of)| Step::Put(v, of)),
        4 => (v(), blobs()).prop_map(|(v, of)| Step::Get(v, of)),
        2 => (v(), 0..24u64, 0..9000u64, 0..9000u32)
            .prop_map(|(v, n, offset, len)| Step::Range(v, n, offset, len)),
        6 => (v(), 0..3u64, blobs(), 0..9u64).prop_map(|(v, d, of, at)| Step::Release(v, d, of, at)),
        4 => (v(), 0..9usize).prop_map(|(v, n)| Step::Free(v, n)),
        2 => v().prop_map(Step::FreeAgain),
        2 => Just(Step::Tidy),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80).prop_map(|mut steps| {
        // Histories in which nothing is served are short enough without help.
        steps.splice(0..0, [Step::Invite(0, 100_000), Step::Consume(0, 0, 0)]);
        steps
    })
}

/// A blob of which the size depends on the number.
fn sized(n: u64) -> (Hash, Bytes) {
    blob(n, [0, 100, 8192, 30_000][n as usize % 4])
}

fn ids(of: &[u64]) -> Vec<Hash> {
    of.iter().map(|n| sized(*n).0).collect()
}

/// Does a step, and says what came of it. `stale` is what was released at the last look.
pub async fn act(store: &Store, step: &Step, stale: &mut Vec<Released>) -> String {
    match step.clone() {
        Step::Invite(n, quota) => {
            format!("{:?}", store.add_invitation(invitation(n, quota)).await)
        }
        Step::Consume(n, v, at) => {
            let epoch = [n as u8; 16];
            let used = store.consume_invitation(hash(n), vault(v), epoch, NOW + at);
            format!("{:?}", used.await)
        }
        Step::SetQuota(v, quota) => format!("{:?}", store.set_quota(vault(v), quota).await),
        Step::SetMembers(v, of) => {
            let members = of.into_iter().map(device).collect();
            format!("{:?}", store.set_members(vault(v), members).await)
        }
        Step::Erase(v) => {
            let receipt = content(v, 20);
            format!("{:?}", store.erase(vault(v), receipt, NOW).await)
        }
        Step::Forget(at) => format!("{:?}", store.forget(NOW + at).await),
        Step::Grants(v, of) => {
            let grants = of.into_iter().map(|n| (hash(n), content(n, 17_000)));
            format!("{:?}", store.put_grants(vault(v), grants.collect()).await)
        }
        Step::Append(v, of) => {
            let entries = of
                .into_iter()
                .map(|(n, seq, fork, len)| entry(n, seq, fork, len));
            format!("{:?}", store.append(vault(v), entries.collect()).await)
        }
        Step::Entries(v, w, from, to, max) => {
            let read = store.entries(vault(v), writer(w), from, to, max);
            format!("{:?}", read.await)
        }
        Step::PutRange(v, w, from, to, len) => {
            let put = store.put_range(vault(v), range(w, from, to, len));
            format!("{:?}", put.await)
        }
        Step::DropEntries(v, w, to) => {
            format!("{:?}", store.drop_entries(vault(v), writer(w), to).await)
        }
        Step::Say(v, w, to, d) => {
            let said = content(d, 100);
            let said = store.put_said(vault(v), writer(w), to, device(d), said);
            format!("{:?}", said.await)
        }
        Step::Held(v, n, counter) => {
            let bytes = content(counter, 20_000 * (counter as usize % 2));
            let statement = HeldStatement {
                device: device(n),
                counter,
                bytes,
            };
            format!("{:?}", store.put_held(vault(v), statement).await)
        }
        Step::State(v, counter) => {
            let bytes = content(counter, 30);
            let stated = store.put_host_statement(vault(v), counter, bytes);
            format!("{:?}", stated.await)
        }
        Step::Have(v, of, claim) => format!("{:?}", store.have(vault(v), ids(&of), claim).await),
        Step::Put(v, of) => {
            let blobs = of.into_iter().map(sized).collect();
            format!("{:?}", store.put(vault(v), blobs).await)
        }
        Step::Get(v, of) => format!("{:?}", all(store, vault(v), ids(&of)).await),
        Step::Range(v, n, offset, len) => {
            let part = store.range(vault(v), sized(n).0, offset, len);
            format!("{:?}", part.await)
        }
        Step::Release(v, n, of, at) => {
            let released = store.release(vault(v), device(n), ids(&of), NOW + at);
            format!("{:?}", released.await)
        }
        Step::Free(v, n) => {
            let released = store.released(vault(v), None, n).await;
            *stale = released.clone().unwrap_or_default();
            format!(
                "{:?}",
                (released, store.free(vault(v), stale.clone()).await)
            )
        }
        Step::FreeAgain(v) => format!("{:?}", store.free(vault(v), stale.clone()).await),
        Step::Tidy => format!("{:?}", store.tidy().await.map(|_| ())),
        Step::Reopen => String::new(),
    }
}

/// Everything that can be asked.
pub async fn look(store: &Store) -> String {
    let mut seen = format!(
        "{:?}",
        (
            store.vaults(None, 99).await,
            store.invitations(None, 99).await,
            store.totals().await,
        )
    );
    for n in 0..3 {
        let v = vault(n);
        let known = ids(&(0..24).collect::<Vec<_>>());
        let of_one = (
            store.snapshot(v).await,
            store.clock(v).await,
            store.receipt(v).await,
            store.grants(v).await,
            store.held(v).await,
            store.list(v, None, 99).await,
            store.released(v, None, 99).await,
            store.vaults_of(device(n)).await,
            all(store, v, known).await,
        );
        seen += &format!("\n{of_one:?}");
        for w in 0..3 {
            for from in 1..9 {
                let entries = store.entries(v, writer(w), from, 99, 1 << 20).await;
                let range = store.range_of(v, writer(w), from).await;
                seen += &format!("\n{:?}", (entries, range));
            }
        }
        seen += &format!("\n{:?}", store.ranges(v).await);
    }
    seen
}

/// Compares `cases` random histories.
pub fn compare_with_the_model<B, F>(runtime: &Runtime, cases: u32, bench: impl Fn() -> F)
where
    B: Bench,
    F: Future<Output = B>,
{
    let config = Config {
        cases,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let bench = bench().await;
            let model: Store = Arc::new(Bounded::new(MemoryStore::new()));
            let mut store = bench.open().await;
            let (mut stale_model, mut stale) = (Vec::new(), Vec::new());
            for step in &steps {
                if matches!(step, Step::Reopen) {
                    store.close().await;
                    drop(store);
                    store = bench.open().await;
                }
                let expected = act(&model, step, &mut stale_model).await;
                let got = act(&store, step, &mut stale).await;
                prop_assert_eq!(got, expected, "{:?}", step);
            }
            prop_assert_eq!(look(&store).await, look(&model).await);
            store.close().await;
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
