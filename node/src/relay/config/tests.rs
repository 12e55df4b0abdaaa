//! The configuration: every value documented, nothing unknown taken, nothing out of bounds.

use std::time::Duration;

use proptest::prelude::*;

use super::settings::{SETTINGS, sections};
use super::*;

fn read(text: &str) -> Result<RelayConfig, String> {
    let mut config = RelayConfig::default();
    config
        .take_text(text, "relay.toml")
        .map_err(|error| error.to_string())?;
    Ok(config)
}

fn with_variable(name: &str, value: &str) -> Result<RelayConfig, String> {
    let mut config = RelayConfig::default();
    config
        .take_variables([(name.to_owned(), value.to_owned())])
        .map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn every_default_is_within_its_own_bounds_and_has_a_variable_of_its_own() {
    let mut config = settings::blank();
    let mut variables = std::collections::BTreeSet::new();
    for setting in SETTINGS {
        let value = value::parse(setting.default).unwrap();
        (setting.set)(&mut config, &value).unwrap();
        assert_eq!(value.is_array(), setting.is_list, "{}", setting.key);
        assert!(variables.insert(setting.variable()), "{}", setting.key);
        assert!(!setting.about.is_empty());
    }
    assert_eq!(config, RelayConfig::default());
    assert_eq!(config.port, crate::net::DEFAULT_PORT);
}

#[test]
fn variables_of_a_provider_are_known_and_a_misspelt_one_is_not() {
    let config = with_variable("COFFER_RELAY_PROVIDER_BUCKET", "vaults").unwrap();
    assert!(!config.provider.is_empty());
    let said = with_variable("COFFER_RELAY_PROVIDER_BUKET", "vaults").unwrap_err();
    assert!(said.contains("COFFER_RELAY_PROVIDER_BUCKET"), "{said}");
}

#[test]
fn the_documented_file_names_every_value_and_changes_nothing_also_when_all_of_it_counts() {
    let text = documented();
    assert_eq!(read(&text), Ok(RelayConfig::default()));
    let counting: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let table: toml::Table = counting.parse().unwrap();
    let values: usize = table
        .values()
        .map(|section| section.as_table().unwrap().len())
        .sum();
    assert_eq!(values, SETTINGS.len());
    assert_eq!(table.len(), sections().count());
    assert_eq!(read(&counting), Ok(RelayConfig::default()));
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    for (text, key, meant) in [
        (
            "[network]\nprot = 1",
            "`network.prot`",
            "did you mean `network.port`?",
        ),
        (
            "[limits]\nconnections_per_adress = 3",
            "`limits.connections_per_adress`",
            "`limits.connections_per_address`",
        ),
        ("[netwrok]", "`netwrok`", "did you mean `network`?"),
        ("port = 1", "`port`", ""),
        ("[colour]\nblue = 1", "`colour.blue`", ""),
    ] {
        let refused = read(text).unwrap_err();
        assert!(
            refused.contains(key) && refused.contains(meant),
            "{refused}"
        );
    }
    let refused = with_variable("COFFER_RELAY_NETWORK_PROT", "1").unwrap_err();
    assert!(
        refused.contains("did you mean `COFFER_RELAY_NETWORK_PORT`?"),
        "{refused}"
    );
    assert!(with_variable("COFFER_RELAY_CONFIG", "/x").is_ok());
    assert!(with_variable("COFFER_DATA_DIR", "/x").is_ok());
}

#[test]
fn values_out_of_bounds_are_refused_with_the_bounds() {
    for (text, said) in [
        ("[network]\nport = 70000", "from 0 to 65535"),
        ("[network]\nport = -1", "from 0 to 65535"),
        (
            "[network]\nlisten = [\"relay.example.org\"]",
            "addresses such as",
        ),
        ("[network]\nannounce = [\"a b\"]", "places such as"),
        ("[vaults]\nquota = \"1KiB\"", "16.0 MiB"),
        ("[vaults]\nquota = \"much\"", "such as \"10GiB\""),
        ("[vaults]\ninvitation_valid = \"1s\"", "from 1m"),
        ("[limits]\nbytes_in_per_second = 1", "64KiB"),
        ("[http]\nlisten = \"localhost\"", "\"off\""),
        ("[log]\nformat = \"xml\"", "\"text\", \"json\""),
        ("[log]\nidentities = 1", "true or false"),
        ("[stop]\ndrain = 10", "such as \"90s\""),
    ] {
        let refused = read(text).unwrap_err();
        assert!(refused.contains(said), "{text}: {refused}");
    }
    assert!(read("[network").unwrap_err().contains("is not TOML"));
}

#[test]
fn variables_lie_over_the_file_in_any_usual_spelling() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(CONFIG_FILE);
    std::fs::write(&file, "[network]\nport = 1\n[vaults]\nquota = \"1GiB\"\n").unwrap();
    let variables = [
        ("COFFER_RELAY_NETWORK_PORT", "2"),
        ("COFFER_RELAY_NETWORK_LISTEN", "127.0.0.1, ::1"),
        ("COFFER_RELAY_HTTP_LISTEN", "off"),
        ("COFFER_RELAY_LOG_IDENTITIES", "true"),
        ("COFFER_RELAY_STOP_DRAIN", "1m"),
        ("COFFER_RELAY_LIMITS_BYTES_IN_PER_SECOND", "20MB"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = RelayConfig::load(&file, variables).unwrap();
    assert_eq!((config.port, config.quota), (2, 1 << 30));
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.http, None);
    assert!(config.log_identities);
    assert_eq!(config.drain, Duration::from_secs(60));
    assert_eq!(config.bytes_in_per_second, 20_000_000);
    let absent = RelayConfig::load(&dir.path().join("other"), []).unwrap_err();
    assert!(matches!(
        absent,
        ConfigError::Unreadable { absent: true, .. }
    ));
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused_calmly(text in "\\PC{0,60}", value in "\\PC{0,20}") {
        let _ = read(&text);
        for setting in SETTINGS {
            let _ = with_variable(&setting.variable(), &value);
        }
    }
}
