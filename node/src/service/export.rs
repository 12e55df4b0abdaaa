//! Leaving with everything: documents as JSON, files as files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable};

use super::{Node, files, store_error};
use crate::control::{ControlError, Progress, Reply, Session, Skipped, Stage};
use crate::index;
use crate::store::documents::{DocumentKey, read_row};
use crate::store::{StoreError, tables};
use crate::vault::FILES;

/// Documents between two reports of progress.
const REPORT_EVERY: u64 = 500;

/// `export`: `<dir>/files/…` and `<dir>/documents/<doctype>/<id>.json`.
pub async fn export(
    node: &Arc<Node>,
    dir: PathBuf,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    if dir.exists() && !dir.is_dir() {
        let message = format!("{} is not a folder", dir.display());
        return Err(ControlError::usage(message));
    }
    std::fs::create_dir_all(&dir).map_err(|error| {
        ControlError::io(format_args!("make the folder {}", dir.display()), &error)
    })?;
    let occupied = std::fs::read_dir(&dir)
        .map_err(|error| ControlError::io(format_args!("read {}", dir.display()), &error))?
        .next()
        .is_some();
    if occupied {
        return Err(
            ControlError::conflict(format!("{} is not empty", dir.display()))
                .with_code("not-empty"),
        );
    }
    let mut skipped = Vec::new();
    let database = running.vault.database().clone();
    let (target, report) = (dir.join("documents"), session.reporter());
    let documents =
        tokio::task::spawn_blocking(move || export_documents(&database, &target, &report));
    let (documents, mut unreadable) = documents
        .await
        .map_err(|error| ControlError::internal(error.to_string()))??;
    skipped.append(&mut unreadable);
    let (files, bytes) =
        files::write_tree(&running, &dir.join("files"), session, &mut skipped).await?;
    Ok(Reply::Exported {
        documents,
        files,
        bytes,
        dir,
        skipped,
    })
}

pub(super) fn export_documents(
    database: &redb::Database,
    dir: &Path,
    report: &impl Fn(Progress),
) -> Result<(u64, Vec<Skipped>), ControlError> {
    let fail = |error: StoreError| store_error(error);
    let read = database.begin_read().map_err(|error| fail(error.into()))?;
    let table = read
        .open_table(tables::DOCUMENTS)
        .map_err(|error| fail(error.into()))?;
    let (mut count, mut skipped) = (0, Vec::new());
    for item in table.iter().map_err(|error| fail(error.into()))? {
        let key = DocumentKey(*item.map_err(|error| fail(error.into()))?.0.value());
        let Some(row) = read_row(&read, key).map_err(fail)? else {
            continue;
        };
        if row.deleted || row.doctype == FILES {
            continue;
        }
        let path = dir
            .join(safe_name(&row.doctype))
            .join(format!("{}.json", safe_name(&row.id)));
        match index::json(&read, key, &row) {
            Ok(Some(value)) => {
                write_json(&path, &value).map_err(|error| {
                    ControlError::io(format_args!("write {}", path.display()), &error)
                })?;
                count += 1;
            }
            Ok(None) => {}
            Err(error) => skipped.push(Skipped {
                path: format!("{}/{}", row.doctype, row.id),
                reason: error.to_string(),
            }),
        }
        if count % REPORT_EVERY == 0 {
            report(Progress {
                stage: Stage::Documents,
                done: count,
                total: None,
                about: None,
            });
        }
    }
    Ok((count, skipped))
}

fn write_json(path: &Path, value: &serde_json::Value) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(path)?;
    serde_json::to_writer_pretty(&mut file, value)?;
    file.write_all(b"\n")
}

/// A type or id as a file name: what a file system might not take is written as `%` and two hexadecimal digits, and a
/// long name is cut and ends in a hash of the whole.
fn safe_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for (position, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'@' | b'+' | b'=')
            || (byte == b'.' && position > 0);
        if plain {
            safe.push(byte as char)
        } else {
            safe.push_str(&format!("%{byte:02X}"))
        }
    }
    if safe.len() > 200 {
        safe.truncate(180);
        safe.push_str(&format!(
            "~{}",
            &blake3::hash(name.as_bytes()).to_hex()[..16]
        ));
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::safe_name;

    #[test]
    fn names_of_documents_become_names_that_every_file_system_takes() {
        assert_eq!(safe_name("io.cozy.contacts"), "io.cozy.contacts");
        assert_eq!(safe_name("../etc/passwd"), "%2E.%2Fetc%2Fpasswd");
        assert!(safe_name(&"é".repeat(300)).len() <= 200);
        assert_ne!(safe_name(&"a".repeat(300)), safe_name(&"a".repeat(301)));
    }
}
