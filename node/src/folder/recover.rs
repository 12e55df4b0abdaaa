//! What the last run left behind in the hidden folder.
//!
//! Rows and disk repair themselves: what was renamed into place without its row is recognised by its bytes in the local
//! pass. Left to see to here: files that were parked in the middle of an exchange of names, steps that were done and are
//! not in the rows ([`intent`]), kept files that the vault was not told of, and temporary files that nobody will ask for
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use coffer_crdt::files::{FileId, Kind};

use super::apply::{Kept, confirm_kept};
use super::compare::View;
use super::disk::Onto;
use super::engine::{Engine, Halt, blocking};
use super::exchanges::end_exchanges;
use super::ground::Stat;
use super::hidden::{PARKED, PENDING, SPARE, hidden_names, temporary_name};
use super::intent::{self, Done};
use super::place::{HIDDEN, Place};
use super::plan::Wish;
use super::rows::Rows;
use super::scan::scan_whole;
use super::watch::COOKIE;
use super::{Contents, FolderVault};
use crate::vault::request::{CommitRequest, FolderRow};

/// Kept files that are read and confirmed together.
const BATCH: usize = 500;

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Sees to what the last run left behind.
    pub(super) async fn recover(&mut self) -> Result<(), Halt> {
        let (place, shared, vault, folder) = (
            self.place()?,
            self.shared.clone(),
            self.vault.clone(),
            self.config.vault_folder,
        );
        let now_ms = self.around.wall_ms();
        let left = blocking(move || {
            let tree = vault.tree();
            let rows = shared.rows();
            let view = View {
                rows: &rows,
                tree: &tree,
                vault_folder: folder,
                profile: place.profile(),
                label: "",
                now_ms,
            };
            unpark(&place, &view)?;
            let noted = intent::noted(&place);
            end_exchanges(&place, &view, &noted)?;
            unpark(&place, &view)?;
            let done = match noted.is_empty() {
                true => None,
                false => Some(intent::done(&rows, &scan_whole(&place)?, noted)),
            };
            clear_temporary(&place, &view)?;
            clear_cookies(&place)?;
            Ok((pending_kept(&place)?, done))
        });
        let (left, done) = left.await?.map_err(|error: io::Error| {
            Halt::Failed(format!(
                "the folder's hidden .vault folder cannot be used: {error}"
            ))
        })?;
        if let Some(done) = done {
            self.take_done(done).await?;
        }
        for batch in left.chunks(BATCH) {
            let mut request = CommitRequest::default();
            self.read_kept(batch, &mut request).await;
            self.vault.commit(request).await?;
            let place = self.place()?;
            let kept: Vec<Kept> = batch
                .iter()
                .map(|name| Kept {
                    id: FileId::ROOT,
                    row: no_row(),
                    name: *name,
                })
                .collect();
            if let Err(error) = blocking(move || confirm_kept(&place, &kept)).await? {
                tracing::warn!(%error, "kept files could not be given their final names");
            }
        }
        Ok(())
    }
}

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Takes what the last run had done into the rows. Rows of files that have to be read are committed with what was
    /// read, and not before: the vault would count their bytes as held.
    async fn take_done(&mut self, done: Vec<Done>) -> Result<(), Halt> {
        let (mut touched, mut reads) = (BTreeSet::new(), BTreeMap::new());
        let mut gone = Vec::new();
        {
            let mut rows = self.shared.rows_mut();
            for Done { id, row, read } in done {
                match (row, read) {
                    (Some(row), true) => {
                        reads.insert(id, row.clone());
                        rows.set(id, row);
                    }
                    (Some(row), false) => {
                        touched.insert(id);
                        rows.set(id, row);
                    }
                    (None, _) => gone.push(id),
                }
            }
            for id in gone {
                // What is still in it by the rows somebody deleted or moved. The local pass finds that out, while there is
                // a row of the folder; without one nothing would ever look there.
                if rows.children(id).next().is_none() {
                    touched.insert(id);
                    rows.remove(id);
                }
            }
        }
        if !touched.is_empty() {
            let request = self.rows_request(&touched);
            self.vault.commit(request).await?;
        }
        let rows = self.shared.rows();
        // Nobody is writing to them: they were whole when they were put in place.
        self.closed
            .extend(reads.keys().filter_map(|id| rows.path(*id)));
        self.old_note = Some(reads);
        Ok(())
    }

    /// The note of the last run goes as soon as all that it says is committed: what people do from then on it does not
    /// know, and after another crash it would have it undone.
    pub(super) async fn forget_old_note(&mut self) -> Result<(), Halt> {
        let Some(unread) = &mut self.old_note else {
            return Ok(());
        };
        {
            let rows = self.shared.rows();
            unread.retain(|id, row| rows.get(*id) == Some(row));
        }
        if !unread.is_empty() {
            return Ok(());
        }
        let place = self.place()?;
        match blocking(move || intent::forget(&place)).await? {
            Ok(()) => self.old_note = None,
            // Tried again after the next look.
            Err(error) => tracing::warn!(%error, "a note of what was done could not be emptied"),
        }
        Ok(())
    }
}

/// Confirming looks at names only.
fn no_row() -> FolderRow {
    FolderRow {
        parent: [0; 16],
        name: String::new(),
        kind: 0,
        inode: 0,
        size: 0,
        mtime_ns: 0,
        ctime_ns: 0,
        executable: false,
        hash: [0; 32],
    }
}

/// Parked files go to where the vault wants them, or back to where they were, or at least beside it.
pub(super) fn unpark(place: &Place, view: &View<'_>) -> io::Result<()> {
    for name in hidden_names(place, "tmp")? {
        let Some(id) = name
            .strip_prefix(PARKED)
            .and_then(|id| id.parse::<FileId>().ok())
        else {
            continue;
        };
        let mut spots: Vec<(PathBuf, String)> = Vec::new();
        if let Wish::Here(want) = view.wish(id) {
            spots.extend(folder_path(view.rows, want.parent).map(|folder| (folder, want.name)));
        }
        if let Some(row) = view.rows.get(id) {
            spots.extend(
                folder_path(view.rows, FileId(row.parent)).map(|folder| (folder, row.name.clone())),
            );
        }
        spots.push((PathBuf::new(), format!("recovered {id}")));
        for (folder, new) in spots {
            let Ok(folder) = place.folder(&folder) else {
                continue;
            };
            if place.put(place.tmp(), &name, &folder, &new).is_ok() {
                break;
            }
        }
    }
    Ok(())
}

fn folder_path(rows: &Rows, folder: FileId) -> Option<PathBuf> {
    rows.path(folder)
        .filter(|path| folder == rows.top() || !path.as_os_str().is_empty())
}

/// Temporary files stay only if they are the beginning of a content that is still wanted.
fn clear_temporary(place: &Place, view: &View<'_>) -> io::Result<()> {
    let names = hidden_names(place, "tmp")?;
    if names.is_empty() {
        return Ok(());
    }
    let mut wanted = BTreeSet::new();
    for name in &names {
        let Some(id) = name
            .split('-')
            .next()
            .and_then(|id| id.parse::<FileId>().ok())
        else {
            continue;
        };
        if let Wish::Here(want) = view.wish(id)
            && let Some(content) = want.content
            && view.rows.get(id).is_none_or(|row| row.hash != content.hash)
        {
            wanted.insert(temporary_name(id, &content.hash));
        }
    }
    for name in names
        .iter()
        .filter(|name| !wanted.contains(*name) && !name.starts_with(PARKED))
    {
        // What may be a file's former bytes, and nowhere else, is kept: only what is certainly ours to remove goes.
        match place.tmp().stat_at(name) {
            Ok(stat)
                if stat.kind == Some(Kind::File)
                    && (stat.mode & 0o077 != 0 || name.starts_with(SPARE)) =>
            {
                keep_aside(place, name, &stat)?;
            }
            _ => place.tmp().unlink(name)?,
        }
    }
    Ok(())
}

/// From the temporary files to the kept ones, of which the vault is told next.
pub(super) fn keep_aside(place: &Place, name: &str, stat: &Stat) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes());
    hasher.update(&stat.inode.to_le_bytes());
    hasher.update(&stat.ctime_ns.to_le_bytes());
    let kept = &hasher.finalize().as_bytes()[..24].to_vec();
    let kept = format!("{}{PENDING}", hex::encode(kept));
    place
        .tmp()
        .rename(name, place.kept(), &kept, Onto::Anything)
}

fn clear_cookies(place: &Place) -> io::Result<()> {
    let hidden = place.folder(Path::new(HIDDEN))?;
    for name in hidden_names(place, "")?
        .iter()
        .filter(|name| name.starts_with(COOKIE))
    {
        let _ = hidden.unlink(name);
    }
    Ok(())
}

/// Names of kept files that the vault may not know of.
fn pending_kept(place: &Place) -> io::Result<Vec<[u8; 24]>> {
    let names = hidden_names(place, "kept")?;
    Ok(names
        .iter()
        .filter_map(|name| {
            hex::decode(name.strip_suffix(PENDING)?)
                .ok()?
                .try_into()
                .ok()
        })
        .collect())
}
