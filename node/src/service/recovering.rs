//! Getting a vault back with the 24 words: `recover` on a new device, and answering one on those that are left.
//!
//! The new device asks everyone whom it can reach and who keeps the vault: the hosts on the paper, places that its person
//! names, devices around. What they show is checked from the vault's id alone, and put together, so that a single one of
//! them that leaves something out does not decide. Then the recovery key admits the device and changes the vault's key.

use std::collections::BTreeSet;
use std::sync::Arc;

use coffer_protocol::grants::{GrantError, Membership, NewDevice, Opener, Role};
use coffer_protocol::identity::{DeviceId, SpaceId, VaultId};
use coffer_protocol::keys::Keyring;
use coffer_protocol::recovery::{Kit, KitError, RecoverError, RecoveryKey};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::pairing::{make_room, read_places};
use super::running::Running;
use super::{Node, Streams, device_name, founding_error, random, status, stopped};
use crate::control::{ControlError, ErrorKind, Progress, RecoverWith, Reply, Session, Stage};
use crate::net::{Multiaddr, Net};
use crate::recovering::{Keeps, answer, ask};
use crate::store;
use crate::vault::founding::{self, DATABASE, Recovered};
use crate::vault::identity::{Identity, binding};
use crate::vault::{Act, Manage, wall_ms};

/// Streams answered at a time; each may hold the vault's grants in memory.
const MAX_ANSWERS: usize = 2;
/// Devices around that are asked, at most.
const MAX_AROUND: usize = 16;

/// Answers streams until `stop`.
pub(super) async fn serve(
    running: Arc<Running>,
    streams: Streams,
    mut stop: watch::Receiver<bool>,
) {
    let mut streams = streams.lock().await;
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = answering.join_next() => {}
            next = streams.recv() => {
                let Some((_, stream)) = next else { break };
                if answering.len() >= MAX_ANSWERS {
                    continue;
                }
                let running = running.clone();
                answering.spawn(async move {
                    let me = running.vault.device();
                    if answer(&Kept(&running), me, stream).await {
                        tracing::info!("a device was let in with the vault's words");
                        running.vault.members_changed();
                    }
                });
            }
        }
    }
    answering.shutdown().await;
}

struct Kept<'a>(&'a Running);

impl Keeps for Kept<'_> {
    async fn look_up(
        &self,
        vault: VaultId,
        recovery: DeviceId,
    ) -> Result<Vec<Vec<u8>>, RecoverError> {
        let look = move |core: &crate::vault::Core| {
            let state = core.state();
            let key = state.membership.recovery();
            let is_it = key.is_some_and(|key| key.signing == recovery);
            (state.vault == vault && is_it && !state.is_out()).then(|| core.welcome().grants)
        };
        let found = self.0.vault.inspect(look).await;
        found
            .map_err(|_| RecoverError::Busy)?
            .ok_or(RecoverError::NotYours)
    }

    async fn store(
        &self,
        vault: VaultId,
        asker: DeviceId,
        grants: Vec<Vec<u8>>,
    ) -> Result<(), RecoverError> {
        let shown = Membership::from_bytes(vault, &grants).map_err(|_| RecoverError::NotTaken)?;
        if !shown.is_member(&asker) {
            return Err(RecoverError::NotTaken);
        }
        let manage = Manage {
            act: Act::Take { grants },
            words: None,
        };
        let taken = self.0.vault.manage(manage).await;
        taken.map_err(|_| RecoverError::Busy)?;
        let is_in = move |core: &crate::vault::Core| core.state().membership.is_member(&asker);
        match self.0.vault.inspect(is_in).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecoverError::NotTaken),
            Err(_) => Err(RecoverError::Busy),
        }
    }
}

/// The kit that a person has: what its code says, or the words typed and the vault's id.
pub(super) fn read_kit(with: &RecoverWith) -> Result<Kit, ControlError> {
    match with {
        RecoverWith::Kit(text) => Kit::parse(text).map_err(|error| {
            let kind = match error {
                KitError::Foreign => ErrorKind::Usage,
                KitError::Damaged => ErrorKind::Damaged,
                KitError::Newer => ErrorKind::NewerVersion,
            };
            ControlError::new(kind, error.to_string()).with_code("bad-kit")
        }),
        RecoverWith::Words { words, vault } => {
            let key = RecoveryKey::from_words(words)
                .map_err(|error| ControlError::usage(error.to_string()).with_code("bad-words"))?;
            let vault = vault.trim().parse().map_err(|_| {
                ControlError::usage("this is not the id of a vault as it stands on the paper")
                    .with_code("bad-vault-id")
            })?;
            Ok(Kit::new(vault, key, Vec::new()))
        }
    }
}

/// `coffer recover`.
pub(super) async fn recover(
    node: &Arc<Node>,
    with: RecoverWith,
    at: Vec<String>,
    name: Option<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let net = super::pairing::network(node)?;
    node.closed.check()?;
    let _founding = node.founding.lock().await;
    let kit = read_kit(&with)?;
    drop(with);
    let at = read_places(&at).await?;
    make_room(node, session).await?;
    let identity = node.identity()?;
    let me = identity.key.id();
    let name = device_name(name.or_else(|| node.options.device_name.clone()));
    session.progress(Progress {
        stage: Stage::Looking,
        done: 0,
        total: None,
        about: None,
    });
    let reached = reach(&net, me, &kit, &at).await;
    let (keepers, shown) = gather(&net, me, &kit, &reached).await?;
    let back = admit(&kit, &shown, &identity, &name)?;
    let mut bound = Vec::new();
    let mut last = None;
    for keeper in keepers {
        let all = back.grants.clone();
        let asked = ask(&net, (me, keeper), kit.vault, &kit.key, |_| Ok(Some(all)));
        match asked.await {
            Ok(()) => bound.push(keeper),
            Err(error) => last = Some(error),
        }
    }
    let Some(source) = bound.first().copied() else {
        return Err(recover_error(last.unwrap_or(RecoverError::Disconnected)));
    };
    let addresses = addresses(&kit, &reached);
    let (path, place) = (node.data_dir().join(DATABASE), binding(node.data_dir()));
    let sources = bound.len() as u64;
    // A device shows what it itself lives by; a host could show what was.
    let alone = sources < 2 && back.membership.role(&source) == Some(Role::Relay);
    let begun = tokio::task::spawn_blocking(move || {
        let database = store::open(&path)?;
        let recovered = Recovered {
            at_ms: wall_ms(),
            source: alone.then_some(source),
            addresses,
        };
        founding::recover(
            &database,
            &identity,
            (&back.membership, &back.keyring),
            &name,
            &place,
            &recovered,
            &mut random(),
        )
    });
    begun
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(founding_error)?;
    let running = node.start_vault().await?;
    running.vault.members_changed();
    Ok(Reply::Recovered {
        vault: kit.vault.to_string(),
        device: status::device_row(node, &running, me).await?,
        sources,
        confirmed: !alone,
    })
}

/// Where devices and hosts of the vault are, as far as that is known by now.
pub(super) fn addresses(
    kit: &Kit,
    reached: &[(DeviceId, Vec<Multiaddr>)],
) -> Vec<(DeviceId, Vec<String>)> {
    let mut addresses: Vec<(DeviceId, Vec<String>)> = Vec::new();
    for (keeper, known) in reached {
        let texts = known.iter().map(ToString::to_string).collect();
        addresses.push((*keeper, texts));
    }
    for host in &kit.hosts {
        if !reached.iter().any(|(keeper, _)| *keeper == host.host) {
            addresses.push((host.host, host.addresses.clone()));
        }
    }
    addresses
}

/// Whom it could connect to, with where.
pub(super) async fn reach(
    net: &Net,
    me: DeviceId,
    kit: &Kit,
    at: &[Multiaddr],
) -> Vec<(DeviceId, Vec<Multiaddr>)> {
    let mut reached: Vec<(DeviceId, Vec<Multiaddr>)> = Vec::new();
    for host in &kit.hosts {
        let texts = host.addresses.iter();
        let addresses: Vec<Multiaddr> = texts.filter_map(|text| text.parse().ok()).collect();
        match net.dial(host.host.0, addresses.clone()).await {
            Ok(()) => reached.push((host.host, addresses)),
            Err(error) => tracing::info!(%error, "a host of the kit cannot be reached"),
        }
    }
    if !at.is_empty() {
        match net.dial_unknown(at.to_vec()).await {
            Ok(device) => reached.push((DeviceId(device), at.to_vec())),
            Err(error) => tracing::info!(%error, "nobody answers at the places that were named"),
        }
    }
    let around = net.discovered().into_iter().take(MAX_AROUND);
    for (device, addresses) in around {
        let device = DeviceId(device);
        if device != me
            && !reached.iter().any(|(known, _)| *known == device)
            && net.dial(device.0, addresses.clone()).await.is_ok()
        {
            reached.push((device, addresses));
        }
    }
    reached
}

/// Those who keep the vault, and all grants that they showed.
pub(super) async fn gather(
    net: &Net,
    me: DeviceId,
    kit: &Kit,
    reached: &[(DeviceId, Vec<Multiaddr>)],
) -> Result<(Vec<DeviceId>, BTreeSet<Vec<u8>>), ControlError> {
    let (mut keepers, mut shown) = (Vec::new(), BTreeSet::new());
    let mut last = None;
    for (keeper, _) in reached {
        let mut given = Vec::new();
        let asked = ask(net, (me, *keeper), kit.vault, &kit.key, |grants| {
            given = grants;
            Ok(None)
        });
        let checked = match asked.await {
            Ok(()) => {
                Membership::from_bytes(kit.vault, &given).map_err(|_| RecoverError::Malformed)
            }
            Err(error) => Err(error),
        };
        match checked {
            Ok(_) => {
                keepers.push(*keeper);
                shown.extend(given);
            }
            Err(error) => last = Some(error),
        }
    }
    match (keepers.is_empty(), last) {
        (false, _) => Ok((keepers, shown)),
        (true, Some(error)) => Err(recover_error(error)),
        (true, None) => Err(ControlError::unavailable(
            "no device and no host of this vault can be reached",
        )
        .with_code("nobody-to-recover-from")),
    }
}

/// A vault with this device in it.
pub(super) struct Back {
    pub membership: Membership,
    pub keyring: Keyring,
    pub grants: Vec<Vec<u8>>,
}

/// Admits this device with the recovery key, and changes the vault's key.
pub(super) fn admit(
    kit: &Kit,
    shown: &BTreeSet<Vec<u8>>,
    identity: &Identity,
    name: &str,
) -> Result<Back, ControlError> {
    let failed = |error: GrantError| {
        let text = format!("what the vault's devices and hosts show cannot be used: {error}");
        ControlError::new(ErrorKind::Damaged, text).with_code("recovery-broken")
    };
    let mut rng = random();
    let mut membership = Membership::from_bytes(kit.vault, shown).map_err(failed)?;
    if membership.recovery() != Some(&kit.key.public()) {
        let text = "these words were replaced by others since";
        return Err(ControlError::refused(text).with_code("words-replaced"));
    }
    let mut keyring = membership
        .keyring(SpaceId::HOME, Opener::Recovery(&kit.key))
        .map_err(failed)?;
    let signing = kit.key.signing();
    let sealing = identity.sealing.public();
    let new = NewDevice {
        device: identity.key.id(),
        sealing: &sealing,
        role: Role::Owner,
        name,
    };
    let admission = membership
        .admit(&signing, &keyring, &new, wall_ms(), &mut rng)
        .map_err(failed)?;
    membership.insert(admission).map_err(failed)?;
    let (rotation, key) = membership
        .rotate(&signing, &keyring, &mut rng)
        .map_err(failed)?;
    let epoch = key.id();
    membership.insert(rotation).map_err(failed)?;
    keyring.add(key);
    let _held = keyring.write_under(epoch);
    let grants = membership.grants();
    let grants = grants.map(|(_, grant)| grant.bytes().to_vec()).collect();
    Ok(Back {
        membership,
        keyring,
        grants,
    })
}

pub(super) fn recover_error(error: RecoverError) -> ControlError {
    let (kind, code) = match error {
        RecoverError::NotYours => (ErrorKind::Refused, "not-these-words"),
        RecoverError::NoCommonVersion => (ErrorKind::NewerVersion, "other-version"),
        RecoverError::Malformed | RecoverError::NotTaken => (ErrorKind::Damaged, "recovery-broken"),
        RecoverError::Busy | RecoverError::Disconnected => {
            (ErrorKind::Unavailable, "recovery-unavailable")
        }
    };
    ControlError::new(kind, error.to_string()).with_code(code)
}
