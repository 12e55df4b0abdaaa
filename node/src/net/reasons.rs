//! Why a dial or a listener failed, in words that a person knows. The libraries' own words go to the log: they name
//! transports and addresses that nobody typed.

use std::io;

use libp2p::swarm::DialError;

use super::address::Place;

/// Why no connection came about.
pub(super) fn not_dialled(error: &DialError) -> String {
    tracing::debug!(%error, "a dial failed");
    match error {
        DialError::LocalPeerId { .. } => "that is this device itself".into(),
        DialError::WrongPeerId { .. } => "another device answers there".into(),
        DialError::NoAddresses => NO_ADDRESS.into(),
        DialError::Transport(tried) => {
            let said: Vec<String> = tried
                .iter()
                .map(|(_, error)| format!("{error:?} {error}").to_lowercase())
                .collect();
            of_texts(&said).into()
        }
        DialError::Aborted | DialError::Denied { .. } | DialError::DialPeerConditionFalse(_) => {
            ENDED.into()
        }
    }
}

/// There is nothing to dial.
pub(super) const NO_ADDRESS: &str = "no address is known at which it could be";
/// What is said of all that has no better name.
const ENDED: &str = "what answers there is no coffer, or it ended the connection";

/// The failure that says most, of several addresses. Transports wrap the system's errors in layers of their own kinds, so
/// that only their words are left.
fn of_texts(said: &[String]) -> &'static str {
    let any = |signs: &[&str]| {
        let has = |text: &String| signs.iter().any(|sign| text.contains(sign));
        said.iter().any(has)
    };
    if any(&["refused"]) {
        "the connection was refused, so no coffer is running there"
    } else if any(&["unreachable", "no route"]) {
        "there is no way into that network"
    } else if any(&["timed out", "timedout", "timeout"]) {
        "nobody answered in time"
    } else if any(&["multiaddrnotsupported", "multiaddr is not supported"]) {
        NO_ADDRESS
    } else {
        ENDED
    }
}

/// Why nothing listens at a place, as the system tells whoever asks plainly.
pub(super) fn not_listening(place: &Place, tried: Option<io::Error>) -> String {
    let (ip, port) = (place.ip, place.port);
    match tried {
        Some(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            format!("{ip} is no address of this device")
        }
        Some(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!("port {port} needs more rights than this program has")
        }
        Some(error) => format!("{ip}, port {port}: {error}"),
        None => format!("{ip}, port {port}, cannot be used"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_reason_wins() {
        for (said, expected) in [
            (
                &[
                    "handshake with the remote timed out",
                    "connection refused (os error 111)",
                ][..],
                "refused",
            ),
            (&["other(handshaketimedout)"], "in time"),
            (&["network is unreachable (os error 101)"], "no way"),
            (&["multiaddrnotsupported(/dns4/x)"], "no address"),
            (&["input error"], "no coffer"),
            (&[], "no coffer"),
        ] {
            let said: Vec<String> = said.iter().map(|text| (*text).to_owned()).collect();
            assert!(of_texts(&said).contains(expected), "{said:?}");
        }
    }

    #[test]
    fn no_reason_names_transports() {
        let place = Place {
            ip: [192, 0, 2, 1].into(),
            port: 7,
            transport: super::super::Transport::Quic,
        };
        let foreign = io::Error::from(io::ErrorKind::AddrNotAvailable);
        assert_eq!(
            not_listening(&place, Some(foreign)),
            "192.0.2.1 is no address of this device"
        );
        assert_eq!(
            not_listening(&place, None),
            "192.0.2.1, port 7, cannot be used"
        );
    }
}
