//! The host over real sockets, with devices whose keys the test has made.

mod admission;
mod blobs;
mod puppet;
mod ranges;
mod replication;
