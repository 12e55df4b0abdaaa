//! Which other devices have said that transfers are paused there: for what people are told, and for asking again when such
//! a pause is over.

use std::collections::BTreeSet;

use coffer_protocol::identity::DeviceId;
use tokio::sync::watch;

/// What is known of pauses of other devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paused {
    /// Those that have said so, and not that they go on.
    pub devices: BTreeSet<DeviceId>,
    /// How many pauses were over so far.
    pub ended: u64,
}

/// The same, kept.
#[derive(Default)]
pub(super) struct Pauses(watch::Sender<Paused>);

impl Pauses {
    /// `device` has just said that it gives nothing now; or has given something, or is not there to be asked.
    pub fn said(&self, device: DeviceId, paused: bool) {
        if self.0.borrow().devices.contains(&device) == paused {
            return;
        }
        self.0.send_if_modified(|known| {
            let changed = match paused {
                true => known.devices.insert(device),
                false => known.devices.remove(&device),
            };
            known.ended += u64::from(changed && !paused);
            changed
        });
    }

    /// What is known now and from now on.
    pub fn subscribe(&self) -> watch::Receiver<Paused> {
        self.0.subscribe()
    }
}
