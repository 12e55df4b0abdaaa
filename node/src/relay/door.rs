//! Who may connect: as many as were configured, not all from one address, and not too fast from one address.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::config::RelayConfig;
use super::rates::{Rate, Rates};
use crate::net::Door;

/// The door of a host.
pub struct HostDoor {
    connections: usize,
    per_address: usize,
    rates: Mutex<Rates<IpAddr>>,
}

impl HostDoor {
    /// As configured.
    pub fn new(config: &RelayConfig) -> Self {
        Self {
            connections: config.connections,
            per_address: config.connections_per_address,
            rates: Mutex::new(Rates::new(Rate::per_minute(config.connects_per_minute))),
        }
    }

    fn decide(&self, from: Option<IpAddr>, present: usize, near: usize, now: Instant) -> bool {
        if present >= self.connections {
            return false;
        }
        // Without an address of its own it comes through a relay circuit, which has limits of its own.
        let Some(from) = from else {
            return true;
        };
        near < self.per_address
            && self
                .rates
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .allows(from, now)
    }
}

impl Door for HostDoor {
    fn admits(&self, from: Option<IpAddr>, present: usize, near: usize) -> bool {
        self.decide(from, present, near, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(text: &str) -> HostDoor {
        let mut config = RelayConfig::default();
        config.take_text(text, "test").unwrap();
        HostDoor::new(&config)
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let door = door("[limits]\nconnections = 8\nconnections_per_address = 2");
        let now = Instant::now();
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        let (a, b) = (ip("203.0.113.7"), ip("203.0.113.8"));
        assert!(door.decide(a, 1, 1, now));
        assert!(!door.decide(a, 2, 2, now));
        assert!(door.decide(b, 2, 0, now));
        assert!(!door.decide(b, 8, 0, now));
    }

    #[test]
    fn connecting_again_and_again_is_slowed() {
        let door = door("[limits]\nconnects_per_minute = 5");
        let now = Instant::now();
        let ip = "203.0.113.7".parse().ok();
        assert_eq!((0..20).filter(|_| door.decide(ip, 0, 0, now)).count(), 5);
    }
}
