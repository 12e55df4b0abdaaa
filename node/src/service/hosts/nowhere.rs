//! Earlier contents that a host lacks and this device does not have either.
//!
//! A file that was written anew where only one device had its bytes leaves a former content that is nowhere; history names
//! it still. Another device may have such a content all the same, and brings it then. So the host holds everything without
//! them, and they are brought once they are here after all.

use std::collections::BTreeMap;

use coffer_crdt::files::FileId;
use coffer_protocol::identity::Hash;

use super::gather::Scope;

/// Files with such contents, each with a blob of one that was neither there nor here.
#[derive(Clone, Debug, Default)]
pub struct Nowhere(BTreeMap<FileId, Hash>);

impl Nowhere {
    /// A pass over these files found these.
    pub fn found(&mut self, scope: &Scope, found: BTreeMap<FileId, Hash>) {
        match scope {
            Scope::All => self.0 = found,
            Scope::Files(files) => {
                for file in files {
                    self.0.remove(file);
                }
                self.0.extend(found);
            }
        }
    }

    /// How many files there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Files of which such a content may be here now, by whether a blob is; ascending.
    pub fn back<E>(
        &self,
        mut is_here: impl FnMut(&Hash) -> Result<bool, E>,
    ) -> Result<Vec<FileId>, E> {
        let mut back = Vec::new();
        for (file, blob) in &self.0 {
            if is_here(blob)? {
                back.push(*file);
            }
        }
        Ok(back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(numbers: &[u8]) -> BTreeMap<FileId, Hash> {
        let numbers = numbers.iter();
        numbers
            .map(|n| (FileId([*n; 16]), Hash([*n; 32])))
            .collect()
    }

    fn back(nowhere: &Nowhere, here: &[u8]) -> Vec<FileId> {
        let is_here = |blob: &Hash| Ok::<_, ()>(here.contains(&blob.0[0]));
        nowhere.back(is_here).unwrap()
    }

    #[test]
    fn each_pass_says_what_it_looked_at_anew() {
        let mut nowhere = Nowhere::default();
        nowhere.found(&Scope::All, found(&[1, 2, 3]));
        let some = Scope::Files(vec![FileId([2; 16]), FileId([4; 16])]);
        nowhere.found(&some, found(&[4]));
        assert_eq!(nowhere.0, found(&[1, 3, 4]));
        assert_eq!(nowhere.count(), 3);
        nowhere.found(&Scope::Files(Vec::new()), found(&[]));
        assert_eq!(nowhere.count(), 3);
        nowhere.found(&Scope::All, found(&[]));
        assert_eq!(nowhere.count(), 0);
    }

    #[test]
    fn what_is_here_again_is_told() {
        let mut nowhere = Nowhere::default();
        nowhere.found(&Scope::All, found(&[1, 2, 3]));
        assert_eq!(back(&nowhere, &[]), []);
        assert_eq!(back(&nowhere, &[2]), [FileId([2; 16])]);
    }
}
