//! `coffer folder add`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use coffer_node::control::{ControlError, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::{absolute, item_in_vault};

/// Keep a folder of this device in sync with a folder of the vault
///
/// On a folder that is not empty it first shows how many files are the same, new and different, and asks. It deletes
/// nothing: of a file that differs both are kept. From then on what is added, changed, moved or deleted on either side
/// happens on the other.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer folder add ~/Documents\n  \
    coffer folder add ~/Pictures --to Media/Pictures --yes")]
pub struct Add {
    /// Folder of this device, made if it is not there
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Folder of the vault, made if it is not there; by default one of the same name
    #[arg(long, value_name = "PATH")]
    pub to: Option<String>,
}

impl Add {
    /// Adds it, after the person has seen what that means.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let dir = absolute(&self.dir)?;
        let to = match &self.to {
            Some(to) => item_in_vault(to)?,
            None => same_name(&dir)?,
        };
        if dir.exists() && !dir.is_dir() {
            let message = format!("{} is not a folder", dir.display());
            return Err(ControlError::usage(message).into());
        }
        let made = missing(&dir);
        fs::create_dir_all(&dir)
            .map_err(|error| ControlError::io(format_args!("create {}", dir.display()), &error))?;
        let reply = match ask(context, &Request::FolderAdd { dir, to }).await {
            Ok(reply) => reply,
            Err(failure) => {
                take_back(&made);
                return Err(failure);
            }
        };
        let Reply::FolderAdded { folder, .. } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.line(format_args!(
            "{} is kept in sync with \"{}\" in the vault.",
            shown(&folder.dir.display().to_string()),
            shown(if folder.to.is_empty() {
                "/"
            } else {
                &folder.to
            })
        ))
    }
}

/// The folders that are to be made for `dir` to be there, the innermost first.
fn missing(dir: &Path) -> Vec<PathBuf> {
    dir.ancestors()
        .take_while(|folder| !folder.exists())
        .map(Path::to_path_buf)
        .collect()
}

/// Removes folders that were made for nothing, as long as nobody has put anything into them.
fn take_back(made: &[PathBuf]) {
    for folder in made {
        if fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

fn same_name(dir: &Path) -> Result<String, Failure> {
    match dir.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(name.to_owned()),
        None => Err(ControlError::usage(
            "this folder has no name; say with --to where it goes in the vault",
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_for_nothing_goes_again_unless_it_is_used() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("a/b/c");
        let made = missing(&dir);
        assert_eq!(made.len(), 3);
        fs::create_dir_all(&dir).unwrap();
        assert!(missing(&dir).is_empty());
        fs::write(top.path().join("a/used"), "").unwrap();
        take_back(&made);
        assert!(!top.path().join("a/b").exists());
        assert!(top.path().join("a/used").exists());
    }
}
