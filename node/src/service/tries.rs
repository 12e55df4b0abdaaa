//! How often a passphrase may be tried: whoever guesses has to wait ever longer between two tries.
//!
//! A try costs half a second of work anyhow, and who can read the file tries it elsewhere. This keeps a program that has
//! only the control socket from guessing, and from having this machine work for it.

use std::time::{Duration, Instant};

/// Wrong tries that cost nothing more: people mistype.
const FREE: u32 = 3;
/// The wait after the first one beyond; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Wrong tries since the last right one.
#[derive(Debug, Default)]
pub struct Tries {
    wrong: u32,
    not_before: Option<Instant>,
}

impl Tries {
    /// # Errors
    /// How long to wait before the next try.
    pub fn check(&self, now: Instant) -> Result<(), Duration> {
        match self.not_before {
            Some(at) if at > now => Err(at - now),
            _ => Ok(()),
        }
    }

    /// A try was wrong.
    pub fn was_wrong(&mut self, now: Instant) {
        self.wrong = self.wrong.saturating_add(1);
        if let Some(beyond) = self.wrong.checked_sub(FREE + 1) {
            let wait = FIRST_WAIT.saturating_mul(2u32.saturating_pow(beyond));
            self.not_before = Some(now + wait.min(LONGEST_WAIT));
        }
    }

    /// A try was right.
    pub fn was_right(&mut self) {
        *self = Tries::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_try_beyond_the_third_doubles_the_wait_up_to_five_minutes() {
        let mut tries = Tries::default();
        let mut now = Instant::now();
        for _ in 0..FREE {
            tries.was_wrong(now);
            assert_eq!(tries.check(now), Ok(()));
        }
        let mut waits = Vec::new();
        for _ in 0..12 {
            tries.was_wrong(now);
            let wait = tries.check(now).unwrap_err();
            assert!(tries.check(now + wait / 2).is_err());
            now += wait;
            assert_eq!(tries.check(now), Ok(()));
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        tries.was_right();
        tries.was_wrong(now);
        assert_eq!(tries.check(now), Ok(()), "counted anew after a right one");
    }

    #[test]
    fn any_number_of_wrong_tries_waits_no_longer_than_the_longest() {
        let now = Instant::now();
        let mut tries = Tries {
            wrong: u32::MAX - 1,
            not_before: None,
        };
        tries.was_wrong(now);
        tries.was_wrong(now);
        assert_eq!(tries.check(now), Err(LONGEST_WAIT));
    }
}
