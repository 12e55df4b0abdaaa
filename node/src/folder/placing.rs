//! Contents and links that are put in place, in exchange for what is there.

use std::io;

use coffer_crdt::files::{FileId, Kind};

use super::apply::{Hands, Kept, Trouble};
use super::compare::row_of;
use super::disk::Dir;
use super::hidden::{LINK, PENDING, spare_name};
use super::plan::{Want, WantContent};
use super::rows::unsure_time;
use crate::vault::request::FolderRow;

impl Hands<'_> {
    pub(super) fn link(&mut self, id: FileId, want: &Want) -> Result<(), Trouble> {
        let Some((target, hash)) = want
            .content
            .as_ref()
            .and_then(|content| Some((content.target.as_deref()?, content.hash)))
        else {
            return Ok(());
        };
        let temporary = format!("{LINK}{}", hex::encode(id.0));
        let _ = self.place.tmp().unlink(&temporary);
        self.place.tmp().link(target, &temporary)?;
        let made = self.place.tmp().stat_at(&temporary)?;
        let existing = self.shared.rows().get(id).is_some();
        let (folder, parent, name) = if existing {
            let (folder, name, row, stat) = self.find(id)?;
            if !stat.agrees(&row, true) {
                return Err(self.surprise(FileId(row.parent)));
            }
            let tmp = self.place.tmp();
            let exchange = || {
                let spot = (&folder, name.as_str());
                self.place
                    .exchange((tmp, &temporary), spot, &spare_name(id))
            };
            exchange()?;
            if !tmp.stat_at(&temporary)?.agrees(&row, true) {
                // Something else took its place in the very last moment: back with it.
                exchange()?;
                return Err(self.surprise(FileId(row.parent)));
            }
            tmp.unlink(&temporary)?;
            (folder, FileId(row.parent), name)
        } else {
            let folder = self.folder(want.parent)?;
            match self
                .place
                .put(self.place.tmp(), &temporary, &folder, &want.name)
            {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(self.surprise(want.parent));
                }
                done => done?,
            }
            (folder, want.parent, want.name.clone())
        };
        self.set_placed(
            id,
            &folder,
            row_of(parent, &name, Kind::Symlink, &made, hash),
        )
    }

    /// Sets what stands beside the bytes: the executable bit, and the time where one is given.
    pub(super) fn mark(
        &mut self,
        id: FileId,
        executable: bool,
        mtime_ms: Option<i64>,
    ) -> Result<(), Trouble> {
        let (folder, name, row, stat) = self.find(id)?;
        let parent = FileId(row.parent);
        if !stat.agrees(&row, false) {
            return Err(self.surprise(parent));
        }
        match folder.mark(&name, mode(stat.mode, executable), mtime_ms) {
            // A file of another user: its bytes are what matters.
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && executable == stat.executable =>
            {
                return Ok(());
            }
            done => done?,
        }
        let after = folder.stat_at(&name)?;
        let mtime_ns = if mtime_ms.is_some() {
            after.mtime_ns
        } else {
            row.mtime_ns
        };
        let hash = row.hash;
        if !after.agrees(&FolderRow { mtime_ns, ..row }, true) {
            return Err(self.surprise(parent));
        }
        let mut row = row_of(parent, &name, Kind::File, &after, hash);
        if let Some(ms) = mtime_ms {
            let is_ours = self.place.profile().is_same_time(ms, after.mtime_ns)
                // The disk keeps no times.
                || after.mtime_ns == stat.mtime_ns;
            // Who wrote to it right before its time was set left no trace but the bytes. Who set another time right after
            // is seen to have done so: the row has the one that was set here.
            row.mtime_ns = if is_ours {
                unsure_time(&row)
            } else {
                i128::from(ms) * 1_000_000
            };
            self.outcome.unsure.extend(self.shared.rows().path(id));
        }
        self.set(id, row);
        Ok(())
    }

    /// The row of what was put in place, by what it was before: what is there by now may be somebody's work already.
    fn set_placed(&mut self, id: FileId, folder: &Dir, mut row: FolderRow) -> Result<(), Trouble> {
        let now = folder.stat_at(&row.name);
        let is_it = now.as_ref().is_ok_and(|now| now.agrees(&row, true));
        if let Ok(now) = now
            && is_it
        {
            row.ctime_ns = now.ctime_ns;
        }
        let parent = FileId(row.parent);
        self.set(id, row);
        if is_it {
            Ok(())
        } else {
            Err(self.surprise(parent))
        }
    }

    /// Puts a file that was written to the temporary place where it belongs: a new one to `want`'s place, or in
    /// exchange for the one that its row knows, wherever that is now.
    pub fn place_content(&mut self, id: FileId, want: &Want, temporary: &str) {
        let result = match &want.content {
            Some(content) => self.put_content(id, want, content, temporary),
            None => Ok(()),
        };
        let spot = Some((want.parent, want.name.as_str()));
        let result = self.mind_rules(id, spot, false, result);
        self.note(id, result, true);
    }

    fn put_content(
        &mut self,
        id: FileId,
        want: &Want,
        content: &WantContent,
        temporary: &str,
    ) -> Result<(), Trouble> {
        let tmp = self.place.tmp().clone();
        let existing = self.shared.rows().get(id).is_some();
        let found = if existing { Some(self.find(id)?) } else { None };
        if let Some((_, _, row, stat)) = &found
            && !stat.agrees(row, false)
        {
            return Err(self.surprise(FileId(row.parent)));
        }
        let bits = found
            .as_ref()
            .map_or(self.place.file_mode(), |(_, _, _, stat)| stat.mode);
        tmp.mark(
            temporary,
            mode(bits, content.executable),
            Some(content.mtime_ms),
        )?;
        let written = tmp.stat_at(temporary)?;
        let (folder, parent, name) = match found {
            None => {
                let folder = self.folder(want.parent)?;
                match self.place.put(&tmp, temporary, &folder, &want.name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(self.surprise(want.parent));
                    }
                    done => done?,
                }
                (folder, want.parent, want.name.clone())
            }
            Some((folder, name, row, _)) => {
                let exchange = || {
                    let spot = (&folder, name.as_str());
                    self.place
                        .exchange((&tmp, temporary), spot, &spare_name(id))
                };
                exchange()?;
                if !tmp.stat_at(temporary)?.agrees(&row, true) {
                    // Written to in the very last moment: back with it.
                    exchange()?;
                    return Err(self.surprise(FileId(row.parent)));
                }
                let kept = self.kept_name();
                self.place.put(
                    &tmp,
                    temporary,
                    self.place.kept(),
                    &format!("{}{PENDING}", hex::encode(kept)),
                )?;
                let parent = FileId(row.parent);
                self.outcome.kept.push(Kept {
                    id,
                    row,
                    name: kept,
                });
                (folder, parent, name)
            }
        };
        self.set_placed(
            id,
            &folder,
            row_of(parent, &name, Kind::File, &written, content.hash),
        )
    }
}

/// Permission bits with the executable bit set for all who may read, or cleared.
fn mode(bits: u32, executable: bool) -> u32 {
    let bits = bits & 0o777;
    if executable {
        bits | ((bits & 0o444) >> 2)
    } else {
        bits & !0o111
    }
}
