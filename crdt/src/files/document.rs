//! Registers in documents: the first change of a file, reading and editing it, the history of its contents, its JSON.

use serde_json::{Value, json};

use super::registers::{CreatedAt, Register};
use super::{
    Actor, Content, Dot, FileId, Kind, MergedInto, NameError, Place, RegisterError, Stamp, Times,
    Trash, check_name, date, times,
};
use crate::change::ChangeInfo;
use crate::{ChangeError, Document, DocumentError, NewChange, Revision, ScalarValue};

/// The most deletions of one file, written at the same time, that count. Each comes from another device, and what only an
/// earlier one had seen stays, which loses nothing.
pub const MAX_DELETIONS: usize = 16;

/// The name that the published vocabulary has for the root folder where an id stands.
const ROOT_NAME: &str = "io.cozy.files.root-dir";

/// All registers of one file, folder or link, each with the value that counts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileState {
    /// What it is.
    pub kind: Kind,
    /// When it was made, in milliseconds since 1970 (UTC).
    pub created_ms: i64,
    /// Where it stands.
    pub place: Place,
    /// What it holds, with the modification time that was set to it last: `None` for folders, and for a file whose content
    /// was not written yet.
    pub content: Option<Content>,
    /// Whether it was deleted or restored.
    pub trash: Option<Trash>,
    /// Where it was deleted: the deletions written at the same time as that one, the latest first, up to
    /// [`MAX_DELETIONS`] with it. Each covers what its own author had seen, and no more.
    #[serde(skip)]
    pub also_deleted: Vec<Trash>,
    /// Whether it was made one with another.
    pub merged_into: Option<MergedInto>,
}

/// New values for some registers; `None` leaves a register as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePatch {
    /// A move or renaming: see [`Place::moved`].
    pub place: Option<Place>,
    /// New bytes.
    pub content: Option<Content>,
    /// A deletion, or [`Trash::restored`].
    pub trash: Option<Trash>,
    /// See [`crate::tree::Tree::group`].
    pub merged_into: Option<MergedInto>,
    /// Another modification time for a content.
    pub times: Option<Times>,
}

/// Why a file document cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The name is not one that a file may have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A register's value cannot be read or written.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The document lacks a register that every file has: it is not a file, or was deleted for good.
    #[error("the document has no field {0:?}, so it is no file")]
    Missing(&'static str),
    /// A folder with content, a file with a link's target, or a link without one.
    #[error("the content does not fit a {0:?}")]
    WrongContent(Kind),
    /// A patch without a value.
    #[error("there is nothing to change")]
    EmptyPatch,
    /// The change that the document is made from is damaged.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Automerge refused.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl FileState {
    /// The deletions that count, the latest first.
    pub fn deletions(&self) -> impl Iterator<Item = &Trash> {
        let latest = self.trash.iter().filter(|trash| !trash.is_restored());
        latest.chain(&self.also_deleted)
    }

    /// Whether a deletion in its own trash register covers all that it shows now. What the folders above it say is the
    /// tree's to know.
    pub fn is_in_trash(&self) -> bool {
        let content_is_covered = |trash: &Trash| {
            self.content
                .as_ref()
                .is_none_or(|content| trash.covers(content.dot))
        };
        self.deletions()
            .any(|trash| trash.covers(self.place.dot) && content_is_covered(trash))
    }
}

/// The first change of a new file, without a document in memory.
pub fn first_change(state: &FileState, actor: Actor, time_ms: i64) -> Result<NewChange, FileError> {
    check_name(&state.place.name)?;
    check_content(state.kind, state.content.as_ref())?;
    let mut fields = vec![
        scalar(&state.kind)?,
        scalar(&CreatedAt(state.created_ms))?,
        scalar(&state.place)?,
    ];
    fields.extend(state.content.as_ref().map(scalar).transpose()?);
    fields.extend(state.trash.as_ref().map(scalar).transpose()?);
    fields.extend(state.merged_into.as_ref().map(scalar).transpose()?);
    Ok(crate::fast::first_change_scalars(&fields, actor, time_ms)?)
}

/// The file that a document consisting of this one change is; `None` where only loading the document can tell.
pub fn read_first(raw: &[u8]) -> Result<Option<FileState>, FileError> {
    let fields = crate::fast::read_first_scalars(raw)?;
    fields.map(gather_first).transpose()
}

/// What a change that another device made says of itself, as [`crate::change::inspect`] does, and what [`read_first`]
/// gives where that succeeds: in one go, for there are many in a first sync.
pub fn inspect_first(raw: &[u8]) -> Result<(ChangeInfo, Option<FileState>), ChangeError> {
    let (info, fields) = crate::fast::inspect_first_scalars(raw)?;
    Ok((info, fields.and_then(|fields| gather_first(fields).ok())))
}

fn gather_first(fields: Vec<(String, ScalarValue)>) -> Result<FileState, FileError> {
    gather(|wanted| {
        fields
            .iter()
            .filter(|(key, _)| key == wanted)
            .map(|(_, value)| value.clone())
            .collect()
    })
}

/// The file that a document is.
///
/// Of several values of a register the greatest (stamp, writer) counts. A damaged value is passed over if another one
/// is sound; a value of a later version makes the whole reading fail, since nothing is known of its stamp.
pub fn read(document: &Document) -> Result<FileState, FileError> {
    gather(|field| document.get_all_scalars(field))
}

/// Replaces registers, as one change.
///
/// The new values must be stamped after the old ones ([`super::Hlc::now_after`]) to count. The name is checked.
pub fn edit(
    document: &mut Document,
    patch: &FilePatch,
    actor: Actor,
    time_ms: i64,
) -> Result<NewChange, FileError> {
    if let Some(place) = &patch.place {
        check_name(&place.name)?;
    }
    if let Some(content) = &patch.content {
        let kind = first_of(&document.get_all_scalars(Kind::FIELD))?
            .ok_or(FileError::Missing(Kind::FIELD))?;
        check_content(kind, Some(content))?;
    }
    let fields: Vec<_> = [
        patch.place.as_ref().map(scalar),
        patch.content.as_ref().map(scalar),
        patch.trash.as_ref().map(scalar),
        patch.merged_into.as_ref().map(scalar),
        patch.times.as_ref().map(scalar),
    ]
    .into_iter()
    .flatten()
    .collect::<Result<_, _>>()?;
    if fields.is_empty() {
        return Err(FileError::EmptyPatch);
    }
    Ok(document.set_scalars(&fields, actor, time_ms)?)
}

/// Every content that the file ever had, in the order of the document's history, with the change that wrote it.
///
/// Contents that cannot be read (damaged, or of a later version) are left out.
pub fn contents(document: &Document) -> Result<Vec<(Revision, Content)>, FileError> {
    let mut found = Vec::new();
    for revision in document.history() {
        if revision.fields.iter().any(|field| field == Content::FIELD) {
            let values = document.get_all_scalars_at(Content::FIELD, &[revision.hash])?;
            if let Ok(Some(content)) = latest_of(&values) {
                found.push((revision, content));
            }
        }
    }
    Ok(found)
}

/// The file in the words of the `io.cozy.files` vocabulary, for search, HTTP and export. It cannot be read back.
///
/// `trashed` is what the file's own register says; whether it is shown below a deleted folder is the tree's to know.
pub fn to_json(state: &FileState) -> Value {
    let kind = match state.kind {
        Kind::File => "file",
        Kind::Folder => "directory",
        Kind::Symlink => "symlink",
    };
    let parent = if state.place.parent == FileId::ROOT {
        ROOT_NAME.to_owned()
    } else {
        state.place.parent.to_string()
    };
    let placed_ms = i64::try_from(state.place.stamp.ms()).unwrap_or(i64::MAX);
    let updated_ms = state
        .content
        .as_ref()
        .map_or(placed_ms, |content| content.mtime_ms);
    let mut fields = json!({
        "type": kind,
        "name": state.place.name,
        "dir_id": parent,
        "created_at": date::instant(state.created_ms),
        "updated_at": date::instant(updated_ms),
        "trashed": state.is_in_trash(),
    });
    if let Some(content) = &state.content {
        fields["size"] = json!(content.size);
        fields["executable"] = json!(content.executable);
        if let Some(target) = &content.target {
            fields["target"] = json!(target);
        }
    }
    if let Some(merged) = &state.merged_into {
        fields["merged_into"] = json!(merged.into.to_string());
    }
    fields
}

/// Whether a content can belong to what a document is.
fn check_content(kind: Kind, content: Option<&Content>) -> Result<(), FileError> {
    let fits = match (kind, content) {
        (Kind::Symlink, content) => content.is_some_and(|content| content.target.is_some()),
        (Kind::File, Some(content)) => content.target.is_none(),
        (Kind::Folder, Some(_)) => false,
        (Kind::File | Kind::Folder, None) => true,
    };
    if fits {
        Ok(())
    } else {
        Err(FileError::WrongContent(kind))
    }
}

/// Puts a file together from the values of its registers.
/// Contents that were written concurrently with the present one and lost against it.
pub fn rivals(document: &Document) -> Result<Vec<Content>, FileError> {
    let values = document.get_all_scalars(Content::FIELD);
    let winner = latest_of::<Content>(&values)?;
    let sound = sound_values::<Content>(&values)?;
    Ok(sound
        .into_iter()
        .map(|(content, _)| content)
        .filter(|content| Some(content) != winner.as_ref())
        .collect())
}

fn gather(values: impl Fn(&str) -> Vec<ScalarValue>) -> Result<FileState, FileError> {
    let kind = first_of(&values(Kind::FIELD))?.ok_or(FileError::Missing(Kind::FIELD))?;
    let CreatedAt(created_ms) =
        first_of(&values(CreatedAt::FIELD))?.ok_or(FileError::Missing(CreatedAt::FIELD))?;
    let place = latest_of(&values(Place::FIELD))?.ok_or(FileError::Missing(Place::FIELD))?;
    let mut content = latest_of::<Content>(&values(Content::FIELD))?;
    check_content(kind, content.as_ref())?;
    if let Some(content) = &mut content {
        times::set_in(&values(Times::FIELD), content);
    }
    let (trash, also_deleted) = deletions_of(&values(Trash::FIELD))?;
    let merged_into = latest_of(&values(MergedInto::FIELD))?;
    Ok(FileState {
        kind,
        created_ms,
        place,
        content,
        trash,
        also_deleted,
        merged_into,
    })
}

/// A register with a time: the later value counts.
pub(super) trait Stamped: Register {
    fn stamp(&self) -> (Stamp, Dot);
}

macro_rules! stamped {
    ($($register:ty),*) => {$(
        impl Stamped for $register {
            fn stamp(&self) -> (Stamp, Dot) {
                (self.stamp, self.dot)
            }
        }
    )*};
}
stamped!(Place, Content, Trash, MergedInto);

/// The value with the greatest (stamp, writer); entry number and bytes decide what should never have to be decided.
pub(super) fn latest_of<R: Stamped>(values: &[ScalarValue]) -> Result<Option<R>, RegisterError> {
    let sound = sound_values::<R>(values)?;
    Ok(sound
        .into_iter()
        .max_by(|(a, a_bytes), (b, b_bytes)| a.stamp().cmp(&b.stamp()).then(a_bytes.cmp(b_bytes)))
        .map(|(value, _)| value))
}

/// The latest value, and if that is a deletion, the others. Where several devices deleted at the same time, each had seen
/// something else, and all of that goes: else what one of them had seen and deleted would come back by the other's
/// deletion. They stay apart: one may have seen where a file is and another what is in it, and then nobody saw both.
fn deletions_of(values: &[ScalarValue]) -> Result<(Option<Trash>, Vec<Trash>), RegisterError> {
    let Some(latest) = latest_of::<Trash>(values)? else {
        return Ok((None, Vec::new()));
    };
    if latest.is_restored() || values.len() == 1 {
        return Ok((Some(latest), Vec::new()));
    }
    let mut sound = sound_values::<Trash>(values)?;
    sound.sort_by(|(a, a_bytes), (b, b_bytes)| {
        b.stamp().cmp(&a.stamp()).then_with(|| b_bytes.cmp(a_bytes))
    });
    let others = sound.into_iter().map(|(trash, _)| trash).skip(1);
    let deletions = others.filter(|trash| !trash.is_restored());
    Ok((Some(latest), deletions.take(MAX_DELETIONS - 1).collect()))
}

/// The least value, for what is written once.
fn first_of<R: Register + Ord>(values: &[ScalarValue]) -> Result<Option<R>, RegisterError> {
    Ok(sound_values::<R>(values)?
        .into_iter()
        .map(|(value, _)| value)
        .min())
}

/// All values that can be read. Fails if there are values and none of them is sound, or one is of a later version.
pub(super) fn sound_values<R: Register>(
    values: &[ScalarValue],
) -> Result<Vec<(R, &[u8])>, RegisterError> {
    let mut sound = Vec::with_capacity(values.len());
    let mut failure = None;
    for value in values {
        let ScalarValue::Bytes(bytes) = value else {
            failure = Some(RegisterError::Damaged(R::FIELD));
            continue;
        };
        match R::decode(bytes) {
            Ok(register) => sound.push((register, bytes.as_slice())),
            Err(newer @ RegisterError::Newer { .. }) => return Err(newer),
            Err(damaged) => failure = Some(damaged),
        }
    }
    match failure {
        Some(failure) if sound.is_empty() => Err(failure),
        _ => Ok(sound),
    }
}

/// A root field of the document.
pub(super) fn scalar<R: Register>(
    register: &R,
) -> Result<(&'static str, ScalarValue), RegisterError> {
    Ok((R::FIELD, ScalarValue::Bytes(register.encode()?)))
}
