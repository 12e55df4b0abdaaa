//! `/coffer/presence/1`: is the other end alive, and where does each side listen?
//!
//! The opener sends one message, the other side answers with one. A message is a list of addresses as text, one a line,
//! empty for devices that are not known: strangers learn nothing of our networks, and hosts no more than they see anyway. Any answer proves the connection alive.
//! Its first line is `instance/` and 16 hexadecimal digits: which run of a node this is (see [`super::turns`]).

use std::{collections::BTreeSet, io};

use futures::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::{Multiaddr, StreamProtocol};

use super::{
    address::{MAX_ADDRESSES, is_tellable},
    framing::{FrameError, read_frame, write_frame},
    roster::{Connection, Roster},
    turns::Instance,
};

/// Name of the protocol.
pub(super) const PRESENCE: StreamProtocol = StreamProtocol::new("/coffer/presence/1");

/// Longest message, in bytes: [`MAX_ADDRESSES`] of the longest kind we keep take under 1 KiB.
pub(super) const MAX_MESSAGE: usize = 4 * 1024;

/// What to tell the other end of this connection.
pub(super) fn own_message(roster: &Roster, connection: &Connection) -> Vec<u8> {
    if !roster.is_known(&connection.device) || roster.is_relay(&connection.device) {
        return Vec::new();
    }
    let same_machine = connection.is_loopback();
    let external = roster.external();
    let tellable = roster
        .listening()
        .into_iter()
        .chain(external)
        .filter(|address| is_tellable(address, same_machine));
    let mut lines = vec![format!("{INSTANCE}{:016x}", roster.instance().0)];
    let tellable = tellable.take(MAX_ADDRESSES);
    lines.extend(tellable.map(|address| address.to_string()));
    lines.join("\n").into_bytes()
}

/// What an instance's line begins with.
const INSTANCE: &str = "instance/";

/// What the other end said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Where it listens.
    pub addresses: Vec<Multiaddr>,
    /// Which run of its node it is.
    pub instance: Option<Instance>,
}

/// Reads a message. Lines that are no addresses are skipped: a newer version may know kinds that this one does not.
pub(super) fn parse(message: &[u8]) -> Told {
    let Ok(text) = std::str::from_utf8(message) else {
        return Told::default();
    };
    let lines = || text.lines().take(MAX_ADDRESSES + 1);
    let parsed: BTreeSet<Multiaddr> = lines()
        .filter_map(|line| line.parse().ok())
        .take(MAX_ADDRESSES)
        .collect();
    let instance = lines().find_map(|line| {
        let digits = line.strip_prefix(INSTANCE)?;
        Some(Instance(u64::from_str_radix(digits, 16).ok()?))
    });
    Told {
        addresses: parsed.into_iter().collect(),
        instance,
    }
}

/// The opener's part.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    own: &[u8],
) -> io::Result<Told> {
    write_frame(&mut stream, own, MAX_MESSAGE)
        .await
        .map_err(as_io)?;
    stream.flush().await?;
    let told = read(&mut stream).await?;
    stream.close().await?;
    Ok(told)
}

/// The answerer's part.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    own: &[u8],
) -> io::Result<Told> {
    let told = read(&mut stream).await?;
    write_frame(&mut stream, own, MAX_MESSAGE)
        .await
        .map_err(as_io)?;
    stream.close().await?;
    Ok(told)
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Told> {
    let mut message = Vec::new();
    match read_frame(stream, &mut message, MAX_MESSAGE)
        .await
        .map_err(as_io)?
    {
        true => Ok(parse(&message)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn as_io(error: FrameError) -> io::Error {
    match error {
        FrameError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frozen_message() {
        let message =
            b"instance/00000000000000ff\n/ip4/192.168.1.2/tcp/26333\n/ip4/192.168.1.2/udp/26333/quic-v1\nsomething newer";
        let told = parse(message);
        assert_eq!(told.instance, Some(Instance(255)));
        let addresses: Vec<_> = told.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            [
                "/ip4/192.168.1.2/tcp/26333",
                "/ip4/192.168.1.2/udp/26333/quic-v1"
            ]
        );
    }

    proptest! {
        #[test]
        fn any_message_is_read_within_bounds(message in proptest::collection::vec(any::<u8>(), 0..MAX_MESSAGE)) {
            prop_assert!(parse(&message).addresses.len() <= MAX_ADDRESSES);
        }
    }
}
