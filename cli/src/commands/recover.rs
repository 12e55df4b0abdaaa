//! `coffer recover`: a vault comes back with the 24 words.

use std::path::PathBuf;

use clap::Args;
use coffer_node::control::{Client, ErrorKind, NewVault, Reply, Request};

use super::recovery::read_kit;
use crate::args::Context;
use crate::background;
use crate::conversation::{Plain, converse_with, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::places::absolute;

/// Get your vault back with the recovery kit
///
/// Takes the QR code of the kit, as a picture or as the text that it holds, or asks for the 24 words. Any device of
/// the vault that is left, any of its hosts, or a backup is enough. This device becomes one of the vault, which gets a new
/// lock. Devices that were lost are still in it: put them out with `coffer device revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer recover                            asks for the 24 words\n  \
    coffer recover kit.png\n  \
    coffer recover --at 192.168.1.20:4100     from a device that is left\n  \
    coffer recover --backup /media/stick/b    from a folder that `coffer backup` made\n  \
    coffer recover - < kit.txt                reads the text of the QR code")]
pub struct Recover {
    /// A picture of the kit's QR code, or a file with its text; `-` reads the text from standard input
    #[arg(value_name = "FILE")]
    pub kit: Option<PathBuf>,
    /// Where a device or host of the vault is, may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = super::join::host_and_port)]
    pub at: Vec<String>,
    /// Take everything from this backup. Devices and hosts that are left, if there are any, are told of this device;
    /// ended before it was done, the same command goes on
    #[arg(long, value_name = "FOLDER")]
    pub backup: Option<PathBuf>,
    /// What your other devices will call this one; by default the host name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

impl Recover {
    /// Recovers; a node started for it alone is ended again where that fails.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = Request::Recover {
            with: read_kit(self.kit.as_deref())?,
            at: self.at,
            device_name: self.name,
            backup: self.backup.as_deref().map(absolute).transpose()?,
        };
        let from_backup = self.backup.is_some();
        let (client, started) = match Client::connect(&context.data_dir).await {
            Ok(client) => (client, false),
            Err(error) if error.kind == ErrorKind::NotRunning => {
                let started = background::start(context, &Default::default(), NewVault::Wait, None)
                    .await?
                    .is_some();
                (Client::connect(&context.data_dir).await?, started)
            }
            Err(error) => return Err(error.into()),
        };
        let reply = converse_with(client, context, &request, &mut Plain).await;
        if reply.is_err() && started {
            let _ = background::stop(&context.data_dir).await;
        }
        let reply = reply?;
        let Reply::Recovered {
            device, confirmed, ..
        } = &reply
        else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        let fresh = if *confirmed {
            ""
        } else if from_backup {
            "What came later than the backup is not here, unless another device has it.\n"
        } else {
            "Only one host could be asked; until a second one or a device agrees, it is not known that this is all that is newest.\n"
        };
        context.output.text(&format!(
            "This device, \"{}\", is in your vault again.\n{fresh}coffer is running and fetches what the vault holds.\n\nNext:\n  {}\n  {}\n  {}\n",
            shown(&device.name),
            context.command("status"),
            context.command("device revoke NAME   put out each device that is lost"),
            context.command("recovery renew       if the paper may have been seen"),
        ))
    }
}
