//! How other devices and hosts are reached, and addresses as people write them.

use std::time::UNIX_EPOCH;

use coffer_protocol::identity::DeviceId;

use super::super::Node;
use super::super::running::Running;
use crate::control::Reach;
use crate::net::{Multiaddr, Transport};

/// How another device or a host is reached; `addresses` are where it may be, should it not be connected.
pub fn reach(
    node: &Node,
    device: DeviceId,
    rate: crate::blobs::Rate,
    addresses: Vec<String>,
) -> Reach {
    let connections = node.net().map(|net| net.connections());
    // Of several, a direct one is in use.
    let connection = connections
        .into_iter()
        .flatten()
        .filter(|connection| connection.device == device.0)
        .min_by_key(|connection| connection.relayed.is_some());
    match connection {
        Some(connection) => Reach::Connected {
            address: show_address(&connection.address),
            transport: transport(connection.transport).into(),
            relayed: connection.relayed.is_some(),
            through: connection.relayed.map(|host| DeviceId(host).to_string()),
            since_ms: connection
                .since
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            in_per_s: rate.received_per_second,
            out_per_s: rate.sent_per_second,
            bytes_in: connection.bytes_in,
            bytes_out: connection.bytes_out,
        },
        None if addresses.is_empty() => Reach::Unknown,
        None => Reach::Trying {
            addresses,
            last_error: None,
        },
    }
}

/// Where a device was reached last.
pub(super) fn last_addresses(running: &Running, device: DeviceId) -> Vec<String> {
    let addresses = super::super::founding::addresses(running.vault.database()).unwrap_or_default();
    addresses
        .into_iter()
        .filter(|(known, _)| *known == device)
        .flat_map(|(_, list)| list)
        .filter_map(|text| text.parse().ok().map(|address| show_address(&address)))
        .collect()
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Quic => "quic",
    }
}

/// An address as people write them, `HOST:PORT/transport`, where it is of such a kind.
pub fn show_address(address: &Multiaddr) -> String {
    let text = address.to_string();
    let parts: Vec<&str> = text.split('/').skip(1).collect();
    match parts[..] {
        ["ip4" | "dns" | "dns4" | "dns6", host, "tcp", port, ..] => format!("{host}:{port}/tcp"),
        ["ip6", host, "tcp", port, ..] => format!("[{host}]:{port}/tcp"),
        ["ip4" | "dns" | "dns4" | "dns6", host, "udp", port, ..] => format!("{host}:{port}/quic"),
        ["ip6", host, "udp", port, ..] => format!("[{host}]:{port}/quic"),
        _ => text,
    }
}
