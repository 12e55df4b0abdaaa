//! Whole pairings between an inviter and joiners, honest and not.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::wire::{ToInviter, ToJoiner};
use super::*;
use crate::identity::{DeviceId, DeviceKey, Hash, VaultId, WriterId};
use crate::keys::SealingKey;
use crate::log::Clock;

mod bytes;
mod dishonest;

const NOW: u64 = 1_793_000_000_000;
const VAULT: VaultId = VaultId([0x77; 32]);

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn device(number: u8) -> DeviceId {
    DeviceKey::from_secret([number; 32]).id()
}

fn new_device(name: &str) -> NewDevice {
    let sealing = SealingKey::generate(&mut rng(5)).public();
    NewDevice::new(name, sealing, "coffer 0.1.0")
}

fn welcome() -> Welcome {
    let writer = WriterId {
        device: device(1),
        incarnation: 0,
    };
    let mut clock = Clock::new();
    clock.observe(writer, 7, Hash([8; 32]));
    Welcome {
        vault: VAULT,
        addresses: vec!["/ip4/192.168.1.20/tcp/4242".into()],
        grants: vec![vec![1; 40], vec![2; 50]],
        grant_heads: vec![Hash([9; 32])],
        clock,
    }
}

fn link() -> Invitation {
    Invitation::new(VAULT, device(1), &[], NOW + LINK_LIFETIME_MS, &mut rng(1))
}

fn code() -> ShortCode {
    ShortCode::generate(&mut rng(2))
}

/// An inviter with the link and the code above.
fn inviter() -> Inviter {
    let mut inviter = Inviter::new(device(1), Some(link()));
    inviter.offer_code(code(), NOW + CODE_LIFETIME_MS);
    inviter
}

/// Everything that happened in one attempt, in order.
#[derive(Debug, Default)]
struct Attempt {
    inviter: Vec<InviterStep>,
    joiner: Vec<JoinerStep>,
    /// Every message to the inviter.
    said: Vec<Vec<u8>>,
    /// Every message to the joiner.
    heard: Vec<Vec<u8>>,
}

impl Attempt {
    fn joined(&self) -> Option<&Welcome> {
        self.joiner.iter().find_map(|step| match step {
            JoinerStep::Done(welcome) => Some(&**welcome),
            _ => None,
        })
    }

    fn joiner_failed(&self) -> Option<PairingError> {
        self.joiner.iter().find_map(|step| match step {
            JoinerStep::Failed(why) => Some(*why),
            _ => None,
        })
    }

    fn inviter_failed(&self) -> Option<(PairingError, bool)> {
        self.inviter.iter().find_map(|step| match step {
            InviterStep::Failed { why, code_void, .. } => Some((*why, *code_void)),
            _ => None,
        })
    }

    fn person_was_asked(&self) -> bool {
        self.inviter
            .iter()
            .any(|step| matches!(step, InviterStep::AskPerson { .. }))
    }
}

/// Device `n` comes in time, with nobody on the way, and the person says yes.
fn meet(inviter: &mut Inviter, n: u8, joining: (Joiner, Vec<JoinerStep>)) -> Attempt {
    meet_at(inviter, n, joining, NOW, true)
}

/// The same at any time, with any answer.
fn meet_at(
    inviter: &mut Inviter,
    n: u8,
    joining: (Joiner, Vec<JoinerStep>),
    now: u64,
    yes: bool,
) -> Attempt {
    run(inviter, device(n), joining, now, yes, honest)
}

/// Runs an attempt to its end. `yes` is the person's answer; `tamper` may change any message on its
/// way, and is told whether it goes to the inviter.
fn run(
    inviter: &mut Inviter,
    me: DeviceId,
    (mut joiner, first): (Joiner, Vec<JoinerStep>),
    now: u64,
    yes: bool,
    mut tamper: impl FnMut(bool, Vec<u8>) -> Vec<u8>,
) -> Attempt {
    let mut attempt = Attempt::default();
    let mut for_joiner = first;
    let mut rng = rng(42);
    while !for_joiner.is_empty() {
        let mut for_inviter = Vec::new();
        for step in for_joiner.drain(..) {
            if let JoinerStep::Send(bytes) = &step {
                let bytes = tamper(true, bytes.clone());
                for_inviter.extend(inviter.on_message(me, &bytes, now, &mut rng));
                attempt.said.push(bytes);
            }
            attempt.joiner.push(step);
        }
        while !for_inviter.is_empty() {
            let step = for_inviter.remove(0);
            match &step {
                InviterStep::Send { to, bytes } => {
                    assert_eq!(*to, me);
                    let bytes = tamper(false, bytes.clone());
                    for_joiner.extend(joiner.on_message(&bytes, &mut rng));
                    attempt.heard.push(bytes);
                }
                InviterStep::AskPerson { .. } => for_inviter.extend(inviter.confirm(yes, now)),
                InviterStep::NeedGrant { .. } => for_inviter.extend(inviter.granted(&welcome())),
                InviterStep::Done { .. } | InviterStep::Failed { .. } => {}
            }
            attempt.inviter.push(step);
        }
    }
    attempt
}

fn honest(_: bool, bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn by_link(me: u8, link: Invitation) -> (Joiner, Vec<JoinerStep>) {
    let device_ = new_device("Ada's laptop");
    Joiner::by_link(
        device(me),
        device(1),
        link,
        &device_,
        &mut rng(u64::from(me)),
    )
}

fn by_code(me: u8, code: ShortCode) -> (Joiner, Vec<JoinerStep>) {
    Joiner::by_code(device(me), device(1), code, &new_device("Ada's laptop"))
}

/// A code of the same nameplate that is not the one shown.
fn wrong_code() -> ShortCode {
    (100..)
        .map(|seed| ShortCode::generate(&mut rng(seed)))
        .find(|other| other.nameplate() == code().nameplate())
        .unwrap()
}

#[test]
fn a_link_admits_a_device_after_its_person_said_yes() {
    let attempt = meet(&mut inviter(), 2, by_link(2, link()));
    assert_eq!(attempt.joined(), Some(&welcome()));
    assert!(attempt.inviter.contains(&InviterStep::AskPerson {
        device: device(2),
        name: "Ada's laptop".into(),
        program: "coffer 0.1.0".into(),
    }));
    assert!(
        attempt
            .inviter
            .contains(&InviterStep::Done { device: device(2) })
    );
    assert!(attempt.joiner.contains(&JoinerStep::AwaitPerson));
}

#[test]
fn a_typed_code_admits_a_device_that_knows_only_where_to_look() {
    let attempt = meet(&mut inviter(), 2, by_code(2, code()));
    assert_eq!(attempt.joined(), Some(&welcome()));
}

#[test]
fn a_person_who_says_no_ends_it_for_everyone() {
    let mut inviter = inviter();
    let attempt = meet_at(&mut inviter, 2, by_link(2, link()), NOW, false);
    assert_eq!(attempt.joiner_failed(), Some(PairingError::Declined));
    assert!(!inviter.is_open(NOW));
    let again = meet(&mut inviter, 3, by_link(3, link()));
    assert_eq!(again.joiner_failed(), Some(PairingError::NotInviting));
}

#[test]
fn a_used_invitation_admits_no_second_device() {
    let mut inviter = inviter();
    meet(&mut inviter, 2, by_link(2, link()));
    for second in [by_link(3, link()), by_code(3, code())] {
        let attempt = meet(&mut inviter, 3, second);
        assert!(attempt.joined().is_none());
        assert!(!attempt.person_was_asked());
    }
    let link = meet(&mut inviter, 3, by_link(3, link()));
    assert_eq!(link.joiner_failed(), Some(PairingError::Used));
}

#[test]
fn the_admitted_device_may_come_again_when_its_welcome_was_lost() {
    let mut inviter = inviter();
    meet(&mut inviter, 2, by_link(2, link()));
    let again = meet_at(&mut inviter, 2, by_link(2, link()), NOW + 1, false);
    assert_eq!(again.joined(), Some(&welcome()));
    assert!(!again.person_was_asked());
}

#[test]
fn another_name_is_asked_about_again() {
    let mut inviter = inviter();
    meet(&mut inviter, 2, by_link(2, link()));
    let renamed = Joiner::by_link(
        device(2),
        device(1),
        link(),
        &new_device("Eve"),
        &mut rng(9),
    );
    let attempt = meet_at(&mut inviter, 2, renamed, NOW, false);
    assert_eq!(attempt.joiner_failed(), Some(PairingError::Declined));
}

#[test]
fn an_expired_link_or_code_is_refused_by_the_inviters_clock() {
    let late = NOW + LINK_LIFETIME_MS;
    let attempt = meet_at(&mut inviter(), 2, by_link(2, link()), late, true);
    assert_eq!(attempt.joiner_failed(), Some(PairingError::Expired));
    let late = NOW + CODE_LIFETIME_MS;
    let attempt = meet_at(&mut inviter(), 2, by_code(2, code()), late, true);
    assert_eq!(attempt.joiner_failed(), Some(PairingError::NotHere));
}

#[test]
fn an_answer_that_takes_too_long_admits_nobody() {
    let mut inviter = inviter();
    let (mut joiner, mut steps) = by_link(2, link());
    let mut rng = rng(1);
    let asked = loop {
        let Some(JoinerStep::Send(bytes)) = steps.first() else {
            panic!("{steps:?}");
        };
        match &inviter.on_message(device(2), bytes, NOW, &mut rng)[0] {
            InviterStep::Send { bytes, .. } => steps = joiner.on_message(bytes, &mut rng),
            step => break step.clone(),
        }
    };
    assert!(matches!(asked, InviterStep::AskPerson { .. }));
    let late = inviter.confirm(true, NOW + PERSON_TIMEOUT_MS);
    assert!(matches!(
        late[1],
        InviterStep::Failed {
            why: PairingError::Expired,
            ..
        }
    ));
}
