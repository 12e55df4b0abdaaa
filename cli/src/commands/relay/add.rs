//! `coffer relay add`.

use std::path::Path;

use clap::Args;
use coffer_node::control::{ControlError, Reply, Request};

use crate::args::Context;
use crate::conversation::{ask, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::qr;
use crate::units::bytes;

/// What every invitation of a host begins with.
const SCHEME: &str = "coffer:relay/";

/// Let a host keep an encrypted copy of your vault
///
/// A host is always on: it takes what one of your devices has written and gives it to the others later, and connects
/// them when routers are in the way. It can read nothing. Whoever runs it makes the invitation, with `coffer relay
/// invite`. All your devices use it from then on; there can be several.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer relay add coffer:relay/1/...\n  \
    coffer relay add invitation.png\n  \
    coffer relay add invitation.png --name attic\n  \
    coffer relay add invitation.png --at relay.example.org:26333")]
pub struct Add {
    /// The invitation, or a picture of its QR code
    #[arg(value_name = "INVITATION|IMAGE")]
    pub invitation: String,
    /// What to call the host; by default what it was called here, or else what it calls itself
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where the host is reached, if not as the invitation says: a name or an address, with or without a port
    #[arg(long, value_name = "HOST[:PORT]")]
    pub at: Option<String>,
}

impl Add {
    /// Adds the host.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let invitation = understand(&self.invitation)?;
        let request = Request::HostAdd {
            invitation,
            name: self.name,
            at: self.at,
        };
        let reply = ask(context, &request).await?;
        let Reply::HostAdded { host } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.text(&format!(
            "The host \"{}\" keeps your vault from now on, up to {}. Your devices bring it what it lacks.\n\nNext:\n  {}\n",
            shown(&host.name),
            bytes(host.quota_bytes),
            context.command("status                says when it holds everything"),
        ))
    }
}

/// An invitation as text, or read from a picture.
fn understand(given: &str) -> Result<String, Failure> {
    if is_invitation(given) {
        return Ok(given.trim().to_owned());
    }
    let path = Path::new(given);
    if path.is_file() {
        return qr::read(path, is_invitation);
    }
    Err(
        ControlError::usage("this is neither an invitation of a host nor a picture of one")
            .with_code("not-a-host-invitation")
            .into(),
    )
}

fn is_invitation(text: &str) -> bool {
    text.trim()
        .get(..SCHEME.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(SCHEME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_of_a_host_is_not_one_to_a_vault() {
        assert_eq!(
            understand(" COFFER:RELAY/1/ABC\n"),
            Ok("COFFER:RELAY/1/ABC".to_owned())
        );
        for other in ["coffer:pair/1/ABC", "", "nowhere.png"] {
            assert!(understand(other).is_err(), "{other}");
        }
    }
}
