//! Where this node listens: the wanted port if it is free, one of its neighbours otherwise, and any port at last. TCP and
//! QUIC have one number wherever that can be, for firewalls and for people who type it.
//!
//! libp2p's TCP listener sets `SO_REUSEPORT`: the listeners of two programs of one person share a port without an error,
//! and the kernel hands connections to either. So a port is first tried with a socket that does not share, and UDP, whose
//! sockets are never shared, is bound before TCP and decides between two nodes that start at the same moment.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use libp2p::{
    Multiaddr,
    core::transport::ListenerId,
    swarm::{NetworkBehaviour, Swarm},
};

use super::{
    address::{Place, Transport},
    limits::PORTS_TRIED,
    reasons,
};

/// All interfaces, TCP and QUIC, IPv4 and IPv6, on `port` (0: any).
pub(super) fn everywhere(port: u16) -> Vec<Multiaddr> {
    let mut addresses = Vec::with_capacity(4);
    for ip in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
        for transport in [Transport::Tcp, Transport::Quic] {
            addresses.push(
                Place {
                    ip,
                    port,
                    transport,
                }
                .address(),
            );
        }
    }
    addresses
}

/// Free numbers that are tried before TCP and QUIC get different ones.
const FREE_PORTS_TRIED: usize = 8;

/// Starts listening on `wanted`, all of it shifted to other ports if one of its ports is taken. Addresses that this machine
/// cannot listen on (no IPv6) are left out; an error tells the last reason if nothing is left.
pub(super) fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    wanted: &[Multiaddr],
) -> Result<HashSet<ListenerId>, String> {
    let mut places = Vec::new();
    for address in wanted {
        places.push(
            Place::of(address)
                .ok_or_else(|| format!("{address} is of no kind that coffer listens on"))?,
        );
    }
    // QUIC first: it decides a race.
    places.sort_by_key(|place| place.transport != Transport::Quic);
    let any = places.iter().all(|place| place.port == 0);
    for shift in 0..if any { 0 } else { PORTS_TRIED } {
        let Some(shifted) = places
            .iter()
            .map(|place| shifted(place, shift))
            .collect::<Option<Vec<_>>>()
        else {
            break;
        };
        if shifted.iter().any(is_taken) {
            continue;
        }
        match start(swarm, &shifted) {
            Outcome::Listening(ids) => return Ok(ids),
            Outcome::LostRace => {}
            Outcome::Impossible(reason) => return Err(reason),
        }
    }
    let on = |port| -> Vec<Place> {
        places
            .iter()
            .map(|place| Place { port, ..*place })
            .collect()
    };
    for _ in 0..FREE_PORTS_TRIED {
        let Some(port) = places.iter().find_map(free_port) else {
            break;
        };
        let same = on(port);
        if same.iter().any(is_taken) {
            continue;
        }
        if let Outcome::Listening(ids) = start(swarm, &same) {
            return Ok(ids);
        }
    }
    match start(swarm, &on(0)) {
        Outcome::Listening(ids) => Ok(ids),
        Outcome::LostRace => Err("no port is free".into()),
        Outcome::Impossible(reason) => Err(reason),
    }
}

/// A number that the system finds free at this place; others may take it at any moment.
fn free_port(place: &Place) -> Option<u16> {
    let at = SocketAddr::new(place.ip, 0);
    let found = match place.transport {
        Transport::Tcp => TcpListener::bind(at).and_then(|socket| socket.local_addr()),
        Transport::Quic => UdpSocket::bind(at).and_then(|socket| socket.local_addr()),
    };
    found.ok().map(|address| address.port())
}

enum Outcome {
    Listening(HashSet<ListenerId>),
    LostRace,
    Impossible(String),
}

fn start<B: NetworkBehaviour>(swarm: &mut Swarm<B>, places: &[Place]) -> Outcome {
    let mut ids = HashSet::new();
    let mut reason = "no address was given".to_owned();
    for place in places {
        match swarm.listen_on(place.address()) {
            Ok(id) => {
                ids.insert(id);
            }
            Err(error) => {
                if place.port != 0 && is_taken(place) {
                    for id in ids {
                        swarm.remove_listener(id);
                    }
                    return Outcome::LostRace;
                }
                tracing::debug!(address = %place.address(), %error, "cannot listen here");
                reason = reasons::not_listening(place, bind(place).err());
            }
        }
    }
    if ids.is_empty() {
        Outcome::Impossible(reason)
    } else {
        Outcome::Listening(ids)
    }
}

fn shifted(place: &Place, shift: u16) -> Option<Place> {
    let port = if place.port == 0 {
        0
    } else {
        place.port.checked_add(shift)?
    };
    Some(Place { port, ..*place })
}

/// Whether another socket holds this port. Other errors mean that the address is unusable, which is not the port's fault.
fn is_taken(place: &Place) -> bool {
    if place.port == 0 {
        return false;
    }
    matches!(bind(place), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}

/// Binds for an instant, with a socket that does not share.
fn bind(place: &Place) -> io::Result<()> {
    let at = SocketAddr::new(place.ip, place.port);
    match place.transport {
        Transport::Tcp => TcpListener::bind(at).map(drop),
        Transport::Quic => UdpSocket::bind(at).map(drop),
    }
}
