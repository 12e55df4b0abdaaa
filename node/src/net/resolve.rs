//! Names of machines in addresses: `/dns/NAME/…` becomes `/ip4/…` and `/ip6/…` before anything is dialled.
//!
//! libp2p is built without a resolver of its own: the system's knows what the machine's person set. What it says is not
//! kept: a name is asked for again before each dial, as the address behind it may change from day to day.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Most names that are asked for at a time: a host has one, or one for each of two networks.
const MAX_NAMES: usize = 4;
/// Most addresses that are taken of one name.
const MAX_PER_NAME: usize = 8;
/// How long the system may take: it asks several servers, some of which may be out of reach.
const WITHIN: Duration = Duration::from_secs(5);

/// Addresses that can be dialled, and names that nobody knows now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// In the order of those that were given, each once.
    pub addresses: Vec<Multiaddr>,
    /// Each with what the system said.
    pub unknown: Vec<(String, String)>,
}

impl Resolved {
    /// What to add to a message that nothing was reached; empty where every name is known.
    pub fn complaint(&self) -> String {
        let unknown = self.unknown.iter();
        unknown
            .map(|(name, why)| format!("; nobody knows \"{name}\" now ({why})"))
            .collect()
    }
}

/// Whether an address has a name in it.
pub fn has_name(address: &Multiaddr) -> bool {
    name_of(address).is_some()
}

/// The name that an address begins with, and which kinds of addresses it may stand for.
fn name_of(address: &Multiaddr) -> Option<(String, [bool; 2])> {
    match address.iter().next()? {
        Protocol::Dns(name) => Some((name.into_owned(), [true, true])),
        Protocol::Dns4(name) => Some((name.into_owned(), [true, false])),
        Protocol::Dns6(name) => Some((name.into_owned(), [false, true])),
        _ => None,
    }
}

/// Puts addresses in the place of names.
pub async fn resolve(addresses: &[Multiaddr]) -> Resolved {
    let names: BTreeSet<String> = addresses
        .iter()
        .filter_map(|address| name_of(address).map(|(name, _)| name))
        .collect();
    let asked = names.into_iter().take(MAX_NAMES).map(|name| async {
        let found = look_up(&name).await;
        (name, found)
    });
    place(addresses, &join_all(asked).await.into_iter().collect())
}

async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    // The port is not asked about.
    match tokio::time::timeout(WITHIN, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// The same with answers.
fn place(
    addresses: &[Multiaddr],
    known: &BTreeMap<String, Result<Vec<IpAddr>, String>>,
) -> Resolved {
    let mut resolved = Resolved::default();
    let mut add = |address: Multiaddr| {
        if !resolved.addresses.contains(&address) {
            resolved.addresses.push(address);
        }
    };
    let mut unknown = BTreeMap::new();
    for address in addresses {
        let Some((name, [v4, v6])) = name_of(address) else {
            add(address.clone());
            continue;
        };
        let found = match known.get(&name) {
            Some(Ok(found)) => found,
            Some(Err(why)) => {
                unknown.insert(name, why.clone());
                continue;
            }
            None => {
                unknown.insert(name, format!("more than {MAX_NAMES} names"));
                continue;
            }
        };
        let fitting = found.iter().map(IpAddr::to_canonical);
        let fitting = fitting.filter(|ip| if ip.is_ipv4() { v4 } else { v6 });
        let mut none = true;
        for ip in fitting.take(MAX_PER_NAME) {
            none = false;
            let first = Multiaddr::empty().with(ip.into());
            add(address.iter().skip(1).fold(first, Multiaddr::with));
        }
        if none {
            unknown.insert(name, "it has no address of this kind".to_owned());
        }
    }
    resolved.unknown = unknown.into_iter().collect();
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn placed(addresses: &[&str], known: &[(&str, &[&str])]) -> Resolved {
        let addresses: Vec<Multiaddr> = addresses.iter().map(|text| at(text)).collect();
        let known = known.iter().map(|(name, found)| {
            let found = found.iter().map(|text| text.parse().unwrap()).collect();
            ((*name).to_owned(), Ok(found))
        });
        place(&addresses, &known.collect())
    }

    #[test]
    fn names_are_replaced_by_the_addresses_behind_them() {
        let found = placed(
            &[
                "/ip4/192.0.2.1/tcp/1",
                "/dns/a.example/tcp/2",
                "/dns/a.example/udp/2/quic-v1",
                "/dns4/a.example/tcp/2",
                "/dns6/a.example/tcp/3",
            ],
            &[("a.example", &["192.0.2.9", "2001:db8::9"])],
        );
        let expected = [
            "/ip4/192.0.2.1/tcp/1",
            "/ip4/192.0.2.9/tcp/2",
            "/ip6/2001:db8::9/tcp/2",
            "/ip4/192.0.2.9/udp/2/quic-v1",
            "/ip6/2001:db8::9/udp/2/quic-v1",
            "/ip6/2001:db8::9/tcp/3",
        ];
        assert_eq!(found.addresses, expected.map(at));
        assert_eq!(found.complaint(), "");
    }

    #[test]
    fn a_name_that_nobody_knows_is_named_and_hinders_no_other_address() {
        let found = placed(
            &[
                "/dns/nowhere.example/tcp/1",
                "/dns6/old.example/tcp/1",
                "/ip4/192.0.2.1/tcp/1",
            ],
            &[("old.example", &["192.0.2.9"])],
        );
        assert_eq!(found.addresses, [at("/ip4/192.0.2.1/tcp/1")]);
        let said = found.complaint();
        assert!(
            said.contains("\"nowhere.example\"") && said.contains("\"old.example\""),
            "{said}"
        );
    }

    #[test]
    fn what_a_name_stands_for_is_bounded() {
        let many: Vec<String> = (0..200).map(|n| format!("192.0.2.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let found = placed(&["/dns/a.example/tcp/2"], &[("a.example", &many)]);
        assert_eq!(found.addresses.len(), MAX_PER_NAME);
    }

    #[tokio::test]
    async fn this_machine_knows_itself() {
        let found = resolve(&[at("/dns/localhost/tcp/7")]).await;
        assert!(!found.addresses.is_empty(), "{found:?}");
        assert!(found.addresses.iter().all(|address| !has_name(address)));
    }

    proptest! {
        #[test]
        fn any_name_is_taken_calmly(name in "[a-z0-9.-]{1,20}", kind in 0usize..3) {
            let text = format!("/{}/{name}/tcp/1", ["dns", "dns4", "dns6"][kind]);
            if let Ok(address) = text.parse() {
                let found = place(&[address], &BTreeMap::new());
                prop_assert!(found.addresses.is_empty() && found.unknown.len() == 1);
            }
        }
    }
}
