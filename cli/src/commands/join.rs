//! `coffer join`: become a device of a vault that another device invited to.

use std::io::BufRead;
use std::path::Path;

use clap::Args;
use coffer_node::control::{Client, ControlError, ErrorKind, JoinWith, NewVault, Reply, Request};

use crate::args::Context;
use crate::background;
use crate::conversation::{Plain, converse_with, unexpected};
use crate::error::Failure;
use crate::output::shown;
use crate::qr;

/// What every link begins with.
const SCHEME: &str = "coffer:";
/// Longest link or code read from standard input, in bytes.
const MAX_LINK: u64 = 64 * 1024;

/// Join the vault of another device
///
/// Takes what `coffer pair` shows there: the link, a picture of the QR code, or the short code. The short code finds
/// the other device in the same local network; elsewhere say where it is with --at. Afterwards coffer runs on this
/// device, in the background, and fetches what the vault holds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    coffer join coffer:pair/1/...\n  \
    coffer join pairing.png\n  \
    coffer join CODE\n  \
    coffer join CODE --at 192.168.1.20:4100 --name desktop\n  \
    coffer join -                          read the link from standard input")]
pub struct Join {
    /// The link, a picture of the QR code, or the short code
    #[arg(value_name = "LINK|IMAGE|CODE", required = true, num_args = 1..)]
    pub with: Vec<String>,
    /// Where the other device is, may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub at: Vec<String>,
    /// What your other devices will call this one; by default the host name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

impl Join {
    /// Joins; a node started for it alone is ended again where that fails.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let with = understand(&self.with)?;
        let request = Request::Join {
            with,
            at: self.at,
            device_name: self.name,
        };
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
        let Reply::Joined { device, via, .. } = &reply else {
            return Err(unexpected());
        };
        if context.output.is_json() {
            return context.output.reply(&reply);
        }
        context.output.text(&format!(
            "This device, \"{}\", has joined the vault; \"{}\" let it in.\ncoffer is running and fetches what the vault holds.\n\nNext:\n  {}\n  {}\n",
            shown(&device.name),
            shown(&via.name),
            context.command("status"),
            context.command("folder add DIR       keep a folder of this device in sync"),
        ))
    }
}

/// Tells apart what may be given. Words are joined, so that a code may be typed with spaces.
fn understand(given: &[String]) -> Result<JoinWith, Failure> {
    if let [one] = given {
        if one == "-" {
            let line = first_line()?;
            return understand(&[line]);
        }
        if is_link(one) {
            return Ok(JoinWith::Link(one.trim().to_owned()));
        }
        let path = Path::new(one);
        if path.is_file() {
            return Ok(JoinWith::Link(qr::read(path, is_link)?));
        }
        // A word may be the name of a folder here and a code all the same.
        if looks_like_a_path(one) {
            let error = match path.metadata() {
                Ok(about) if about.is_dir() => {
                    ControlError::usage(format!("{} is a folder", path.display()))
                }
                Ok(_) => ControlError::usage(format!("{} is not a plain file", path.display())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    ControlError::not_found(format!("there is no file {}", path.display()))
                }
                Err(error) => ControlError::io(format_args!("read {}", path.display()), &error),
            };
            return Err(error.with_code("not-an-invitation").into());
        }
    }
    let code = given.join("-");
    if is_code(&code) {
        Ok(JoinWith::Code(code))
    } else {
        let message = "this is neither a link, nor a picture, nor a short code";
        Err(ControlError::new(ErrorKind::Damaged, message)
            .with_code("not-an-invitation")
            .into())
    }
}

fn is_link(text: &str) -> bool {
    text.trim()
        .get(..SCHEME.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(SCHEME))
}

/// The node knows the exact form of a code; this only keeps a mistyped path or link from being sent as one.
fn is_code(text: &str) -> bool {
    text.len() <= 40
        && text.chars().filter(char::is_ascii_alphanumeric).count() >= 4
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c.is_whitespace())
}

fn looks_like_a_path(text: &str) -> bool {
    let picture = [".png", ".jpg", ".jpeg"]
        .iter()
        .any(|ending| text.to_lowercase().ends_with(ending));
    picture || text.contains('/')
}

fn first_line() -> Result<String, Failure> {
    use std::io::Read;
    let mut line = String::new();
    std::io::BufReader::new(std::io::stdin().take(MAX_LINK))
        .read_line(&mut line)
        .map_err(|error| ControlError::io("read the link", &error))?;
    match line.trim() {
        "" | "-" => Err(ControlError::usage("there is no link on standard input").into()),
        text => Ok(text.to_owned()),
    }
}

/// As a person writes it, or as the invitation names it: with `/tcp` or `/quic` after it. Both are tried either way.
pub(super) fn host_and_port(text: &str) -> Result<String, String> {
    let text = ["/tcp", "/quic"]
        .iter()
        .find_map(|transport| text.strip_suffix(transport))
        .unwrap_or(text);
    let (host, port) = text.rsplit_once(':').ok_or("give it as HOST:PORT")?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err("give it as HOST:PORT, an IPv6 address as [ADDRESS]:PORT".to_owned());
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(text.to_owned()),
        _ => Err(format!("`{port}` is no port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_the_invitation_names_them() {
        for named in [
            "10.0.0.7:26333",
            "10.0.0.7:26333/tcp",
            "10.0.0.7:26333/quic",
        ] {
            assert_eq!(host_and_port(named), Ok("10.0.0.7:26333".to_owned()));
        }
        assert_eq!(
            host_and_port("[fe80::1]:9/quic"),
            Ok("[fe80::1]:9".to_owned())
        );
        assert!(host_and_port("10.0.0.7:26333/udp").is_err());
    }

    fn given(words: &[&str]) -> Result<JoinWith, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        understand(&words).map_err(|failure| match failure {
            Failure::Control(error) => error.message,
            Failure::ClosedPipe => String::new(),
        })
    }

    #[test]
    fn links_codes_and_pictures_are_told_apart() {
        let link = JoinWith::Link("COFFER:PAIR/1/ABC".into());
        assert!(given(&["COFFER:PAIR/1/ABC"]) == Ok(link.clone()));
        assert!(given(&[" COFFER:PAIR/1/ABC\n"]) == Ok(link));
        assert!(given(&["12-abcd-EFGH"]) == Ok(JoinWith::Code("12-abcd-EFGH".into())));
        assert!(given(&["12", "abcd", "EFGH"]) == Ok(JoinWith::Code("12-abcd-EFGH".into())));
        assert!(given(&["nowhere.png"]) == Err("there is no file nowhere.png".into()));
        assert!(given(&["/"]) == Err("/ is a folder".into()));
        assert!(given(&["/dev/null"]) == Err("/dev/null is not a plain file".into()));
        assert!(given(&["a/b"]) == Err("there is no file a/b".into()));
        for nonsense in ["", "x", "https:example", "ünïcödé"] {
            assert!(
                given(&[nonsense])
                    == Err("this is neither a link, nor a picture, nor a short code".into())
            );
        }
    }

    #[test]
    fn places_to_look_have_a_host_and_a_port() {
        for good in ["example.org:1", "192.0.2.1:65535", "[2001:db8::1]:4100"] {
            assert_eq!(host_and_port(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:70000",
            "2001:db8::1:4100",
        ] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
