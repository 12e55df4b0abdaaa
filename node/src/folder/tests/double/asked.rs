//! The vault in memory as the engine asks it.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLockReadGuard};

use coffer_crdt::files::{Content, Dot, FileId};
use coffer_crdt::tree::{Changed, Tree};
use tokio::sync::broadcast;

use super::super::super::FolderVault;
use super::{Doc, TestVault, rivals};
use crate::vault::request::{BrakedFile, CommitError, CommitRequest, Committed, FolderRow};

impl FolderVault for TestVault {
    async fn commit(&self, request: CommitRequest) -> Result<Committed, CommitError> {
        self.commit_now(request)
    }

    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap()
    }

    fn subscribe_tree(&self) -> broadcast::Receiver<Arc<Vec<Changed>>> {
        self.changes.subscribe()
    }

    fn folder_rows(&self, _folder: u32) -> Result<BTreeMap<FileId, FolderRow>, CommitError> {
        Ok(self.rows())
    }

    fn folder_brakes(&self, _folder: u32) -> Result<BTreeMap<FileId, BrakedFile>, CommitError> {
        Ok(self.inner().brakes.clone())
    }

    fn device_label(&self) -> String {
        self.label.clone()
    }

    fn device_label_of(&self, dot: &Dot) -> String {
        format!("device {}", dot.writer[0])
    }

    fn file_contents(&self, files: &[FileId]) -> Result<Vec<Option<Content>>, CommitError> {
        let inner = self.inner();
        Ok(files
            .iter()
            .map(|id| inner.docs.get(id).and_then(Doc::timed))
            .collect())
    }

    fn rival_contents(&self, file: FileId) -> Result<Vec<Content>, CommitError> {
        let inner = self.inner();
        let Some(doc) = inner.docs.get(&file) else {
            return Ok(Vec::new());
        };
        Ok(rivals(doc).cloned().collect())
    }

    fn past_content(&self, file: FileId, hash: &[u8; 32]) -> Result<Option<Content>, CommitError> {
        Ok(self.inner().docs.get(&file).and_then(|doc| {
            doc.contents
                .iter()
                .find(|content| content.hash == *hash)
                .cloned()
        }))
    }
}
