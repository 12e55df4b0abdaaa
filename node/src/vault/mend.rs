//! Putting a document together again that cannot be read any more, from the logs: they hold every change of it, signed.

use coffer_crdt::document::{Applied, Document};
use coffer_protocol::identity::WriterId;
use coffer_protocol::log::{self, Entry};
use coffer_protocol::ranges::Content;

use super::work::Work;
use crate::store::StoreError;
use crate::store::documents::{DocumentKey, Row};

impl Work<'_, '_> {
    /// Looks at a document anew: what derives from it is derived again, and if it cannot be read, its rows are made anew
    /// from the changes that the logs hold. Where they hold none that can be read, it stays as it is.
    pub fn mend(&mut self, doctype: &str, id: &str) -> Result<(), StoreError> {
        // Its newest changes must be in a log before that is read.
        self.close_entry()?;
        let key = DocumentKey::new(doctype, id);
        if self.is_purged(key, doctype)? {
            return Ok(());
        }
        self.core.cache.take(key);
        let row = match self.documents.row(key) {
            Ok(row) => row,
            Err(StoreError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        let readable = match &row {
            Some(row) => match self.documents.load(key, row) {
                Ok(document) => Some((row.clone(), document)),
                Err(StoreError::Damaged(_)) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        if let Some((row, document)) = readable {
            self.touch(key, doctype, id);
            return self.settle(key, row, document);
        }
        let (document, changes) = put_together(self.changes_of(doctype, id)?);
        if changes.is_empty() {
            return Ok(());
        }
        self.documents.clear(key)?;
        let mut row = Row::new(doctype, id);
        for change in &changes {
            row = self.append(key, row, change, None)?;
        }
        tracing::warn!("a damaged document was put together again from the logs");
        self.settle(key, row, document)
    }

    /// Every change of a document that the logs hold and that can be read.
    fn changes_of(&self, doctype: &str, id: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let logs: Vec<(WriterId, u64)> = self
            .core
            .state
            .clock
            .iter()
            .map(|(writer, seq, _)| (*writer, seq))
            .collect();
        let keyring = self.core.state.keyring.clone();
        let mut found = Vec::new();
        for (writer, last) in logs {
            for seq in 1..=last {
                let Some(bytes) = self.logs.entry(writer, seq)? else {
                    continue;
                };
                let body = Entry::decode(&bytes).ok().and_then(|entry| {
                    let key = keyring.epoch(&entry.header.epoch)?;
                    log::open_entry(&entry, key).ok()
                });
                let changes = body.map(|body| body.changes).unwrap_or_default();
                let of_it = changes
                    .into_iter()
                    .filter(|change| change.doctype == doctype && change.id == id);
                found.extend(of_it.map(|change| change.bytes));
            }
        }
        // Where entries are not here, a range has what they held.
        let ranges = self.core.state.ranges.clone();
        for (writer, to) in ranges
            .iter()
            .filter(|(_, known)| known.marks.alone)
            .map(|(place, _)| *place)
        {
            let content = self.kept_range(writer, to)?;
            let changes = content.into_iter().flat_map(Content::into_changes);
            let of_it = changes.filter(|change| change.doctype == doctype && change.id == id);
            found.extend(of_it.map(|change| change.bytes));
        }
        Ok(found)
    }
}

/// A document of these changes, in whatever order they come, and those that are part of it, in an order that loads.
fn put_together(mut changes: Vec<Vec<u8>>) -> (Document, Vec<Vec<u8>>) {
    let mut document = Document::empty();
    let mut applied = Vec::new();
    loop {
        let before = applied.len();
        let mut later = Vec::new();
        for change in changes {
            match document.apply(&change) {
                Ok(Applied::Done) => applied.push(change),
                Ok(Applied::Missing(_)) => later.push(change),
                // Held twice, or left out when it came: no correct program makes it.
                Ok(Applied::Duplicate) | Err(_) => {}
            }
        }
        if applied.len() == before || later.is_empty() {
            return (document, applied);
        }
        changes = later;
    }
}
