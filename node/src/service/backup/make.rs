//! A run of `coffer backup`.
//!
//! What the vault holds is noted at the beginning: how far each log goes, and what is purged. Entries and grants that the
//! folder lacks come first, then blobs, from wherever they lie here, then the word that this moment is in the folder.
//! What changes meanwhile is the next run's.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::{Hash, VaultId};
use coffer_protocol::log::{Clock, Entry};
use coffer_protocol::ranges::Head;
use coffer_protocol::relay::{MAX_PUT, PutHeader};
use redb::{ReadableDatabase, ReadableTableMetadata};
use tokio::runtime::Handle;

use super::super::running::{Running, blobs_error, commit_error};
use super::super::{Node, store_error};
use super::gather::{blobs_of, each_content};
use super::{Leave, Left, alone, archive_error, blocking, known, row};
use crate::backup::{Added, Archive, Run, Writer};
use crate::control::{BackupDone, ControlError, Progress, Reply, Session, Stage};
use crate::store::{StoreError, logs, ranges, tables};
use crate::vault::identity::Identity;
use crate::vault::wall_ms;

/// Bytes of entries that are read at a time.
const ENTRY_BYTES: usize = 4 << 20;
/// Bytes of blobs that are read at a time.
const BLOB_BYTES: usize = 8 << 20;
/// Files between two reports.
const REPORT_EVERY: u64 = 500;

/// The vault as of the beginning.
struct Moment {
    vault: VaultId,
    at_ms: u64,
    clock: Clock,
    grants: Vec<Vec<u8>>,
    purged: BTreeSet<FileId>,
    /// How many files and folders were ever purged.
    purges: u64,
}

/// What is named, and what of it the folder lacks.
#[derive(Default)]
struct Named {
    blobs: HashSet<Hash>,
    lacking: Vec<Hash>,
    contents: u64,
    bytes: u64,
    /// Bytes of contents of which something is lacking.
    lacking_bytes: u64,
    /// Contents of which it is not known of what they are made.
    unknown: u64,
}

/// Contents that are not whole in the folder.
#[derive(Default)]
struct Missing {
    present: u64,
    bytes: u64,
    earlier: u64,
}

/// A run, in the thread that does it.
struct Task<R: Fn(Progress)> {
    running: Arc<Running>,
    identity: Identity,
    dir: PathBuf,
    left: Left,
    report: R,
    runtime: Handle,
}

/// `backup`.
pub async fn make(
    node: &Arc<Node>,
    dir: PathBuf,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let _alone = alone(node)?;
    check_place(node, &running, &dir)?;
    let leave = Leave::default();
    let task = Task {
        running: running.clone(),
        identity: node.identity()?,
        dir: dir.clone(),
        left: leave.left(),
        report: session.reporter(),
        runtime: Handle::current(),
    };
    let mut stop = running.stopping();
    let (run, archive, added, kept_all) = tokio::select! {
        done = blocking(move || task.run()) => done?,
        () = super::super::stopped(&mut stop) => {
            drop(leave);
            return Err(ControlError::new(
                crate::control::ErrorKind::Cancelled,
                "coffer was ended; the next backup goes on from here",
            ));
        }
    };
    known::note(&running, &dir, &run).await?;
    Ok(Reply::BackedUp(BackupDone {
        dir,
        run: row(&run),
        added_changes: added.entries,
        added_pieces: added.blobs,
        added_bytes: added.bytes,
        freed_bytes: added.freed_bytes,
        total_bytes: archive.kept().bytes,
        kept_all,
    }))
}

impl<R: Fn(Progress)> Task<R> {
    fn run(self) -> Result<(Run, Archive, Added, Option<String>), ControlError> {
        let moment = self.moment()?;
        let mut writer = Writer::begin(&self.dir, moment.vault).map_err(archive_error)?;
        // As of before this run: another device may have brought what this one does not know.
        let knows_all = moment.clock.covers_clock(&writer.archive().clock());
        self.logs(&mut writer, &moment)?;
        let named = self.gather(writer.archive(), &moment)?;
        let absent = self.blobs(&mut writer, &named)?;
        let missing = self.missing(&writer, &moment, &named, &absent)?;
        let run = Run {
            version: Run::VERSION,
            vault: moment.vault,
            device: self.identity.key.id(),
            number: writer.number(),
            at_ms: moment.at_ms,
            clock: moment.clock,
            grants: moment.grants.len() as u32,
            contents: named.contents,
            content_bytes: named.bytes,
            missing: missing.present,
            missing_bytes: missing.bytes,
            missing_earlier: missing.earlier,
        };
        let kept_all = match (knows_all, named.unknown) {
            (true, 0) => None,
            (false, _) => {
                Some("another device backed up what this one does not know of yet".to_owned())
            }
            (true, _) => {
                Some("this device does not know what some contents are made of".to_owned())
            }
        };
        (self.report)(progress(Stage::Saving, 0, None));
        let is_named = |blob: &Hash| named.blobs.contains(blob);
        let is_named: &dyn Fn(&Hash) -> bool = &is_named;
        // What is purged is to be nowhere; what was merely replaced may go when there is reason to touch its file.
        let all = moment.purges != writer.purged();
        let (may_drop, purged) = match &kept_all {
            None => (Some(is_named), moment.purges),
            Some(_) => (None, writer.purged()),
        };
        let (archive, added) = writer
            .end(run.clone(), purged, &self.identity.key, may_drop, all)
            .map_err(archive_error)?;
        Ok((run, archive, added, kept_all))
    }

    fn moment(&self) -> Result<Moment, ControlError> {
        let look = self.running.vault.inspect(|core| {
            let state = core.state();
            (state.vault, state.clock.clone(), core.welcome().grants)
        });
        let (vault, clock, grants) = self.runtime.block_on(look).map_err(commit_error)?;
        let count = || -> Result<u64, StoreError> {
            let read = self.running.vault.database().begin_read()?;
            Ok(read.open_table(tables::PURGES)?.len()?)
        };
        Ok(Moment {
            vault,
            at_ms: wall_ms(),
            clock,
            grants,
            purged: self.running.vault.tree().purged_ids(),
            purges: count().map_err(store_error)?,
        })
    }

    /// Grants and entries that are not there.
    fn logs(&self, writer: &mut Writer, moment: &Moment) -> Result<(), ControlError> {
        for grant in &moment.grants {
            writer.grant(grant).map_err(archive_error)?;
        }
        let damaged = |_| {
            store_error(StoreError::Damaged(
                "an entry of a log cannot be read".into(),
            ))
        };
        for range in moment.clock.ahead_of(&writer.archive().clock()) {
            let mut next = range.from;
            while next <= range.to {
                self.left.check()?;
                let read = || -> Result<_, StoreError> {
                    let read = self.running.vault.database().begin_read()?;
                    Ok((
                        logs::read_entries(&read, range.writer, next, range.to, ENTRY_BYTES)?,
                        ranges::read_at(&read, range.writer, next)?,
                    ))
                };
                let (entries, kept) = read().map_err(store_error)?;
                if entries.is_empty() {
                    let kept = kept.filter(|kept| kept.marks.alone && kept.head.from <= next);
                    let kept = kept.ok_or_else(|| damaged(()))?;
                    next = self.range(writer, &kept.head)? + 1;
                    continue;
                }
                for bytes in entries {
                    let header = Entry::decode_header(&bytes).map_err(|_| damaged(()))?;
                    writer
                        .entry(range.writer, (next, header.hash()), &bytes)
                        .map_err(archive_error)?;
                    next += 1;
                }
            }
        }
        Ok(())
    }

    /// A range whose entries are gone; gives the last that it stands for.
    fn range(&self, writer: &mut Writer, head: &Head) -> Result<u64, ControlError> {
        let read = || -> Result<_, StoreError> {
            let read = self.running.vault.database().begin_read()?;
            ranges::range_message(&read, head.writer, head.to)
        };
        let message = read().map_err(store_error)?.ok_or_else(|| {
            store_error(StoreError::Damaged(
                "a range of a log cannot be read".into(),
            ))
        })?;
        writer.range(head, &message).map_err(archive_error)?;
        Ok(head.to)
    }

    /// What is named, and not there.
    fn gather(&self, archive: &Archive, moment: &Moment) -> Result<Named, ControlError> {
        let mut named = Named::default();
        let database = self.running.vault.database();
        each_content(database, &moment.purged, |found| {
            let (blobs, is_known) = blobs_of(&self.running.blobs, found.content);
            named.contents += 1;
            named.bytes += found.content.size;
            named.unknown += u64::from(!is_known);
            let before = named.lacking.len();
            for blob in blobs {
                if named.blobs.insert(blob) && !archive.has_blob(&blob) {
                    named.lacking.push(blob);
                }
            }
            if named.lacking.len() > before {
                named.lacking_bytes += found.content.size;
            }
            if named.contents % REPORT_EVERY == 0 {
                self.left.check()?;
                (self.report)(progress(Stage::Scanning, named.contents, None));
            }
            Ok(())
        })?;
        Ok(named)
    }

    /// Brings what is lacking; gives what is not here either.
    fn blobs(&self, writer: &mut Writer, named: &Named) -> Result<HashSet<Hash>, ControlError> {
        let (mut absent, mut buffer) = (HashSet::new(), Vec::new());
        let (mut rest, mut done) = (&named.lacking[..], 0u64);
        while !rest.is_empty() {
            self.left.check()?;
            let next = rest.iter().take(MAX_PUT).copied().collect();
            let fill = self.running.blobs.fill_put(next, BLOB_BYTES, buffer);
            let filled = self.runtime.block_on(fill).map_err(blobs_error)?;
            let looked_at = filled.looked_at.max(1).min(rest.len());
            let here: HashSet<&Hash> = filled.blobs.iter().collect();
            let not_here = rest[..looked_at].iter().filter(|blob| !here.contains(blob));
            absent.extend(not_here);
            let mut bytes = &filled.buffer[..];
            for blob in &filled.blobs {
                let Some((sealed, after)) = first_blob(bytes) else {
                    return Err(ControlError::internal(
                        "blobs were read otherwise than asked",
                    ));
                };
                writer.blob(*blob, sealed).map_err(archive_error)?;
                done += sealed.len() as u64;
                bytes = after;
            }
            rest = &rest[looked_at..];
            buffer = filled.buffer;
            let total = named.lacking_bytes.max(done);
            (self.report)(progress(Stage::Writing, done, Some(total)));
        }
        Ok(absent)
    }

    /// How many contents are not whole in the folder.
    fn missing(
        &self,
        writer: &Writer,
        moment: &Moment,
        named: &Named,
        absent: &HashSet<Hash>,
    ) -> Result<Missing, ControlError> {
        let mut missing = Missing::default();
        if absent.is_empty() && named.unknown == 0 {
            return Ok(missing);
        }
        let archive = writer.archive();
        let database = self.running.vault.database();
        each_content(database, &moment.purged, |found| {
            let (blobs, is_known) = blobs_of(&self.running.blobs, found.content);
            let is_absent = |blob: &Hash| absent.contains(blob) && !archive.has_blob(blob);
            if !is_known || blobs.iter().any(is_absent) {
                if found.is_present {
                    missing.present += 1;
                    missing.bytes += found.content.size;
                } else {
                    missing.earlier += 1;
                }
            }
            self.left.check()
        })?;
        Ok(missing)
    }
}

/// The first blob of what is ready to be put to a host, and what follows it.
fn first_blob(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, after) = bytes.split_first_chunk::<{ PutHeader::LEN }>()?;
    let header = PutHeader::decode(header).ok()?;
    after.split_at_checked(header.len as usize)
}

fn progress(stage: Stage, done: u64, total: Option<u64>) -> Progress {
    Progress {
        stage,
        done,
        total,
        about: None,
    }
}

/// Refuses a folder that is taken as part of what is backed up, or that goes with what it is to outlive.
fn check_place(node: &Node, running: &Running, dir: &Path) -> Result<(), ControlError> {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let parent = whole(dir.parent().unwrap_or(dir));
    let at = whole(&parent.join(dir.file_name().unwrap_or_default()));
    let synced = running.paths.all();
    let mut taken = synced.iter().map(|(_, path)| path.as_path());
    let taken = taken.find(|path| at.starts_with(whole(path)));
    let why = match taken {
        Some(path) => format!("{} is kept in sync", path.display()),
        None if at.starts_with(whole(node.data_dir())) => "that is the data folder".to_owned(),
        None => return Ok(()),
    };
    let message = format!("a backup cannot lie in {}: {why}", dir.display());
    Err(ControlError::usage(message).with_code("backup-place"))
}
