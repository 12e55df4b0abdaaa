//! What a host is told: one TOML file, and the environment over it.
//!
//! Every value stands once, in the table of `settings.rs`: its key, its default, its bounds and its explanation. From that
//! table come the file that `coffer relay init` writes, the names of the variables, and the refusal of keys that there are
//! not. A value out of its bounds is refused and never bent: a host that runs does what its file says.
//!
//! `settings.rs`: the table · `provider.rs`: what overrides a `provider.toml` · `value.rs`: reading single values · `example.rs`: the documented file.

mod example;
pub mod provider;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use example::{VARIABLES, documented};
pub use settings::QUOTAS;
use settings::SETTINGS;

/// Name of the file in the data folder.
pub const CONFIG_FILE: &str = "relay.toml";
/// Largest file that is read: the documented one has some 8 KiB.
const MAX_FILE: u64 = 256 << 10;
/// What the variables begin with.
pub const PREFIX: &str = "COFFER_RELAY_";
/// Names the file, where it is not in the data folder; no setting.
pub const FILE_VARIABLE: &str = "COFFER_RELAY_CONFIG";

/// Everything a host can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// What the host calls itself; the machine's name if empty.
    pub name: String,
    /// Addresses of this machine to listen on; all if empty.
    pub listen: Vec<IpAddr>,
    /// TCP and UDP port.
    pub port: u16,
    /// `HOST[:PORT]` or multiaddresses that invitations name; those of the machine if empty.
    pub announce: Vec<String>,
    /// Quota of an invitation that names none, in bytes.
    pub quota: u64,
    /// How long an invitation is valid that names no time.
    pub invitation_valid: Duration,
    /// Vaults served at most.
    pub max_vaults: u64,
    /// How long contents that no device names any more are kept.
    pub grace: Duration,
    /// How often everything is read again, to find what the disk has damaged; zero for never.
    pub check_every: Duration,
    /// Vaults held in memory at a time.
    pub resident: usize,
    /// A vault with no device connected leaves memory after this.
    pub resident_idle: Duration,
    /// Memory for contents that come and go, in bytes.
    pub buffers: u64,
    /// Connections from devices.
    pub connections: usize,
    /// Connections from devices that are in no vault.
    pub strangers: usize,
    /// Connections from one address.
    pub connections_per_address: usize,
    /// New connections a minute from one address.
    pub connects_per_minute: u32,
    /// Streams that one device may open in a minute.
    pub streams_per_minute: u32,
    /// Attempts to use an invitation, a minute and address.
    pub joins_per_minute: u32,
    /// Requests a second from one device.
    pub requests_per_second: u32,
    /// Bytes a second from one device; 0 for no limit.
    pub bytes_in_per_second: u64,
    /// Connections between devices that the host carries at a time; 0 for none.
    pub circuits: usize,
    /// Of one device.
    pub circuits_per_device: usize,
    /// Longest life of one.
    pub circuit_duration: Duration,
    /// Most bytes over one.
    pub circuit_bytes: u64,
    /// Where metrics and health are answered; nowhere if absent.
    pub http: Option<SocketAddr>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// How much of it.
    pub log_level: LogLevel,
    /// Whether ids of vaults and devices, and addresses, may stand in the log.
    pub log_identities: bool,
    /// How long what is under way may go on after SIGTERM.
    pub drain: Duration,
    /// What the environment says over a `provider.toml`.
    pub provider: provider::Overrides,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what went wrong for good.
    Error,
    /// Also what a person should look at.
    Warn,
    /// The story of the host.
    Info,
    /// Every step.
    Debug,
}

/// Why a configuration was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// Which file.
        path: String,
        /// What the system said.
        reason: String,
        /// Whether it is not there.
        absent: bool,
    },
    /// It is not TOML.
    #[error("{place} is not TOML: {reason}")]
    Syntax {
        /// Which file.
        place: String,
        /// Where and why.
        reason: String,
    },
    /// A key that there is not.
    #[error("{place}: there is no setting `{key}`{}", meant.as_ref().map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default())]
    Unknown {
        /// The file, or the environment.
        place: String,
        /// The key as it was given.
        key: String,
        /// The most similar one.
        meant: Option<String>,
    },
    /// A value that this key cannot have.
    #[error("{place}: `{key}` {reason}")]
    Value {
        /// The file, or the environment.
        place: String,
        /// The key.
        key: String,
        /// What it must be.
        reason: String,
    },
}

impl Default for RelayConfig {
    fn default() -> Self {
        let mut config = settings::blank();
        for setting in SETTINGS {
            let set = value::parse(setting.default)
                .map_err(|reason| format!("is no TOML: {reason}"))
                .and_then(|value| (setting.set)(&mut config, &value));
            // The defaults stand in the table, and a test reads each.
            debug_assert!(set.is_ok(), "{}: {set:?}", setting.key);
        }
        config
    }
}

impl RelayConfig {
    /// Reads `file` and lays `variables` (name and value, of which only those with [`PREFIX`] count) over it.
    pub fn load(
        file: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<RelayConfig, ConfigError> {
        let unreadable = |error: std::io::Error| ConfigError::Unreadable {
            path: file.display().to_string(),
            reason: error.to_string(),
            absent: error.kind() == std::io::ErrorKind::NotFound,
        };
        let size = std::fs::metadata(file).map_err(unreadable)?.len();
        if size > MAX_FILE {
            return Err(unreadable(std::io::Error::other(format!(
                "it has more than {} KiB",
                MAX_FILE >> 10
            ))));
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let mut config = RelayConfig::default();
        config.take_text(&text, &file.display().to_string())?;
        config.take_variables(variables)?;
        Ok(config)
    }

    /// Lays what a file says over these values.
    pub fn take_text(&mut self, text: &str, place: &str) -> Result<(), ConfigError> {
        let table: toml::Table =
            text.parse()
                .map_err(|error: toml::de::Error| ConfigError::Syntax {
                    place: place.to_owned(),
                    reason: error.to_string().trim_end().to_owned(),
                })?;
        for (section, content) in &table {
            let Some(content) = content.as_table() else {
                return Err(unknown(place, section));
            };
            if content.is_empty() && !settings::sections().any(|known| known == section) {
                return Err(unknown(place, section));
            }
            for (name, value) in content {
                self.set(place, &format!("{section}.{name}"), value)?;
            }
        }
        Ok(())
    }

    /// Lays variables over these values. One with [`PREFIX`] that names no setting is refused: it is a misspelt one.
    pub fn take_variables(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (name, text) in variables {
            let is_ours = name.starts_with(PREFIX) && name != FILE_VARIABLE;
            if !is_ours || self.provider.take(&name, &text) {
                continue;
            }
            let place = "the environment";
            let setting = SETTINGS.iter().find(|setting| setting.variable() == name);
            let setting = setting.ok_or_else(|| ConfigError::Unknown {
                place: place.to_owned(),
                meant: nearest(&name, variables_known()),
                key: name.clone(),
            })?;
            let value = value::from_variable(&text, setting.is_list);
            (setting.set)(self, &value).map_err(|reason| ConfigError::Value {
                place: place.to_owned(),
                key: name,
                reason,
            })?;
        }
        Ok(())
    }

    fn set(&mut self, place: &str, key: &str, value: &toml::Value) -> Result<(), ConfigError> {
        let setting = SETTINGS.iter().find(|setting| setting.key == key);
        let setting = setting.ok_or_else(|| unknown(place, key))?;
        (setting.set)(self, value).map_err(|reason| ConfigError::Value {
            place: place.to_owned(),
            key: key.to_owned(),
            reason,
        })
    }

    /// Where the configuration of a data folder is.
    pub fn path_in(data_dir: &Path) -> PathBuf {
        data_dir.join(CONFIG_FILE)
    }
}

/// Every variable that means something.
fn variables_known() -> impl Iterator<Item = String> {
    let settings = SETTINGS.iter().map(|setting| setting.variable());
    settings.chain(provider::KEYS.into_iter().map(provider::variable))
}

fn unknown(place: &str, key: &str) -> ConfigError {
    let keys = SETTINGS.iter().map(|setting| setting.key.to_owned());
    let sections = settings::sections().map(str::to_owned);
    ConfigError::Unknown {
        place: place.to_owned(),
        key: key.to_owned(),
        meant: nearest(key, keys.chain(sections)),
    }
}

/// How alike two keys must be for one to be taken for a misspelling of the other.
const ALIKE: f64 = 0.7;

fn nearest(given: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(given, &known), known))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
