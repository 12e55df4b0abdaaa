//! How fast bytes go to and come from each device: for `status`, and for nothing that decides.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use coffer_protocol::identity::DeviceId;

use super::lock;

/// Seconds over which a rate is taken. Long enough to be calm, short enough to be true.
const SPAN_SECS: u64 = 4;

/// Bytes of sealed blobs to and from one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Received since this node started, in bytes.
    pub received: u64,
    /// Sent since this node started, in bytes.
    pub sent: u64,
    /// Received lately, in bytes a second.
    pub received_per_second: u64,
    /// Sent lately, in bytes a second.
    pub sent_per_second: u64,
    /// Whether an answer of that device is on its way now.
    pub is_receiving: bool,
    /// Whether bytes are on their way to it now.
    pub is_sending: bool,
}

/// Marks bytes as on their way until it is dropped.
pub(super) struct UnderWay<'a> {
    rates: &'a Rates,
    device: DeviceId,
    direction: usize,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut meters = lock(&self.rates.meters);
        let meter = &mut meters.entry(self.device).or_default()[self.direction];
        meter.under_way = meter.under_way.saturating_sub(1);
    }
}

/// Counts for all devices.
pub(super) struct Rates {
    began: Instant,
    meters: Mutex<BTreeMap<DeviceId, [Meter; 2]>>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            meters: Mutex::default(),
        }
    }
}

impl Rates {
    pub fn received(&self, device: DeviceId, bytes: u64) {
        self.count(device, 0, bytes);
    }

    pub fn sent(&self, device: DeviceId, bytes: u64) {
        self.count(device, 1, bytes);
    }

    /// From now on an answer of `device` is awaited.
    pub fn receiving(&self, device: DeviceId) -> UnderWay<'_> {
        self.begin(device, 0)
    }

    /// From now on bytes go to `device`.
    pub fn sending(&self, device: DeviceId) -> UnderWay<'_> {
        self.begin(device, 1)
    }

    fn begin(&self, device: DeviceId, direction: usize) -> UnderWay<'_> {
        lock(&self.meters).entry(device).or_default()[direction].under_way += 1;
        UnderWay {
            rates: self,
            device,
            direction,
        }
    }

    fn count(&self, device: DeviceId, direction: usize, bytes: u64) {
        let now = self.began.elapsed().as_secs();
        let mut meters = lock(&self.meters);
        meters.entry(device).or_default()[direction].add(now, bytes);
    }

    pub fn read(&self) -> BTreeMap<DeviceId, Rate> {
        let now = self.began.elapsed().as_secs();
        let meters = lock(&self.meters);
        meters
            .iter()
            .map(|(device, [received, sent])| {
                let rate = Rate {
                    received: received.total,
                    sent: sent.total,
                    received_per_second: received.per_second(now),
                    sent_per_second: sent.per_second(now),
                    is_receiving: received.under_way > 0,
                    is_sending: sent.under_way > 0,
                };
                (*device, rate)
            })
            .collect()
    }
}

/// Bytes in one direction: a slot for each of the last seconds, the present one among them.
#[derive(Default)]
struct Meter {
    total: u64,
    under_way: u32,
    second: u64,
    slots: [u64; SPAN_SECS as usize + 1],
}

impl Meter {
    fn slot(second: u64) -> usize {
        (second % (SPAN_SECS + 1)) as usize
    }

    fn add(&mut self, now: u64, bytes: u64) {
        for second in (self.second + 1..=now).take(self.slots.len()) {
            self.slots[Self::slot(second)] = 0;
        }
        // After a long pause all slots were cleared, whichever seconds they were counted as.
        self.second = now.max(self.second);
        self.slots[Self::slot(self.second)] += bytes;
        self.total += bytes;
    }

    /// Over the full seconds before `now`.
    fn per_second(&self, now: u64) -> u64 {
        let from = now.saturating_sub(SPAN_SECS);
        let counted = (from..now)
            .filter(|second| *second <= self.second && second + SPAN_SECS >= self.second);
        counted
            .map(|second| self.slots[Self::slot(second)])
            .sum::<u64>()
            / SPAN_SECS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_so_until_the_last_of_it_has_ended() {
        let (rates, device) = (Rates::default(), DeviceId([7; 32]));
        let first = rates.receiving(device);
        let second = rates.receiving(device);
        drop(first);
        let now = rates.read()[&device];
        assert!(now.is_receiving && !now.is_sending);
        drop(second);
        assert!(!rates.read()[&device].is_receiving);
    }

    #[test]
    fn a_rate_is_that_of_the_last_full_seconds() {
        let mut meter = Meter::default();
        for second in 10..14 {
            meter.add(second, 1000);
        }
        assert_eq!(meter.per_second(14), 1000);
        assert_eq!(meter.per_second(16), 500);
        assert_eq!(meter.per_second(30), 0);
        meter.add(1_000_000, 400);
        assert_eq!(meter.per_second(1_000_001), 100);
        assert_eq!(meter.total, 4400);
    }
}
