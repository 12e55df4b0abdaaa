//! Conversations over a real socket, with a service that plays the node.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::lines::{LineReader, Opening};
use super::*;

/// Answers by what is asked: enough to see every path of the transport.
struct Fake;

impl Service for Fake {
    fn handle(
        &self,
        request: Request,
        mut session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, ControlError>> + Send + '_>> {
        Box::pin(async move {
            match request {
                Request::Stop => Ok(Reply::Done),
                Request::DeviceList => panic!("a defect"),
                Request::FolderList => std::future::pending().await,
                Request::DocGet { doctype, id, .. } => Ok(Reply::Document(DocumentReply {
                    doctype,
                    id,
                    revision: String::new(),
                    deleted: false,
                    value: json!({ "big": "x".repeat(MAX_LINE) }),
                    conflicts: Vec::new(),
                })),
                Request::Pair { .. } => {
                    session.progress(Progress {
                        stage: Stage::Looking,
                        done: 0,
                        total: None,
                        about: None,
                    });
                    let question = Question::AdmitDevice {
                        name: "laptop".into(),
                        device: "ab".into(),
                    };
                    match session.ask(question).await? {
                        Answer::Yes => Ok(Reply::Done),
                        _ => Err(ControlError::refused("the device was not let in")),
                    }
                }
                Request::DocLines { .. } => {
                    let mut written = 0;
                    while let Some(mut lines) = session.lines().await? {
                        while let Some(more) = session.lines_waiting() {
                            lines.extend(more);
                        }
                        written += lines.len() as u64;
                        let acks = lines
                            .into_iter()
                            .map(|line| Ack {
                                doctype: line.doctype,
                                id: line.id,
                                result: AckResult::Revision(None),
                            })
                            .collect();
                        session.item(Item::Acks(acks)).await?;
                    }
                    Ok(Reply::Lines {
                        written,
                        unchanged: 0,
                        failed: 0,
                    })
                }
                other => Err(ControlError::not_found(other.name())),
            }
        })
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<()>,
}

fn serve(data_dir: &Path) -> Running {
    let server = Server::bind(data_dir).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server.run(Arc::new(Fake), async {
        let _ = stopped.await;
    }));
    Running { stop, server }
}

impl Running {
    async fn stop(self) {
        drop(self.stop);
        self.server.await.unwrap();
    }
}

async fn ask(dir: &Path, request: Request) -> Result<Reply, ControlError> {
    Client::connect(dir).await?.ask(&request).await
}

#[tokio::test]
async fn a_request_is_answered_and_the_socket_is_the_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path());
    assert_eq!(ask(dir.path(), Request::Stop).await, Ok(Reply::Done));
    let mode = std::fs::metadata(socket_path(dir.path()))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = ask(dir.path(), Request::Status).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::NotFound, "status")
    );
    running.stop().await;
    assert_eq!(
        ask(dir.path(), Request::Stop).await.unwrap_err().kind,
        ErrorKind::NotRunning
    );
}

#[tokio::test]
async fn a_data_folder_with_a_path_longer_than_a_socket_address_works() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir
        .path()
        .join("a".repeat(90))
        .join("b".repeat(90))
        .join("c".repeat(90));
    std::fs::create_dir_all(&deep).unwrap();
    let running = serve(&deep);
    assert_eq!(ask(&deep, Request::Stop).await, Ok(Reply::Done));
    running.stop().await;
}

#[tokio::test]
async fn a_socket_left_by_a_node_that_was_killed_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    drop(Server::bind(dir.path()).unwrap()); // dropped without `run`: nobody removes the socket
    assert!(socket_path(dir.path()).exists());
    assert_eq!(
        ask(dir.path(), Request::Stop).await.unwrap_err().kind,
        ErrorKind::NotRunning
    );
    let running = serve(dir.path());
    assert_eq!(ask(dir.path(), Request::Stop).await, Ok(Reply::Done));
    running.stop().await;
}

#[tokio::test]
async fn a_question_is_asked_and_its_answer_heard() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path());
    for (answer, expected) in [
        (Answer::Yes, Ok(Reply::Done)),
        (Answer::No, Err(ErrorKind::Refused)),
    ] {
        let client = Client::connect(dir.path()).await.unwrap();
        let mut call = client
            .send(&Request::Pair { valid_for_s: None })
            .await
            .unwrap();
        assert!(matches!(call.next().await, Ok(FromNode::Progress(_))));
        let Ok(FromNode::Ask(asked)) = call.next().await else {
            panic!("no question")
        };
        assert_eq!(asked.id, 1);
        call.answer(7, Answer::Yes).await.unwrap(); // to a question nobody asked: passed over
        call.answer(asked.id, answer).await.unwrap();
        match call.next().await {
            Ok(FromNode::Reply(reply)) => assert_eq!(Ok(reply), expected),
            Ok(_) => panic!("not the end"),
            Err(error) => assert_eq!(Err(error.kind), expected),
        }
        assert!(call.next().await.is_err(), "there is nothing after the end");
    }
    running.stop().await;
}

#[tokio::test]
async fn every_line_is_acknowledged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path());
    let request = Request::DocLines {
        mode: LinesMode::Put,
        texts: Vec::new(),
        create: true,
    };
    let call = Client::connect(dir.path())
        .await
        .unwrap()
        .send(&request)
        .await
        .unwrap();
    let (mut reader, mut writer) = call.split();
    let send = async {
        for n in 0..1000 {
            let line = DocLine {
                doctype: "t".into(),
                id: n.to_string(),
                value: json!({ "n": n }),
                base: None,
            };
            writer.lines(vec![line]).await.unwrap();
        }
        writer.end().await.unwrap();
        writer // kept until the end: dropping it hangs up
    };
    let receive = async {
        let mut ids = Vec::new();
        loop {
            match reader.next().await.unwrap() {
                FromNode::Item(Item::Acks(acks)) => ids.extend(acks.into_iter().map(|ack| ack.id)),
                FromNode::Reply(reply) => break (ids, reply),
                _ => panic!("neither"),
            }
        }
    };
    let (_writer, (ids, reply)) = tokio::join!(send, receive);
    assert_eq!(
        ids,
        (0..1000).map(|n: u32| n.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(
        reply,
        Reply::Lines {
            written: 1000,
            unchanged: 0,
            failed: 0
        }
    );
    running.stop().await;
}

#[tokio::test]
async fn lines_cut_off_by_a_hangup_are_not_taken_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let (to_client, _keep) = tokio::sync::mpsc::channel(4);
    let (from, from_client) = tokio::sync::mpsc::channel(4);
    let (_closing, closed) = tokio::sync::watch::channel(false);
    let mut session = Session::new(to_client, from_client, closed);
    from.send(FromClient::Lines(Vec::new())).await.unwrap();
    assert_eq!(session.lines_waiting().map(|lines| lines.len()), Some(0));
    drop(from);
    assert!(session.lines().await.is_err());
    drop(dir);
}

#[tokio::test]
async fn an_answer_too_large_to_send_becomes_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path());
    let request = Request::DocGet {
        doctype: "t".into(),
        id: "i".into(),
        at: None,
    };
    let error = ask(dir.path(), request).await.unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (ErrorKind::Usage, Some("too-large"))
    );
    running.stop().await;
}

#[tokio::test]
async fn a_request_that_panics_or_is_nonsense_harms_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path());
    let error = ask(dir.path(), Request::DeviceList).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    for (sent, kind) in [
        ("nonsense\n", "usage"),
        (
            "{\"coffer\":1,\"request\":{\"command\":\"fly\"}}\n",
            "usage",
        ),
        (
            "{\"coffer\":2,\"request\":{\"command\":\"status\"}}\n",
            "newer-version",
        ),
    ] {
        let mut stream = tokio::net::UnixStream::connect(socket_path(dir.path()))
            .await
            .unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(&format!("\"kind\":\"{kind}\"")), "{answer}");
    }
    assert_eq!(ask(dir.path(), Request::Stop).await, Ok(Reply::Done));
    running.stop().await;
}

#[tokio::test]
async fn the_end_of_the_node_ends_what_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path());
    let pair = Request::Pair { valid_for_s: None };
    let mut call = Client::connect(dir.path())
        .await
        .unwrap()
        .send(&pair)
        .await
        .unwrap();
    while !matches!(call.next().await.unwrap(), FromNode::Ask(_)) {}
    running.stop().await;
    assert_eq!(call.next().await.unwrap_err().kind, ErrorKind::Cancelled);
}

#[test]
fn a_second_owner_of_the_data_folder_is_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(DataLock::holder(dir.path()), None);
    let lock = DataLock::acquire(dir.path()).unwrap();
    assert_eq!(DataLock::holder(dir.path()), Some(Some(std::process::id())));
    let error = DataLock::acquire(dir.path()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::AlreadyRunning);
    assert!(
        error.message.contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(lock);
    assert_eq!(DataLock::holder(dir.path()), None);
    DataLock::acquire(dir.path()).unwrap();
}

#[test]
fn requests_keep_their_form() {
    let written = |request: &Request| serde_json::to_value(request).unwrap();
    assert_eq!(written(&Request::Status), json!({ "command": "status" }));
    let put = Request::DocPut {
        doctype: "io.cozy.notes".into(),
        id: "a".into(),
        value: json!({ "n": 1 }),
        texts: vec!["/content".into()],
        base: None,
    };
    let form = json!({ "command": "doc-put", "doctype": "io.cozy.notes", "id": "a", "value": { "n": 1 }, "texts": ["/content"] });
    assert_eq!(written(&put), form);
    assert_eq!(serde_json::from_value::<Request>(form).unwrap(), put);
    assert_eq!(
        format!("{put:?}"),
        "Request(doc-put)",
        "contents belong in no log"
    );
    let ack = Ack {
        doctype: "t".into(),
        id: "i".into(),
        result: AckResult::Error(ControlError::conflict("no")),
    };
    let form =
        json!({ "doctype": "t", "id": "i", "error": { "kind": "conflict", "message": "no" } });
    assert_eq!(serde_json::to_value(&ack).unwrap(), form);
    assert_eq!(serde_json::from_value::<Ack>(form).unwrap(), ack);
}

proptest! {
    /// Whatever bytes come, and however they are cut, the reader gives values or an error and never more than there is.
    #[test]
    fn foreign_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 1usize..50) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut lines = LineReader::new(tokio::io::BufReader::with_capacity(cut, &bytes[..]));
            let mut count = 0;
            while let Ok(_) | Err(super::lines::LineError::Malformed(_)) = lines.next::<Opening<serde_json::Value>>().await {
                count += 1;
            }
            assert_eq!(count, bytes.iter().filter(|byte| **byte == b'\n').count());
        });
    }

    #[test]
    fn a_message_survives_the_line(id in any::<u32>(), words in proptest::collection::vec(".*", 0..5)) {
        let message = FromClient::Answer { id, answer: Answer::Words(words) };
        let mut buffer = Vec::new();
        super::lines::push_line(&mut buffer, &message).unwrap();
        prop_assert_eq!(buffer.iter().filter(|byte| **byte == b'\n').count(), 1);
        prop_assert!(serde_json::from_slice::<FromClient>(&buffer).unwrap() == message);
    }
}
