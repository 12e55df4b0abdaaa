//! Steps from earlier layouts of the database to the present one: each in one transaction, so that it is done or not begun.

use redb::{Database, ReadableTable, TableDefinition};

use super::documents::{DocumentKey, Row, Waiting, decode};
use super::{StoreError, pieces, records, tables};

const DOCUMENTS_1: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("documents_1");
const BASES_1: TableDefinition<&[u8; 36], &[u8]> = TableDefinition::new("document_bases_1");
const TAILS_1: TableDefinition<&[u8; 38], &[u8]> = TableDefinition::new("document_tails_1");
const WAITING_1: TableDefinition<&[u8; 98], &[u8]> = TableDefinition::new("waiting_1");
const FEED_1: TableDefinition<&[u8; 12], &[u8; 32]> = TableDefinition::new("feed_1");

/// Layout 2 has other [document keys](DocumentKey): until then all were the hash of type and id.
pub(super) fn to_2(database: &Database) -> Result<(), StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let (from, mut to) = (
            transaction.open_table(DOCUMENTS_1)?,
            transaction.open_table(tables::DOCUMENTS)?,
        );
        let (bases_from, mut bases) = (
            transaction.open_table(BASES_1)?,
            transaction.open_table(tables::DOCUMENT_BASES)?,
        );
        let (tails_from, mut tails) = (
            transaction.open_table(TAILS_1)?,
            transaction.open_table(tables::DOCUMENT_TAILS)?,
        );
        for item in from.iter()? {
            let (old, value) = item?;
            let old = old.value();
            let row: Row = decode(value.value(), "a document row")?;
            let key = DocumentKey::new(&row.doctype, &row.id);
            to.insert(&key.0, value.value())?;
            let (first, last) = around::<36>(old);
            for item in bases_from.range::<&[u8; 36]>(&first..=&last)? {
                let (piece, value) = item?;
                bases.insert(&moved(piece.value(), key), value.value())?;
            }
            let (first, last) = around::<38>(old);
            for item in tails_from.range::<&[u8; 38]>(&first..=&last)? {
                let (piece, value) = item?;
                tails.insert(&moved(piece.value(), key), value.value())?;
            }
        }
        let (from, mut to) = (
            transaction.open_table(WAITING_1)?,
            transaction.open_table(tables::WAITING)?,
        );
        for item in from.iter()? {
            let old = *item?.0.value();
            if old[96..] != [0, 0] {
                continue;
            }
            let bytes = pieces::read(&from, &old)?.unwrap_or_default();
            let waiting: Waiting = decode(&bytes, "a waiting change")?;
            let key = DocumentKey::new(&waiting.doctype, &waiting.id);
            pieces::write(&mut to, &moved(&old, key), &bytes)?;
        }
        // An index that has not seen all of it is made anew.
        transaction.open_table(tables::FEED)?;
        let mut meta = transaction.open_table(tables::META)?;
        let seen = records::get_u64(&meta, tables::meta::TRANSACTION)?.unwrap_or(0);
        meta.insert(tables::meta::FEED_PRUNED, &seen.to_be_bytes()[..])?;
        meta.insert(tables::meta::LAYOUT, &2u32.to_be_bytes()[..])?;
    }
    transaction.delete_table(DOCUMENTS_1)?;
    transaction.delete_table(BASES_1)?;
    transaction.delete_table(TAILS_1)?;
    transaction.delete_table(WAITING_1)?;
    transaction.delete_table(FEED_1)?;
    Ok(transaction.commit()?)
}

/// The first and the last key that begin with a document's.
fn around<const N: usize>(document: &[u8; 32]) -> ([u8; N], [u8; N]) {
    let (mut first, mut last) = ([0; N], [0xff; N]);
    first[..32].copy_from_slice(document);
    last[..32].copy_from_slice(document);
    (first, last)
}

/// A key with another document's in front.
fn moved<const N: usize>(key: &[u8; N], document: DocumentKey) -> [u8; N] {
    let mut key = *key;
    key[..32].copy_from_slice(&document.0);
    key
}

#[cfg(test)]
mod tests {
    use coffer_crdt::change::ChangeHash;
    use redb::ReadableDatabase;
    use redb::backends::InMemoryBackend;

    use super::super::documents::{DocumentTables, read_row};
    use super::*;

    /// A document as layout 1 had it: row, a base of two pieces, a batch, and something that waits.
    fn write_old(database: &Database, old: [u8; 32], row: &Row) {
        let at = |rest: &[u8]| [&old[..], rest].concat();
        let transaction = database.begin_write().unwrap();
        {
            let mut documents = transaction.open_table(DOCUMENTS_1).unwrap();
            let mut bases = transaction.open_table(BASES_1).unwrap();
            let mut tails = transaction.open_table(TAILS_1).unwrap();
            let mut waiting = transaction.open_table(WAITING_1).unwrap();
            let row_bytes = postcard::to_stdvec(row).unwrap();
            documents.insert(&old, &row_bytes[..]).unwrap();
            for piece in 0..2u32 {
                let key: [u8; 36] = at(&piece.to_be_bytes()).try_into().unwrap();
                bases.insert(&key, &[piece as u8; 9][..]).unwrap();
            }
            let key: [u8; 38] = at(&[0; 6]).try_into().unwrap();
            tails.insert(&key, &[7; 5][..]).unwrap();
            let bytes = postcard::to_stdvec(&Waiting {
                doctype: row.doctype.clone(),
                id: row.id.clone(),
                bytes: vec![8; 40_000],
            });
            let mut key = [0; 98];
            key[..32].copy_from_slice(&old);
            key[32..64].copy_from_slice(&[1; 32]);
            key[64..96].copy_from_slice(&[2; 32]);
            pieces::write(&mut waiting, &key, &bytes.unwrap()).unwrap();
            let mut meta = transaction.open_table(tables::META).unwrap();
            let layout = 1u32.to_be_bytes();
            meta.insert(tables::meta::LAYOUT, &layout[..]).unwrap();
            let seen = 5u64.to_be_bytes();
            meta.insert(tables::meta::TRANSACTION, &seen[..]).unwrap();
        }
        transaction.commit().unwrap();
    }

    #[test]
    fn a_database_of_layout_1_keeps_all_of_its_documents() {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .unwrap();
        let rows = ["0191e0c7a1b24c8d9e0f112233445566", "anna"].map(|id| Row {
            changes: 3,
            inline: vec![vec![1, 2, 3]],
            ..Row::new("io.cozy.files", id)
        });
        for (n, row) in rows.iter().enumerate() {
            write_old(&database, [n as u8 + 3; 32], row);
        }
        let database = super::super::prepare(database).unwrap();
        let read = database.begin_read().unwrap();
        for row in &rows {
            let key = DocumentKey::new(&row.doctype, &row.id);
            assert_eq!(read_row(&read, key).unwrap().as_ref(), Some(row));
            let (first, last) = around::<36>(&key.0);
            let bases = read.open_table(tables::DOCUMENT_BASES).unwrap();
            let found = bases.range::<&[u8; 36]>(&first..=&last).unwrap();
            let found: Vec<_> = found.map(|item| item.unwrap().1.value().to_vec()).collect();
            assert_eq!(found, [[0; 9], [1; 9]]);
            let (first, last) = around::<38>(&key.0);
            let tails = read.open_table(tables::DOCUMENT_TAILS).unwrap();
            assert_eq!(tails.range::<&[u8; 38]>(&first..=&last).unwrap().count(), 1);
        }
        drop(read);
        let write = database.begin_write().unwrap();
        let mut documents = DocumentTables::open(&write).unwrap();
        for row in &rows {
            let key = DocumentKey::new(&row.doctype, &row.id);
            let taken = documents.take_waiting(key, ChangeHash([1; 32])).unwrap();
            assert_eq!(taken.len(), 1);
            assert_eq!((&taken[0].1.id, taken[0].1.bytes.len()), (&row.id, 40_000));
        }
        drop(documents);
        write.abort().unwrap();
        let read = database.begin_read().unwrap();
        let meta = read.open_table(tables::META).unwrap();
        let number = |name| records::get_u64(&meta, name).unwrap();
        assert_eq!(number(tables::meta::FEED_PRUNED), Some(5));
        let layout = records::get_u32(&meta, tables::meta::LAYOUT).unwrap();
        assert_eq!(layout, Some(tables::LAYOUT_WHOLE));
        assert!(read.open_table(DOCUMENTS_1).is_err());
    }
}
