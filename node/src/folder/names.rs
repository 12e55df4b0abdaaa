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
        }
    }
}
