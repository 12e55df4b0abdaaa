//! Names of the vault as they are spelt on disk.
//!
//! What a file system does not take is written so that it can be read back: a forbidden character as `%3F`, the first
//! letter of a reserved name as `%43` (`%43ON` is `CON`), and the folder's own hidden place is kept apart by a `~`.
//!
//! What cannot be helped so gets a **mark**, twelve digits of the hash of its true name: `a~0123456789ab.txt`. That are
//! names that are too long; those that another one in the folder is one with on this disk ([`Crowd`]); and those that
//! look as if they had a mark. A marked name is read back by looking for the one in the vault that is spelt so.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use coffer_crdt::files::names::split_extension;
use coffer_crdt::files::{Dot, FileId, Stamp};
use coffer_crdt::tree::Tree;

use super::place::HIDDEN;
use super::profile::Profile;

/// What goes before two hexadecimal digits where a byte is written as a number.
const ESCAPE: char = '%';
/// What goes before the digits of a mark.
const MARK: char = '~';
/// Digits of a mark: 48 bits, too many for two names of one folder to share by chance.
const MARK_DIGITS: usize = 12;
/// Context string of a mark's hash.
pub const MARK_CONTEXT: &str = "coffer 2026-11 mark of a name that a disk cannot show";

/// The name on disk of what the vault calls `name`, if no other name is in its way; `at_top` if it stands directly in
/// the synced folder.
pub fn to_disk(name: &str, at_top: bool, profile: Profile) -> Cow<'_, str> {
    let plain = plain(name, at_top, profile);
    let is_ambiguous = !profile.takes_all() && has_mark(&plain);
    if profile.fits(&plain) && !is_ambiguous {
        plain
    } else {
        Cow::Owned(marked(name, at_top, profile))
    }
}

/// The name in the vault of what is called `name` on disk, unless that is marked; the inverse of [`to_disk`].
pub fn to_vault(name: &str, at_top: bool, profile: Profile) -> Cow<'_, str> {
    if at_top
        && let Some(shorter) = name.strip_suffix('~')
        && is_hidden_family(shorter, profile)
    {
        return Cow::Borrowed(shorter);
    }
    if profile.is_windows {
        unescape(name)
    } else {
        Cow::Borrowed(name)
    }
}

/// Whether `disk` is a spelling of `name`: the plain one, or the marked one.
pub fn stands_for(disk: &str, name: &str, at_top: bool, profile: Profile) -> bool {
    is_plain(disk, name, at_top, profile)
        || (has_mark(disk) && disk == marked(name, at_top, profile))
}

/// Whether `disk` is the plain spelling of `name`, in whatever form the disk gives it back.
pub fn is_plain(disk: &str, name: &str, at_top: bool, profile: Profile) -> bool {
    profile.is_same_form(&to_vault(disk, at_top, profile), name)
}

/// The spelling that no other name has: with a mark before its ending.
pub fn marked(name: &str, at_top: bool, profile: Profile) -> String {
    let plain = plain(name, at_top, profile);
    let hash = blake3::Hasher::new_derive_key(MARK_CONTEXT)
        .update(name.as_bytes())
        .finalize()
        .to_hex();
    let mark = format!("{MARK}{}", &hash[..MARK_DIGITS]);
    let (stem, ending) = split_extension(&plain);
    format!(
        "{}{mark}{ending}",
        profile.cut(stem, mark.len() + ending.len())
    )
}

/// Whether a name on disk looks as if it were marked.
pub fn has_mark(name: &str) -> bool {
    let stem = split_extension(name).0;
    let digits = stem.rfind(MARK).map(|at| &stem[at + MARK.len_utf8()..]);
    digits.is_some_and(|digits| {
        digits.len() == MARK_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn plain(name: &str, at_top: bool, profile: Profile) -> Cow<'_, str> {
    if at_top && is_hidden_family(name, profile) {
        return Cow::Owned(format!("{name}~"));
    }
    if profile.is_windows {
        escape(name)
    } else {
        Cow::Borrowed(name)
    }
}

/// `.vault`, and what stands in for it: `.vault~`, `.vault~~`, ... Each is shifted by one, so none is lost. On a disk
/// that does not tell letters apart, `.Vault` is the hidden place too.
fn is_hidden_family(name: &str, profile: Profile) -> bool {
    let trimmed = name.trim_end_matches('~');
    trimmed == HIDDEN || (profile.folds() && profile.key(trimmed) == HIDDEN)
}

fn is_forbidden(char: char) -> bool {
    char.is_ascii_control() || matches!(char, '<' | '>' | ':' | '"' | '\\' | '|' | '?' | '*')
}

/// Names of Windows' devices, whatever comes after a dot.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end_matches(' ');
    let upper = stem.to_ascii_uppercase();
    match upper.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" => true,
        other => {
            let number = other
                .strip_prefix("COM")
                .or_else(|| other.strip_prefix("LPT"));
            number.is_some_and(|number| {
                matches!(number, "\u{b9}" | "\u{b2}" | "\u{b3}")
                    || (number.len() == 1 && number.bytes().all(|byte| byte.is_ascii_digit()))
            })
        }
    }
}

/// The byte that `%XX` at the start of `text` is written for, if it is one at all.
fn number_at(text: &str) -> Option<char> {
    let digits = text.strip_prefix(ESCAPE)?.get(..2)?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    u8::from_str_radix(digits, 16)
        .ok()
        .filter(|_| digits.bytes().all(is_digit))
        .map(char::from)
}

/// Whether `%XX` at the start of `text` stands for a byte that [`escape`] writes so. `rest` is what the name goes on with,
/// as the vault has it, at the start of a name; elsewhere `None`.
fn escaped_at(text: &str, rest: Option<&str>) -> Option<char> {
    let char = number_at(text)?;
    let anywhere = is_forbidden(char) || matches!(char, ESCAPE | '.' | ' ');
    let begins_reserved = || {
        rest.is_some_and(|rest| char.is_ascii_alphabetic() && is_reserved(&format!("{char}{rest}")))
    };
    (anywhere || begins_reserved()).then_some(char)
}

fn escape(name: &str) -> Cow<'_, str> {
    let reserved = is_reserved(name);
    let reads_as_number = |at: usize| {
        let rest = (at == 0).then(|| name.get(3..)).flatten();
        escaped_at(&name[at..], rest).is_some()
    };
    let bad = |(at, char): (usize, char)| {
        is_forbidden(char)
            || (at == 0 && reserved)
            || (char == ESCAPE && reads_as_number(at))
            || (matches!(char, '.' | ' ') && at + 1 == name.len())
    };
    if !name.char_indices().any(bad) {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len() + 8);
    for (at, char) in name.char_indices() {
        if bad((at, char)) {
            out.push_str(&format!("{ESCAPE}{:02X}", u32::from(char)));
        } else {
            out.push(char);
        }
    }
    Cow::Owned(out)
}

fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains(ESCAPE) {
        return Cow::Borrowed(name);
    }
    if number_at(name).is_some() {
        // What the first number means depends on what comes after it.
        let rest = unescape_rest(&name[3..]);
        let first = match escaped_at(name, Some(&rest)) {
            Some(meant) => meant.to_string(),
            None => name[..3].to_owned(),
        };
        return Cow::Owned(first + &rest);
    }
    Cow::Owned(unescape_rest(name))
}

fn unescape_rest(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(char) = rest.chars().next() {
        match escaped_at(rest, None) {
            Some(meant) => {
                out.push(meant);
                rest = &rest[3..];
            }
            None => {
                out.push(char);
                rest = &rest[char.len_utf8()..];
            }
        }
    }
    out
}

/// Which of the names of one folder a disk takes for one with an earlier one, so that they get a mark. The earliest by
/// `order`, which is the vault's own and no matter of arrival, is spelt plainly.
pub fn crowded<'a, T: Copy + Ord, O: Ord>(
    names: impl IntoIterator<Item = (&'a str, T)>,
    at_top: bool,
    profile: Profile,
    order: impl Fn(T) -> O,
) -> BTreeSet<T> {
    let mut by_key: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (name, id) in names {
        let disk = to_disk(name, at_top, profile);
        // Marked ones are in nobody's way.
        if !has_mark(&disk) {
            let key = profile.key(&disk).into_owned();
            by_key.entry(key).or_default().push(id);
        }
    }
    let mut crowded = BTreeSet::new();
    for mut twins in by_key.into_values().filter(|twins| twins.len() > 1) {
        twins.sort_by_key(|id| (order(*id), *id));
        crowded.extend(&twins[1..]);
    }
    crowded
}

/// What was found out about the folders of a tree, for as long as the tree stays as it is.
#[derive(Default)]
pub struct Crowd {
    folders: BTreeMap<FileId, BTreeSet<FileId>>,
}

impl Crowd {
    /// Whether a disk takes the name of `id` for one with an earlier one in its folder of the vault.
    pub fn has(
        &mut self,
        tree: &Tree,
        folder: FileId,
        id: FileId,
        at_top: bool,
        profile: Profile,
    ) -> bool {
        if !profile.folds() {
            return false;
        }
        self.folders
            .entry(folder)
            .or_insert_with(|| {
                let names: Vec<(&str, FileId)> = tree
                    .children(folder)
                    .map(|(name, id)| (&**name, id))
                    .collect();
                crowded(names, at_top, profile, |id| age(tree, id))
            })
            .contains(&id)
    }
}

/// Since when a file has had its place, by the vault's clocks.
fn age(tree: &Tree, id: FileId) -> Option<(Stamp, Dot)> {
    let place = tree.get(id)?.place;
    Some((place.stamp, place.dot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Profile; 3] = [Profile::EXT4, Profile::APFS, Profile::NTFS];

    #[test]
    fn the_hidden_place_is_never_named_by_the_vault() {
        let ext4 = Profile::EXT4;
        assert_eq!(to_disk(".vault", true, ext4), ".vault~");
        assert_eq!(to_vault(".vault~", true, ext4), ".vault");
        assert_eq!(to_disk(".vault~", true, ext4), ".vault~~");
        assert_eq!(to_disk(".vault", false, ext4), ".vault");
        assert_eq!(to_disk(".vaults", true, ext4), ".vaults");
        assert_eq!(to_disk(".Vault", true, ext4), ".Vault");
        assert_eq!(to_disk(".Vault", true, Profile::NTFS), ".Vault~");
        assert_eq!(to_vault(".Vault~", true, Profile::APFS), ".Vault");
        assert_eq!(
            to_disk(".va\u{200c}ult", true, Profile::APFS),
            ".va\u{200c}ult~"
        );
    }

    #[test]
    fn forbidden_characters_and_reserved_names_are_written_as_numbers() {
        for (name, disk) in [
            ("what? 50%3F.", "what%3F 50%253F%2E"),
            ("100% sure", "100% sure"),
            ("CON", "%43ON"),
            ("nul.txt", "%6Eul.txt"),
            ("Com1.tar.gz", "%43om1.tar.gz"),
            ("LPT\u{b2}", "%4CPT\u{b2}"),
            ("aux .x", "%61ux .x"),
            ("%43ON", "%2543ON"),
            ("CONSOLE", "CONSOLE"),
            ("COM", "COM"),
            ("blank ", "blank%20"),
            ("con.", "%63on%2E"),
            ("%63on%2E", "%63on%252E"),
            ("con .x ", "%63on .x%20"),
        ] {
            assert_eq!(to_disk(name, false, Profile::NTFS), disk);
            assert_eq!(to_vault(disk, false, Profile::NTFS), name);
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_and_marked() {
        let long = "?".repeat(200) + ".jpeg";
        let disk = to_disk(&long, false, Profile::NTFS);
        assert!(Profile::NTFS.fits(&disk) && has_mark(&disk) && disk.ends_with(".jpeg"));
        assert!(stands_for(&disk, &long, false, Profile::NTFS));
        let other = "?".repeat(201) + ".jpeg";
        assert_ne!(disk, to_disk(&other, false, Profile::NTFS));
        assert!(!stands_for(&disk, &other, false, Profile::NTFS));
    }

    #[test]
    fn of_twins_the_earlier_keeps_its_name() {
        let names = ["a.txt", "A.txt", "b.txt", "A.TXT"];
        let order = [2, 1, 0, 3];
        let twins = crowded(
            names.iter().enumerate().map(|(at, name)| (*name, at)),
            false,
            Profile::NTFS,
            |at| order[at],
        );
        assert_eq!(twins, BTreeSet::from([0, 3]));
        let none = crowded([("a", 0), ("A", 1)], false, Profile::EXT4, |at| at);
        assert!(none.is_empty());
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[^/\0]{1,60}",
            "[aAbB\u{e9}\u{c9}~.%]{1,6}",
            "(%63on|%43ON|con|CON|Nul|lpt1)(%2E|[. ])?([. ][a-z]{0,3})?",
            "(e\u{301}|\u{e9}|E\u{301}|k|K|\u{212a}|\u{df}|ss|SS)(\\.txt)?",
            "a~[0-9a-f]{12}(\\.txt)?",
            "\\.[vV]ault~{0,2}",
            "[?x]{200,255}",
        ]
        .prop_filter("a name of the vault", |name| {
            coffer_crdt::files::check_name(name).is_ok()
        })
    }

    proptest! {
        #[test]
        fn what_goes_to_disk_comes_back(name in name(), top in any::<bool>(), which in 0usize..3) {
            let profile = ALL[which];
            let disk = to_disk(&name, top, profile);
            prop_assert!(profile.fits(&disk));
            prop_assert!(stands_for(&disk, &name, top, profile));
            if !has_mark(&disk) {
                prop_assert_eq!(to_vault(&disk, top, profile), name.as_str());
            }
            if profile.is_windows {
                prop_assert!(!disk.chars().any(is_forbidden) && !disk.ends_with(['.', ' ']));
                prop_assert!(!is_reserved(&disk));
            }
            if top {
                prop_assert_ne!(profile.key(&disk), HIDDEN);
            }
        }

        #[test]
        fn names_of_one_folder_are_told_apart_on_every_disk(
            names in proptest::collection::btree_set(name(), 1..12), top in any::<bool>(), which in 0usize..3, turn in 0usize..12,
        ) {
            let profile = ALL[which];
            let names: Vec<String> = names.into_iter().collect();
            let age = |at: usize| blake3::hash(names[at].as_bytes()).as_bytes()[0];
            let spell = |order: Vec<usize>| -> BTreeMap<String, String> {
                let listed = order.iter().map(|at| (names[*at].as_str(), *at));
                let twins = crowded(listed, top, profile, age);
                let spell = |at: usize| if twins.contains(&at) { marked(&names[at], top, profile) } else { to_disk(&names[at], top, profile).into_owned() };
                order.iter().map(|at| (names[*at].clone(), spell(*at))).collect()
            };
            let mut order: Vec<usize> = (0..names.len()).collect();
            let spelt = spell(order.clone());
            let keys: BTreeSet<String> = spelt.values().map(|disk| profile.key(disk).into_owned()).collect();
            prop_assert_eq!(keys.len(), names.len(), "{:?}", spelt);
            for (name, disk) in &spelt {
                prop_assert!(profile.fits(disk));
                // And back, by the disk's name alone.
                let meant = if has_mark(disk) && !profile.takes_all() {
                    names.iter().find(|name| marked(name, top, profile) == *disk).unwrap().clone()
                } else {
                    to_vault(disk, top, profile).into_owned()
                };
                prop_assert_eq!(&meant, name);
            }
            // Whatever the order in which they came.
            order.rotate_left(turn % names.len());
            order.reverse();
            prop_assert_eq!(spell(order), spelt);
        }
    }
}
