//! The data folder of a host: its key, its configuration, its store. 0700, one process at a time.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::config::{self, CONFIG_FILE};
use crate::control::{ControlError, DataLock, ErrorKind};
use crate::service::{random, store_error};
use crate::vault::identity::Identity;

/// Where a host that root runs keeps its data, as the systemd unit has it too.
pub const SYSTEM_FOLDER: &str = "/var/lib/coffer-relay";

/// What [`init`] found and made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Initialised {
    /// The data folder.
    pub data_dir: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// The host's id.
    pub host: String,
    /// Whether the key was made just now.
    pub created: bool,
}

/// Where a host keeps its data unless told otherwise.
pub fn default_data_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(SYSTEM_FOLDER.into());
    }
    directories::ProjectDirs::from("", "", "coffer-relay").map(|dirs| dirs.data_dir().to_owned())
}

/// Makes the data folder, the key and the documented configuration where they are not there. Changes nothing that is.
pub fn init(data_dir: &Path) -> Result<Initialised, ControlError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|error| ControlError::io(format_args!("create {}", data_dir.display()), &error))?;
    refuse_a_device(data_dir)?;
    let _lock = DataLock::acquire(data_dir)?;
    let (identity, created) = match Identity::load(data_dir).map_err(store_error)? {
        Some(identity) => (identity, false),
        None => {
            let identity = Identity::generate(&mut random());
            identity.save(data_dir).map_err(store_error)?;
            (identity, true)
        }
    };
    let config = data_dir.join(CONFIG_FILE);
    write_new(&config, &config::documented())
        .map_err(|error| ControlError::io(format_args!("write {}", config.display()), &error))?;
    Ok(Initialised {
        data_dir: data_dir.to_owned(),
        config,
        host: identity.key.id().to_string(),
        created,
    })
}

/// The host's keys. `NotFound` where [`init`] was not called.
pub fn identity(data_dir: &Path) -> Result<Identity, ControlError> {
    refuse_a_device(data_dir)?;
    Identity::load(data_dir)
        .map_err(store_error)?
        .ok_or_else(|| {
            ControlError::new(
                ErrorKind::NotFound,
                format!("there is no host in {}", data_dir.display()),
            )
            .with_code("no-host")
        })
}

/// A device's key must never serve as a host's: what it signs would be believed of a device.
fn refuse_a_device(data_dir: &Path) -> Result<(), ControlError> {
    if data_dir.join(crate::vault::founding::DATABASE).exists() {
        return Err(ControlError::conflict(format!(
            "{} is the data folder of a device",
            data_dir.display()
        ))
        .with_code("device-folder"));
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match opened {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_init_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("host");
        let first = init(&data).unwrap();
        assert!(first.created);
        fs::write(&first.config, "[network]\nport = 7\n").unwrap();
        let second = init(&data).unwrap();
        assert_eq!((second.created, second.host), (false, first.host.clone()));
        assert!(
            fs::read_to_string(&first.config)
                .unwrap()
                .contains("port = 7")
        );
        assert_eq!(identity(&data).unwrap().key.id().to_string(), first.host);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
        assert_eq!((mode(&data), mode(&first.config)), (0, 0));
    }

    #[test]
    fn the_folder_of_a_device_is_refused_and_so_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            identity(dir.path()).err().map(|error| error.kind),
            Some(ErrorKind::NotFound)
        );
        fs::write(dir.path().join(crate::vault::founding::DATABASE), b"").unwrap();
        assert_eq!(init(dir.path()).unwrap_err().kind, ErrorKind::Conflict);
        assert_eq!(
            identity(dir.path()).err().map(|error| error.kind),
            Some(ErrorKind::Conflict)
        );
    }
}
