//! A device with a passphrase: it is asked for it, can be locked while it runs, and whoever does not know it gets nowhere.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::device::{Device, Outcome, SOON, eventually, pair_of_devices, write};

const FIRST: &str = "correct horse battery staple";
const SECOND: &str = "pferd akku klammer richtig";
const LOCKED: i32 = 17;

/// A file with a passphrase.
fn file(device: &Device, passphrase: &str) -> String {
    let path = device.path(&passphrase[..5]);
    write(&path, format!("{passphrase}\n"));
    path.to_str().expect("a path").to_owned()
}

/// A command with something on its standard input.
fn given(device: &Device, arguments: &[&str], input: &str) -> Outcome {
    let mut child = device
        .command(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect("coffer runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it is read");
    drop(stdin);
    Outcome::of(child.wait_with_output().expect("it ends"))
}

fn put(device: &Device, id: &str) {
    device.ok(&["doc", "put", "t", id, "{\"n\":1}"]);
}

#[test]
fn a_device_with_a_passphrase_starts_locked_and_opens_with_nothing_else() {
    let mut device = Device::founded("first");
    put(&device, "a");
    assert_eq!(device.status()["protected_by"], "nothing");
    device.run(&["lock"]).fails(4, "passphrase set");
    device
        .run(&["passphrase", "remove"])
        .fails(4, "no passphrase");
    device
        .run(&["passphrase", "set"])
        .fails(5, "which passphrase?");
    let short = given(
        &device,
        &["passphrase", "set", "--new-file", "-"],
        "short\n",
    );
    short.fails(2, "at least 8 characters");
    let (first, second) = (file(&device, FIRST), file(&device, SECOND));
    let said = device.row(&["passphrase", "set", "--new-file", &first]);
    assert_eq!(
        (&said["by"], &said["before"]),
        (&"passphrase".into(), &"nothing".into())
    );

    // Locked while it runs: it says so, does nothing else, and goes on where it was.
    assert_eq!(device.row(&["lock"])["already"], false);
    assert_eq!(device.row(&["lock"])["already"], true);
    let state = device.status();
    assert_eq!(state["locked"], true);
    assert_eq!(state["vault"], serde_json::Value::Null);
    assert!(device.ok(&["status"]).contains("locked"), "in words");
    for refused in [
        &["doc", "get", "t", "a"][..],
        &["file", "list"],
        &["device", "list"],
        &["passphrase", "remove", "--passphrase-file", &first],
        &["init"],
        &["status", "--wait", "idle"],
    ] {
        device.run(refused).fails(LOCKED, "coffer unlock");
    }
    let wrong = given(&device, &["unlock", "--passphrase-file", "-"], SECOND);
    wrong.fails(5, "not the passphrase");
    device.run(&["unlock"]).fails(5, "which passphrase?");
    assert_eq!(
        device.row(&["unlock", "--passphrase-file", &first])["already"],
        false
    );
    assert_eq!(device.row(&["unlock"])["already"], true);
    device.ok(&["doc", "get", "t", "a"]);

    // Another passphrase: only with the present one, and from then on it alone opens.
    let change = |present: &str, new: &str| {
        device.run(&[
            "passphrase",
            "set",
            "--passphrase-file",
            present,
            "--new-file",
            new,
        ])
    };
    change(&second, &second).fails(5, "not the passphrase");
    let changed = change(&first, &second);
    assert_eq!(changed.code, Some(0), "{changed:?}");
    device.stop();
    let ready = device.start_with(&[]);
    assert_eq!(ready["locked"], true);
    device
        .run(&["unlock", "--passphrase-file", &first])
        .fails(5, "not the passphrase");
    device.ok(&["unlock", "--passphrase-file", &second]);
    device.ok(&["doc", "get", "t", "a"]);
    let warnings = device.status()["warnings"].to_string();
    assert!(!warnings.contains("moved"), "{warnings}");
    device.stop();
    let ready = device.start_with(&["--passphrase-file", &second]);
    assert_eq!(ready["locked"], false);
    device.stop();
    let refused = device.run(&["start", "--passphrase-file", &first, "--port", "0"]);
    refused.fails(5, "not the passphrase");
    // A command starts a coffer that waits to be unlocked.
    device
        .run(&["doc", "get", "t", "a"])
        .fails(LOCKED, "coffer unlock");
    device.ok(&["unlock", "--passphrase-file", &second]);
    device.ok(&["passphrase", "remove", "--passphrase-file", &second]);
    device.ok(&["stop"]);
    device.start();
    assert_eq!(device.status()["protected_by"], "nothing");
    device.ok(&["doc", "get", "t", "a"]);
}

#[test]
fn whoever_guesses_has_to_wait() {
    let device = Device::founded("first");
    let first = file(&device, FIRST);
    device.ok(&["passphrase", "set", "--new-file", &first]);
    device.ok(&["lock"]);
    let guess = || {
        given(
            &device,
            &["unlock", "--passphrase-file", "-"],
            "another guess",
        )
    };
    eventually("guesses are put off", || {
        let guessed = guess();
        assert_eq!(guessed.code, Some(5), "{guessed:?}");
        guessed.err.contains("too many wrong passphrases")
    });
    eventually("who knows it has to wait as well, and gets in", || {
        device.run(&["unlock", "--passphrase-file", &first]).code == Some(0)
    });
}

#[test]
fn a_locked_device_is_gone_for_the_others_and_catches_up() {
    let (mut first, second) = pair_of_devices();
    let passphrase = file(&first, FIRST);
    first.ok(&["passphrase", "set", "--new-file", &passphrase]);
    first.in_sync();
    // What runs on when the device is locked, and what is being followed, ends with it.
    let mut following = first.command(&["events"]).spawn().expect("coffer runs");
    let connected = |device: &Device| {
        let state = device.status();
        let others = state["devices"].as_array().cloned().unwrap_or_default();
        others
            .iter()
            .any(|row| row["this"] == false && row["connected"] == true)
    };
    assert!(connected(&second));
    first.ok(&["lock"]);
    assert_eq!(following.wait().expect("it ends").code(), Some(LOCKED));
    eventually("the other sees it go", || !connected(&second));
    put(&second, "meanwhile");
    assert_eq!(first.status()["locked"], true);
    first.ok(&["unlock", "--passphrase-file", &passphrase]);
    second.in_sync();
    first.ok(&["doc", "get", "t", "meanwhile"]);
    // Killed while it is locked, it is locked.
    first.ok(&["lock"]);
    first.kill();
    assert_eq!(first.start_with(&[])["locked"], true);
    first.ok(&["unlock", "--passphrase-file", &passphrase]);
    put(&first, "after");
    first.in_sync();
    second.ok(&["doc", "get", "t", "after"]);
}

#[test]
fn killed_while_the_passphrase_changes_one_of_the_two_opens_it() {
    let mut device = Device::founded("first");
    put(&device, "a");
    let (first, second) = (file(&device, FIRST), file(&device, SECOND));
    device.ok(&["passphrase", "set", "--new-file", &first]);
    let (mut present, mut other) = (&first, &second);
    for round in 0..8u64 {
        let mut changing = device
            .command(&[
                "passphrase",
                "set",
                "--passphrase-file",
                present,
                "--new-file",
                other,
            ])
            .spawn()
            .expect("coffer runs");
        // Wherever it is by then.
        std::thread::sleep(Duration::from_millis(round * 190));
        device.kill();
        let said_so = changing.wait().expect("it ends").code() == Some(0);
        // A command that found no coffer running starts one, which is locked.
        device.run(&["stop"]);
        assert_eq!(device.start_with(&[])["locked"], true);
        let opens = |passphrase: &String| {
            device
                .run(&["unlock", "--passphrase-file", passphrase])
                .code
                == Some(0)
        };
        let changed = !opens(present);
        assert!(changed || !said_so, "what was answered is so");
        if changed {
            assert!(opens(other), "neither passphrase opens it");
            (present, other) = (other, present);
        }
        device.ok(&["doc", "get", "t", "a"]);
        let warnings = device.status()["warnings"].to_string();
        assert!(!warnings.contains("moved"), "{warnings}");
        assert!(!device.data.join("identity.new").exists());
    }
}

#[test]
fn a_passphrase_is_typed_in_a_terminal_that_does_not_show_it() {
    let mut device = Device::founded("first");
    let mut terminal = Terminal::running(&device, &["passphrase", "set"]);
    terminal.answer("New passphrase: ", FIRST);
    terminal.answer("Again: ", FIRST);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("horse"), "{shown}");
    let mut terminal = Terminal::running(&device, &["passphrase", "set"]);
    terminal.answer("Passphrase: ", FIRST);
    terminal.answer("New passphrase: ", SECOND);
    terminal.answer("Again: ", FIRST);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(5), "{shown}");
    device.stop();
    // A start in the background asks too, before it goes there.
    let mut terminal = Terminal::running(
        &device,
        &[
            "start",
            "--background",
            "--no-discovery",
            "--listen",
            "127.0.0.1",
            "--port",
            "0",
        ],
    );
    terminal.answer("stay locked): ", FIRST);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(device.status()["locked"], false);
    device.ok(&["lock"]);
    let mut terminal = Terminal::running(&device, &["unlock"]);
    terminal.answer("Passphrase: ", "\u{3}");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(130), "{shown}");
    assert_eq!(device.status()["locked"], true);
}

/// A command in a terminal of its own (`script`), in which somebody answers what they are asked.
struct Terminal {
    script: std::process::Child,
    keyboard: std::process::ChildStdin,
    screen: mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn running(device: &Device, arguments: &[&str]) -> Terminal {
        let inner = [&[env!("CARGO_BIN_EXE_coffer")], arguments].concat();
        let coffer = device.command(arguments);
        let variables = coffer.get_envs();
        let mut script = Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--command",
                &inner.join(" "),
                "/dev/null",
            ])
            .env_clear()
            .envs(variables.filter_map(|(name, value)| Some((name, value?))))
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`script` of util-linux runs");
        let keyboard = script.stdin.take().expect("a pipe");
        let mut output = script.stdout.take().expect("a pipe");
        let (said, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                if said.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            script,
            keyboard,
            screen,
            shown: String::new(),
        }
    }

    /// Waits for a question, and types an answer.
    #[track_caller]
    fn answer(&mut self, question: &str, answer: &str) {
        while !self.shown.ends_with(question) {
            let more = self.screen.recv_timeout(SOON);
            let more = more.unwrap_or_else(|_| panic!("`{question}` is not asked: {}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&more));
        }
        writeln!(self.keyboard, "{answer}").expect("it is typed");
    }

    /// How it ended, and all that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.keyboard);
        while let Ok(more) = self.screen.recv_timeout(SOON) {
            self.shown.push_str(&String::from_utf8_lossy(&more));
        }
        let code = self.script.wait().expect("it ends").code();
        (code, self.shown)
    }
}
