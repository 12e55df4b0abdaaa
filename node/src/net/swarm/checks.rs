//! Whether connections that are silent are alive: the other side is asked, and a connection that does not answer goes.

use super::*;

impl Actor {
    /// Checks connections that were silent for long or are doubted; returns when the next check is due.
    pub(super) fn check(&mut self, now: Instant) -> Option<Instant> {
        while let Some(id) = self.watched.due(now) {
            self.watched.plan(id, now + self.patience.check_interval);
            let Some(watched) = self.watched.get_mut(id) else {
                break;
            };
            let bytes = watched.connection.usage.bytes_in();
            let heard = std::mem::replace(&mut watched.bytes_seen, bytes) != bytes;
            if !watched.doubted && (heard || !self.roster.is_known(&watched.connection.device)) {
                continue;
            }
            let patience = if watched.doubted {
                DOUBT_TIMEOUT
            } else {
                self.patience.check_timeout
            };
            let own = presence::own_message(&self.roster, &watched.connection);
            self.checks
                .push(checked(id, watched.connection.clone(), own, patience).boxed());
            self.watched.begins_check(id);
        }
        self.watched.next()
    }

    pub(super) fn doubt(&mut self, these: &[Arc<Connection>], now: Instant) {
        for connection in these {
            if let Some(watched) = self.watched.get_mut(connection.id) {
                watched.doubted = true;
                self.watched.plan(connection.id, now);
            }
        }
    }

    pub(super) fn on_checked(
        &mut self,
        id: ConnectionId,
        outcome: Result<(Vec<Multiaddr>, Duration), Failure>,
        now: Instant,
    ) {
        let Some(watched) = self.watched.ended_check(id) else {
            return;
        };
        watched.doubted = false;
        let device = watched.connection.device;
        match outcome {
            Ok((addresses, took)) => {
                watched.proven = true;
                if watched.connection.relayed.is_none() {
                    self.circuits.measured(&device, took);
                }
                self.on_told(device, &addresses, now);
            }
            // An answer is an answer; a connection that is closing ends by itself.
            Err(Failure::Busy | Failure::Moved | Failure::Unsupported | Failure::Gone) => {}
            // It is slow because it is busy.
            Err(_) if watched.connection.usage.bytes_in() != watched.bytes_seen => {}
            Err(Failure::Timeout | Failure::Broken) => {
                tracing::debug!(device = %hex::encode(&device[..4]), "a connection has died silently");
                self.swarm.close_connection(id);
                self.gone(id, now);
            }
        }
    }
}

/// Asks the other end of a connection where it listens.
async fn checked(
    id: ConnectionId,
    connection: Arc<Connection>,
    own: Vec<u8>,
    patience: Duration,
) -> Checked {
    let exchange = async {
        let stream = connection.open_bare(&PRESENCE).await?;
        let began = Instant::now();
        let told = presence::ask(stream, &own)
            .await
            .map_err(|_| Failure::Broken)?;
        connection.is_of(told.instance);
        Ok((told.addresses, began.elapsed()))
    };
    (
        id,
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or(Err(Failure::Timeout)),
    )
}
