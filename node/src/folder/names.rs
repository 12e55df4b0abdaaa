//! Names of conflict copies. How names of the vault are spelt on disk is in [`super::spelling`].

use coffer_crdt::files::{FileId, MAX_NAME_BYTES};

pub use super::profile::Profile;
pub use super::spelling::{to_disk, to_vault};

/// The mark of a conflict copy begins so.
const MARK: &str = " (conflict from ";

/// The longest part after the last dot that counts as an extension, as in the tree.
const MAX_EXTENSION_BYTES: usize = 16;

/// How much of a device's name goes into a mark, in bytes, as in the tree.
const MAX_LABEL_BYTES: usize = 40;

/// The name of the copy of `name` that keeps what device `label` wrote at `ms` (milliseconds since 1970, UTC):
/// `name (conflict from label, 2026-11-22).ext`; the second and later ones of a day say which they are:
/// `name (conflict from label, 2026-11-22, 2).ext`. Marks are not stacked: the copy of a copy is named after the original.
pub fn conflict_name(name: &str, is_file: bool, label: &str, ms: i64, number: u32) -> String {
    let original = without_mark(name, is_file);
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
        label => &label[..label.floor_char_boundary(MAX_LABEL_BYTES)],
    };
    let number = if number > 1 {
        format!(", {number}")
    } else {
        String::new()
    };
    with_mark(
        &original,
        is_file,
        &format!("{MARK}{label}, {}{number})", date(ms)),
    )
}

/// Conflict copies of one file by one device on one day, at most. A program that rewrites its file every second breeds
/// no more: the last one gets the newer content then, and what it held is in its history.
pub const MAX_COPIES: u32 = 5;

/// Numbers tried for a copy, at most: those of copies that a person has settled are never used again.
pub const MAX_NUMBERS: u32 = 200;

/// The id of that copy: the same on every device that makes it, so that one conflict makes one copy.
pub fn conflict_id(file: FileId, label: &str, ms: i64, number: u32) -> FileId {
    let mut hasher = blake3::Hasher::new_derive_key(CONFLICT_ID_CONTEXT);
    hasher
        .update(&file.0)
        .update(&number.to_le_bytes())
        .update(date(ms).as_bytes())
        .update(label.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    FileId(id)
}

/// Context string of [`conflict_id`].
pub const CONFLICT_ID_CONTEXT: &str = "coffer 2026-11 id of a conflict copy";

/// Whether a name could be that of a conflict copy: quick to say, for the many that are not.
pub fn may_be_marked(name: &str) -> bool {
    name.len() > MARK.len() && name.contains(MARK)
}

/// What the name of a conflict copy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictMark {
    /// The name without the mark; cut where the mark left no room for all of it.
    pub original: String,
    /// The device that wrote what is in the copy.
    pub label: String,
    /// When: `2026-11-22`.
    pub date: String,
    /// The mark itself, blank and parentheses included.
    mark: String,
}

impl ConflictMark {
    /// Reads the name of a conflict copy, made here or by the tree; `None` for other names.
    pub fn read(name: &str, is_file: bool) -> Option<ConflictMark> {
        let (stem, extension) = if is_file {
            split_extension(name)
        } else {
            (name, "")
        };
        let at = stem.find(MARK).filter(|at| *at > 0)?;
        let mark = &stem[at..];
        let text = mark[MARK.len()..].strip_suffix(')')?;
        // From the right: a device may have a date in its name.
        let (comma, date) = text.rmatch_indices(", ").find_map(|(comma, _)| {
            let rest = &text[comma + 2..];
            let date = rest.get(..10)?;
            let ends = rest.len() == 10 || rest[10..].starts_with(", ");
            (ends && is_date(date)).then_some((comma, date))
        })?;
        Some(ConflictMark {
            original: format!("{}{extension}", &stem[..at]),
            label: text[..comma].to_owned(),
            date: date.to_owned(),
            mark: mark.to_owned(),
        })
    }

    /// Whether the copy may be one of a file called `name`, whose name was cut to make room for the mark.
    pub fn is_cut_from(&self, name: &str, is_file: bool) -> bool {
        name.len() > self.original.len()
            && without_mark(&with_mark(name, is_file, &self.mark), is_file) == self.original
    }

    /// An ordinary name for the copy beside a file called `original`: `name (label, 2026-11-22).ext`.
    pub fn ordinary(&self, original: &str, is_file: bool, number: u32) -> String {
        let number = if number > 1 {
            format!(", {number}")
        } else {
            String::new()
        };
        let (label, date) = (&self.label, &self.date);
        with_mark(original, is_file, &format!(" ({label}, {date}{number})"))
    }
}

fn is_date(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    })
}

fn with_mark(name: &str, is_file: bool, mark: &str) -> String {
    let (stem, extension) = if is_file {
        split_extension(name)
    } else {
        (name, "")
    };
    let room = MAX_NAME_BYTES.saturating_sub(mark.len() + extension.len());
    format!(
        "{}{mark}{extension}",
        &stem[..stem.floor_char_boundary(room)]
    )
}

fn without_mark(name: &str, is_file: bool) -> String {
    let (stem, extension) = if is_file {
        split_extension(name)
    } else {
        (name, "")
    };
    match stem.find(MARK) {
        Some(at) if at > 0 && stem.ends_with(')') => format!("{}{extension}", &stem[..at]),
        _ => name.to_owned(),
    }
}

fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 => {
            let ending = &name[dot + 1..];
            let counts = (1..=MAX_EXTENSION_BYTES).contains(&ending.len())
                && ending.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if counts {
                name.split_at(dot)
            } else {
                (name, "")
            }
        }
        _ => (name, ""),
    }
}

/// Date `2026-11-22` (UTC), by the civil-from-days algorithm (Hinnant).
fn date(ms: i64) -> String {
    let days = ms.div_euclid(86_400_000) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: i64 = 1_795_305_600_000 + 43_200_000;

    #[test]
    fn marks_do_not_stack() {
        let first = conflict_name("a.txt", true, "laptop", NOON, 1);
        assert_eq!(first, "a (conflict from laptop, 2026-11-22).txt");
        let second = conflict_name(&first, true, "laptop", NOON, 2);
        assert_eq!(second, "a (conflict from laptop, 2026-11-22, 2).txt");
        assert_eq!(
            conflict_name(&second, true, "desk", NOON, 1),
            "a (conflict from desk, 2026-11-22).txt"
        );
        assert_eq!(
            conflict_name("v1.2", false, "", NOON, 1),
            "v1.2 (conflict from another device, 2026-11-22)"
        );
    }

    #[test]
    fn the_name_of_a_copy_tells_of_what_whom_and_when() {
        for (name, original, label) in [
            (
                "a (conflict from laptop, 2026-11-22).txt",
                "a.txt",
                "laptop",
            ),
            (
                "a (conflict from old, 2020-01-01, box, 2026-11-22, 3).txt",
                "a.txt",
                "old, 2020-01-01, box",
            ),
            (
                "b (conflict from laptop, 2026-11-22, 0101010101010101, 2)",
                "b",
                "laptop",
            ),
        ] {
            let mark = ConflictMark::read(name, true).unwrap();
            assert_eq!(
                (&*mark.original, &*mark.label, &*mark.date),
                (original, label, "2026-11-22")
            );
            let ordinary = mark.ordinary(original, true, 2);
            assert_eq!(ConflictMark::read(&ordinary, true), None, "{ordinary}");
        }
        for name in [
            "a.txt",
            "a (conflict from laptop).txt",
            "a (conflict from laptop, 2026-11-2x).txt",
            " (conflict from laptop, 2026-11-22)",
            "a (conflict from laptop, 2026-11-22) b",
        ] {
            assert_eq!(ConflictMark::read(name, true), None, "{name}");
        }
        let long = format!("{}.txt", "n".repeat(250));
        let mark =
            ConflictMark::read(&conflict_name(&long, true, "laptop", NOON, 1), true).unwrap();
        assert!(mark.is_cut_from(&long, true));
        assert!(!mark.is_cut_from(&format!("{}.txt", "m".repeat(250)), true));
    }

    #[test]
    fn a_copy_has_the_same_id_all_day_and_on_every_device() {
        let file = FileId([1; 16]);
        assert_eq!(
            conflict_id(file, "laptop", NOON, 1),
            conflict_id(file, "laptop", NOON + 60_000, 1)
        );
        assert_ne!(
            conflict_id(file, "laptop", NOON, 1),
            conflict_id(file, "laptop", NOON + 86_400_000, 1)
        );
        assert_ne!(
            conflict_id(file, "laptop", NOON, 1),
            conflict_id(file, "desk", NOON, 1)
        );
        assert_ne!(
            conflict_id(file, "laptop", NOON, 1),
            conflict_id(file, "laptop", NOON, 2)
        );
    }

    proptest! {
        #[test]
        fn conflict_names_are_valid(name in "[^/\0]{1,255}", label in any::<String>(), ms in -(1i64 << 45)..1 << 45, file in any::<bool>(), number in 1u32..9) {
            prop_assume!(coffer_crdt::files::check_name(&name).is_ok());
            let copy = conflict_name(&name, file, &label, ms, number);
            prop_assert!(coffer_crdt::files::check_name(&copy).is_ok());
            prop_assert!(ConflictMark::read(&copy, file).is_some(), "{}", copy);
        }

        #[test]
        fn any_name_can_be_read(name in ".{0,40}( \\(conflict from .{0,20}, [0-9]{4}-[0-9]{2}-[0-9]{2}.{0,8}\\))?.{0,8}", file in any::<bool>()) {
            if let Some(mark) = ConflictMark::read(&name, file) {
                prop_assert!(!mark.ordinary(&mark.original, file, 1).is_empty());
            }
        }
    }
}
