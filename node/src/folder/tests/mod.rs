//! The folder engine against a vault and blobs in memory, on a real file system.

mod braking;
mod convergence;
mod double;
mod placing;
mod planner;
mod puppet;
mod running;
mod settling;
