//! The documented configuration file, made from the table, so that it cannot say other than the program does.

use super::settings::{SETTINGS, sections};

/// What stands at the head of the file.
const HEAD: &str = "\
# The configuration of this coffer relay host. Every value stands here with its default, commented out.
# A variable such as COFFER_RELAY_NETWORK_PORT overrides the value `port` of the section [network].
# Sizes: \"500MB\", \"10GiB\". Times: \"90s\", \"30m\", \"24h\", \"7d\". Changes count from the next start.
";

/// What each section is.
const SECTIONS: &[(&str, &str)] = &[
    ("host", "Who this host is."),
    ("network", "How devices reach this host."),
    ("vaults", "What vaults may store here."),
    ("memory", "What is held in memory."),
    (
        "limits",
        "What one device, or one address, may ask of this host.",
    ),
    (
        "circuits",
        "Connections that this host carries between devices; it sees only how much.",
    ),
    ("http", "For monitoring."),
    ("log", "What the log says."),
    ("stop", "How the host ends."),
];

/// Says which variable overrides a key, for help texts.
pub const VARIABLES: &str = "COFFER_RELAY_SECTION_NAME overrides the value NAME of [SECTION]";

/// The whole file, every value commented out.
pub fn documented() -> String {
    let mut text = HEAD.to_owned();
    for section in sections() {
        let about = SECTIONS.iter().find(|(name, _)| *name == section);
        text.push_str(&format!(
            "\n# {}\n[{section}]\n",
            about.map_or("", |(_, about)| about)
        ));
        for setting in SETTINGS {
            let Some((of, name)) = setting.key.split_once('.') else {
                continue;
            };
            if of != section {
                continue;
            }
            for line in setting.about.lines() {
                text.push_str(&format!("# {line}\n"));
            }
            text.push_str(&format!("#{name} = {}\n", setting.default));
        }
    }
    text
}
