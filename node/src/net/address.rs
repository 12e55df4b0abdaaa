//! Devices and where they are: the two directions between a device key and a libp2p [`PeerId`], and what this node thinks
//! of an address (is it one we can dial, over which transport, is it near).

use std::net::{IpAddr, Ipv6Addr};

use libp2p::{
    Multiaddr, PeerId,
    identity::{PublicKey, ed25519},
    multiaddr::Protocol,
};

/// A device: its Ed25519 public key. Its libp2p [`PeerId`] is that key inline.
pub type Device = [u8; 32];

/// Most addresses that are kept of one device. A laptop with Wi-Fi, cable, a VPN and IPv6 has about ten for the two
/// transports together.
pub const MAX_ADDRESSES: usize = 16;

/// How a connection is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP with TLS or Noise, and yamux.
    Tcp,
    /// QUIC.
    Quic,
}

/// The libp2p name of a device; `None` if the bytes are no point of the curve.
pub fn peer_of(device: &Device) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(device).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The device behind a libp2p name; `None` if its key is not Ed25519 or is only given by its hash.
pub fn device_of(peer: &PeerId) -> Option<Device> {
    /// Multihash code of "the bytes themselves".
    const IDENTITY: u64 = 0;
    let multihash = peer.as_ref();
    if multihash.code() != IDENTITY {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    let device = key.try_into_ed25519().ok()?.to_bytes();
    // One device, one name: another spelling of the same key is refused.
    (peer_of(&device).as_ref() == Some(peer)).then_some(device)
}

/// For limits by address: an IPv4 address, or the /64 that a customer of IPv6 is given at least.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// The address of the machine at the other end, where the multiaddress begins with one.
pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// What an address of the shape `/ip/…/tcp/…` or `/ip/…/udp/…/quic-v1` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub ip: IpAddr,
    pub port: u16,
    pub transport: Transport,
}

impl Place {
    /// Reads an address, with or without a `/p2p/…` at its end; `None` for every other shape.
    pub fn of(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let ip = match parts.next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip),
            _ => return None,
        };
        let (port, transport) = match parts.next()? {
            Protocol::Tcp(port) => (port, Transport::Tcp),
            Protocol::Udp(port) if parts.next()? == Protocol::QuicV1 => (port, Transport::Quic),
            _ => return None,
        };
        match (parts.next(), parts.next()) {
            (None, _) | (Some(Protocol::P2p(_)), None) => Some(Self {
                ip,
                port,
                transport,
            }),
            _ => None,
        }
    }

    /// The address again, without a device.
    pub fn address(&self) -> Multiaddr {
        let address = Multiaddr::empty().with(match self.ip {
            IpAddr::V4(ip) => Protocol::Ip4(ip),
            IpAddr::V6(ip) => Protocol::Ip6(ip),
        });
        match self.transport {
            Transport::Tcp => address.with(Protocol::Tcp(self.port)),
            Transport::Quic => address
                .with(Protocol::Udp(self.port))
                .with(Protocol::QuicV1),
        }
    }

    /// Whether the other end is on this machine or (most likely) on this network.
    pub fn is_near(&self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
                None => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
            },
        }
    }

    /// TCP near by, where bulk is cheaper over it (half the CPU of QUIC, measured), and QUIC elsewhere, where it reaches
    /// further and recovers better.
    pub fn is_preferred(&self) -> bool {
        self.is_near() == (self.transport == Transport::Tcp)
    }

    /// Whether it makes sense to dial. Link-local IPv6 addresses need a zone, which an address from elsewhere cannot name.
    fn is_dialable(&self) -> bool {
        let zoned = matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        self.port != 0
            && !self.ip.is_unspecified()
            && !self.ip.is_multicast()
            && !zoned
            && !is_broadcast(&self.ip)
    }
}

fn is_broadcast(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// The form in which addresses of `device` are kept and compared: dialable, without `/p2p`. `None` if it is of another
/// shape, cannot be dialled, or names another device.
pub(super) fn normalised(address: &Multiaddr, device: &Device) -> Option<Multiaddr> {
    if let Some(Protocol::P2p(peer)) = address.iter().last()
        && device_of(&peer).as_ref() != Some(device)
    {
        return None;
    }
    let place = Place::of(address)?;
    place.is_dialable().then(|| place.address())
}

/// The host in the middle of a relayed path, `…/p2p/HOST/p2p-circuit…`, and where it is, as far as the address says so;
/// `None` for every direct address.
pub(super) fn through(address: &Multiaddr) -> Option<(Device, Multiaddr)> {
    let mut first = Multiaddr::empty();
    let mut host = None;
    for part in address {
        match part {
            Protocol::P2p(peer) => host = device_of(&peer),
            Protocol::P2pCircuit => return host.map(|host| (host, first)),
            part => first.push(part),
        }
    }
    None
}

/// The address of `device` through a host that is connected at `first`; `None` if either key is none.
pub(super) fn circuit_address(
    first: &Multiaddr,
    host: &Device,
    device: &Device,
) -> Option<Multiaddr> {
    let circuit = listening_address(first, host)?;
    Some(circuit.with(Protocol::P2p(peer_of(device)?)))
}

/// The address with which this node asks a host to take connections for it.
pub(super) fn listening_address(first: &Multiaddr, host: &Device) -> Option<Multiaddr> {
    let first = Place::of(first)?.address();
    Some(
        first
            .with(Protocol::P2p(peer_of(host)?))
            .with(Protocol::P2pCircuit),
    )
}

/// Whether an address at which this node listens may be told to others at all; `same_machine` includes loopback.
pub(super) fn is_tellable(address: &Multiaddr, same_machine: bool) -> bool {
    Place::of(address)
        .is_some_and(|place| place.is_dialable() && (same_machine || !place.ip.is_loopback()))
}

/// Order in which own addresses are shown: those that others can reach first, then by text.
pub(super) fn shown_order(address: &Multiaddr) -> (bool, bool, String) {
    let place = Place::of(address);
    let loopback = place.is_none_or(|place| place.ip.is_loopback());
    let six =
        place.is_some_and(|place| matches!(place.ip, IpAddr::V6(ip) if ip != Ipv6Addr::LOCALHOST));
    (loopback, six, address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(seed: u8) -> Device {
        let pair = libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).expect("seed");
        device_of(&pair.public().to_peer_id()).expect("ed25519")
    }

    fn at(text: &str) -> Multiaddr {
        text.parse().expect("address")
    }

    #[test]
    fn a_device_and_its_peer_id_name_each_other() {
        let device = device(1);
        assert_eq!(device_of(&peer_of(&device).expect("a key")), Some(device));
        assert_eq!(
            peer_of(&device).expect("a key").to_string(),
            "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"
        );
    }

    #[test]
    fn other_kinds_of_peer_ids_are_no_devices() {
        assert_eq!(device_of(&PeerId::random()), None);
        let hashed: PeerId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
            .parse()
            .expect("peer id");
        assert_eq!(device_of(&hashed), None);
    }

    #[test]
    fn addresses_are_kept_in_one_form_and_only_if_dialable() {
        let device = device(2);
        let mine = peer_of(&device).expect("a key");
        let other = peer_of(&super::tests::device(3)).expect("a key");
        assert_eq!(
            normalised(&at(&format!("/ip4/10.0.0.1/tcp/5/p2p/{mine}")), &device),
            Some(at("/ip4/10.0.0.1/tcp/5"))
        );
        assert_eq!(
            normalised(&at("/ip6/2001:db8::1/udp/5/quic-v1"), &device),
            Some(at("/ip6/2001:db8::1/udp/5/quic-v1"))
        );
        for refused in [
            format!("/ip4/10.0.0.1/tcp/5/p2p/{other}"),
            "/ip4/10.0.0.1/tcp/0".into(),
            "/ip4/0.0.0.0/tcp/5".into(),
            "/ip4/224.0.0.1/tcp/5".into(),
            "/ip6/fe80::1/tcp/5".into(),
            "/ip4/10.0.0.1/udp/5".into(),
            "/ip4/10.0.0.1/tcp/5/ws".into(),
            "/dns4/example.org/tcp/5".into(),
        ] {
            assert_eq!(normalised(&at(&refused), &device), None, "{refused}");
        }
    }

    #[test]
    fn a_relayed_address_names_its_host_and_a_direct_one_none() {
        let first = at("/ip4/203.0.113.5/udp/5/quic-v1");
        let (host, other) = (device(2), device(3));
        let circuit = circuit_address(&first, &host, &other).expect("keys");
        assert_eq!(through(&circuit), Some((host, first.clone())));
        // As the accepting side sees it.
        let local = listening_address(&first, &host).expect("a key");
        assert_eq!(through(&local), Some((host, first.clone())));
        let peer = peer_of(&host).expect("a key");
        assert_eq!(through(&first.with(Protocol::P2p(peer))), None);
        assert_eq!(through(&at("/p2p-circuit")), None);
        assert_eq!(normalised(&circuit, &other), None);
    }

    #[test]
    fn tcp_is_preferred_near_by_and_quic_elsewhere() {
        for (address, preferred) in [
            ("/ip4/192.168.1.4/tcp/5", true),
            ("/ip4/192.168.1.4/udp/5/quic-v1", false),
            ("/ip4/127.0.0.1/tcp/5", true),
            ("/ip6/fd00::1/tcp/5", true),
            ("/ip4/203.0.113.5/tcp/5", false),
            ("/ip6/2001:db8::1/udp/5/quic-v1", true),
        ] {
            assert_eq!(
                Place::of(&at(address)).expect("shape").is_preferred(),
                preferred,
                "{address}"
            );
        }
    }
}
