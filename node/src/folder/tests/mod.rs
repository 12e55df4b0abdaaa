//! The folder engine against a vault and blobs in memory, on a real file system.

mod braking;
mod cloud;
mod convergence;
mod disks;
mod double;
mod ignoring;
mod odd;
mod placing;
mod planner;
mod puppet;
mod retiming;
mod running;
mod settling;
mod simulation;
mod sparing;
