//! `coffer storage limit`.

use clap::Args;
use coffer_node::control::Request;

use crate::args::Context;
use crate::error::Failure;

/// Set how much room contents on demand may take on this device
///
/// What is pinned, or kept because its folder is, does not count. When the limit is exceeded, what was not asked for
/// longest goes, as far as another device is known to keep it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer storage limit 20GB\n  \
    coffer storage limit 512MiB\n  \
    coffer storage limit none")]
pub struct Limit {
    /// Bytes, or a number with kB, MB, GB, TB, KiB, MiB, GiB or TiB; `none` for no limit
    #[arg(value_name = "SIZE", value_parser = size)]
    pub size: Size,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(Option<u64>);

impl Limit {
    /// Sets it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        super::print(context, &Request::StorageLimit { bytes: self.size.0 }).await
    }
}

fn size(text: &str) -> Result<Size, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("none") {
        return Ok(Size(None));
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || "give it as 20GB, 512MiB or none".to_owned();
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(factor)
            .map(|bytes| Size(Some(bytes)))
            .ok_or_else(|| "that is more than any disk holds".to_owned());
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    // Beyond this a fraction means nothing, and no disk holds it.
    if bytes.is_finite() && (0.0..1e18).contains(&bytes) {
        Ok(Size(Some(bytes as u64)))
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("3MB", 3_000_000),
            ("1.5 GB", 1_500_000_000),
            ("512MiB", 512 << 20),
            ("2 tib", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(Size(Some(bytes))), "{text}");
        }
        assert_eq!(size("none"), Ok(Size(None)));
        for text in ["", "GB", "-1", "1 parsec", "1..2", "99999999999TB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
