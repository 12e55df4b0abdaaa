//! `coffer init`: create the vault and stop there.

use clap::Args;
use coffer_node::control::{
    Client, ControlError, ErrorKind, NewVault, Options, Ready, Reply, Request,
};

use crate::args::Context;
use crate::background::create_data_dir;
use crate::conversation::{Plain, converse_with, unexpected};
use crate::error::Failure;
use crate::{log, units};

/// Create your vault on this device
///
/// Not needed before `coffer start`, which does the same on its first start. To use a vault that another device has
/// already, run `coffer join` instead.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer init\n  \
    coffer init --name laptop\n  \
    coffer init --data-dir /mnt/stick/vault")]
pub struct Init {
    /// What your other devices will call this one; by default the host name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

impl Init {
    /// Creates the vault: by a node that runs without one, else by a short start without network.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        super::one_thread(async {
            match Client::connect(&context.data_dir).await {
                Ok(client) => self.ask_running(client, context).await,
                Err(error) if error.kind == ErrorKind::NotRunning => self.create(context).await,
                Err(error) => Err(error.into()),
            }
        })
    }

    async fn ask_running(self, client: Client, context: &Context) -> Result<(), Failure> {
        let request = Request::Init {
            device_name: self.name,
        };
        let reply = converse_with(client, context, &request, &mut Plain).await?;
        let Reply::Created { vault, device } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        say_created(context, vault, &device.name)
    }

    async fn create(self, context: &Context) -> Result<(), Failure> {
        create_data_dir(&context.data_dir)?;
        log::to_terminal();
        let mut options = Options::new(context.data_dir.clone());
        options.new_vault = NewVault::Create;
        options.device_name = self.name;
        options.network = false;
        let (ended, end) = tokio::sync::oneshot::channel();
        let on_ready = move |ready: Ready| {
            let _ = ended.send(ready);
        };
        // The node ends as soon as it is ready: that it is, is all that was wanted.
        let (seen, mut ready) = tokio::sync::oneshot::channel();
        let shutdown = async move {
            if let Ok(ready) = end.await {
                let _ = seen.send(ready);
            }
        };
        coffer_node::service::run(options, on_ready, shutdown).await?;
        let ready = ready
            .try_recv()
            .map_err(|_| ControlError::internal("the vault was not opened"))?;
        let vault = ready.vault.as_deref().unwrap_or_default();
        if !ready.created {
            let message = format!("there is a vault in {} already", context.data_dir.display());
            return Err(ControlError::conflict(message)
                .with_code("vault-exists")
                .into());
        }
        if context.output.is_json() {
            return context.output.object(&serde_json::json!({
                "vault": vault, "device": { "name": ready.device_name }, "data_dir": ready.data_dir,
            }));
        }
        say_created(
            context,
            vault,
            ready.device_name.as_deref().unwrap_or_default(),
        )
    }
}

fn say_created(context: &Context, vault: &str, device: &str) -> Result<(), Failure> {
    context.output.text(&format!(
        "Created the vault {} in {}.\nThis device is called \"{}\".\n\nNext:\n  {}\n  {}\n",
        units::short(vault),
        context.data_dir.display(),
        crate::output::shown(device),
        context.command("recovery show     note down the 24 words that bring your vault back"),
        context.command("pair              add another device"),
    ))
}
