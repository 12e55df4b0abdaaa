//! How much room a transaction may take on the disk before it is durable: pages are written anew, and what they replace is
//! free only after that.

use coffer_protocol::ranges::RANGE_MAX_LEN;

use super::batch::Step;
use super::request::CommitRequest;

/// Says whether there is room for so many bytes.
pub type HasRoom = Box<dyn Fn(u64) -> bool + Send>;

/// Bytes of the database's file that one record may take: a page of its own, where records lie all over a large table, and
/// its part of those above, which many share.
const RECORD_TAKES: u64 = 6 << 10;

/// Bytes of a received entry that come to one record or less: a file of three records is some 400 bytes there.
const ENTRY_RECORD: usize = 128;

/// The same of a range, which is compressed.
const RANGE_RECORD: usize = 16;

/// Bytes that one more range may take.
pub(super) const RANGE_TAKES: u64 = RECORD_TAKES + 2 * RANGE_MAX_LEN as u64;

/// Bytes that a transaction of these steps may take.
pub(super) fn may_take(steps: &[Step]) -> u64 {
    let records: usize = steps.iter().map(records).sum();
    records as u64 * RECORD_TAKES
}

fn records(step: &Step) -> usize {
    match step {
        Step::Commit(_, request) => of_request(request),
        Step::Ingest(_, entries, _) => entries.iter().map(Vec::len).sum::<usize>() / ENTRY_RECORD,
        Step::Range(_, range, ..) => range.len() / RANGE_RECORD,
        Step::Admit(..)
        | Step::Manage(..)
        | Step::Grants(..)
        | Step::Held(..)
        | Step::Attestations(..)
        | Step::StateHeld => 1,
    }
}

fn of_request(request: &CommitRequest) -> usize {
    2 * request.operations.len()
        + request.placements.len()
        + request.displaced.len()
        + request.chunks.len()
        + request.folder_rows.len()
        + request.folder_brakes.len()
        + request.held.len()
}
