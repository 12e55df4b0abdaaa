//! `coffer folder ignored`.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{IgnoreRule, IgnoredRow, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::absolute;

/// Say whether a file in a synced folder is ignored, and why
///
/// What to ignore is said in files called .cofferignore, at the top of a synced folder or in any folder in it. They are
/// written like .gitignore files, and sync like any other file. Temporary files of editors and systems are ignored
/// without being named; a line such as `!*.tmp` brings them back. Ignoring a file that is in the vault already deletes
/// it nowhere.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer folder ignored ~/Documents/report.tmp\n  \
    coffer folder ignored ~/Documents/build/ --json")]
pub struct Ignored {
    /// File or folder of this device; need not be there (with a slash at its end it is taken for a folder then)
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

impl Ignored {
    /// Asks, and says it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let is_folder = self.path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let path: PathBuf = absolute(&self.path)?.components().collect();
        let reply = ask(context, &Request::FolderIgnored { path, is_folder }).await?;
        let Reply::FolderIgnored(row) = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.text(&sentence(row))
    }
}

fn sentence(row: &IgnoredRow) -> String {
    let path = shown(&row.path);
    if row.path.is_empty() {
        let dir = row.dir.display().to_string();
        return format!(
            "{} is the synced folder itself, which no rule can name.\n",
            shown(&dir)
        );
    }
    let mut text = match (&row.rule, row.ignored) {
        (None, true) => format!("{path} is never synced: it belongs to coffer.\n"),
        (None, false) => format!("{path} is not ignored: no rule names it.\n"),
        (Some(rule), true) => format!("{path} is ignored by {}.\n", described(row, rule)),
        (Some(rule), false) => format!(
            "{path} is not ignored, thanks to {}.\n",
            described(row, rule)
        ),
    };
    if row.ignored && row.in_vault {
        text.push_str(
            "The vault has it all the same, and keeps it; changes made here stay here.\n",
        );
    }
    text
}

fn described(row: &IgnoredRow, rule: &IgnoreRule) -> String {
    let pattern = shown(&rule.pattern);
    let mut text = match (&rule.file, rule.line) {
        (Some(file), Some(line)) => format!("\"{pattern}\" in {}, line {line}", shown(file)),
        (Some(file), None) => format!("\"{pattern}\" in {}", shown(file)),
        (None, _) => format!("the rule \"{pattern}\" that coffer brings along"),
    };
    if rule.matches != row.path {
        text.push_str(&format!(
            ", which names the folder {}",
            shown(&rule.matches)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_named_with_its_place() {
        let mut row = IgnoredRow {
            path: "build/a.o".into(),
            dir: "/d".into(),
            ignored: true,
            rule: Some(IgnoreRule {
                file: Some(".cofferignore".into()),
                line: Some(3),
                pattern: "build/".into(),
                matches: "build".into(),
            }),
            in_vault: true,
        };
        assert_eq!(
            sentence(&row),
            "build/a.o is ignored by \"build/\" in .cofferignore, line 3, which names the folder build.\n\
             The vault has it all the same, and keeps it; changes made here stay here.\n"
        );
        (row.ignored, row.rule, row.in_vault) = (false, None, false);
        assert_eq!(
            sentence(&row),
            "build/a.o is not ignored: no rule names it.\n"
        );
        row.path.clear();
        assert_eq!(
            sentence(&row),
            "/d is the synced folder itself, which no rule can name.\n"
        );
        (row.path, row.ignored) = (".vault/kept".into(), true);
        assert_eq!(
            sentence(&row),
            ".vault/kept is never synced: it belongs to coffer.\n"
        );
    }
}
