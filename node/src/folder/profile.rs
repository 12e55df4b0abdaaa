//! What a file system takes as names, which names it takes for one, and how exactly it keeps times.
//!
//! The rules are data: tests run those of other systems on whatever disk there is. On the real disk they are found out
//! by trying ([`super::place`]).

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

/// What a file system does with names and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `A.txt` and `a.txt` are one file.
    pub folds_case: bool,
    /// `é` in one character and `e` with an accent after it are one name.
    pub folds_form: bool,
    /// Windows' rules: none of `<>:"\|?*`, no control characters, no dot or blank at the end, no `CON`, `NUL.txt`, ….
    pub is_windows: bool,
    /// How long a name may be.
    pub limit: Limit,
    /// The step in which it keeps modification times, in milliseconds: 1 where they are as fine as the vault's, 2000 on FAT,
    /// 1000 on ext3 and HFS+.
    pub time_step_ms: i64,
}

/// The longest name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// In bytes of UTF-8.
    Bytes(usize),
    /// In units of UTF-16.
    Utf16(usize),
}

impl Default for Profile {
    fn default() -> Profile {
        Profile::EXT4
    }
}

impl Profile {
    /// Anything but `/` and NUL, up to 255 bytes: ext4, btrfs, xfs, and what else Linux calls its own.
    pub const EXT4: Profile = Profile {
        folds_case: false,
        folds_form: false,
        is_windows: false,
        limit: Limit::Bytes(255),
        time_step_ms: 1,
    };
    /// macOS as it is set up by default, and Linux folders with `+F`.
    pub const APFS: Profile = Profile {
        folds_case: true,
        folds_form: true,
        is_windows: false,
        limit: Limit::Bytes(255),
        time_step_ms: 1,
    };
    /// Windows; also FAT and exFAT wherever they are mounted.
    pub const NTFS: Profile = Profile {
        folds_case: true,
        folds_form: false,
        is_windows: true,
        limit: Limit::Utf16(255),
        time_step_ms: 1,
    };

    /// Whether two different names can be one to it.
    pub fn folds(self) -> bool {
        self.folds_case || self.folds_form
    }

    /// Whether every name of the vault can stand on it as it is.
    pub fn takes_all(self) -> bool {
        let time_step_ms = Profile::EXT4.time_step_ms;
        Profile {
            time_step_ms,
            ..self
        } == Profile::EXT4
    }

    /// Whether a time of the vault (milliseconds since 1970) and one on this disk (nanoseconds) are one, as far as the disk
    /// can tell: whatever it makes of the first when that is set, cut off or rounded, is never taken for another.
    pub fn is_same_time(self, vault_ms: i64, disk_ns: i128) -> bool {
        let apart = disk_ns.div_euclid(1_000_000) - i128::from(vault_ms);
        apart.abs() < i128::from(self.time_step_ms)
    }

    /// What two names have in common exactly if they are one to it (or may be: a file system's own table of letters can
    /// be older than ours).
    pub fn key(self, name: &str) -> Cow<'_, str> {
        if name.is_ascii() {
            return match self.folds_case {
                true if name.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                    Cow::Owned(name.to_ascii_lowercase())
                }
                _ => Cow::Borrowed(name),
            };
        }
        match (self.folds_case, self.folds_form) {
            (false, false) => Cow::Borrowed(name),
            (true, false) => Cow::Owned(caseless::default_case_fold_str(name)),
            (false, true) => Cow::Owned(seen(name).nfd().collect()),
            (true, true) => {
                let plain: String = seen(name).nfd().collect();
                let folded = caseless::default_case_fold_str(&plain);
                // Folding can bring characters that decompose in their turn.
                Cow::Owned(folded.nfd().collect())
            }
        }
    }

    /// Whether two names differ in nothing that it keeps apart, case aside.
    pub fn is_same_form(self, one: &str, other: &str) -> bool {
        one == other || (self.folds_form && seen(one).nfd().eq(seen(other).nfd()))
    }

    /// Whether a name is short enough.
    pub fn fits(self, name: &str) -> bool {
        self.room(name) >= 0
    }

    /// How much longer it may be, in the limit's units.
    pub(super) fn room(self, name: &str) -> isize {
        let (limit, length) = match self.limit {
            Limit::Bytes(limit) => (limit, name.len()),
            Limit::Utf16(limit) => (limit, name.encode_utf16().count()),
        };
        limit as isize - length as isize
    }

    /// A name without its last characters, so that at least `room` units are left.
    pub(super) fn cut(self, name: &str, room: usize) -> &str {
        let (limit, unit): (usize, fn(char) -> usize) = match self.limit {
            Limit::Bytes(limit) => (limit, char::len_utf8),
            Limit::Utf16(limit) => (limit, char::len_utf16),
        };
        let (mut left, mut end) = (limit.saturating_sub(room), 0);
        for char in name.chars() {
            let Some(rest) = left.checked_sub(unit(char)) else {
                break;
            };
            left = rest;
            end += char.len_utf8();
        }
        &name[..end]
    }
}

/// Without the characters that HFS+ does not see in names: marks of direction and joiners.
fn seen(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().filter(|char| {
        !matches!(
            char,
            '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_one(profile: Profile, one: &str, other: &str) -> bool {
        profile.key(one) == profile.key(other)
    }

    #[test]
    fn each_file_system_takes_its_own_names_for_one() {
        let (nfc, nfd) = ("caf\u{e9}", "cafe\u{301}");
        assert!(!is_one(Profile::EXT4, "A", "a") && !is_one(Profile::EXT4, nfc, nfd));
        assert!(is_one(Profile::APFS, "A", "a") && is_one(Profile::APFS, nfc, nfd));
        assert!(is_one(Profile::APFS, "CAFE\u{301}", nfc));
        assert!(is_one(Profile::NTFS, "\u{c9}", "\u{e9}") && !is_one(Profile::NTFS, nfc, nfd));
        assert!(is_one(Profile::APFS, "a\u{200d}b", "ab"));
        assert!(is_one(Profile::NTFS, "\u{3a3}", "\u{3c2}"), "sigmas");
        assert!(
            is_one(Profile::APFS, "\u{212a}", "k"),
            "the sign for kelvin"
        );
    }

    #[test]
    fn times_are_compared_as_exactly_as_the_disk_keeps_them() {
        let fat = Profile {
            time_step_ms: 2000,
            ..Profile::NTFS
        };
        for (profile, vault_ms, disk_ns, is_same) in [
            (Profile::EXT4, 5, 5_999_999, true),
            (Profile::EXT4, 5, 6_000_000, false),
            (Profile::EXT4, -1, -1, true),
            (fat, 3999, 2_000_000_000, true),
            (fat, 3999, 4_000_000_000, true),
            (fat, 4000, 2_000_000_000, false),
            (fat, i64::MIN, i128::MAX / 2, false),
        ] {
            let found = profile.is_same_time(vault_ms, disk_ns);
            assert_eq!(found, is_same, "{vault_ms} and {disk_ns}");
        }
        assert!(
            Profile {
                time_step_ms: 1000,
                ..Profile::EXT4
            }
            .takes_all()
        );
    }

    #[test]
    fn names_are_measured_and_cut_in_the_limits_units() {
        let name = "\u{1f600}".repeat(100);
        assert!(!Profile::EXT4.fits(&name) && Profile::NTFS.fits(&name));
        assert_eq!(Profile::EXT4.cut(&name, 0).len(), 252);
        assert!(!Profile::NTFS.fits(&"x".repeat(256)));
        assert_eq!(Profile::NTFS.cut(&name, 155).chars().count(), 50);
    }
}
