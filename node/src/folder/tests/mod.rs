//! The folder engine against a vault and blobs in memory, on a real file system.

mod convergence;
mod disks;
mod double;
mod ignoring;
mod odd;
mod planner;
mod puppet;
mod running;
