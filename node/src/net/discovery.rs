//! What mDNS shows: who says to be where on the local network.
//!
//! Anyone on the network can say anything here. It is bounded, kept apart from what connections have proved, and only leads
//! to dials, whose other end has to prove that it is the device.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, PeerId, mdns};

use super::{
    address::{Device, MAX_ADDRESSES, device_of, normalised},
    limits::DISCOVERED,
    roster::Roster,
};

/// Brings the roster's table of discovered devices up to date; returns those that are shown anew, and where.
pub(super) fn take_in(roster: &Roster, event: mdns::Event) -> BTreeMap<Device, Vec<Multiaddr>> {
    match event {
        mdns::Event::Discovered(list) => {
            let news = by_device(list, &roster.own());
            roster.with_discovered(|discovered| {
                for (device, addresses) in &news {
                    if discovered.len() < DISCOVERED || discovered.contains_key(device) {
                        let known = discovered.entry(*device).or_default();
                        for address in addresses {
                            if known.len() < MAX_ADDRESSES {
                                known.insert(address.clone());
                            }
                        }
                    }
                }
            });
            news
        }
        mdns::Event::Expired(list) => {
            let past = by_device(list, &roster.own());
            roster.with_discovered(|discovered| {
                for (device, addresses) in &past {
                    if let Some(known) = discovered.get_mut(device) {
                        known.retain(|address| !addresses.contains(address));
                    }
                }
                discovered.retain(|_, known| !known.is_empty());
            });
            BTreeMap::new()
        }
    }
}

fn by_device(list: Vec<(PeerId, Multiaddr)>, own: &Device) -> BTreeMap<Device, Vec<Multiaddr>> {
    let mut by_device: BTreeMap<Device, Vec<Multiaddr>> = BTreeMap::new();
    for (peer, address) in list {
        if let Some(device) = device_of(&peer).filter(|device| device != own)
            && let Some(address) = normalised(&address, &device)
        {
            by_device.entry(device).or_default().push(address);
        }
    }
    by_device
}

#[cfg(test)]
mod tests {
    use super::super::address::peer_of;
    use super::*;

    #[test]
    fn what_is_shown_is_kept_until_it_expires_and_never_without_bound() {
        let key = |seed| libp2p::identity::Keypair::ed25519_from_bytes([seed; 32]).expect("a seed");
        let device = device_of(&key(1).public().to_peer_id()).expect("a device");
        let peer = peer_of(&device).expect("a peer");
        let roster = Roster::new([0; 32]);
        let at = |port: u16| -> Multiaddr {
            format!("/ip4/192.168.1.2/tcp/{port}/p2p/{peer}")
                .parse()
                .expect("address")
        };
        let news = take_in(
            &roster,
            mdns::Event::Discovered(vec![(peer, at(1)), (PeerId::random(), at(2))]),
        );
        assert_eq!(news.keys().collect::<Vec<_>>(), [&device]);
        assert_eq!(roster.discovered()[&device].len(), 1);
        take_in(
            &roster,
            mdns::Event::Discovered((1..100).map(|port| (peer, at(port))).collect()),
        );
        assert_eq!(roster.discovered()[&device].len(), MAX_ADDRESSES);
        take_in(
            &roster,
            mdns::Event::Expired((1..100).map(|port| (peer, at(port))).collect()),
        );
        assert!(roster.discovered().is_empty());
    }
}
