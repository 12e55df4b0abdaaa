//! The recovery kit as a page to print.

use std::fs::OpenOptions;
use std::io::{ErrorKind as IoKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use coffer_node::control::{ControlError, RecoveryKit};

use crate::error::Failure;
use crate::qr::Qr;

/// Writes the page where nothing is yet, for its owner alone to read.
pub fn write(path: &Path, kit: &RecoveryKit) -> Result<(), Failure> {
    let page = page(kit)?;
    let failed = |error: &std::io::Error| match error.kind() {
        IoKind::AlreadyExists => {
            let message = format!("{} exists already; name a new file", path.display());
            ControlError::conflict(message).with_code("page-exists")
        }
        _ => ControlError::io(format_args!("write {}", path.display()), error),
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(&error))?;
    file.write_all(page.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| failed(&error))?;
    Ok(())
}

/// The page: no script, nothing from elsewhere.
fn page(kit: &RecoveryKit) -> Result<String, Failure> {
    let code = Qr::new(&kit.code)?.svg();
    let words: String = kit
        .words
        .iter()
        .map(|word| format!("<li>{}</li>", escaped(word)))
        .collect();
    let hosts: String = kit
        .hosts
        .iter()
        .map(|host| format!("<li>{}</li>", escaped(host)))
        .collect();
    let hosts = match kit.hosts.is_empty() {
        true => String::new(),
        false => format!("<h2>Hosts</h2><ul>{hosts}</ul>"),
    };
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>coffer recovery kit</title>\n\
         <style>body{{font:11pt sans-serif;max-width:17cm;margin:1cm auto}}ol{{columns:3}}li{{margin:.15em 0}}\
         code{{overflow-wrap:anywhere}}svg{{width:9cm;height:9cm}}</style></head><body>\n\
         <h1>Recovery kit</h1>\n<p><strong>This paper opens everything in your vault: keep it where you would keep a passport.</strong></p>\n\
         {code}\n<h2>The 24 words</h2><ol>{words}</ol>\n<h2>The vault</h2><p><code>{vault}</code></p>\n{hosts}\n\
         <p>To get the vault back, install coffer on a new device and run <code>coffer recover</code> with a picture of the \
         code, or without and type the words.</p>\n</body></html>\n",
        vault = escaped(&kit.vault),
    ))
}

fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kit() -> RecoveryKit {
        RecoveryKit {
            vault: "ab12".into(),
            words: vec!["zebra".into(), "apple".into()],
            code: "COFFER:KIT/1/ABC".into(),
            hosts: vec!["attic <b> /ip4/192.0.2.1/tcp/1".into()],
        }
    }

    #[test]
    fn the_page_is_for_its_owner_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit.html");
        write(&path, &kit()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(write(&path, &kit()).is_err());
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(page.contains("<li>zebra</li><li>apple</li>"));
        assert!(page.contains("attic &lt;b&gt;"));
        assert!(!page.contains("<script") && !page.contains("http"));
    }
}
