//! What this device keeps, as a person reads it.

use std::fmt::Write;

use coffer_node::control::{Amount, StorageMode, StorageStatus};

use crate::output::shown;
use crate::units::{bytes, count, number};

/// The whole of it, several lines.
pub fn describe(status: &StorageStatus) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    let mode = match status.mode {
        StorageMode::Full => "everything",
        StorageMode::OnDemand => "what is pinned, and the rest on demand",
        StorageMode::Mixed => "everything but what is on demand",
    };
    row("Keeps", mode.to_owned());
    row("Kept here", amount(status.kept));
    if status.mode != StorageMode::Full {
        let limit = match status.limit {
            Some(limit) => format!("; the limit is {}", bytes(limit)),
            None => "; there is no limit".to_owned(),
        };
        row("On demand", format!("{} here{limit}", amount(status.used)));
        row("Elsewhere", amount(status.elsewhere));
        let mut droppable = amount(status.evictable);
        if status.limit.is_some_and(|limit| status.used.bytes > limit)
            && status.evictable.bytes == 0
        {
            droppable.push_str("; over the limit, until another device is known to keep them");
        }
        row("Can be freed", droppable);
    }
    for rule in &status.rules {
        let path = if rule.path.is_empty() {
            "the whole vault"
        } else {
            &rule.path
        };
        row("", format!("{}: {}", shown(path), shown(&rule.rule)));
    }
    let risk = &status.at_risk;
    if risk.all.files > 0 {
        row("At risk", amount(risk.all));
        for (what, value) in [
            ("known to be on this device only", risk.only_here),
            ("not known to be anywhere", risk.nowhere),
        ] {
            if value.files > 0 {
                row("", format!("{} {what}", amount(value)));
            }
        }
        for name in &risk.names {
            row("", shown(name).into_owned());
        }
        let more = risk.all.files.saturating_sub(risk.names.len() as u64);
        if more > 0 {
            row("", format!("and {} more", number(more)));
        }
    }
    if status.lacking_count > 0 {
        row("Not coming", count(status.lacking_count, "file", "files"));
        for file in &status.lacking {
            row(
                "",
                format!("{}: {}", shown(&file.path), shown(&file.reason)),
            );
        }
        let more = status.lacking_count - status.lacking.len() as u64;
        if more > 0 {
            row("", format!("and {} more", number(more)));
        }
    }
    text
}

fn amount(amount: Amount) -> String {
    format!(
        "{} ({})",
        count(amount.files, "file", "files"),
        bytes(amount.bytes)
    )
}

#[cfg(test)]
mod tests {
    use coffer_node::control::{AtRisk, Skipped, StorageRule};

    use super::*;

    #[test]
    fn what_is_kept_reads_as_a_page() {
        let of = |files, bytes| Amount { files, bytes };
        let status = StorageStatus {
            mode: StorageMode::OnDemand,
            rules: vec![
                StorageRule {
                    path: String::new(),
                    rule: "on-demand".into(),
                },
                StorageRule {
                    path: "Papers".into(),
                    rule: "pinned".into(),
                },
            ],
            limit: Some(2_000_000),
            used: of(3, 2_500_000),
            evictable: of(0, 0),
            elsewhere: of(1200, 5_000_000_000),
            kept: of(1, 12),
            at_risk: AtRisk {
                all: of(2, 900),
                only_here: of(1, 400),
                nowhere: of(0, 0),
                names: vec!["a\u{1b}.txt".into()],
            },
            lacking_count: 2,
            lacking: vec![Skipped {
                path: "Papers/b.txt".into(),
                reason: "it is on \"attic\"".into(),
            }],
        };
        let expected = "\
Keeps        what is pinned, and the rest on demand
Kept here    1 file (12 B)
On demand    3 files (2.5 MB) here; the limit is 2.0 MB
Elsewhere    1,200 files (5.0 GB)
Can be freed 0 files (0 B); over the limit, until another device is known to keep them
             the whole vault: on-demand
             Papers: pinned
At risk      2 files (900 B)
             1 file (400 B) known to be on this device only
             a\\u{1b}.txt
             and 1 more
Not coming   2 files
             Papers/b.txt: it is on \"attic\"
             and 1 more
";
        assert_eq!(describe(&status), expected);
    }
}
