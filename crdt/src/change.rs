//! One change as bytes: what it says of itself, and the guard around bytes that came from elsewhere.
//!
//! Automerge checks a change while it parses it, but not before it spends: a few bytes can claim 2⁶⁰ operations by
//! run-length, a deflated megabyte can inflate to a gigabyte, and crafted columns have panicked it in the past. So a
//! change is measured here first ([`measure`]), inflated under a cap, and only then given to Automerge, inside
//! [`guard`].
//!
//! A change must be encoded exactly as Automerge would encode it ([`vet`]). Automerge keeps the operations of a
//! change, not its bytes, and encodes them anew when the hash of a saved document is checked: a change that was encoded
//! otherwise (equal operations, other run lengths) would be let in and would make every later save unreadable.
//!
//! The container format is Automerge's (<https://automerge.org/automerge-binary-format-spec/>, change chunks).

use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{ActorId, Change, ExpandedChange};
use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::fast;

/// A writer's Automerge actor id.
pub type Actor = [u8; 16];

/// Largest change accepted, in bytes as it travels (deflated or not). A log entry holds 4 MiB, so several fit.
pub const MAX_CHANGE: usize = 1 << 20;

/// Largest change accepted, in bytes after inflating.
pub const MAX_EXPANDED: usize = 16 << 20;

/// Most operations, and most operations overwritten, in one change. Automerge needs about 0.5 KiB of memory for each
/// while it applies them; typing or pasting a text costs one per character.
pub const MAX_OPS: u64 = 1 << 19;

/// Most direct dependencies of one change: one per writer that was active since the last change.
const MAX_DEPS: u64 = 1024;

/// Most other actors that one change refers to.
const MAX_ACTORS: u64 = 4096;

/// Longest commit message, in bytes. Coffer writes none but [`DELETE`].
const MAX_MESSAGE: u64 = 1024;

/// Most columns of one change; version 1 of the format has 13.
const MAX_COLUMNS: u64 = 64;

/// Changes above this size are deflated before they travel; below, the log's own compression of a whole batch does
/// better than deflating each change.
const DEFLATE_ABOVE: usize = 128 << 10;

/// The message that marks a change as the deletion of its document.
pub(crate) const DELETE: &str = "delete";

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const SAVED_DOCUMENT: u8 = 0;
const PLAIN_CHANGE: u8 = 1;
const DEFLATED_CHANGE: u8 = 2;
const ACTION_COLUMN: u64 = 4 << 4 | 2;
const PRED_COUNT_COLUMN: u64 = 7 << 4;
const MARK_ACTION: u64 = 7;

/// SHA-256 of a change, as Automerge computes it; names the change everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangeHash(pub [u8; 32]);

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeHash({})", hex::encode(&self.0[..4]))
    }
}

impl From<automerge::ChangeHash> for ChangeHash {
    fn from(hash: automerge::ChangeHash) -> Self {
        ChangeHash(hash.0)
    }
}

impl From<ChangeHash> for automerge::ChangeHash {
    fn from(hash: ChangeHash) -> Self {
        automerge::ChangeHash(hash.0)
    }
}

/// What one change says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeInfo {
    /// Its name.
    pub hash: ChangeHash,
    /// The changes it was made on top of.
    pub deps: Vec<ChangeHash>,
    /// Who made it.
    pub actor: Actor,
    /// Its number among the changes of its actor in this document, from 1.
    pub seq: u64,
    /// Counter of its first operation, from 1.
    pub start_op: u64,
    /// Counter of its last operation; `start_op - 1` when it has none.
    pub max_op: u64,
    /// When its author says it was made: milliseconds since 1970, UTC.
    pub time_ms: i64,
    /// The commit message; `delete` marks a deletion.
    pub message: Option<String>,
    /// How many operations it has.
    pub ops: usize,
}

/// A change just made here, ready to be appended to a document's tail and to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChange {
    /// Its name.
    pub hash: ChangeHash,
    /// One Automerge change chunk of at most [`MAX_CHANGE`] bytes.
    pub bytes: Vec<u8>,
}

impl NewChange {
    /// Encodes a change made here, refusing one that no other device would accept.
    pub(crate) fn encode(mut change: Change) -> Result<NewChange, ChangeError> {
        if change.len() as u64 > MAX_OPS {
            return Err(ChangeError::TooManyOperations);
        }
        let expanded = change.raw_bytes().len();
        if expanded > MAX_EXPANDED {
            return Err(ChangeError::TooLarge {
                limit: MAX_EXPANDED,
            });
        }
        let hash = change.hash().into();
        let bytes = match expanded > DEFLATE_ABOVE {
            true => change.bytes().into_owned(),
            false => change.raw_bytes().to_vec(),
        };
        if bytes.len() > MAX_CHANGE {
            return Err(ChangeError::TooLarge { limit: MAX_CHANGE });
        }
        Ok(NewChange { hash, bytes })
    }
}

/// Why bytes are not an acceptable change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It is longer than a change may be, as it travels or inflated.
    #[error("a change is larger than {limit} bytes")]
    TooLarge {
        /// The limit that it exceeds, in bytes.
        limit: usize,
    },
    /// It has more operations, or overwrites more, than [`MAX_OPS`].
    #[error("a change has more than {MAX_OPS} operations")]
    TooManyOperations,
    /// It is no Automerge change, or a damaged one.
    #[error("not a valid change: {0}")]
    Malformed(Cow<'static, str>),
    /// Its checksum does not belong to its content.
    #[error("the checksum of a change is wrong")]
    Checksum,
    /// Automerge panicked on it.
    #[error("a change could not be processed")]
    Panicked,
}

impl ChangeError {
    pub(crate) fn malformed(what: &'static str) -> Self {
        ChangeError::Malformed(Cow::Borrowed(what))
    }
}

/// Reads what a change says of itself, and decides whether it may be kept. Whether it fits a document that has other
/// changes only [`crate::Document::apply`] can tell; one without dependencies that passes here is a whole document that
/// loads.
///
/// # Errors
/// Whatever is no single change chunk within the limits of this file, as Automerge would encode it.
pub fn inspect(raw: &[u8]) -> Result<ChangeInfo, ChangeError> {
    inspect_with(raw, |_| ()).map(|(info, ())| info)
}

/// The same, with what `look` makes of the change's operations: taking a change apart is most of the work.
pub(crate) fn inspect_with<T>(
    raw: &[u8],
    look: impl FnOnce(&ExpandedChange) -> T,
) -> Result<(ChangeInfo, T), ChangeError> {
    let change = parse(raw)?;
    let (readable_alone, seen) = vet(&change, |expanded| {
        (fast::is_readable(expanded), look(expanded))
    })?;
    if change.deps().is_empty() && !readable_alone {
        Document::empty().admit(&change)?;
    }
    Ok((describe(&change), seen))
}

/// Refuses a change that Automerge would encode in other bytes; gives what `look` makes of its operations.
pub(crate) fn vet<T>(
    change: &Change,
    look: impl FnOnce(&ExpandedChange) -> T,
) -> Result<T, ChangeError> {
    guard(|| {
        let expanded = change.decode();
        let seen = look(&expanded);
        match Change::from(expanded).raw_bytes() == change.raw_bytes() {
            true => Ok(seen),
            false => Err(ChangeError::malformed("not encoded as Automerge does")),
        }
    })?
}

/// Parses bytes into a change that Automerge takes. Bytes that come from another device must pass [`vet`] too.
pub(crate) fn parse(raw: &[u8]) -> Result<Change, ChangeError> {
    let plain = inflate(raw)?;
    measure(&plain)?;
    let change = guard(|| Change::try_from(&plain[..]))?
        .map_err(|error| ChangeError::Malformed(Cow::Owned(error.to_string())))?;
    // `Change::try_from` computes the hash but does not compare the checksum.
    if change.hash().0[..4] != raw[4..8] {
        return Err(ChangeError::Checksum);
    }
    Ok(change)
}

pub(crate) fn describe(change: &Change) -> ChangeInfo {
    let start_op = change.start_op().get();
    ChangeInfo {
        hash: change.hash().into(),
        deps: change
            .deps()
            .iter()
            .map(|hash| ChangeHash::from(*hash))
            .collect(),
        actor: actor_bytes(change.actor_id()),
        seq: change.seq(),
        start_op,
        max_op: start_op - 1 + change.len() as u64,
        time_ms: change.timestamp(),
        message: change.message().map(str::to_owned),
        ops: change.len(),
    }
}

/// The 16 bytes of an actor id. Shorter or longer ones never pass [`measure`]; should one reach here from a damaged
/// base, it is cut or padded with zeros.
pub(crate) fn actor_bytes(actor: &ActorId) -> Actor {
    let bytes = actor.to_bytes();
    let mut out = Actor::default();
    let len = bytes.len().min(out.len());
    out[..len].copy_from_slice(&bytes[..len]);
    out
}

/// Runs Automerge over foreign data and turns a panic into an error. What the closure was changing must be thrown
/// away after an error: callers work on a copy. Needs `panic = "unwind"`.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> Result<T, ChangeError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| ChangeError::Panicked)
}

/// Whether bytes are one chunk that holds a saved document.
pub(crate) fn is_document_chunk(raw: &[u8]) -> bool {
    let mut cursor = Cursor(raw);
    cursor.take(4).is_ok_and(|magic| magic == MAGIC)
        && cursor.take(4).is_ok()
        && cursor.take(1).is_ok_and(|kind| kind == [SAVED_DOCUMENT])
        && cursor.uint().is_ok_and(|len| cursor.0.len() as u64 == len)
}

/// The plain chunk of a change that may be deflated; checks the outer sizes.
fn inflate(raw: &[u8]) -> Result<Cow<'_, [u8]>, ChangeError> {
    if raw.len() > MAX_CHANGE {
        return Err(ChangeError::TooLarge { limit: MAX_CHANGE });
    }
    let mut cursor = Cursor(raw);
    if cursor.take(4)? != MAGIC {
        return Err(ChangeError::malformed("no Automerge chunk"));
    }
    cursor.take(4)?;
    let kind = cursor.take(1)?[0];
    let len = cursor.uint()?;
    if cursor.0.len() as u64 != len {
        return Err(ChangeError::malformed("length does not match"));
    }
    match kind {
        PLAIN_CHANGE => Ok(Cow::Borrowed(raw)),
        DEFLATED_CHANGE => {
            let mut body = Vec::new();
            flate2::bufread::DeflateDecoder::new(cursor.0)
                .take(MAX_EXPANDED as u64 + 1)
                .read_to_end(&mut body)
                .map_err(|_| ChangeError::malformed("does not inflate"))?;
            if body.len() > MAX_EXPANDED {
                return Err(ChangeError::TooLarge {
                    limit: MAX_EXPANDED,
                });
            }
            let mut plain = Vec::with_capacity(body.len() + 16);
            plain.extend_from_slice(&raw[..8]);
            plain.push(PLAIN_CHANGE);
            write_uint(&mut plain, body.len() as u64);
            plain.extend_from_slice(&body);
            Ok(Cow::Owned(plain))
        }
        _ => Err(ChangeError::malformed("a chunk of another kind")),
    }
}

/// Walks the head of a plain chunk and the two columns that decide how much work it is, allocating nothing. Marks (rich
/// text) are refused: coffer writes none, misplaced ones make a saved document unreadable, and some make Automerge panic
/// while it unwinds from a panic, which no guard can catch.
fn measure(plain: &[u8]) -> Result<(), ChangeError> {
    let mut cursor = Cursor(plain);
    cursor.take(9)?;
    cursor.uint()?;
    let deps = cursor.bounded(MAX_DEPS, "too many dependencies")?;
    cursor.take(deps * 32)?;
    cursor.actor()?;
    let _seq = cursor.uint()?;
    let _start_op = cursor.uint()?;
    let _time = cursor.int()?;
    let message = cursor.bounded(MAX_MESSAGE, "message too long")?;
    cursor.take(message)?;
    for _ in 0..cursor.bounded(MAX_ACTORS, "too many actors")? {
        cursor.actor()?;
    }
    let mut columns = Vec::new();
    for _ in 0..cursor.bounded(MAX_COLUMNS, "too many columns")? {
        columns.push((
            cursor.uint()?,
            cursor.bounded(MAX_EXPANDED as u64, "column too long")?,
        ));
    }
    for (spec, len) in columns {
        let column = Cursor(cursor.take(len)?);
        match spec {
            ACTION_COLUMN => column.run_lengths(|count, action| match action {
                MARK_ACTION.. => Err(ChangeError::malformed("it marks text")),
                _ => Ok(count),
            })?,
            PRED_COUNT_COLUMN => {
                column.run_lengths(|count, value| Ok(count.saturating_mul(value)))?
            }
            _ => continue,
        };
    }
    Ok(())
}

/// The unread rest of some bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ChangeError> {
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(ChangeError::malformed("cut off"))?;
        self.0 = rest;
        Ok(head)
    }

    /// LEB128, at most 64 bits.
    fn uint(&mut self) -> Result<u64, ChangeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ChangeError::malformed("number too long"))
    }

    /// Signed LEB128, at most 64 bits.
    fn int(&mut self) -> Result<i64, ChangeError> {
        let mut value = 0i64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if shift < 57 && byte & 0x40 != 0 {
                    value |= -1 << (shift + 7);
                }
                return Ok(value);
            }
        }
        Err(ChangeError::malformed("number too long"))
    }

    fn bounded(&mut self, limit: u64, what: &'static str) -> Result<usize, ChangeError> {
        match self.uint()? {
            value if value <= limit => Ok(value as usize),
            _ => Err(ChangeError::malformed(what)),
        }
    }

    fn actor(&mut self) -> Result<(), ChangeError> {
        match self.uint()? {
            16 => self.take(16).map(|_| ()),
            _ => Err(ChangeError::malformed("an actor id is not 16 bytes long")),
        }
    }

    /// Sums `weigh(run length, value)` over a run-length-encoded column of numbers, up to [`MAX_OPS`].
    fn run_lengths(
        mut self,
        weigh: impl Fn(u64, u64) -> Result<u64, ChangeError>,
    ) -> Result<u64, ChangeError> {
        let mut total = 0u64;
        let mut add = |weight: u64| {
            total = total.saturating_add(weight);
            if total > MAX_OPS {
                Err(ChangeError::TooManyOperations)
            } else {
                Ok(())
            }
        };
        while !self.0.is_empty() {
            match self.int()? {
                0 => add(self.uint()?)?,
                run if run > 0 => add(weigh(run as u64, self.uint()?)?)?,
                literals => {
                    for _ in 0..literals.unsigned_abs() {
                        add(weigh(1, self.uint()?)?)?;
                    }
                }
            }
        }
        Ok(total)
    }
}

fn write_uint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
