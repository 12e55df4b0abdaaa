//! Ranges of a vault's logs, which the host cannot open: it keeps and passes on what devices make and say of them, gives
//! them to who lacks the entries, and drops entries once the rule allows it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coffer_protocol::grants::{Membership, Writing};
use coffer_protocol::identity::{DeviceId, WriterId};
use coffer_protocol::ranges::{self, Head, Range, SignedAttestation};
use coffer_protocol::replication::{ENTRIES_TARGET, MAX_RANGES, Message, RangeName, Rejection};

use super::taking::spaces_of;
use super::{Inner, Resident};
use crate::relay::host::Host;
use crate::relay::store::{Appended, KeptRange, NewRange, StoreError};
use crate::store::ranges::{Goes, Marks, Run, what_goes_out};
use crate::vault::ranges::{Known, Ranges};

/// The ranges that a store keeps.
pub(super) fn known(kept: Vec<KeptRange>) -> Ranges {
    let known = kept.into_iter().map(|kept| {
        let said: BTreeMap<DeviceId, SignedAttestation> = kept
            .said
            .iter()
            .filter_map(|(device, said)| Some((*device, SignedAttestation::decode(said).ok()?)))
            .collect();
        let known = Known {
            id: kept.head.id(),
            // What it cannot compare the host gives to nobody who can have the entries.
            marks: Marks {
                vouched_for: false,
                alone: kept.alone,
            },
            head: kept.head,
            said,
        };
        ((known.head.writer, known.head.to), known)
    });
    known.collect()
}

impl Resident {
    pub(super) async fn take_range(
        &self,
        host: &Host,
        inner: &mut Inner,
        from: DeviceId,
        (bytes, said): (Vec<u8>, Vec<Vec<u8>>),
        round: u32,
    ) -> Result<(), StoreError> {
        let refused = match Range::decode(&bytes) {
            Ok(range) if range.verify(&self.vault).is_ok() => {
                let place = (range.head.writer, range.head.to);
                let id = range.head.id();
                match inner.ranges.get(&place) {
                    Some(known) if known.id == id => None,
                    _ => {
                        self.store_range(host, inner, from, &range, bytes, &said)
                            .await?
                    }
                }
            }
            _ => Some(Rejection::Invalid),
        };
        if let Some(why) = refused {
            host.metrics.refused("range");
            let actions = inner.replicator.rejected(from, round, why);
            inner.enqueue(actions);
        }
        self.take_said(host, inner, &said).await
    }

    /// Keeps a range, if it may be; why not, if the entries are asked for then.
    async fn store_range(
        &self,
        host: &Host,
        inner: &mut Inner,
        from: DeviceId,
        range: &Range,
        bytes: Vec<u8>,
        said: &[Vec<u8>],
    ) -> Result<Option<Rejection>, StoreError> {
        let (head, membership) = (&range.head, &inner.membership);
        if !spaces_of(membership).contains(&head.space) {
            return Ok(Some(Rejection::UnknownWriter));
        }
        let said: Vec<SignedAttestation> = said
            .iter()
            .filter_map(|said| SignedAttestation::decode(said).ok())
            .collect();
        let vouched_for = ranges::is_vouched_for(membership, head, &said);
        let is_here = inner.replicator.clock().covers(&head.writer, head.to);
        let may_be = match is_here {
            true => ranges::may_make(membership, head) || vouched_for,
            false => vouched_for,
        };
        // One that only its maker speaks for takes nothing away from one that others have compared.
        let stretch = (head.writer, head.from)..=(head.writer, u64::MAX);
        let mut others = inner.ranges.range(stretch).map(|(_, known)| known);
        let yields = others
            .by_ref()
            .take_while(|other| other.head.from <= head.to)
            .any(|other| {
                let said = other.said.values();
                other.marks.alone || ranges::is_vouched_for(membership, &other.head, said)
            });
        if yields || inner.ranges.len() >= MAX_RANGES {
            return Ok(None);
        }
        if !may_be {
            return Ok((!is_here).then_some(Rejection::Gap));
        }
        if !is_here && let Err(why) = counts(membership, head, from) {
            return Ok(Some(why));
        }
        let new = NewRange {
            head: head.clone(),
            bytes: Bytes::from(bytes),
        };
        match host.store.put_range(self.vault, new).await? {
            Appended::Stored => {}
            Appended::Gap { .. } => return Ok(Some(Rejection::Gap)),
            Appended::Forked { seq, ours } => {
                return Ok(Some(Rejection::Forked {
                    writer: head.writer,
                    seq,
                    ours,
                    theirs: if seq == head.to { head.last } else { head.prev },
                }));
            }
            Appended::Full | Appended::TooManyWriters => {
                inner.starved = true;
                host.metrics.refused("over-quota");
                return Ok(None);
            }
            Appended::Had => return Ok(None),
        }
        self.reread_ranges_in(host, inner).await?;
        if !is_here {
            let durable = [(head.writer, head.to, head.last)];
            let actions = inner.replicator.committed(&durable, Some(from));
            inner.enqueue(actions);
            let actions = inner.replicator.announce_clock(from);
            inner.enqueue(actions);
        }
        self.to_be_stated(host);
        Ok(None)
    }

    pub(super) async fn take_said(
        &self,
        host: &Host,
        inner: &mut Inner,
        said: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        let mut changed: BTreeSet<(WriterId, u64)> = BTreeSet::new();
        for bytes in said {
            let Ok(said) = SignedAttestation::decode(bytes) else {
                host.metrics.refused("attestation");
                continue;
            };
            let value = said.value();
            let (place, device) = ((value.writer, value.to), value.device);
            let is_new = |known: &Known| {
                let before = known.said.get(&device);
                value.is_of(&known.head)
                    && before.is_none_or(|before| value.compared && !before.value().compared)
            };
            if !inner.ranges.get(&place).is_some_and(is_new)
                || !ranges::may_attest(&inner.membership, &device)
            {
                continue;
            }
            let bytes = Bytes::copy_from_slice(said.bytes());
            host.store
                .put_said(self.vault, place.0, place.1, device, bytes)
                .await?;
            if let Some(known) = inner.ranges.get_mut(&place) {
                known.said.insert(device, said);
            }
            changed.insert(place);
        }
        let names: Vec<RangeName> = changed
            .iter()
            .filter_map(|place| inner.ranges.get(place))
            .map(Known::name)
            .collect();
        let actions = inner.replicator.ranges_changed(&names, &[]);
        inner.enqueue(actions);
        Ok(())
    }

    /// Another process on the same store may have taken ranges, or heard more of them.
    pub async fn reread_ranges(&self, host: &Host) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().await;
        self.reread_ranges_in(host, &mut inner).await
    }

    async fn reread_ranges_in(&self, host: &Host, inner: &mut Inner) -> Result<(), StoreError> {
        let ranges = known(host.store.ranges(self.vault).await?);
        let before = std::mem::replace(&mut inner.ranges, ranges);
        let names: Vec<RangeName> = inner.ranges.values().map(Known::name).collect();
        let are: BTreeSet<_> = names.iter().map(|name| name.id).collect();
        let were = before.into_values().map(|known| known.id);
        let gone: Vec<_> = were.filter(|id| !are.contains(id)).collect();
        let actions = inner.replicator.ranges_changed(&names, &gone);
        inner.enqueue(actions);
        Ok(())
    }

    /// What goes out first to a device that lacks the entries `from..=to` of a log; `None` if nothing is here.
    pub async fn run_of(
        &self,
        host: &Host,
        writer: WriterId,
        lacks: (u64, u64),
        knows_ranges: bool,
    ) -> Result<Option<Run>, StoreError> {
        match self.run_as_known(host, writer, lacks, knows_ranges).await? {
            Some(run) => Ok(Some(run)),
            None => {
                // Entries may have gone meanwhile.
                self.reread_ranges(host).await?;
                self.run_as_known(host, writer, lacks, knows_ranges).await
            }
        }
    }

    async fn run_as_known(
        &self,
        host: &Host,
        writer: WriterId,
        (from, to): (u64, u64),
        knows_ranges: bool,
    ) -> Result<Option<Run>, StoreError> {
        let goes = {
            let inner = self.inner.lock().await;
            let mut next = inner.ranges.range((writer, from)..=(writer, u64::MAX));
            let next = next.next().map(|(_, known)| (&known.head, known.marks));
            what_goes_out(next, (from, to), knows_ranges)
        };
        Ok(match goes {
            Goes::Nothing { last } => Some(Run {
                message: None,
                last,
            }),
            Goes::Range { last } => self
                .range_message(host, writer, last)
                .await?
                .map(|message| Run {
                    message: Some(message),
                    last,
                }),
            Goes::Entries { upto } => {
                let entries = host
                    .store
                    .entries(self.vault, writer, from, upto, ENTRIES_TARGET)
                    .await?;
                entries.last().map(|entry| entry.seq).map(|last| Run {
                    message: Some(Message::Entries(
                        entries
                            .into_iter()
                            .map(|entry| Vec::from(entry.bytes))
                            .collect(),
                    )),
                    last,
                })
            }
        })
    }

    /// A range and what was said of it; `None` if it is not here any more.
    pub async fn range_message(
        &self,
        host: &Host,
        writer: WriterId,
        to: u64,
    ) -> Result<Option<Message>, StoreError> {
        let range = host.store.range_of(self.vault, writer, to).await?;
        let attestations = self.said_of(writer, to).await;
        Ok(range.map(|range| Message::Range {
            range: Vec::from(range),
            attestations,
        }))
    }

    /// What was said of a range.
    pub async fn said_of(&self, writer: WriterId, to: u64) -> Vec<Vec<u8>> {
        let inner = self.inner.lock().await;
        let known = inner.ranges.get(&(writer, to)).into_iter();
        known
            .flat_map(|known| known.said.values())
            .map(|said| said.bytes().to_vec())
            .collect()
    }
}

/// Whether a log may go on after a range, as for its entries: of a closed log what is within the cutoff, and what is
/// beyond only from other devices.
fn counts(membership: &Membership, head: &Head, from: DeviceId) -> Result<(), Rejection> {
    let role = membership.role(&head.writer.device);
    if role.is_some_and(|role| !role.holds_keys()) {
        return Err(Rejection::UnknownWriter);
    }
    match membership.writing(&head.writer) {
        Writing::Unknown => Err(Rejection::UnknownWriter),
        Writing::Open => Ok(()),
        Writing::Closed { upto, .. } => match upto {
            Some((last, ours)) if head.to == last && ours != head.last => Err(Rejection::Forked {
                writer: head.writer,
                seq: last,
                ours,
                theirs: head.last,
            }),
            Some((last, _)) if head.to <= last => Ok(()),
            _ if from != head.writer.device => Ok(()),
            _ => Err(Rejection::NotYet),
        },
    }
}
