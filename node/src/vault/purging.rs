//! Documents that were purged: nothing of them is kept, and nothing is taken of them any more.
//!
//! A purge is a document of its own, of type [`DOCTYPE`], whose id is the [key](DocumentKey) of the document that is to be
//! forgotten: so it travels, is kept by hosts and reaches newcomers as any document does, and says neither type nor id.
//! Nothing takes it back. Whoever has it drops the document, what waits to become part of it, and every later change to
//! it: whatever the order of arrival, the same is left everywhere. Files have a purge of their own (`past.rs`), and
//! coffer's own documents none: to neither does this one reach.

use coffer_crdt::fast;
use coffer_crdt::json::Texts;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableError};
use serde_json::json;

use super::batch::Refusal;
use super::local::Changed;
use super::request::CommitError;
use super::work::{FILES, Work};
use crate::store::documents::{DocumentKey, Row};
use crate::store::{StoreError, tables};

/// Type of the documents that say what was purged.
pub const DOCTYPE: &str = "coffer.purged";

/// Version of the rows of [`tables::PURGED_DOCUMENTS`].
const VERSION: u8 = 1;

/// What a row says: the transaction in which the document went, and its type and id until the index has heard of it.
type Purged = (u8, u64, Option<(String, String)>);

/// Whether documents of a type can be purged: people's own, and no files.
pub fn can_be_purged(doctype: &str) -> bool {
    doctype != FILES && !doctype.starts_with("coffer.") && !doctype.starts_with("io.coffer.")
}

/// Whether a document was purged here.
pub fn is_purged(read: &ReadTransaction, doctype: &str, id: &str) -> Result<bool, StoreError> {
    let key = DocumentKey::new(doctype, id);
    let table = match read.open_table(tables::PURGED_DOCUMENTS) {
        Ok(table) => table,
        // Made by a program that knew no purges, and nothing was written since.
        Err(TableError::TableDoesNotExist(_)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    Ok(can_be_purged(doctype) && table.get(&key.0)?.is_some())
}

/// For the index: an empty row under the name of a document that was purged a moment ago.
pub fn purged_row(read: &ReadTransaction, key: DocumentKey) -> Result<Option<Row>, StoreError> {
    let table = match read.open_table(tables::PURGED_DOCUMENTS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(value) = table.get(&key.0)? else {
        return Ok(None);
    };
    let (_, _, name) = decode(value.value())?;
    Ok(name.map(|(doctype, id)| Row::new(&doctype, &id)))
}

/// The document that the record of this id purges; none for an id that no correct program writes.
fn purged_by(id: &str) -> Option<DocumentKey> {
    let mut key = [0; 32];
    hex::decode_to_slice(id, &mut key).ok()?;
    (hex::encode(key) == id).then_some(DocumentKey(key))
}

fn decode(bytes: &[u8]) -> Result<Purged, StoreError> {
    match postcard::from_bytes::<Purged>(bytes) {
        Ok(row) if row.0 == VERSION => Ok(row),
        _ => Err(StoreError::Damaged("a purge cannot be read".into())),
    }
}

fn encode(row: &Purged) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(row).map_err(|_| StoreError::Damaged("a purge could not be encoded".into()))
}

impl Work<'_, '_> {
    /// Whether a document of this key and type was purged.
    pub(super) fn is_purged(&self, key: DocumentKey, doctype: &str) -> Result<bool, StoreError> {
        Ok(
            !self.purged.is_empty()?
                && can_be_purged(doctype)
                && self.purged.get(&key.0)?.is_some(),
        )
    }

    /// Refuses to write to a document that was purged.
    pub(super) fn refuse_purged(&self, doctype: &str, id: &str) -> Result<(), Refusal> {
        match self.is_purged(DocumentKey::new(doctype, id), doctype)? {
            true => Err(CommitError::Purged(format!("document {doctype}/{id}")).into()),
            false => Ok(()),
        }
    }

    /// Purges a document: writes the record of it, and obeys that.
    pub(super) fn purge_document(
        &mut self,
        doctype: &str,
        id: &str,
        changed: &mut Changed,
    ) -> Result<(), Refusal> {
        if !can_be_purged(doctype) {
            return Err(CommitError::Invalid(format!(
                "documents of type {doctype} are coffer's own and cannot be purged"
            ))
            .into());
        }
        self.refuse_purged(doctype, id)?;
        let key = DocumentKey::new(doctype, id);
        if self.documents.row(key)?.is_none() {
            return Err(CommitError::NotFound(format!("document {doctype}/{id}")).into());
        }
        let name = hex::encode(key.0);
        let (actor, time) = self.author();
        let record = DocumentKey::new(DOCTYPE, &name);
        if self.documents.row(record)?.is_none() {
            let said = json!({ "purged": true });
            let change = fast::first_change(&said, &Texts::default(), actor, time)
                .map_err(|error| CommitError::Invalid(error.to_string()))?;
            self.append_local(record, Row::new(DOCTYPE, &name), change.bytes, None)?;
            changed.push((DOCTYPE.into(), name));
        }
        Ok(self.forget_document(key)?)
    }

    /// Does what the record of this id demands, if it is part of the vault by now.
    pub(super) fn obey_purge(&mut self, id: &str) -> Result<(), StoreError> {
        let is_there = self.documents.row(DocumentKey::new(DOCTYPE, id))?;
        match purged_by(id) {
            Some(key) if is_there.is_some_and(|row| row.changes > 0) => self.forget_document(key),
            _ => Ok(()),
        }
    }

    /// Drops all that is kept of a document, and notes that it was purged.
    fn forget_document(&mut self, key: DocumentKey) -> Result<(), StoreError> {
        if self.purged.get(&key.0)?.is_some() {
            return Ok(());
        }
        let row = match self.documents.row(key) {
            Ok(row) => row,
            // It goes, whatever is left of it.
            Err(StoreError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        let spared = row.as_ref().is_some_and(|row| !can_be_purged(&row.doctype));
        let name = row.map(|row| (row.doctype, row.id)).filter(|_| !spared);
        if !spared {
            self.core.cache.take(key);
            self.documents.clear(key)?;
            self.documents.clear_waiting(key, can_be_purged)?;
        }
        if let Some((doctype, id)) = &name {
            self.touch(key, doctype, id);
        }
        let transaction = self.core.state.transaction + 1;
        let bytes = encode(&(VERSION, transaction, name))?;
        self.purged.insert(&key.0, &bytes[..])?;
        // With the entry under way, which says it where it is purged here.
        self.core.state.purged_at = self.next_seq();
        self.done.wrote = true;
        Ok(())
    }

    /// The index has all up to this transaction durably: what was purged before needs no name any more.
    pub(super) fn forget_purged_names(&mut self, upto: u64) -> Result<(), StoreError> {
        let mut over = Vec::new();
        for item in self.purged.iter()? {
            let (key, value) = item?;
            let (_, transaction, name) = decode(value.value())?;
            if name.is_some() && transaction <= upto {
                over.push((*key.value(), transaction));
            }
        }
        for (key, transaction) in over {
            let bytes = encode(&(VERSION, transaction, None))?;
            self.purged.insert(&key, &bytes[..])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Table `purged_documents_1`.
    #[test]
    fn rows_are_encoded_as_they_always_were() {
        let named = (VERSION, 300, Some(("t".to_owned(), "i".to_owned())));
        for (row, frozen) in [
            (named, "01ac020101740169"),
            ((VERSION, 300, None), "01ac0200"),
        ] {
            let bytes = encode(&row).unwrap();
            assert_eq!(hex::encode(&bytes), frozen);
            assert_eq!(decode(&bytes).unwrap(), row);
        }
        assert!(decode(&[2, 0, 0]).is_err());
    }

    #[test]
    fn files_and_documents_of_coffers_own_are_out_of_reach() {
        assert!(can_be_purged("io.cozy.contacts"));
        for spared in [FILES, DOCTYPE, "coffer.hosts", "io.coffer.settings"] {
            assert!(!can_be_purged(spared), "{spared}");
        }
    }

    proptest! {
        #[test]
        fn a_record_names_a_document_by_its_key_in_one_way(key: [u8; 32], other in "\\PC{0,70}") {
            let id = hex::encode(key);
            prop_assert_eq!(purged_by(&id), Some(DocumentKey(key)));
            if id.to_uppercase() != id {
                prop_assert_eq!(purged_by(&id.to_uppercase()), None);
            }
            if let Some(key) = purged_by(&other) {
                prop_assert_eq!(hex::encode(key.0), other);
            }
        }
    }
}
