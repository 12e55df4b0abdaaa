//! Admitting a device: `pair`, and the streams of devices that want in.

use super::super::running::commit_error;
use super::super::{Node, random, status, stopped};
use super::network;
use crate::control::{
    Answer, ControlError, ErrorKind, Item, Progress, Question, Reply, Session, Stage,
};
use crate::net::{Device, Multiaddr, Net, Stream, read_frame, write_frame};
use crate::vault::{Admission, wall_ms};
use coffer_protocol::grants::Role;
use coffer_protocol::identity::DeviceId;
use coffer_protocol::pairing::{
    CODE_LIFETIME_MS, Invitation, Inviter, InviterStep, LINK_LIFETIME_MS, MAX_TO_INVITER,
    MAX_WELCOME, PairingError, ShortCode, Welcome, not_inviting,
};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::multiaddr::Protocol;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Messages for one joining device that may wait for its stream.
const TO_DEVICE: usize = 16;
/// What the open invitation may have to tell its command.
const TO_COMMAND: usize = 64;
/// Longest validity of an invitation, in seconds.
const VALID_AT_MOST_S: u64 = 3600;
/// How long a stream that was answered to the end is read on.
const HEAR_OUT: Duration = Duration::from_secs(2);
/// How often an invitation's time is checked.
const CHECK_EVERY: Duration = Duration::from_millis(500);

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
    let listening = inviting_addresses(&net);
    let addresses: Vec<String> = listening.iter().map(ToString::to_string).collect();
    if addresses.is_empty() {
        return Err(ControlError::unavailable(
            "this device listens on no address, so that no other could reach it",
        ));
    }
    let invitation = Invitation::new(
        vault,
        node.device()?,
        &addresses,
        now + valid_ms,
        &mut random(),
    );
    let link = invitation.to_link();
    let (to_command, mut told) = mpsc::channel(TO_COMMAND);
    let mut machine = Inviter::new(node.device()?, Some(invitation));
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
                    return Err(ControlError::new(ErrorKind::Expired, "nobody used the invitation in time")
                        .with_code("nobody-came"));
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
    let addresses = inviting_addresses(&network(node)?)
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
pub async fn answer(
    node: Arc<Node>,
    mut streams: mpsc::Receiver<(Device, Stream)>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let mut answering = JoinSet::new();
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

/// Reads on until the other side has closed, for a moment at most: a stream that is dropped with something unread in it is
/// reset, and with it goes what was said last.
async fn hear_out(read: &mut (impl futures::AsyncRead + Unpin)) {
    let mut frame = Vec::new();
    let rest = async { while let Ok(true) = read_frame(read, &mut frame, MAX_TO_INVITER).await {} };
    let _ = tokio::time::timeout(HEAR_OUT, rest).await;
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
            hear_out(&mut read).await;
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
    hear_out(&mut read).await;
    let mut open = node.inviting.lock().await;
    if let Some(open) = open.as_mut().filter(|open| open.number == number) {
        open.to_devices.remove(&device);
        let steps = open.machine.disconnected(device);
        carry_out(node, open, steps).await;
    }
}
