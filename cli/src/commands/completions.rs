//! `coffer completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::{Cli, Context};
use crate::error::Failure;

/// Print completions for your shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer completions bash > ~/.local/share/bash-completion/completions/coffer\n  \
    coffer completions zsh > ~/.zfunc/_coffer\n  \
    coffer completions fish > ~/.config/fish/completions/coffer.fish")]
pub struct Completions {
    /// Which shell
    pub shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let mut script = Vec::new(); // not straight to the output: the generator panics when that closes
        clap_complete::generate(self.shell, &mut Cli::command(), "coffer", &mut script);
        context.output.bytes(&script)
    }
}
