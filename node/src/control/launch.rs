//! How a node is started: what the command line hands to the service, and what it hears back.

use std::path::PathBuf;

use super::{ControlError, Passphrase};

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data folder, absolute; created (mode 0700) if need be.
    pub data_dir: PathBuf,
    /// What to do where the data folder has no vault.
    pub new_vault: NewVault,
    /// What other devices will call this one, where a vault is created; the host name if absent.
    pub device_name: Option<String>,
    /// TCP and UDP port to listen on; the default one if absent. When it is taken another is picked either way.
    pub port: Option<u16>,
    /// Addresses of this machine to listen on; all if empty.
    pub listen: Vec<std::net::IpAddr>,
    /// Whether to look for devices on the local network (mDNS).
    pub discover: bool,
    /// Whether to use the network at all; `false` while only a vault is to be created.
    pub network: bool,
    /// What unlocks this device, where it has a passphrase; it starts locked if absent.
    pub passphrase: Option<Passphrase>,
}

impl Options {
    /// The defaults of `coffer start` on a data folder.
    pub fn new(data_dir: PathBuf) -> Self {
        Options {
            data_dir,
            new_vault: NewVault::Create,
            device_name: None,
            port: None,
            listen: Vec::new(),
            discover: true,
            network: true,
            passphrase: None,
        }
    }
}

/// What to do where the data folder has no vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewVault {
    /// Create one.
    Create,
    /// Wait for `Request::Init` or `Request::Join`.
    Wait,
}

/// Said once a node takes requests and listens.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ready {
    /// The data folder.
    pub data_dir: PathBuf,
    /// Vault id; absent on a node that waits to join one.
    pub vault: Option<String>,
    /// Whether the vault was created just now.
    pub created: bool,
    /// Whether it waits to be unlocked: nothing is in sync until then.
    #[serde(default)]
    pub locked: bool,
    /// This device's name, where there is a vault.
    pub device_name: Option<String>,
    /// How many devices the vault has, this one included; 0 where there is none.
    pub devices: u64,
    /// Addresses listened on, `HOST:PORT/transport`.
    pub addresses: Vec<String>,
    /// Things that a person should know about this start: another port was picked, no multicast, repairs made.
    pub notes: Vec<String>,
}

/// Why a node did not start, or ended other than asked: `AlreadyRunning`, `NewerVersion`, `Damaged`, `Permission`,
/// `DiskFull`, `Io`, `Unavailable` (no address could be listened on), `Internal`.
pub type StartError = ControlError;

/// Where the platform keeps programs' data, for instance `~/.local/share/coffer`. `None` without a home folder.
pub fn default_data_dir() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "coffer").map(|dirs| dirs.data_dir().to_owned())
}

/// Leaves the session and the terminal of whoever started this process, so that closing them does not end it.
/// Without effect on a process that leads its session already.
pub fn leave_session() {
    // It fails only for a process that leads its group already, which has its own session or shell job all the same.
    let _ = rustix::process::setsid();
}
