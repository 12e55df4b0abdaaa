//! A device that unlocks when its user logs in: with gnome-keyring on a D-Bus of its own (Debian packages `gnome-keyring`
//! and `dbus-daemon`).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::device::{Device, Outcome, START, write};

/// A session of a user who has logged in, with their password store.
struct Login {
    session: Child,
    address: String,
}

impl Login {
    /// Logs in on a computer; the store stays in its home.
    fn on(device: &Device) -> Login {
        // The daemon reads the password of the login, tells where it listens, and is there until its input ends.
        let script = "printf %s password | gnome-keyring-daemon --unlock --components=secrets >&2; \
                      echo \"$DBUS_SESSION_BUS_ADDRESS\"; cat >&2";
        let coffer = device.command(&["status"]);
        let variables = coffer.get_envs();
        std::fs::create_dir_all(device.path("xdg-runtime")).expect("a folder");
        let mut session = Command::new("dbus-run-session")
            .args(["--", "sh", "-c", script])
            .env_clear()
            .envs(variables.filter_map(|(name, value)| Some((name, value?))))
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`dbus-run-session` and `gnome-keyring-daemon` are there: packages dbus-daemon, gnome-keyring");
        let mut address = String::new();
        BufReader::new(session.stdout.take().expect("a pipe"))
            .read_line(&mut address)
            .expect("it says where it is");
        Login {
            session,
            address: address.trim().to_owned(),
        }
    }

    fn run(&self, device: &Device, arguments: &[&str]) -> Outcome {
        let mut command = device.command(arguments);
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.address);
        Outcome::of(command.output().expect("coffer runs"))
    }

    #[track_caller]
    fn ok(&self, device: &Device, arguments: &[&str]) -> String {
        let outcome = self.run(device, arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:?}");
        outcome.out
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        if let Some(mut input) = self.session.stdin.take() {
            let _ = input.flush();
        }
        let _ = self.session.wait();
    }
}

#[test]
fn a_device_unlocks_with_its_users_login_and_not_without() {
    let device = Device::new("first");
    let login = Login::on(&device);
    login.ok(&device, START);
    device.ok(&["doc", "put", "t", "a", "{}"]);
    write(&device.path("first"), "correct horse battery staple\n");
    device.ok(&["passphrase", "set", "--new-file", "first"]);
    device
        .run(&["passphrase", "by-login"])
        .fails(5, "which passphrase?");
    device.ok(&["passphrase", "by-login", "--passphrase-file", "first"]);
    assert_eq!(device.status()["protected_by"], "login");
    device.ok(&["lock"]);
    device
        .run(&["doc", "get", "t", "a"])
        .fails(17, "coffer unlock");
    device.ok(&["unlock"]);
    device.ok(&["doc", "get", "t", "a"]);
    device.ok(&["stop"]);
    // With the login it starts open, without it stays locked and says why.
    login.ok(&device, START);
    assert_eq!(device.status()["locked"], false);
    device.ok(&["stop"]);
    let started = device.run(START);
    assert!(started.out.contains("locked"), "{started:?}");
    device.run(&["unlock"]).fails(6, "password store");
    device.ok(&["stop"]);
    drop(login);

    // The next login opens the same store again.
    let login = Login::on(&device);
    login.ok(&device, START);
    assert_eq!(device.status()["locked"], false);
    device.ok(&["doc", "get", "t", "a"]);
    // Back to a passphrase: the store is not needed any more.
    device.ok(&["passphrase", "set", "--new-file", "first"]);
    device.ok(&["stop"]);
    drop(login);
    device.ok(&[START, &["--passphrase-file", "first"]].concat());
    assert_eq!(device.status()["locked"], false);
    device.ok(&["stop"]);
}
