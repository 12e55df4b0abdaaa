//! The trace of a run: one running hash over every decision, every effect and every byte on the wire.
//!
//! Two runs of one seed must give the same hash, in one process and in two: whatever differs (the order of a hash map,
//! the wall clock, a random number from elsewhere) would make a found bug impossible to find again.

/// A running BLAKE3.
#[derive(Default)]
pub struct Trace {
    hasher: blake3::Hasher,
    /// The last events in words, for a person to read after a failure.
    story: std::collections::VecDeque<String>,
}

/// Events told after a failure, unless `COFFER_SIM_STORY` gives another number.
const STORY: usize = 120;
static TOLD: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
/// Characters told of each.
const WIDTH: usize = 300;

impl Trace {
    /// Takes in bytes under a tag that says what they are.
    pub fn bytes(&mut self, tag: &str, bytes: &[u8]) {
        for part in [tag.as_bytes(), bytes] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
    }

    /// Takes in an event.
    pub fn event(&mut self, event: String) {
        self.bytes("event", event.as_bytes());
        let told = *TOLD.get_or_init(|| {
            std::env::var("COFFER_SIM_STORY")
                .ok()
                .and_then(|number| number.parse().ok())
                .unwrap_or(STORY)
        });
        if self.story.len() >= told {
            self.story.pop_front();
        }
        self.story.push_back(event.chars().take(WIDTH).collect());
    }

    /// The last events, oldest first.
    pub fn story(&self) -> String {
        self.story
            .iter()
            .map(|event| format!("  {event}\n"))
            .collect()
    }

    /// The hash of all so far, in hexadecimal digits.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}
