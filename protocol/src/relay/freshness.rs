//! What a host's statements give away about the host.
//!
//! A host signs each statement, counts them, and can neither unsay what it said nor say one thing to one
//! device and another to the next without both being comparable: devices pass its statements on to each other.
//! [`Record`] is what a device remembers of one host; it hears each statement, from the host itself or from
//! somebody else, and says what is wrong with it. What a fault means for people, and for how long something may
//! lag, is the node's business; so are blobs, which hosts are challenged for.

use super::statement::HostStatement;

/// What is wrong with what a host says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Its state is an earlier one than it had said: its store was put back, or it plays an old state again.
    RolledBack,
    /// It said two different things under one number, to two devices maybe.
    Contradicts,
    /// It keeps the vault in another store than before, and did not say that it lost the old one.
    BeganAnew,
}

/// What became of a statement that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// It is the newest now, to be kept and passed on.
    pub news: bool,
    /// What it shows.
    pub fault: Option<Fault>,
    /// What the host had confirmed before counts no more.
    pub void: bool,
}

impl Heard {
    const NOTHING: Self = Self {
        news: false,
        fault: None,
        void: false,
    };
}

/// What a device remembers of one host's statements about one vault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The last that the host itself told this device.
    pub told: Option<HostStatement>,
    /// The furthest that anybody knows of.
    pub furthest: Option<HostStatement>,
}

impl Record {
    /// Hears a verified statement of the host; `told` says that the host itself told it, on a live connection
    /// and as its newest.
    pub fn hear(&mut self, statement: &HostStatement, told: bool) -> Heard {
        let mut heard = match &self.furthest {
            None => Heard {
                news: true,
                ..Heard::NOTHING
            },
            Some(known) => compare(known, statement),
        };
        if heard.news {
            self.furthest = Some(statement.clone());
        }
        if told {
            if let Some(before) = &self.told {
                let own = judge_told(before, statement);
                heard.fault = own.or(heard.fault);
                heard.void = own.is_some();
            }
            self.told = Some(statement.clone());
        }
        heard
    }

    /// Whether others have heard more of the host than it tells this device: for a moment that is the way of
    /// messages, for long it is withholding.
    pub fn lags(&self) -> bool {
        match (&self.told, &self.furthest) {
            (Some(told), Some(furthest)) => {
                let (told, furthest) = (told.value(), furthest.value());
                told.store == furthest.store && told.counter < furthest.counter
            }
            _ => false,
        }
    }
}

/// A statement beside the furthest that is known, whoever passed it on.
fn compare(known: &HostStatement, new: &HostStatement) -> Heard {
    let (older, newer) = (known.value(), new.value());
    let fault = |fault, news| Heard {
        news,
        fault: Some(fault),
        void: false,
    };
    if older.store != newer.store {
        return match newer.replaces(older) {
            true => fault(Fault::BeganAnew, true),
            false => Heard::NOTHING,
        };
    }
    match newer.counter.cmp(&older.counter) {
        std::cmp::Ordering::Equal if known.bytes() == new.bytes() => Heard::NOTHING,
        std::cmp::Ordering::Equal => fault(Fault::Contradicts, false),
        std::cmp::Ordering::Greater if newer.entries.covers_clock(&older.entries) => Heard {
            news: true,
            ..Heard::NOTHING
        },
        std::cmp::Ordering::Greater => fault(Fault::RolledBack, true),
        std::cmp::Ordering::Less if older.entries.covers_clock(&newer.entries) => Heard::NOTHING,
        // What it said earlier was more than it said later.
        std::cmp::Ordering::Less => fault(Fault::RolledBack, false),
    }
}

/// What the host tells now beside what it told this device before.
fn judge_told(before: &HostStatement, now: &HostStatement) -> Option<Fault> {
    let (older, newer) = (before.value(), now.value());
    if older.store != newer.store {
        return Some(Fault::BeganAnew);
    }
    match newer.counter.cmp(&older.counter) {
        std::cmp::Ordering::Less => Some(Fault::RolledBack),
        std::cmp::Ordering::Equal => (before.bytes() != now.bytes()).then_some(Fault::Contradicts),
        std::cmp::Ordering::Greater => {
            (!newer.entries.covers_clock(&older.entries)).then_some(Fault::RolledBack)
        }
    }
}
