//! How often each operation, conflict, fault and crash point was hit.
//!
//! A simulation that never reaches a case proves nothing about it. So the suite prints these counts, and fails where
//! one is under its minimum.

use std::collections::BTreeMap;

/// Counts by group and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(&'static str, &'static str), u64>);

impl Coverage {
    /// One more.
    pub fn hit(&mut self, group: &'static str, name: &'static str) {
        self.add(group, name, 1);
    }

    /// `count` more.
    pub fn add(&mut self, group: &'static str, name: &'static str, count: u64) {
        *self.0.entry((group, name)).or_default() += count;
    }

    /// How often it was hit.
    pub fn count(&self, group: &'static str, name: &'static str) -> u64 {
        self.0.get(&(group, name)).copied().unwrap_or(0)
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Coverage) {
        for ((group, name), count) in &other.0 {
            self.add(group, name, *count);
        }
    }

    /// Those of `minima` that were hit less often than they must be, in words.
    pub fn under(&self, minima: &[(&'static str, &'static str, u64)]) -> Vec<String> {
        let count = |(group, name, _): &(&'static str, &'static str, u64)| self.count(group, name);
        let under = minima.iter().filter(|minimum| count(minimum) < minimum.2);
        under
            .map(|minimum| {
                format!(
                    "{}/{}: {} of {}",
                    minimum.0,
                    minimum.1,
                    count(minimum),
                    minimum.2
                )
            })
            .collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = "";
        for ((group, name), count) in &self.0 {
            if *group != last {
                writeln!(f, "{group}")?;
                last = group;
            }
            writeln!(f, "  {count:>8}  {name}")?;
        }
        Ok(())
    }
}
