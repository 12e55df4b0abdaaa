//! The command line as people meet it: help, and what wrong arguments say.

use clap::{CommandFactory, Parser};

use super::Cli;

/// The words of the design that people should not have to learn.
const INNER_WORDS: &[&str] = &[
    "peer",
    "peers",
    "node",
    "nodes",
    "entry",
    "entries",
    "chunk",
    "chunks",
    "blob",
    "blobs",
    "space",
    "spaces",
    "epoch",
    "epochs",
    "key",
    "keys",
    "grant",
    "grants",
    "crdt",
    "automerge",
    "libp2p",
];

/// Every command with its path, as `coffer doc put`.
fn all_commands() -> Vec<(String, clap::Command)> {
    fn walk(path: &str, command: &clap::Command, found: &mut Vec<(String, clap::Command)>) {
        for inner in command
            .get_subcommands()
            .filter(|inner| inner.get_name() != "help")
        {
            let path = format!("{path} {}", inner.get_name());
            walk(&path, inner, found);
            found.push((path, inner.clone()));
        }
    }
    let mut root = Cli::command();
    root.build();
    let mut found = vec![("coffer".to_owned(), root.clone())];
    walk("coffer", &root, &mut found);
    found
}

fn refused(arguments: &[&str]) -> String {
    let error = Cli::try_parse_from([&["coffer"], arguments].concat())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.exit_code(), 2, "{arguments:?}");
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn the_arguments_contradict_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn the_commands_are_these() {
    let names: Vec<String> = all_commands()
        .into_iter()
        .filter(|(_, command)| !command.has_subcommands())
        .map(|(path, _)| path.trim_start_matches("coffer ").to_owned())
        .collect();
    let expected = "init, start, stop, status, pair, join, recover, \
        backup list, backup verify, backup restore, recovery show, \
        recovery renew, recovery rehearse, device list, device revoke, \
        device role, device log, \
        relay add, relay list, relay remove, relay init, relay start, relay invite, \
        relay vault list, relay vault remove, relay status, relock, erase, lock, unlock, \
        passphrase set, passphrase by-login, passphrase remove, \
        doc put, doc get, doc edit, doc find, doc list, doc delete, doc purge, doc history, \
        file add, file list, file get, file move, file delete, file restore, file history, \
        file tag, file untag, folder add, folder list, folder remove, folder rescan, folder confirm, \
        folder undo, folder conflicts, folder settle, folder ignored, trash list, trash restore, \
        trash empty, versions show, versions set, \
        storage show, storage full, storage on-demand, storage pin, storage unpin, storage limit, \
        limits show, limits set, pause, resume, check, export, events, \
        service install, service remove, completions, exit-codes";
    assert_eq!(names.join(", "), expected);
}

#[test]
fn help_speaks_the_words_of_people() {
    for (path, mut command) in all_commands() {
        let help = command.render_long_help().to_string().to_lowercase();
        for word in help.split(|c: char| !c.is_alphanumeric()) {
            assert!(
                !INNER_WORDS.contains(&word),
                "`{word}` in the help of `{path}`"
            );
        }
    }
}

#[test]
fn every_command_says_what_it_does_and_shows_an_example() {
    for (path, command) in all_commands() {
        assert!(command.get_about().is_some(), "{path} says nothing");
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(after.contains(&path), "{path} shows no example");
        for name in ["data_dir", "json", "yes"] {
            assert!(
                command
                    .get_arguments()
                    .any(|argument| argument.get_id() == name),
                "{path} lacks {name}"
            );
        }
    }
}

#[test]
fn examples_in_the_help_are_accepted() {
    let mut tried = 0;
    for (path, command) in all_commands() {
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        for line in after
            .lines()
            .filter_map(|line| line.trim().strip_prefix("coffer "))
        {
            // Comments stand apart by several blanks, and what follows a pipe or `>` is another program's.
            let line = line.split("   ").next().unwrap_or_default();
            let line = line
                .split(['|', '>', '<'])
                .next()
                .unwrap_or_default()
                .trim();
            let Some(words) = words(line) else { continue };
            let parsed = Cli::try_parse_from(std::iter::once("coffer".to_owned()).chain(words));
            assert!(
                parsed.is_ok(),
                "an example of `{path}` is refused: coffer {line}"
            );
            tried += 1;
        }
    }
    assert!(tried > 50, "only {tried} examples were found");
}

/// Splits as a shell does, for single quotes.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    line.matches('\'')
        .count()
        .is_multiple_of(2)
        .then_some(words)
}

#[test]
fn bare_coffer_starts() {
    assert!(Cli::try_parse_from(["coffer"]).unwrap().command.is_none());
    let cli = Cli::try_parse_from(["coffer", "--data-dir", "/x", "--json"]).unwrap();
    assert!(cli.command.is_none() && cli.global.json);
}

#[test]
fn options_of_all_commands_stand_before_or_after() {
    for arguments in [
        &["coffer", "--json", "--data-dir", "/x", "-y", "doc", "list"][..],
        &[
            "coffer",
            "doc",
            "list",
            "--json",
            "--data-dir",
            "/x",
            "--yes",
        ],
    ] {
        let cli = Cli::try_parse_from(arguments).unwrap();
        assert!(cli.global.json && cli.global.yes);
        assert_eq!(
            cli.global.data_dir.as_deref(),
            Some(std::path::Path::new("/x"))
        );
    }
}

#[test]
fn wrong_arguments_are_named() {
    for (arguments, message) in [
        (&["fly"][..], "error: unrecognized subcommand 'fly'"),
        (
            &["doc", "put"],
            "error: the following required arguments were not provided:",
        ),
        (
            &["doc", "put", "t"],
            "error: the following required arguments were not provided:",
        ),
        (
            &["doc", "put", "t", "i", "--lines", "f"],
            "error: the argument '[DOCTYPE]' cannot be used with '--lines <FILE>'",
        ),
        (
            &["doc", "edit", "t", "i", "a=1", "--merge", "{}"],
            "error: the argument '[FIELD=VALUE]...' cannot be used with '--merge <JSON>'",
        ),
        (
            &["join"],
            "error: the following required arguments were not provided:",
        ),
        (
            &["join", "CODE", "--at", "nowhere"],
            "error: invalid value 'nowhere' for '--at <HOST:PORT>': give it as HOST:PORT",
        ),
        (
            &["pair", "--valid-for", "0"],
            "error: invalid value '0' for '--valid-for <MINUTES>': give minutes from 1 to 60, or seconds as 90s",
        ),
        (
            &["status", "--timeout", "3"],
            "error: the following required arguments were not provided:",
        ),
        (
            &["start", "--port", "70000"],
            "error: invalid value '70000' for '--port <PORT>': 70000 is not in 0..=65535",
        ),
        (
            &["completions", "tcl"],
            "error: invalid value 'tcl' for '<SHELL>'",
        ),
    ] {
        assert_eq!(refused(arguments), message, "{arguments:?}");
    }
}

#[test]
fn the_overview_fits_on_a_page() {
    let mut command = Cli::command();
    let help = command.render_help().to_string();
    assert!(
        help.starts_with(
            "Your documents and files, on your own devices, in sync without a server\n"
        ),
        "{help}"
    );
    assert!(help.lines().count() <= 50, "{help}");
}
