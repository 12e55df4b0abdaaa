//! Numbers, sizes and times as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use coffer_node::date::day;

/// `1 file`, `1,203 files`.
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// `1,203`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `17 B`, `1.2 MB`, in powers of ten as disks are sold.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 9.95 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// `2026-11-23 00:04 UTC`. Devices of one vault may live in several time zones.
pub fn date(ms: i64) -> String {
    let minute = ms.div_euclid(60_000).rem_euclid(24 * 60);
    format!("{} {:02}:{:02} UTC", day(ms), minute / 60, minute % 60)
}

/// `3 minutes ago`, from the times in milliseconds.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1000 {
        0..=4 => "just now".to_owned(),
        seconds => format!("{} ago", duration(seconds)),
    }
}

/// `2 minutes`, the largest unit only.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => count(seconds, "second", "seconds"),
        60..3_600 => count(seconds / 60, "minute", "minutes"),
        3_600..86_400 => count(seconds / 3_600, "hour", "hours"),
        _ => count(seconds / 86_400, "day", "days"),
    }
}

/// Reads a rate such as `2MB`, `500 kB/s` or `1MiB`, in bytes a second.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let size = text.trim().trim_end_matches("/s");
    size.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("\"{text}\" is no rate such as 2MB, 500kB or none"))
}

/// Reads a size such as `10GiB` or `500 MB`, in bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.trim()
        .parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("\"{text}\" is no size such as 10GiB or 500MB"))
}

/// Reads a time such as `90s`, `30m`, `1h` or `2days`, in seconds.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    humantime::parse_duration(text)
        .map(|time| time.as_secs())
        .map_err(|_| format!("\"{text}\" is no time such as 30m, 1h or 2days"))
}

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The beginning of a long id: enough to tell a few apart.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well_at_the_edges() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_960, "10 kB"),
            (999_600, "1.0 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(number(123), "123");
    }

    #[test]
    fn rates_and_times_are_read_as_people_write_them() {
        for (text, rate) in [
            ("2MB", 2_000_000),
            ("2 MB/s", 2_000_000),
            ("1.5MB", 1_500_000),
            ("500kB", 500_000),
            ("1MiB", 1 << 20),
            ("70000", 70_000),
        ] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["", "fast", "-1MB", "2MB per second"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_seconds("1h"), Ok(3600));
        assert_eq!(parse_seconds("1h 30m"), Ok(5400));
        assert!(parse_seconds("soon").is_err());
    }

    #[test]
    fn dates_are_the_calendars() {
        for (ms, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00 UTC"),
            (1_795_392_270_000, "2026-11-23 00:04 UTC"),
            (-1, "1969-12-31 23:59 UTC"),
        ] {
            assert_eq!(date(ms), text);
        }
    }
}
