//! Which hosts are asked to take connections for us, and when a device is dialled through one: the state behind "reach these
//! devices even if routers are in the way".
//!
//! Pure, like [`super::dialing`], which goes on looking for direct ways meanwhile: a relayed connection does not count there.
//!
//! *Reservations.* Every host in use is asked once it is connected and has said what it offers; a lost reservation is made
//! anew at once, a refused one after 1, 2, 4 … 300 s. A host that does not answer is connected anew. libp2p renews what it has.
//! *Circuits.* A wanted device that is not connected is dialled through the hosts that are connected, the nearest first, one
//! after the other: [`HEAD_START`] after the direct dials began, then after 1, 2, 4 … 30 s. The device with the larger key
//! waits a little longer, so that the two do not come up with a circuit each. It starts over when there is reason to think
//! that it will succeed: a host is there or has agreed to take connections for us, the device was connected meanwhile, or
//! somebody has heard of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    address::Device,
    dialing::{FIRST_BACKOFF, SETTLED, SOON, backoff, yielding},
};

/// Longest delay between dials through hosts. To ask a host for somebody who is not there costs some hundred bytes, so that
/// it is done more often than direct dials: who comes back behind a router may have no other way to be found.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Direct dials' head start: the handshakes of a path of 100 ms. A circuit that comes up needlessly costs little.
pub(super) const HEAD_START: Duration = Duration::from_millis(400);
/// Longest delay between requests to a host that refuses: a person who has just been admitted waits at most so long.
const MAX_REFUSED: Duration = Duration::from_secs(300);
/// Time for surplus connections to a host to go: the reservation is to be on the one that stays.
const ONE_IS_LEFT: Duration = Duration::from_secs(3);

/// How long a host may take to answer: a busy one on a poor link takes some seconds.
const ANSWER: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Ask the host to take connections for us; [`Circuits::asked`] has to follow, or [`Circuits::not_asked`].
    Reserve(Device),
    /// Close what there is with the host: it does not answer.
    Reconnect(Device),
    /// Dial the device through the host; [`Circuits::settled`] or [`Circuits::connected`] has to follow.
    Dial {
        /// Whom.
        device: Device,
        /// Through which host.
        host: Device,
    },
}

/// The state of all hosts in use and of the devices wanted.
pub(super) struct Circuits<Listener> {
    own: Device,
    hosts: BTreeMap<Device, Host<Listener>>,
    targets: BTreeMap<Device, Target>,
}

#[derive(Debug)]
struct Host<Listener> {
    /// Connections with it.
    connections: usize,
    connected_at: Option<Instant>,
    /// It has said what it offers, on a connection that is still there.
    is_identified: bool,
    /// Round trip, as measured last.
    away: Option<Duration>,
    reservation: Reservation<Listener>,
    /// When it was asked, as long as its answer is awaited.
    asked_at: Option<Instant>,
    refused: u32,
}

#[derive(Debug, PartialEq)]
enum Reservation<Listener> {
    None { due: Option<Instant> },
    Asked(Listener),
    Held(Listener),
}

#[derive(Debug, Default)]
struct Target {
    /// Connections, direct or not.
    connections: usize,
    connected_at: Option<Instant>,
    /// The host through which it is being dialled.
    under_way: Option<Device>,
    /// Hosts that have been tried in this round.
    tried: BTreeSet<Device>,
    due: Option<Instant>,
    attempts: u32,
}

impl<Listener: Copy + PartialEq> Circuits<Listener> {
    pub fn new(own: Device) -> Self {
        Self {
            own,
            hosts: BTreeMap::new(),
            targets: BTreeMap::new(),
        }
    }

    /// Replaces the hosts in use; returns those that have left with a reservation. `connections` says how many connections
    /// there already are to a host, and whether it is identified.
    pub fn set_hosts(
        &mut self,
        hosts: &BTreeSet<Device>,
        connections: impl Fn(&Device) -> (usize, bool),
        now: Instant,
    ) -> Vec<Device> {
        let mut left = Vec::new();
        self.hosts.retain(|device, host| {
            let stays = hosts.contains(device);
            if !stays && !matches!(host.reservation, Reservation::None { .. }) {
                left.push(*device);
            }
            stays
        });
        for device in hosts {
            let (connections, is_identified) = connections(device);
            let mut is_new = false;
            self.hosts.entry(*device).or_insert_with(|| {
                is_new = true;
                Host {
                    connections,
                    connected_at: (connections > 0).then_some(now),
                    is_identified: false,
                    away: None,
                    reservation: Reservation::None { due: None },
                    asked_at: None,
                    refused: 0,
                }
            });
            if is_new && is_identified {
                self.identified(device, now);
            }
        }
        left
    }

    /// Replaces the devices that are to be reached, none of them a host; `connections` as above.
    pub fn set_targets(
        &mut self,
        wanted: &BTreeSet<Device>,
        connections: impl Fn(&Device) -> usize,
        now: Instant,
    ) {
        self.targets.retain(|device, _| wanted.contains(device));
        for device in wanted {
            if *device == self.own {
                continue;
            }
            let at = now + HEAD_START + yielding(&self.own, device);
            self.targets.entry(*device).or_insert_with(|| {
                let connections = connections(device);
                Target {
                    connections,
                    connected_at: (connections > 0).then_some(now),
                    due: (connections == 0).then_some(at),
                    ..Target::default()
                }
            });
        }
    }

    /// A host has said what it offers.
    pub fn identified(&mut self, device: &Device, now: Instant) {
        let Some(host) = self.hosts.get_mut(device).filter(|one| one.connections > 0) else {
            return;
        };
        if std::mem::replace(&mut host.is_identified, true) {
            return;
        }
        if let Reservation::None { due } = &mut host.reservation {
            *due = Some(now);
        }
        self.hurry(now);
    }

    /// A connection came up, with a host (directly) or with a device (in any way).
    pub fn connected(&mut self, device: &Device, now: Instant) {
        if let Some(host) = self.hosts.get_mut(device) {
            host.connections += 1;
            host.connected_at.get_or_insert(now);
        }
        if let Some(target) = self.targets.get_mut(device) {
            target.connections += 1;
            target.connected_at.get_or_insert(now);
            target.due = None;
            target.attempts = 0;
            target.tried.clear();
        }
    }

    /// A connection went; `remaining` are left.
    pub fn disconnected(&mut self, device: &Device, remaining: usize, now: Instant) {
        if let Some(host) = self.hosts.get_mut(device) {
            host.connections = remaining;
            if remaining == 0 {
                host.connected_at = None;
                host.is_identified = false;
                // What is held ends with its listener, which says so.
                if let Reservation::None { due } = &mut host.reservation {
                    *due = None;
                }
            }
        }
        if let Some(target) = self.targets.get_mut(device) {
            target.connections = remaining;
            if remaining == 0 {
                let lived = target
                    .connected_at
                    .take()
                    .map_or(Duration::ZERO, |since| now - since);
                if lived >= SETTLED {
                    target.attempts = 0;
                }
                target.due = Some(now + HEAD_START + yielding(&self.own, device));
            }
        }
    }

    /// How far away a host is.
    pub fn measured(&mut self, device: &Device, away: Duration) {
        if let Some(host) = self.hosts.get_mut(device) {
            host.away = Some(away);
        }
    }

    /// A host is being asked.
    pub fn asked(&mut self, device: &Device, listener: Listener, now: Instant) {
        if let Some(host) = self.hosts.get_mut(device) {
            host.reservation = Reservation::Asked(listener);
            host.asked_at = Some(now);
        }
    }

    /// A host could not be asked: it is tried again later.
    pub fn not_asked(&mut self, device: &Device, now: Instant) {
        if let Some(host) = self.hosts.get_mut(device)
            && let Reservation::None { due } = &mut host.reservation
        {
            host.refused = host.refused.saturating_add(1);
            *due = Some(now + backoff(host.refused, FIRST_BACKOFF, MAX_REFUSED));
        }
    }

    /// A host has agreed, for the first time or anew.
    pub fn reserved(&mut self, device: &Device, now: Instant) {
        if let Some(host) = self.hosts.get_mut(device)
            && let Reservation::Asked(listener) = host.reservation
        {
            host.reservation = Reservation::Held(listener);
            host.asked_at = None;
            host.refused = 0;
            // It may have refused to dial for us until now, as it has not known us.
            self.hurry(now);
        }
    }

    /// Somebody else has heard of a device: it is up, and may be reachable now.
    pub fn heard_of(&mut self, device: &Device, now: Instant) {
        let own = self.own;
        if let Some(target) = self.targets.get_mut(device) {
            target.hurry(now, yielding(&own, device));
        }
    }

    /// A reservation has been refused, or is over; returns the host if it was one of ours.
    pub fn unreserved(&mut self, listener: Listener, now: Instant) -> Option<Device> {
        let of_it = |host: &Host<Listener>| match host.reservation {
            Reservation::Asked(one) | Reservation::Held(one) => one == listener,
            Reservation::None { .. } => false,
        };
        let (device, host) = self.hosts.iter_mut().find(|(_, host)| of_it(host))?;
        let was_held = matches!(host.reservation, Reservation::Held(_));
        host.asked_at = None;
        let wait = if was_held {
            Duration::ZERO
        } else {
            host.refused = host.refused.saturating_add(1);
            backoff(host.refused, FIRST_BACKOFF, MAX_REFUSED)
        };
        host.reservation = Reservation::None {
            due: host.is_identified.then_some(now + wait),
        };
        Some(*device)
    }

    /// A dial through a host has failed.
    pub fn settled(&mut self, device: &Device, now: Instant) {
        let ready = self.ready();
        let Some(target) = self.targets.get_mut(device) else {
            return;
        };
        if let Some(host) = target.under_way.take() {
            target.tried.insert(host);
        }
        if target.connections > 0 {
            return;
        }
        if ready.iter().any(|host| !target.tried.contains(host)) {
            target.due = Some(now);
            return;
        }
        target.give_up_for_now(now);
    }

    /// A dial through a host has succeeded.
    pub fn succeeded(&mut self, device: &Device) {
        if let Some(target) = self.targets.get_mut(device) {
            target.under_way = None;
        }
    }

    /// The network has changed, or a host is there: whoever could not be reached may be reachable now.
    pub fn hurry(&mut self, now: Instant) {
        let own = self.own;
        for (device, target) in &mut self.targets {
            target.hurry(now, yielding(&own, device));
        }
    }

    /// What is due now.
    pub fn due(&mut self, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        for (device, host) in &mut self.hosts {
            if host.asks_at().is_some_and(|at| at <= now)
                && let Reservation::None { due } = &mut host.reservation
            {
                *due = None;
                acts.push(Act::Reserve(*device));
            }
            if host.asked_at.is_some_and(|at| at + ANSWER <= now) {
                host.asked_at = None;
                acts.push(Act::Reconnect(*device));
            }
        }
        let ready = self.ready();
        for (device, target) in &mut self.targets {
            let free = target.connections == 0 && target.under_way.is_none();
            if !free || target.due.is_none_or(|due| due > now) {
                continue;
            }
            let mut others = ready.iter().filter(|host| *host != device).peekable();
            if others.peek().is_none() {
                continue;
            }
            match others.find(|host| !target.tried.contains(*host)) {
                Some(host) => {
                    target.due = None;
                    target.under_way = Some(*host);
                    acts.push(Act::Dial {
                        device: *device,
                        host: *host,
                    });
                }
                // Those that are left have been tried: another one went away.
                None => target.give_up_for_now(now),
            }
        }
        acts
    }

    /// When [`Self::due`] will have something next.
    pub fn next(&self) -> Option<Instant> {
        let asks = self.hosts.values().filter_map(Host::asks_at);
        let any_ready = self.hosts.values().any(Host::is_ready);
        let dials = self
            .targets
            .values()
            .filter(|target| any_ready && target.connections == 0 && target.under_way.is_none())
            .filter_map(|target| target.due);
        let answers = self.hosts.values().filter_map(|host| host.asked_at);
        let answers = answers.map(|at| at + ANSWER);
        asks.chain(dials).chain(answers).min()
    }

    /// Devices that are being dialled through a host, or will be within a moment.
    pub fn expected(&self, now: Instant) -> BTreeSet<Device> {
        // One that has just been connected will say in a moment what it offers.
        let any_host = self.hosts.values().any(|host| {
            host.is_ready() || host.connected_at.is_some_and(|since| now < since + SOON)
        });
        let soon = |target: &Target| {
            target.connections == 0
                && (target.under_way.is_some()
                    || any_host && target.due.is_some_and(|due| due <= now + SOON))
        };
        let expected = self.targets.iter().filter(|(_, target)| soon(target));
        expected.map(|(device, _)| *device).collect()
    }

    /// Stops everything.
    pub fn clear(&mut self) {
        self.hosts.clear();
        self.targets.clear();
    }

    /// Hosts through which devices can be dialled, nearest first.
    fn ready(&self) -> Vec<Device> {
        let mut ready: Vec<_> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.is_ready())
            .map(|(device, host)| (host.away.unwrap_or(Duration::MAX), *device))
            .collect();
        ready.sort();
        ready.into_iter().map(|(_, device)| device).collect()
    }
}

impl Target {
    /// Starts over with the delays.
    fn hurry(&mut self, now: Instant, yielding: Duration) {
        if self.connections > 0 {
            return;
        }
        self.attempts = 0;
        if self.under_way.is_none() {
            self.tried.clear();
            let at = now + yielding;
            // Not before the direct dials of a device that has just become wanted.
            self.due = Some(self.due.map_or(at, |due| due.min(at + HEAD_START)));
        }
    }

    fn give_up_for_now(&mut self, now: Instant) {
        self.tried.clear();
        self.attempts = self.attempts.saturating_add(1);
        self.due = Some(now + backoff(self.attempts, FIRST_BACKOFF, MAX_BACKOFF));
    }
}

impl<Listener> Host<Listener> {
    fn is_ready(&self) -> bool {
        self.connections > 0 && self.is_identified
    }

    /// When it is to be asked for a reservation.
    fn asks_at(&self) -> Option<Instant> {
        let Reservation::None { due: Some(due) } = self.reservation else {
            return None;
        };
        let since = self.connected_at?;
        let settles = if self.connections > 1 {
            since + ONE_IS_LEFT
        } else {
            since
        };
        self.is_ready().then_some(due.max(settles))
    }
}

#[cfg(test)]
#[path = "circuits_tests.rs"]
mod tests;
