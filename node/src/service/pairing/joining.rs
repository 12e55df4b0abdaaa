//! Being admitted: `join`.

use super::super::running::commit_error;
use super::super::{Node, device_name, founding_error, random, status};
use super::{network, pairing_error};
use crate::control::{
    Answer, ControlError, ErrorKind, JoinWith, Progress, Question, Reply, Session, Stage,
};
use crate::net::{Multiaddr, Net, StreamProtocol, read_frame, write_frame};
use crate::store;
use crate::vault::founding::DATABASE;
use crate::vault::identity::binding;
use crate::vault::{CommitRequest, founding, wall_ms};
use coffer_protocol::identity::DeviceId;
use coffer_protocol::pairing::{
    CodeError, Invitation, Joiner, JoinerStep, LinkError, MAX_CODE_CANDIDATES, MAX_WELCOME,
    NewDevice, PairingError, ShortCode, Welcome,
};
use coffer_protocol::version;
use futures::{AsyncReadExt, AsyncWriteExt};
use std::sync::Arc;
use std::time::Duration;

/// How long a joining device looks for one that shows a typed code.
const LOOK_FOR: Duration = Duration::from_secs(30);
/// How long the system may take to find the address behind a name.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks around.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The joining side waits for the person at the other device as long as that one asks.
const JOIN_WITHIN: Duration = Duration::from_secs(11 * 60);

/// `coffer join`: finds the inviting device, proves the secret, and begins the vault here.
pub async fn join(
    node: &Arc<Node>,
    with: JoinWith,
    at: Vec<String>,
    name: Option<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let net = network(node)?;
    node.closed.check()?;
    let _founding = node.founding.lock().await;
    let with = read_secret(with)?;
    make_room(node, session).await?;
    let identity = node.identity()?;
    let name = device_name(name.or_else(|| node.options.device_name.clone()));
    let device = NewDevice::new(
        &name,
        identity.sealing.public(),
        concat!("coffer ", env!("CARGO_PKG_VERSION")),
    );
    let at = read_places(&at).await?;
    let (welcome, via) = match with {
        Secret::Link(invitation) => by_link(node, &net, *invitation, &at, &device, session).await?,
        Secret::Code(code) => by_code(node, &net, &code, &at, &device, session).await?,
    };
    let (path, place) = (node.data_dir().join(DATABASE), binding(node.data_dir()));
    let vault = welcome.vault;
    let addresses = welcome.addresses.clone();
    let begun = tokio::task::spawn_blocking(move || {
        let database = store::open(&path)?;
        founding::join(
            &database,
            &identity,
            vault,
            &welcome,
            &device.name,
            &place,
            &mut random(),
        )
    });
    begun
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(founding_error)?;
    let running = node.start_vault().await?;
    let request = CommitRequest {
        addresses: vec![(via, addresses)],
        ..Default::default()
    };
    running.vault.commit(request).await.map_err(commit_error)?;
    running.vault.members_changed();
    Ok(Reply::Joined {
        vault: vault.to_string(),
        device: status::device_row(node, &running, running.vault.device()).await?,
        via: status::device_row(node, &running, via).await?,
    })
}

/// What the person was given.
enum Secret {
    Link(Box<Invitation>),
    Code(ShortCode),
}

fn read_secret(with: JoinWith) -> Result<Secret, ControlError> {
    match with {
        JoinWith::Link(text) => match Invitation::parse(&text, wall_ms()) {
            Ok(invitation) => Ok(Secret::Link(Box::new(invitation))),
            Err(error) => {
                let kind = match error {
                    LinkError::Foreign => ErrorKind::Usage,
                    LinkError::Expired => ErrorKind::Expired,
                    LinkError::Damaged => ErrorKind::Damaged,
                    _ => ErrorKind::NewerVersion,
                };
                Err(ControlError::new(kind, error.to_string()).with_code("bad-link"))
            }
        },
        JoinWith::Code(text) => {
            ShortCode::parse(&text)
                .map(Secret::Code)
                .map_err(|error: CodeError| {
                    ControlError::usage(error.to_string()).with_code("bad-code")
                })
        }
    }
}

/// A data folder with a vault of its own that is new and empty makes room, if the person agrees; any other does not.
pub(in crate::service) async fn make_room(
    node: &Arc<Node>,
    session: &mut Session,
) -> Result<(), ControlError> {
    let running = match node.vault().await {
        Ok(running) => running,
        Err(error) if error.kind == ErrorKind::NoVault => return Ok(()),
        Err(error) => return Err(error),
    };
    let (devices, entries) = running
        .vault
        .inspect(|core| {
            (
                core.state().membership.devices().len(),
                core.state().clock.len(),
            )
        })
        .await
        .map_err(commit_error)?;
    if devices > 1 || entries > 0 {
        return Err(ControlError::conflict(
            "this data folder belongs to a vault already, and there is something in it",
        )
        .with_code("has-vault"));
    }
    if session.ask(Question::ReplaceEmptyVault).await? != Answer::Yes {
        return Err(ControlError::refused(
            "the vault in this data folder stays as it is",
        ));
    }
    drop(running);
    node.stop_vault().await;
    let dir = node.data_dir();
    match std::fs::remove_dir_all(dir.join("blobs")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(ControlError::io("remove the empty vault", &error));
        }
        _ => {}
    }
    // The database last: what else a vault leaves, without it, is taken for damage.
    for name in [
        "index.sqlite",
        "index.sqlite-wal",
        "index.sqlite-shm",
        DATABASE,
    ] {
        remove(&dir.join(name))?;
    }
    Ok(())
}

fn remove(path: &std::path::Path) -> Result<(), ControlError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ControlError::io("remove the empty vault", &error))
        }
        _ => Ok(()),
    }
}

/// `HOST:PORT` as addresses to dial, over both transports.
pub(in crate::service) async fn read_places(at: &[String]) -> Result<Vec<Multiaddr>, ControlError> {
    let mut found = Vec::new();
    for place in at {
        let wrong = || {
            ControlError::usage(format!(
                "\"{place}\" is not an address like 192.168.1.20:26333"
            ))
        };
        if let Ok(address) = place.parse::<Multiaddr>() {
            found.push(address);
            continue;
        }
        let (name, _) = place
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .ok_or_else(wrong)?;
        let asked = tokio::time::timeout(LOOK_UP_WITHIN, tokio::net::lookup_host(place.as_str()));
        let resolved = match asked.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(unknown_name(name, &error.to_string())),
            Err(_) => return Err(unknown_name(name, "no answer in time")),
        };
        for address in resolved {
            found.extend(super::super::sources::listen_on(
                address.ip(),
                address.port(),
            ));
        }
    }
    Ok(found)
}

fn unknown_name(name: &str, why: &str) -> ControlError {
    ControlError::unavailable(format!("nobody knows \"{name}\" now ({why})"))
        .with_code("unknown-name")
}

async fn by_link(
    node: &Arc<Node>,
    net: &Net,
    invitation: Invitation,
    at: &[Multiaddr],
    device: &NewDevice,
    session: &mut Session,
) -> Result<(Welcome, DeviceId), ControlError> {
    let inviter = invitation.inviter;
    if inviter == node.device()? {
        return Err(ControlError::usage(
            "this link was made by this very device; use it on the other one",
        ));
    }
    session.progress(Progress {
        stage: Stage::Connecting,
        done: 0,
        total: None,
        about: None,
    });
    let mut addresses: Vec<Multiaddr> = invitation
        .addresses
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    addresses.extend(at.iter().cloned());
    addresses.extend(net.discovered().remove(&inviter.0).unwrap_or_default());
    net.dial(inviter.0, addresses).await.map_err(|error| {
        ControlError::unavailable(format!("the other device cannot be reached: {error}"))
            .with_code("inviter-unreachable")
    })?;
    let (joiner, steps) =
        Joiner::by_link(node.device()?, inviter, invitation, device, &mut random());
    let welcome = converse(net, inviter, joiner, steps, session)
        .await
        .map_err(|(error, _)| pairing_error(error))?;
    Ok((welcome, inviter))
}

/// Asks every device around, and those at the places given, which of them shows the code.
async fn by_code(
    node: &Arc<Node>,
    net: &Net,
    code: &ShortCode,
    at: &[Multiaddr],
    device: &NewDevice,
    session: &mut Session,
) -> Result<(Welcome, DeviceId), ControlError> {
    let me = node.device()?;
    let until = tokio::time::Instant::now() + LOOK_FOR;
    let mut asked = std::collections::BTreeSet::new();
    let mut tried = 0;
    let mut last = PairingError::NotHere;
    session.progress(Progress {
        stage: Stage::Looking,
        done: 0,
        total: None,
        about: None,
    });
    if !at.is_empty() {
        let found = net.dial_unknown(at.to_vec()).await.map_err(|error| {
            ControlError::unavailable(format!("no device answers there: {error}"))
                .with_code("inviter-unreachable")
        })?;
        return match attempt(me, net, code, device, DeviceId(found), session).await {
            Ok(welcome) => Ok((welcome, DeviceId(found))),
            Err((error, _)) => Err(pairing_error(error)),
        };
    }
    while tokio::time::Instant::now() < until && tried < MAX_CODE_CANDIDATES {
        for (candidate, addresses) in net.discovered() {
            if tried >= MAX_CODE_CANDIDATES {
                break;
            }
            if candidate == me.0
                || !asked.insert(candidate)
                || net.dial(candidate, addresses).await.is_err()
            {
                continue;
            }
            match attempt(me, net, code, device, DeviceId(candidate), session).await {
                Ok(welcome) => return Ok((welcome, DeviceId(candidate))),
                Err((error, was_here)) => {
                    tried += usize::from(was_here);
                    if was_here {
                        last = error;
                    }
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(pairing_error(last))
}

async fn attempt(
    me: DeviceId,
    net: &Net,
    code: &ShortCode,
    device: &NewDevice,
    candidate: DeviceId,
    session: &mut Session,
) -> Result<Welcome, (PairingError, bool)> {
    let (joiner, steps) = Joiner::by_code(me, candidate, code.clone(), device);
    converse(net, candidate, joiner, steps, session).await
}

/// Carries one attempt to its end. The flag says whether the other device showed the code.
async fn converse(
    net: &Net,
    inviter: DeviceId,
    mut joiner: Joiner,
    steps: Vec<JoinerStep>,
    session: &mut Session,
) -> Result<Welcome, (PairingError, bool)> {
    let gone = |joiner: &Joiner| (PairingError::Disconnected, joiner.was_here());
    let Ok(stream) = net
        .open(inviter.0, StreamProtocol::new(version::PAIR))
        .await
    else {
        // A device that invites nobody talks to no stranger.
        return Err((PairingError::NotInviting, joiner.was_here()));
    };
    let (mut read, mut write) = stream.split();
    let mut steps = std::collections::VecDeque::from(steps);
    let mut frame = Vec::new();
    let until = tokio::time::Instant::now() + JOIN_WITHIN;
    loop {
        while let Some(step) = steps.pop_front() {
            match step {
                JoinerStep::Send(bytes) => {
                    if write_frame(&mut write, &bytes, MAX_WELCOME).await.is_err() {
                        return Err(gone(&joiner));
                    }
                }
                JoinerStep::AwaitPerson => {
                    session.progress(Progress {
                        stage: Stage::WaitingForPerson,
                        done: 0,
                        total: None,
                        about: None,
                    });
                }
                JoinerStep::Done(welcome) => {
                    let _ = write.close().await;
                    return Ok(*welcome);
                }
                JoinerStep::Failed(error) => return Err((error, joiner.was_here())),
            }
        }
        match tokio::time::timeout_at(
            until,
            read_frame(&mut read, &mut frame, joiner.message_limit()),
        )
        .await
        {
            Ok(Ok(true)) => steps.extend(joiner.on_message(&frame, &mut random())),
            Ok(_) => steps.extend(joiner.disconnected()),
            Err(_) => return Err((PairingError::Expired, joiner.was_here())),
        }
        if steps.is_empty() && tokio::time::Instant::now() >= until {
            return Err((PairingError::Expired, joiner.was_here()));
        }
    }
}
