//! When to dial whom, and where: the state behind "keep these devices connected".
//!
//! Pure, and about direct ways only ([`super::circuits`] knows those through hosts): it is told what happened and at what time, and says which dials are due. The swarm actor does them.
//!
//! *Order of a dial.* The address that worked last, if it is a preferred one, else all preferred addresses (TCP near by,
//! QUIC elsewhere); the others [`FALLBACK_DELAY`] later or as soon as those have failed: so that normally one connection
//! comes up, the cheap one, and no handshake is done for nothing. When two devices find each other at the same moment,
//! the one with the larger key waits [`YIELD_DELAY`] for the other's dial.
//! A round does not wait for the slowest of the one before: a refused TCP dial is repeated while a QUIC handshake with
//! nobody runs into its timeout; only one dial for each transport is under way then.
//! *Backoff.* A wanted device is dialled at once, then after 1, 2, 4 … 60 s; a host, which dials nobody, at least every 15 s. When its last connection goes, after 250 ms,
//! then 1 s and so on. New addresses and a change of the network start over. A connection that lived for less than
//! [`SETTLED`] does not: a device that keeps closing on us (it may not know us any more) is not dialled in a tight loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p::Multiaddr;

use super::address::{Device, MAX_ADDRESSES, Place, Transport, normalised};

/// Head start of preferred addresses: several round trips on a LAN, and hardly felt elsewhere.
pub(super) const FALLBACK_DELAY: Duration = Duration::from_millis(250);
/// Head start of the smaller key's dial: a TCP and TLS handshake on a LAN takes some 10 ms.
pub(super) const YIELD_DELAY: Duration = Duration::from_millis(120);
/// After the last connection went: long enough for a restarting program to listen again, short enough to go unnoticed.
pub(super) const REDIAL_DELAY: Duration = Duration::from_millis(250);
/// First delay after a failed dial.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest delay between dials: a device that comes back dials us itself, so this only bounds the case where it cannot.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The same of a host: it is waited for by devices that have nothing but it, and never dials.
pub(super) const MAX_HOST_BACKOFF: Duration = Duration::from_secs(15);
/// A connection that lived this long was a good one. Over the 20 s after which idle strangers are closed.
pub(super) const SETTLED: Duration = Duration::from_secs(30);
/// Dials of one transport to one device at a time, when news overtake a dial that hangs.
const MOST_IN_FLIGHT: usize = 3;
/// How far ahead a planned dial counts as "a connection is on its way" for those who wait to open a stream.
pub(super) const SOON: Duration = Duration::from_millis(1500);

/// One dial to be done: all addresses are of one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dial {
    pub device: Device,
    pub transport: Transport,
    pub addresses: Vec<Multiaddr>,
}

/// The dialling state of all devices.
pub(super) struct Dialing {
    own: Device,
    targets: BTreeMap<Device, Target>,
}

#[derive(Default)]
struct Target {
    /// Kept connected.
    wanted: bool,
    /// Asked for once; forgotten when that is settled, unless wanted.
    asked: bool,
    /// A host in use.
    is_host: bool,
    /// Known addresses, best first.
    addresses: Vec<Multiaddr>,
    /// Whether the first of them is one that worked, as far as is known.
    best_worked: bool,
    /// Direct connections: those through a host do not end the search for a direct way.
    connections: usize,
    connected_at: Option<Instant>,
    /// Dials started and not yet settled, of each [`Transport`].
    in_flight: [usize; 2],
    /// Addresses of a dial under way that wait for the preferred ones.
    fallback: Option<(Instant, Vec<Multiaddr>)>,
    /// Addresses of the dials under way.
    dialled: Vec<Multiaddr>,
    /// Addresses learned while disconnected, to be dialled at once.
    fresh: Vec<Multiaddr>,
    /// The list of addresses that the caller has: what it gave or was told last.
    reported: Vec<Multiaddr>,
    /// When to dial next, if not connected.
    due: Option<Instant>,
    /// Position in the backoff sequence.
    attempts: u32,
}

impl Dialing {
    pub fn new(own: Device) -> Self {
        Self {
            own,
            targets: BTreeMap::new(),
        }
    }

    /// Replaces the wanted set. Addresses learned so far of devices that stay are kept; `connections` says how many
    /// direct connections there already are to a device.
    pub fn set_wanted(
        &mut self,
        wanted: BTreeMap<Device, Vec<Multiaddr>>,
        connections: impl Fn(&Device) -> usize,
        now: Instant,
    ) {
        for (device, target) in &mut self.targets {
            target.wanted = wanted.contains_key(device);
        }
        for (device, given) in wanted {
            if device == self.own {
                continue;
            }
            let is_new = !self.targets.contains_key(&device);
            let target = self.targets.entry(device).or_default();
            if is_new {
                target.connections = connections(&device);
                target.connected_at = (target.connections > 0).then_some(now);
            }
            target.wanted = true;
            let news = target.add(&device, &given, false);
            // The caller keeps them best first: the first one worked in an earlier run.
            target.best_worked |= is_new && !given.is_empty();
            target.reported = given;
            if (is_new || news) && target.is_idle() {
                target.attempts = 0;
                target.due = Some(now + yielding(&self.own, &device));
            }
        }
        self.forget_settled();
    }

    /// Which of the wanted are hosts.
    pub fn set_hosts(&mut self, hosts: &BTreeSet<Device>) {
        for (device, target) in &mut self.targets {
            target.is_host = hosts.contains(device);
        }
    }

    /// Dials a device once although it may not be wanted.
    pub fn request(&mut self, device: Device, addresses: &[Multiaddr], now: Instant) {
        if device == self.own {
            return;
        }
        let target = self.targets.entry(device).or_default();
        target.add(&device, addresses, true);
        target.asked = true;
        if target.is_idle() {
            target.due = Some(now);
        } else if target.connections == 0 {
            target.fresh = normal(&device, addresses);
        }
    }

    /// Addresses of a device became known: it told us, or mDNS did.
    pub fn learned(&mut self, device: Device, addresses: &[Multiaddr], now: Instant) {
        if let Some(target) = self.targets.get_mut(&device) {
            let mut news = normal(&device, addresses);
            news.retain(|address| !target.addresses.contains(address));
            if !news.is_empty() {
                target.add(&device, &news, false);
                target.hurry(news, now, yielding(&self.own, &device));
            }
        }
    }

    /// mDNS shows a device anew, perhaps at addresses that were known (it may be back).
    pub fn shown(&mut self, device: Device, addresses: &[Multiaddr], now: Instant) {
        if let Some(target) = self.targets.get_mut(&device) {
            target.add(&device, addresses, false);
            target.hurry(
                normal(&device, addresses),
                now,
                yielding(&self.own, &device),
            );
        }
    }

    /// Somebody else has heard of a device: it is up, and may be reachable now.
    pub fn heard_of(&mut self, device: Device, now: Instant) {
        if let Some(target) = self.targets.get_mut(&device) {
            target.hurry(target.addresses.clone(), now, yielding(&self.own, &device));
        }
    }

    /// The machine's addresses changed: whoever was unreachable may be reachable now.
    pub fn network_changed(&mut self, now: Instant) {
        for (device, target) in &mut self.targets {
            target.hurry(target.addresses.clone(), now, yielding(&self.own, device));
        }
    }

    /// The addresses of a device that was reached, if the caller does not have them like this yet.
    pub fn news(&mut self, device: &Device) -> Option<Vec<Multiaddr>> {
        let target = self.targets.get_mut(device)?;
        if target.addresses == target.reported {
            return None;
        }
        target.reported = target.addresses.clone();
        Some(target.addresses.clone())
    }

    /// A direct connection came up. `worked` is the address at which the device can be dialled, if the connection shows one.
    pub fn connected(&mut self, device: Device, worked: Option<&Multiaddr>, now: Instant) {
        let Some(target) = self.targets.get_mut(&device) else {
            return;
        };
        target.connections += 1;
        target.connected_at.get_or_insert(now);
        target.asked = false;
        target.due = None;
        target.fallback = None;
        target.fresh.clear();
        if let Some(address) = worked {
            target.promote(&device, address);
        }
    }

    /// A direct connection went; `remaining` are left.
    pub fn disconnected(&mut self, device: Device, remaining: usize, now: Instant) {
        let own = self.own;
        if let Some(target) = self.targets.get_mut(&device) {
            target.connections = remaining;
            if remaining == 0 {
                let lived = target
                    .connected_at
                    .take()
                    .map_or(Duration::ZERO, |since| now - since);
                if lived >= SETTLED {
                    target.attempts = 0;
                }
                target.due = Some(now + target.delay(&own));
                target.attempts = target.attempts.saturating_add(1);
            }
        }
        self.forget_settled();
    }

    /// One of our dials ended, by success or not. Returns whether that was the last one under way and the device is still
    /// not connected.
    pub fn settled(&mut self, device: Device, transport: Transport, now: Instant) -> bool {
        let own = self.own;
        let Some(target) = self.targets.get_mut(&device) else {
            return true;
        };
        let in_flight = &mut target.in_flight[transport as usize];
        *in_flight = in_flight.saturating_sub(1);
        if target.dials() == 0 {
            target.dialled.clear();
        }
        if target.connections > 0 {
            return false;
        }
        if let Some((at, _)) = &mut target.fallback {
            *at = now;
        }
        if target.wanted && target.due.is_none() {
            target.attempts = target.attempts.max(1);
            target.due = Some(now + target.delay(&own));
            target.attempts = target.attempts.saturating_add(1);
        }
        let over = target.is_idle() && target.fresh.is_empty();
        if over {
            target.asked = false;
            self.forget_settled();
        }
        over
    }

    /// The dials that are due now; each has to be followed by one [`Self::settled`].
    pub fn due(&mut self, now: Instant) -> Vec<Dial> {
        let mut dials = Vec::new();
        for (device, target) in &mut self.targets {
            if target.connections > 0 {
                continue;
            }
            let (mut fresh, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut target.fresh)
                .into_iter()
                .partition(is_preferred);
            if fresh.is_empty() {
                fresh = rest;
            } else if rest.iter().any(|address| !target.is_spare(address)) {
                let (_, waiting) = target
                    .fallback
                    .get_or_insert_with(|| (now + FALLBACK_DELAY, Vec::new()));
                waiting.extend(rest);
                waiting.truncate(MAX_ADDRESSES);
            }
            let mut next = Vec::new();
            if let Some((_, rest)) = target.fallback.take_if(|(at, _)| *at <= now) {
                next = rest;
            }
            if target.due.take_if(|due| *due <= now).is_some() && target.fallback.is_none() {
                let (first, rest) = target.in_order();
                next.extend(first);
                target.fallback = (!rest.is_empty()).then(|| (now + FALLBACK_DELAY, rest));
            }
            for transport in [Transport::Tcp, Transport::Quic] {
                let under_way = target.in_flight[transport as usize];
                let mut addresses = of_transport(&fresh, transport, under_way < MOST_IN_FLIGHT);
                addresses.extend(of_transport(&next, transport, under_way == 0));
                if !addresses.is_empty() {
                    target.in_flight[transport as usize] += 1;
                    target.dialled.extend(addresses.iter().cloned());
                    dials.push(Dial {
                        device: *device,
                        transport,
                        addresses,
                    });
                }
            }
        }
        dials
    }

    /// When [`Self::due`] will have something next.
    pub fn next(&self) -> Option<Instant> {
        let disconnected = self
            .targets
            .values()
            .filter(|target| target.connections == 0);
        disconnected
            .flat_map(|target| {
                let due = target.due.filter(|_| !target.addresses.is_empty());
                due.into_iter()
                    .chain(target.fallback.as_ref().map(|(at, _)| *at))
            })
            .min()
    }

    /// Devices to which a connection is under way or planned within a moment.
    pub fn expected(&self, now: Instant) -> BTreeSet<Device> {
        let soon = |target: &&Target| {
            target.dials() > 0
                || target.fallback.is_some()
                || target
                    .due
                    .is_some_and(|due| due <= now + SOON && !target.addresses.is_empty())
        };
        self.targets
            .iter()
            .filter(|(_, target)| soon(target))
            .map(|(device, _)| *device)
            .collect()
    }

    /// The known addresses of a device, best first.
    pub fn addresses(&self, device: &Device) -> Vec<Multiaddr> {
        self.targets
            .get(device)
            .map(|target| target.addresses.clone())
            .unwrap_or_default()
    }

    /// Gives up a device that was asked for once.
    pub fn forget(&mut self, device: &Device) {
        if let Some(target) = self.targets.get_mut(device) {
            target.asked = false;
        }
        self.forget_settled();
    }

    /// Stops everything: nothing is wanted any more, nothing is due.
    pub fn clear(&mut self) {
        self.targets.clear();
    }

    fn forget_settled(&mut self) {
        self.targets
            .retain(|_, target| target.wanted || target.asked || !target.is_idle());
    }
}

impl Target {
    fn dials(&self) -> usize {
        self.in_flight.iter().sum()
    }

    /// Starts over with the backoff and dials as soon as possible, past what is under way.
    /// Addresses that are being dialled are left to that dial.
    fn hurry(&mut self, mut addresses: Vec<Multiaddr>, now: Instant, yielding: Duration) {
        if self.connections > 0 {
            return;
        }
        self.attempts = 0;
        if self.is_idle() {
            let at = now + yielding;
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        } else {
            let waiting = self.fallback.iter().flat_map(|(_, rest)| rest);
            let known: BTreeSet<Multiaddr> = self.dialled.iter().chain(waiting).cloned().collect();
            addresses.retain(|address| !known.contains(address));
            self.fresh = addresses;
        }
    }

    /// Until the next dial, by how many there were.
    fn delay(&self, own: &Device) -> Duration {
        let most = match self.is_host {
            true => MAX_HOST_BACKOFF,
            false => MAX_BACKOFF,
        };
        delay(self.attempts, most, own)
    }

    fn is_idle(&self) -> bool {
        self.connections == 0 && self.dials() == 0 && self.fallback.is_none()
    }

    /// Adds addresses behind (or before) the known ones; returns whether there was a new one.
    fn add(&mut self, device: &Device, addresses: &[Multiaddr], before: bool) -> bool {
        let mut news = normal(device, addresses);
        news.retain(|address| !self.addresses.contains(address));
        let any = !news.is_empty();
        if before || self.addresses.len() + news.len() > MAX_ADDRESSES {
            // New ones displace the worst of the old, and never the best one, which worked last.
            let rest = self
                .addresses
                .split_off(self.addresses.len().min(usize::from(!before)));
            self.addresses.extend(news);
            self.addresses.extend(rest);
            self.addresses.truncate(MAX_ADDRESSES);
        } else {
            self.addresses.extend(news);
        }
        any
    }

    /// Puts the address that worked in front.
    fn promote(&mut self, device: &Device, address: &Multiaddr) {
        if let Some(address) = normalised(address, device) {
            self.addresses.retain(|known| *known != address);
            self.addresses.insert(0, address);
            self.addresses.truncate(MAX_ADDRESSES);
            self.best_worked = true;
        }
    }

    /// Whether an address is left out of a first round: QUIC near by, where TCP goes to the same machine. A TCP port that
    /// is refused means that nobody is there, and a QUIC dial to nobody would hang until the device comes, and then
    /// complete beside the connection that is really wanted.
    fn is_spare(&self, address: &Multiaddr) -> bool {
        let Some(place) = Place::of(address) else {
            return false;
        };
        let tcp_beside = |other: &Multiaddr| {
            Place::of(other)
                .is_some_and(|other| other.transport == Transport::Tcp && other.ip == place.ip)
        };
        self.attempts == 0
            && place.transport == Transport::Quic
            && place.is_near()
            && self.addresses.iter().any(tcp_beside)
    }

    /// All addresses: those to dial first, and those to dial a little later.
    fn in_order(&self) -> (Vec<Multiaddr>, Vec<Multiaddr>) {
        if let [best, rest @ ..] = &self.addresses[..]
            && self.best_worked
            && is_preferred(best)
        {
            let rest = rest.iter().filter(|address| !self.is_spare(address));
            return (vec![best.clone()], rest.cloned().collect());
        }
        let worth = self
            .addresses
            .iter()
            .filter(|address| !self.is_spare(address));
        let (first, rest): (Vec<_>, Vec<_>) = worth.cloned().partition(is_preferred);
        if first.is_empty() {
            (rest, first)
        } else {
            (first, rest)
        }
    }
}

fn of_transport(addresses: &[Multiaddr], transport: Transport, may: bool) -> Vec<Multiaddr> {
    let is_of_it = |address: &&Multiaddr| {
        may && Place::of(address).is_some_and(|place| place.transport == transport)
    };
    addresses.iter().filter(is_of_it).cloned().collect()
}

fn normal(device: &Device, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let mut kept = Vec::new();
    for address in addresses
        .iter()
        .filter_map(|address| normalised(address, device))
        .take(MAX_ADDRESSES)
    {
        if !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

/// The delay at a position of the backoff sequence, stretched by up to a fifth that depends on our key, so that two devices
/// that lost each other do not dial in lockstep.
fn delay(attempts: u32, most: Duration, own: &Device) -> Duration {
    let base = match attempts {
        0 => REDIAL_DELAY,
        attempts => backoff(attempts, FIRST_BACKOFF, most),
    };
    base + base.mul_f64(f64::from(own[31]) / 255.0 / 5.0)
}

/// The delay after a number of failures, at least one: twice as long each time.
pub(super) fn backoff(failures: u32, first: Duration, most: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(most)
}

fn is_preferred(address: &Multiaddr) -> bool {
    Place::of(address).is_some_and(|place| place.is_preferred())
}

/// How long this device lets the other's dial go first.
pub(super) fn yielding(own: &Device, other: &Device) -> Duration {
    if own < other {
        Duration::ZERO
    } else {
        YIELD_DELAY
    }
}

#[cfg(test)]
#[path = "dialing_tests.rs"]
mod tests;
