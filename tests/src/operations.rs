//! What people do: random operations, drawn from what their own device shows them.

use coffer_crdt::document::Document;
use coffer_crdt::files::{FileId, Kind};
use coffer_node::store::documents::{DocumentKey, read_document, read_row};
use coffer_node::store::{StoreError, tables};
use coffer_node::vault::{CommitRequest, ContentDraft, Core, Operation};
use rand::{Rng, RngExt};
use redb::{ReadableDatabase, ReadableTable};
use serde_json::{Value, json};

use crate::acts::Act;
use crate::contents;
use crate::ledger::Ledger;

/// A request, what it is about, and contents that arrive with it.
type Drawn = (CommitRequest, Issued, Vec<(FileId, [u8; 32])>);

/// Doctype of the texts that several people type into.
pub const NOTES: &str = "io.cozy.notes";
/// Doctype of the other documents.
pub const CONTACTS: &str = "io.cozy.contacts";

/// A request under way, and what its success will mean.
#[derive(Clone, Debug, Default)]
pub struct Issued {
    /// What it is, for coverage.
    pub acts: Vec<&'static str>,
    /// Characters typed: (document, character).
    pub typed: Vec<(String, char)>,
    /// Characters erased.
    pub erased: Vec<(String, char)>,
    /// Files made.
    pub created: Vec<FileId>,
    /// It must fail.
    pub must_fail: bool,
}

/// What a person sees on the device and does.
pub struct Person<'a, R: Rng> {
    /// Their device.
    pub core: &'a Core,
    /// The fleet's book, where what is set out to be done is noted.
    pub ledger: &'a mut Ledger,
    /// Chance.
    pub rng: &'a mut R,
    /// Their clock.
    pub wall_ms: u64,
    /// Contents with a list of lists whose bytes are here from now on.
    pub bytes: Vec<(FileId, [u8; 32])>,
    request: CommitRequest,
    issued: Issued,
}

const NAMES: [&str; 6] = ["notes.txt", "photos", "letter", "a.tar.gz", "Über.md", "x"];

impl<'a, R: Rng> Person<'a, R> {
    /// Somebody who has not done anything yet.
    pub fn new(core: &'a Core, ledger: &'a mut Ledger, rng: &'a mut R, wall_ms: u64) -> Self {
        let (request, issued) = (CommitRequest::default(), Issued::default());
        Person {
            core,
            ledger,
            rng,
            wall_ms,
            bytes: Vec::new(),
            request,
            issued,
        }
    }

    /// Does something, where what is shown allows it.
    pub fn act(mut self, act: Act) -> Result<Option<Drawn>, StoreError> {
        let done = match act {
            Act::Batch => {
                let mut any = false;
                for _ in 0..self.rng.random_range(2..5) {
                    let act = Act::draw(self.rng);
                    if !matches!(act, Act::Batch | Act::Refused) {
                        any |= self.one(act)?;
                    }
                }
                any
            }
            act => self.one(act)?,
        };
        self.issued.acts.push(act.name());
        Ok(done.then_some((self.request, self.issued, self.bytes)))
    }

    fn one(&mut self, act: Act) -> Result<bool, StoreError> {
        match act {
            Act::Put => {
                let id = self.contact();
                let value = self.contact_value();
                self.put(CONTACTS, &id, value);
            }
            Act::MergeFields => {
                let (doctype, id, patch) = match self.rng.random_bool(0.2) {
                    true => (NOTES, self.note(), json!({ "title": self.word() })),
                    false => (CONTACTS, self.contact(), self.contact_patch()),
                };
                self.merge(doctype, &id, patch);
            }
            Act::Type => return self.type_text(),
            Act::Erase => return self.erase(),
            Act::Delete => {
                let id = self.contact();
                let alive = self
                    .document(CONTACTS, &id)?
                    .is_some_and(|document| !document.is_deleted());
                // Only once in a request: what a request deletes it cannot delete again.
                let again = self
                    .request
                    .operations
                    .iter()
                    .any(|operation| matches!(operation, Operation::DeleteDocument { .. }));
                if !alive || again {
                    return Ok(false);
                }
                self.push(Operation::DeleteDocument {
                    doctype: CONTACTS.into(),
                    id,
                });
            }
            Act::Purge => return self.purge(),
            Act::Large => {
                let mut bytes = vec![0; self.rng.random_range(3_000..12_000)];
                self.rng.fill_bytes(&mut bytes);
                let field = format!("field{}", self.rng.random_range(0..2));
                self.merge(CONTACTS, "large", json!({ field: hex::encode(bytes) }));
            }
            Act::CreateFolder => {
                self.create(Kind::Folder, None);
            }
            Act::CreateFile => {
                let draft = self.draft();
                let id = self.create(Kind::File, Some(draft.clone()));
                self.has_bytes(id, &draft);
            }
            Act::CreateLink => {
                let target = format!("../{}", self.word());
                let draft = contents::link(&target, self.wall_ms as i64);
                self.create(Kind::Symlink, Some(draft));
            }
            Act::Move => return Ok(self.move_somewhere()),
            Act::Rename => {
                let Some(id) = self.shown(|_| true) else {
                    return Ok(false);
                };
                let Some(parent) = self.parent(id) else {
                    return Ok(false);
                };
                self.merge_group(id);
                let name = self.name();
                self.push(Operation::MoveFile { id, parent, name });
            }
            Act::Content => {
                let Some(id) = self.shown(|kind| kind == Kind::File) else {
                    return Ok(false);
                };
                self.merge_group(id);
                let draft = self.draft();
                self.has_bytes(id, &draft);
                self.push(Operation::SetContent {
                    id,
                    content: draft,
                    replaces: None,
                });
            }
            Act::Trash => {
                let Some(id) = self.shown(|_| true) else {
                    return Ok(false);
                };
                self.merge_group(id);
                self.ledger.trashing.insert(id);
                self.push(Operation::TrashFile { id });
            }
            Act::Restore => {
                let trashed: Vec<FileId> = self.tree(|tree| tree.trashed().collect());
                let Some(id) = self.pick(&trashed) else {
                    return Ok(false);
                };
                self.push(Operation::RestoreFile { id });
                let below: Vec<FileId> = self.tree(|tree| tree.below(id).collect());
                self.request.recheck.extend(below);
            }
            Act::Merge => {
                let Some(id) = self.shown(|_| true) else {
                    return Ok(false);
                };
                if self.tree(|tree| tree.group(id).is_empty()) {
                    return Ok(false);
                }
                self.merge_group(id);
            }
            Act::Arrived => return self.arrived(),
            Act::Displaced => return self.displaced(),
            Act::Refused => {
                // The first half would succeed alone.
                let id = self.contact();
                let value = self.contact_value();
                self.put(CONTACTS, &id, value);
                self.push(Operation::DeleteDocument {
                    doctype: CONTACTS.into(),
                    id: "nobody".into(),
                });
                self.issued.must_fail = true;
            }
            Act::PruneFeed => self.request.prune_feed = Some(self.core.state().transaction),
            Act::Batch => return Ok(false),
        }
        Ok(true)
    }

    fn push(&mut self, operation: Operation) {
        self.request.operations.push(operation);
    }

    fn put(&mut self, doctype: &str, id: &str, value: Value) {
        self.push(Operation::PutDocument {
            doctype: doctype.into(),
            id: id.into(),
            value,
            texts: Vec::new(),
            base: Vec::new(),
        });
    }

    fn merge(&mut self, doctype: &str, id: &str, patch: Value) {
        self.push(Operation::MergeDocument {
            doctype: doctype.into(),
            id: id.into(),
            patch,
            texts: Vec::new(),
            base: Vec::new(),
            must_exist: false,
        });
    }

    fn document(&self, doctype: &str, id: &str) -> Result<Option<Document>, StoreError> {
        let read = self.core.database().begin_read()?;
        let key = DocumentKey::new(doctype, id);
        read_row(&read, key)?
            .map(|row| read_document(&read, key, &row))
            .transpose()
    }

    /// The text of a note as this request would leave it, if this request has not typed into it yet.
    fn text(&self, id: &str) -> Result<Option<String>, StoreError> {
        let touched = self.request.operations.iter().any(|operation| matches!(operation, Operation::MergeDocument { id: other, .. } if other == id));
        if touched {
            return Ok(None);
        }
        let json = self.document(NOTES, id)?.map(|document| document.json());
        Ok(Some(
            json.and_then(|json| json["content"].as_str().map(str::to_owned))
                .unwrap_or_default(),
        ))
    }

    fn type_text(&mut self) -> Result<bool, StoreError> {
        let id = self.note();
        let Some(text) = self.text(&id)? else {
            return Ok(false);
        };
        let mut characters: Vec<char> = text.chars().collect();
        let typed = self.ledger.fresh_char();
        let at = self.rng.random_range(0..=characters.len());
        characters.insert(at, typed);
        self.ledger
            .typed
            .entry(id.clone())
            .or_default()
            .insert(typed, Default::default());
        self.issued.typed.push((id.clone(), typed));
        self.merge(
            NOTES,
            &id,
            json!({ "content": characters.into_iter().collect::<String>() }),
        );
        Ok(true)
    }

    fn erase(&mut self) -> Result<bool, StoreError> {
        let id = self.note();
        let Some(text) = self.text(&id)? else {
            return Ok(false);
        };
        let mut characters: Vec<char> = text.chars().collect();
        let known: Vec<usize> = (0..characters.len())
            .filter(|&at| characters[at] != '\n')
            .collect();
        let Some(at) = self.pick(&known) else {
            return Ok(false);
        };
        let erased = characters.remove(at);
        // With the last character of a line its end goes, too.
        let begins = at == 0 || characters[at - 1] == '\n';
        let ends = characters.get(at).is_none_or(|next| *next == '\n');
        if begins && ends && !characters.is_empty() {
            characters.remove(at.min(characters.len() - 1));
        }
        if let Some(typed) = self
            .ledger
            .typed
            .get_mut(&id)
            .and_then(|typed| typed.get_mut(&erased))
        {
            typed.erasing = true;
        }
        self.issued.erased.push((id.clone(), erased));
        self.merge(
            NOTES,
            &id,
            json!({ "content": characters.into_iter().collect::<String>() }),
        );
        Ok(true)
    }

    fn create(&mut self, kind: Kind, content: Option<ContentDraft>) -> FileId {
        let mut id = FileId([0; 16]);
        self.rng.fill_bytes(&mut id.0);
        let (parent, name) = (self.folder(), self.name());
        self.issued.created.push(id);
        self.push(Operation::CreateFile {
            id,
            kind,
            parent,
            name,
            content,
            created_ms: self.wall_ms as i64,
        });
        id
    }

    fn move_somewhere(&mut self) -> bool {
        let folders_first = self.rng.random_bool(0.6);
        let Some(id) = self.shown(|kind| !folders_first || kind == Kind::Folder) else {
            return false;
        };
        let target = self.folder();
        let below: Vec<FileId> = self.tree(|tree| tree.below(id).collect());
        // A person cannot move a folder into itself; a program might.
        if (target == id || below.contains(&target)) && self.rng.random_bool(0.9) {
            return false;
        }
        self.merge_group(id);
        let name = match self.rng.random_bool(0.7) {
            true => self
                .tree(|tree| tree.get(id).map(|known| known.place.name))
                .unwrap_or_else(|| "moved".into()),
            false => self.name(),
        };
        self.push(Operation::MoveFile {
            id,
            parent: target,
            name,
        });
        true
    }

    /// Purges one of the documents that are there for it.
    fn purge(&mut self) -> Result<bool, StoreError> {
        let id = self.passing();
        let (doctype, name) = (CONTACTS.to_owned(), id.clone());
        if self.document(CONTACTS, &id)?.is_none() || !self.request.operations.is_empty() {
            return Ok(false);
        }
        self.ledger.purging.insert((doctype.clone(), name));
        self.push(Operation::PurgeDocument { doctype, id });
        Ok(true)
    }

    /// Bytes of a wanted file came: they are placed, and the file is held.
    fn arrived(&mut self) -> Result<bool, StoreError> {
        let wanted = wanted(self.core)?;
        let Some((id, hash)) = self.pick(&wanted) else {
            return Ok(false);
        };
        self.fetch(id, hash);
        Ok(true)
    }

    /// Takes a wanted content as arrived.
    pub fn fetch(&mut self, id: FileId, hash: [u8; 32]) {
        let drafts = (0..contents::CONTENTS).map(|number| contents::draft(number, 0));
        if let Some(draft) = drafts.into_iter().find(|draft| draft.hash == hash) {
            self.has_bytes(id, &draft);
        }
        self.request.held.push((id, hash));
    }

    /// Bytes turn out to be lost: the rows go, and everything is looked at again.
    fn displaced(&mut self) -> Result<bool, StoreError> {
        let draft = self.draft();
        let places = contents::placements(&draft.root);
        if places.is_empty() || !self.request.placements.is_empty() {
            return Ok(false);
        }
        self.request.displaced = places;
        self.request.recheck_all = true;
        Ok(true)
    }

    fn has_bytes(&mut self, id: FileId, draft: &ContentDraft) {
        if !self.request.displaced.is_empty() {
            // A request first forgets places, then adds some: as a person would expect.
        }
        self.request
            .placements
            .extend(contents::placements(&draft.root));
        self.bytes.push((id, draft.hash));
    }

    /// Those that show as one with it become one with it in the same request, as every human operation does.
    fn merge_group(&mut self, id: FileId) {
        for other in self.tree(|tree| tree.group(id)) {
            self.ledger.merging.insert(other);
            self.issued.acts.push(Act::Merge.name());
            self.push(Operation::MergeFileInto {
                id: other,
                into: id,
            });
        }
    }

    fn tree<T>(&self, look: impl FnOnce(&coffer_crdt::tree::Tree) -> T) -> T {
        look(
            &self
                .core
                .tree()
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    /// Something that some folder lists.
    fn shown(&mut self, is: impl Fn(Kind) -> bool) -> Option<FileId> {
        let mut found = Vec::new();
        self.tree(|tree| {
            let mut folders = vec![FileId::ROOT];
            while let Some(folder) = folders.pop() {
                for (_, id) in tree.children(folder) {
                    let kind = tree.shown(id).map(|shown| shown.kind);
                    if kind == Some(Kind::Folder) {
                        folders.push(id);
                    }
                    if kind.is_some_and(&is) {
                        found.push(id);
                    }
                }
            }
        });
        self.pick(&found)
    }

    fn folder(&mut self) -> FileId {
        match self.rng.random_bool(0.25) {
            true => FileId::ROOT,
            false => self
                .shown(|kind| kind == Kind::Folder)
                .unwrap_or(FileId::ROOT),
        }
    }

    fn parent(&self, id: FileId) -> Option<FileId> {
        self.tree(|tree| tree.shown(id).map(|shown| shown.parent))
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.rng.random_range(0..from.len())])
    }

    fn name(&mut self) -> String {
        NAMES[self.rng.random_range(0..NAMES.len())].into()
    }

    fn word(&mut self) -> String {
        format!("word{}", self.rng.random_range(0..1000))
    }

    fn note(&mut self) -> String {
        format!("note{}", self.rng.random_range(0..2))
    }

    fn contact(&mut self) -> String {
        match self.rng.random_bool(0.2) {
            true => self.passing(),
            false => format!("contact{}", self.rng.random_range(0..5)),
        }
    }

    /// One of those that are purged one day: after that nobody can write to it, and the next is taken.
    fn passing(&mut self) -> String {
        let gone = self.ledger.purging.len();
        format!("passing{}", gone + self.rng.random_range(0..3))
    }

    fn draft(&mut self) -> ContentDraft {
        contents::draft(
            self.rng.random_range(0..contents::CONTENTS),
            self.wall_ms as i64,
        )
    }

    fn contact_value(&mut self) -> Value {
        json!({
            "fullname": self.word(),
            "age": self.rng.random_range(0..100),
            "note": self.word(),
            "address": { "city": self.word(), "zip": self.rng.random_range(0..100) },
            "phones": [self.word(), self.word()],
        })
    }

    fn contact_patch(&mut self) -> Value {
        match self.rng.random_range(0..6) {
            0 => json!({ "fullname": self.word() }),
            1 => json!({ "age": self.rng.random_range(0..100) }),
            2 => json!({ "address": { "city": self.word() } }),
            3 => json!({ "address": { self.word(): self.word() } }),
            4 => json!({ "phones": [self.word()] }),
            _ => json!({ "fullname": null, "nick": self.word() }),
        }
    }
}

/// Files of which bytes are missing, with the hash of the content.
pub fn wanted(core: &Core) -> Result<Vec<(FileId, [u8; 32])>, StoreError> {
    let table = core.database().begin_read()?.open_table(tables::WANTED)?;
    let mut wanted = Vec::new();
    for item in table.iter()? {
        let (id, value) = item?;
        let mut hash = [0; 32];
        hash.copy_from_slice(&value.value()[..32]);
        wanted.push((FileId(*id.value()), hash));
    }
    Ok(wanted)
}

/// A request that says that all the bytes which a device still wants have arrived.
pub fn all_arrived<R: Rng>(mut person: Person<'_, R>) -> Result<Option<Drawn>, StoreError> {
    let wanted = wanted(person.core)?;
    for (id, hash) in &wanted {
        person.fetch(*id, *hash);
    }
    Ok((!wanted.is_empty()).then_some((person.request, person.issued, person.bytes)))
}
