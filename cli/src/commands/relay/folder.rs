//! The data folder of the host that a command is about, and the conversation with it.

use std::path::PathBuf;

use coffer_node::control::{ControlError, ErrorKind};
use coffer_node::relay::control::{HostReply, HostRequest, ask};
use coffer_node::relay::{ConfigError, folder};

use crate::args::Context;
use crate::error::Failure;

/// What was named, else where hosts keep their data: a device's folder is none.
pub fn data_dir(context: &Context) -> Result<PathBuf, Failure> {
    if context.data_dir_given {
        return Ok(context.data_dir.clone());
    }
    folder::default_data_dir().ok_or_else(|| {
        ControlError::usage("there is no home folder to keep the host's data in")
            .with_code("no-data-folder")
            .into()
    })
}

/// Asks the running host.
pub async fn ask_host(context: &Context, request: &HostRequest) -> Result<HostReply, Failure> {
    Ok(ask(&data_dir(context)?, request).await?)
}

/// An answer to another question.
pub fn unexpected() -> Failure {
    ControlError::internal("the host answered another question").into()
}

/// A configuration that was refused, for a person.
pub fn config_failure(error: &ConfigError) -> Failure {
    let kind = match error {
        ConfigError::Unreadable { absent: true, .. } => ErrorKind::NotFound,
        ConfigError::Unreadable { .. } => ErrorKind::Io,
        _ => ErrorKind::Usage,
    };
    ControlError::new(kind, error.to_string())
        .with_code("host-config")
        .into()
}
