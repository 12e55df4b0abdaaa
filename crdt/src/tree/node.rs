//! What the tree keeps of one document, and where it stands as far as is worked out.

use std::{cmp::Ordering, sync::Arc};

use crate::files::names::shown_name;
use crate::files::{Content, Dot, FileId, FileState, Kind, MergedInto, Place, Stamp, Trash};

/// A node's index. Indices are reused after a removal and differ between devices: nothing that is shown depends on them.
pub(super) type Ix = u32;

/// The index of the root.
pub(super) const ROOT: Ix = 0;

/// No node.
pub(super) const NONE: Ix = u32::MAX;

/// What the tree remembers of a content: all but where its bytes are, which the document holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentBrief {
    /// Bytes of the file; for a symbolic link the length of its target.
    pub size: u64,
    /// Milliseconds since 1970 (UTC) when the bytes were last modified.
    pub mtime_ms: i64,
    /// Whether the file may be executed by its owner.
    pub executable: bool,
    /// Equal within a space if and only if the bytes are equal.
    pub hash: [u8; 32],
    /// Where a symbolic link points.
    pub target: Option<Box<str>>,
    /// When this content was put there.
    pub stamp: Stamp,
    /// The entry that put it there.
    pub dot: Dot,
}

impl ContentBrief {
    fn of(content: &Content) -> ContentBrief {
        ContentBrief {
            size: content.size,
            mtime_ms: content.mtime_ms,
            executable: content.executable,
            hash: content.hash,
            target: content.target.as_deref().map(Box::from),
            stamp: content.stamp,
            dot: content.dot,
        }
    }
}

/// What the tree remembers of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// What it is.
    pub kind: Kind,
    /// When it was made, in milliseconds since 1970 (UTC).
    pub created_ms: i64,
    /// The register as it was given.
    pub place: Place,
    /// Everything of the content but where its bytes are.
    pub content: Option<&'a ContentBrief>,
    /// The register as it was given.
    pub trash: Option<&'a Trash>,
    /// Deletions at the same time as that one.
    pub also_deleted: &'a [Trash],
    /// The register as it was given.
    pub merged_into: Option<&'a MergedInto>,
}

impl Known<'_> {
    /// The deletions written to it, the latest first.
    pub fn deletions(&self) -> impl Iterator<Item = &Trash> {
        let latest = self.trash.filter(|trash| !trash.is_restored());
        latest.into_iter().chain(self.also_deleted)
    }

    /// Whether somebody who deleted it, itself, had seen what was written with that dot.
    pub fn is_deleted(&self, dot: Dot) -> bool {
        self.deletions().any(|deletion| deletion.covers(dot))
    }

    /// Whether its own deletion keeps it in the trash, whatever becomes of what it stands in.
    pub fn went_by_itself(&self) -> bool {
        let content = self.content.map(|content| content.dot);
        self.deletions().any(|own| {
            own.covers(self.place.dot) && content.is_none_or(|content| own.covers(content))
        })
    }
}

/// What a document says of its deletion. Most say nothing, so it is kept apart from the node.
pub(super) struct Deleted {
    /// The register as it was given.
    pub latest: Trash,
    /// Deletions at the same time.
    pub also: Vec<Trash>,
}

impl Deleted {
    fn of(state: &FileState) -> Option<Box<Deleted>> {
        let latest = state.trash.clone()?;
        let also = state.also_deleted.clone();
        Some(Box::new(Deleted { latest, also }))
    }
}

/// Which of the places that a node could stand at counts. A cycle makes its latest member go on to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Within the one that it is merged into.
    Merged,
    /// In the folder that its place names.
    Place,
    /// In the folder before that.
    Previous,
    /// Under the root.
    Top,
}

impl Level {
    pub fn next(self) -> Level {
        match self {
            Level::Merged => Level::Place,
            Level::Place => Level::Previous,
            Level::Previous | Level::Top => Level::Top,
        }
    }
}

/// Where a node stands, whatever it is called there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub level: Level,
    /// The node that it stands in, or that it is merged into; the root while it waits.
    pub up: Ix,
    /// Its folder is not here.
    pub waiting: bool,
}

/// One document, and what is worked out about it.
pub(super) struct Node {
    // What the document says.
    pub id: FileId,
    pub kind: Kind,
    pub created_ms: i64,
    pub parent: FileId,
    pub previous: FileId,
    /// The name, safe to show.
    pub name: Arc<str>,
    /// The name as it was written, where that is another.
    pub raw_name: Option<Box<str>>,
    pub label: Arc<str>,
    pub stamp: Stamp,
    pub dot: Dot,
    pub content: Option<ContentBrief>,
    pub deleted: Option<Box<Deleted>>,
    pub merged: Option<Box<MergedInto>>,

    // standing.rs
    pub standing: Standing,

    // trash.rs
    /// Something that it stands in, or it itself, has a deletion written to it.
    pub under_trash: bool,
    /// One of those deletions covers all that it shows.
    pub covered: bool,
    /// Not in the trash. For one that is merged: has something live below.
    pub live: bool,
    /// How many of those standing in it are live.
    pub live_kids: u32,

    // listing.rs
    /// The folder that lists it, [`NONE`] if none does.
    pub dir: Ix,
    /// The one of the same folder and name that stands for it, [`NONE`] if it stands for itself.
    pub same: Ix,
}

impl Node {
    /// The node that all others are below: live, a folder, and listed nowhere.
    pub fn root() -> Node {
        let dot = Dot {
            writer: [0; 16],
            seq: 0,
        };
        let place = Place {
            parent: FileId::ROOT,
            name: ".".into(),
            stamp: Stamp(0),
            dot,
            label: String::new(),
            previous: FileId::ROOT,
        };
        let state = FileState {
            kind: Kind::Folder,
            created_ms: 0,
            place,
            content: None,
            trash: None,
            also_deleted: Vec::new(),
            merged_into: None,
        };
        let empty: Arc<str> = Arc::from("");
        Node {
            live: true,
            name: empty.clone(),
            raw_name: None,
            ..Node::new(FileId::ROOT, &state, empty)
        }
    }

    /// A node that stands nowhere yet.
    pub fn new(id: FileId, state: &FileState, label: Arc<str>) -> Node {
        let place = &state.place;
        let mut node = Node {
            id,
            kind: state.kind,
            created_ms: state.created_ms,
            parent: place.parent,
            previous: place.previous,
            name: Arc::from(""),
            raw_name: None,
            label: label.clone(),
            stamp: place.stamp,
            dot: place.dot,
            content: None,
            deleted: None,
            merged: None,
            standing: Standing {
                level: Level::Top,
                up: ROOT,
                waiting: false,
            },
            under_trash: false,
            covered: false,
            live: false,
            live_kids: 0,
            dir: NONE,
            same: NONE,
        };
        node.write(state, label);
        node
    }

    /// Takes over what the document says, and leaves the rest as it is.
    pub fn write(&mut self, state: &FileState, label: Arc<str>) {
        let place = &state.place;
        let name = shown_name(&place.name);
        if *self.name != *name {
            self.name = Arc::from(&*name);
        }
        self.raw_name = (*name != *place.name).then(|| Box::from(place.name.as_str()));
        self.kind = state.kind;
        self.created_ms = state.created_ms;
        self.parent = place.parent;
        self.previous = place.previous;
        self.label = label;
        self.stamp = place.stamp;
        self.dot = place.dot;
        self.content = state.content.as_ref().map(ContentBrief::of);
        self.deleted = Deleted::of(state);
        self.merged = state.merged_into.map(Box::new);
    }

    /// The name as it was written.
    pub fn raw_name(&self) -> &str {
        self.raw_name.as_deref().unwrap_or(&self.name)
    }

    /// Whether the register `place` has this value.
    pub fn has_place(&self, place: &Place) -> bool {
        self.parent == place.parent
            && self.previous == place.previous
            && self.stamp == place.stamp
            && self.dot == place.dot
            && self.raw_name() == place.name
            && *self.label == *place.label
    }

    /// Whether the register `content` has this value, as far as the tree keeps it.
    pub fn has_content(&self, content: Option<&Content>) -> bool {
        match (&self.content, content) {
            (Some(mine), Some(content)) => *mine == ContentBrief::of(content),
            (None, None) => true,
            _ => false,
        }
    }

    pub fn known(&self) -> Known<'_> {
        Known {
            kind: self.kind,
            created_ms: self.created_ms,
            place: Place {
                parent: self.parent,
                name: self.raw_name().to_owned(),
                stamp: self.stamp,
                dot: self.dot,
                label: self.label.to_string(),
                previous: self.previous,
            },
            content: self.content.as_ref(),
            trash: self.deleted.as_ref().map(|deleted| &deleted.latest),
            also_deleted: self.deleted.as_ref().map_or(&[], |deleted| &deleted.also),
            merged_into: self.merged.as_deref(),
        }
    }

    pub fn is_merged(&self) -> bool {
        self.standing.level == Level::Merged
    }

    /// Whether the merging, if one is written, is of exactly the values that the document has now.
    pub fn merging(&self) -> Option<&MergedInto> {
        let content = self.content.as_ref().map(|content| content.dot);
        self.merged.as_deref().filter(|merged| {
            merged.place == self.dot && merged.content == content && merged.into != self.id
        })
    }

    /// The deletions written to it, if any, the latest first; not a restoration.
    pub fn deletions(&self) -> impl Iterator<Item = &Trash> {
        let latest = self.deleted.iter().map(|deleted| &deleted.latest);
        let also = self.deleted.iter().flat_map(|deleted| &deleted.also);
        latest.filter(|trash| !trash.is_restored()).chain(also)
    }

    /// Whether the deletions are those of a state.
    pub fn has_trash(&self, state: &FileState) -> bool {
        match &self.deleted {
            Some(deleted) => {
                Some(&deleted.latest) == state.trash.as_ref() && deleted.also == state.also_deleted
            }
            None => state.trash.is_none(),
        }
    }

    /// Whether any deletion is written to it.
    pub fn is_deleted(&self) -> bool {
        self.deletions().next().is_some()
    }

    /// Whether a deleter had seen both the place and the content.
    pub fn is_covered_by(&self, trash: &Trash) -> bool {
        trash.covers(self.dot)
            && self
                .content
                .as_ref()
                .is_none_or(|content| trash.covers(content.dot))
    }

    /// The order among nodes of one name: the first one keeps it, or stands for the others.
    pub fn order(&self, other: &Node) -> Ordering {
        (self.stamp, self.dot.writer, self.id).cmp(&(other.stamp, other.dot.writer, other.id))
    }

    /// What nodes of one folder and name must have alike to be shown as one.
    pub fn likeness(&self) -> Likeness<'_> {
        match (self.kind, &self.content) {
            (Kind::Folder, _) => Likeness::Folder,
            (Kind::File, Some(content)) => Likeness::File(&content.hash),
            (Kind::Symlink, Some(content)) => {
                Likeness::Symlink(content.target.as_deref(), &content.hash)
            }
            (Kind::File | Kind::Symlink, None) => Likeness::Nothing(self.id),
        }
    }
}

/// See [`Node::likeness`].
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Likeness<'a> {
    Folder,
    File(&'a [u8; 32]),
    Symlink(Option<&'a str>, &'a [u8; 32]),
    /// Without content it is like no other.
    Nothing(FileId),
}
