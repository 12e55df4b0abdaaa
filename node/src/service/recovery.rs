//! The 24 words: shown to a person once, confirmed, and then on no device; replaced by others; tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_protocol::grants::{Membership, Opener};
use coffer_protocol::held::Held;
use coffer_protocol::identity::{DeviceId, SpaceId, VaultId};
use coffer_protocol::recovery::{Kit, KitHost, RecoverError, RecoveryKey};
use rand::Rng;
use redb::ReadableDatabase;

use super::devices::read_words;
use super::recovering::{read_kit, recover_error};
use super::running::{Running, commit_error};
use super::{Node, random, store_error};
use crate::control::{
    Answer, ControlError, ErrorKind, Item, Question, RecoverWith, RecoveryKit, Reply, Session,
    Warning,
};
use crate::recovering;
use crate::store::{StoreError, records, tables};
use crate::vault::{Act, CommitRequest, Core, Manage, wall_ms};

/// Words that a person types back.
const ASKED: usize = 3;
/// Times that a person may try.
const TRIES: u8 = 3;

/// `recovery show`.
pub async fn show(node: &Arc<Node>, session: &mut Session) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let known = running
        .vault
        .inspect(|core| (core.recovery(), core.state().vault))
        .await
        .map_err(commit_error)?;
    let (key, vault) = (known.0.map_err(store_error)?, known.1);
    let Some(key) = key else {
        return Err(ControlError::conflict("the 24 words were confirmed before, or were made on another device; they are not on this one")
            .with_code("recovery-confirmed"));
    };
    let words = key.words();
    let list: Vec<String> = words.split(' ').map(str::to_string).collect();
    session.item(Item::RecoveryWords(list.clone())).await?;
    let kit = printable(&running, vault, &key, list.clone()).await?;
    session.item(Item::RecoveryKit(kit)).await?;
    for tries_left in (0..TRIES).rev() {
        let positions = choose(list.len());
        let answer = session
            .ask(Question::RecoveryWords {
                positions: positions.clone(),
                tries_left,
            })
            .await?;
        let Answer::Words(typed) = answer else { break };
        let right = typed.len() == positions.len()
            && positions.iter().zip(&typed).all(|(position, word)| {
                list[usize::from(*position) - 1] == word.trim().to_lowercase()
            });
        if right {
            let request = CommitRequest {
                forget_recovery: true,
                ..Default::default()
            };
            running.vault.commit(request).await.map_err(commit_error)?;
            return Ok(Reply::RecoveryConfirmed);
        }
    }
    Err(
        ControlError::refused("the words typed were not the right ones, so they are not confirmed")
            .with_code("recovery-not-confirmed"),
    )
}

/// The kit, with the hosts that are in use now.
async fn printable(
    running: &Running,
    vault: VaultId,
    key: &RecoveryKey,
    words: Vec<String>,
) -> Result<RecoveryKit, ControlError> {
    let hosts = running.vault.hosts().await.map_err(store_error)?;
    let in_use = hosts.iter().filter(|(_, setting)| setting.in_use);
    let named = in_use.clone().map(|(host, setting)| KitHost {
        host: *host,
        addresses: setting.addresses.clone(),
    });
    let kit = Kit::new(vault, key.clone(), named);
    let shown = in_use.take(kit.hosts.len()).map(|(_, setting)| {
        let places: Vec<&str> = setting.addresses.iter().map(String::as_str).collect();
        format!("{} {}", setting.name, places.join(" "))
    });
    Ok(RecoveryKit {
        vault: vault.to_string(),
        words,
        hosts: shown.collect(),
        code: kit.to_qr_text().to_string(),
    })
}

/// `recovery renew`.
pub async fn renew(
    node: &Arc<Node>,
    words: Option<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let words = running
        .vault
        .inspect(move |core| read_words(core, words.as_deref()))
        .await
        .map_err(commit_error)??;
    let recovery = RecoveryKey::generate(&mut random());
    let manage = Manage {
        act: Act::Replace { recovery },
        words,
    };
    running.vault.manage(manage).await.map_err(commit_error)?;
    show(node, session).await
}

/// `recovery rehearse`.
pub async fn rehearse(node: &Arc<Node>, with: RecoverWith) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let kit = read_kit(&with)?;
    drop(with);
    let key = kit.key.clone();
    let vault = kit.vault;
    let keys = running
        .vault
        .inspect(move |core| opens_all(core, vault, &key))
        .await
        .map_err(commit_error)??;
    let hosts = ask_hosts(node, &running, &kit).await?;
    let request = CommitRequest {
        meta: vec![(tables::meta::REHEARSED, wall_ms().to_be_bytes().to_vec())],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    Ok(Reply::RecoveryRehearsed { keys, hosts })
}

/// How many keys of the vault the recovery key opens; an error if it is not all that this device has.
fn opens_all(core: &Core, vault: VaultId, key: &RecoveryKey) -> Result<u64, ControlError> {
    let state = core.state();
    let refused = |text: &str, code: &str| ControlError::refused(text).with_code(code);
    if state.vault != vault {
        return Err(refused("the kit is of another vault", "other-vault"));
    }
    if state.membership.recovery() != Some(&key.public()) {
        return Err(refused(
            "these are not the vault's words, or were replaced by others since",
            "words-replaced",
        ));
    }
    let opened = state
        .membership
        .keyring(SpaceId::HOME, Opener::Recovery(key));
    let opened = opened.map_err(|error| ControlError::internal(error.to_string()))?;
    let mut all = state.keyring.epochs();
    match all.all(|epoch| opened.epoch(&epoch.id()).is_some()) {
        true => Ok(state.keyring.epochs().count() as u64),
        false => Err(ControlError::conflict(
            "the vault had locks that these words do not open: change the lock with \"coffer relock\", then try again",
        )
        .with_code("words-open-not-all")),
    }
}

/// How many of the vault's hosts would hand it out. One that refuses, or shows less than there is, is an error; one that
/// cannot be reached is not asked.
async fn ask_hosts(node: &Arc<Node>, running: &Running, kit: &Kit) -> Result<u64, ControlError> {
    let Some(net) = node.net() else {
        return Ok(0);
    };
    let hosts = running.vault.hosts().await.map_err(store_error)?;
    let heads = running
        .vault
        .inspect(|core| core.state().membership.heads())
        .await
        .map_err(commit_error)?;
    let mut served = 0;
    for (host, setting) in hosts.iter().filter(|(_, setting)| setting.in_use) {
        if !net.is_connected(&host.0) {
            continue;
        }
        let mut given = Vec::new();
        let asked = recovering::ask(
            &net,
            (running.vault.device(), *host),
            kit.vault,
            &kit.key,
            |grants| {
                given = grants;
                Ok(None)
            },
        );
        let shown = match asked.await {
            Ok(()) => Membership::from_bytes(kit.vault, &given),
            Err(RecoverError::Busy | RecoverError::Disconnected) => continue,
            Err(error) => return Err(recover_error(error)),
        };
        let name = &setting.name;
        if !shown.is_ok_and(|shown| shown.knows(&heads)) {
            let text = format!(
                "the host \"{name}\" does not show all that is known of who is in the vault; try again once it is in sync"
            );
            return Err(ControlError::new(ErrorKind::Unavailable, text).with_code("host-behind"));
        }
        served += 1;
    }
    Ok(served)
}

/// What this device remembers of the recovery kit.
pub(super) struct Remembered {
    /// When it was last found to work, in milliseconds since 1970.
    pub rehearsed_ms: Option<u64>,
    /// Since when the vault is back, and from whom alone.
    recovered: Option<(u64, DeviceId)>,
}

impl Remembered {
    /// That what came back may not be the newest: until another device than the one that showed it has said what it has.
    pub fn warning(&self, me: DeviceId, held: &BTreeMap<DeviceId, Held>) -> Option<Warning> {
        let (since, source) = self.recovered?;
        let agrees = |(device, held): (&DeviceId, &Held)| {
            *device != source && *device != me && held.at_ms > since
        };
        if held.iter().any(agrees) {
            return None;
        }
        Some(Warning {
            code: "not-confirmed-fresh".into(),
            text: "This vault came back from a single device, host or backup. Until a second one agrees, it is not known whether that was all that is newest.".into(),
        })
    }
}

/// Reads it.
pub(super) fn known(running: &Running) -> Result<Remembered, ControlError> {
    let read = || -> Result<_, StoreError> {
        let read = running.vault.database().begin_read()?;
        let meta = read.open_table(tables::META)?;
        Ok((
            records::get_u64(&meta, tables::meta::REHEARSED)?,
            records::get(&meta, tables::meta::RECOVERED)?,
        ))
    };
    let (rehearsed_ms, recovered) = read().map_err(store_error)?;
    let recovered = recovered.and_then(|bytes| {
        let (at, source) = bytes.split_first_chunk::<8>()?;
        let source: [u8; 32] = source.try_into().ok()?;
        Some((u64::from_be_bytes(*at), DeviceId(source)))
    });
    Ok(Remembered {
        rehearsed_ms,
        recovered,
    })
}

/// Distinct positions from 1 to `count`, ascending.
fn choose(count: usize) -> Vec<u8> {
    let mut rng = random();
    let mut chosen = std::collections::BTreeSet::new();
    while chosen.len() < ASKED.min(count) {
        chosen.insert((rng.next_u64() % count as u64) as u8 + 1);
    }
    chosen.into_iter().collect()
}
