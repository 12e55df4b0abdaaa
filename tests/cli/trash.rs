//! The trash and earlier contents: what is in it, what comes out, what goes for good, and what is kept.

use std::fs;

use serde_json::Value;

use crate::device::{Device, eventually, noise, pair_of_devices, tree, write};
use crate::folders::Synced;

fn field(rows: &[Value], name: &str) -> Vec<String> {
    let text = |row: &Value| row[name].as_str().unwrap().to_owned();
    let mut all: Vec<_> = rows.iter().map(text).collect();
    all.sort();
    all
}

fn trash(device: &Device) -> Vec<Value> {
    device.rows(&["trash", "list"])
}

fn read(device: &Device, arguments: &[&str]) -> String {
    device.ok(&[&["file", "get"], arguments, &["-"]].concat())
}

#[test]
fn deleted_things_are_listed_restored_and_purged_on_both_devices() {
    let (first, second) = pair_of_devices();
    write(&first.path("in/old/one.txt"), "one");
    write(&first.path("in/old/two.txt"), "two two");
    write(&first.path("in/letter.txt"), "first letter");
    first.ok(&["file", "add", "in", "--to", "Papers"]);
    first.in_sync();
    first.ok(&["file", "delete", "Papers/in/old"]);
    first.ok(&["file", "delete", "Papers/in/letter.txt"]);
    first.in_sync();
    let listed = trash(&second);
    assert_eq!(
        field(&listed, "path"),
        ["Papers/in/letter.txt", "Papers/in/old"]
    );
    let old = listed.iter().find(|row| row["folder"] == true).unwrap();
    assert_eq!(
        (&old["files"], &old["bytes"]),
        (&2.into(), &10.into()),
        "{old}"
    );
    assert_eq!(old["device"], "first");
    assert!(old["until_ms"].as_u64() > old["deleted_ms"].as_u64());

    // One file comes out of the folder that was deleted, and the folder with it.
    second.ok(&["trash", "restore", "Papers/in/old/one.txt"]);
    assert_eq!(read(&second, &["Papers/in/old/one.txt"]), "one");
    // The name of the letter is taken meanwhile.
    write(&second.path("letter.txt"), "second letter");
    second.ok(&["file", "add", "letter.txt", "--to", "Papers/in/letter.txt"]);
    let restored = second.row(&["trash", "restore", "Papers/in/letter.txt"]);
    assert_eq!(
        restored["items"][0]["path"],
        "Papers/in/letter (restored).txt"
    );
    second.in_sync();
    assert_eq!(read(&first, &["Papers/in/letter.txt"]), "second letter");
    assert_eq!(
        read(&first, &["Papers/in/letter (restored).txt"]),
        "first letter"
    );
    assert_eq!(field(&trash(&first), "path"), ["Papers/in/old/two.txt"]);

    first.run(&["trash", "empty"]).fails(5, "error: ");
    assert_eq!(trash(&first).len(), 1, "nobody said yes");
    first.ok(&["file", "delete", "Papers/in/letter.txt"]);
    first
        .run(&["trash", "empty", "Papers/nothing", "--yes"])
        .fails(3, "error: ");
    first.ok(&["trash", "empty", "Papers/in/old/two.txt", "--yes"]);
    assert_eq!(field(&trash(&first), "path"), ["Papers/in/letter.txt"]);
    let emptied = first.row(&["trash", "empty", "--yes"]);
    assert_eq!(
        (&emptied["files"], &emptied["bytes"]),
        (&1.into(), &13.into())
    );
    first.in_sync();
    assert_eq!(trash(&second), [] as [Value; 0]);
    second
        .run(&["trash", "restore", "Papers/in/letter.txt"])
        .fails(3, "error: ");
    assert_eq!(second.row(&["trash", "restore", "all"])["count"], 0);
    let export = second.path("export");
    second.ok(&["export", export.to_str().unwrap()]);
    let files = tree(&export.join("files"));
    assert_eq!(files.len(), tree(&export.join("files/Papers/in")).len() + 2);
    assert!(!export.join("files/Papers/in/letter.txt").exists());
    assert!(
        export
            .join("files/Papers/in/letter (restored).txt")
            .exists()
    );
}

#[test]
fn a_folder_that_was_removed_file_by_file_comes_back_whole() {
    let device = Device::founded("laptop");
    for restore in ["trash", "file"] {
        write(&device.path("in/one.txt"), "one");
        write(&device.path("in/sub/two.txt"), "two");
        let to = format!("Papers/{restore}");
        device.ok(&["file", "add", "in", "--to", &to]);
        for part in ["/in/sub/two.txt", "/in/sub", "/in/one.txt", "/in"] {
            device.ok(&["file", "delete", &format!("{to}{part}")]);
        }
        let folder = format!("{to}/in");
        device.ok(&[restore, "restore", &folder]);
        assert_eq!(read(&device, &[&format!("{folder}/one.txt")]), "one");
        assert_eq!(read(&device, &[&format!("{folder}/sub/two.txt")]), "two");
        assert_eq!(trash(&device), [] as [Value; 0]);
    }
}

#[test]
fn what_does_not_come_back_with_its_folder_is_listed_and_restored_by_itself() {
    let device = Device::founded("laptop");
    for text in ["one", "one more"] {
        write(&device.path("in/note.txt"), text);
        device.ok(&["file", "add", "in", "--to", "Papers"]);
        device.ok(&["file", "delete", "Papers/in/note.txt"]);
    }
    write(&device.path("in/note.txt"), "third");
    device.ok(&["file", "add", "in", "--to", "Papers"]);
    device.ok(&["file", "delete", "Papers/in"]);
    let listed = |path: &str| -> Vec<(u64, u64)> {
        let all = trash(&device);
        let rows = all.iter().filter(|row| row["path"] == path);
        let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
        let mut rows: Vec<_> = rows
            .map(|row| (number(row, "files"), number(row, "bytes")))
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(listed("Papers/in"), [(1, 5)]);
    assert_eq!(listed("Papers/in/note.txt"), [(1, 3), (1, 8)]);
    device.ok(&["trash", "restore", "Papers/in"]);
    assert_eq!(read(&device, &["Papers/in/note.txt"]), "third");
    assert_eq!(listed("Papers/in/note.txt"), [(1, 3), (1, 8)]);
    device.ok(&["file", "delete", "Papers/in"]);
    assert_eq!(device.row(&["trash", "restore", "all"])["count"], 3);
    assert_eq!(trash(&device), [] as [Value; 0]);
    let names = ["note.txt", "note (restored).txt", "note (restored 2).txt"];
    let mut texts = names.map(|name| read(&device, &[&format!("Papers/in/{name}")]));
    assert_eq!(texts[0], "third");
    texts.sort();
    assert_eq!(texts, ["one", "one more", "third"]);
}

#[test]
fn what_another_device_took_out_of_the_trash_meanwhile_is_not_purged() {
    let (mut first, mut second) = pair_of_devices();
    write(&first.path("a.txt"), "aaa");
    write(&first.path("b.txt"), "bbb");
    first.ok(&["file", "add", "a.txt", "b.txt"]);
    first.in_sync();
    first.ok(&["file", "delete", "a.txt"]);
    first.ok(&["file", "delete", "b.txt"]);
    first.in_sync();
    first.stop();
    second.ok(&["trash", "restore", "a.txt"]);
    second.stop();
    first.start();
    first.ok(&["trash", "empty", "--yes"]);
    assert_eq!(trash(&first).len(), 0);
    second.start();
    first.in_sync();
    for device in [&first, &second] {
        eventually("the file is back on both", || {
            device.rows(&["file", "list"]).len() == 1
        });
        assert_eq!(read(device, &["a.txt"]), "aaa");
        assert_eq!(trash(device).len(), 0);
    }
}

#[test]
fn earlier_contents_are_kept_by_the_rule_and_tagged_ones_for_ever() {
    let device = Device::founded("first");
    for n in 1..=3 {
        write(&device.path("thesis.txt"), noise(n, 1000 * n as usize));
        device.ok(&["file", "add", "thesis.txt"]);
    }
    let history = || device.rows(&["file", "history", "thesis.txt"]);
    let before = history();
    assert_eq!(
        before
            .iter()
            .map(|row| row["kept"].clone())
            .collect::<Vec<_>>(),
        ["present", "until", "until"]
    );
    let first = before[2]["revision"].as_str().unwrap();
    device.ok(&["file", "tag", "thesis.txt", first, "as handed in"]);
    assert_eq!(history()[2]["kept"], "tagged");
    assert_eq!(history()[2]["tag"], "as handed in");
    device.ok(&["file", "tag", "thesis.txt", first]);
    assert_eq!(history()[2]["tag"], "as handed in", "it keeps its label");
    device.ok(&["file", "tag", "thesis.txt", first, "--no-label"]);
    assert_eq!(history()[2]["tag"], "");
    device.ok(&["file", "untag", "thesis.txt", first]);
    assert_eq!(history()[2]["kept"], "until");
    device
        .run(&["file", "untag", "thesis.txt", first])
        .fails(4, "error: ");

    assert_eq!(device.row(&["versions", "show"])["all_s"], 86_400);
    let set = device.row(&[
        "versions",
        "set",
        "--all",
        "2d",
        "--trash",
        "never",
        "--trash-size",
        "5GB",
    ]);
    assert_eq!(
        (&set["all_s"], &set["trash_s"], &set["trash_bytes"]),
        (&172_800.into(), &Value::Null, &5_000_000_000u64.into())
    );
    let until = |row: &Value| row["kept_until_ms"].as_u64().unwrap();
    assert!(until(&history()[1]) >= until(&before[1]) + 86_000_000);
    device
        .run(&["versions", "set", "--all", "2"])
        .fails(2, "error: ");
    device.ok(&[
        "doc",
        "put",
        "io.coffer.settings",
        "versions",
        "{\"all_s\": \"soon\"}",
    ]);
    let shown = device.row(&["versions", "show"]);
    assert_eq!(shown["all_s"], 86_400);
    assert!(
        shown["problem"].as_str().unwrap().contains("all_s"),
        "{shown}"
    );
    assert_eq!(
        device.row(&["versions", "set", "--defaults"])["problem"],
        Value::Null
    );
}

#[test]
fn a_shorter_rule_for_the_trash_asks_before_it_deletes_what_is_in_it() {
    let device = Device::founded("first");
    write(&device.path("letter.txt"), "letter");
    device.ok(&["file", "add", "letter.txt"]);
    // What it does not touch needs no answer.
    device.ok(&["versions", "set", "--trash", "20d"]);
    device.ok(&["file", "delete", "letter.txt"]);
    for rule in [["--trash", "0s"], ["--trash-size", "1B"]] {
        let set = [&["versions", "set"][..], &rule].concat();
        device.run(&set).fails(5, "1 file");
        assert_eq!(trash(&device).len(), 1);
        assert_eq!(device.row(&["versions", "show"])["trash_s"], 20 * 86_400);
    }
    let set = device.row(&["versions", "set", "--trash", "0s", "--yes"]);
    assert_eq!(
        (&set["trash_s"], &set["purged"]["files"]),
        (&0.into(), &1.into())
    );
    assert_eq!(trash(&device).len(), 0);
}

#[test]
fn what_comes_out_of_the_trash_without_its_content_is_said_and_counts_as_nowhere() {
    let mut synced = Synced::new(|here, _| write(&here.join("both.txt"), "both"));
    synced.second.stop();
    let first = &synced.first;
    let names = ["film.bin", "note.bin", "both.txt"];
    write(&synced.here.join(names[0]), noise(31, 4_000_000));
    write(&synced.here.join(names[1]), noise(32, 4_000));
    eventually("they are in the vault", || {
        first.ok(&["folder", "rescan"]);
        first.rows(&["file", "list", "Documents"]).len() == 3
    });
    first.idle();
    for name in names {
        fs::remove_file(synced.here.join(name)).unwrap();
    }
    eventually("they are in the trash", || {
        first.ok(&["folder", "rescan"]);
        trash(first).len() == 3
    });
    // The file was the only place of the bytes.
    for name in &names[..2] {
        let restored = first.run(&["trash", "restore", &format!("Documents/{name}")]);
        restored.fails(6, "did not come back");
        let said = "no other device is known to have it";
        assert!(restored.out.contains(said), "{restored:?}");
        assert!(!restored.out.contains("is back"), "{restored:?}");
    }
    let restored = first.run(&["file", "restore", "Documents/both.txt"]);
    restored.fails(6, "\"second\", which cannot be reached now");
    let status = first.status();
    assert_eq!(status["missing_here"]["files"], 3, "{status}");
    assert_eq!(status["only_here"]["files"], 0, "{status}");
    assert_eq!(
        status["storage"]["at_risk"]["nowhere"]["files"], 2,
        "{status}"
    );
    let said = first.ok(&["status"]);
    assert!(said.contains("Nowhere    2 files"), "{said}");
    synced.second.start();
    eventually("what another device has comes from there", || {
        fs::read(synced.here.join("both.txt")).is_ok_and(|bytes| bytes == b"both")
    });
}
