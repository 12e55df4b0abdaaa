//! `coffer folder undo`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::Request;

use super::confirm::report;
use crate::args::Context;
use crate::conversation::ask;
use crate::error::Failure;
use crate::places::absolute;

/// Bring back files that disappeared or were rewritten all at once
///
/// For a folder that rests because more than a quarter of its files disappeared or more than half were rewritten within
/// a minute (see `coffer folder confirm`). The files come back as the vault has them, from this device or from another
/// one. What had been written over them is not thrown away: it is moved to .vault/kept in the folder.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coffer folder undo ~/Documents")]
pub struct Undo {
    /// Folder of this device
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

impl Undo {
    /// Brings them back.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let dir = absolute(&self.dir)?;
        report(context, &ask(context, &Request::FolderUndo { dir }).await?)
    }
}
