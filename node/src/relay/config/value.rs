//! Single values of the configuration: their kinds, and what is wrong with one that does not fit.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use toml::Value;

/// Reads one value as TOML writes it.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let table: toml::Table = format!("value = {text}")
        .parse()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    table
        .get("value")
        .cloned()
        .filter(|_| table.len() == 1)
        .ok_or_else(|| "is more than one value".to_owned())
}

/// The value of a variable: as TOML where it is some, else the text itself; lists also with commas alone.
pub(super) fn from_variable(text: &str, is_list: bool) -> Value {
    match parse(text) {
        Ok(value) if value.is_array() == is_list => value,
        _ if is_list => {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    }
}

/// A whole number within bounds.
pub(super) fn number(value: &Value, min: u64, max: u64) -> Result<u64, String> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => text.trim().replace('_', "").parse().ok(),
        _ => None,
    };
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("must be a number from {min} to {max}"))
}

/// Bytes, as a number or as text such as `10GiB`.
pub(super) fn bytes(value: &Value, min: u64, max: u64) -> Result<u64, String> {
    let bytes = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => parse_bytes(text).ok(),
        _ => None,
    };
    let shown = |bytes| bytesize::ByteSize(bytes).display().iec();
    bytes
        .filter(|bytes| (min..=max).contains(bytes))
        .ok_or_else(|| {
            format!(
                "must be a size such as \"10GiB\", from {} to {}",
                shown(min),
                shown(max)
            )
        })
}

/// Reads a size such as `10GiB` or `500 MB`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    text.trim()
        .parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("\"{text}\" is no size such as 10GiB or 500MB"))
}

/// A time such as `30s`, `10m`, `24h` or `7d`.
pub(super) fn duration(value: &Value, min: Duration, max: Duration) -> Result<Duration, String> {
    value
        .as_str()
        .and_then(|text| humantime::parse_duration(text.trim()).ok())
        .filter(|duration| (min..=max).contains(duration))
        .ok_or_else(|| {
            format!(
                "must be a time such as \"90s\", \"30m\", \"24h\" or \"7d\", from {} to {}",
                humantime::format_duration(min),
                humantime::format_duration(max)
            )
        })
}

/// Yes or no.
pub(super) fn switch(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(yes) => Ok(*yes),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// A line of text.
pub(super) fn text(value: &Value, max: usize) -> Result<String, String> {
    value
        .as_str()
        .filter(|text| text.len() <= max && !text.chars().any(char::is_control))
        .map(str::to_owned)
        .ok_or_else(|| format!("must be text in one line, of at most {max} bytes"))
}

/// Text out of a list of words.
pub(super) fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let given = value.as_str().unwrap_or_default();
    let found = words.iter().find(|(word, _)| *word == given);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<String> = words
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        format!("must be one of {}", words.join(", "))
    })
}

/// Most items of a list.
const MAX_LIST: usize = 16;

fn list<T>(value: &Value, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    let items = value.as_array().filter(|items| items.len() <= MAX_LIST);
    items
        .and_then(|items| {
            items
                .iter()
                .map(|item| item.as_str().and_then(&read))
                .collect::<Option<Vec<T>>>()
        })
        .ok_or_else(|| format!("must be a list of at most {MAX_LIST} {what}"))
}

/// Addresses of this machine.
pub(super) fn addresses(value: &Value) -> Result<Vec<IpAddr>, String> {
    list(
        value,
        "addresses such as \"192.0.2.7\" or \"::1\"",
        |text| text.parse().ok(),
    )
}

/// Where others reach this host: `HOST`, `HOST:PORT`, `ADDRESS`, `ADDRESS:PORT`, or a multiaddress.
pub(super) fn announced(value: &Value) -> Result<Vec<String>, String> {
    list(
        value,
        "places such as \"relay.example.org\", \"203.0.113.7:26333\" or a multiaddress",
        |text| (!crate::relay::places::read(text, 1).is_empty()).then(|| text.to_owned()),
    )
}

/// A socket address, or `off`.
pub(super) fn socket(value: &Value) -> Result<Option<SocketAddr>, String> {
    match value.as_str() {
        Some("off" | "") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| SOCKET.to_owned()),
        None => Err(SOCKET.to_owned()),
    }
}

const SOCKET: &str = "must be \"off\", or an address with a port such as \"127.0.0.1:26334\"";
