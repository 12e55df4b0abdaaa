//! Taking in what was kept elsewhere of the vault's logs, while nobody is connected.

use super::batch::{Failure, Step};
use super::core::Core;
use crate::store::StoreError;

impl Core {
    /// Takes in entries, as from another device, in one durable transaction. What cannot be taken yet, or is refused, is
    /// left out: the clock says how far it got.
    pub fn take_in(&mut self, entries: Vec<Vec<u8>>, now_ms: u64) -> Result<(), StoreError> {
        self.take_step(Step::Ingest(self.device(), entries, 0), now_ms)
    }

    /// The same with a range and what was said of it.
    pub fn take_in_range(
        &mut self,
        range: Vec<u8>,
        attestations: Vec<Vec<u8>>,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        self.take_step(Step::Range(self.device(), range, attestations, 0), now_ms)
    }

    fn take_step(&mut self, step: Step, now_ms: u64) -> Result<(), StoreError> {
        let steps = [step];
        let before = self.state.clone();
        let failed = match self.attempt(&steps, now_ms) {
            Ok(done) => {
                // Nobody hears of it: no session is up.
                self.publish(done, &mut Vec::new());
                return Ok(());
            }
            Err(Failure::Store(error)) => error,
            Err(Failure::Request(_, error)) => StoreError::Damaged(error.to_string()),
        };
        self.state = before;
        self.cache.clear();
        Err(failed)
    }
}
