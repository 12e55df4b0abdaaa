//! Documents that are no files, taken in before files that came earlier.
//!
//! A first sync names hundreds of thousands of files, which the index takes in when it can. Who asks for documents
//! meanwhile waits for these alone. What was taken in ahead is taken in once more in its turn, which changes nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase};
use rusqlite::Connection;
use tokio::sync::watch;

use super::{IndexError, row_or_purged, seen_by, transaction_of, write};
use crate::store::documents::DocumentKey;
use crate::store::{StoreError, records, tables};
use crate::vault::FILES;

/// How far documents are ahead of files.
pub(super) struct Ahead {
    asked: AtomicU64,
    seen: watch::Sender<u64>,
}

impl Default for Ahead {
    fn default() -> Ahead {
        Ahead {
            asked: AtomicU64::new(0),
            seen: watch::channel(0).0,
        }
    }
}

impl Ahead {
    /// Wants documents up to this transaction; what is given says how far they are.
    pub fn ask(&self, number: u64) -> watch::Receiver<u64> {
        self.asked.fetch_max(number, Ordering::AcqRel);
        self.seen.subscribe()
    }

    /// Whether more is wanted than was taken in.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire) > *self.seen.borrow()
    }

    /// Takes in what is wanted, if that can be done: else who waits has it with all else, in its turn.
    pub fn run(&self, connection: &mut Connection, vault: &Database) -> Result<(), IndexError> {
        let asked = self.asked.swap(0, Ordering::AcqRel);
        if asked <= *self.seen.borrow() {
            return Ok(());
        }
        let read = vault.begin_read().map_err(StoreError::from)?;
        let meta = read.open_table(tables::META).map_err(StoreError::from)?;
        let number = |name| records::get_u64(&meta, name).map(|number| number.unwrap_or(0));
        let (now, pruned) = (
            number(tables::meta::TRANSACTION)?,
            number(tables::meta::FEED_PRUNED)?,
        );
        let from = seen_by(connection)?.max(*self.seen.borrow());
        if from >= now || pruned > from {
            // There is nothing to take in, or all is about to be.
            return Ok(());
        }
        let feed = read.open_table(tables::FEED).map_err(StoreError::from)?;
        let mut start = [0; 12];
        start[..8].copy_from_slice(&(from + 1).to_be_bytes());
        let transaction = connection.transaction()?;
        for item in feed
            .range::<&[u8; 12]>(&start..)
            .map_err(StoreError::from)?
        {
            let (key, value) = item.map_err(StoreError::from)?;
            debug_assert!(transaction_of(key.value()) <= now);
            let document = DocumentKey(*value.value());
            if let Some(row) = row_or_purged(&read, document)?.filter(|row| row.doctype != FILES) {
                write(&transaction, &read, document, &row)?;
            }
        }
        transaction.commit()?;
        self.seen.send_replace(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::open_checked;
    use super::*;
    use crate::store;
    use crate::store::documents::Row;
    use coffer_crdt::fast;
    use coffer_crdt::json::Texts;
    use redb::backends::InMemoryBackend;

    #[test]
    fn documents_do_not_wait_for_files_that_came_before() {
        let vault = store::open_with(InMemoryBackend::new()).unwrap();
        let change = |title: &str| {
            let value = serde_json::json!({ "title": title });
            fast::first_change(&value, &Texts::default(), [1; 16], 1).unwrap()
        };
        let rows = (0..5u64).map(|n| {
            let doctype = if n < 4 { FILES } else { "notes" };
            let mut row = Row::new(doctype, &format!("n{n}"));
            (row.changes, row.inline) = (1, vec![change("a note").bytes]);
            row
        });
        let write = vault.begin_write().unwrap();
        {
            let mut documents = write.open_table(tables::DOCUMENTS).unwrap();
            let mut feed = write.open_table(tables::FEED).unwrap();
            let mut meta = write.open_table(tables::META).unwrap();
            for (number, row) in (1u64..).zip(rows) {
                let key = DocumentKey::new(&row.doctype, &row.id);
                let bytes = postcard::to_stdvec(&row).unwrap();
                documents.insert(&key.0, &bytes[..]).unwrap();
                let mut at = [0; 12];
                at[..8].copy_from_slice(&number.to_be_bytes());
                feed.insert(&at, &key.0).unwrap();
            }
            let last = 5u64.to_be_bytes();
            meta.insert(tables::meta::TRANSACTION, &last[..]).unwrap();
        }
        write.commit().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut connection = open_checked(&dir.path().join("index.sqlite")).unwrap();
        let ahead = Ahead::default();
        let seen = ahead.ask(5);
        ahead.run(&mut connection, &vault).unwrap();
        assert_eq!(*seen.borrow(), 5);
        assert!(!ahead.is_asked());
        let known: Vec<String> = connection
            .prepare("SELECT doctype FROM documents")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(known, ["notes"]);
        // Files have their turn as ever.
        assert_eq!(seen_by(&connection).unwrap(), 0);
    }
}
