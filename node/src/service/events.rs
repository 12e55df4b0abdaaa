//! The stream of what changes, for scripts and pages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coffer_crdt::chunks::ChunkRoot;
use coffer_crdt::files::FileId;
use coffer_crdt::tree::Tree;
use coffer_protocol::identity::Hash;
use redb::ReadableDatabase;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::conflicts::Told;
use super::files::trash_path;
use super::running::Running;
use super::stopped;
use super::{Node, devices, folders, status, store_error};
use crate::blobs::Fetch;
use crate::control::{
    ControlError, ErrorKind, Event, FileEvent, FolderBrake, Item, Reply, Session,
};
use crate::folder::FolderState;
use crate::index;
use crate::net::NetEvent;
use crate::store::StoreError;
use crate::store::documents::{DocumentKey, read_document, read_row};
use crate::vault::purging::is_purged;
use crate::vault::{Changes, FILES, FileChange, FileNews};

/// `events`: until the client hangs up or the node stops.
pub async fn events(
    node: &Arc<Node>,
    doctype: Option<String>,
    values: bool,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let mut changes = running.vault.subscribe();
    let mut activity = running.vault.activity();
    let mut net = node.net().as_ref().map(crate::net::Net::events);
    let mut stop = running.stopping();
    let mut sync = None;
    let mut tree_changes = running.vault.subscribe_tree();
    let mut conflicts = Told::new(&running.vault.tree());
    let mut brakes = Brakes::default();
    brakes.news(&running);
    let mut members = running.vault.members();
    let mut known: BTreeSet<String> = devices::rows(&running)
        .await?
        .into_iter()
        .map(|row| row.id)
        .collect();
    session.item(Item::Event(Event::Listening)).await?;
    loop {
        let net_event = async {
            match &mut net {
                Some(events) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        brakes.follow(&running);
        tokio::select! {
            () = stopped(&mut stop) => return Err(ControlError::new(ErrorKind::Cancelled, "the program is stopping")),
            change = changes.recv() => match change {
                Ok(change) => {
                    for (found, id) in &change.documents {
                        if doctype.as_ref().is_none_or(|wanted| wanted == found) && found != FILES
                            && let Some(event) = document_event(&running, found, id, values, change.local).await?
                        {
                            session.item(Item::Event(event)).await?;
                        }
                    }
                    for event in file_events(&running, &change).await {
                        session.item(Item::Event(event)).await?;
                    }
                }
                Err(RecvError::Lagged(count)) => session.item(Item::Event(Event::Missed { count })).await?,
                Err(RecvError::Closed) => return Err(ControlError::new(ErrorKind::Cancelled, "the program is stopping")),
            },
            event = net_event => {
                let (device, connected) = match event {
                    Ok(NetEvent::Connected { device, .. }) => (device, true),
                    Ok(NetEvent::Disconnected { device }) => (device, false),
                    _ => continue,
                };
                if let Ok(row) = status::device_row(node, &running, coffer_protocol::identity::DeviceId(device)).await {
                    session.item(Item::Event(Event::Device { device: row.id, name: row.name, connected })).await?;
                }
            }
            changed = tree_changes.recv() => {
                let news = match changed {
                    Ok(changed) => conflicts.news(&running.vault.tree(), Some(&changed)),
                    Err(RecvError::Lagged(_)) => conflicts.news(&running.vault.tree(), None),
                    Err(RecvError::Closed) => return Err(ControlError::new(ErrorKind::Cancelled, "the program is stopping")),
                };
                for event in news {
                    session.item(Item::Event(event)).await?;
                }
            }
            Ok(()) = members.changed() => {
                for row in devices::rows(&running).await? {
                    if known.insert(row.id.clone()) {
                        session.item(Item::Event(Event::Membership(row))).await?;
                    }
                }
            }
            () = brakes.changed() => {
                for event in brakes.news(&running) {
                    session.item(Item::Event(event)).await?;
                }
            }
            _ = activity.changed() => {
                let now = status::sync_state(node, &running).await?;
                if sync != Some(now) {
                    sync = Some(now);
                    session.item(Item::Event(Event::Sync { idle: now.0, in_sync: now.1 })).await?;
                }
            }
        }
    }
}

/// The brakes of the synced folders, as a listener was told of them.
#[derive(Default)]
struct Brakes {
    states: BTreeMap<u32, watch::Receiver<FolderState>>,
    told: BTreeMap<u32, FolderBrake>,
}

impl Brakes {
    /// Follows folders that were added, and no longer those that were removed.
    fn follow(&mut self, running: &Running) {
        let now = running.folders.states();
        self.states.retain(|number, _| now.contains_key(number));
        for (number, mut state) in now {
            self.states.entry(number).or_insert_with(|| {
                state.mark_changed();
                state
            });
        }
    }

    /// Waits until a folder says something new.
    async fn changed(&mut self) {
        let changes = self.states.values_mut().map(|state| {
            Box::pin(async {
                if state.changed().await.is_err() {
                    // Its folder was removed; who follows hears of that elsewhere.
                    std::future::pending::<()>().await;
                }
            })
        });
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() {
            std::future::pending::<()>().await;
        }
        futures::future::select_all(changes).await;
    }

    fn news(&mut self, running: &Running) -> Vec<Event> {
        self.follow(running);
        let mut events = Vec::new();
        for (number, state) in &mut self.states {
            let state = state.borrow_and_update();
            let brake = state.brake.as_ref().map(folders::brake);
            if self.told.get(number) == brake.as_ref() {
                continue;
            }
            events.push(Event::Brake {
                dir: state.path.clone(),
                on: brake.is_some(),
                brake: brake.clone().unwrap_or_default(),
            });
            match brake {
                Some(brake) => drop(self.told.insert(*number, brake)),
                None => drop(self.told.remove(number)),
            }
        }
        events
    }
}

async fn document_event(
    running: &Arc<Running>,
    doctype: &str,
    id: &str,
    values: bool,
    made_here: bool,
) -> Result<Option<Event>, ControlError> {
    let database = running.vault.database().clone();
    let (doctype, id) = (doctype.to_string(), id.to_string());
    let read = move || -> Result<Option<Event>, StoreError> {
        let read = database.begin_read()?;
        let key = DocumentKey::new(&doctype, &id);
        let Some(row) = read_row(&read, key)? else {
            let gone = is_purged(&read, &doctype, &id)?;
            return Ok(gone.then_some(Event::Document {
                doctype,
                id,
                revision: String::new(),
                deleted: true,
                made_here,
                value: None,
            }));
        };
        let revision = match row.only_change().map(coffer_crdt::inspect) {
            Some(Ok(info)) => hex::encode(info.hash.0),
            _ => read_document(&read, key, &row)?
                .heads()
                .iter()
                .map(|head| hex::encode(head.0))
                .collect::<Vec<_>>()
                .join("+"),
        };
        let value = if values && !row.deleted {
            index::json(&read, key, &row)?
        } else {
            None
        };
        Ok(Some(Event::Document {
            doctype,
            id,
            revision,
            deleted: row.deleted,
            made_here,
            value,
        }))
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| ControlError::internal(error.to_string()))?
        .map_err(store_error)
}

async fn file_events(running: &Arc<Running>, change: &Changes) -> Vec<Event> {
    let mut events = Vec::new();
    for news in &change.file_events {
        let change_kind = match news.change {
            FileChange::Added => FileEvent::Added,
            FileChange::Changed => FileEvent::Changed,
            FileChange::Moved => FileEvent::Moved,
            FileChange::Deleted => FileEvent::Deleted,
            FileChange::Restored => FileEvent::Restored,
            FileChange::Noted => continue,
        };
        let path = path_of(&running.vault.tree(), news.id);
        if let Some(path) = path {
            events.push(Event::File {
                change: change_kind,
                path,
                id: news.id.to_string(),
                here: is_here(running, news).await,
                made_here: change.local,
            });
        }
    }
    let tree = running.vault.tree();
    let came = |id: &FileId| {
        Some(Event::File {
            change: FileEvent::Fetched,
            path: path_of(&tree, *id)?,
            id: id.to_string(),
            here: true,
            made_here: false,
        })
    };
    events.extend(change.arrived.iter().filter_map(came));
    events
}

/// Whether the content of a file that was touched is here. What is in the trash is not wanted, here or not; and what
/// comes out of it, with a long list of pieces, counts as wanted until somebody has looked: of both that is found out now.
async fn is_here(running: &Arc<Running>, news: &FileNews) -> bool {
    let content = running.vault.file(news.id).ok().flatten();
    let content = content.and_then(|file| file.content);
    let Some(content) = content.filter(|content| content.target.is_none()) else {
        return true;
    };
    let is_known = match news.change {
        FileChange::Deleted => false,
        FileChange::Restored => !news.wanted || matches!(content.root, ChunkRoot::Inline(_)),
        _ => true,
    };
    if is_known {
        return !news.wanted;
    }
    let Ok(pieces) = running.blobs.expand(&content.root, &Fetch::nobody()).await else {
        return false;
    };
    let pieces: BTreeSet<Hash> = pieces.iter().map(|piece| piece.blob).collect();
    let had = running.blobs.have(pieces.iter().copied().collect()).await;
    had.is_ok_and(|had| had.len() == pieces.len())
}

/// Where a file is, or was before it went to the trash.
fn path_of(tree: &Tree, id: FileId) -> Option<String> {
    let gone = || tree.shown(id).map(|_| trash_path(tree, id));
    tree.path(id).or_else(gone)
}
