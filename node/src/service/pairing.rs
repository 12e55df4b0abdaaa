//! Admitting a device, and being admitted.
//!
//! The machines in [`coffer_protocol::pairing`] decide; this carries their bytes, asks the person, and makes what they
//! ask for durable before it is promised: the grant on the inviting side, the vault on the joining one. One invitation
//! is open at a time, and only while the command that opened it is there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::grants::Role;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::pairing::{
    CODE_LIFETIME_MS, CodeError, Invitation, Inviter, InviterStep, Joiner, JoinerStep,
    LINK_LIFETIME_MS, LinkError, MAX_CODE_CANDIDATES, MAX_TO_INVITER, MAX_WELCOME, NewDevice,
    PairingError, ShortCode, Welcome, not_inviting,
};
use coffer_protocol::version;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::multiaddr::Protocol;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::running::commit_error;
use super::stopped;
use super::{Node, device_name, founding_error, random, status};
use crate::control::{
    Answer, ControlError, ErrorKind, Item, JoinWith, Progress, Question, Reply, Session, Stage,
};
use crate::net::{Device, Multiaddr, Net, Stream, StreamProtocol, read_frame, write_frame};
use crate::store;
use crate::vault::founding::{self, DATABASE};
use crate::vault::identity::binding;
use crate::vault::{Admission, CommitRequest, wall_ms};

/// Messages for one joining device that may wait for its stream.
const TO_DEVICE: usize = 16;
/// What the open invitation may have to tell its command.
const TO_COMMAND: usize = 64;
/// Longest validity of an invitation, in seconds.
const VALID_AT_MOST_S: u64 = 3600;
/// How long a joining device looks for one that shows a typed code.
const LOOK_FOR: Duration = Duration::from_secs(30);
/// Pause between two looks around.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often an invitation's time is checked.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The joining side waits for the person at the other device as long as that one asks.
const JOIN_WITHIN: Duration = Duration::from_secs(11 * 60);

/// The invitation that is open.
pub struct Open {
    machine: Inviter,
    /// Tells one invitation from the next.
    number: u64,
    to_devices: BTreeMap<DeviceId, mpsc::Sender<Vec<u8>>>,
    to_command: mpsc::Sender<Told>,
}

/// What the machine tells the command that opened the invitation.
enum Told {
    Asked { device: DeviceId, name: String },
    Done(DeviceId),
    Failed { why: PairingError, code_void: bool },
    NoGrant(ControlError),
}

/// Takes the invitation back when the command that opened it ends in whatever way.
struct TakeBack(Arc<Node>, u64);

impl Drop for TakeBack {
    fn drop(&mut self) {
        let (node, number) = (self.0.clone(), self.1);
        tokio::spawn(async move {
            let mut open = node.inviting.lock().await;
            if let Some(mut taken) = open.take_if(|open| open.number == number) {
                for step in taken.machine.withdraw() {
                    if let InviterStep::Send { to, bytes } = step
                        && let Some(stream) = taken.to_devices.get(&to)
                    {
                        let _ = stream.try_send(bytes);
                    }
                }
            }
        });
    }
}

/// `coffer pair`: opens an invitation and sees it through.
pub async fn invite(
    node: &Arc<Node>,
    valid_for_s: Option<u64>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let net = network(node)?;
    let (vault, role) = running
        .vault
        .inspect(|core| {
            (
                core.state().vault,
                core.state().membership.role(&core.device()),
            )
        })
        .await
        .map_err(commit_error)?;
    if role != Some(Role::Owner) {
        return Err(ControlError::refused(
            "this device may not add others; use one that may",
        ));
    }
    let valid_ms = valid_for_s.map_or(LINK_LIFETIME_MS, |seconds| {
        seconds.clamp(1, VALID_AT_MOST_S) * 1000
    });
    let now = wall_ms();
    let listening = inviting_addresses(net);
    let addresses: Vec<String> = listening.iter().map(ToString::to_string).collect();
    if addresses.is_empty() {
        return Err(ControlError::unavailable(
            "this device listens on no address, so that no other could reach it",
        ));
    }
    let invitation = Invitation::new(
        vault,
        node.device,
        &addresses,
        now + valid_ms,
        &mut random(),
    );
    let link = invitation.to_link();
    let (to_command, mut told) = mpsc::channel(TO_COMMAND);
    let mut machine = Inviter::new(node.device, Some(invitation));
    let ends = now + valid_ms;
    let mut code = offer_code(&mut machine, now, ends);
    let number = {
        let mut open = node.inviting.lock().await;
        if open.is_some() {
            return Err(
                ControlError::conflict("an invitation is open already; end it first")
                    .with_code("already-inviting"),
            );
        }
        let number = rand::Rng::next_u64(&mut random());
        *open = Some(Open {
            machine,
            number,
            to_devices: BTreeMap::new(),
            to_command,
        });
        number
    };
    let _take_back = TakeBack(node.clone(), number);
    let shown: Vec<String> = listening.iter().map(status::show_address).collect();
    let item = |code: &(String, u64)| Item::Invitation {
        link: link.clone(),
        code: Some(code.0.clone()),
        expires_ms: ends,
        code_expires_ms: code.1,
        addresses: shown.clone(),
    };
    session.item(item(&code)).await?;
    let mut check = tokio::time::interval(CHECK_EVERY);
    loop {
        let told = tokio::select! {
            told = told.recv() => told,
            _ = check.tick() => {
                let mut open = node.inviting.lock().await;
                let Some(open) = open.as_mut() else { continue };
                if open.machine.has_ended(wall_ms()) && wall_ms() > ends {
                    return Err(ControlError::new(ErrorKind::Expired, "nobody used the invitation in time"));
                }
                if !open.machine.code_is_open(wall_ms()) && open.machine.is_open(wall_ms()) && wall_ms() < ends {
                    code = offer_code(&mut open.machine, wall_ms(), ends);
                    session.item(item(&code)).await?;
                }
                continue;
            }
        };
        match told {
            Some(Told::Asked { device, name }) => {
                let answer = session
                    .ask(Question::AdmitDevice {
                        name,
                        device: device.to_string(),
                    })
                    .await?;
                let yes = answer == Answer::Yes;
                let mut open = node.inviting.lock().await;
                if let Some(open) = open.as_mut() {
                    let steps = open.machine.confirm(yes, wall_ms());
                    carry_out(node, open, steps).await;
                }
                if !yes {
                    return Err(ControlError::refused("the device was not let in"));
                }
            }
            Some(Told::Done(device)) => {
                let row = status::device_row(node, &running, device).await?;
                return Ok(Reply::Paired { device: row });
            }
            Some(Told::NoGrant(error)) => return Err(error),
            Some(Told::Failed { why, code_void }) => {
                tracing::info!(%why, "an attempt to pair failed");
                session.progress(Progress {
                    stage: Stage::WaitingForPerson,
                    done: 0,
                    total: None,
                    about: Some(format!("an attempt failed: {why}")),
                });
                if code_void && let Some(open) = node.inviting.lock().await.as_mut() {
                    code = offer_code(&mut open.machine, wall_ms(), ends);
                    session.item(item(&code)).await?;
                }
            }
            None => {
                return Err(ControlError::new(
                    ErrorKind::Cancelled,
                    "the invitation was taken back",
                ));
            }
        }
    }
}

/// Addresses that another device could reach: few, so that the QR code stays small. Link-local ones mean nothing
/// elsewhere; those of this machine itself are given only where there are no others.
fn inviting_addresses(net: &Net) -> Vec<Multiaddr> {
    let (mut far, mut near) = (Vec::new(), Vec::new());
    for address in net.listen_addresses() {
        let ip = address.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        });
        match ip {
            Some(ip) if ip.is_loopback() => near.push(address),
            Some(IpAddr::V4(ip)) if ip.is_link_local() => {}
            Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {}
            _ => far.push(address),
        }
    }
    if far.is_empty() { near } else { far }
}

fn offer_code(machine: &mut Inviter, now: u64, ends: u64) -> (String, u64) {
    let code = ShortCode::generate(&mut random());
    let text = code.to_text();
    let until = ends.min(now + CODE_LIFETIME_MS);
    machine.offer_code(code, until);
    (text, until)
}

/// Does what the inviting machine wants done.
async fn carry_out(node: &Arc<Node>, open: &mut Open, steps: Vec<InviterStep>) {
    let mut steps = std::collections::VecDeque::from(steps);
    while let Some(step) = steps.pop_front() {
        match step {
            InviterStep::Send { to, bytes } => {
                if let Some(stream) = open.to_devices.get(&to) {
                    let _ = stream.try_send(bytes);
                }
            }
            InviterStep::AskPerson { device, name, .. } => {
                let _ = open.to_command.try_send(Told::Asked { device, name });
            }
            InviterStep::NeedGrant {
                device,
                sealing,
                name,
            } => match admit(node, device, sealing, name).await {
                Ok(welcome) => steps.extend(open.machine.granted(&welcome)),
                Err(error) => {
                    steps.extend(open.machine.withdraw());
                    let _ = open.to_command.try_send(Told::NoGrant(error));
                }
            },
            InviterStep::Done { device } => {
                let _ = open.to_command.try_send(Told::Done(device));
            }
            InviterStep::Failed {
                device,
                why,
                code_void,
            } => {
                open.to_devices.remove(&device);
                let _ = open.to_command.try_send(Told::Failed { why, code_void });
            }
        }
    }
}

/// The grant for a device, made now or found where it was made before.
async fn admit(
    node: &Arc<Node>,
    device: DeviceId,
    sealing: coffer_protocol::keys::SealingPublic,
    name: String,
) -> Result<Welcome, ControlError> {
    let running = node.vault().await?;
    let addresses = inviting_addresses(network(node)?)
        .iter()
        .map(ToString::to_string)
        .collect();
    let known = running
        .vault
        .inspect(move |core| {
            core.state()
                .membership
                .is_member(&device)
                .then(|| core.welcome())
        })
        .await
        .map_err(commit_error)?;
    let mut welcome = match known {
        Some(welcome) => welcome,
        None => running
            .vault
            .admit(Admission {
                device,
                sealing,
                name,
                role: Role::Owner,
            })
            .await
            .map_err(commit_error)?,
    };
    welcome.addresses = addresses;
    Ok(welcome)
}

/// Answers pairing streams until the node stops.
pub async fn answer(node: Arc<Node>, mut streams: mpsc::Receiver<(Device, Stream)>) {
    let mut answering = JoinSet::new();
    let mut stop = node.stop.subscribe();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = answering.join_next() => {}
            next = streams.recv() => {
                let Some((device, stream)) = next else { break };
                let node = node.clone();
                answering.spawn(async move { answer_one(&node, DeviceId(device), stream).await });
            }
        }
    }
    answering.shutdown().await;
}

async fn answer_one(node: &Arc<Node>, device: DeviceId, stream: Stream) {
    let (mut read, mut write) = stream.split();
    let (to_device, mut outgoing) = mpsc::channel::<Vec<u8>>(TO_DEVICE);
    let number = match node.inviting.lock().await.as_mut() {
        Some(open) => {
            open.to_devices.insert(device, to_device);
            open.number
        }
        None => {
            let _ = write_frame(&mut write, &not_inviting(), MAX_WELCOME).await;
            let _ = write.close().await;
            return;
        }
    };
    let receive = async {
        let mut frame = Vec::new();
        while let Ok(true) = read_frame(&mut read, &mut frame, MAX_TO_INVITER).await {
            let mut open = node.inviting.lock().await;
            let Some(open) = open.as_mut().filter(|open| open.number == number) else {
                return;
            };
            let steps = open
                .machine
                .on_message(device, &frame, wall_ms(), &mut random());
            carry_out(node, open, steps).await;
        }
    };
    let send = async {
        while let Some(bytes) = outgoing.recv().await {
            if write_frame(&mut write, &bytes, MAX_WELCOME).await.is_err() {
                return;
            }
        }
    };
    // The machine ends an attempt by dropping the queue: what is in it still goes out.
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
    while let Ok(bytes) = outgoing.try_recv() {
        if write_frame(&mut write, &bytes, MAX_WELCOME).await.is_err() {
            break;
        }
    }
    let _ = write.close().await;
    let mut open = node.inviting.lock().await;
    if let Some(open) = open.as_mut().filter(|open| open.number == number) {
        open.to_devices.remove(&device);
        let steps = open.machine.disconnected(device);
        carry_out(node, open, steps).await;
    }
}

/// `coffer join`: finds the inviting device, proves the secret, and begins the vault here.
pub async fn join(
    node: &Arc<Node>,
    with: JoinWith,
    at: Vec<String>,
    name: Option<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let net = network(node)?.clone();
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
    let at = read_places(&at)?;
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
        device: status::device_row(node, &running, node.device).await?,
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
async fn make_room(node: &Arc<Node>, session: &mut Session) -> Result<(), ControlError> {
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
    for name in [
        DATABASE,
        "index.sqlite",
        "index.sqlite-wal",
        "index.sqlite-shm",
    ] {
        remove(&dir.join(name))?;
    }
    match std::fs::remove_dir_all(dir.join("blobs")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ControlError::io("remove the empty vault", &error))
        }
        _ => Ok(()),
    }
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
fn read_places(at: &[String]) -> Result<Vec<Multiaddr>, ControlError> {
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
        let resolved: Vec<std::net::SocketAddr> =
            std::net::ToSocketAddrs::to_socket_addrs(place.as_str())
                .map_err(|_| wrong())?
                .collect();
        for address in resolved {
            found.extend(super::sources::listen_on(address.ip(), address.port()));
        }
    }
    Ok(found)
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
    if inviter == node.device {
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
    let (joiner, steps) = Joiner::by_link(node.device, inviter, invitation, device, &mut random());
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
        return match attempt(node, net, code, device, DeviceId(found), session).await {
            Ok(welcome) => Ok((welcome, DeviceId(found))),
            Err((error, _)) => Err(pairing_error(error)),
        };
    }
    while tokio::time::Instant::now() < until && tried < MAX_CODE_CANDIDATES {
        for (candidate, addresses) in net.discovered() {
            if tried >= MAX_CODE_CANDIDATES {
                break;
            }
            if candidate == node.device.0
                || !asked.insert(candidate)
                || net.dial(candidate, addresses).await.is_err()
            {
                continue;
            }
            match attempt(node, net, code, device, DeviceId(candidate), session).await {
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
    node: &Arc<Node>,
    net: &Net,
    code: &ShortCode,
    device: &NewDevice,
    candidate: DeviceId,
    session: &mut Session,
) -> Result<Welcome, (PairingError, bool)> {
    let (joiner, steps) = Joiner::by_code(node.device, candidate, code.clone(), device);
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
        return Err(gone(&joiner));
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

fn pairing_error(error: PairingError) -> ControlError {
    let (kind, code) = match error {
        PairingError::Expired => (ErrorKind::Expired, "invitation-expired"),
        PairingError::Used => (ErrorKind::Expired, "invitation-used"),
        PairingError::NotHere => (ErrorKind::NotFound, "code-not-found"),
        PairingError::NotInviting => (ErrorKind::Expired, "not-inviting"),
        PairingError::WrongSecret => (ErrorKind::Refused, "wrong-code"),
        PairingError::WrongDevice | PairingError::WrongInviter | PairingError::OtherVault => {
            (ErrorKind::Refused, "wrong-device")
        }
        PairingError::Declined => (ErrorKind::Refused, "declined"),
        PairingError::Withdrawn => (ErrorKind::Cancelled, "withdrawn"),
        PairingError::NoCommonVersion => (ErrorKind::NewerVersion, "other-version"),
        PairingError::Malformed | PairingError::OutOfTurn | PairingError::TooLarge => {
            (ErrorKind::Damaged, "pairing-broken")
        }
        PairingError::Disconnected => (ErrorKind::Unavailable, "connection-lost"),
    };
    ControlError::new(kind, error.to_string()).with_code(code)
}

fn network(node: &Node) -> Result<&Net, ControlError> {
    node.net
        .as_ref()
        .ok_or_else(|| ControlError::unavailable("this node was started without a network"))
}
