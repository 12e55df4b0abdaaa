//! Where the node's log goes: to standard error in the foreground, to a file of bounded size in the background.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use coffer_node::relay::{LogFormat, LogLevel, RelayConfig};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Environment variable with a `tracing` filter, such as `debug` or `coffer_node=trace`.
pub const LOG_VARIABLE: &str = "COFFER_LOG";
/// What is logged without it: coffer's own story, and what goes wrong in the libraries. The blob store reports its
/// failures to coffer; its own log calls it an error that a content which was dropped comes back.
const DEFAULT_FILTER: &str = "warn,coffer=info,coffer_node=info,iroh_blobs::store::fs=off";
/// In a terminal a person wants to hear of trouble only.
const TERMINAL_FILTER: &str = "error,coffer=warn,coffer_node=warn,iroh_blobs::store::fs=off";
/// Size at which the file becomes `coffer.log.1`, replacing the one before: at most twice this on disk, weeks of story.
const MAX_LOG: u64 = 4 << 20;

/// `<data>/coffer.log`.
pub fn log_path(data_dir: &Path) -> PathBuf {
    data_dir.join("coffer.log")
}

/// Logs trouble to a terminal.
pub fn to_terminal() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter(TERMINAL_FILTER))
        .with_writer(io::stderr)
        .try_init();
}

/// Logs to standard error that nobody watches: a service manager's journal, a file.
pub fn to_stderr() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter(DEFAULT_FILTER))
        .with_ansi(false)
        .with_writer(io::stderr)
        .try_init();
}

/// Logs a host's story to standard error. Unless its person wants identities in it, nothing else is logged: the network
/// library names its peers.
pub fn of_host(config: &RelayConfig) {
    let level = match config.log_level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    let default = if config.log_identities {
        format!("warn,coffer={level},coffer_node={level}")
    } else {
        format!("off,coffer={level},coffer_node::relay={level}")
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(&default))
        .with_ansi(false)
        .with_writer(io::stderr);
    let _ = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

/// Logs to `<data>/coffer.log`. A log that cannot be written is no reason not to start.
pub fn to_file(data_dir: &Path) {
    let Ok(log) = BoundedLog::open(log_path(data_dir), MAX_LOG) else {
        return to_terminal();
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter(DEFAULT_FILTER))
        .with_ansi(false)
        .with_writer(log)
        .try_init();
}

/// The log file opened for appending, for the standard error of a process in the background.
pub fn open_for_append(data_dir: &Path) -> io::Result<File> {
    append(&log_path(data_dir))
}

fn filter(default: &str) -> EnvFilter {
    let given = std::env::var(LOG_VARIABLE)
        .ok()
        .filter(|given| !given.trim().is_empty());
    given
        .and_then(|given| EnvFilter::try_new(given).ok())
        .unwrap_or_else(|| EnvFilter::new(default))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// A log file that is moved aside when it has grown too large.
struct BoundedLog {
    path: PathBuf,
    max: u64,
    open: Mutex<(File, u64)>,
}

impl BoundedLog {
    fn open(path: PathBuf, max: u64) -> io::Result<BoundedLog> {
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(BoundedLog {
            path,
            max,
            open: Mutex::new((file, size)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, (File, u64)> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut open = self.lock();
        if open.1 > 0 && open.1 + bytes.len() as u64 > self.max {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *open = (append(&self.path)?, 0);
        }
        open.0.write_all(bytes)?;
        open.1 += bytes.len() as u64;
        Ok(())
    }
}

/// Writes one event; what cannot be written (a full disk) is lost, the node goes on.
struct Event<'a>(&'a BoundedLog);

impl Write for Event<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BoundedLog {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_within_twice_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coffer.log");
        let log = BoundedLog::open(path.clone(), 1000).unwrap();
        for n in 0..500 {
            log.write(format!("line {n:04}\n").as_bytes()).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= 1000);
        assert!(fs::metadata(dir.path().join("coffer.log.1")).unwrap().len() <= 1000);
        assert!(fs::read_to_string(&path).unwrap().ends_with("line 0499\n"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
