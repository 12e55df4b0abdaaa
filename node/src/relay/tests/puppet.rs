//! A host on loopback, vaults with keys of the test, and devices that say exactly what a test wants them to say.

use std::sync::Arc;
use std::time::Duration;

use coffer_protocol::grants::{self, Cutoff, Membership, NewDevice, Role};
use coffer_protocol::identity::{DeviceId, DeviceKey, Hash, SpaceId, VaultId, WriterId};
use coffer_protocol::keys::{Keyring, SealingKey};
use coffer_protocol::log::{Body, Clock, Entry, EntryParams, seal_entry};
use coffer_protocol::relay::{
    Answer, DeviceSide, DeviceStep, HostInvitation, HostState, HostStatement, JoinError,
    MAX_ANSWER, MAX_BIND, PutHeader, Request,
};
use coffer_protocol::replication::{MAX_MESSAGE, Message};
use coffer_protocol::version;
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::net::{
    FrameError, Multiaddr, Net, NetConfig, Role as NetRole, Stream, StreamProtocol, read_frame,
    write_frame,
};
use crate::relay::config::RelayConfig;
use crate::relay::control::{HostReply, HostRequest};
use crate::relay::host::Host;
use crate::relay::run::Serving;
use crate::relay::store::RelayStore;
use crate::relay::store::memory::MemoryStore;
use crate::service::random;
use crate::vault::identity::Identity;

/// Longest wait for what should take an instant.
const SOON: Duration = Duration::from_secs(20);
/// How long nothing must come to be taken for silence.
const SILENCE: Duration = Duration::from_millis(400);

/// A host that serves on loopback from a store in memory.
pub struct TestHost {
    serving: Serving,
}

impl TestHost {
    /// With this configuration over one for tests.
    pub async fn new(text: &str) -> TestHost {
        Self::on(
            text,
            Arc::new(MemoryStore::default()),
            Identity::generate(&mut random()),
        )
        .await
    }

    /// A process of the host with these keys, on this store.
    pub async fn on(text: &str, store: Arc<dyn RelayStore>, identity: Identity) -> TestHost {
        let mut config = RelayConfig::default();
        let base = "[network]\nlisten = [\"127.0.0.1\"]\nport = 0\n[http]\nlisten = \"off\"\n[stop]\ndrain = \"1s\"\n";
        config.take_text(base, "test").unwrap();
        config.take_text(text, "test").unwrap();
        let serving = Serving::start(config, identity, store).await.unwrap();
        TestHost { serving }
    }

    pub fn host(&self) -> &Arc<Host> {
        &self.serving.host
    }

    pub fn id(&self) -> DeviceId {
        self.host().id
    }

    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.host().net.listen_addresses()
    }

    /// What `coffer relay invite` gives.
    pub async fn invite(&self, quota: u64, valid_seconds: u64) -> HostInvitation {
        let request = HostRequest::Invite {
            quota: Some(quota),
            valid_seconds: Some(valid_seconds),
        };
        let data = std::path::Path::new("/").into();
        let reply = crate::relay::asked::answer(self.host().clone(), data, request).await;
        let HostReply::Invitation(row) = reply.unwrap() else {
            panic!("no invitation");
        };
        HostInvitation::parse(&row.link, 0).unwrap()
    }

    pub async fn stop(self) {
        self.serving.stop().await;
    }
}

/// A vault, with the keys of its first device.
pub struct TestVault {
    pub id: VaultId,
    pub membership: Membership,
    pub keyring: Keyring,
    pub owner: DeviceKey,
}

impl TestVault {
    pub fn new() -> TestVault {
        let identity = Identity::generate(&mut random());
        let founded =
            grants::found(&identity.key, &identity.sealing, "first", 1, &mut random()).unwrap();
        TestVault {
            id: founded.membership.vault(),
            membership: founded.membership,
            keyring: founded.keyring,
            owner: identity.key,
        }
    }

    /// Admits a device, or a host.
    pub fn admit(&mut self, device: DeviceId, role: Role) {
        let sealing = SealingKey::from_seed([7; 32]).public();
        let new = NewDevice {
            device,
            sealing: &sealing,
            role,
            name: "another",
        };
        let grant = self
            .membership
            .admit(&self.owner, &self.keyring, &new, 2, &mut random())
            .unwrap();
        self.membership.insert(grant).unwrap();
    }

    /// Puts a device out, with `cutoffs` of its logs, and says the grant.
    pub fn revoke(&mut self, device: DeviceId, cutoffs: Vec<Cutoff>) -> Vec<u8> {
        let grant = self
            .membership
            .revoke(&self.owner, device, cutoffs, &[], 3)
            .unwrap();
        let bytes = grant.bytes().to_vec();
        self.membership.insert(grant).unwrap();
        bytes
    }

    pub fn grants(&self) -> Vec<Vec<u8>> {
        let grants = self.membership.grants();
        grants.map(|(_, grant)| grant.bytes().to_vec()).collect()
    }

    /// A vault that is bound to the host, and its owner's device, connected.
    pub async fn bound_to(host: &TestHost) -> (TestVault, Puppet) {
        let invitation = host.invite(1 << 30, 60).await;
        let mut vault = TestVault::new();
        vault.admit(host.id(), Role::Relay);
        let puppet = Puppet::new(&vault.owner, host).await;
        puppet.join(&vault, Some(&invitation)).await.unwrap();
        (vault, puppet)
    }
}

/// Writes one log.
pub struct Author {
    key: DeviceKey,
    writer: WriterId,
    seq: u64,
    prev: Hash,
}

impl Author {
    pub fn new(key: &DeviceKey) -> Author {
        Author {
            writer: WriterId {
                device: key.id(),
                incarnation: 1,
            },
            key: DeviceKey::from_secret(*key.secret_bytes()),
            seq: 0,
            prev: Hash::ZERO,
        }
    }

    /// The next entry of its log.
    pub fn next(&mut self, vault: &TestVault) -> Vec<u8> {
        self.seq += 1;
        let params = EntryParams {
            vault: vault.id,
            space: SpaceId::HOME,
            writer: self.writer,
            seq: self.seq,
            prev: self.prev,
            grant_heads: &vault.membership.heads(),
        };
        let body = Body {
            clock: Clock::new(),
            changes: Vec::new(),
        };
        let epoch = vault.keyring.current();
        let entry: Entry = seal_entry(&self.key, &params, &body, epoch, &mut random()).unwrap();
        self.prev = entry.header_hash();
        entry.encode()
    }

    /// What has everything of this log.
    pub fn clock(&self) -> Clock {
        let mut clock = Clock::new();
        if self.seq > 0 {
            clock.observe(self.writer, self.seq, self.prev);
        }
        clock
    }
}

/// A device.
pub struct Puppet {
    net: Net,
    host: DeviceId,
}

impl Puppet {
    /// One with this key, connected to the host.
    pub async fn new(key: &DeviceKey, host: &TestHost) -> Puppet {
        let config = NetConfig {
            key: key.boxed_secret(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            mdns: false,
            protocols: Vec::new(),
            role: NetRole::default(),
            door: None,
        };
        let (net, _incoming) = Net::start(config).await.unwrap();
        net.dial(host.id().0, host.addresses()).await.unwrap();
        Puppet {
            net,
            host: host.id(),
        }
    }

    pub async fn open(&self, protocol: &'static str) -> Stream {
        let opened = self
            .net
            .open(self.host.0, StreamProtocol::new(protocol))
            .await;
        opened.unwrap()
    }

    /// Binds the vault, or makes this device known.
    pub async fn join(
        &self,
        vault: &TestVault,
        invitation: Option<&HostInvitation>,
    ) -> Result<(), JoinError> {
        let mut stream = self.open(version::RELAY_JOIN).await;
        let (mut side, mut steps) = match invitation {
            Some(invitation) => DeviceSide::by_invitation(vault.id, self.host, invitation),
            None => DeviceSide::as_member(vault.id),
        };
        loop {
            for step in std::mem::take(&mut steps) {
                match step {
                    DeviceStep::Send(bytes) => {
                        let written = write_frame(&mut stream, &bytes, MAX_BIND).await;
                        // A host that has closed says so where it is read.
                        if written.is_ok() {
                            let _ = stream.flush().await;
                        }
                    }
                    DeviceStep::Admit(_) => steps = side.admitted(Some(vault.grants())),
                    DeviceStep::Bound(_) => return Ok(()),
                    DeviceStep::Failed(why) => return Err(why),
                }
            }
            if steps.is_empty() {
                steps = match next_frame(&mut stream, MAX_BIND).await {
                    Some(frame) => side.on_message(&frame),
                    None => side.disconnected(),
                };
            }
        }
    }

    /// Opens a session with this clock, and says Hello.
    pub async fn replicate(&self, vault: &TestVault, clock: Clock) -> Session {
        self.replicate_in(&[version::REPLICATION], vault, clock)
            .await
    }

    /// The same, as who speaks these versions.
    pub async fn replicate_in(&self, versions: &[u16], vault: &TestVault, clock: Clock) -> Session {
        let mut session = Session {
            stream: self.open(version::REPLICATE).await,
        };
        let hello = Message::Hello {
            versions: versions.to_vec(),
            vault: vault.id,
            grant_heads: vault.membership.heads(),
            clock,
        };
        session.say(&hello).await;
        session
    }

    /// Asks one thing about blobs.
    pub async fn ask(&self, request: Request) -> Option<Answer> {
        self.ask_with(request, &[]).await
    }

    /// Leaves blobs.
    pub async fn put(&self, vault: VaultId, blobs: &[Vec<u8>]) -> Option<Answer> {
        let request = Request::Put {
            vault,
            count: u16::try_from(blobs.len()).unwrap(),
            bytes: blobs.iter().map(|blob| blob.len() as u64).sum(),
        };
        let mut following = Vec::new();
        for blob in blobs {
            let header = PutHeader {
                id: id_of(blob),
                len: u32::try_from(blob.len()).unwrap(),
            };
            following.extend_from_slice(&header.encode());
            following.extend_from_slice(blob);
        }
        self.ask_with(request, &following).await
    }

    /// Asks, and sends bytes behind the request.
    pub async fn ask_with(&self, request: Request, following: &[u8]) -> Option<Answer> {
        let mut stream = self.open(version::RELAY_BLOBS).await;
        write_frame(&mut stream, &request.encode(), usize::MAX >> 1)
            .await
            .ok()?;
        // A host that refuses may have closed already.
        let _ = stream.write_all(following).await;
        let _ = stream.flush().await;
        let answer = next_frame(&mut stream, MAX_ANSWER).await?;
        Some(Answer::decode(&answer).unwrap())
    }
}

/// The name of a blob.
pub fn id_of(blob: &[u8]) -> Hash {
    Hash(*blake3::hash(blob).as_bytes())
}

/// A session of replication.
pub struct Session {
    stream: Stream,
}

impl Session {
    pub async fn say(&mut self, message: &Message) {
        self.try_say(message).await.unwrap();
    }

    /// The same to a host that may have ended the session.
    pub async fn try_say(&mut self, message: &Message) -> Result<(), FrameError> {
        write_frame(&mut self.stream, &message.encode(), MAX_MESSAGE).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next message; `None` where the host ends the session.
    pub async fn hear(&mut self) -> Option<Message> {
        let frame = next_frame(&mut self.stream, MAX_MESSAGE).await?;
        Some(Message::decode(&frame).unwrap())
    }

    /// The first message that `wanted` takes; others are passed over.
    pub async fn hear_until<T>(&mut self, wanted: impl Fn(Message) -> Option<T>) -> T {
        loop {
            let message = self.hear().await.expect("the session goes on");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    /// Waits for entries.
    pub async fn hear_entries(&mut self) -> Vec<Vec<u8>> {
        self.hear_until(|message| match message {
            Message::Entries(entries) => Some(entries),
            _ => None,
        })
        .await
    }

    /// Waits for a statement of the host.
    pub async fn hear_statement(&mut self, vault: &TestVault, host: DeviceId) -> HostState {
        let bytes = self
            .hear_until(|message| match message {
                Message::Held { device, statement } if device == host => Some(statement),
                _ => None,
            })
            .await;
        HostStatement::read(&bytes, &vault.id, &host)
            .unwrap()
            .value()
            .clone()
    }

    /// Waits for a statement of the host that is as `wanted` says.
    pub async fn hear_that(
        &mut self,
        vault: &TestVault,
        host: DeviceId,
        wanted: impl Fn(&HostState) -> bool,
    ) -> HostState {
        loop {
            let state = self.hear_statement(vault, host).await;
            if wanted(&state) {
                return state;
            }
        }
    }

    /// Whether no entries come for a moment.
    pub async fn hears_no_entries(&mut self) -> bool {
        tokio::time::timeout(SILENCE, self.hear_entries())
            .await
            .is_err()
    }
}

/// The next frame; `None` at the end of the stream.
async fn next_frame(stream: &mut Stream, limit: usize) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let read = tokio::time::timeout(SOON, read_frame(stream, &mut frame, limit)).await;
    match read.expect("an answer in time") {
        Ok(true) => Some(frame),
        _ => None,
    }
}

/// Everything that is left on a stream.
pub async fn rest_of(stream: &mut Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("the end in time");
    bytes
}
