//! `coffer storage on-demand`.

use clap::Args;
use coffer_node::control::KeepAs;

use crate::args::Context;
use crate::error::Failure;

/// Keep only names and sizes on this device, and fetch contents when they are asked for
///
/// For devices with little room. `file get` fetches a content, and it stays until `storage limit` is exceeded; then what
/// was not asked for longest goes, but only if another device is known to keep it. What is here now stays as long as
/// there is room. Folders of this device that are kept in sync always have their contents.
#[derive(Debug, Args)]
#[command(
    name = "on-demand",
    after_help = "Examples:\n  coffer storage on-demand\n  coffer storage on-demand Media/Pictures"
)]
pub struct OnDemand {
    /// Folder of the vault; by default all of it
    #[arg(value_name = "VAULT_FOLDER", default_value = "")]
    pub folder: String,
}

impl OnDemand {
    /// Sets it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        super::set(context, &self.folder, KeepAs::OnDemand).await
    }
}
