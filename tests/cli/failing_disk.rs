//! A disk that fails while coffer runs: told, nothing lost, and coffer goes on by itself.
//!
//! The failure is the limit of the system on how far a process may write into a file, lowered for the running node: its
//! writes fail as they do on a disk that fails, and work again when the limit is lifted.

use std::path::PathBuf;
use std::process::{Child, Command};

use crate::device::{Device, SOON, eventually, first_line, noise, write};

struct Limited {
    device: Device,
    node: Child,
}

impl Limited {
    /// Starts a node that is told of the limit by an error and not by the signal that would end it.
    fn start() -> Limited {
        let ignoring = ["/bin/sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
        let device = Device::under("failing", &ignoring);
        let mut node = device
            .command(&["start", "--no-discovery", "--listen=127.0.0.1", "--port=0"])
            .stderr(std::fs::File::create(device.path("node.log")).unwrap())
            .spawn()
            .unwrap();
        let line = first_line(node.stdout.take().unwrap(), SOON).unwrap_or_default();
        assert!(line.starts_with("ready: "), "{line}");
        Limited { device, node }
    }

    fn limit(&self, to: &str) {
        let set = Command::new("prlimit")
            .args([
                "--pid",
                &self.node.id().to_string(),
                &format!("--fsize={to}:"),
            ])
            .status()
            .unwrap();
        assert!(set.success());
    }

    fn puts(&self, id: &str) -> bool {
        self.device.run(&["doc", "put", "t", id, "{}"]).code == Some(0)
    }

    fn in_the_way(&self) -> PathBuf {
        self.device.path("file.bin")
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

#[test]
fn failed_disk_is_told_of_and_the_same_process_goes_on_once_it_works() {
    let mut limited = Limited::start();
    assert!(limited.puts("before"));
    write(&limited.in_the_way(), noise(1, 300_000));
    limited.device.ok(&["file", "add", "file.bin"]);

    limited.limit("4096");
    let refused = limited.device.run(&["doc", "put", "t", "during", "{}"]);
    assert!([Some(12), Some(13)].contains(&refused.code), "{refused:?}");
    eventually("the reason is told", || {
        let outcome = limited.device.run(&["doc", "get", "t", "before"]);
        [Some(12), Some(13)].contains(&outcome.code)
            && outcome.err.contains("opens the vault again")
    });
    // It is not taken for a data folder without a vault.
    for arguments in [&["init"][..], &["status"]] {
        let outcome = limited.device.run(arguments);
        assert!(outcome.err.contains("the vault is closed"), "{outcome:?}");
    }

    eventually("it tries in vain to open the vault", || {
        limited.device.log().contains("cannot be opened yet")
    });
    limited.limit("unlimited");
    eventually("it takes documents again", || limited.puts("after"));
    let ids: Vec<_> = limited.device.rows(&["doc", "list", "t"]);
    assert!(ids.iter().any(|row| row["id"] == "before"), "{ids:?}");
    write(&limited.in_the_way(), noise(2, 300_000));
    limited.device.ok(&["file", "add", "file.bin"]);
    limited.device.ok(&["file", "get", "file.bin", "copy.bin"]);
    let copy = std::fs::read(limited.device.path("copy.bin")).unwrap();
    assert!(copy == noise(2, 300_000));
    assert!(
        limited.node.try_wait().unwrap().is_none(),
        "the node went on"
    );
    limited.device.ok(&["stop"]);
    assert_eq!(limited.node.wait().unwrap().code(), Some(0));
}
