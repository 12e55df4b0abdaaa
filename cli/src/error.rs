//! Failures as a person or a script sees them: the sentence, what to do next, the exit code. Hints live here only.

use std::fmt::Write as _;
use std::io::{self, Write};

use coffer_node::control::{ControlError, ErrorKind};
use serde_json::json;

/// Why a command failed.
#[derive(Debug, PartialEq)]
pub enum Failure {
    /// Something went wrong that the person should read about.
    Control(ControlError),
    /// Whoever read the output has gone (`coffer doc list | head`): nothing to say.
    ClosedPipe,
}

/// Exit code of [`Failure::ClosedPipe`], as a shell reports a program that ended by SIGPIPE.
const CLOSED_PIPE: u8 = 141;

/// Every exit code but 0, with what it means.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (2, "the command makes no sense as given"),
    (3, "what was named does not exist"),
    (4, "it exists already, or cannot be done as things stand"),
    (
        5,
        "refused: a person said no, or a wrong code or wrong words",
    ),
    (6, "not within reach now: another device is needed"),
    (7, "the invitation or code has expired or was used"),
    (8, "it took too long"),
    (9, "coffer is running already on this data folder"),
    (10, "coffer is not running on this data folder"),
    (11, "this data folder has no vault yet"),
    (12, "reading or writing failed"),
    (13, "the disk is full"),
    (14, "no permission"),
    (15, "damaged: a link, a code, a file, the data folder"),
    (
        16,
        "made by a newer version of coffer, or another version is running",
    ),
    (17, "this device is locked"),
    (70, "a defect of coffer"),
    (130, "ended before it was done"),
    (CLOSED_PIPE, "whoever read the output stopped reading"),
];

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        let Failure::Control(error) = self else {
            return CLOSED_PIPE;
        };
        match error.kind {
            ErrorKind::Usage => 2,
            ErrorKind::NotFound => 3,
            ErrorKind::Conflict => 4,
            ErrorKind::Refused => 5,
            ErrorKind::Unavailable => 6,
            ErrorKind::Expired => 7,
            ErrorKind::TimedOut => 8,
            ErrorKind::AlreadyRunning => 9,
            ErrorKind::NotRunning => 10,
            ErrorKind::NoVault => 11,
            ErrorKind::Io => 12,
            ErrorKind::DiskFull => 13,
            ErrorKind::Permission => 14,
            ErrorKind::Damaged => 15,
            ErrorKind::NewerVersion => 16,
            ErrorKind::Locked => 17,
            ErrorKind::Internal => 70,
            ErrorKind::Cancelled => 130,
        }
    }

    /// Prints it to standard error.
    pub fn report(&self, as_json: bool) {
        let Failure::Control(error) = self else {
            return;
        };
        let hint = hint(error);
        let mut text = String::new();
        if as_json {
            let mut object = json!({ "error": error, "exit_code": self.exit_code() });
            if let Some(hint) = hint {
                object["hint"] = json!(hint);
            }
            let _ = writeln!(text, "{object}");
        } else {
            let _ = writeln!(text, "error: {}", crate::output::shown(&error.message));
            if let Some(hint) = hint {
                let _ = writeln!(text, "hint: {hint}");
            }
        }
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Failure::Control(error)
    }
}

/// A failure to write to standard output.
pub fn output_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::ClosedPipe
    } else {
        ControlError::io("write the output", error).into()
    }
}

/// What to do next: by the exact case where it has a name, else by kind.
pub fn hint(error: &ControlError) -> Option<&'static str> {
    by_code(error.code.as_deref()).or_else(|| by_kind(error.kind))
}

fn by_code(code: Option<&str>) -> Option<&'static str> {
    Some(match code? {
        "no-data-folder" => "name one with --data-dir DIR, or set COFFER_DATA_DIR",
        "damaged-vault" => {
            "put the data folder back from a backup, or move it away and join anew: `coffer pair` on another device, `coffer join` here; files in synced folders stay as they are on the disk"
        }
        "cannot-listen" => {
            "give an address that this device has; without --listen it listens on all of them"
        }
        "unknown-name" => {
            "check the name, or give the address in numbers, as in 192.168.1.20:26333"
        }
        "nobody-came" => "run `coffer pair` again for another invitation",
        "recovery-not-confirmed" => {
            "check the paper; `coffer recovery show` shows the words again and asks anew"
        }
        "closed" => "see that the disk works and has room; coffer opens the vault again by itself",
        "reopen-failed" => "start it with `coffer start`; what was saved before is safe",
        "other-version-running" => "end the running one with `coffer stop`, then try again",
        "needs-answer" => {
            "run it in a terminal, or answer beforehand with --yes (`coffer pair`: with --accept)"
        }
        "needs-terminal" => {
            "run it in a terminal; the words are neither piped nor written to a file"
        }
        "no-passphrase" => "give it one with `coffer passphrase set`",
        "wrong-passphrase" => {
            "try again; whoever has forgotten it puts the device out with `coffer device revoke` on another one, and joins anew with an empty data folder"
        }
        "too-many-tries" => "wait, and try again",
        "short-passphrase" => {
            "several words that have nothing to do with each other make a good one"
        }
        "bad-passphrase" => "it is the first line of the file, as text",
        "no-password-store" => {
            "log in to a desktop with a password store, or use `coffer passphrase set` instead"
        }
        "wrong-login" => {
            "put the password store back from a backup, or join anew with an empty data folder"
        }
        "changed-meanwhile" => "try again",
        "vault-exists" => {
            "to join another vault, use an empty data folder: --data-dir DIR; to leave this one, `coffer export` first"
        }
        "nothing-added" => "give files, folders or links that can be read",
        "no-qr-code" => {
            "use the picture that `coffer pair` saved, or a photo that shows the whole code, sharp and straight; or type the short code"
        }
        "foreign-qr-code" => {
            "this picture shows another QR code; use the one that `coffer pair` shows"
        }
        "not-an-invitation" => {
            "give the link that `coffer pair` shows (it begins with coffer:), the picture of its QR code, or the short code"
        }
        "bad-kit" => {
            "give a picture of the recovery kit's QR code, or its text, which begins with coffer:kit/; or run the command without, and type the words"
        }
        "nobody-to-recover-from" | "recovery-unavailable" => {
            "see that a device or host of the vault runs, and say where with --at HOST:PORT"
        }
        "not-a-backup" => "name an empty folder, or one that is not there yet",
        "no-backup" => "see that the disk is there, and name the folder that has COFFER.TXT in it",
        "no-such-backup" => "`coffer backup list` shows those that there are",
        "other-vault" => "each vault needs a folder of its own: name another one",
        "backup-running" => "wait until it has ended, then try again",
        "damaged-backup" => {
            "another copy of the folder may be whole; `coffer backup` into a new folder makes one anew while a device is left"
        }
        "backup-disk-full" => {
            "make room on the disk of the backup, or use a larger one: the next `coffer backup` goes on from here"
        }
        "backup-permission" => {
            "choose a folder that you may write to, on a disk that is not read-only"
        }
        "backup-place" => "choose a folder elsewhere, best on another disk",
        "backup-needs-kit" => "give the kit with --kit FILE, or --words to type the 24 words",
        "words-replaced" => "use the newest recovery kit",
        "start-failed" => {
            "the file coffer.log in the data folder says more; `coffer start` shows it here"
        }
        "not-a-host-invitation" | "bad-host-invitation" => {
            "give the invitation that `coffer relay invite` shows on the host (it begins with coffer:relay/), or the picture of its QR code"
        }
        "host-unreachable" | "host-unavailable" => {
            "see that the host runs and that its address is right, then try again"
        }
        "host-not-asked" => "try again when it is reached, or remove it with --without-erasing",
        "host-invitation-unknown" | "host-invitation-expired" | "host-invitation-used" => {
            "ask for a new invitation: `coffer relay invite` on the host"
        }
        "host-name-taken" => "choose another name with --name",
        "no-such-host" => "`coffer relay list` shows the hosts in use",
        "too-large" => "put large contents into a file with `coffer file add`",
        "deleted" => {
            "`coffer doc history` lists what it was, `coffer doc get --at` shows it, and `coffer doc put` brings it back"
        }
        "purged" => "choose another id: under this one nothing can be kept any more",
        "file-exists" => "choose another place, or replace what is there with --overwrite",
        "not-braked" => "`coffer folder list` says what each folder is doing",
        "no-conflict" => "`coffer folder conflicts` lists those that there are",
        "content-lacking" => {
            "start coffer on a device that may have it: it comes by itself then; if there is none, take it from a backup, or delete the file"
        }
        "no-such-parent" => "check the path, or make the folder first",
        "paused" => "let them go on with `coffer resume`",
        "paused-there" => "let them go on with `coffer resume` on that device",
        "still-damaged" => {
            "connect a device that has it and run `coffer check` again; without one, take it from a backup"
        }
        "no-host" => "make one with `coffer relay init`, or name its data folder with --data-dir",
        "device-folder" => {
            "a host has a data folder and a key of its own: name another folder with --data-dir"
        }
        "host-not-running" => {
            "start it with `coffer relay start`, or name its data folder with --data-dir"
        }
        "other-host-version" => {
            "start the host again, so that it is of the version that is installed"
        }
        "host-port-taken" => "end the other program, or set another `port` in [network]",
        "no-announced-address" => "set `announce` in [network] to where devices reach this host",
        "host-config" => {
            "the file that `coffer relay init` writes documents every value; `coffer relay init --print-config` shows it"
        }
        "no-such-vault" => "`coffer relay vault list` shows those that there are",
        "no-systemd" => "start it by other means at login; the command is `coffer start`",
        _ => return None,
    })
}

fn by_kind(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Usage => "see `coffer help`, or `--help` after a command",
        ErrorKind::Unavailable => {
            "start coffer on the other device, and see `coffer status` for how it is reached"
        }
        ErrorKind::Expired => "run `coffer pair` again on the other device",
        ErrorKind::TimedOut => {
            "check that the other device is on and in the same network, then try again"
        }
        ErrorKind::AlreadyRunning => {
            "end it with `coffer stop`, or use another data folder with --data-dir; other commands work while it runs"
        }
        ErrorKind::NotRunning => "start it with `coffer start`",
        ErrorKind::NoVault => {
            "create one with `coffer init`, or join the one of another device with `coffer join LINK`"
        }
        ErrorKind::DiskFull => "make room on the disk and try again; what was saved before is safe",
        ErrorKind::Permission => "check who owns the folder, and run coffer as that user",
        ErrorKind::Damaged => "copy it again, complete and unchanged",
        ErrorKind::Locked => "unlock it with `coffer unlock`",
        ErrorKind::NewerVersion => "update coffer on this device",
        ErrorKind::Internal => {
            "please report it, with the last lines of coffer.log in the data folder"
        }
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Refused
        | ErrorKind::Io
        | ErrorKind::Cancelled => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_exit_code_of_its_own_that_is_documented() {
        let kinds = [
            ErrorKind::Usage,
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::Refused,
            ErrorKind::Unavailable,
            ErrorKind::Expired,
            ErrorKind::TimedOut,
            ErrorKind::AlreadyRunning,
            ErrorKind::NotRunning,
            ErrorKind::NoVault,
            ErrorKind::Io,
            ErrorKind::DiskFull,
            ErrorKind::Permission,
            ErrorKind::Damaged,
            ErrorKind::NewerVersion,
            ErrorKind::Internal,
            ErrorKind::Locked,
            ErrorKind::Cancelled,
        ];
        let mut codes: Vec<u8> = kinds
            .iter()
            .map(|kind| Failure::from(ControlError::new(*kind, "x")).exit_code())
            .collect();
        codes.push(Failure::ClosedPipe.exit_code());
        let documented: Vec<u8> = EXIT_CODES.iter().map(|(code, _)| *code).collect();
        codes.sort_unstable();
        assert_eq!(codes, documented);
    }

    #[test]
    fn the_exact_case_decides_the_hint_before_the_kind() {
        let error = ControlError::new(ErrorKind::NewerVersion, "x");
        assert_eq!(hint(&error), Some("update coffer on this device"));
        let error = error.with_code("other-version-running");
        assert_eq!(
            hint(&error),
            Some("end the running one with `coffer stop`, then try again")
        );
        let error = ControlError::new(ErrorKind::NewerVersion, "x").with_code("a code of later");
        assert_eq!(hint(&error), Some("update coffer on this device"));
    }
}
