//! What this device keeps of the vault: everything, or some contents only.
//!
//! Names, sizes and documents are always here. A [`Rule`] on a folder or file says whether contents in it are kept for
//! good or on demand: fetched when somebody asks for them, and dropped again when they take more room than the limit.
//! The nearest rule counts; it is by id, so that a move keeps it. What a synced folder has on disk is always kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use coffer_crdt::files::FileId;
use coffer_crdt::tree::Tree;
use coffer_protocol::identity::Hash;
use redb::{ReadTransaction, ReadableTable, TableError};

use crate::blobs::Placement;
use crate::store::{StoreError, records, tables};

/// Rules on one device, at most: they are gone through whenever something is looked up.
pub const MAX_RULES: usize = 1024;

/// How deep folders may lie within each other as they are followed upwards: a tree has no cycles as it is shown, so
/// the bound is for a defect.
const MAX_DEPTH: usize = 100_000;

/// How contents in a folder, or of a file, are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Fetched when asked for, dropped when room is needed.
    OnDemand,
    /// Kept, like where there is no rule: an exception within a folder that is on demand.
    Full,
    /// Kept because a person pinned it.
    Pinned,
}

impl Rule {
    /// Its byte in the table.
    pub fn to_byte(self) -> u8 {
        match self {
            Rule::OnDemand => 0,
            Rule::Full => 1,
            Rule::Pinned => 2,
        }
    }

    fn from_byte(byte: u8) -> Option<Rule> {
        [Rule::OnDemand, Rule::Full, Rule::Pinned]
            .into_iter()
            .find(|rule| rule.to_byte() == byte)
    }
}

/// The settings of this device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Rules by the folder or file that they are on; [`FileId::ROOT`] for the whole vault.
    pub rules: BTreeMap<FileId, Rule>,
    /// Bytes that contents on demand may take.
    pub limit: Option<u64>,
}

impl Storage {
    /// Reads them from the store.
    pub fn read(read: &ReadTransaction) -> Result<Storage, StoreError> {
        let mut storage = Storage {
            limit: records::get_u64(&read.open_table(tables::META)?, tables::meta::STORAGE_LIMIT)?,
            ..Storage::default()
        };
        let table = match read.open_table(tables::STORAGE) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(storage),
            Err(error) => return Err(error.into()),
        };
        for item in table.iter()? {
            let (id, byte) = item?;
            let rule = Rule::from_byte(byte.value()).ok_or_else(|| {
                StoreError::Damaged("a rule of what this device keeps cannot be read".into())
            })?;
            storage.rules.insert(FileId(*id.value()), rule);
        }
        Ok(storage)
    }

    /// Whether this device keeps every content for good: only then others may rely on it.
    pub fn keeps_everything(&self) -> bool {
        self.rules.values().all(|rule| *rule != Rule::OnDemand)
    }
}

/// What the settings mean for each file of a tree.
pub struct Plan<'t> {
    tree: &'t Tree,
    rules: HashMap<FileId, Rule>,
    synced: BTreeSet<FileId>,
    /// Folders looked at before.
    known: HashMap<FileId, Standing>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Within a synced folder.
    Synced,
    Kept,
    OnDemand,
}

impl<'t> Plan<'t> {
    /// `synced` are the folders of the vault that are synced with folders of this device.
    pub fn new(
        tree: &'t Tree,
        storage: &Storage,
        synced: impl IntoIterator<Item = FileId>,
    ) -> Self {
        // A folder that is shown as another lends it its rule, unless that one has its own.
        let mut rules: HashMap<FileId, Rule> = storage
            .rules
            .iter()
            .map(|(id, rule)| (tree.representative(*id), *rule))
            .collect();
        rules.extend(storage.rules.iter().map(|(id, rule)| (*id, *rule)));
        Self {
            tree,
            rules,
            synced: synced.into_iter().collect(),
            known: HashMap::new(),
        }
    }

    /// Whether a file lies in a folder of the vault that is synced here.
    pub fn is_synced(&mut self, file: FileId) -> bool {
        self.standing(file) == Standing::Synced
    }

    /// Whether the content of a file is kept for good here.
    pub fn keeps(&mut self, file: FileId) -> bool {
        self.standing(file) != Standing::OnDemand
    }

    fn standing(&mut self, file: FileId) -> Standing {
        let (mut path, mut at) = (Vec::new(), file);
        let mut standing = loop {
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            path.push(at);
            match self.tree.shown(at) {
                Some(shown) if path.len() < MAX_DEPTH => at = shown.parent,
                _ => break Standing::Kept,
            }
        };
        while let Some(at) = path.pop() {
            standing = match (standing, self.rules.get(&at)) {
                (Standing::Synced, _) => Standing::Synced,
                _ if self.synced.contains(&at) => Standing::Synced,
                (_, Some(Rule::OnDemand)) => Standing::OnDemand,
                (_, Some(Rule::Full | Rule::Pinned)) => Standing::Kept,
                (inherited, None) => inherited,
            };
            // The file itself is asked about once; what it stands in, again and again.
            if at != file {
                self.known.insert(at, standing);
            }
        }
        standing
    }
}

/// A change of what this device keeps, within a [`CommitRequest`](super::CommitRequest).
#[derive(Clone, Debug)]
pub enum StorageChange {
    /// From now on this rule is on a folder or file, or none.
    Rule(FileId, Option<Rule>),
    /// No rule is left: everything is kept.
    KeepEverything,
    /// Bytes that contents on demand may take.
    Limit(Option<u64>),
    /// The content of a file was asked for at this time, in milliseconds since 1970.
    Used(FileId, u64),
    /// Drop contents, if that is safe at the moment of the commit.
    Evict(Eviction),
    /// These files of the blob store have been dealt with.
    Dropped(Vec<Hash>),
}

/// Contents to drop.
#[derive(Clone, Debug, Default)]
pub struct Eviction {
    /// The transaction after which this was worked out: at a later one it may be wrong, and is refused.
    pub as_of: u64,
    /// The files, and the hashes of their contents.
    pub files: Vec<(FileId, [u8; 32])>,
    /// Places of bytes that nothing else needs.
    pub displaced: Vec<(Hash, Placement)>,
    /// Files of the blob store that those places are in.
    pub dropping: Vec<Hash>,
}

#[cfg(test)]
mod tests {
    use coffer_crdt::files::{Dot, FileState, Kind, Place, Stamp};

    use super::*;

    fn id(n: u8) -> FileId {
        FileId([n; 16])
    }

    fn tree(nodes: &[(u8, u8, Kind)]) -> Tree {
        let mut tree = Tree::new();
        for (n, parent, kind) in nodes {
            let parent = if *parent == 0 {
                FileId::ROOT
            } else {
                id(*parent)
            };
            let dot = Dot {
                writer: [1; 16],
                seq: u64::from(*n),
            };
            let stamp = Stamp(u64::from(*n));
            tree.set(
                id(*n),
                &FileState {
                    kind: *kind,
                    created_ms: 0,
                    place: Place::new(parent, format!("n{n}"), stamp, dot, "laptop"),
                    content: None,
                    trash: None,
                    also_deleted: Vec::new(),
                    merged_into: None,
                },
            );
        }
        tree
    }

    fn storage(rules: &[(FileId, Rule)]) -> Storage {
        Storage {
            rules: rules.iter().copied().collect(),
            limit: None,
        }
    }

    #[test]
    fn the_nearest_rule_counts_and_a_synced_folder_is_always_kept() {
        let (folder, file) = (Kind::Folder, Kind::File);
        // 1/ 2/ 3, 1/ 4, 5/ 6/ 7
        let tree = tree(&[
            (1, 0, folder),
            (2, 1, folder),
            (3, 2, file),
            (4, 1, file),
            (5, 0, folder),
            (6, 5, folder),
            (7, 6, file),
        ]);
        let kept = |storage: &Storage, synced: &[FileId]| -> Vec<u8> {
            let mut plan = Plan::new(&tree, storage, synced.iter().copied());
            [3, 4, 7]
                .into_iter()
                .filter(|n| plan.keeps(id(*n)))
                .collect()
        };
        let everything = storage(&[]);
        assert_eq!(kept(&everything, &[]), [3, 4, 7]);
        assert!(everything.keeps_everything());
        let nothing = storage(&[(FileId::ROOT, Rule::OnDemand)]);
        assert_eq!(kept(&nothing, &[]), [0; 0]);
        assert!(!nothing.keeps_everything());
        assert_eq!(kept(&nothing, &[id(5)]), [7]);
        let pinned = storage(&[
            (FileId::ROOT, Rule::OnDemand),
            (id(1), Rule::Pinned),
            (id(2), Rule::OnDemand),
            (id(7), Rule::Pinned),
        ]);
        assert_eq!(kept(&pinned, &[]), [4, 7]);
        // A rule inside of a synced folder changes nothing: its files are on disk.
        let inside = storage(&[(id(6), Rule::OnDemand)]);
        assert_eq!(kept(&inside, &[id(5)]), [3, 4, 7]);
        assert_eq!(kept(&inside, &[]), [3, 4]);
    }
}
