//! Where a provider's records and blobs are, as a file says it.

use std::time::Duration;

use serde::Deserialize;

use super::super::StoreError;
use crate::relay::config::provider::Overrides;

/// Most connections that one process may open: PostgreSQL has a process of its own for each.
const MAX_CONNECTIONS: usize = 1000;

/// Where a provider's records and blobs are.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// How PostgreSQL is reached, as in its `libpq`: `host=/run/postgresql user=coffer dbname=coffer`.
    pub postgres: String,
    /// A file with the certificates, as PEM, by which its own must be good; those that the system trusts if absent.
    #[serde(default)]
    pub postgres_ca: Option<String>,
    /// Connections to it at most, beside the one that listens.
    #[serde(default = "connections")]
    pub connections: usize,
    /// Address of the object storage, as `https://s3.example.org`.
    pub endpoint: String,
    /// Its region, where it has one; most that are not Amazon's take any.
    #[serde(default = "region")]
    pub region: String,
    /// The bucket, which must exist.
    pub bucket: String,
    /// What the names of all objects begin with.
    #[serde(default)]
    pub prefix: String,
    /// Who asks.
    pub access_key: String,
    /// The proof of it.
    pub secret_key: String,
    /// See [`super::LINGER`]. No setting: too short a time harms.
    #[serde(skip, default = "linger")]
    pub linger: Duration,
}

fn connections() -> usize {
    8
}

fn region() -> String {
    "us-east-1".into()
}

fn linger() -> Duration {
    super::LINGER
}

impl ProviderConfig {
    /// Reads the TOML of a `provider.toml`, with what the environment says over it.
    ///
    /// # Errors
    /// What is wrong with it, without its values: some are secrets.
    pub fn parse(text: &str, overrides: &Overrides) -> Result<Self, StoreError> {
        let wrong = |why: &str| StoreError::Failed(format!("provider.toml: {why}"));
        let read = |error: toml::de::Error| wrong(error.message());
        let mut table: toml::Table = text.parse().map_err(read)?;
        overrides.lay_over(&mut table);
        let config: Self = table.try_into().map_err(read)?;
        if !(1..=MAX_CONNECTIONS).contains(&config.connections) {
            return Err(wrong("connections must be 1 to 1000"));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        postgres = "host=/run/postgresql user=coffer dbname=coffer"
        endpoint = "https://s3.example.org"
        bucket = "vaults"
        access_key = "a"
        secret_key = "hidden"
    "#;

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = ProviderConfig::parse(LEAST, &Overrides::default()).unwrap();
        assert_eq!((config.connections, &config.region[..]), (8, "us-east-1"));
        assert_eq!(
            (config.linger, &config.prefix[..]),
            (super::super::LINGER, "")
        );
    }

    #[test]
    fn mistakes_are_named_without_secrets() {
        let none = Overrides::default();
        let more =
            |line: &str| ProviderConfig::parse(&format!("{LEAST}\n{line}"), &none).map(|_| ());
        for (line, word) in [
            ("bukket = 1", "bukket"),
            ("connections = 0", "connections"),
            ("connections = 1001", "connections"),
        ] {
            let Err(error) = more(line) else {
                panic!("{line} is taken");
            };
            let text = error.to_string();
            assert!(text.contains(word) && !text.contains("hidden"), "{text}");
        }
        assert!(ProviderConfig::parse("", &none).is_err());
    }

    #[test]
    fn the_environment_can_say_all_of_it() {
        let mut overrides = Overrides::default();
        for (key, value) in [
            ("POSTGRES", "host=db sslmode=require"),
            ("POSTGRES_CA", "/etc/ca.pem"),
            ("CONNECTIONS", "3"),
            ("ENDPOINT", "https://s3.example.org"),
            ("REGION", "there"),
            ("BUCKET", "vaults"),
            ("PREFIX", "x/"),
            ("ACCESS_KEY", "a"),
            ("SECRET_KEY", "hidden"),
        ] {
            assert!(overrides.take(&format!("COFFER_RELAY_PROVIDER_{key}"), value));
        }
        let config = ProviderConfig::parse("", &overrides).unwrap();
        assert_eq!((config.connections, &config.region[..]), (3, "there"));
        assert_eq!(config.postgres_ca.as_deref(), Some("/etc/ca.pem"));
        let over = ProviderConfig::parse(LEAST, &overrides).unwrap();
        assert_eq!(over.postgres, "host=db sslmode=require");
        // A number that is none is named without its neighbours.
        overrides.take("COFFER_RELAY_PROVIDER_CONNECTIONS", "many");
        let Err(error) = ProviderConfig::parse(LEAST, &overrides) else {
            panic!("it is taken");
        };
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
}
