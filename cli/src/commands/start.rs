//! `coffer start`: run the node, in the foreground or in the background.

use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use coffer_node::control::{
    DataLock, ErrorKind, NewVault, Options, Passphrase, Protection, Ready, leave_session,
};
use coffer_node::service::protection;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Context;
use crate::background::{self, Outcome, create_data_dir};
use crate::error::Failure;
use crate::output::is_interactive;
use crate::{log, passphrase};

/// Threads of a node: hashing and sealing have their own, these only carry messages.
const MAX_WORKERS: usize = 4;
/// A node that was told to end is gone after this, done or not: its store holds whatever was acknowledged at any moment.
const END_WITHIN: Duration = Duration::from_millis(4500);

/// Start coffer and keep the vault in sync until it is ended
///
/// This is what `coffer` without a command does. The first start creates the vault. Once it is ready it prints one line
/// beginning `ready:`. Ctrl-C, SIGTERM or `coffer stop` end it.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    coffer start\n  \
    coffer start --background\n  \
    coffer start --data-dir /tmp/second --port 0\n  \
    COFFER_LOG=debug coffer start          tell more on standard error")]
pub struct Start {
    /// Start in the background, and return once it is ready; the log goes to coffer.log in the data folder
    #[arg(long)]
    pub background: bool,
    /// What your other devices will call this one, where a vault is created; by default the host name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Port to listen on (TCP and UDP); 0 for any. When it is taken another one is picked
    #[arg(long)]
    pub port: Option<u16>,
    /// Address of this device to listen on, may be given several times; by default all
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Vec<IpAddr>,
    /// Do not look for devices on the local network; they are reached at the addresses that pairing told
    #[arg(long)]
    pub no_discovery: bool,
    /// Create no vault on the first start, to join another one
    #[arg(long)]
    pub without_vault: bool,
    /// Where this device has a passphrase, read it from the first line of a file, or of standard input (-)
    ///
    /// Without it coffer asks in a terminal, and elsewhere starts locked, until `coffer unlock`.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Set for the process that `--background` starts
    #[arg(long, hide = true)]
    pub detached: bool,
}

impl Start {
    /// Runs the node, or starts the process that does.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        if self.detached {
            return self.run_detached(context);
        }
        if self.background {
            return super::one_thread(self.start_background(context));
        }
        create_data_dir(&context.data_dir)?;
        if io::stderr().is_terminal() {
            log::to_terminal()
        } else {
            log::to_stderr()
        }
        self.run_node(context, |ready| say_ready(context, &ready))
    }

    async fn start_background(self, context: &Context) -> Result<(), Failure> {
        let new_vault = self.new_vault();
        let passphrase = self.passphrase(context)?;
        match background::start(context, &self, new_vault, passphrase).await? {
            Some(ready) => {
                say_ready(context, &ready);
                Ok(())
            }
            None => {
                let message = format!(
                    "coffer is running already on {}",
                    context.data_dir.display()
                );
                Err(
                    coffer_node::control::ControlError::new(ErrorKind::AlreadyRunning, message)
                        .into(),
                )
            }
        }
    }

    /// The process in the background: says how its start went in one line of JSON, for the command that waits.
    fn run_detached(self, context: &Context) -> Result<(), Failure> {
        leave_session();
        log::to_file(&context.data_dir);
        let result = self.run_node(context, |ready| say_outcome(&Outcome::Ready(ready)));
        if let Err(Failure::Control(error)) = &result {
            tracing::error!(kind = ?error.kind, "{error}");
            say_outcome(&Outcome::Error(error.clone()));
        }
        result
    }

    fn run_node(self, context: &Context, ready: impl FnOnce(Ready) + Send) -> Result<(), Failure> {
        let passphrase = self.passphrase(context)?;
        coffer_node::service::bound_heaps();
        let workers = std::thread::available_parallelism()
            .map_or(2, usize::from)
            .clamp(2, MAX_WORKERS);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()
            .map_err(super::no_runtime)?;
        let mut options = self.options(context);
        options.passphrase = passphrase;
        let result = runtime.block_on(async {
            let shutdown = told_to_end(END_WITHIN)?;
            coffer_node::service::run(options, ready, shutdown)
                .await
                .map_err(Failure::from)
        });
        runtime.shutdown_background();
        result
    }

    /// The passphrase to start with, where there is one and somebody to give it. Nothing that was typed: it starts locked.
    fn passphrase(&self, context: &Context) -> Result<Option<Passphrase>, Failure> {
        let dir = &context.data_dir;
        if protection(dir)? != Protection::Passphrase {
            return Ok(None);
        }
        if let Some(path) = &self.passphrase_file {
            return passphrase::read(path).map(Some);
        }
        // One that runs already, or that nobody sees, asks nobody.
        if self.detached || !is_interactive() || DataLock::holder(dir).is_some() {
            return Ok(None);
        }
        passphrase::ask_or_none("Passphrase of this device (nothing: stay locked): ")
    }

    fn new_vault(&self) -> NewVault {
        if self.without_vault {
            NewVault::Wait
        } else {
            NewVault::Create
        }
    }

    fn options(&self, context: &Context) -> Options {
        let mut options = Options::new(context.data_dir.clone());
        options.new_vault = self.new_vault();
        options.device_name.clone_from(&self.name);
        options.port = self.port;
        options.listen.clone_from(&self.listen);
        options.discover = !self.no_discovery;
        options
    }

    /// The options as arguments of the process in the background.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(name) = &self.name {
            arguments.push(format!("--name={name}"));
        }
        if let Some(port) = self.port {
            arguments.push(format!("--port={port}"));
        }
        arguments.extend(
            self.listen
                .iter()
                .map(|address| format!("--listen={address}")),
        );
        if self.no_discovery {
            arguments.push("--no-discovery".to_owned());
        }
        if self.without_vault {
            arguments.push("--without-vault".to_owned());
        }
        arguments
    }
}

/// Resolves on SIGINT and SIGTERM. A second signal, or an end that takes longer than `within`, ends the process at once.
pub fn told_to_end(within: Duration) -> Result<impl Future<Output = ()> + Send + use<>, Failure> {
    let failed =
        |error: io::Error| coffer_node::control::ControlError::io("listen to signals", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        tracing::info!("told to end");
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => std::process::exit(130),
                _ = terminate.recv() => std::process::exit(143),
            }
        });
        // A thread rather than a task: it must fire also when every task hangs.
        std::thread::spawn(move || {
            std::thread::sleep(within);
            tracing::warn!("ended before everything had");
            std::process::exit(0);
        });
    })
}

/// The line that says that coffer is ready, for people or as JSON. A reader that has gone is no reason to end.
fn say_ready(context: &Context, ready: &Ready) {
    let mut out = io::stdout().lock();
    let _ = if context.output.is_json() {
        writeln!(out, "{}", serde_json::json!({ "ready": ready }))
    } else {
        for note in &ready.notes {
            context.output.remark(note);
        }
        writeln!(out, "{}", ready_line(context, ready))
    };
    let _ = out.flush();
}

fn ready_line(context: &Context, ready: &Ready) -> String {
    let place = ready.data_dir.display();
    match &ready.vault {
        _ if ready.locked => format!(
            "ready: {place}, locked; unlock it with `{}`",
            context.command("unlock")
        ),
        None => format!(
            "ready: {place}, without a vault yet; join one with `{}`",
            context.command("join LINK")
        ),
        Some(_) if ready.created => {
            format!(
                "ready: {place}, with a new vault; add a device with `{}`",
                context.command("pair")
            )
        }
        Some(_) => format!(
            "ready: {place}; add a device with `{}`",
            context.command("pair")
        ),
    }
}

fn say_outcome(outcome: &Outcome) {
    if let Ok(line) = serde_json::to_string(outcome) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}
