//! Relay hosts, as a person reads of them.

use std::fmt::Write;

use coffer_node::control::{HostFill, HostHolding, HostRow, Missing, Reach};

use super::words::missing;
use crate::output::shown;
use crate::units::{ago, bytes, count, date, now_ms};

/// One host: how it is reached, what it holds, what is wrong with it.
pub fn describe_host(text: &mut String, host: &HostRow, now_ms: u64) {
    let reach = match &host.reach {
        None => "not in use".to_owned(),
        Some(Reach::Connected {
            address, transport, ..
        }) => format!("connected, {} over {transport}", shown(address)),
        Some(_) => match host.holding.as_ref().map(|holding| holding.as_of_ms) {
            Some(at) => format!("not connected, last heard of {}", ago(at, now_ms)),
            None => "not connected, not heard of yet".to_owned(),
        },
    };
    let _ = writeln!(text, "  {:<20} {reach}", shown(&host.name));
    if let Some(holding) = &host.holding {
        let _ = writeln!(text, "  {:<20} {}", "", holds(holding));
        let _ = writeln!(text, "  {:<20} {}", "", room(holding, host.quota_bytes));
    }
    for trouble in &host.troubles {
        let since = ago(trouble.first_ms, now_ms);
        let _ = writeln!(
            text,
            "  {:<20} it {} (seen {since})",
            "",
            shown(&trouble.text)
        );
    }
    if let Some(receipt) = &host.receipt {
        let at = date(i64::try_from(receipt.at_ms).unwrap_or(i64::MAX));
        let _ = writeln!(
            text,
            "  {:<20} it has signed that it erased {} on {at}",
            "",
            bytes(receipt.bytes)
        );
    }
}

/// All hosts in use, for `status`.
pub fn describe_hosts(text: &mut String, hosts: &[HostRow]) {
    if hosts.is_empty() {
        return;
    }
    text.push_str("\nHosts\n");
    for host in hosts {
        describe_host(text, host, now_ms());
    }
}

fn holds(holding: &HostHolding) -> String {
    match &holding.lacks {
        None => "being compared with what is here".to_owned(),
        Some(_) if holding.everything => match holding.earlier_elsewhere {
            0 => "holds everything".to_owned(),
            files => format!(
                "holds everything, but for earlier contents of {} that are not here either",
                count(files, "file", "files")
            ),
        },
        Some(lacks) if *lacks == Missing::default() => {
            "being compared with what is here".to_owned()
        }
        Some(lacks) => format!("lacks {}", missing(lacks)),
    }
}

fn room(holding: &HostHolding, quota_bytes: u64) -> String {
    let used = holding.change_bytes.saturating_add(holding.content_bytes);
    let full = match holding.fill {
        HostFill::Room => "",
        HostFill::NearlyFull => ", nearly full",
        HostFill::Full => ", full",
    };
    format!("{} of {} used{full}", bytes(used), bytes(quota_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_node::control::HostTrouble;

    fn host() -> HostRow {
        HostRow {
            id: "ab".into(),
            name: "attic".into(),
            addresses: Vec::new(),
            in_use: true,
            added_ms: 0,
            reach: Some(Reach::Unknown),
            contents_in: 0,
            contents_out: 0,
            holding: Some(HostHolding {
                as_of_ms: 1_000,
                everything: true,
                lacks: Some(Missing::default()),
                earlier_elsewhere: 0,
                change_bytes: 1_000,
                pieces: 2,
                content_bytes: 2_000,
                fill: HostFill::Room,
            }),
            quota_bytes: 10_000,
            troubles: Vec::new(),
            receipt: None,
        }
    }

    fn described(host: &HostRow) -> String {
        let mut text = String::new();
        describe_host(&mut text, host, 1_000);
        text
    }

    #[test]
    fn what_a_host_holds_and_lacks_is_said() {
        let mut host = host();
        assert!(described(&host).contains("holds everything\n"));
        if let Some(holding) = &mut host.holding {
            holding.earlier_elsewhere = 1;
        }
        let text = described(&host);
        assert!(
            text.contains("holds everything, but for earlier contents of 1 file"),
            "{text}"
        );
        if let Some(holding) = &mut host.holding {
            holding.everything = false;
            holding.fill = HostFill::NearlyFull;
            holding.lacks = Some(Missing {
                changes: 0,
                files: 2,
                bytes: 10,
            });
        }
        let text = described(&host);
        assert!(
            text.contains("lacks 2 files") && text.contains("nearly full"),
            "{text}"
        );
    }

    #[test]
    fn what_is_wrong_with_a_host_is_named() {
        let mut host = host();
        host.troubles.push(HostTrouble {
            code: "rolled-back".into(),
            text: "was put back".into(),
            first_ms: 0,
            last_ms: 0,
        });
        assert!(described(&host).contains("it was put back"));
    }
}
