//! What this device notes for itself alone: addresses of others, synced folders, what their brakes hold.

use super::request::CommitRequest;
use super::work::Work;
use crate::store::folder_keys::{folder_key, keys_of_folder};
use crate::store::{StoreError, tables};

impl Work<'_, '_> {
    /// What the brakes of synced folders hold.
    pub(super) fn brakes(&mut self, request: &CommitRequest) -> Result<(), StoreError> {
        for (folder, id, held) in &request.folder_brakes {
            let key = folder_key(*folder, *id);
            match held {
                Some(held) => {
                    let bytes = postcard::to_stdvec(held).map_err(|_| {
                        StoreError::Damaged("a held file could not be encoded".into())
                    })?;
                    self.folder_brakes.insert(&key, &bytes[..])?;
                }
                None => drop(self.folder_brakes.remove(&key)?),
            }
        }
        Ok(())
    }

    /// This device's own records: addresses of others, synced folders.
    pub(super) fn settings(&mut self, request: &CommitRequest) -> Result<(), StoreError> {
        for (device, addresses) in &request.addresses {
            let bytes = postcard::to_stdvec(addresses)
                .map_err(|_| StoreError::Damaged("addresses could not be encoded".into()))?;
            self.addresses.insert(&device.0, &bytes[..])?;
            self.done.wrote = true;
        }
        if request.forget_recovery {
            self.meta.remove(tables::meta::RECOVERY)?;
            self.done.wrote = true;
        }
        for (name, value) in &request.meta {
            self.meta.insert(*name, &value[..])?;
            self.done.wrote = true;
        }
        if let Some(upto) = request.prune_feed {
            self.prune_feed(upto)?;
        }
        let state = &mut self.core.state;
        let states_away = state
            .own_held
            .as_ref()
            .is_some_and(|(own, _)| own.awaited > 0);
        for (number, is_away) in &request.folders_away {
            match is_away {
                true => state.restate |= state.away.insert(*number),
                false => state.restate |= state.away.remove(number) && states_away,
            }
        }
        for (number, setting) in &request.folders {
            self.core.state.away.remove(number);
            self.done.wrote = true;
            self.core.state.restate = true;
            match setting {
                Some(setting) => {
                    let bytes = postcard::to_stdvec(setting).map_err(|_| {
                        StoreError::Damaged("a folder setting could not be encoded".into())
                    })?;
                    self.folders.insert(number, &bytes[..])?;
                }
                None => {
                    self.folders.remove(number)?;
                    let (from, to) = keys_of_folder(*number);
                    self.folder_rows
                        .retain_in::<&[u8; 20], _>(&from..=&to, |_, _| false)?;
                    self.folder_brakes
                        .retain_in::<&[u8; 20], _>(&from..=&to, |_, _| false)?;
                }
            }
        }
        Ok(())
    }
}
