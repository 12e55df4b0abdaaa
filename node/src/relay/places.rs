//! Where a host is reached: what its person wrote, or what the machine sees, as addresses for invitations.

use std::net::IpAddr;

use libp2p::multiaddr::Protocol;

use crate::net::Multiaddr;
pub use crate::net::{ip_of, network_of};

/// Reads `HOST`, `HOST:PORT`, `ADDRESS`, `ADDRESS:PORT`, `[V6]:PORT` or a multiaddress; TCP and QUIC for all but the
/// last. Empty where it is none of them.
pub fn read(text: &str, default_port: u16) -> Vec<Multiaddr> {
    if text.starts_with('/') {
        return text.parse().ok().into_iter().collect();
    }
    let Some((host, port)) = split(text, default_port) else {
        return Vec::new();
    };
    let unbracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let first = match unbracketed.parse() {
        Ok(IpAddr::V4(ip)) => Protocol::Ip4(ip),
        Ok(IpAddr::V6(ip)) => Protocol::Ip6(ip),
        Err(_) if is_name(host) => Protocol::Dns(host.to_owned().into()),
        Err(_) => return Vec::new(),
    };
    both(first, port)
}

/// TCP and QUIC at one place.
fn both(first: Protocol<'_>, port: u16) -> Vec<Multiaddr> {
    let at = Multiaddr::empty().with(first);
    vec![
        at.clone().with(Protocol::Tcp(port)),
        at.with(Protocol::Udp(port)).with(Protocol::QuicV1),
    ]
}

/// Host and port; an address of version 6 without brackets has no port behind it.
fn split(text: &str, default_port: u16) -> Option<(&str, u16)> {
    if text.parse::<IpAddr>().is_ok() || text.ends_with(']') {
        return Some((text, default_port));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Some((host, port.parse().ok().filter(|port| *port > 0)?)),
        None => Some((text, default_port)),
    }
}

/// Longest name, by RFC 1035.
const MAX_NAME: usize = 253;

/// Whether it can be the name of a machine, by RFC 1123.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= MAX_NAME && text.trim_end_matches('.').split('.').all(is_label)
}

/// Of the addresses that are listened on, those that another machine could reach; those of this machine itself where
/// there are no others. The ones of the internet first.
pub fn reachable(listening: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let (mut far, mut near, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for address in listening {
        let ip = address.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
            _ => None,
        });
        match ip {
            Some(ip) if ip.is_loopback() => own.push(address),
            Some(IpAddr::V4(ip)) if ip.is_link_local() => {}
            Some(IpAddr::V6(ip)) if ip.is_unicast_link_local() => {}
            Some(IpAddr::V4(ip)) if ip.is_private() => near.push(address),
            Some(IpAddr::V6(ip)) if ip.is_unique_local() => near.push(address),
            _ => far.push(address),
        }
    }
    far.append(&mut near);
    if far.is_empty() { own } else { far }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<String> {
        read(text, 7).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn places_are_read_as_people_write_them() {
        for (text, tcp) in [
            ("relay.example.org", "/dns/relay.example.org/tcp/7"),
            ("relay.example.org:80", "/dns/relay.example.org/tcp/80"),
            ("203.0.113.7", "/ip4/203.0.113.7/tcp/7"),
            ("203.0.113.7:80", "/ip4/203.0.113.7/tcp/80"),
            ("2001:db8::7", "/ip6/2001:db8::7/tcp/7"),
            ("[2001:db8::7]", "/ip6/2001:db8::7/tcp/7"),
            ("[2001:db8::7]:80", "/ip6/2001:db8::7/tcp/80"),
        ] {
            let read = texts(text);
            assert_eq!(read[0], tcp);
            assert!(read[1].ends_with("/quic-v1"), "{read:?}");
        }
        assert_eq!(texts("/ip4/203.0.113.7/tcp/9"), ["/ip4/203.0.113.7/tcp/9"]);
        for text in [
            "",
            "a b",
            "a..b",
            "-a",
            "host:0",
            "host:99999",
            "/nonsense/1",
            "http://a",
        ] {
            assert_eq!(texts(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn addresses_of_this_machine_are_told_only_when_there_are_no_others() {
        let parse = |text: &str| text.parse::<Multiaddr>().unwrap();
        let own = parse("/ip4/127.0.0.1/tcp/1");
        let near = parse("/ip4/192.168.1.2/tcp/1");
        let far = parse("/ip4/198.51.100.1/tcp/1");
        assert_eq!(
            reachable(vec![own.clone(), near.clone(), far.clone()]),
            [far, near]
        );
        assert_eq!(reachable(vec![own.clone()]), [own]);
    }

    #[test]
    fn neighbours_of_one_customer_share_a_limit() {
        let of = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::4"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_eq!(of("::ffff:203.0.113.7"), of("203.0.113.7"));
        assert_ne!(of("203.0.113.7"), of("203.0.113.8"));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_calmly(text in "\\PC{0,40}") {
            let _ = read(&text, 1);
        }
    }
}
