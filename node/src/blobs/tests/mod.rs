//! Whole paths through this room, between nodes in one process: real databases, real stores, streams in memory.

mod asking;
mod dropping;
mod fleet;
mod pace;
mod storage;
mod transfers;
mod verify;
