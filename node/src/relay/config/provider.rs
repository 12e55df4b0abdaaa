//! Variables that override values of a `provider.toml`, for hosts of a provider. Known to every build, so that a
//! misspelt one is refused everywhere.

use std::collections::BTreeMap;

/// What the variables begin with.
const PREFIX: &str = "COFFER_RELAY_PROVIDER_";

/// Every key of that file.
pub const KEYS: [&str; 9] = [
    "postgres",
    "postgres_ca",
    "connections",
    "endpoint",
    "region",
    "bucket",
    "prefix",
    "access_key",
    "secret_key",
];

/// The variable that overrides a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase())
}

/// Values by key. Some are secrets: shown are keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<&'static str, String>);

impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Overrides {
    /// Takes a variable; says whether it is one of these.
    pub fn take(&mut self, name: &str, value: &str) -> bool {
        let key = KEYS.into_iter().find(|key| variable(key) == name);
        if let Some(key) = key {
            self.0.insert(key, value.to_owned());
        }
        key.is_some()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lays them over what a file says.
    pub fn lay_over(&self, table: &mut toml::Table) {
        for (key, text) in &self.0 {
            let value = match text.trim().parse() {
                Ok(number) if *key == "connections" => toml::Value::Integer(number),
                _ => toml::Value::String(text.clone()),
            };
            table.insert((*key).to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_go_over_the_file_and_their_values_are_not_shown() {
        let mut overrides = Overrides::default();
        assert!(overrides.is_empty());
        assert!(overrides.take("COFFER_RELAY_PROVIDER_SECRET_KEY", "hidden"));
        assert!(overrides.take("COFFER_RELAY_PROVIDER_CONNECTIONS", " 12"));
        assert!(overrides.take("COFFER_RELAY_PROVIDER_BUCKET", "12"));
        assert!(!overrides.take("COFFER_RELAY_PROVIDER_BUKKET", "x"));
        let shown = format!("{overrides:?}");
        assert!(
            shown.contains("secret_key") && !shown.contains("hidden"),
            "{shown}"
        );
        let mut table: toml::Table = "bucket = \"a\"\nregion = \"b\"".parse().unwrap();
        overrides.lay_over(&mut table);
        assert_eq!(table["bucket"].as_str(), Some("12"));
        assert_eq!(table["region"].as_str(), Some("b"));
        assert_eq!(table["connections"].as_integer(), Some(12));
        assert_eq!(table["secret_key"].as_str(), Some("hidden"));
    }
}
