//! What a process that handles secrets asks of the system first: that nobody else reads its memory.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Leaves no core file, and lets no program of the same user attach to this process or read its memory. Root still can.
/// To be called first of all: what a process had in memory before may be in another's hands.
///
/// # Errors
/// The system's. There is none on Linux that a process could cause.
pub fn keep_memory_private() -> std::io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
