//! The hardened systemd unit of a host.

use std::path::Path;

use coffer_node::control::ControlError;
use coffer_node::relay::folder::SYSTEM_FOLDER;

use crate::error::Failure;

/// Its name.
pub const NAME: &str = "coffer-relay.service";
/// Where it is installed.
pub const PATH: &str = "/etc/systemd/system/coffer-relay.service";

/// The unit keeps its data where systemd makes a folder for a user that exists only while it runs.
pub fn system_folder(data_dir: &Path) -> Result<(), Failure> {
    if data_dir == Path::new(SYSTEM_FOLDER) {
        return Ok(());
    }
    Err(ControlError::usage(format!(
        "the service keeps its data in {SYSTEM_FOLDER}, not in {}: leave out --data-dir, or write a unit from the one that --print-systemd shows",
        data_dir.display()
    ))
    .into())
}

/// The unit that runs `program`. Another data folder than [`SYSTEM_FOLDER`] must be writable for the service's user.
pub fn text(program: &Path, data_dir: &Path) -> Result<String, Failure> {
    let (program, data) = (word(program)?, word(data_dir)?);
    let folder = if data_dir == Path::new(SYSTEM_FOLDER) {
        "DynamicUser=yes\nStateDirectory=coffer-relay\nStateDirectoryMode=0700".to_owned()
    } else {
        // Of a folder of one's own systemd knows nothing: its owner runs the service.
        format!("User=coffer-relay\nReadWritePaths={data}")
    };
    // 2: the configuration is wrong; 9: it runs already; 16: written by a newer version. Trying again changes none.
    Ok(format!(
        "# Written by `coffer relay init`. `systemctl edit {NAME}` keeps changes apart from it.\n\
         [Unit]\n\
         Description=coffer relay host\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=exec\n\
         ExecStart={program} relay start --init\n\
         Environment=COFFER_DATA_DIR={data}\n\
         {folder}\n\
         UMask=0077\n\
         Restart=on-failure\n\
         RestartSec=5\n\
         RestartPreventExitStatus=2 9 16\n\
         # More than `drain` in relay.toml.\n\
         TimeoutStopSec=30\n\
         # A connection needs one.\n\
         LimitNOFILE=65536\n\
         \n\
         # It needs its folder, the network, and nothing else.\n\
         {HARDENING}\n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

/// Everything that a host does not need is not there for it. Netlink tells of the machine's addresses.
const HARDENING: &str = "\
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
";

/// One word of a unit file. Quotes are not understood everywhere, so a path that would need them is refused.
fn word(path: &Path) -> Result<String, Failure> {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@=".contains(c);
    if text.chars().all(plain) {
        Ok(text)
    } else {
        Err(ControlError::usage(format!(
            "a path in a systemd unit has only plain letters, digits and ./_-+:@= here: {text}"
        ))
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_names_the_program_and_a_folder_that_it_may_write() {
        let program = Path::new("/usr/local/bin/coffer");
        let unit = text(program, Path::new(SYSTEM_FOLDER)).unwrap();
        assert!(
            unit.contains("\nExecStart=/usr/local/bin/coffer relay start --init\n"),
            "{unit}"
        );
        assert!(unit.contains("\nStateDirectory=coffer-relay\n"), "{unit}");
        let other = text(program, Path::new("/srv/host")).unwrap();
        assert!(other.contains("\nReadWritePaths=/srv/host\n"), "{other}");
        assert!(!other.contains("DynamicUser"), "{other}");
        assert!(text(program, Path::new("/srv/my host")).is_err());
        assert!(system_folder(Path::new("/srv/host")).is_err());
    }
}
