//! The rules of what is ignored, learnt in passing while the disk is looked at ([`super::scan`]).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coffer_crdt::files::Kind;

use super::disk::Dir;
use super::ground::Stat;
use super::rules;
use super::scan::Scanner;

/// A changed ignore file applies when nothing changed it for so long: while it is being written it may be empty for a
/// moment, and what it ignores would be taken up.
const RULES_REST: Duration = Duration::from_secs(1);

impl Scanner {
    /// Learns the rules of a folder that is not listed itself.
    pub(super) fn ask_rules(&mut self, path: &Path, open: &mut Option<Dir>) -> io::Result<()> {
        if self.asked.contains(path) {
            return Ok(());
        }
        match self.opened(path, open) {
            Ok(folder) => self.learn_rules(folder, path),
            Err(error) if path.as_os_str().is_empty() => return Err(error),
            // Whoever lists it will say so.
            Err(_) => {}
        }
        Ok(())
    }

    /// The folder at `path`: `open`, if it is open already.
    pub(super) fn opened<'a>(&self, path: &Path, open: &'a mut Option<Dir>) -> io::Result<&'a Dir> {
        let folder = match open.take() {
            Some(folder) => folder,
            None => self.place.folder(path)?,
        };
        Ok(open.insert(folder))
    }

    /// Learns the rules in an open folder, once.
    pub(super) fn learn_rules(&mut self, folder: &Dir, path: &Path) {
        if !self.asked.insert(path.to_path_buf()) {
            return;
        }
        let known = self.before.of(path).cloned();
        let found = folder.stat_at(rules::FILE_NAME).ok();
        let file = match found {
            Some(stat) if stat.kind == Some(Kind::File) => {
                match rules::load(folder, stat, known.as_ref()) {
                    Ok(file) => Some(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => {
                        let reason = format!("its rules cannot be read and do not apply: {error}");
                        self.problem(&path.join(rules::FILE_NAME), &reason);
                        known.clone()
                    }
                }
            }
            Some(_) => {
                let reason = "only a file can say what to ignore; this is none, and is not read";
                self.problem(&path.join(rules::FILE_NAME), reason);
                None
            }
            None => None,
        };
        let is_same = match (&file, &known) {
            (Some(file), Some(known)) => Arc::ptr_eq(file, known),
            (None, None) => true,
            _ => false,
        };
        // Where it is gone, the folder's own time tells since when: some editors save by putting the old one aside.
        let rests = known.is_none()
            || found
                .map_or_else(|| folder.stat().ok(), Some)
                .is_none_or(|stat| has_rested(&stat));
        let file = if is_same || rests {
            self.rules_changed |= !is_same;
            file
        } else {
            self.snapshot.unsettled.push(path.to_path_buf());
            known
        };
        let Some(file) = file else { return };
        let name = path.join(rules::FILE_NAME);
        for (line, reason) in &file.problems {
            match line {
                0 => self.problem(&name, reason),
                line => self.problem(&name, &format!("line {line} does not apply: {reason}")),
            }
        }
        if !self.rules.set(path, Some(file)) {
            let reason = format!(
                "at most {} ignore files apply; this one does not",
                rules::MAX_FILES
            );
            self.problem(&name, &reason);
        }
    }
}

/// Whether nothing changed a file for a while. A time in the future says nothing.
fn has_rested(stat: &Stat) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos() as i128);
    let age = now - stat.ctime_ns.max(stat.mtime_ns);
    age < 0 || age >= RULES_REST.as_nanos() as i128
}
