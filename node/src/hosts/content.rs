//! Contents by what they are made of.

use coffer_crdt::chunks::ChunkRoot;

/// Where its context is written down: docs/protocol/keys.md.
const CONTEXT: &str = "coffer 2026-11 content at a host";

/// A content as the sealed bytes that it is made of: two contents of the same bytes that were sealed under different
/// epochs are two of these. Never leaves the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey(pub [u8; 32]);

impl ContentKey {
    /// Of the content with this list of chunks.
    pub fn of(root: &ChunkRoot) -> ContentKey {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&[match root {
            ChunkRoot::Inline(_) => 0,
            ChunkRoot::Indirect { depth, .. } => *depth,
        }]);
        for chunk in &root.list().chunks {
            hasher.update(&chunk.blob);
        }
        ContentKey(*hasher.finalize().as_bytes())
    }
}
