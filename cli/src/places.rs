//! Paths as people type them: of this machine (made absolute, for the node has another working directory) and of the
//! vault.

use std::path::{Path, PathBuf};

use coffer_node::control::ControlError;

use crate::error::Failure;

/// An absolute path of this machine that JSON can carry.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| ControlError::io(format_args!("find {}", path.display()), &error))?;
    if absolute.to_str().is_none() {
        return Err(ControlError::usage(format!(
            "the name of {} is not valid text (UTF-8)",
            path.display()
        ))
        .into());
    }
    // `std::path::absolute` keeps `..`, which is right across symbolic links but reads badly when printed.
    Ok(
        if absolute
            .components()
            .any(|part| part == std::path::Component::ParentDir)
        {
            absolute.canonicalize().unwrap_or(absolute)
        } else {
            absolute
        },
    )
}

/// A path in the vault: parts joined by `/`, without one at the beginning; one at the end is kept, it says "folder".
pub fn in_vault(path: &str) -> Result<String, Failure> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return Err(ControlError::usage(format!(
            "`..` has no meaning in a path of the vault: {path}"
        ))
        .into());
    }
    if path.contains('\0') {
        return Err(ControlError::usage("a path of the vault cannot hold a zero byte").into());
    }
    let mut joined = parts.join("/");
    if path.ends_with('/') && !joined.is_empty() {
        joined.push('/');
    }
    Ok(joined)
}

/// The same for what is no matter whether file or folder: nothing is said by a `/` at its end.
pub fn item_in_vault(path: &str) -> Result<String, Failure> {
    Ok(in_vault(path)?.trim_end_matches('/').to_owned())
}

/// A path for a command line that a person may copy.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vault_paths_have_one_form() {
        for (typed, meant) in [
            ("", ""),
            ("/", ""),
            ("/a//b", "a/b"),
            ("a/b/", "a/b/"),
            ("./a", "a"),
            ("a b/ü", "a b/ü"),
        ] {
            assert_eq!(in_vault(typed).unwrap(), meant);
        }
        assert!(in_vault("a/../b").is_err());
        assert_eq!(in_vault("..a/b..").unwrap(), "..a/b..");
    }

    #[test]
    fn paths_to_copy_survive_the_shell() {
        assert_eq!(quoted(Path::new("/home/ana/vault-1")), "/home/ana/vault-1");
        assert_eq!(
            quoted(Path::new("/home/ana's disk")),
            r"'/home/ana'\''s disk'"
        );
    }
}
