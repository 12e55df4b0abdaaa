//! Which names a file may have, and how those are shown that it may not.
//!
//! Names are compared bytewise and kept as they are written. A name that this device is asked to write must be one
//! that every file system of a POSIX kind takes ([`check_name`]); what *other* systems make of a good name (case,
//! reserved words, Unicode forms) is the synced folder's business. A name that came from elsewhere and would be unsafe
//! on disk is shown under [`shown_name`], never passed on as it is.

use std::borrow::Cow;

/// The longest name, in bytes of UTF-8: what Linux and macOS file systems take.
pub const MAX_NAME_BYTES: usize = 255;

/// The longest part after the last dot that counts as a file's extension.
const MAX_EXTENSION_BYTES: usize = 16;

/// How much of a device's label goes into a conflict name, in bytes.
const MAX_SHOWN_LABEL_BYTES: usize = 40;

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

/// The name of the later of two different files of one name: `name (conflict from laptop, 2026-11-22).ext`.
///
/// `tie` is `None` for the first choice. Where that is taken, `Some((id, 1))` adds the file's id, and greater numbers
/// the number as well: `name (conflict from laptop, 2026-11-22, <id>, 2).ext`.
pub(crate) fn conflict_name(
    name: &str,
    is_file: bool,
    label: &str,
    ms: u64,
    tie: Option<(super::FileId, u32)>,
) -> String {
    let label: String = label
        .chars()
        .map(|char| {
            if char == '/' || char.is_control() {
                '-'
            } else {
                char
            }
        })
        .collect();
    let label = match label.trim() {
        "" => "another device",
        label => &label[..label.floor_char_boundary(MAX_SHOWN_LABEL_BYTES)],
    };
    let date = super::date::day(i64::try_from(ms).unwrap_or(i64::MAX));
    with_mark(
        name,
        is_file,
        &format!(" (conflict from {label}, {date}{})", tie_text(tie)),
    )
}

/// The name of something whose folder has not arrived yet. See [`conflict_name`] for `tie`, which is always needed.
pub(crate) fn waiting_name(name: &str, is_file: bool, tie: (super::FileId, u32)) -> String {
    with_mark(
        name,
        is_file,
        &format!(" (waiting for its folder{})", tie_text(Some(tie))),
    )
}

fn tie_text(tie: Option<(super::FileId, u32)>) -> String {
    match tie {
        None => String::new(),
        Some((id, 1)) => format!(", {id}"),
        Some((id, count)) => format!(", {id}, {count}"),
    }
}

/// Puts a mark before the extension, and cuts the name before it so that all fits [`MAX_NAME_BYTES`].
///
/// Everything that a mark ends with can be read back from the end of the result: an extension is a dot and letters or
/// digits, so it cannot imitate a mark. That makes names with an id in their mark as unique as the id.
fn with_mark(name: &str, is_file: bool, mark: &str) -> String {
    let (stem, extension) = if is_file {
        split_extension(name)
    } else {
        (name, "")
    };
    let room = MAX_NAME_BYTES.saturating_sub(mark.len() + extension.len());
    let stem = &stem[..stem.floor_char_boundary(room)];
    format!("{stem}{mark}{extension}")
}

/// Splits `report.pdf` into `report` and `.pdf`; a name without a short alphanumeric ending, or with nothing before
/// the dot, has none.
fn split_extension(name: &str) -> (&str, &str) {
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

#[cfg(test)]
mod tests {
    use super::super::FileId;
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 1_795_305_600_000; // 2026-11-22

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

    #[test]
    fn conflict_names_keep_the_extension_of_files_only() {
        assert_eq!(
            conflict_name("a.tar.gz", true, "laptop", DAY, None),
            "a.tar (conflict from laptop, 2026-11-22).gz"
        );
        assert_eq!(
            conflict_name("v1.2", false, "laptop", DAY, None),
            "v1.2 (conflict from laptop, 2026-11-22)"
        );
        assert_eq!(
            conflict_name(".profile", true, "x", DAY, None),
            ".profile (conflict from x, 2026-11-22)"
        );
        assert_eq!(
            conflict_name("a.b c", true, "", DAY, None),
            "a.b c (conflict from another device, 2026-11-22)"
        );
        let id = FileId([0x1a; 16]);
        assert_eq!(
            conflict_name("a", true, "my/pc\n", DAY, Some((id, 2))),
            format!(
                "a (conflict from my-pc-, 2026-11-22, {}, 2)",
                "1a".repeat(16)
            )
        );
    }

    proptest! {
        #[test]
        fn whatever_is_shown_is_a_safe_name(name in any::<String>(), label in any::<String>(), ms in any::<u64>(), file in any::<bool>(),
                                            tie in proptest::option::of((any::<[u8; 16]>().prop_map(FileId), 1u32..))) {
            let shown = shown_name(&name);
            prop_assert_eq!(check_name(&shown), Ok(()));
            prop_assert_eq!(check_name(&conflict_name(&shown, file, &label, ms, tie)), Ok(()));
            let tie = tie.unwrap_or((FileId::ROOT, 1));
            prop_assert_eq!(check_name(&waiting_name(&shown, file, tie)), Ok(()));
        }

        #[test]
        fn long_names_are_cut_at_a_character(name in "[é/]{200,300}") {
            prop_assert_eq!(check_name(&shown_name(&name)), Ok(()));
        }
    }
}
