//! The node's side of one conversation: what a [`super::Service`] uses to report, send items, ask and read lines.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::lines::{FromClient, FromNode};
use super::question::Ask;
use super::{Answer, ControlError, DocLine, ErrorKind, Item, Progress, Question};

/// How long a person may take to answer. Pairing ends earlier by its own expiry; this only frees what a forgotten
/// terminal holds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The client hung up. Turns into [`ErrorKind::Cancelled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl From<Gone> for ControlError {
    fn from(_: Gone) -> Self {
        ControlError::new(ErrorKind::Cancelled, "the command was ended")
    }
}

/// One conversation. Dropping it does not end the conversation; returning from `Service::handle` does.
pub struct Session {
    to_client: mpsc::Sender<FromNode>,
    from_client: mpsc::Receiver<FromClient>,
    closed: watch::Receiver<bool>,
    asked: u32,
    lines_ended: bool,
}

impl Session {
    pub(super) fn new(
        to_client: mpsc::Sender<FromNode>,
        from_client: mpsc::Receiver<FromClient>,
        closed: watch::Receiver<bool>,
    ) -> Self {
        Session {
            to_client,
            from_client,
            closed,
            asked: 0,
            lines_ended: false,
        }
    }

    /// Reports how far the work is. Never waits: a report that finds the queue full is dropped.
    pub fn progress(&self, progress: Progress) {
        let _ = self.to_client.try_send(FromNode::Progress(progress));
    }

    /// A cheap reporter for work that goes on elsewhere, for instance on another thread.
    pub fn reporter(&self) -> impl Fn(Progress) + Send + Sync + Clone + 'static {
        let to_client = self.to_client.downgrade();
        move |progress| {
            if let Some(to_client) = to_client.upgrade() {
                let _ = to_client.try_send(FromNode::Progress(progress));
            }
        }
    }

    /// Sends an item, waiting while the client is slow. Safe to cancel: the item is then not sent.
    pub async fn item(&self, item: Item) -> Result<(), Gone> {
        self.to_client
            .send(FromNode::Item(item))
            .await
            .map_err(|_| Gone)
    }

    /// Asks the person and waits for the answer. `Refused` where nobody is there to answer.
    pub async fn ask(&mut self, question: Question) -> Result<Answer, ControlError> {
        self.asked += 1;
        let id = self.asked;
        self.to_client
            .send(FromNode::Ask(Ask { id, question }))
            .await
            .map_err(|_| Gone)?;
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, async {
            loop {
                match self.from_client.recv().await {
                    Some(FromClient::Answer { id: of, answer }) if of == id => return Ok(answer),
                    Some(_) => continue, // an answer to an earlier question, or lines nobody asked for
                    None => return Err(ControlError::from(Gone)),
                }
            }
        });
        answered.await.unwrap_or_else(|_| {
            Err(ControlError::new(
                ErrorKind::TimedOut,
                "nobody answered the question",
            ))
        })
    }

    /// The next lines of a `DocLines` request: what the client sent in one piece. `None` once it said `End`; `Gone`
    /// when it hung up without. Safe to cancel.
    pub async fn lines(&mut self) -> Result<Option<Vec<DocLine>>, Gone> {
        while !self.lines_ended {
            match self.from_client.recv().await {
                Some(FromClient::Lines(lines)) => return Ok(Some(lines)),
                Some(FromClient::End) => self.lines_ended = true,
                Some(FromClient::Answer { .. }) => {}
                None => return Err(Gone),
            }
        }
        Ok(None)
    }

    /// Lines that have arrived already, without waiting, so that one commit can take all that is there. `None` says
    /// only that there is nothing more right now.
    pub fn lines_waiting(&mut self) -> Option<Vec<DocLine>> {
        while !self.lines_ended {
            match self.from_client.try_recv() {
                Ok(FromClient::Lines(lines)) => return Some(lines),
                Ok(FromClient::End) => self.lines_ended = true,
                Ok(FromClient::Answer { .. }) => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Resolves when the client has hung up; for `select!` in requests that run on
    /// (see [`super::Request::ends_with_client`]). Does not borrow the session.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closed = self.closed.clone();
        async move {
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }
}
