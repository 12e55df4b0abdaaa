//! A host as a document of the vault: type [`DOCTYPE`], its id is the host's.
//!
//! All devices read it, so adding or removing a host on one of them does so on all. What is not as it must be counts
//! as no host at all: a document can be edited by hand.

use coffer_protocol::grants::{Membership, Role};
use coffer_protocol::identity::{DeviceId, StoreId};
use coffer_protocol::relay::{HOST_NAME_MAX_LEN, MAX_HOST_ADDRESSES};
use redb::ReadTransaction;
use serde_json::{Value, json};

use super::Added;
use crate::index;
use crate::store::documents::{DocumentKey, read_row};
use crate::store::{StoreError, tables};

/// Type of these documents.
pub const DOCTYPE: &str = "coffer.hosts";

/// Most bytes of one address.
const ADDRESS_MAX_LEN: usize = 256;

/// One host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// What people call it.
    pub name: String,
    /// Where it may be reached, as multiaddr text.
    pub addresses: Vec<String>,
    /// Bytes that it promised to keep when it was added.
    pub quota_bytes: u64,
    /// When it was added, in milliseconds since 1970.
    pub added_ms: u64,
    /// The store that it keeps the vault in since then, where it was told.
    pub store: Option<StoreId>,
    /// Whether it is in use.
    pub in_use: bool,
    /// Of one that is not in use any more: what it was told to erase, and what it said to that.
    pub erased: Option<Erased>,
}

/// How a host was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erased {
    /// The signed order.
    pub order: Vec<u8>,
    /// The host's signed receipt.
    pub receipt: Vec<u8>,
}

impl Setting {
    /// When a person added the host, and to what.
    pub fn added(&self) -> Added {
        Added {
            at_ms: self.added_ms,
            store: self.store,
        }
    }

    /// The document.
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "name": self.name,
            "addresses": self.addresses,
            "quota_bytes": self.quota_bytes,
            "added_ms": self.added_ms,
            "in_use": self.in_use,
        });
        if let Some(store) = &self.store {
            value["store"] = store.to_string().into();
        }
        if let Some(erased) = &self.erased {
            value["order"] = hex::encode(&erased.order).into();
            value["receipt"] = hex::encode(&erased.receipt).into();
        }
        value
    }

    /// Reads the document; `None` where it makes no sense.
    pub fn from_json(value: &Value) -> Option<Setting> {
        let text = |name: &str| value.get(name)?.as_str();
        let number = |name: &str| value.get(name)?.as_u64();
        let bytes = |name: &str| hex::decode(text(name)?).ok();
        let shown = |character: char| !character.is_control();
        let name = text("name").filter(|name| {
            !name.is_empty() && name.len() <= HOST_NAME_MAX_LEN && name.chars().all(shown)
        })?;
        let addresses = value.get("addresses")?.as_array()?.iter();
        let addresses = addresses
            .filter_map(Value::as_str)
            .filter(|text| text.len() <= ADDRESS_MAX_LEN)
            .take(MAX_HOST_ADDRESSES);
        Some(Setting {
            name: name.to_owned(),
            addresses: addresses.map(str::to_owned).collect(),
            quota_bytes: number("quota_bytes")?,
            added_ms: number("added_ms").unwrap_or(0),
            store: text("store").and_then(|text| text.parse().ok()),
            in_use: value.get("in_use")?.as_bool()?,
            erased: bytes("order")
                .zip(bytes("receipt"))
                .map(|(order, receipt)| Erased { order, receipt }),
        })
    }
}

/// All hosts that the vault has admitted and has a document of, by id.
pub fn read(
    read: &ReadTransaction,
    membership: &Membership,
) -> Result<Vec<(DeviceId, Setting)>, StoreError> {
    let mut hosts = Vec::new();
    let relays = membership.devices().iter();
    for (host, _) in relays.filter(|(_, device)| device.role == Role::Relay) {
        let key = DocumentKey::new(DOCTYPE, &host.to_string());
        let Some(row) = read_row(read, key)? else {
            hosts.extend(on_paper(read, host)?.map(|setting| (*host, setting)));
            continue;
        };
        if row.deleted {
            continue;
        }
        let value = index::json(read, key, &row)?.unwrap_or(Value::Null);
        match Setting::from_json(&value) {
            Some(setting) => hosts.push((*host, setting)),
            None => tracing::warn!("the document of a host makes no sense"),
        }
    }
    Ok(hosts)
}

/// A host of which this device knows only where it is, from the recovery kit: its document comes from it, or never.
fn on_paper(read: &ReadTransaction, host: &DeviceId) -> Result<Option<Setting>, StoreError> {
    let table = read.open_table(tables::ADDRESSES)?;
    let known = table.get(&host.0)?;
    let addresses: Vec<String> = known
        .and_then(|list| postcard::from_bytes(list.value()).ok())
        .unwrap_or_default();
    Ok((!addresses.is_empty()).then(|| Setting {
        name: "host".into(),
        addresses,
        in_use: true,
        ..Setting::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn setting() -> Setting {
        Setting {
            name: "attic".into(),
            addresses: vec!["/ip4/192.0.2.1/tcp/1".into()],
            quota_bytes: 7,
            added_ms: 8,
            store: Some(StoreId([3; 16])),
            in_use: true,
            erased: None,
        }
    }

    #[test]
    fn a_setting_returns_from_its_document() {
        let mut setting = setting();
        assert_eq!(
            Setting::from_json(&setting.to_json()),
            Some(setting.clone())
        );
        setting.in_use = false;
        setting.erased = Some(Erased {
            order: vec![1],
            receipt: vec![2, 3],
        });
        assert_eq!(Setting::from_json(&setting.to_json()), Some(setting));
    }

    #[test]
    fn a_document_that_makes_no_sense_is_no_host() {
        for (field, value) in [
            ("name", json!("")),
            ("name", json!("a\u{1b}b")),
            ("name", json!("x".repeat(HOST_NAME_MAX_LEN + 1))),
            ("addresses", json!("a")),
            ("quota_bytes", json!(-1)),
            ("in_use", json!(1)),
        ] {
            let mut document = setting().to_json();
            document[field] = value;
            assert_eq!(Setting::from_json(&document), None, "{document}");
        }
        assert_eq!(Setting::from_json(&json!([])), None);
    }

    proptest! {
        #[test]
        fn foreign_documents_never_panic(text in "\\{(\"(name|addresses|in_use|receipt)\":(null|-?[0-9]{1,25}|\"x\"|\\[1\\]),?){0,4}\\}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = Setting::from_json(&value);
            }
        }
    }
}
