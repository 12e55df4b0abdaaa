//! Brings contents into the store, as a piece of work for whoever wants them there: what has come is recorded group by
//! group, and durable before the vault is told.

use coffer_crdt::files::FileId;
use tokio::sync::mpsc;

use super::running::Running;
use crate::blobs::{Fetch, StoreJob, WriteError};
use crate::vault::{CommitError, CommitRequest};

/// Groups that came and are not recorded yet, at most: the transfer waits then.
const GROUPS: usize = 4;

/// A content to bring.
pub struct Wanted {
    /// The file whose present content it is, if it is one: it is held once it has come.
    pub file: Option<FileId>,
    /// The content; the key is chosen here.
    pub job: StoreJob,
}

/// What became of it.
#[derive(Default)]
pub struct Brought {
    /// Whether any file's content is held now that was brought.
    pub any_held: bool,
    /// Those that did not come, by their places in the list, and why.
    pub failed: Vec<(usize, WriteError)>,
    /// Why something that came could not be recorded.
    pub unrecorded: Option<CommitError>,
}

/// Brings these contents, as far as they can be had now.
pub async fn bring(running: &Running, wanted: &[Wanted], fetch: &Fetch) -> Brought {
    let jobs = (0..).zip(wanted).map(|(key, wanted)| StoreJob {
        key,
        ..wanted.job.clone()
    });
    let (done, mut groups) = mpsc::channel(GROUPS);
    let transfer = running.blobs.store_contents(jobs.collect(), fetch, done);
    let record = async {
        let mut brought = Brought::default();
        while let Some(group) = groups.recv().await {
            let mut request = CommitRequest {
                placements: group.shared.placements,
                chunks: group.shared.chunks,
                holds: group.hold.into_iter().collect(),
                ..Default::default()
            };
            for (key, result) in group.jobs {
                let at = key as usize;
                match result {
                    Ok(rows) => {
                        request.placements.extend(rows.placements);
                        request.chunks.extend(rows.chunks);
                        let Wanted { file, job } = &wanted[at];
                        request.held.extend(file.map(|file| (file, job.hash)));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a content was not fetched");
                        brought.failed.push((at, error));
                    }
                }
            }
            brought.any_held |= !request.held.is_empty();
            if let Err(error) = running.vault.commit(request).await {
                tracing::warn!(%error, "what was fetched could not be recorded");
                brought.unrecorded = Some(error);
            }
        }
        brought
    };
    let (transferred, brought) = tokio::join!(transfer, record);
    for (device, what) in transferred.misbehaved {
        tracing::warn!(%device, what, "a device sent wrong bytes");
    }
    brought
}
