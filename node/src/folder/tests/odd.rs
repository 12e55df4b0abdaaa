//! Odd things on a disk: very deep trees, names that are no text, what is no file at all, old times.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::running::{pair, sync};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_of_a_thousand_folders_in_each_other_comes_over() {
    let (a, b, _) = pair().await;
    let deep = "d/".repeat(1000);
    a.write(&format!("{deep}f"), "1");
    sync(&a, &b).await;
    assert_eq!(std::fs::read(b.path(&format!("{deep}f"))).unwrap(), b"1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_too_long_for_the_system_is_reported_and_the_rest_is_synced() {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    let (mut a, b, _) = pair().await;
    a.stop().await;
    let mut folder = std::fs::File::open(a.path("")).unwrap();
    for _ in 0..600 {
        mkdirat(&folder, "deepdeep", Mode::from_raw_mode(0o755)).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        folder = openat(&folder, "deepdeep", flags, Mode::empty())
            .unwrap()
            .into();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE;
    drop(openat(&folder, "f", flags, Mode::from_raw_mode(0o644)).unwrap());
    a.write("near", "1");
    a.start().await;
    a.until(|state| {
        let mut problems = state.problems.iter();
        problems.any(|problem| problem.path.ends_with("/f") && problem.reason.contains("too deep"))
    })
    .await;
    sync(&a, &b).await;
    assert_eq!(std::fs::read(b.path("near")).unwrap(), b"1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_file_is_skipped_and_told_of_and_its_name_can_be_printed() {
    let (a, b, _) = pair().await;
    let _socket = std::os::unix::net::UnixListener::bind(a.path("socket")).unwrap();
    let odd = a.path("").join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt"));
    std::fs::write(odd, "latin").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        a.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    a.write("file", "1");
    sync(&a, &b).await;
    assert_eq!(b.listing().len(), 1);
    let state = a.handle().state().borrow().clone();
    let mut told: Vec<&str> = state.problems.iter().map(|it| it.path.as_str()).collect();
    told.sort_unstable();
    assert_eq!(told, ["caf\\xE9.txt", "pipe", "socket"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modification_times_come_along_also_very_old_ones() {
    let (a, b, _) = pair().await;
    let times = [
        (
            "photo",
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_890_123),
        ),
        ("old", SystemTime::UNIX_EPOCH - Duration::from_secs(86_400)),
    ];
    for (name, time) in times {
        a.write(name, name);
        let file = std::fs::File::options().write(true).open(a.path(name));
        file.unwrap().set_modified(time).unwrap();
    }
    sync(&a, &b).await;
    let modified = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    for (name, time) in times {
        assert_eq!(modified(&b.path(name)), time, "{name}");
    }
}
