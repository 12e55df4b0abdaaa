//! A file system in a file, whose power can be cut.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from this instant nothing more reaches the disk, not even the
/// journal. Reads one line first, so that the process is there when the instant has come.
const CUT: &str = r#"
    open(my $top, "<", $ARGV[0]) or die "open: $!";
    <STDIN>;
    my $flag = pack("L", 2);
    ioctl($top, 0x8004587d, $flag) or die "ioctl: $!";
    print "cut\n";
"#;

/// A mounted ext4.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
    _dir: TempDir,
}

impl Disk {
    /// Makes and mounts one of so many MiB. Fails with a clear message where that is not allowed.
    pub fn new(mib: u64) -> Disk {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test mounts a file system and so needs root: run it with sudo, or leave out --features root-tests"
        );
        let dir = tempfile::tempdir().expect("a temporary folder");
        let image = dir.path().join("image");
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).expect("a folder");
        let file = std::fs::File::create(&image).expect("an image");
        file.set_len(mib << 20).expect("its size");
        run(
            "mkfs.ext4",
            &[
                "-q".as_ref(),
                "-b".as_ref(),
                "4096".as_ref(),
                "-F".as_ref(),
                "-m".as_ref(),
                "0".as_ref(),
                image.as_ref(),
            ],
        );
        let mut disk = Disk {
            image,
            mount,
            mounted: false,
            _dir: dir,
        };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    fn mount(&mut self) {
        run(
            "mount",
            &[
                "-o".as_ref(),
                "loop".as_ref(),
                self.image.as_ref(),
                self.mount.as_ref(),
            ],
        );
        self.mounted = true;
    }

    /// Gets ready to cut the power.
    pub fn switch(&self) -> Switch {
        let process = Command::new("perl")
            .args(["-e", CUT])
            .arg(&self.mount)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("perl runs");
        Switch { process }
    }

    /// Gives the power back: the file system as it is found after the outage, its journal replayed.
    pub fn again(&mut self) {
        self.unmount();
        self.mount();
    }

    fn unmount(&mut self) {
        run("umount", &[self.mount.as_ref()]);
        self.mounted = false;
    }

    /// Takes it away, as a person does who unplugs it; says whether the system let that happen.
    pub fn let_go(&mut self) -> bool {
        let unmounted = Command::new("umount").arg(&self.mount).output();
        self.mounted = !unmounted.is_ok_and(|done| done.status.success());
        !self.mounted
    }

    /// Brings it back.
    pub fn bring_back(&mut self) {
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount")
                .arg("--lazy")
                .arg(&self.mount)
                .status();
        }
    }
}

/// The hand on the switch.
pub struct Switch {
    process: Child,
}

impl Switch {
    /// Cuts the power.
    pub fn cut(mut self) {
        let mut input = self.process.stdin.take().expect("a pipe");
        input.write_all(b"\n").expect("perl reads");
        let output = self.process.wait_with_output().expect("perl ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "cut\n");
    }
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
