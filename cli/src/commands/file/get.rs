//! `coffer file get`.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use coffer_node::control::{ControlError, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::places::{absolute, item_in_vault};
use crate::units::{bytes, count};

/// Bytes copied to standard output at once.
const PIECE: usize = 256 * 1024;

/// Write a file or a whole folder of the vault to this device
///
/// Contents that are on another device are fetched from there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer file get Papers/letter.pdf\n  \
    coffer file get Papers ~/copy-of-papers\n  \
    coffer file get Papers/letter.pdf --at 3f9c2a old.pdf     as it was; see `coffer file history`\n  \
    coffer file get notes.txt - | less")]
pub struct Get {
    /// Path in the vault
    pub path: String,
    /// Where to; an existing folder means into it, - standard output; by default the current folder
    #[arg(value_name = "DEST", default_value = ".")]
    pub dest: PathBuf,
    /// An earlier content, by the beginning of its revision
    #[arg(long, value_name = "REVISION")]
    pub at: Option<String>,
    /// Replace what is there
    #[arg(long)]
    pub overwrite: bool,
}

impl Get {
    /// Writes it, telling what could not be.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = item_in_vault(&self.path)?;
        if self.dest == Path::new("-") {
            return to_output(context, path, self.at).await;
        }
        let mut dest = absolute(&self.dest)?;
        if dest.is_dir() {
            // The top of the vault has no name: its children go straight into the folder.
            dest.extend(path.rsplit('/').next().filter(|name| !name.is_empty()));
        }
        let request = Request::FileGet {
            path,
            dest,
            at: self.at,
            overwrite: self.overwrite,
        };
        let reply = ask(context, &request).await?;
        let Reply::FilesGot {
            files,
            bytes: size,
            dest,
            skipped,
        } = &reply
        else {
            return Err(unexpected());
        };
        super::super::report_skipped(context, skipped);
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        let dest = dest.display().to_string();
        context.output.line(format_args!(
            "{} ({}) written to {}",
            count(*files, "file", "files"),
            bytes(*size),
            crate::output::shown(&dest)
        ))
    }
}

/// By way of a file in the data folder, which only its owner can read: the node writes files, not sockets.
async fn to_output(context: &Context, path: String, at: Option<String>) -> Result<(), Failure> {
    let between = context
        .data_dir
        .join(format!("get-{}.tmp", std::process::id()));
    let request = Request::FileGet {
        path,
        dest: between.clone(),
        at,
        overwrite: true,
    };
    let result = match ask(context, &request).await {
        Ok(Reply::FilesGot { .. }) if between.is_dir() => {
            Err(ControlError::usage("a folder cannot go to standard output").into())
        }
        Ok(_) => copy_out(context, &between),
        Err(failure) => Err(failure),
    };
    let _ = if between.is_dir() {
        fs::remove_dir_all(&between)
    } else {
        fs::remove_file(&between)
    };
    result
}

fn copy_out(context: &Context, from: &Path) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| ControlError::io(format_args!("read {}", from.display()), &error);
    let mut file = fs::File::open(from).map_err(failed)?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(failed)? {
            0 => return context.output.bytes(&[]),
            read => context.output.bytes(&piece[..read])?,
        }
    }
}
