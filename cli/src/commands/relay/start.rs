//! `coffer relay start`: run the host in the foreground; a service manager keeps it in the background.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use coffer_node::relay::config::FILE_VARIABLE;
use coffer_node::relay::{HostOptions, HostReady, RelayConfig, folder};

use super::folder::{config_failure, data_dir};
use crate::args::Context;
use crate::commands::{no_runtime, start::told_to_end};
use crate::error::Failure;
use crate::log;

/// Threads of a host: hashing has its own, these only carry messages.
const MAX_WORKERS: usize = 16;
/// What ending may take beyond the configured time to drain.
const END_BEYOND_DRAIN: Duration = Duration::from_secs(5);

/// Run the host until it is ended
///
/// Once it serves it prints one line beginning `ready:`. Ctrl-C and SIGTERM end it: nothing new begins, what is under way
/// ends. A variable such as COFFER_RELAY_NETWORK_PORT overrides the value `port` of the section `network`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relay start\n  \
    coffer relay start --init              make the host first where there is none\n  \
    coffer relay start --config /etc/coffer-relay.toml\n  \
    COFFER_RELAY_LOG_FORMAT=json coffer relay start")]
pub struct Start {
    /// The configuration; by default relay.toml in the data folder
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE, hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Make the host first where there is none, as `coffer relay init` does
    #[arg(long)]
    pub init: bool,
}

impl Start {
    /// Runs the host.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let data_dir = data_dir(context)?;
        if self.init {
            folder::init(&data_dir)?;
        } else {
            // Says that there is no host before it says that there is no configuration.
            folder::identity(&data_dir)?;
        }
        let config = load(self.config.as_deref(), &data_dir)?;
        log::of_host(&config);
        coffer_node::service::bound_heaps();
        let workers = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .clamp(2, MAX_WORKERS);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .map_err(no_runtime)?;
        let end_within = config.drain + END_BEYOND_DRAIN;
        let options = HostOptions { data_dir, config };
        let result = runtime.block_on(async {
            let shutdown = told_to_end(end_within)?;
            coffer_node::relay::run(options, |ready| say_ready(context, &ready), shutdown)
                .await
                .map_err(Failure::from)
        });
        runtime.shutdown_background();
        result
    }
}

/// What the file and the environment say.
fn load(given: Option<&Path>, data_dir: &Path) -> Result<RelayConfig, Failure> {
    // Variables that are no text are none of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let file = match given {
        Some(file) => crate::places::absolute(file)?,
        None => RelayConfig::path_in(data_dir),
    };
    RelayConfig::load(&file, variables).map_err(|error| config_failure(&error))
}

/// The line that says that the host serves. A reader that has gone is no reason to end.
fn say_ready(context: &Context, ready: &HostReady) {
    let mut out = io::stdout().lock();
    let _ = if context.output.is_json() {
        writeln!(out, "{}", serde_json::json!({ "ready": ready }))
    } else {
        writeln!(
            out,
            "ready: {}, on {}; invite a vault with `{}`",
            ready.data_dir.display(),
            ready.addresses.first().map_or("no address", String::as_str),
            context.command("relay invite")
        )
    };
    let _ = out.flush();
}
