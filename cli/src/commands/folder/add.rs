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

/// Folders beside a missing one that are compared with its name.
const MAX_BESIDE: usize = 10_000;
/// Letters in which a name is taken for a slip of another.
const MAX_FAR: usize = 2;

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
    /// Folder of this device, made if it is not there and the folder around it is
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
        let near = made.last().and_then(|folder| near(folder));
        if let [_, parent, ..] = &made[..] {
            return Err(no_parent(&dir, parent, near.as_deref()).into());
        }
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
            return context
                .output
                .reply_with(&reply, "created", !made.is_empty());
        }
        if let [folder] = &made[..] {
            let beside = near.map_or(String::new(), |near| {
                format!("; beside it is {}", shown(&near.display().to_string()))
            });
            context.output.remark(format_args!(
                "{} was not there: it is a new, empty folder{beside}.",
                shown(&folder.display().to_string())
            ));
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

/// A folder beside this one, which is not there, that has nearly its name.
fn near(folder: &Path) -> Option<PathBuf> {
    let name = folder.file_name()?.to_str()?.to_lowercase();
    let beside = fs::read_dir(folder.parent()?).ok()?.flatten();
    let folders = beside
        .take(MAX_BESIDE)
        .filter(|entry| entry.path().is_dir());
    let near = folders.filter_map(|entry| {
        let other = entry.file_name().to_str()?.to_lowercase();
        let far = strsim::osa_distance(&name, &other);
        (far <= MAX_FAR && far * 2 < name.chars().count()).then(|| (far, entry.path()))
    });
    near.min().map(|(_, path)| path)
}

/// A path of which more than the last folder is not there is a slip, most likely.
fn no_parent(dir: &Path, parent: &Path, near: Option<&Path>) -> ControlError {
    let mut message = format!(
        "{} is not there, nor is {}",
        dir.display(),
        parent.display()
    );
    if let Some(near) = near {
        message.push_str(&format!("; there is {}", near.display()));
    }
    ControlError::not_found(message).with_code("no-such-parent")
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
    fn a_folder_of_nearly_the_name_is_found_and_others_are_not() {
        let top = tempfile::tempdir().unwrap();
        for name in ["Documents", "Downloads", "a", "Pictures"] {
            fs::create_dir(top.path().join(name)).unwrap();
        }
        fs::write(top.path().join("Photos"), "a file").unwrap();
        let found = |name: &str| near(&top.path().join(name));
        assert_eq!(found("documnets"), Some(top.path().join("Documents")));
        assert_eq!(found("Picture"), Some(top.path().join("Pictures")));
        for other in ["b", "Photo", "Music", "Papers"] {
            assert_eq!(found(other), None, "{other}");
        }
        let (dir, parent) = (top.path().join("x/y"), top.path().join("x"));
        let error = no_parent(&dir, &parent, None);
        assert!(error.message.contains("nor is"), "{error:?}");
    }

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
