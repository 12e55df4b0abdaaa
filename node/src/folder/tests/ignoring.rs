//! What is ignored, as two devices see it.

use super::super::FolderState;
use super::running::{Device, pair, sync};

fn rules(device: &Device, text: &str) {
    // As editors save: another file, renamed.
    device.write(".cofferignore.new", text);
    std::fs::rename(
        device.path(".cofferignore.new"),
        device.path(".cofferignore"),
    )
    .unwrap();
}

fn names(device: &Device) -> Vec<String> {
    device.listing().into_keys().collect()
}

fn problems(state: &FolderState) -> Vec<String> {
    let problems = state.problems.iter();
    problems
        .map(|problem| format!("{}: {}", problem.path, problem.reason))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_sync_and_what_they_ignore_does_not() {
    let (a, b, _) = pair().await;
    a.write(".cofferignore", "*.log\n/build/\n!keep.log\n");
    for name in [
        "a.txt",
        "x.log",
        "keep.log",
        "build/f",
        "d/y.log",
        "d/z",
        "e/.DS_Store",
        "~$a.txt",
    ] {
        a.write(name, name);
    }
    sync(&a, &b).await;
    assert_eq!(
        names(&b),
        [".cofferignore", "a.txt", "d", "d/z", "keep.log"],
        "nor does a folder that holds only what is ignored"
    );
    b.write("mine.log", "b");
    b.write("build/g", "b");
    sync(&a, &b).await;
    assert!(!a.path("mine.log").exists() && !a.path("build/g").exists());
    // Other rules, from the other side: what is no longer ignored is added on both.
    rules(&b, "/build/\n");
    sync(&a, &b).await;
    for name in ["x.log", "mine.log", "d/y.log"] {
        assert_eq!(a.listing().get(name), b.listing().get(name), "{name}");
        assert!(a.path(name).exists(), "{name}");
    }
    std::fs::remove_file(a.path(".cofferignore")).unwrap();
    sync(&a, &b).await;
    assert!(b.path("build/f").exists() && a.path("build/g").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignoring_what_the_vault_has_deletes_and_changes_nothing_elsewhere() {
    let (a, b, _) = pair().await;
    for name in ["gone", "edited", "quiet", "d/inner", "d/gone"] {
        a.write(name, "1");
    }
    sync(&a, &b).await;
    rules(&a, "gone\nedited\nquiet\n/d/\n");
    sync(&a, &b).await;
    let operations = a.vault.operations();
    std::fs::remove_file(a.path("gone")).unwrap();
    std::fs::remove_file(a.path("d/gone")).unwrap();
    a.write("edited", "22");
    a.write("d/inner", "22");
    a.write("d/new", "1");
    sync(&a, &b).await;
    assert_eq!(a.vault.operations(), operations);
    for name in ["gone", "edited", "d/inner", "d/gone"] {
        assert_eq!(b.listing()[name].as_deref(), Some("1"), "{name}");
    }
    assert!(!a.path("gone").exists(), "it stays away");
    assert!(!b.path("d/new").exists());
    assert_eq!(a.vault.listing().len(), 7);
    // It survives a restart, and what the rules no longer name is as it is elsewhere, with what was done here.
    let mut a = a;
    a.stop().await;
    a.start().await;
    sync(&a, &b).await;
    rules(&b, "");
    sync(&a, &b).await;
    assert_eq!(a.listing(), b.listing());
    assert_eq!(a.listing()["gone"].as_deref(), Some("1"));
    assert_eq!(a.listing()["edited"].as_deref(), Some("22"));
    assert_eq!(a.listing()["d/new"].as_deref(), Some("1"));
    assert_eq!(a.listing()["d/gone"].as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_to_an_ignored_file_is_done_here_unless_it_was_changed_here() {
    let (a, b, _) = pair().await;
    for name in [
        "changed", "same", "gone", "moved", "deleted", "deleted2", "d/f",
    ] {
        a.write(name, "1");
    }
    sync(&a, &b).await;
    // Only `a` has the rules: on `b` everything is as usual.
    let rule = "changed\nsame\ngone\nmoved\ndeleted\ndeleted2\n/d/\n";
    rules(&a, rule);
    a.settled().await;
    a.write("changed", "here");
    a.write("deleted2", "here");
    std::fs::remove_file(a.path("gone")).unwrap();
    std::fs::remove_dir_all(a.path("d")).unwrap();
    for name in ["changed", "same", "gone", "d/g"] {
        b.write(name, "there");
    }
    std::fs::rename(b.path("moved"), b.path("elsewhere")).unwrap();
    std::fs::remove_file(b.path("deleted")).unwrap();
    std::fs::remove_file(b.path("deleted2")).unwrap();
    b.settled().await;
    a.vault.pull(&b.vault);
    a.settled().await;
    let listing = a.listing();
    assert_eq!(listing["changed"].as_deref(), Some("here"));
    assert_eq!(listing["same"].as_deref(), Some("there"));
    assert_eq!(listing["gone"].as_deref(), Some("there"));
    assert_eq!(listing["elsewhere"].as_deref(), Some("1"));
    assert_eq!(listing["d/g"].as_deref(), Some("there"));
    assert!(!listing.contains_key("deleted") && !listing.contains_key("moved"));
    assert_eq!(listing["deleted2"].as_deref(), Some("here"), "never lost");
    assert_eq!(a.handle().state().borrow().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_deleted_elsewhere_stays_with_the_ignored_files_in_it() {
    let (a, b, _) = pair().await;
    a.write("d/sub/f", "1");
    a.write("d/g", "1");
    sync(&a, &b).await;
    b.write("d/sub/.draft.swp", "mine");
    std::fs::remove_dir_all(a.path("d")).unwrap();
    sync(&a, &b).await;
    assert_eq!(names(&b), ["d", "d/sub", "d/sub/.draft.swp"]);
    assert!(a.vault.listing().is_empty(), "it is not made anew");
    let told = b.until(|state| !state.problems.is_empty()).await;
    assert!(
        problems(&told)
            .iter()
            .any(|problem| problem.contains(".draft.swp")),
        "{:?}",
        problems(&told)
    );
    // What is added to it makes it a folder of the vault again.
    b.write("d/sub/real", "1");
    sync(&a, &b).await;
    assert_eq!(names(&a), ["d", "d/sub", "d/sub/real"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saving_through_a_temporary_file_is_one_edit_of_the_same_file() {
    let (a, b, _) = pair().await;
    a.write("letter", "1");
    sync(&a, &b).await;
    let ids: Vec<_> = a.vault.rows().into_keys().collect();
    for (number, temporary) in [".goutputstream-X1", "letter.tmp", "~$letter"]
        .iter()
        .enumerate()
    {
        let operations = a.vault.operations();
        a.write(temporary, &format!("edit {number}"));
        std::fs::rename(a.path(temporary), a.path("letter")).unwrap();
        sync(&a, &b).await;
        assert_eq!(a.vault.operations(), operations + 1, "{temporary}");
        assert_eq!(b.listing()["letter"], Some(format!("edit {number}")));
    }
    // With a backup under an ignored name, too.
    let operations = a.vault.operations();
    std::fs::rename(a.path("letter"), a.path(".letter.swp")).unwrap();
    a.write("letter", "last");
    sync(&a, &b).await;
    assert_eq!(a.vault.operations(), operations + 1);
    assert_eq!(a.vault.rows().into_keys().collect::<Vec<_>>(), ids);
    assert_eq!(names(&b), ["letter"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_that_cannot_be_read_is_reported_by_its_line() {
    let (a, b, _) = pair().await;
    a.write("sub/.cofferignore", "*.log\n[z-a]\n");
    a.write("sub/x.log", "1");
    sync(&a, &b).await;
    assert_eq!(names(&b), ["sub", "sub/.cofferignore"]);
    let told = problems(&a.handle().state().borrow());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("sub/.cofferignore: line 2 does not apply"),
        "{told:?}"
    );
    a.write("sub/.cofferignore", "*.log\n");
    a.until(|state| state.problems.is_empty()).await;
}
