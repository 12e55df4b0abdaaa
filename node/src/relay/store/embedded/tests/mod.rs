//! The embedded store: the conformance suite, and what is particular to it.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;

use super::EmbeddedStore;
use crate::relay::store::conformance::{Bench, Store, conformance};

mod crash;
mod frozen;
mod repair;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(TempDir::new().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

#[async_trait]
impl Bench for Folder {
    async fn open(&self) -> Store {
        Arc::new(EmbeddedStore::open(self.path()).expect("a store"))
    }
}

conformance!(async { Folder::new() }, 48);
