//! What handles ask of the actor, and how it answers.

use super::*;

impl Actor {
    pub(super) fn on_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Dial { device, reply, .. } if self.roster.is_connected(&device) => {
                reply.send(Ok(())).ok();
            }
            Command::Dial {
                device,
                addresses,
                reply,
            } => {
                self.dialing.request(device, &addresses, now);
                if self.dialing.addresses(&device).is_empty() {
                    reply
                        .send(Err(DialError::Unreachable(reasons::NO_ADDRESS.into())))
                        .ok();
                    self.dialing.forget(&device);
                } else {
                    let waiting = self.waiting.entry(device).or_default();
                    waiting.retain(|reply| !reply.is_closed());
                    waiting.push(reply);
                }
            }
            Command::DialUnknown { addresses, reply } => self.dial_unknown(addresses, reply),
            Command::SetWanted { wanted, done } => {
                self.wanted = wanted;
                self.set_wanted(now);
                done.send(()).ok();
            }
            Command::SetRelays { relays, done } => {
                self.set_relays(relays, now);
                done.send(()).ok();
            }
            Command::SetClients { clients, done } => {
                self.set_clients(clients, now);
                done.send(()).ok();
            }
            Command::SetClient {
                device,
                while_connected,
                done,
            } => {
                self.set_client(device, while_connected);
                done.send(()).ok();
            }
            Command::HeardOf { device, done } => {
                self.dialing.heard_of(device, now);
                self.circuits.heard_of(&device, now);
                done.send(()).ok();
            }
            Command::Close { device, done } => {
                self.close_all(device, now);
                done.send(()).ok();
            }
            // The loop ends on it.
            Command::Shutdown => {}
        }
    }

    fn dial_unknown(
        &mut self,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<Device, DialError>>,
    ) {
        let waiting: UnknownDial = Arc::new(Mutex::new(Some(reply)));
        let mut refused = reasons::NO_ADDRESS.to_owned();
        for address in addresses.into_iter().take(crate::net::MAX_ADDRESSES) {
            let options = DialOpts::unknown_peer_id()
                .address(address)
                .allocate_new_port()
                .build();
            let id = options.connection_id();
            self.roster.dialling(id);
            match self.swarm.dial(options) {
                Ok(()) => {
                    self.unknown.insert(id, waiting.clone());
                }
                Err(error) => {
                    self.roster.dialled(id);
                    refused = reasons::not_dialled(&error);
                }
            }
        }
        if Arc::strong_count(&waiting) == 1 {
            answer_unknown(&waiting, Err(DialError::Unreachable(refused)));
        }
    }
}

pub(super) fn answer_unknown(waiting: &UnknownDial, outcome: Result<Device, DialError>) {
    let reply = waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(reply) = reply {
        reply.send(outcome).ok();
    }
}
