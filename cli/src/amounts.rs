//! Times and sizes as people type them.

use coffer_node::control::Limit;

/// `90s`, `15m`, `12h`, `30d`, `2w`, `1y` (365 days), in seconds. A number alone makes no sense: of what?
pub fn seconds(typed: &str) -> Result<u64, String> {
    let wrong =
        || format!("\"{typed}\" is not a time such as 12h, 30d, 8w or 1y, of at most 100 years");
    let typed = typed.trim();
    let end = typed
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(wrong)?;
    let (number, unit) = typed.split_at(end);
    let unit = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return Err(wrong()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| *seconds <= 100 * 365 * 86_400)
        .ok_or_else(wrong)
}

/// `500 B`, `10MB` (a million), `10MiB` (1,048,576).
pub fn size(typed: &str) -> Result<u64, String> {
    let wrong = || format!("\"{typed}\" is not a size such as 500MB or 20GB");
    let typed = typed.trim();
    let end = typed
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(wrong)?;
    let (number, unit) = typed.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let (letter, base) = match (unit.strip_suffix("ib"), unit.strip_suffix('b')) {
        (Some(letter), _) => (letter, 1024u64),
        (None, Some(letter)) => (letter, 1000),
        (None, None) => (&*unit, 1000),
    };
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(base.pow(power)))
        .ok_or_else(wrong)
}

/// A time, or `never`.
pub fn seconds_or_never(typed: &str) -> Result<Limit, String> {
    match typed.trim() {
        "never" | "none" => Ok(Limit::None),
        typed => seconds(typed).map(Limit::At),
    }
}

/// A size, or `none`.
pub fn size_or_none(typed: &str) -> Result<Limit, String> {
    match typed.trim() {
        "none" => Ok(Limit::None),
        typed => size(typed).map(Limit::At),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_with_their_units() {
        assert_eq!(seconds("12h"), Ok(43_200));
        assert_eq!(seconds(" 1y"), Ok(31_536_000));
        assert_eq!(size("10MB"), Ok(10_000_000));
        assert_eq!(size("2 GiB"), Ok(2 << 30));
        assert_eq!(size("7b"), Ok(7));
        assert_eq!(seconds_or_never("never"), Ok(Limit::None));
        assert_eq!(size_or_none("1k"), Ok(Limit::At(1000)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            "",
            "30",
            "d",
            "-1d",
            "1.5h",
            "101y",
            "99999999999999999999d",
            "3 moons",
            "é",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "",
            "5",
            "GB",
            "-1GB",
            "1XB",
            "99999999999999999999GB",
            "99999999TB",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
