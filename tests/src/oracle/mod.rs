//! The checks.
//!
//! ```text
//! honesty.rs       whenever a replica says anything: its disk says so too, also after a power cut at that moment
//! completeness.rs  what was acknowledged is there: after each start, and on all in the end
//! agreement.rs     in the end all show the same, from the same entries, and say that they hold everything
//! conflicts.rs     which conflicts a run ended up with; no stamp was given out twice
//! ```

mod agreement;
mod completeness;
mod conflicts;
mod honesty;

use std::collections::BTreeMap;

use coffer_crdt::files::{FileId, FileState};
use coffer_crdt::history::Revision;
use coffer_node::store::documents::{DocumentKey, read_document, read_row};
use coffer_node::store::{StoreError, pieces, tables};
use redb::{Database, ReadableDatabase, ReadableTable};

pub use agreement::{Picture, picture, statements_lack};
pub use completeness::{changes_of, check_acknowledged, check_complete, is_purged};
pub use conflicts::count_conflicts;
pub use honesty::{Durably, check_durable, check_honesty, check_start, check_statement};

/// The changes of a document, oldest first.
fn history(database: &Database, doctype: &str, id: &str) -> Result<Vec<Revision>, StoreError> {
    let read = database.begin_read()?;
    let key = DocumentKey::new(doctype, id);
    match read_row(&read, key)? {
        Some(row) => Ok(read_document(&read, key, &row)?.history()),
        None => Ok(Vec::new()),
    }
}

/// The stored state of every file.
pub(crate) fn file_rows(database: &Database) -> Result<BTreeMap<FileId, FileState>, StoreError> {
    let read = database.begin_read()?;
    let table = read.open_table(tables::FILES)?;
    let mut rows = BTreeMap::new();
    for item in table.iter()? {
        let key = *item?.0.value();
        if key[16..] == [0, 0] {
            let mut id = FileId([0; 16]);
            id.0.copy_from_slice(&key[..16]);
            let bytes = pieces::read(&table, &key)?.unwrap_or_default();
            let state = FileState::from_record(&bytes)
                .unwrap_or_else(|error| panic!("the stored state of {id} cannot be read: {error}"));
            rows.insert(id, state);
        }
    }
    Ok(rows)
}
