//! The arguments that every command takes, and the list of commands. Each command's own arguments stand beside it, in
//! `commands/`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use coffer_node::control::{ControlError, default_data_dir};

use crate::commands;
use crate::error::Failure;
use crate::output::Output;

/// Environment variable that names the data folder.
pub const DATA_DIR_VARIABLE: &str = "COFFER_DATA_DIR";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "coffer",
    version,
    about = "Your documents and files, on your own devices, in sync without a server",
    long_about = "Your documents and files, on your own devices, in sync without a server.\n\n\
        Without a command, `coffer` is `coffer start`: it creates your vault on the first start and keeps it in sync \
        until it is ended. Commands that work with the vault start coffer in the background if it is not running.",
    after_help = "Examples:\n  \
        coffer                                 start; creates the vault the first time\n  \
        coffer pair                            add a device: shows a QR code and a link\n  \
        coffer join LINK                       on the new device\n  \
        coffer folder add ~/Documents          keep a folder in sync\n  \
        coffer status                          what is in sync, and what is not yet\n\n\
        `coffer help exit-codes` lists the exit codes; `coffer completions` is for your shell.",
    disable_help_subcommand = false,
    propagate_version = true
)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do; `start` if absent.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of all commands.
#[derive(Debug, Args)]
pub struct Global {
    /// Folder where coffer keeps the vault
    ///
    /// By default the platform's folder for programs' data, on Linux ~/.local/share/coffer.
    #[arg(long, global = true, value_name = "DIR", env = DATA_DIR_VARIABLE, hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// Print JSON, for scripts
    ///
    /// Lists print one object a line, everything else one object. Errors are one object on standard error.
    #[arg(long, global = true)]
    pub json: bool,
    /// Answer all questions with yes
    #[arg(long, short, global = true)]
    pub yes: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(commands::init::Init),
    Start(commands::start::Start),
    Stop(commands::stop::Stop),
    Status(commands::status::Status),
    Pair(commands::pair::Pair),
    Join(commands::join::Join),
    Recover(commands::recover::Recover),
    Backup(commands::backup::Backup),
    /// The 24 words that bring your vault back
    #[command(subcommand)]
    Recovery(commands::recovery::Recovery),
    /// The devices of your vault
    #[command(subcommand)]
    Device(commands::device::Device),
    /// Hosts: always on, they keep an encrypted copy of your vault, and can read none of it
    #[command(subcommand)]
    Relay(commands::relay::Relay),
    Relock(commands::relock::Relock),
    // `coffer status` names it where it is needed.
    #[command(hide = true)]
    Erase(commands::erase::Erase),
    Lock(commands::lock::Lock),
    Unlock(commands::unlock::Unlock),
    /// The passphrase of this device
    #[command(subcommand)]
    Passphrase(commands::passphrase::PassphraseCommand),
    /// Documents: notes, contacts, bills, anything that is JSON
    #[command(subcommand)]
    Doc(commands::doc::Doc),
    /// Files in the vault
    #[command(subcommand)]
    File(commands::file::File),
    /// Folders of this device that are kept in sync with the vault
    #[command(subcommand)]
    Folder(commands::folder::Folder),
    /// What was deleted, and can still come back
    #[command(subcommand)]
    Trash(commands::trash::Trash),
    /// How long earlier contents of files are kept
    #[command(subcommand)]
    Versions(commands::versions::Versions),
    /// What this device keeps: everything, or some contents on demand
    #[command(subcommand)]
    Storage(commands::storage::Storage),
    /// How fast files go to and from other devices
    #[command(subcommand)]
    Limits(commands::limits::Limits),
    Pause(commands::pause::Pause),
    Resume(commands::resume::Resume),
    Check(commands::check::Check),
    Export(commands::export::Export),
    Events(commands::events::Events),
    /// Start coffer whenever you log in
    #[command(subcommand)]
    Service(commands::service::Service),
    #[command(hide = true)]
    Completions(commands::completions::Completions),
    #[command(hide = true)]
    ExitCodes(commands::exit_codes::ExitCodes),
}

/// What a command works with.
#[derive(Debug)]
pub struct Context {
    /// The data folder, absolute.
    pub data_dir: PathBuf,
    /// Whether it is another than the platform's, so that hints must name it.
    pub data_dir_given: bool,
    /// Questions are answered with yes.
    pub yes: bool,
    /// Where results go.
    pub output: Output,
}

impl Context {
    /// Resolves the options of all commands. `Usage` where no data folder is known.
    pub fn new(global: &Global) -> Result<Context, Failure> {
        let given = global
            .data_dir
            .as_deref()
            .filter(|dir| !dir.as_os_str().is_empty());
        let data_dir = match given {
            Some(dir) => crate::places::absolute(dir)?,
            None => default_data_dir().ok_or_else(|| {
                ControlError::usage("there is no home folder to keep the vault in")
                    .with_code("no-data-folder")
            })?,
        };
        Ok(Context {
            data_dir,
            data_dir_given: given.is_some(),
            yes: global.yes,
            output: Output::new(global.json),
        })
    }

    /// A command line for a hint or an example, naming the data folder where it must.
    pub fn command(&self, words: &str) -> String {
        if self.data_dir_given {
            format!(
                "coffer --data-dir {} {words}",
                crate::places::quoted(&self.data_dir)
            )
        } else {
            format!("coffer {words}")
        }
    }
}

#[cfg(test)]
mod tests;
