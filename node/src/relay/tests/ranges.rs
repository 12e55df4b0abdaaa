//! Ranges: kept, passed on, and given to who lacks the entries; nothing of them is believed that only their maker says.

use coffer_protocol::grants::Role;
use coffer_protocol::identity::DeviceKey;
use coffer_protocol::log::{Body, Clock, Entry, Header, open_entry};
use coffer_protocol::ranges::{self, Attestation, Content, Range, RangeParams};
use coffer_protocol::replication::Message;

use super::puppet::{Author, Puppet, TestHost, TestVault};
use crate::relay::freeing;
use crate::service::random;
use crate::vault::ranges::naming;

/// A vault of two devices, the second one's key, and five entries of the first.
struct Two {
    vault: TestVault,
    owner: Puppet,
    second: Puppet,
    key: DeviceKey,
    author: Author,
    entries: Vec<Vec<u8>>,
}

impl Two {
    async fn on(host: &TestHost) -> Two {
        let (mut vault, owner) = TestVault::bound_to(host).await;
        let key = DeviceKey::from_secret([4; 32]);
        vault.admit(key.id(), Role::Owner);
        let second = Puppet::new(&key, host).await;
        second.join(&vault, None).await.unwrap();
        let mut author = Author::new(&vault.owner);
        let entries = (0..5).map(|_| author.next(&vault)).collect();
        Two {
            vault,
            owner,
            second,
            key,
            author,
            entries,
        }
    }

    /// The range of the first four entries.
    fn range(&self) -> Range {
        let epoch = self.vault.keyring.current();
        let open = |bytes: &Vec<u8>| {
            let entry = Entry::decode(bytes).unwrap();
            let body = open_entry(&entry, epoch).unwrap();
            (entry.header, body)
        };
        let run: Vec<(Header, Body)> = self.entries[..4].iter().map(open).collect();
        let content = Content::of(run.iter().map(|(header, body)| (header, body)), naming);
        let (first, last) = (&run[0].0, &run[3].0);
        let params = RangeParams {
            vault: first.vault,
            space: first.space,
            writer: first.writer,
            from: 1,
            to: 4,
            prev: first.prev,
            last: last.hash(),
        };
        let (key, content) = (&self.vault.owner, content.unwrap());
        ranges::seal_range(key, &params, &content, naming, epoch, &mut random()).unwrap()
    }

    /// The range, as it is sent with the word of these devices that it is what it should be.
    fn message(&self, range: &Range, by: &[&DeviceKey]) -> Message {
        let said = by.iter().map(|key| {
            let said = Attestation::sign(key, &range.head, true).unwrap();
            said.bytes().to_vec()
        });
        Message::Range {
            range: range.encode(),
            attestations: said.collect(),
        }
    }

    /// What the second device hears of the log, which knows ranges and has nothing: entries, and a range.
    async fn heard(&self) -> (usize, Option<Range>) {
        let mut session = self
            .second
            .replicate_in(&[1, 2], &self.vault, Clock::new())
            .await;
        let (mut entries, mut range) = (0, None);
        let mut covered = 0;
        while covered < 5 {
            match session.hear().await.expect("the session goes on") {
                Message::Entries(some) => {
                    entries += some.len();
                    covered += some.len() as u64;
                }
                Message::Range { range: bytes, .. } => {
                    let one = Range::decode(&bytes).unwrap();
                    covered += one.head.to;
                    range = Some(one);
                }
                _ => {}
            }
        }
        (entries, range)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_kept_beside_its_entries_and_named_to_who_knows_ranges() {
    let host = TestHost::new("").await;
    let two = Two::on(&host).await;
    let mut first = two
        .owner
        .replicate_in(&[1, 2], &two.vault, two.author.clock())
        .await;
    first.say(&Message::Entries(two.entries.clone())).await;
    let range = two.range();
    // On the word of its maker alone it is kept, and nobody gets it instead of entries.
    first.say(&two.message(&range, &[&two.vault.owner])).await;
    let named = |message| match message {
        Message::Ranges(names) => Some(names),
        _ => None,
    };
    let names = first.hear_until(named).await;
    assert_eq!(names[0].id, range.head.id());
    assert_eq!(two.heard().await, (5, None));
    let said = Attestation::sign(&two.key, &range.head, true).unwrap();
    let said = vec![said.bytes().to_vec()];
    first.say(&Message::Attestations(said)).await;
    let again = first.hear_until(named).await;
    assert_ne!(again[0].said, names[0].said);
    assert_eq!(two.heard().await, (5, None));
    let name = again[0];
    let need = Message::NeedRanges {
        ranges: vec![name],
        said: Vec::new(),
    };
    first.say(&need).await;
    let (bytes, said) = first
        .hear_until(|message| match message {
            Message::Range {
                range,
                attestations,
            } => Some((range, attestations)),
            _ => None,
        })
        .await;
    assert_eq!((Range::decode(&bytes).unwrap(), said.len()), (range, 2));
    // Who knows no ranges gets entries.
    let mut old = two.second.replicate(&two.vault, Clock::new()).await;
    assert_eq!(old.hear_entries().await.len(), 4);
    assert_eq!(old.hear_entries().await.len(), 1);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_on_after_a_range_where_the_entries_are_gone() {
    let host = TestHost::new("").await;
    let mut two = Two::on(&host).await;
    let mut first = two
        .owner
        .replicate_in(&[1, 2], &two.vault, two.author.clock())
        .await;
    let range = two.range();
    let acknowledged = |message| match message {
        Message::Clock(clock) => Some(clock),
        _ => None,
    };
    // Whoever sends it may have made it up: without another's word it is not taken, and asked for again.
    first.say(&two.message(&range, &[&two.vault.owner])).await;
    first
        .hear_until(|message| matches!(message, Message::NeedEntries { .. }).then_some(()))
        .await;
    first.say(&two.message(&range, &[&two.key])).await;
    let clock = first.hear_until(acknowledged).await;
    assert_eq!(clock.seq(&range.head.writer), 4);
    let last = two.entries[4].clone();
    first.say(&Message::Entries(vec![last])).await;
    let clock = first.hear_until(acknowledged).await;
    assert_eq!(clock, two.author.clock());
    assert_eq!(two.heard().await, (1, Some(range)));
    let more = two.author.next(&two.vault);
    first.say(&Message::Entries(vec![more])).await;
    first.hear_until(acknowledged).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_range_is_not_kept() {
    let host = TestHost::new("").await;
    let two = Two::on(&host).await;
    let mut first = two
        .owner
        .replicate_in(&[1, 2], &two.vault, two.author.clock())
        .await;
    first.say(&Message::Entries(two.entries.clone())).await;
    let good = two.range();
    let mut forged = Vec::new();
    for change in [
        |range: &mut Range| range.signature.0[0] ^= 1,
        |range: &mut Range| range.body[0] ^= 1,
        |range: &mut Range| range.head.to = 5,
    ] {
        let mut range = good.clone();
        change(&mut range);
        forged.push(range);
    }
    // By a device that may not make ranges of this log.
    let mut of_another = two.range();
    of_another.head.maker = two.key.id();
    of_another.signature = two.key.sign(
        coffer_protocol::domain::RANGE_SIGNATURE,
        &coffer_protocol::codec::encode(&of_another.head),
    );
    forged.push(of_another);
    let stranger = DeviceKey::from_secret([9; 32]);
    for range in forged {
        first.say(&two.message(&range, &[&stranger])).await;
    }
    first.say(&Message::NeedGrants { heads: Vec::new() }).await;
    first
        .hear_until(|message| matches!(message, Message::Grants { .. }).then_some(()))
        .await;
    let store = &host.host().store;
    assert_eq!(store.ranges(two.vault.id).await.unwrap(), []);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_go_from_a_host_when_every_device_has_the_range_and_another_compared_it() {
    let host = TestHost::new("").await;
    let two = Two::on(&host).await;
    let mut first = two
        .owner
        .replicate_in(&[1, 2], &two.vault, two.author.clock())
        .await;
    first.say(&Message::Entries(two.entries.clone())).await;
    let range = two.range();
    first.say(&two.message(&range, &[&two.vault.owner])).await;
    let named = |message| matches!(message, Message::Ranges(_)).then_some(());
    first.hear_until(named).await;
    freeing::clean(host.host()).await.unwrap();
    assert_eq!(two.heard().await, (5, None), "only its maker speaks for it");
    let said = Attestation::sign(&two.key, &range.head, true).unwrap();
    let said = vec![said.bytes().to_vec()];
    first.say(&Message::Attestations(said)).await;
    first.hear_until(named).await;
    freeing::clean(host.host()).await.unwrap();
    assert_eq!(two.heard().await, (1, Some(range)));
    // Who knows no ranges gets what there is.
    let mut old = two.second.replicate(&two.vault, Clock::new()).await;
    assert_eq!(old.hear_entries().await.len(), 1);
    let record = host.host().store.vault(two.vault.id).await.unwrap();
    assert_eq!(record.unwrap().usage.entries, 2, "an entry and a range");
    host.stop().await;
}
