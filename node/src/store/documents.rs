//! Documents at rest: a row with the newest changes inside, batches of older ones, and a folded base.
//!
//! A first change of a small document costs one insert. Changes gather in the row until they outgrow [`INLINE_MAX`],
//! then move to a batch; when the batches outgrow the base, all is folded into a new base. What is written here is the
//! truth; JSON, search and the file tree are derived from it.

use coffer_crdt::change::ChangeHash;
use coffer_crdt::document::Document;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{StoreError, pieces, tables};

/// Bytes of changes that a row keeps inside, at most: with the rest of the row it stays under one piece.
const INLINE_MAX: usize = 8 * 1024;
/// Batches are folded into the base when they hold more than this and more than the base itself.
const FOLD_MIN: usize = 64 * 1024;

/// The key of a document: a hash of its type and id. Where the id is 16 bytes in hexadecimal, as those of files are, it begins
/// with these: such ids begin with the time, so what came together lies together, and a batch of thousands touches few pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DocumentKey(pub [u8; 32]);

impl DocumentKey {
    /// The key of document `id` of type `doctype`.
    pub fn new(doctype: &str, id: &str) -> DocumentKey {
        let mut hasher = blake3::Hasher::new_derive_key("coffer 2026-11 document key");
        hasher.update(&(doctype.len() as u64).to_be_bytes());
        hasher.update(doctype.as_bytes());
        hasher.update(id.as_bytes());
        let hash = *hasher.finalize().as_bytes();
        let mut bytes = [0; 16];
        match hex::decode_to_slice(id, &mut bytes) {
            Ok(()) => DocumentKey(join(&bytes, &hash[..16])),
            Err(_) => DocumentKey(hash),
        }
    }
}

/// What [`tables::DOCUMENTS`] holds for each document, in postcard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The document's type.
    pub doctype: String,
    /// The document's id.
    pub id: String,
    /// Whether the present state is deleted.
    pub deleted: bool,
    /// How many changes the document has.
    pub changes: u32,
    /// Length of the base in bytes; 0 where there is none.
    pub base_len: u32,
    /// Number of batches after the base.
    pub batches: u32,
    /// Bytes in these batches.
    pub batches_len: u32,
    /// The newest changes, oldest first.
    pub inline: Vec<Vec<u8>>,
}

impl Row {
    /// A row of a document without changes.
    pub fn new(doctype: &str, id: &str) -> Row {
        Row {
            doctype: doctype.into(),
            id: id.into(),
            deleted: false,
            changes: 0,
            base_len: 0,
            batches: 0,
            batches_len: 0,
            inline: Vec::new(),
        }
    }

    /// The document's only change, where it has just one and that lies in the row.
    pub fn only_change(&self) -> Option<&[u8]> {
        match (self.changes, &self.inline[..]) {
            (1, [only]) => Some(only),
            _ => None,
        }
    }
}

/// A change that waits for others of its document, in postcard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The document's type.
    pub doctype: String,
    /// The document's id.
    pub id: String,
    /// The raw change.
    pub bytes: Vec<u8>,
}

/// The tables of documents within a write transaction.
pub struct DocumentTables<'t> {
    documents: Table<'t, &'static [u8; 32], &'static [u8]>,
    bases: Table<'t, &'static [u8; 36], &'static [u8]>,
    tails: Table<'t, &'static [u8; 38], &'static [u8]>,
    waiting: Table<'t, &'static [u8; 98], &'static [u8]>,
}

impl<'t> DocumentTables<'t> {
    /// Opens them; one transaction can hold them once.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(DocumentTables {
            documents: transaction.open_table(tables::DOCUMENTS)?,
            bases: transaction.open_table(tables::DOCUMENT_BASES)?,
            tails: transaction.open_table(tables::DOCUMENT_TAILS)?,
            waiting: transaction.open_table(tables::WAITING)?,
        })
    }

    /// The row of a document.
    pub fn row(&self, key: DocumentKey) -> Result<Option<Row>, StoreError> {
        row_of(&self.documents, key)
    }

    /// The whole document of `row`.
    pub fn load(&self, key: DocumentKey, row: &Row) -> Result<Document, StoreError> {
        load_from(&self.bases, &self.tails, key, row)
    }

    /// Adds `change` to the document. `state` is the document with the change in it, where the caller has it loaded:
    /// without it nothing is folded this time.
    pub fn append(
        &mut self,
        key: DocumentKey,
        mut row: Row,
        change: &[u8],
        state: Option<&mut Document>,
    ) -> Result<Row, StoreError> {
        row.changes += 1;
        row.inline.push(change.to_vec());
        if row.inline.iter().map(Vec::len).sum::<usize>() > INLINE_MAX {
            let batch = postcard::to_stdvec(&row.inline).map_err(|_| {
                StoreError::Damaged("a batch of changes could not be encoded".into())
            })?;
            pieces::write(&mut self.tails, &tail_key(key, row.batches), &batch)?;
            row.batches += 1;
            row.batches_len = row.batches_len.saturating_add(batch.len() as u32);
            row.inline.clear();
            if let Some(document) = state
                && row.batches_len as usize > FOLD_MIN.max(row.base_len as usize)
            {
                self.fold(key, &mut row, document)?;
            }
        }
        self.write_row(key, &row)?;
        Ok(row)
    }

    /// Writes `row` as it is.
    pub fn write_row(&mut self, key: DocumentKey, row: &Row) -> Result<(), StoreError> {
        let bytes = postcard::to_stdvec(row)
            .map_err(|_| StoreError::Damaged("a document row could not be encoded".into()))?;
        self.documents.insert(&key.0, &bytes[..])?;
        Ok(())
    }

    /// Removes all that is held of a document, for it to be written anew. What waits for its changes stays.
    pub fn clear(&mut self, key: DocumentKey) -> Result<(), StoreError> {
        self.documents.remove(&key.0)?;
        let (from, mut to) = (base_key(key, 0), [0xff; 36]);
        to[..32].copy_from_slice(&key.0);
        self.bases
            .retain_in::<&[u8; 36], _>(&from..=&to, |_, _| false)?;
        let (from, mut to) = (tail_key(key, 0), [0xff; 38]);
        to[..32].copy_from_slice(&key.0);
        self.tails
            .retain_in::<&[u8; 38], _>(&from..=&to, |_, _| false)?;
        Ok(())
    }

    fn fold(
        &mut self,
        key: DocumentKey,
        row: &mut Row,
        document: &mut Document,
    ) -> Result<(), StoreError> {
        // Only a base that is proven to load takes the place of the changes it was made from.
        let base = match document.save_proven() {
            Ok(base) => base,
            Err(error) => {
                tracing::warn!(%error, "a document is kept unfolded");
                return Ok(());
            }
        };
        let old_pieces = (row.base_len as usize).div_ceil(pieces::PIECE);
        for (n, piece) in base.chunks(pieces::PIECE).enumerate() {
            self.bases.insert(&base_key(key, n as u32), piece)?;
        }
        for n in base.len().div_ceil(pieces::PIECE)..old_pieces {
            self.bases.remove(&base_key(key, n as u32))?;
        }
        for batch in 0..row.batches {
            pieces::remove(&mut self.tails, &tail_key(key, batch))?;
        }
        row.base_len = base.len() as u32;
        (row.batches, row.batches_len) = (0, 0);
        Ok(())
    }

    /// Keeps a change until `missing`, which it builds on, is here. Keeping it twice is harmless.
    pub fn wait(
        &mut self,
        key: DocumentKey,
        missing: ChangeHash,
        hash: ChangeHash,
        waiting: &Waiting,
    ) -> Result<(), StoreError> {
        let bytes = postcard::to_stdvec(waiting)
            .map_err(|_| StoreError::Damaged("a waiting change could not be encoded".into()))?;
        let name = waiting_key(key, missing, hash);
        Ok(pieces::write(&mut self.waiting, &name, &bytes)?)
    }

    /// Takes out the changes that waited for `arrived`.
    pub fn take_waiting(
        &mut self,
        key: DocumentKey,
        arrived: ChangeHash,
    ) -> Result<Vec<(ChangeHash, Waiting)>, StoreError> {
        let (from, mut to) = (waiting_key(key, arrived, ChangeHash([0; 32])), [0xff; 98]);
        to[..64].copy_from_slice(&from[..64]);
        let mut names = Vec::new();
        for item in self.waiting.range::<&[u8; 98]>(&from..=&to)? {
            let name = *item?.0.value();
            if name[96..] == [0, 0] {
                names.push(name);
            }
        }
        let mut taken = Vec::with_capacity(names.len());
        for name in names {
            let mut hash = [0; 32];
            hash.copy_from_slice(&name[64..96]);
            let bytes = pieces::read(&self.waiting, &name)?.unwrap_or_default();
            pieces::remove(&mut self.waiting, &name)?;
            taken.push((ChangeHash(hash), decode(&bytes, "a waiting change")?));
        }
        Ok(taken)
    }

    /// Removes the changes that wait to become part of a document, where it is of a type for which `may_go` holds.
    pub fn clear_waiting(
        &mut self,
        key: DocumentKey,
        may_go: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        let nothing = ChangeHash([0; 32]);
        let (from, mut to) = (waiting_key(key, nothing, nothing), [0xff; 98]);
        to[..32].copy_from_slice(&key.0);
        let first = self.waiting.range::<&[u8; 98]>(&from..=&to)?.next();
        let Some(first) = first.transpose()?.map(|(name, _)| *name.value()) else {
            return Ok(());
        };
        let bytes = pieces::read(&self.waiting, &first)?.unwrap_or_default();
        let waiting: Waiting = decode(&bytes, "a waiting change")?;
        if may_go(&waiting.doctype) {
            self.waiting
                .retain_in::<&[u8; 98], _>(&from..=&to, |_, _| false)?;
        }
        Ok(())
    }

    /// How many pieces of changes wait, over all documents.
    pub fn waiting_len(&self) -> Result<u64, StoreError> {
        Ok(self.waiting.len()?)
    }
}

/// The row and, where it is wanted, the document, read outside of any write.
pub fn read_row(
    transaction: &ReadTransaction,
    key: DocumentKey,
) -> Result<Option<Row>, StoreError> {
    row_of(&transaction.open_table(tables::DOCUMENTS)?, key)
}

/// The whole document of `row`.
pub fn read_document(
    transaction: &ReadTransaction,
    key: DocumentKey,
    row: &Row,
) -> Result<Document, StoreError> {
    load_from(
        &transaction.open_table(tables::DOCUMENT_BASES)?,
        &transaction.open_table(tables::DOCUMENT_TAILS)?,
        key,
        row,
    )
}

fn row_of(
    table: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    key: DocumentKey,
) -> Result<Option<Row>, StoreError> {
    table
        .get(&key.0)?
        .map(|value| decode(value.value(), "a document row"))
        .transpose()
}

fn load_from(
    bases: &impl ReadableTable<&'static [u8; 36], &'static [u8]>,
    tails: &impl ReadableTable<&'static [u8; 38], &'static [u8]>,
    key: DocumentKey,
    row: &Row,
) -> Result<Document, StoreError> {
    let mut base = Vec::with_capacity(row.base_len as usize);
    for piece in 0..(row.base_len as usize).div_ceil(pieces::PIECE) {
        let value = bases
            .get(&base_key(key, piece as u32))?
            .ok_or_else(|| damaged(row))?;
        base.extend_from_slice(value.value());
    }
    let mut changes: Vec<Vec<u8>> = Vec::new();
    for batch in 0..row.batches {
        let bytes = pieces::read(tails, &tail_key(key, batch))?.ok_or_else(|| damaged(row))?;
        changes.extend(decode::<Vec<Vec<u8>>>(&bytes, "a batch of changes")?);
    }
    let all = changes.iter().chain(&row.inline).map(Vec::as_slice);
    Document::load((!base.is_empty()).then_some(&base[..]), all).map_err(|_| damaged(row))
}

fn damaged(row: &Row) -> StoreError {
    StoreError::Damaged(format!(
        "document {}/{} cannot be read",
        row.doctype, row.id
    ))
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, StoreError> {
    postcard::from_bytes(bytes)
        .map_err(|_| StoreError::Damaged(format!("{what} cannot be decoded")))
}

fn base_key(key: DocumentKey, piece: u32) -> [u8; 36] {
    join(&key.0, &piece.to_be_bytes())
}

fn tail_key(key: DocumentKey, batch: u32) -> [u8; 38] {
    join(&key.0, &batch.to_be_bytes())
}

fn waiting_key(key: DocumentKey, missing: ChangeHash, hash: ChangeHash) -> [u8; 98] {
    let mut name = [0; 98];
    name[..32].copy_from_slice(&key.0);
    name[32..64].copy_from_slice(&missing.0);
    name[64..96].copy_from_slice(&hash.0);
    name
}

/// `a` ‖ `b`, then zeros to the end.
fn join<const N: usize>(a: &[u8], b: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out[..a.len()].copy_from_slice(a);
    out[a.len()..a.len() + b.len()].copy_from_slice(b);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_documents_are_frozen() {
        let key = |doctype, id| hex::encode(DocumentKey::new(doctype, id).0);
        assert_eq!(key("io.cozy.contacts", "anna"), FROZEN_HASH);
        assert_eq!(
            key("io.cozy.files", "0191e0c7a1b24c8d9e0f112233445566"),
            FROZEN_ID
        );
    }

    const FROZEN_HASH: &str = "72d60752042591ace653f8bcba0be908ceb848fb1fd4c4791542d7efc80a5a54";
    const FROZEN_ID: &str = "0191e0c7a1b24c8d9e0f11223344556660c8a2370f2847cc85ba00d3744acb22";
}
