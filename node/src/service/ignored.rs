//! `folder ignored`: what the rules of a synced folder say of a path.
//!
//! The rules are read from the disk as they are now, so that the answer is right also for a folder whose engine rests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Node;
use super::folders::around;
use crate::control::{ControlError, IgnoreRule, IgnoredRow, Reply};
use crate::folder::place::HIDDEN;
use crate::folder::rules::{self, Rule, Verdict};

/// Carries it out.
pub async fn explain(
    node: &Arc<Node>,
    path: PathBuf,
    is_folder: bool,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let path = real(&path);
    let (_, setting) = around(&running, &path)?;
    let below = path
        .strip_prefix(&setting.path)
        .map_err(|error| ControlError::internal(error.to_string()))?
        .to_path_buf();
    let (root, asked) = (setting.path.clone(), below.clone());
    let read = tokio::task::spawn_blocking(move || {
        let is_folder =
            std::fs::symlink_metadata(root.join(&asked)).map_or(is_folder, |found| found.is_dir());
        rules::on_the_way(&root, &asked).map(|rules| rules.verdict(&asked, is_folder))
    });
    let verdict = read
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(|error| {
            ControlError::io(format_args!("read {}", setting.path.display()), &error)
        })?;
    let in_vault = {
        let tree = running.vault.tree();
        below
            .iter()
            .try_fold(setting.folder, |folder, name| {
                tree.lookup(folder, name.to_str()?)
            })
            .is_some()
    };
    let own = below.iter().next().is_some_and(|name| name == HIDDEN);
    let (ignored, rule) = match verdict {
        _ if own => (true, None), // no rule brings it back
        Verdict::Unnamed => (false, None),
        Verdict::Ignored(rule) => (true, Some(rule)),
        Verdict::BroughtBack(rule) => (false, Some(rule)),
    };
    Ok(Reply::FolderIgnored(IgnoredRow {
        path: shown(&below),
        dir: setting.path,
        ignored,
        rule: rule.map(described),
        in_vault,
    }))
}

fn described(rule: Rule) -> IgnoreRule {
    IgnoreRule {
        line: rule.file.is_some().then_some(rule.line as u64),
        file: rule.file.as_deref().map(shown),
        pattern: rule.pattern,
        matches: shown(&rule.path),
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The path with its links followed, except for the last name, which may be one itself, or not be there.
fn real(path: &Path) -> PathBuf {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return path.to_path_buf();
    };
    match std::fs::canonicalize(folder) {
        Ok(folder) => folder.join(name),
        // Of a path in a folder that is not there (any more), the nearest one above counts.
        Err(_) => real(folder).join(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_what_is_not_there_is_found_through_what_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = std::fs::canonicalize(dir.path()).unwrap();
        std::fs::create_dir(dir.join("a")).unwrap();
        std::os::unix::fs::symlink(dir.join("a"), dir.join("link")).unwrap();
        assert_eq!(real(&dir.join("link/x/y")), dir.join("a/x/y"));
        assert_eq!(real(&dir.join("link")), dir.join("link"));
    }

    #[test]
    fn rules_on_the_way_are_read_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join(".cofferignore"), "x\n").unwrap();
        std::fs::write(dir.path().join("a/b/.cofferignore"), "!x\n").unwrap();
        let above = rules::on_the_way(dir.path(), Path::new("a/x")).unwrap();
        assert!(above.is_ignored(Path::new("a/x"), false));
        let rules = rules::on_the_way(dir.path(), Path::new("a/b/x")).unwrap();
        assert!(!rules.is_ignored(Path::new("a/b/x"), false));
    }
}
