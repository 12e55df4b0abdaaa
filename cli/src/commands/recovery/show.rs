//! `coffer recovery show`: the 24 words, once, to a person only.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Answer, ControlError, Item, Question, Reply, Request};

use super::page;
use crate::args::Context;
use crate::conversation::{Listener, confirm, converse, prompt, unexpected};
use crate::error::Failure;
use crate::units::count;

/// Show the 24 words that bring your vault back when all your devices are lost, once
///
/// Note them down on paper. You will be asked to type three of them back; after that they are on no device any more,
/// and nobody can show them again. Works in a terminal only.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer recovery show\n  \
    coffer recovery show --page kit.html       a page to print")]
pub struct Show {
    /// Write the kit to a new file, as a page to print
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
}

/// Who is shown the words, and types some of them back.
#[derive(Default)]
pub(super) struct Person {
    /// Where to write the page to print.
    pub page: Option<PathBuf>,
    /// How often they were asked for.
    pub asked: u32,
}

/// The words are shown to a person at a terminal only.
pub(super) fn needs_terminal(context: &Context) -> Result<(), Failure> {
    if context.output.is_json() {
        return Err(
            ControlError::usage("the words are shown to a person only, not as JSON")
                .with_code("needs-terminal")
                .into(),
        );
    }
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(
            ControlError::usage("the words are shown in a terminal only")
                .with_code("needs-terminal")
                .into(),
        );
    }
    Ok(())
}

impl Show {
    /// Shows, asks, and says that it is done.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        needs_terminal(context)?;
        let mut person = Person {
            page: self.page,
            ..Person::default()
        };
        match converse(context, &Request::RecoveryShow, &mut person).await? {
            Reply::RecoveryConfirmed => context.output.line(
                "Right. The words are on no device now; keep the paper where you would keep a passport.",
            ),
            _ => Err(unexpected()),
        }
    }
}

impl Listener for Person {
    fn item(&mut self, item: Item) -> Result<(), Failure> {
        let out = crate::output::Output::new(false);
        match (item, &self.page) {
            (Item::RecoveryWords(words), _) => out.text(&shown_words(&words)),
            (Item::RecoveryKit(kit), Some(path)) => {
                page::write(path, &kit)?;
                out.text(&format!(
                    "The page is in {}. Whoever can read that file has your vault: print it, then delete it.\n",
                    path.display()
                ))
            }
            _ => Ok(()),
        }
    }

    fn question(&mut self, context: &Context, question: Question) -> Result<Answer, Failure> {
        let Question::RecoveryWords {
            positions,
            tries_left,
        } = &question
        else {
            return confirm(context, &question);
        };
        if self.asked > 0 {
            context.output.remark(wrong(*tries_left));
        }
        self.asked += 1;
        let mut words = Vec::new();
        for position in positions {
            words.push(prompt(&format!("Word {position}: "))?.trim().to_lowercase());
        }
        Ok(Answer::Words(words))
    }
}

/// What is said when other words are asked for, of which this many tries come after.
fn wrong(tries_left: u8) -> String {
    let last = match tries_left {
        0 => "this is the last try".to_owned(),
        more => format!("{} after this one", count(u64::from(more), "try", "tries")),
    };
    format!("That was not right: compare the paper with the words above ({last}).")
}

/// The words in numbered columns, to be read down.
fn shown_words(words: &[String]) -> String {
    const COLUMNS: usize = 3;
    let rows = words.len().div_ceil(COLUMNS);
    let mut text = String::from(
        "These words bring your vault back when all your devices are lost. Whoever has them has your vault.\n\n",
    );
    for row in 0..rows {
        let mut line = String::from(" ");
        for column in 0..COLUMNS {
            let at = column * rows + row;
            if let Some(word) = words.get(at) {
                line.push_str(&format!(" {:>2}. {word:<12}", at + 1));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str("\nNote them down on paper, in this order. Then type three of them back.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_word_is_told_with_what_is_left() {
        assert!(wrong(1).ends_with("(1 try after this one)."));
        assert!(wrong(0).ends_with("(this is the last try)."));
    }

    #[test]
    fn the_words_are_numbered_and_read_down() {
        let words: Vec<String> = (1..=24).map(|n| format!("word{n}")).collect();
        let page = shown_words(&words);
        let first = page.lines().nth(2).unwrap();
        assert_eq!(first, "   1. word1         9. word9        17. word17");
        assert_eq!(
            words
                .iter()
                .filter(|word| page.contains(word.as_str()))
                .count(),
            24
        );
    }
}
