//! `coffer versions set`.

use clap::Args;
use coffer_node::control::{ControlError, Limit, Request, RuleChange};

use crate::amounts::{seconds, seconds_or_never, size_or_none};
use crate::args::Context;
use crate::conversation::ask;
use crate::error::Failure;

/// Change how long earlier contents and the trash are kept, for the whole vault
///
/// Times are typed as 12h, 30d, 8w or 1y. Where that deletes what is in the trash now, it asks. The disk has room
/// again after a day, and once all devices know.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer versions set --all 2d --weekly 3y\n  \
    coffer versions set --trash never --trash-size 50GB\n  \
    coffer versions set --trash 7d --yes                      also if that deletes something now
    coffer versions set --defaults")]
pub struct Set {
    /// Every content, for this long after it was replaced
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub all: Option<u64>,
    /// One content an hour
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub hourly: Option<u64>,
    /// One content a day
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub daily: Option<u64>,
    /// One content a week
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub weekly: Option<u64>,
    /// What is in the trash, for this long after its deletion; never empties nothing by itself
    #[arg(long, value_name = "TIME|never", value_parser = seconds_or_never)]
    pub trash: Option<Limit>,
    /// Most that may be in the trash, such as 50GB; the oldest goes first
    #[arg(long, value_name = "SIZE|none", value_parser = size_or_none)]
    pub trash_size: Option<Limit>,
    /// Go back to the defaults; other options count on top of them
    #[arg(long)]
    pub defaults: bool,
}

impl Set {
    /// Changes the rule and prints it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let change = RuleChange {
            reset: self.defaults,
            all_s: self.all,
            hourly_s: self.hourly,
            daily_s: self.daily,
            weekly_s: self.weekly,
            trash_s: self.trash,
            trash_bytes: self.trash_size,
        };
        if change == RuleChange::default() {
            return Err(ControlError::usage("say what is to change, such as --all 2d").into());
        }
        super::print(
            context,
            &ask(context, &Request::VersionsSet { change }).await?,
        )
    }
}
