//! Which names a file may have, and how those are shown that it may not.
//!
//! Names are compared bytewise and kept as they are written. A name that this device is asked to write must be one
//! that every file system of a POSIX kind takes ([`check_name`]); what *other* systems make of a good name (case,
//! reserved words, Unicode forms) is the synced folder's business. A name that came from elsewhere and would be unsafe
//! on disk is shown under [`shown_name`], never passed on as it is. The names of conflict copies are made and read in
//! [`super::conflict_names`].

use std::borrow::Cow;

use super::FileId;

/// The longest name, in bytes of UTF-8: what Linux and macOS file systems take.
pub const MAX_NAME_BYTES: usize = 255;

/// The longest part after the last dot that counts as a file's extension.
const MAX_EXTENSION_BYTES: usize = 16;

/// Why a file or folder cannot have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The empty name.
    #[error("a name cannot be empty")]
    Empty,
    /// `.` and `..` mean a folder itself and the one above it.
    #[error("\".\" and \"..\" cannot be names")]
    Dots,
    /// `/` separates names in a path.
    #[error("a name cannot contain \"/\"")]
    Slash,
    /// The character NUL ends names in file systems.
    #[error("a name cannot contain the character NUL")]
    Nul,
    /// More than [`MAX_NAME_BYTES`] bytes.
    #[error("a name cannot be longer than 255 bytes, this one has {0}")]
    TooLong(usize),
}

/// Checks a name that is to be written by this device.
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Dots),
        _ if name.contains('/') => Err(NameError::Slash),
        _ if name.contains('\0') => Err(NameError::Nul),
        _ if name.len() > MAX_NAME_BYTES => Err(NameError::TooLong(name.len())),
        _ => Ok(()),
    }
}

/// The name that a file is shown under before any conflict is looked at: its own, if [`check_name`] accepts it.
///
/// Otherwise `/`, NUL and the dots of `.` and `..` are written as `%2F`, `%00` and `%2E`, the result is cut to fit,
/// and ` (escaped <16 hexadecimal digits>)` goes before the extension: the start of the BLAKE3 hash of the true name,
/// without which two different names could be shown alike and be taken for one.
pub fn shown_name(name: &str) -> Cow<'_, str> {
    if check_name(name).is_ok() {
        return Cow::Borrowed(name);
    }
    let plain = match name {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => name.replace('/', "%2F").replace('\0', "%00"),
    };
    let hash = blake3::hash(name.as_bytes());
    let mark = format!(" (escaped {})", hex::encode(&hash.as_bytes()[..8]));
    Cow::Owned(with_mark(&plain, true, &mark))
}

/// The name of something whose folder has not arrived yet; `count` is 1 unless that name is taken.
pub(crate) fn waiting_name(name: &str, is_file: bool, id: FileId, count: u32) -> String {
    let mark = format!(" (waiting for its folder, {id}{})", numbered(count));
    with_mark(name, is_file, &mark)
}

/// What the second and later ones of otherwise equal marks end with: `, 2`.
pub(crate) fn numbered(number: u32) -> String {
    match number {
        0 | 1 => String::new(),
        number => format!(", {number}"),
    }
}

/// Puts a mark before the extension, and cuts the name before it so that all fits [`MAX_NAME_BYTES`].
///
/// Everything that a mark ends with can be read back from the end of the result: an extension is a dot and letters or
/// digits, so it cannot imitate a mark. That makes names with an id in their mark as unique as the id.
pub fn with_mark(name: &str, is_file: bool, mark: &str) -> String {
    let (stem, extension) = split_extension_of(name, is_file);
    let room = MAX_NAME_BYTES.saturating_sub(mark.len() + extension.len());
    let mut cut = &stem[..stem.floor_char_boundary(room)];
    if cut.len() < stem.len() && extension.is_empty() {
        // The cut must not make an extension of what was none: then the mark would be elsewhere in the copy's copy.
        while let (before, ending) = split_extension_of(cut, is_file)
            && !ending.is_empty()
        {
            cut = before;
        }
    }
    format!("{cut}{mark}{extension}")
}

/// Splits `report.pdf` into `report` and `.pdf`; a name without a short alphanumeric ending, or with nothing before
/// the dot, has none. Folders have none either: see [`split_extension_of`].
pub fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 => {
            let ending = &name[dot + 1..];
            let counts = (1..=MAX_EXTENSION_BYTES).contains(&ending.len())
                && ending.bytes().all(|b| b.is_ascii_alphanumeric());
            if counts {
                name.split_at(dot)
            } else {
                (name, "")
            }
        }
        _ => (name, ""),
    }
}

/// The same for what may be a folder, whose name is never split.
pub(crate) fn split_extension_of(name: &str, is_file: bool) -> (&str, &str) {
    if is_file {
        split_extension(name)
    } else {
        (name, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_no_file_system_takes_are_refused_by_kind() {
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name("."), Err(NameError::Dots));
        assert_eq!(check_name(".."), Err(NameError::Dots));
        assert_eq!(check_name("a/b"), Err(NameError::Slash));
        assert_eq!(check_name("a\0"), Err(NameError::Nul));
        assert_eq!(check_name(&"é".repeat(128)), Err(NameError::TooLong(256)));
        assert_eq!(check_name(&"x".repeat(255)), Ok(()));
        assert_eq!(check_name("..."), Ok(()));
        assert_eq!(check_name("new\nline"), Ok(()));
    }

    #[test]
    fn foreign_names_are_shown_escaped_and_stay_different() {
        assert_eq!(shown_name("a.txt"), "a.txt");
        assert!(shown_name("../etc/passwd.txt").starts_with("..%2Fetc%2Fpasswd (escaped "));
        assert!(shown_name("../etc/passwd.txt").ends_with(").txt"));
        assert_ne!(shown_name("a/b"), shown_name("a%2Fb"));
        assert_ne!(shown_name(&"x".repeat(300)), shown_name(&"x".repeat(301)));
        assert!(shown_name("").starts_with(" (escaped "));
        assert!(shown_name("..").starts_with("%2E%2E (escaped "));
    }

    proptest! {
        #[test]
        fn whatever_is_shown_is_a_safe_name(name in any::<String>(), file in any::<bool>(), id in any::<[u8; 16]>(), count in 1u32..) {
            let shown = shown_name(&name);
            prop_assert_eq!(check_name(&shown), Ok(()));
            prop_assert_eq!(check_name(&waiting_name(&shown, file, FileId(id), count)), Ok(()));
        }

        #[test]
        fn long_names_are_cut_at_a_character(name in "[é/]{200,300}") {
            prop_assert_eq!(check_name(&shown_name(&name)), Ok(()));
        }
    }
}
