//! What a request may fail with, sorted by what a person could do about it.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// A failed request. The message says what was tried and on what; it gives no advice (the command line does).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlError {
    /// What kind of failure, which decides the exit code.
    pub kind: ErrorKind,
    /// One sentence without a full stop, in words a person knows.
    pub message: String,
    /// A short name for the exact case where scripts or hints care, such as `invitation-used`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request makes no sense as given: a bad name, an id that is none, JSON that is no object.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// It exists already, or its present state does not allow this.
    Conflict,
    /// A person or a rule said no: a device not admitted, a wrong code, a question answered with no.
    Refused,
    /// Something needed is not within reach now: no other device connected, a content that is elsewhere.
    Unavailable,
    /// An invitation or a code has had its time, or was used.
    Expired,
    /// It took too long.
    TimedOut,
    /// Another node works on this data folder.
    AlreadyRunning,
    /// No node works on this data folder.
    NotRunning,
    /// This data folder belongs to no vault yet.
    NoVault,
    /// This device is locked: its keys are sealed.
    Locked,
    /// Reading or writing failed.
    Io,
    /// No space left.
    DiskFull,
    /// The operating system does not allow it.
    Permission,
    /// Bytes that are not what they should be: a damaged link, a file that fails its check.
    Damaged,
    /// Made by a newer version of coffer.
    NewerVersion,
    /// The person, or the end of the node, stopped it.
    Cancelled,
    /// A defect of coffer.
    Internal,
}

impl ControlError {
    /// An error with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ControlError {
            kind,
            message: message.into(),
            code: None,
        }
    }

    /// The same with a short name for the exact case.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An error of the operating system while doing `what` ("write /home/a/b"), sorted by its kind.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::Permission
            }
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("cannot {what}: {error}"))
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ControlError {}
