//! The whole program as people and scripts meet it: the real binary, real nodes, real sockets, temporary folders.
//!
//! What needs root (cutting the power, filling a disk) stands in `tests/root`. Rules that a lower layer can show are
//! tested there; here is what only the whole can show.

mod backup;
mod blind;
mod brake;
mod conflicts;
mod copied;
mod crashes;
#[allow(dead_code, reason = "each of the two targets needs a part of it")]
mod device;
mod documents;
mod erasing;
mod failing_disk;
mod files;
mod folders;
mod holding;
mod host;
mod ignoring;
mod leaks;
mod liar;
mod listener;
mod locking;
mod login;
mod on_demand;
mod pairing;
mod printing;
#[cfg(feature = "provider-tests")]
mod provider;
mod purging;
mod recovery;
mod relay;
mod relay_host;
mod relocking;
mod retiming;
mod revoking;
mod scenarios;
mod scripts;
mod search;
mod secrets;
mod starting;
mod transfers;
mod trash;
mod trust;
mod whereabouts;
