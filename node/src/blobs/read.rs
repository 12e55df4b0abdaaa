//! Chunks into memory: for chunk lists, and for reading a part of a file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use coffer_crdt::chunks::ChunkRoot;

use super::board::Item;
use super::content::{Expansion, Named};
use super::error::WriteError;
use super::jobs::Group;
use super::pins::Hold;
use super::placement::Rows;
use super::sources::Fetch;
use super::store::Keeper;
use super::transfer::{self, Arrived, Sink, Transferred, Want};
use super::{Shared, lock};

/// Most bytes that one [`Blobs::read_range`](super::Blobs::read_range) gives.
pub const MAX_READ: u64 = 64 << 20;

/// A plaintext that has come, or never will.
type Slot = Option<Result<Vec<u8>, WriteError>>;

/// Takes plaintexts into memory; with `KEEP`, ciphertexts that were received into the store.
struct MemorySink<const KEEP: bool> {
    shared: Arc<Shared>,
    chunks: Mutex<Vec<Slot>>,
    keeper: Keeper,
}

impl<const KEEP: bool> MemorySink<KEEP> {
    fn put(&self, item: Item, result: Result<Vec<u8>, WriteError>) {
        let mut chunks = lock(&self.chunks);
        chunks[item as usize] = Some(result);
    }
}

impl<const KEEP: bool> Sink for MemorySink<KEEP> {
    const SEALED: bool = KEEP;

    fn take(&self, item: Item, chunk: &Arrived<'_>) {
        let kept = match chunk.sealed {
            Some(sealed) if KEEP => self
                .keeper
                .keep(&self.shared.store, chunk.named.blob, sealed),
            _ => Ok(()),
        };
        self.put(
            item,
            kept.map(|()| chunk.plain.to_vec())
                .map_err(WriteError::from),
        );
    }

    fn fail(&self, item: Item, why: &WriteError) {
        self.put(item, Err(why.again()));
    }

    fn ready(&self) -> bool {
        false
    }

    fn flush(&self, _: Option<&[Item]>) -> Group {
        let mut group = Group::default();
        match self.keeper.flush(&self.shared.store) {
            Ok(placed) => group.shared.placements = placed,
            Err(error) => {
                let mut chunks = lock(&self.chunks);
                chunks.fill_with(|| Some(Err(WriteError::from(error.again()))));
            }
        }
        group
    }
}

/// Plaintexts of `chunks`, in their order, each or why it is not to be had.
pub(super) async fn gather<const KEEP: bool>(
    shared: &Arc<Shared>,
    chunks: &[Named],
    fetch: &Fetch,
    hold: &Hold,
    done: &mut Transferred,
    rows: &mut Rows,
) -> Result<Vec<Result<Vec<u8>, WriteError>>, WriteError> {
    hold.pin_all(chunks).await;
    let reader = shared.reader()?;
    let mut items = HashMap::new();
    let mut wants = Vec::new();
    for chunk in chunks {
        if !items.contains_key(chunk) {
            items.insert(*chunk, wants.len());
            let local = reader
                .has(&chunk.blob)
                .map_err(|error| WriteError::Store(error.into()))?;
            wants.push(Want {
                named: *chunk,
                local,
            });
        }
    }
    drop(reader);
    let sink = Arc::new(MemorySink::<KEEP> {
        shared: Arc::clone(shared),
        chunks: Mutex::new((0..wants.len()).map(|_| None).collect()),
        keeper: Keeper::new(hold.clone()),
    });
    let (groups, mut flushed) = tokio::sync::mpsc::channel(1);
    done.add(transfer::run(shared, wants, Arc::clone(&sink), fetch, Some(&groups)).await);
    if let Ok(group) = flushed.try_recv() {
        rows.append(group.shared);
    }
    let mut got = std::mem::take(&mut *lock(&sink.chunks));
    let mut uses: HashMap<usize, usize> = HashMap::new();
    for chunk in chunks {
        *uses.entry(items[chunk]).or_default() += 1;
    }
    let missing = got.iter().filter(|chunk| chunk.is_none()).count();
    let mut give = |item: usize| {
        let left = uses.entry(item).or_insert(1);
        *left -= 1;
        match &got[item] {
            None => Err(WriteError::Unavailable { missing }),
            Some(Err(error)) => Err(error.again()),
            // The last user takes it, the others a copy.
            Some(Ok(bytes)) if *left > 0 => Ok(bytes.clone()),
            Some(Ok(_)) => got[item]
                .take()
                .unwrap_or(Err(WriteError::Unavailable { missing })),
        }
    };
    Ok(chunks.iter().map(|chunk| give(items[chunk])).collect())
}

/// The chunks of several contents, list pieces fetched where they are not here. With `KEEP` those are kept, durable, and
/// their rows are added to `rows`.
pub(super) async fn expand<const KEEP: bool>(
    shared: &Arc<Shared>,
    roots: impl IntoIterator<Item = &ChunkRoot>,
    fetch: &Fetch,
    hold: &Hold,
    done: &mut Transferred,
    rows: &mut Rows,
) -> Vec<Result<Vec<Named>, WriteError>> {
    let mut contents: Vec<_> = roots.into_iter().map(Expansion::of).collect();
    loop {
        let pieces: Vec<Named> = contents
            .iter()
            .filter_map(|content| match content {
                Ok(Expansion::Pieces(pieces, _)) => Some(pieces),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        if pieces.is_empty() {
            break;
        }
        let mut got = match gather::<KEEP>(shared, &pieces, fetch, hold, done, rows).await {
            Ok(got) => got.into_iter(),
            Err(error) => {
                for content in &mut contents {
                    if matches!(content, Ok(Expansion::Pieces(..))) {
                        *content = Err(error.again());
                    }
                }
                break;
            }
        };
        for content in &mut contents {
            if let Ok(Expansion::Pieces(pieces, depth)) = content {
                let depth = *depth;
                // All of its pieces are taken from the line, also behind one that failed.
                let parts: Vec<_> = got.by_ref().take(pieces.len()).collect();
                *content = parts
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()
                    .and_then(|parts| Expansion::next(&parts.concat(), depth));
            }
        }
    }
    contents
        .into_iter()
        .map(|content| match content? {
            Expansion::Chunks(chunks) => Ok(chunks),
            Expansion::Pieces(..) => Err(WriteError::BadList),
        })
        .collect()
}

/// The chunks of one content.
pub(super) async fn expand_one(
    shared: &Arc<Shared>,
    root: &ChunkRoot,
    fetch: &Fetch,
) -> Result<Vec<Named>, WriteError> {
    let (hold, (mut done, mut rows)) = (shared.pins.hold(), Default::default());
    let mut contents = expand::<false>(shared, [root], fetch, &hold, &mut done, &mut rows).await;
    contents.pop().unwrap_or(Err(WriteError::BadList))
}

/// A range of a content's bytes, cut off at its end.
pub(super) async fn read_range(
    shared: &Arc<Shared>,
    root: &ChunkRoot,
    range: Range<u64>,
    fetch: &Fetch,
) -> Result<Vec<u8>, WriteError> {
    if range.end.saturating_sub(range.start) > MAX_READ {
        return Err(WriteError::TooLong { max: MAX_READ });
    }
    let chunks = expand_one(shared, root, fetch).await?;
    let mut offset = 0;
    let mut parts = Vec::new();
    for chunk in chunks {
        let (begin, end) = (offset, offset + u64::from(chunk.len));
        offset = end;
        if begin < range.end && range.start < end {
            let from = range.start.saturating_sub(begin) as usize;
            let to = (range.end.min(end) - begin) as usize;
            parts.push((chunk, from..to));
        }
    }
    let wanted: Vec<Named> = parts.iter().map(|(chunk, _)| *chunk).collect();
    let (hold, (mut done, mut rows)) = (shared.pins.hold(), Default::default());
    let got = gather::<false>(shared, &wanted, fetch, &hold, &mut done, &mut rows).await?;
    let mut bytes = Vec::new();
    for ((_, within), plain) in parts.into_iter().zip(got) {
        bytes.extend_from_slice(plain?.get(within).ok_or(WriteError::BadList)?);
    }
    Ok(bytes)
}
