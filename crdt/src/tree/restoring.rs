//! What comes out of the trash together with a folder.
//!
//! A program that removes a folder removes what is in it first. A device that looks meanwhile records that in several
//! passes: the files go to the trash each for itself, the folder at the end. To the person it was one deletion.

use std::collections::HashSet;

use super::Tree;
use crate::files::{FileId, Kind};

impl Tree {
    /// What stands in a folder of the trash, or below, and was deleted by itself, on the device that deleted the folder,
    /// not after it and at most `within_ms` before. Of several files of one folder and name only the one that was
    /// deleted last. Empty for what is not in the trash.
    pub fn deleted_with(&self, id: FileId, within_ms: u64) -> Vec<FileId> {
        let Some(end) = self.deletion(id) else {
            return Vec::new();
        };
        let (mut found, mut names) = (Vec::new(), HashSet::new());
        for part in self.below(id) {
            let Some(known) = self.get(part) else {
                continue;
            };
            let is_folder = known.kind == Kind::Folder;
            let place = (known.place.parent, known.place.name.clone());
            if known.deletions().next().is_none() {
                // What went with the folder, or is not in the trash: its name is taken.
                names.insert(place);
                continue;
            }
            let with = known.deletions().find(|own| {
                own.dot.writer == end.dot.writer
                    && own.stamp <= end.stamp
                    && end.stamp.ms() - own.stamp.ms() <= within_ms
            });
            if let Some(own) = with.filter(|_| !self.is_purged(part)) {
                found.push((own.stamp, part, place, is_folder));
            }
        }
        found.sort_by_key(|(stamp, part, ..)| std::cmp::Reverse((*stamp, *part)));
        found
            .into_iter()
            // Folders of one name show as one.
            .filter(|(.., place, is_folder)| *is_folder || names.insert(place.clone()))
            .map(|(_, part, ..)| part)
            .collect()
    }
}
