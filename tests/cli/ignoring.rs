//! What is ignored in synced folders, and what the program says of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::device::{Device, eventually, pair_of_devices, tree, write};

/// Two devices with a synced folder each, filled by `fill`.
fn synced(fill: impl FnOnce(&PathBuf)) -> (Device, Device, PathBuf, PathBuf) {
    let (first, second) = pair_of_devices();
    let (here, there) = (first.path("Documents"), second.path("Documents"));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&there).unwrap();
    fill(&here);
    for (device, dir) in [(&first, &here), (&second, &there)] {
        device.ok(&["folder", "add", dir.to_str().unwrap(), "--yes"]);
        device.in_sync();
    }
    (first, second, here, there)
}

/// Names of what is there, without those that begin with a dot.
fn names(dir: &Path) -> Vec<String> {
    tree(dir).into_keys().collect()
}

#[test]
fn ignore_file_syncs_and_temporary_files_stay_at_home() {
    let (first, second, here, there) = synced(|here| {
        write(&here.join(".cofferignore"), "*.log\nbuild/\n!kept.tmp\n");
        for name in [
            "a.txt",
            "a.log",
            "build/out",
            "kept.tmp",
            "other.tmp",
            "~$a.docx",
            ".DS_Store",
        ] {
            write(&here.join(name), name);
        }
    });
    eventually("what is not ignored is there", || {
        names(&there) == ["a.txt", "kept.tmp"] && there.join(".cofferignore").exists()
    });
    // The rules came along: they hold for what is made there.
    write(&there.join("b.log"), "b");
    write(&there.join("b.txt"), "b");
    eventually("only the other came", || here.join("b.txt").exists());
    second.in_sync();
    assert!(!here.join("b.log").exists());

    let ignored = |device: &Device, path: PathBuf| {
        device.rows(&["folder", "ignored", path.to_str().unwrap()])[0].clone()
    };
    let answer = ignored(&second, there.join("build/deep/x"));
    assert_eq!(answer["ignored"], true, "{answer}");
    assert_eq!(answer["rule"]["file"], ".cofferignore");
    assert_eq!(answer["rule"]["line"], 2);
    assert_eq!(answer["rule"]["matches"], "build");
    assert_eq!(answer["in_vault"], false);
    let answer = ignored(&second, there.join("kept.tmp"));
    assert_eq!(
        (&answer["ignored"], &answer["in_vault"]),
        (&false.into(), &true.into())
    );
    assert_eq!(answer["rule"]["pattern"], "!kept.tmp");
    let answer = ignored(&second, there.join(".vault/kept"));
    assert_eq!(
        (&answer["ignored"], &answer["rule"]),
        (&true.into(), &serde_json::Value::Null)
    );
    let told = first.ok(&["folder", "ignored", here.join("x.tmp").to_str().unwrap()]);
    assert!(
        told.contains("x.tmp is ignored by the rule \"*.tmp\""),
        "{told}"
    );
    let elsewhere = first.run(&["folder", "ignored", "/"]);
    elsewhere.fails(3, "not in a folder that is kept in sync");

    // A folder in a synced one is refused, and not left there.
    let inside = here.join("inside");
    let refused = first.run(&["folder", "add", inside.to_str().unwrap(), "--yes"]);
    refused.fails(4, "which is kept in sync already");
    assert!(!inside.exists());

    // Other rules, made there, and a line that is wrong: what is no longer ignored is added on both sides.
    write(&there.join(".cofferignore"), "build/\n[z-a]\n");
    eventually("all logs are on both", || {
        names(&here).contains(&"b.log".to_owned()) && names(&there).contains(&"a.log".to_owned())
    });
    eventually("the wrong line is told of on both", || {
        [&first, &second].iter().all(|device| {
            let status = device.status();
            let errors = status["folders"][0]["errors"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            errors.iter().any(|error| {
                error["path"] == ".cofferignore"
                    && error["text"]
                        .as_str()
                        .is_some_and(|text| text.contains("line 2"))
            })
        })
    });
}

#[test]
fn ignoring_a_file_of_the_vault_deletes_it_nowhere() {
    let (mut first, second, here, there) = synced(|here| {
        write(&here.join("precious/a.jpg"), "photo");
        write(&here.join("plan.txt"), "plan");
    });
    eventually("all is there", || there.join("plan.txt").exists());
    write(&here.join(".cofferignore"), "precious/\nplan.txt\n");
    eventually("the rules are there", || {
        there.join(".cofferignore").exists()
    });
    first.ok(&["folder", "rescan"]);
    fs::remove_dir_all(here.join("precious")).unwrap();
    write(&here.join("plan.txt"), "another plan");
    // Also over a restart, which looks at everything.
    first.stop();
    first.start();
    first.ok(&["folder", "rescan"]);
    first.in_sync();
    second.in_sync();
    assert_eq!(fs::read(there.join("precious/a.jpg")).unwrap(), b"photo");
    assert_eq!(fs::read(there.join("plan.txt")).unwrap(), b"plan");
    assert_eq!(second.rows(&["file", "list", "Documents"]).len(), 3);
    // No longer ignored, what was deleted here comes back, and what was changed here goes on.
    fs::remove_file(there.join(".cofferignore")).unwrap();
    eventually("the photo is back", || here.join("precious/a.jpg").exists());
    eventually("the plan is there", || {
        fs::read(there.join("plan.txt")).is_ok_and(|text| text == b"another plan")
    });
}
