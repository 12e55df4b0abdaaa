//! The state of a locked device.

use std::fmt::Write;

use coffer_node::control::{Protection, Status};

use crate::args::Context;

/// All that can be said of it.
pub fn describe(state: &Status, context: &Context) -> String {
    let mut text = format!(
        "coffer is locked on this device; the vault in {} is not kept in sync.\n",
        state.data_dir.display()
    );
    if state.protected_by == Protection::Login {
        text.push_str("It unlocks with what the system keeps for who is logged in.\n");
    }
    for warning in &state.warnings {
        let _ = writeln!(text, "{}", warning.text);
    }
    let _ = write!(text, "\nNext:\n  {}\n", context.command("unlock"));
    text
}
