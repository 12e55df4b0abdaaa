//! Every bound of the network in one place, with the reason for its number.

use std::time::Duration;

/// UDP and TCP port that is tried first: below the ranges from which systems hand out ports to clients, and assigned to
/// nobody. On a telephone's keys it begins like "coffee".
pub const DEFAULT_PORT: u16 = 26333;

/// How many ports from the wanted one upwards are tried before any free one will do: neighbours keep the addresses that
/// others remember stable when two people share a machine.
pub(super) const PORTS_TRIED: u16 = 16;

/// How long [`super::Net::open`] waits for everything together: a connection, a free slot and the other side's answer.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an accepted stream waits for room in the queue of its protocol before it is refused as busy: longer than a
/// hiccup of the reader (a commit takes milliseconds), much shorter than [`OPEN_TIMEOUT`], so that the answer arrives.
pub(super) const QUEUE_PATIENCE: Duration = Duration::from_secs(1);

/// Outbound streams open on one connection at a time; further `open` calls wait. Yamux lets 256 be unacknowledged and
/// breaks a connection that exceeds its total, so this stays below both.
pub(super) const OUTBOUND_STREAMS: usize = 256;

/// What the multiplexers allow in both directions together: both sides' [`OUTBOUND_STREAMS`], and as many again for
/// streams that one side has dropped and the other has not yet.
pub(super) const MUXER_STREAMS: usize = 4 * OUTBOUND_STREAMS;

/// Inbound streams of one connection that may be in negotiation (or wait for their queue); more wait in the multiplexer.
pub(super) const NEGOTIATING_STREAMS: usize = 128;

/// Connections that may be in their handshake, in each direction: what a reconnecting household needs many times over,
/// and a flood of half-open handshakes costs at most this many buffers.
pub(super) const PENDING_CONNECTIONS: u32 = 64;

/// Connections with one device: two transports, dialled by both sides at once, plus as many that died unnoticed.
pub(super) const CONNECTIONS_PER_DEVICE: u32 = 8;

/// Inbound connections from devices that are not wanted. Pairing needs one.
pub(super) const STRANGERS: usize = 16;

/// A connection to a device that is not wanted ends this long after its last stream: time for a person to type a code.
pub(super) const STRANGER_IDLE: Duration = Duration::from_secs(20);

/// A surplus connection ends this long after its last stream, so that a stream in flight settles first.
pub(super) const SURPLUS_IDLE: Duration = Duration::from_secs(2);

/// A connection this much younger than another replaces it: its device would not have dialled if the old one had been
/// alive at its end. Simultaneous dials are closer together than this.
pub(super) const REPLACED_AFTER: Duration = Duration::from_secs(5);

/// A silent connection is checked this often. Not below 15 s, or an idle laptop never sleeps.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A connection that does not answer a check in this time is dead.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The same, when there is a reason for doubt: a second connection from the same device, or a change of the network.
pub(super) const DOUBT_TIMEOUT: Duration = Duration::from_secs(4);

/// Time for a dial with its handshakes. Addresses are dialled in parallel, so a black hole delays only the backoff.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses of one device dialled at once.
pub(super) const DIAL_CONCURRENCY: u8 = super::address::MAX_ADDRESSES as u8;

/// A host and whether we can be reached from there: candidates are tried this often while there is something to try, which
/// is within this long after the last news.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// See [`PROBE_INTERVAL`]: two probes of 10 s each.
pub(super) const PROBE_ATTENTION: Duration = Duration::from_secs(30);

/// Where hosts say that we can be reached: addresses kept of it, fewer than fill a message of identify.
pub(super) const EXTERNAL: usize = 16;

/// Hosts in use: a person has one or two.
pub(super) const RELAYS: usize = 8;

/// What is left on a relayed connection when a direct one has proved itself has this long to end, from the birth of the
/// direct one: most exchanges end by themselves, and transfers resume.
pub(super) const RELAYED_GRACE: Duration = Duration::from_secs(3);

/// How long the closing of all connections may take at shutdown.
pub(super) const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

/// How long starting waits for the listeners to say where they listen; one without an address to listen on (IPv6 where
/// there is none) never does.
pub(super) const START_PATIENCE: Duration = Duration::from_millis(100);

/// Commands to the swarm that may wait.
pub(super) const COMMANDS: usize = 64;

/// Events kept for a slow subscriber before it loses the oldest.
pub(super) const EVENTS: usize = 1024;

/// Devices that mDNS may show at a time; a network with more neighbours that run libp2p is a hostile one.
pub(super) const DISCOVERED: usize = 256;

/// The waiting times that tests shorten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub stranger_idle: Duration,
    pub surplus_idle: Duration,
    pub relayed_grace: Duration,
    pub check_interval: Duration,
    pub check_timeout: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stranger_idle: STRANGER_IDLE,
            surplus_idle: SURPLUS_IDLE,
            relayed_grace: RELAYED_GRACE,
            check_interval: CHECK_INTERVAL,
            check_timeout: CHECK_TIMEOUT,
        }
    }
}
