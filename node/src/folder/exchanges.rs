//! Exchanges that were cut short, for the next start to end.
//!
//! What replaces a file on disk changes places with it, and is looked at afterwards: a file that somebody wrote to, or put
//! there, in the very last moment goes back. Where the node ended before that, it lies under a temporary name, hidden, and
//! nowhere else. What was about to be put in place is noted ([`super::intent`]), so that the three can be told apart: what
//! was ours to put there, the file that the row knows, and somebody's work.

use std::io;

use coffer_crdt::files::{FileId, Kind};

use super::compare::View;
use super::disk::Dir;
use super::ground::Stat;
use super::hidden::{LINK, SPARE, hidden_names, park_name, temporary_name};
use super::intent::Intent;
use super::place::Place;
use super::plan::Wish;
use super::recover::keep_aside;
use crate::vault::request::FolderRow;

/// Where a file's own place is left while two change places that are taken back: what lies there is ours.
const OURS: &str = "taken-back";

/// Ends them: somebody's work goes back to its place, or is parked if that is taken, and what was replaced to the kept
/// files.
///
/// # Errors
/// What the system says; the others are seen to at the next start.
pub(super) fn end_exchanges(place: &Place, view: &View<'_>, noted: &[Intent]) -> io::Result<()> {
    let mut any = false;
    for name in hidden_names(place, "tmp")? {
        if let Some(exchange) = Exchange::of(&name, view, noted) {
            any |= exchange.end(place, view)?;
        }
    }
    if any {
        // Durable before the note of it goes.
        place.sync()?;
    }
    Ok(())
}

/// A temporary name under which one side of an exchange may lie.
struct Exchange<'a> {
    name: &'a str,
    id: FileId,
    /// The file that was to be replaced, as far as rows know.
    row: &'a FolderRow,
    /// What was to be put in its place, unless that is a link.
    noted: Option<&'a FolderRow>,
    /// Where a link points that was to be put in its place.
    target: Option<String>,
}

impl<'a> Exchange<'a> {
    /// A new file replaces nothing, and what is not noted was not put in place: no exchange then.
    fn of(name: &'a str, view: &View<'a>, noted: &'a [Intent]) -> Option<Exchange<'a>> {
        let (id, is_content) = match name.strip_prefix(SPARE).or(name.strip_prefix(LINK)) {
            Some(id) => (id.parse().ok()?, false),
            None => (name.split_once('-')?.0.parse().ok()?, true),
        };
        let row = view.rows.get(id)?;
        let mut ends = noted.iter().rev().filter(|(noted, _)| *noted == id);
        let noted = ends.find_map(|(_, end)| end.as_ref());
        if is_content && noted.is_none_or(|end| temporary_name(id, &end.hash) != name) {
            return None;
        }
        let target = match view.wish(id) {
            Wish::Here(want) => want.content.and_then(|content| content.target),
            _ => None,
        };
        Some(Exchange {
            name,
            id,
            row,
            noted,
            target,
        })
    }

    /// Returns whether anything was done.
    fn end(&self, place: &Place, view: &View<'_>) -> io::Result<bool> {
        let tmp = place.tmp();
        let stat = tmp.stat_at(self.name)?;
        if self.is_ours(tmp, self.name, &stat) {
            if !self.name.starts_with(SPARE) {
                return Ok(false);
            }
            tmp.unlink(self.name)?;
            return Ok(true);
        }
        let parent = FileId(self.row.parent);
        let path = view.rows.path(parent);
        let folder = path.and_then(|path| place.folder(&path).ok());
        let there = folder.as_ref().map(|folder| folder.stat_at(&self.row.name));
        let is_free = matches!(&there, Some(Err(error)) if error.kind() == io::ErrorKind::NotFound);
        let found = there.as_ref().and_then(|there| there.as_ref().ok());
        if found.is_some_and(|there| there.agrees(self.row, true)) {
            // Nothing has changed places yet, or has again.
            return Ok(false);
        }
        let is_link = stat.kind == Some(Kind::Symlink) && self.name.starts_with(LINK);
        if is_link
            && !matches!((&folder, found), (Some(folder), Some(there)) if self.is_untouched(folder, there))
        {
            // Perhaps one of ours, to a target that the vault no longer has.
            return Ok(false);
        }
        if let Some(folder) = folder.as_ref().filter(|_| is_free)
            && place.put(tmp, self.name, folder, &self.row.name).is_ok()
        {
            return Ok(true);
        }
        if stat.agrees(self.row, true) {
            match stat.kind {
                Some(Kind::File) => keep_aside(place, self.name, &stat)?,
                _ => tmp.unlink(self.name)?,
            }
            return Ok(true);
        }
        if let (Some(folder), Some(Ok(there))) = (folder, there)
            && self.is_untouched(&folder, &there)
            && self.take_back(place, &folder)?
        {
            return Ok(true);
        }
        // Its place has something else by now: where parked files go, then.
        place.put(tmp, self.name, tmp, &park_name(self.id))?;
        Ok(true)
    }

    fn is_ours(&self, folder: &Dir, name: &str, stat: &Stat) -> bool {
        match stat.kind {
            Some(Kind::Symlink) => {
                let wanted = self.target.as_deref();
                wanted.is_some() && folder.target(name).is_ok_and(|to| to.to_str() == wanted)
            }
            Some(Kind::File) => self.noted.is_some_and(|end| end.inode == stat.inode),
            _ => false,
        }
    }

    /// Whether what is in its place is what was put there, and nobody has written to it since.
    fn is_untouched(&self, folder: &Dir, there: &Stat) -> bool {
        self.is_ours(folder, &self.row.name, there)
            && (there.kind == Some(Kind::Symlink)
                || self.noted.is_some_and(|end| there.agrees(end, true)))
    }

    /// Somebody's work back to its place, and ours under the temporary name again. Returns whether that was so in the end.
    fn take_back(&self, place: &Place, folder: &Dir) -> io::Result<bool> {
        let tmp = place.tmp();
        let exchange = || {
            let spot = (folder, self.row.name.as_str());
            place.exchange((tmp, self.name), spot, OURS)
        };
        exchange()?;
        let ours = tmp.stat_at(self.name)?;
        if self.is_ours(tmp, self.name, &ours) {
            return Ok(true);
        }
        // Once more somebody was quicker: what is newer stays there.
        exchange()?;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coffer_crdt::tree::Tree;
    use coffer_protocol::identity::VaultId;

    use super::super::compare::row_of;
    use super::super::hidden::spare_name;
    use super::super::intent::of_files;
    use super::super::place::Marker;
    use super::super::plan::{Want, WantContent};
    use super::super::recover::unpark;
    use super::super::rows::Rows;
    use super::*;

    const FILE: FileId = FileId([1; 16]);
    const NEW: [u8; 32] = [2; 32];

    /// A folder in which `f`, which held "old", was about to be replaced by "new".
    struct Cut {
        dir: tempfile::TempDir,
        place: Place,
        rows: Rows,
        noted: Vec<Intent>,
        temporary: String,
    }

    impl Cut {
        fn new() -> Cut {
            let dir = tempfile::tempdir().unwrap();
            let marker = Marker {
                number: 1,
                vault: VaultId([1; 32]),
            };
            let place = Place::prepare(dir.path(), &marker).unwrap();
            std::fs::write(dir.path().join("f"), "old").unwrap();
            let stat = place.root().stat_at("f").unwrap();
            let row = row_of(FileId::ROOT, "f", Kind::File, &stat, [1; 32]);
            let rows = Rows::new(FileId::ROOT, BTreeMap::from([(FILE, row)]));
            let temporary = temporary_name(FILE, &NEW);
            std::fs::write(place.tmp_path(&temporary), "new").unwrap();
            place.tmp().mark(&temporary, 0o600, Some(1_000)).unwrap();
            let content = WantContent {
                hash: NEW,
                size: 3,
                mtime_ms: 1_000,
                executable: false,
                target: None,
            };
            let want = Want {
                parent: FileId::ROOT,
                name: "f".into(),
                kind: Kind::File,
                content: Some(content),
            };
            let noted = of_files(&place, &rows, &[(FILE, want, temporary.clone())]);
            Cut {
                dir,
                place,
                rows,
                noted,
                temporary,
            }
        }

        /// Somebody puts another file in its place.
        fn save(&self, text: &str) {
            let draft = self.dir.path().join("draft");
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(draft, self.dir.path().join("f")).unwrap();
        }

        fn exchange(&self) {
            let (tmp, root) = (self.place.tmp(), self.place.root());
            self.place
                .exchange((tmp, &self.temporary), (root, "f"), &spare_name(FILE))
                .unwrap();
        }

        /// The next start.
        fn end(&self) {
            let tree = Tree::new();
            let view = View {
                rows: &self.rows,
                tree: &tree,
                vault_folder: FileId::ROOT,
                profile: self.place.profile(),
                label: "",
                now_ms: 0,
            };
            end_exchanges(&self.place, &view, &self.noted).unwrap();
            unpark(&self.place, &view).unwrap();
        }

        fn text(&self, name: &str) -> Option<String> {
            std::fs::read_to_string(self.dir.path().join(name)).ok()
        }

        fn temporary(&self) -> Option<String> {
            std::fs::read_to_string(self.place.tmp_path(&self.temporary)).ok()
        }

        fn kept(&self) -> Vec<String> {
            let names = hidden_names(&self.place, "kept").unwrap();
            let text = |name: &String| std::fs::read_to_string(self.place.kept_path(name)).unwrap();
            names.iter().map(text).collect()
        }
    }

    #[test]
    fn what_somebody_put_there_in_the_last_moment_goes_back() {
        let cut = Cut::new();
        cut.save("somebody's");
        cut.exchange();
        cut.end();
        assert_eq!(cut.text("f").as_deref(), Some("somebody's"));
        assert_eq!(cut.temporary().as_deref(), Some("new"));
        cut.end();
        assert_eq!(cut.text("f").as_deref(), Some("somebody's"));
    }

    #[test]
    fn it_comes_back_beside_what_was_saved_in_its_place_since() {
        let cut = Cut::new();
        cut.save("somebody's");
        cut.exchange();
        cut.save("newer");
        cut.end();
        assert_eq!(cut.text("f").as_deref(), Some("newer"));
        let beside = cut.text(&format!("recovered {FILE}"));
        assert_eq!(beside.as_deref(), Some("somebody's"));
    }

    #[test]
    fn what_was_replaced_is_kept_and_what_was_not_stays() {
        let cut = Cut::new();
        cut.end();
        assert_eq!(cut.text("f").as_deref(), Some("old"));
        assert_eq!(cut.temporary().as_deref(), Some("new"));
        cut.exchange();
        cut.end();
        assert_eq!(cut.text("f").as_deref(), Some("new"));
        assert_eq!(
            (cut.temporary(), cut.kept()),
            (None, vec!["old".to_owned()])
        );
    }

    #[test]
    fn what_an_exchange_step_by_step_put_aside_comes_back() {
        for text in ["old", "somebody's"] {
            let cut = Cut::new();
            if text != "old" {
                cut.save(text);
            }
            let (tmp, root) = (cut.place.tmp(), cut.place.root());
            cut.place.put(root, "f", tmp, &spare_name(FILE)).unwrap();
            cut.end();
            assert_eq!(cut.text("f").as_deref(), Some(text));
            assert_eq!(cut.temporary().as_deref(), Some("new"));
        }
    }
}
