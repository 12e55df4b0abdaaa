//! Dates as people and JSON write them, from milliseconds since 1970 (UTC), without a time zone database.

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

/// `2026-11-22`.
pub fn day(ms: i64) -> String {
    let (year, month, day) = civil(ms.div_euclid(MS_PER_DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-22T09:30:00.125Z` (RFC 3339).
pub fn instant(ms: i64) -> String {
    let of_day = ms.rem_euclid(MS_PER_DAY);
    let (seconds, ms_left) = (of_day / 1000, of_day % 1000);
    format!(
        "{}T{:02}:{:02}:{:02}.{ms_left:03}Z",
        day(ms),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Year, month and day of the Gregorian calendar for a number of days since 1970-01-01.
///
/// Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_are_named() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(-1), "1969-12-31");
        assert_eq!(day(951_782_400_000), "2000-02-29");
        assert_eq!(instant(1_795_339_800_125), "2026-11-22T09:30:00.125Z");
    }

    #[test]
    fn no_time_is_out_of_range() {
        instant(i64::MIN);
        instant(i64::MAX);
    }
}
