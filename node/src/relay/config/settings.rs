//! The table of all settings. The order is that of the documented file.

use std::time::Duration;

use toml::Value;

use super::{LogFormat, LogLevel, RelayConfig, value};

/// One setting.
pub(super) struct Setting {
    /// `section.name`.
    pub key: &'static str,
    /// The default, as TOML.
    pub default: &'static str,
    /// What it is, for people; lines of at most 100 characters.
    pub about: &'static str,
    /// Whether it is a list, which a variable may give with commas.
    pub is_list: bool,
    /// Takes a value, or says what it must be.
    pub set: fn(&mut RelayConfig, &Value) -> Result<(), String>,
}

impl Setting {
    /// The variable that overrides it: `COFFER_RELAY_SECTION_NAME`.
    pub(super) fn variable(&self) -> String {
        let name = self.key.replace(['.', '-'], "_").to_uppercase();
        format!("{}{name}", super::PREFIX)
    }
}

/// The sections, in the order of the table.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    SETTINGS.iter().filter_map(move |setting| {
        let section = setting.key.split('.').next().unwrap_or_default();
        (section != last).then(|| {
            last = section;
            section
        })
    })
}

/// What the defaults of the table are set in.
pub(super) fn blank() -> RelayConfig {
    RelayConfig {
        name: String::new(),
        buffers: 0,
        listen: Vec::new(),
        port: 0,
        announce: Vec::new(),
        quota: 0,
        invitation_valid: Duration::ZERO,
        max_vaults: 0,
        grace: Duration::ZERO,
        check_every: Duration::ZERO,
        resident: 0,
        resident_idle: Duration::ZERO,
        connections: 0,
        strangers: 0,
        circuits: 0,
        circuits_per_device: 0,
        circuit_duration: Duration::ZERO,
        circuit_bytes: 0,
        connections_per_address: 0,
        connects_per_minute: 0,
        streams_per_minute: 0,
        joins_per_minute: 0,
        requests_per_second: 0,
        bytes_in_per_second: 0,
        http: None,
        log_format: LogFormat::Text,
        log_level: LogLevel::Info,
        log_identities: false,
        drain: Duration::ZERO,
        provider: super::provider::Overrides::default(),
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest quota: an exabyte, so that sums of quotas stay far from the end of 64 bits.
pub(super) const MAX_QUOTA: u64 = 1 << 60;
/// Quotas that a vault may have.
pub const QUOTAS: std::ops::RangeInclusive<u64> = MIN_QUOTA..=MAX_QUOTA;
/// The smallest: one entry and one blob of the largest sizes.
pub(super) const MIN_QUOTA: u64 = 16 << 20;

fn count(value: &Value, min: u64, max: u64) -> Result<u32, String> {
    // All maxima of the table fit.
    value::number(value, min, max).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

fn size(value: &Value, min: u64, max: u64) -> Result<usize, String> {
    value::number(value, min, max).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}

/// A setting that is one value.
const fn one(
    key: &'static str,
    default: &'static str,
    about: &'static str,
    set: fn(&mut RelayConfig, &Value) -> Result<(), String>,
) -> Setting {
    Setting {
        key,
        default,
        about,
        is_list: false,
        set,
    }
}

/// A setting that is a list.
const fn many(
    key: &'static str,
    default: &'static str,
    about: &'static str,
    set: fn(&mut RelayConfig, &Value) -> Result<(), String>,
) -> Setting {
    Setting {
        key,
        default,
        about,
        is_list: true,
        set,
    }
}

/// Every setting.
pub(super) const SETTINGS: &[Setting] = &[
    one(
        "host.name",
        "\"\"",
        "What the host calls itself; its people's devices show it. Empty: the name of the machine.",
        |config, value| {
            config.name = value::text(value, coffer_protocol::relay::HOST_NAME_MAX_LEN)?;
            Ok(())
        },
    ),
    many(
        "network.listen",
        "[]",
        "Addresses of this machine to listen on, such as [\"203.0.113.7\", \"2001:db8::7\"]. Empty: all of them.",
        |config, value| {
            config.listen = value::addresses(value)?;
            Ok(())
        },
    ),
    one(
        "network.port",
        "26333",
        "TCP and UDP port; open both in a firewall. A host does not look for another port when it is taken.\n0: any free one, for tests.",
        |config, value| {
            config.port = u16::try_from(value::number(value, 0, 65_535)?).unwrap_or_default();
            Ok(())
        },
    ),
    many(
        "network.announce",
        "[]",
        "Where devices reach this host, as its invitations tell them: \"relay.example.org\", \"203.0.113.7\", either with\n\":PORT\" behind it, or multiaddresses. Empty: the addresses that the machine itself sees. Set it behind a router.",
        |config, value| {
            config.announce = value::announced(value)?;
            Ok(())
        },
    ),
    one(
        "vaults.quota",
        "\"10GiB\"",
        "What a vault may store, unless its invitation says otherwise.",
        |config, value| {
            config.quota = value::bytes(value, MIN_QUOTA, MAX_QUOTA)?;
            Ok(())
        },
    ),
    one(
        "vaults.invitation_valid",
        "\"7d\"",
        "How long an invitation can be used, unless `coffer relay invite --valid` says otherwise.",
        |config, value| {
            config.invitation_valid = value::duration(value, MINUTE, 365 * DAY)?;
            Ok(())
        },
    ),
    one(
        "vaults.max",
        "1000000",
        "Vaults served at most; further invitations cannot be used.",
        |config, value| {
            config.max_vaults = value::number(value, 1, 100_000_000)?;
            Ok(())
        },
    ),
    one(
        "vaults.grace",
        "\"24h\"",
        "How long contents are kept after no device of their vault names them any more.",
        |config, value| {
            config.grace = value::duration(value, Duration::ZERO, 365 * DAY)?;
            Ok(())
        },
    ),
    one(
        "vaults.check_every",
        "\"30d\"",
        "How often all contents are read again, slowly, to find what the disk has damaged: devices bring it anew.\nWhat is read for a device is checked in any case. \"0s\": never.",
        |config, value| {
            config.check_every = value::duration(value, Duration::ZERO, 365 * DAY)?;
            Ok(())
        },
    ),
    one(
        "memory.vaults",
        "512",
        "Vaults held in memory at a time, some 20 to 200 KiB each. Those without a connected device make room first;\nwhen all have one, further vaults wait.",
        |config, value| {
            config.resident = size(value, 4, 1_000_000)?;
            Ok(())
        },
    ),
    one(
        "memory.idle",
        "\"5m\"",
        "A vault with no device connected leaves memory after this.",
        |config, value| {
            config.resident_idle = value::duration(value, Duration::from_secs(1), DAY)?;
            Ok(())
        },
    ),
    one(
        "memory.buffers",
        "\"48MiB\"",
        "Memory for contents on their way: as much may come in at a time, and as much go out. A batch has up to 16 MiB;\nwhat does not fit waits.",
        |config, value| {
            config.buffers = value::bytes(value, 16 << 20, 1 << 40)?;
            Ok(())
        },
    ),
    one(
        "limits.connections",
        "4096",
        "Connections from devices at a time. Each needs a file descriptor and some 50 KiB.",
        |config, value| {
            config.connections = size(value, 8, 1_000_000)?;
            Ok(())
        },
    ),
    one(
        "limits.strangers",
        "256",
        "Connections from devices that are in no vault of this host, or not yet: what an invitation needs, and what\nreconnects at once.",
        |config, value| {
            config.strangers = size(value, 4, 1_000_000)?;
            Ok(())
        },
    ),
    one(
        "limits.connections_per_address",
        "256",
        "Connections from one IPv4 address, or one IPv6 /64, at a time. Many devices may share one behind a router.",
        |config, value| {
            config.connections_per_address = size(value, 1, 1_000_000)?;
            Ok(())
        },
    ),
    one(
        "limits.connects_per_minute",
        "600",
        "New connections a minute from one IPv4 address, or one IPv6 /64.",
        |config, value| {
            config.connects_per_minute = count(value, 1, 10_000_000)?;
            Ok(())
        },
    ),
    one(
        "limits.streams_per_minute",
        "600",
        "Streams that one device may open in a minute.",
        |config, value| {
            config.streams_per_minute = count(value, 10, 10_000_000)?;
            Ok(())
        },
    ),
    one(
        "limits.joins_per_minute",
        "10",
        "Attempts to use an invitation, a minute, from one IPv4 address, or one IPv6 /64.",
        |config, value| {
            config.joins_per_minute = count(value, 1, 1_000_000)?;
            Ok(())
        },
    ),
    one(
        "limits.requests_per_second",
        "500",
        "Requests a second of one device; above it, it waits.",
        |config, value| {
            config.requests_per_second = count(value, 1, 10_000_000)?;
            Ok(())
        },
    ),
    one(
        "limits.bytes_in_per_second",
        "0",
        "Bytes a second that are taken from one device, such as \"20MB\"; above it, it waits. 0: no limit.",
        |config, value| {
            let bytes = value::bytes(value, 0, 1 << 40)?;
            if bytes > 0 && bytes < 65_536 {
                return Err("must be 0, or at least \"64KiB\"".to_owned());
            }
            config.bytes_in_per_second = bytes;
            Ok(())
        },
    ),
    one(
        "circuits.max",
        "1024",
        "Connections between two devices of a vault that this host carries at a time, where routers keep them apart.\n0: none.",
        |config, value| {
            config.circuits = size(value, 0, 1_000_000)?;
            Ok(())
        },
    ),
    one(
        "circuits.per_device",
        "32",
        "Of one device.",
        |config, value| {
            config.circuits_per_device = size(value, 1, 1_000_000)?;
            Ok(())
        },
    ),
    one(
        "circuits.duration",
        "\"12h\"",
        "Longest life of one; what it carried goes on over the next.",
        |config, value| {
            config.circuit_duration = value::duration(value, MINUTE, 365 * DAY)?;
            Ok(())
        },
    ),
    one(
        "circuits.bytes",
        "\"64GiB\"",
        "Most bytes over one, both directions together.",
        |config, value| {
            config.circuit_bytes = value::bytes(value, 1 << 20, MAX_QUOTA)?;
            Ok(())
        },
    ),
    one(
        "http.listen",
        "\"127.0.0.1:26334\"",
        "Where /metrics, /healthz and /readyz are answered, or \"off\". Anyone who reaches it can read it.",
        |config, value| {
            config.http = value::socket(value)?;
            Ok(())
        },
    ),
    one(
        "log.format",
        "\"text\"",
        "\"text\" for people, \"json\" for programs: one object a line. The log goes to standard error.",
        |config, value| {
            config.log_format = value::word(
                value,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            )?;
            Ok(())
        },
    ),
    one(
        "log.level",
        "\"info\"",
        "\"error\", \"warn\", \"info\" or \"debug\".",
        |config, value| {
            config.log_level = value::word(
                value,
                &[
                    ("error", LogLevel::Error),
                    ("warn", LogLevel::Warn),
                    ("info", LogLevel::Info),
                    ("debug", LogLevel::Debug),
                ],
            )?;
            Ok(())
        },
    ),
    one(
        "log.identities",
        "false",
        "Whether ids of vaults and devices, and addresses, may stand in the log. Without it ids have marks that are\ndrawn anew at each start, and the network library logs nothing.",
        |config, value| {
            config.log_identities = value::switch(value)?;
            Ok(())
        },
    ),
    one(
        "stop.drain",
        "\"10s\"",
        "How long what is under way may go on after SIGTERM. Meanwhile /readyz says no and nothing new begins.",
        |config, value| {
            config.drain = value::duration(value, Duration::ZERO, HOUR)?;
            Ok(())
        },
    ),
];
