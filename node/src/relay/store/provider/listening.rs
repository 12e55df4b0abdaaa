//! What other processes changed: one connection of its own listens, and tells all who asked.
//!
//! Every transaction that changes something of a vault notifies in the same step. When the connection is lost, those who
//! asked are told that they missed something as soon as there is another. Ends when the store is closed.

use std::future::poll_fn;
use std::time::Duration;

use coffer_protocol::identity::VaultId;
use deadpool_postgres::GenericClient;
use tokio::sync::{broadcast, watch};
use tokio_postgres::{AsyncMessage, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::{Change, StoreError, What};
use super::database::run;

/// The channel's name in the database.
const CHANNEL: &str = "coffer_host";
/// Changes that wait for one who asked; one who falls behind is told that some were missed.
const BACKLOG: usize = 4096;
/// Between two attempts to connect again.
const PAUSE: Duration = Duration::from_millis(500);

/// Tells changes of other processes.
pub struct Listening {
    pub changes: broadcast::Sender<Change>,
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    /// Starts to listen; from the moment it returns nothing is missed.
    pub async fn start(
        config: Config,
        tls: MakeRustlsConnect,
        instance: String,
        closed: watch::Receiver<bool>,
    ) -> Result<Self, StoreError> {
        let changes = broadcast::channel(BACKLOG).0;
        let link = Follower {
            config,
            tls,
            instance,
            changes: changes.clone(),
        };
        let first = link.listen().await?;
        let task = tokio::spawn(link.follow(first, closed));
        Ok(Listening { changes, task })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Follower {
    config: Config,
    tls: MakeRustlsConnect,
    instance: String,
    changes: broadcast::Sender<Change>,
}

impl Follower {
    async fn follow(
        self,
        first: (Client, tokio::sync::mpsc::Receiver<String>),
        mut closed: watch::Receiver<bool>,
    ) {
        let mut link = Some(first);
        loop {
            match &mut link {
                Some((_, told)) => tokio::select! {
                    _ = closed.wait_for(|closed| *closed) => return,
                    payload = told.recv() => match payload {
                        Some(payload) => self.tell(&payload),
                        None => link = None,
                    },
                },
                None => {
                    tokio::select! {
                        _ = closed.wait_for(|closed| *closed) => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    match self.listen().await {
                        Ok(found) => {
                            link = Some(found);
                            let _ = self.changes.send(Change::Missed);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "changes of other processes are not heard");
                        }
                    }
                }
            }
        }
    }

    /// Connects, and listens. What is told comes through the channel, which ends with the connection.
    async fn listen(&self) -> Result<(Client, tokio::sync::mpsc::Receiver<String>), StoreError> {
        let (client, mut connection) = self.config.connect(self.tls.clone()).await?;
        let (tell, told) = tokio::sync::mpsc::channel(BACKLOG);
        // Ends when the client is dropped, or the connection is lost.
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(note) = message
                    && tell.send(note.payload().to_owned()).await.is_err()
                {
                    break;
                }
            }
        });
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        Ok((client, told))
    }

    fn tell(&self, payload: &str) {
        if let Some((instance, change)) = parse(payload)
            && instance != self.instance
        {
            let _ = self.changes.send(change);
        }
    }
}

/// Says in a transaction what it changes.
pub async fn notify(
    client: &impl GenericClient,
    instance: &str,
    vault: VaultId,
    what: What,
) -> Result<(), StoreError> {
    let payload = format!("{instance} {vault} {}", letter(what));
    run(client, "SELECT pg_notify($1, $2)", &[&CHANNEL, &payload])
        .await
        .map(|_| ())
}

fn letter(what: What) -> char {
    match what {
        What::Vault => 'v',
        What::Grants => 'g',
        What::Entries => 'e',
        What::Statements => 's',
        What::Blobs => 'b',
    }
}

fn parse(payload: &str) -> Option<(&str, Change)> {
    let mut words = payload.split(' ');
    let instance = words.next()?;
    let vault = words.next()?.parse().ok()?;
    let what = match words.next()? {
        "v" => What::Vault,
        "g" => What::Grants,
        "e" => What::Entries,
        "s" => What::Statements,
        "b" => What::Blobs,
        // A newer program on the same database: something changed, whatever it is.
        _ => return Some((instance, Change::Missed)),
    };
    Some((instance, Change::In { vault, what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        let vault = VaultId([7; 32]);
        for what in [
            What::Vault,
            What::Grants,
            What::Entries,
            What::Statements,
            What::Blobs,
        ] {
            let payload = format!("ab12 {vault} {}", letter(what));
            assert_eq!(parse(&payload), Some(("ab12", Change::In { vault, what })));
        }
        let newer = format!("ab12 {vault} z");
        assert_eq!(parse(&newer), Some(("ab12", Change::Missed)));
        for foreign in ["", "x", "x y z", "x  v"] {
            assert_eq!(parse(foreign), None);
        }
    }
}
