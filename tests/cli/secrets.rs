//! The 24 words are shown to a person, and are nowhere else.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::device::{Device, tree, write};

#[test]
fn recovery_words_are_refused_without_a_terminal() {
    let device = Device::founded("first");
    let refused = device.run(&["recovery", "show"]);
    refused.fails(2, "terminal");
    assert_eq!(refused.out, "");
    device
        .run(&["recovery", "show", "--yes"])
        .fails(2, "terminal");
    assert_eq!(device.status()["recovery"], "unconfirmed");
    let warnings = device.status()["warnings"].to_string();
    assert!(warnings.contains("recovery-unconfirmed"), "{warnings}");
}

#[test]
fn recovery_words_shown_in_a_terminal_are_in_no_file_of_the_data_folder() {
    let mut device = Device::founded("first");
    device.ok(&["doc", "put", "t", "a", "{\"n\":1}"]);
    let shown = in_a_terminal(&device, &["recovery", "show"]);
    let words = words_of(&shown);
    assert_eq!(words.len(), 24, "{shown}");
    device.stop();
    for (path, bytes) in everything(&device.data) {
        // Two of the words side by side, in any of the ways that a program would write them.
        for pair in words.windows(2) {
            for between in [" ", "\n", ",", "\",\"", ", "] {
                let needle = format!("{}{between}{}", pair[0], pair[1]);
                assert!(
                    !bytes
                        .windows(needle.len())
                        .any(|part| part == needle.as_bytes()),
                    "words of the recovery stand in {path}"
                );
            }
        }
        // And each by itself: single short words may stand anywhere by chance, a dozen of them may not.
        let seen = words
            .iter()
            .filter(|word| {
                bytes
                    .windows(word.len())
                    .any(|part| part == word.as_bytes())
            })
            .count();
        assert!(seen < 12, "{seen} of the words stand in {path}");
    }
}

#[test]
fn recovery_words_typed_wrong_are_told_so_and_refused_after_three_tries() {
    let device = Device::founded("first");
    let outcome = typing(&device, &["recovery", "show"], &"wrong\n".repeat(9));
    assert_eq!(outcome.status.code(), Some(5), "{outcome:?}");
    let shown = String::from_utf8_lossy(&outcome.stdout);
    assert_eq!(shown.matches("That was not right").count(), 2, "{shown}");
    for said in ["not confirmed", "hint: check the paper"] {
        assert!(shown.contains(said), "{shown}");
    }
    assert_eq!(device.status()["recovery"], "unconfirmed");
}

#[test]
fn contents_and_names_are_readable_in_no_file_that_is_not_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let device = Device::founded("first");
    write(&device.path("a.txt"), "a");
    device.ok(&["file", "add", "a.txt"]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(
        mode(&device.data),
        0,
        "others may look into the data folder"
    );
    assert_eq!(mode(&device.data.join("vault.redb")), 0);
}

/// Runs a command in a terminal of its own, types nothing, and gives what it shows.
pub fn in_a_terminal(device: &Device, arguments: &[&str]) -> String {
    String::from_utf8_lossy(&typing(device, arguments, "").stdout).into_owned()
}

/// Runs a command in a terminal of its own (`script`), in which somebody types.
fn typing(device: &Device, arguments: &[&str], typed: &str) -> Output {
    let mut inner = vec![env!("CARGO_BIN_EXE_coffer").to_owned()];
    inner.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let coffer = device.command(arguments);
    let mut command = Command::new("script");
    command
        .args([
            "--quiet",
            "--return",
            "--command",
            &inner.join(" "),
            "/dev/null",
        ])
        .env_clear()
        .envs(
            coffer
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("PATH", "/usr/bin:/bin")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut script = command.spawn().expect("`script` of util-linux runs");
    let mut keyboard = script.stdin.take().expect("standard input is a pipe");
    keyboard.write_all(typed.as_bytes()).expect("it is typed");
    drop(keyboard);
    script.wait_with_output().expect("it ends")
}

/// The words behind the numbers 1 to 24.
pub fn words_of(shown: &str) -> Vec<String> {
    let mut words = std::collections::BTreeMap::new();
    let mut tokens = shown.split_whitespace().peekable();
    while let Some(token) = tokens.next() {
        let number = token
            .strip_suffix('.')
            .and_then(|number| number.parse::<u8>().ok());
        if let (Some(number @ 1..=24), Some(word)) = (number, tokens.peek()) {
            words.insert(number, (*word).to_owned());
        }
    }
    words.into_values().collect()
}

/// Every file of a folder, hidden ones too.
fn everything(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = tree(dir)
        .into_iter()
        .filter_map(|(path, bytes)| Some((path, bytes?)))
        .collect();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_file() && entry.file_name().to_string_lossy().starts_with('.') {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    assert!(found.iter().any(|(path, _)| path.ends_with(".redb")));
    found
}
