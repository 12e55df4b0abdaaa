//! Two devices whose disks take other names: what a vault holds is shown on both, and what is done on either arrives.
//!
//! The disk under the tests takes every name; the rules of the others are injected. What these would refuse is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::profile::Profile;
use super::super::spelling::{has_mark, marked};
use super::cloud::Cloud;
use super::puppet::{Puppet, sync};

/// A device with a plain disk, and one with a disk of the other kind.
fn pair(profile: Profile) -> (Puppet, Puppet) {
    let cloud = Arc::new(Cloud::default());
    let (a, mut b) = (Puppet::new(1, cloud.clone()), Puppet::new(2, cloud));
    b.profile = profile;
    (a, b)
}

fn names(device: &Puppet) -> Vec<String> {
    device.listing().into_keys().collect()
}

/// Nothing is on the disk that a real one of its kind would refuse.
fn check_disk(device: &Puppet) {
    let mut keys = BTreeSet::new();
    for path in names(device) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        assert!(device.profile.fits(name), "{name}");
        let key = (folder.to_owned(), device.profile.key(name).into_owned());
        assert!(keys.insert(key), "{path} is there twice");
    }
}

#[test]
fn twins_are_both_in_the_vault_and_both_on_a_disk_that_cannot_tell_them_apart() {
    for profile in [Profile::APFS, Profile::NTFS] {
        let (mut a, mut b) = pair(profile);
        a.write("d/a.txt", "small");
        sync(&mut a, &mut b);
        a.write("d/A.txt", "large");
        sync(&mut a, &mut b);
        let twin = format!("d/{}", marked("A.txt", false, profile));
        assert_eq!(names(&b), ["d", &twin, "d/a.txt"]);
        assert_eq!(names(&a), ["d", "d/A.txt", "d/a.txt"]);
        // An edit of the one shown otherwise is an edit of that one; so are a move and a new name.
        b.write(&twin, "larger");
        sync(&mut a, &mut b);
        assert_eq!(a.listing()["d/A.txt"].as_deref(), Some("larger"));
        std::fs::create_dir(b.path("e")).unwrap();
        b.rename(&twin, &twin.replace("d/", "e/"));
        sync(&mut a, &mut b);
        assert_eq!(names(&a), ["d", "d/a.txt", "e", "e/A.txt"]);
        assert_eq!(names(&b), names(&a), "it is alone there");
        b.rename("e/A.txt", "d/other");
        sync(&mut a, &mut b);
        assert_eq!(names(&a), ["d", "d/a.txt", "d/other", "e"]);
        assert_eq!((a.conflicts, b.conflicts), (0, 0));
        assert_eq!(a.vault.listing().len(), 4);
    }
}

#[test]
fn the_other_twin_gets_the_name_when_the_first_goes() {
    let (mut a, mut b) = pair(Profile::APFS);
    a.write("caf\u{e9}", "composed");
    sync(&mut a, &mut b);
    a.write("cafe\u{301}", "decomposed");
    sync(&mut a, &mut b);
    assert!(names(&b).iter().any(|name| has_mark(name)));
    a.remove("caf\u{e9}");
    sync(&mut a, &mut b);
    assert_eq!(names(&b), ["cafe\u{301}"]);
    b.remove("cafe\u{301}");
    sync(&mut a, &mut b);
    assert!(names(&a).is_empty());
}

#[test]
fn deleting_the_one_shown_otherwise_deletes_that_one() {
    let (mut a, mut b) = pair(Profile::NTFS);
    a.write("x/readme", "1");
    sync(&mut a, &mut b);
    a.write("x/README", "2");
    a.write("X/other", "3");
    sync(&mut a, &mut b);
    check_disk(&b);
    let twin = names(&b)
        .into_iter()
        .find(|path| path.starts_with("x/") && has_mark(&path[2..]))
        .unwrap();
    b.remove(&twin);
    let folder = marked("X", true, Profile::NTFS);
    b.write(&format!("{folder}/new"), "4");
    sync(&mut a, &mut b);
    assert_eq!(names(&a), ["X", "X/new", "X/other", "x", "x/readme"]);
    b.remove(&folder);
    sync(&mut a, &mut b);
    assert_eq!(names(&a), ["x", "x/readme"]);
}

#[test]
fn a_name_in_other_letters_is_a_new_name() {
    for profile in [Profile::EXT4, Profile::APFS, Profile::NTFS] {
        let (mut a, mut b) = pair(profile);
        a.write("Photos/a.jpg", "1");
        sync(&mut a, &mut b);
        let before = a.vault.rows();
        b.rename("Photos", "photos");
        b.rename("photos/a.jpg", "photos/A.JPG");
        sync(&mut a, &mut b);
        assert_eq!(names(&a), ["photos", "photos/A.JPG"]);
        a.rename("photos", "PHOTOS");
        sync(&mut a, &mut b);
        assert_eq!(names(&b), ["PHOTOS", "PHOTOS/A.JPG"]);
        assert!(a.vault.rows().keys().eq(before.keys()), "still the same");
    }
}

#[test]
fn what_windows_forbids_is_shown_otherwise_and_keeps_its_name() {
    let (mut a, mut b) = pair(Profile::NTFS);
    let long = "x".repeat(240) + ".document";
    for name in ["CON", "nul.txt", "what?", "dot.", "a:b", &long, "d /e?/f"] {
        a.write(name, name);
    }
    sync(&mut a, &mut b);
    let expected = a.listing();
    check_disk(&b);
    let shown = names(&b);
    for name in [
        "%43ON",
        "%6Eul.txt",
        "what%3F",
        "dot%2E",
        "a%3Ab",
        "d%20/e%3F/f",
    ] {
        assert!(shown.iter().any(|path| path == name), "{name}: {shown:?}");
    }
    b.write("%43ON", "edited");
    b.rename("d%20", "folder%3F");
    sync(&mut a, &mut b);
    let mut wanted: BTreeMap<String, Option<String>> = expected
        .into_iter()
        .map(|(path, bytes)| (path.replacen("d /", "folder?/", 1), bytes))
        .collect();
    wanted.remove("d ");
    wanted.insert("folder?".into(), None);
    wanted.insert("CON".into(), Some("edited".into()));
    assert_eq!(a.listing(), wanted);
}

#[test]
fn a_name_that_is_too_long_for_a_disk_comes_back_whole() {
    let (mut a, mut b) = pair(Profile {
        limit: super::super::profile::Limit::Bytes(143),
        ..Profile::EXT4
    });
    let long = "\u{e9}".repeat(120) + ".pdf";
    a.write(&format!("d/{long}"), "1");
    sync(&mut a, &mut b);
    check_disk(&b);
    let shown = names(&b).pop().unwrap();
    b.write(&shown, "22");
    b.rename("d", "e");
    sync(&mut a, &mut b);
    assert_eq!(a.listing()[&format!("e/{long}")].as_deref(), Some("22"));
    assert_eq!(a.vault.listing().len(), 2);
}

#[test]
fn a_disk_that_gives_names_back_in_another_form_renames_nothing() {
    let (mut a, mut b) = pair(Profile::APFS);
    a.write("caf\u{e9}/\u{e9}", "1");
    sync(&mut a, &mut b);
    // As HFS+ would list it.
    b.rename("caf\u{e9}/\u{e9}", "caf\u{e9}/e\u{301}");
    b.rename("caf\u{e9}", "cafe\u{301}");
    let operations = b.vault.operations();
    sync(&mut a, &mut b);
    assert_eq!(b.vault.operations(), operations);
    assert_eq!(names(&a), ["caf\u{e9}", "caf\u{e9}/\u{e9}"]);
    assert_eq!(names(&b), ["cafe\u{301}", "cafe\u{301}/e\u{301}"]);
}

#[test]
fn the_first_merge_takes_another_spelling_of_a_name_for_the_same() {
    let (mut a, mut b) = pair(Profile::APFS);
    a.write("caf\u{e9}/Menu.txt", "1");
    b.write("cafe\u{301}/menu.txt", "1");
    a.settle();
    b.vault.pull(&a.vault);
    sync(&mut a, &mut b);
    assert_eq!(names(&a), ["caf\u{e9}", "caf\u{e9}/Menu.txt"]);
    assert_eq!((a.conflicts, b.conflicts), (0, 0));
}

#[test]
fn a_link_out_of_the_folder_is_a_link_and_its_target_is_left_alone() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let (mut a, mut b) = pair(Profile::EXT4);
    std::os::unix::fs::symlink(outside.path(), a.path("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), a.path("file")).unwrap();
    std::os::unix::fs::symlink("nowhere", a.path("broken")).unwrap();
    sync(&mut a, &mut b);
    assert_eq!(names(&b), ["broken", "file", "link"]);
    for name in ["broken", "file", "link"] {
        assert_eq!(
            std::fs::read_link(a.path(name)).unwrap(),
            std::fs::read_link(b.path(name)).unwrap()
        );
    }
    // A folder takes the link's place, with a file of the same name as one outside.
    b.remove("file");
    std::fs::remove_file(b.path("link")).unwrap();
    b.write("link/secret", "mine");
    sync(&mut a, &mut b);
    assert_eq!(
        std::fs::read_to_string(a.path("link/secret")).unwrap(),
        "mine"
    );
    assert_eq!(
        std::fs::read_to_string(outside.path().join("secret")).unwrap(),
        "secret"
    );
}

#[test]
fn the_executable_bit_survives_an_edit_elsewhere() {
    let (mut a, mut b) = pair(Profile::EXT4);
    a.write("run", "1");
    std::fs::set_permissions(a.path("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    sync(&mut a, &mut b);
    b.write("run", "22");
    sync(&mut a, &mut b);
    for device in [&a, &b] {
        let mode = std::fs::metadata(device.path("run")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o111, 0o111);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Write(usize, usize, usize),
    Rename(usize, usize, usize),
    Remove(usize, usize),
    Sync,
}

const NAMES: [&str; 9] = [
    "a", "A", "\u{e9}", "e\u{301}", "E\u{301}", "con", "CON", "d?", "D?",
];

fn act() -> impl Strategy<Value = Act> {
    let (who, name) = (0..2usize, 0..NAMES.len());
    prop_oneof![
        3 => (who.clone(), name.clone(), 0..4usize).prop_map(|(who, name, text)| Act::Write(who, name, text)),
        2 => (who.clone(), name.clone(), name.clone()).prop_map(|(who, from, to)| Act::Rename(who, from, to)),
        1 => (who, name).prop_map(|(who, name)| Act::Remove(who, name)),
        2 => Just(Act::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_done_both_disks_show_the_whole_vault(acts in proptest::collection::vec(act(), 1..14), windows in any::<bool>()) {
        let (mut a, mut b) = pair(if windows { Profile::NTFS } else { Profile::APFS });
        for act in acts {
            let (who, path) = match &act {
                Act::Write(who, name, _) | Act::Rename(who, name, _) | Act::Remove(who, name) => (*who, *name),
                Act::Sync => {
                    sync(&mut a, &mut b);
                    continue;
                }
            };
            let device = if who == 0 { &a } else { &b };
            let profile = device.profile;
            // On the other disk people see, and can make, other names.
            let listing = names(device);
            let seen = listing.get(path % listing.len().max(1)).cloned();
            let can = |name: &str| {
                let is_plain = !profile.is_windows || (!name.contains('?') && !name.eq_ignore_ascii_case("con"));
                is_plain && !listing.iter().any(|there| profile.key(there) == profile.key(name))
            };
            match act {
                Act::Write(_, name, text) if can(NAMES[name]) => device.write(NAMES[name], &"x".repeat(text + 1)),
                Act::Write(_, _, text) => if let Some(seen) = seen { device.write(&seen, &"y".repeat(text + 1)) },
                Act::Rename(_, _, to) => if let Some(seen) = seen && can(NAMES[to]) { device.rename(&seen, NAMES[to]) },
                Act::Remove(..) => if let Some(seen) = seen { device.remove(&seen) },
                Act::Sync => {}
            }
        }
        sync(&mut a, &mut b);
        check_disk(&b);
        prop_assert_eq!(a.vault.listing(), b.vault.listing());
        let shown: BTreeSet<String> = a.listing().into_keys().collect();
        prop_assert_eq!(shown, a.vault.listing().into_keys().collect::<BTreeSet<_>>());
        let mut contents: Vec<_> = a.listing().into_values().collect();
        let mut others: Vec<_> = b.listing().into_values().collect();
        contents.sort();
        others.sort();
        prop_assert_eq!(contents, others);
    }
}
