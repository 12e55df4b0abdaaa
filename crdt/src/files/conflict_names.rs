//! Names of conflict copies: how they are made, and what they say.
//!
//! `letter (conflict from laptop, 2026-11-22).pdf` is made by the tree for the later of two different files of one name,
//! and by a synced folder for the copy that keeps what would otherwise be overwritten. Marks are not stacked: the copy of
//! a copy is named after the original.

use std::borrow::Cow;

use super::FileId;
use super::date::day;
use super::names::{numbered, split_extension_of, with_mark};

/// The mark of a conflict copy begins so.
const MARK: &str = " (conflict from ";

/// How much of a device's label goes into a mark, in bytes.
const MAX_LABEL_BYTES: usize = 40;

/// The name of the copy of `name` that keeps what device `label` wrote at `ms` (milliseconds since 1970, UTC):
/// `name (conflict from label, 2026-11-22).ext`; the second and later ones of a day say which they are:
/// `name (conflict from label, 2026-11-22, 2).ext`.
pub fn conflict_name(name: &str, is_file: bool, label: &str, ms: i64, number: u32) -> String {
    marked(name, is_file, label, ms, &numbered(number))
}

/// The same with the file's id, for where that name is taken: `name (conflict from label, 2026-11-22, <id>).ext`, and
/// `…, <id>, 2)` where that is taken as well.
pub(crate) fn conflict_name_with_id(
    name: &str,
    is_file: bool,
    label: &str,
    ms: i64,
    (id, number): (FileId, u32),
) -> String {
    let end = format!(", {id}{}", numbered(number));
    marked(name, is_file, label, ms, &end)
}

fn marked(name: &str, is_file: bool, label: &str, ms: i64, end: &str) -> String {
    let (original, label, date) = (without_mark(name, is_file), shown_label(label), day(ms));
    with_mark(&original, is_file, &format!("{MARK}{label}, {date}{end})"))
}

/// A device's label as it can stand in a name.
fn shown_label(label: &str) -> String {
    let is_unfit = |char: char| char == '/' || char.is_control();
    let label = label.replace(is_unfit, "-");
    match label.trim() {
        "" => "another device".to_owned(),
        label => label[..label.floor_char_boundary(MAX_LABEL_BYTES)].to_owned(),
    }
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
    /// Whether a name could be that of a conflict copy: quick to say, for the many that are not.
    pub fn may_be_in(name: &str) -> bool {
        name.contains(MARK)
    }

    /// Reads the name of a conflict copy; `None` for other names.
    pub fn read(name: &str, is_file: bool) -> Option<ConflictMark> {
        let (stem, extension) = split_extension_of(name, is_file);
        let (at, _) = stem.match_indices(MARK).find(|(at, _)| *at > 0)?;
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
            && without_mark(&with_mark(name, is_file, &self.mark), is_file) == *self.original
    }

    /// An ordinary name for the copy beside a file called `original`: `name (label, 2026-11-22).ext`.
    pub fn ordinary(&self, original: &str, is_file: bool, number: u32) -> String {
        let (label, date, number) = (&self.label, &self.date, numbered(number));
        with_mark(original, is_file, &format!(" ({label}, {date}{number})"))
    }
}

fn is_date(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    })
}

fn without_mark(name: &str, is_file: bool) -> Cow<'_, str> {
    match ConflictMark::read(name, is_file) {
        Some(mark) => Cow::Owned(mark.original),
        None => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_name;
    use super::super::names::shown_name;
    use super::*;
    use proptest::prelude::*;

    const NOON: i64 = 1_795_305_600_000 + 43_200_000;

    #[test]
    fn conflict_names_keep_the_extension_of_files_only() {
        for (name, is_file, label, expected) in [
            (
                "a.tar.gz",
                true,
                "laptop",
                "a.tar (conflict from laptop, 2026-11-22).gz",
            ),
            (
                "v1.2",
                false,
                "laptop",
                "v1.2 (conflict from laptop, 2026-11-22)",
            ),
            (
                ".profile",
                true,
                "x",
                ".profile (conflict from x, 2026-11-22)",
            ),
            (
                "a.b c",
                true,
                "",
                "a.b c (conflict from another device, 2026-11-22)",
            ),
        ] {
            assert_eq!(conflict_name(name, is_file, label, NOON, 1), expected);
        }
        let id = FileId([0x1a; 16]);
        assert_eq!(
            conflict_name_with_id("a", true, "my/pc\n", NOON, (id, 2)),
            format!("a (conflict from my-pc-, 2026-11-22, {id}, 2)")
        );
    }

    #[test]
    fn marks_do_not_stack() {
        let first = conflict_name("a.txt", true, "laptop", NOON, 1);
        assert_eq!(first, "a (conflict from laptop, 2026-11-22).txt");
        let second = conflict_name(&first, true, "laptop", NOON, 2);
        assert_eq!(second, "a (conflict from laptop, 2026-11-22, 2).txt");
        let id = FileId([2; 16]);
        let third = conflict_name_with_id(&second, true, "laptop", NOON, (id, 1));
        assert_eq!(
            third,
            format!("a (conflict from laptop, 2026-11-22, {id}).txt")
        );
        assert_eq!(
            conflict_name(&third, true, "desk", NOON, 1),
            "a (conflict from desk, 2026-11-22).txt"
        );
        // What only looks like one is part of the name.
        assert_eq!(
            conflict_name("a (conflict from laptop) (draft)", true, "desk", NOON, 1),
            "a (conflict from laptop) (draft) (conflict from desk, 2026-11-22)"
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

    /// Found at random: the cut left `….h` of a name that had no extension.
    #[test]
    fn a_cut_makes_no_extension() {
        let name = format!("{}.h\u{2}", "n".repeat(218));
        let copy = conflict_name(&name, true, "laptop", NOON, 1);
        let expected = format!("{} (conflict from laptop, 2026-11-22)", "n".repeat(218));
        assert_eq!(copy, expected);
        assert_eq!(conflict_name(&copy, true, "laptop", NOON, 1), copy);
    }

    proptest! {
        #[test]
        fn conflict_names_are_valid(name in "[^/\0]{1,255}", label in any::<String>(), ms in -(1i64 << 45)..1 << 45, file in any::<bool>(), number in 1u32..9) {
            prop_assume!(check_name(&name).is_ok());
            let copy = conflict_name(&name, file, &label, ms, number);
            prop_assert!(check_name(&copy).is_ok());
            prop_assert!(ConflictMark::read(&copy, file).is_some(), "{}", copy);
            prop_assert_eq!(conflict_name(&copy, file, &label, ms, number), copy);
        }

        #[test]
        fn no_label_or_time_makes_an_unsafe_name(name in any::<String>(), label in any::<String>(), ms in any::<i64>(), file in any::<bool>(),
                                                 id in any::<[u8; 16]>(), number in any::<u32>()) {
            let shown = shown_name(&name);
            prop_assert_eq!(check_name(&conflict_name(&shown, file, &label, ms, number)), Ok(()));
            prop_assert_eq!(check_name(&conflict_name_with_id(&shown, file, &label, ms, (FileId(id), number))), Ok(()));
        }

        #[test]
        fn any_name_can_be_read(name in ".{0,40}( \\(conflict from .{0,20}, [0-9]{4}-[0-9]{2}-[0-9]{2}.{0,8}\\))?.{0,8}", file in any::<bool>()) {
            if let Some(mark) = ConflictMark::read(&name, file) {
                prop_assert!(!mark.ordinary(&mark.original, file, 1).is_empty());
            }
        }
    }
}
