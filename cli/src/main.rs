//! `coffer`: the command line. It reads arguments, talks to the running node over its socket (or runs the node, for
//! `coffer start`), and puts what comes back into words. It decides nothing about data; all of that is behind
//! `coffer_node`, where other fronts find it too.

mod amounts;
mod args;
mod background;
mod commands;
mod conversation;
mod error;
mod log;
mod output;
mod passphrase;
mod places;
mod qr;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind as ClapErrorKind;
use coffer_node::control::ControlError;

use args::{Cli, Context};
use error::Failure;

fn main() -> ExitCode {
    // Every command may come to have a passphrase, the words or a link in its memory.
    if let Err(error) = coffer_node::keep_memory_private() {
        eprintln!("other programs of this user may read the memory of this one: {error}");
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refuse_arguments(&error, &arguments)),
    };
    let json = cli.global.json;
    let result = Context::new(&cli.global).and_then(|context| commands::run(cli.command, &context));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Prints help, the version, or what is wrong with the arguments; gives the exit code.
fn refuse_arguments(error: &clap::Error, arguments: &[OsString]) -> u8 {
    let asked_for = matches!(
        error.kind(),
        ClapErrorKind::DisplayHelp
            | ClapErrorKind::DisplayVersion
            | ClapErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if !asked_for && arguments.iter().any(|argument| argument == "--json") {
        let failure = Failure::from(ControlError::usage(what_is_wrong(&error.to_string())));
        failure.report(true);
        return failure.exit_code();
    }
    let _ = error.print(); // a reader that has gone needs no help
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// What is wrong, as one line. It goes on to the first empty line: which arguments are missing stands below.
fn what_is_wrong(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_arguments_are_named() {
        let refused = |arguments: &[&str]| match Cli::try_parse_from(arguments) {
            Ok(_) => panic!("{arguments:?} were taken"),
            Err(error) => what_is_wrong(&error.to_string()),
        };
        assert_eq!(
            refused(&["coffer", "doc", "get"]),
            "the following required arguments were not provided: <DOCTYPE> <ID>..."
        );
        assert_eq!(
            refused(&["coffer", "bogus"]),
            "unrecognized subcommand 'bogus'"
        );
    }
}
