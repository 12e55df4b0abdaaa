//! Where contents are: here, on devices and hosts that say so when they are asked, perhaps on those that cannot be asked
//! now, or nowhere.
//!
//! Of present contents every device's statement speaks; of earlier ones nothing does, so those that are connected are
//! asked whether they have the pieces. What was asked counts; a statement, or what a host confirmed, counts for who is
//! not connected.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::{Content, FileId};
use coffer_protocol::eviction::Naming;
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceId, Hash};
use futures::future::join_all;
use redb::{ReadTransaction, ReadableDatabase};

use super::running::{Running, blobs_error, commit_error};
use super::storage::Has;
use super::store_error;
use crate::blobs::{Fetch, Had};
use crate::control::{ControlError, Holder};
use crate::hosts::ContentKey;
use crate::store::StoreError;
use crate::vault::hosts::Confirmed;

/// Pieces that devices are asked about at a time, as many as 64 GiB have. Of more only what was stated and confirmed counts.
const ASKED: usize = 64 * coffer_protocol::blobs::MAX_IDS;
/// Devices that a person is told of.
const NAMED: usize = 5;

/// A content that is looked for.
pub struct Sought {
    /// What it is made of.
    pub root: ChunkRoot,
    /// The file whose present content it is, and what names it, if it is one.
    pub present: Option<(FileId, Naming)>,
}

impl Sought {
    /// A content of a file.
    pub fn of(running: &Running, id: FileId, content: &Content) -> Sought {
        let file = running.vault.file(id).ok().flatten();
        let present = file.and_then(|file| file.content);
        let present = present.filter(|present| present.hash == content.hash);
        let naming = present.map(|present| Naming {
            actor: present.dot.writer,
            seq: present.dot.seq,
        });
        Sought {
            root: content.root.clone(),
            present: naming.map(|naming| (id, naming)),
        }
    }
}

/// Where a content is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// All of it is on this device.
    pub here: bool,
    /// Devices and hosts that have what is lacking here, as each says itself.
    pub on: Vec<Holder>,
    /// Names of those that may have it: they did not say, and cannot be asked now.
    pub perhaps_on: Vec<String>,
}

/// Another device, or a host in use.
struct Other {
    id: DeviceId,
    name: String,
    connected: bool,
    /// What it said when it was asked; nothing where it could not be.
    said: Option<Had>,
    /// What it stated last, if it is a device.
    held: Option<Held>,
}

/// The pieces of a content, as far as they are known.
struct Pieces {
    blobs: Vec<Hash>,
    /// Whether these are all: else the list of them is elsewhere too.
    all: bool,
}

/// Finds out where these contents are.
///
/// # Errors
/// Where this device's own records cannot be read. Others that do not answer are no error.
pub async fn find(
    running: &Arc<Running>,
    contents: &[Sought],
) -> Result<Vec<Whereabouts>, ControlError> {
    let mut pieces = Vec::with_capacity(contents.len());
    for content in contents {
        pieces.push(pieces_of(running, &content.root).await);
    }
    let named: BTreeSet<Hash> = pieces
        .iter()
        .flat_map(|found| found.blobs.clone())
        .collect();
    let here = running.blobs.have(named.iter().copied().collect()).await;
    let here = here.map_err(blobs_error)?;
    let lacking: Vec<Hash> = named.into_iter().filter(|id| !here.contains(id)).collect();
    let mut others = others(running).await?;
    if !lacking.is_empty() && lacking.len() <= ASKED {
        let sources = &*running.fetch.sources;
        let asked = others.iter().map(|other| async {
            match other.connected {
                true => running.blobs.ask(sources, other.id, &lacking).await,
                false => None,
            }
        });
        let said = join_all(asked).await;
        for (other, said) in others.iter_mut().zip(said) {
            other.said = said;
        }
    }
    let read = running.vault.database().begin_read();
    let read = read.map_err(|error| store_error(StoreError::from(error)))?;
    let stated = Stated::of(&read, &others).map_err(store_error)?;
    let found = contents.iter().zip(&pieces).map(|(content, pieces)| {
        let stated = stated.havers(content)?;
        Ok(judge(pieces, &here, &others, &stated))
    });
    found.collect::<Result<_, _>>().map_err(store_error)
}

/// What a content is made of. Pieces of its list that are not here are fetched for that, and not kept.
async fn pieces_of(running: &Running, root: &ChunkRoot) -> Pieces {
    let mut expanded = running.blobs.expand(root, &Fetch::nobody()).await;
    if expanded.is_err() {
        expanded = running.blobs.expand(root, &running.fetch).await;
    }
    match expanded {
        Ok(chunks) => Pieces {
            blobs: chunks.iter().map(|chunk| chunk.blob).collect(),
            all: true,
        },
        Err(_) => Pieces {
            blobs: root
                .list()
                .chunks
                .iter()
                .map(|chunk| Hash(chunk.blob))
                .collect(),
            all: false,
        },
    }
}

/// Other devices that hold keys, and hosts in use.
async fn others(running: &Arc<Running>) -> Result<Vec<Other>, ControlError> {
    let connected: BTreeSet<DeviceId> = running.fetch.sources.connected().into_iter().collect();
    let devices = running.vault.inspect(|core| {
        let (state, me) = (core.state(), core.device());
        let devices = state.membership.devices().iter();
        let others = devices.filter(|(id, device)| **id != me && device.role.holds_keys());
        let named = others.map(|(id, _)| {
            let name = state.membership.device_name(id, &state.keyring);
            let name = name.unwrap_or_else(|| id.to_string());
            (*id, name, core.held(*id).cloned())
        });
        named.collect::<Vec<_>>()
    });
    let mut named = devices.await.map_err(commit_error)?;
    let hosts = running.vault.hosts().await.map_err(store_error)?;
    let in_use = hosts.into_iter().filter(|(_, setting)| setting.in_use);
    named.extend(in_use.map(|(id, setting)| (id, setting.name, None)));
    let others = named.into_iter().map(|(id, name, held)| Other {
        connected: connected.contains(&id),
        id,
        name,
        said: None,
        held,
    });
    Ok(others.collect())
}

/// What others stated or confirmed some time ago.
struct Stated<'a> {
    held: Vec<(DeviceId, Has<'a>)>,
    confirmed: Vec<(DeviceId, Confirmed)>,
}

impl<'a> Stated<'a> {
    fn of(read: &ReadTransaction, others: &'a [Other]) -> Result<Stated<'a>, StoreError> {
        let held = others.iter().filter_map(|other| {
            let held = other.held.as_ref()?;
            Some((other.id, Has::of(held)))
        });
        let hosts = others.iter().filter(|other| other.held.is_none());
        let confirmed = hosts.map(|host| Ok((host.id, Confirmed::new(read, host.id)?)));
        Ok(Stated {
            held: held.collect(),
            confirmed: confirmed.collect::<Result<_, StoreError>>()?,
        })
    }

    /// Those that have a content whole by that.
    fn havers(&self, content: &Sought) -> Result<BTreeSet<DeviceId>, StoreError> {
        let mut found = BTreeSet::new();
        if let Some((id, naming)) = content.present {
            let having = self.held.iter().filter(|(_, held)| held.has(id, naming));
            found.extend(having.map(|(device, _)| *device));
        }
        let key = ContentKey::of(&content.root);
        for (host, confirmed) in &self.confirmed {
            if confirmed.has(&key)? {
                found.insert(*host);
            }
        }
        Ok(found)
    }
}

fn judge(
    pieces: &Pieces,
    here: &HashSet<Hash>,
    others: &[Other],
    stated: &BTreeSet<DeviceId>,
) -> Whereabouts {
    let lacking: Vec<&Hash> = pieces
        .blobs
        .iter()
        .filter(|id| !here.contains(id))
        .collect();
    if lacking.is_empty() && pieces.all {
        return Whereabouts {
            here: true,
            ..Whereabouts::default()
        };
    }
    let has_all = |had: &Had| lacking.iter().all(|id| had.blobs.contains(id));
    let has_some = |had: &Had| lacking.iter().any(|id| had.blobs.contains(id));
    // Where no one has all of it, several together may.
    let together = lacking.iter().all(|id| {
        let mut said = others.iter().filter_map(|other| other.said.as_ref());
        said.any(|had| had.blobs.contains(id))
    });
    let one_has_all = others
        .iter()
        .any(|other| other.said.as_ref().is_some_and(has_all));
    let mut found = Whereabouts::default();
    for other in others {
        let (has, may) = match &other.said {
            // It has the list, of which nobody here knows what is in it.
            Some(had) if !pieces.all => (false, has_all(had)),
            Some(had) => (
                has_all(had) || !one_has_all && together && has_some(had),
                false,
            ),
            None => (stated.contains(&other.id), true),
        };
        if has {
            found.on.push(Holder {
                name: other.name.clone(),
                connected: other.connected,
                paused: other.said.as_ref().is_some_and(|had| had.paused),
            });
        } else if may {
            found.perhaps_on.push(other.name.clone());
        }
    }
    found
}

impl Whereabouts {
    /// Whether it can be expected to come: somebody who is connected has it and gives it.
    pub fn comes(&self) -> bool {
        self.on
            .iter()
            .any(|holder| holder.connected && !holder.paused)
    }

    /// The code of the error that says [`why_not_here`](Self::why_not_here), where there is one of its own.
    pub fn code(&self, paused_here: bool) -> Option<&'static str> {
        let is_paused = self.on.iter().any(|holder| holder.paused);
        match (paused_here, is_paused) {
            (true, _) => Some("paused"),
            (false, true) => Some("paused-there"),
            (false, false) => None,
        }
    }

    /// Why a content that is not here cannot be had.
    pub fn why_not_here(&self, paused_here: bool) -> String {
        if self.on.is_empty() {
            let mut why = "its content is not on this device".to_owned();
            if paused_here {
                why.push_str(", where transfers are paused");
            }
            why.push_str(", and no other device is known to have it");
            if !self.perhaps_on.is_empty() {
                let names = list(self.perhaps_on.iter().map(String::as_str));
                why.push_str(&format!("; {names} cannot be asked now"));
            }
            return why;
        }
        let single = self.on.len() == 1;
        let reached: Vec<&Holder> = self.on.iter().filter(|holder| holder.connected).collect();
        let all_paused = reached.iter().all(|holder| holder.paused);
        let how = match (reached.is_empty(), single) {
            // Nobody is asked meanwhile, connected or not.
            _ if paused_here => "and transfers are paused on this device".to_owned(),
            (true, true) => "which cannot be reached now".to_owned(),
            (true, false) => "none of which can be reached now".to_owned(),
            (false, true) if all_paused => "where transfers are paused".to_owned(),
            (false, false) if all_paused => {
                let names = list(reached.iter().map(|holder| holder.name.as_str()));
                format!("and transfers are paused on {names}")
            }
            (false, true) => "which is connected and did not give it".to_owned(),
            (false, false) => "of which one is connected and did not give it".to_owned(),
        };
        let names = list(self.on.iter().map(|holder| holder.name.as_str()));
        format!("its content is not on this device; it is on {names}, {how}")
    }
}

/// Names as they are listed in a sentence; of very many only the first.
fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut named: Vec<String> = names
        .take(NAMED)
        .map(|name| format!("\"{name}\""))
        .collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> Hash {
        Hash([n; 32])
    }

    fn other(n: u8, had: Option<&[u8]>) -> Other {
        Other {
            id: DeviceId([n; 32]),
            name: format!("device {n}"),
            connected: had.is_some(),
            said: had.map(|had| Had {
                blobs: had.iter().map(|id| hash(*id)).collect(),
                paused: false,
            }),
            held: None,
        }
    }

    fn pieces(ids: &[u8]) -> Pieces {
        Pieces {
            blobs: ids.iter().map(|id| hash(*id)).collect(),
            all: true,
        }
    }

    fn names(found: &Whereabouts) -> (Vec<&str>, Vec<&str>) {
        let on = found.on.iter().map(|holder| holder.name.as_str());
        (
            on.collect(),
            found.perhaps_on.iter().map(String::as_str).collect(),
        )
    }

    #[test]
    fn only_who_has_all_that_is_lacking_has_a_content_and_who_was_not_asked_may() {
        let here = HashSet::from([hash(1)]);
        let others = [
            other(1, Some(&[2, 3])),
            other(2, Some(&[2])),
            other(3, None),
        ];
        let nobody = BTreeSet::new();
        let of = |ids: &[u8], stated: &BTreeSet<_>| judge(&pieces(ids), &here, &others, stated);
        assert!(of(&[1], &nobody).here && of(&[], &nobody).here);
        let found = of(&[1, 2, 3], &nobody);
        assert_eq!(names(&found), (vec!["device 1"], vec!["device 3"]));
        assert!(found.comes());
        let found = of(&[2, 4], &nobody);
        assert_eq!(
            names(&found),
            (vec![], vec!["device 3"]),
            "a part is of no use"
        );
        let found = of(&[4], &BTreeSet::from([DeviceId([3; 32])]));
        assert_eq!(names(&found), (vec!["device 3"], vec![]));
        assert!(!found.comes());
        // It had said so, and does not have it any more.
        let found = of(&[4], &BTreeSet::from([DeviceId([1; 32])]));
        assert_eq!(names(&found).0, Vec::<&str>::new());
    }

    #[test]
    fn nowhere_is_said_only_when_everybody_was_asked() {
        let none = (HashSet::new(), BTreeSet::new());
        let all_asked = [other(1, Some(&[])), other(2, Some(&[9]))];
        let found = judge(&pieces(&[1]), &none.0, &all_asked, &none.1);
        assert_eq!(found, Whereabouts::default());
        // Each has a half: together they have it.
        let halves = [other(1, Some(&[1])), other(2, Some(&[2]))];
        let found = judge(&pieces(&[1, 2]), &none.0, &halves, &none.1);
        assert_eq!(names(&found).0, ["device 1", "device 2"]);
        // What it is made of is not known here.
        let unknown = Pieces {
            all: false,
            ..pieces(&[9])
        };
        let found = judge(&unknown, &none.0, &all_asked, &none.1);
        assert_eq!(names(&found), (vec![], vec!["device 2"]));
    }

    #[test]
    fn why_a_content_is_not_to_be_had_names_who_has_it_and_what_is_in_the_way() {
        let holder = |name: &str, connected, paused| Holder {
            name: name.into(),
            connected,
            paused,
        };
        let on = |on: &[Holder]| Whereabouts {
            on: on.to_vec(),
            ..Whereabouts::default()
        };
        for (found, said) in [
            (
                on(&[holder("attic", true, true)]),
                "it is on \"attic\", where transfers are paused",
            ),
            (
                on(&[holder("attic", false, false)]),
                "\"attic\", which cannot be reached now",
            ),
            (
                on(&[holder("attic", true, true), holder("cellar", false, false)]),
                "on \"attic\", \"cellar\", and transfers are paused on \"attic\"",
            ),
            (on(&[]), "and no other device is known to have it"),
            (
                Whereabouts {
                    perhaps_on: vec!["cellar".into()],
                    ..Whereabouts::default()
                },
                "known to have it; \"cellar\" cannot be asked now",
            ),
        ] {
            let why = found.why_not_here(false);
            assert!(why.ends_with(said), "{why}");
        }
    }
}
