//! One file per command, one folder per noun. Each holds its arguments and what it does with them.

pub mod backup;
pub mod check;
pub mod completions;
pub mod device;
pub mod doc;
pub mod erase;
pub mod events;
pub mod exit_codes;
pub mod export;
pub mod file;
pub mod folder;
pub mod init;
pub mod join;
pub mod limits;
pub mod lock;
pub mod pair;
pub mod passphrase;
pub mod pause;
pub mod recover;
pub mod recovery;
pub mod relay;
pub mod relock;
pub mod resume;
pub mod service;
pub mod start;
pub mod status;
pub mod stop;
pub mod storage;
pub mod trash;
pub mod unlock;
pub mod versions;

use std::future::Future;

use coffer_node::control::{ControlError, Skipped};

use crate::args::{Command, Context};
use crate::error::Failure;
use crate::output::shown;

/// Runs the command that was typed.
pub fn run(command: Option<Command>, context: &Context) -> Result<(), Failure> {
    match command.unwrap_or_else(|| Command::Start(start::Start::default())) {
        Command::Init(args) => args.run(context),
        Command::Start(args) => args.run(context),
        Command::Stop(args) => one_thread(args.run(context)),
        Command::Status(args) => one_thread(args.run(context)),
        Command::Pair(args) => one_thread(args.run(context)),
        Command::Join(args) => one_thread(args.run(context)),
        Command::Recover(args) => one_thread(args.run(context)),
        Command::Backup(args) => one_thread(args.run(context)),
        Command::Recovery(args) => one_thread(args.run(context)),
        Command::Device(args) => one_thread(args.run(context)),
        Command::Lock(args) => one_thread(args.run(context)),
        Command::Unlock(args) => one_thread(args.run(context)),
        Command::Passphrase(args) => one_thread(args.run(context)),
        Command::Relock(args) => one_thread(args.run(context)),
        Command::Erase(args) => one_thread(args.run(context)),
        Command::Doc(args) => one_thread(args.run(context)),
        Command::File(args) => one_thread(args.run(context)),
        Command::Folder(args) => one_thread(args.run(context)),
        Command::Trash(args) => one_thread(args.run(context)),
        Command::Versions(args) => one_thread(args.run(context)),
        Command::Limits(args) => one_thread(args.run(context)),
        Command::Pause(args) => one_thread(args.run(context)),
        Command::Resume(args) => one_thread(args.run(context)),
        Command::Check(args) => one_thread(args.run(context)),
        Command::Storage(args) => one_thread(args.run(context)),
        Command::Export(args) => one_thread(args.run(context)),
        Command::Events(args) => one_thread(args.run(context)),
        Command::Relay(args) => args.run(context),
        Command::Service(args) => args.run(context),
        Command::Completions(args) => args.run(context),
        Command::ExitCodes(args) => args.run(context),
    }
}

/// Runs a command that only talks: one thread does, and starts quickest.
pub(crate) fn one_thread(
    command: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no_runtime)?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

/// The failure to start a runtime: no file descriptors or memory left.
pub fn no_runtime(error: std::io::Error) -> Failure {
    ControlError::io("begin to work", &error).into()
}

/// Tells what was left out of a larger work, on standard error.
fn report_skipped(context: &Context, skipped: &[Skipped]) {
    for Skipped { path, reason } in skipped {
        context
            .output
            .remark(format_args!("left out: {}: {}", shown(path), shown(reason)));
    }
}
