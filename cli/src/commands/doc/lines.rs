//! Many documents, one JSON object a line, with acknowledgements in the order of the lines.
//!
//! Three things go on at once: a thread reads lines (standard input cannot be read otherwise without holding up all
//! else), one task sends what has been read, the other prints what comes back. All queues between them are bounded, so a
//! writer that is quicker than the disk is slowed down.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_node::control::{
    Ack, AckResult, CallReader, CallWriter, ControlError, DocLine, ErrorKind, FromNode, Item,
    LinesMode, MAX_DOCUMENT_TEXT, Reply, Request,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;

use crate::args::Context;
use crate::background;
use crate::conversation::unexpected;
use crate::error::Failure;
use crate::places::absolute;
use crate::units::{count, number};

/// Longest line, in bytes: a document, and its names.
const MAX_LINE: usize = MAX_DOCUMENT_TEXT + (1 << 20);
/// Lines read ahead.
const READ_AHEAD: usize = 512;
/// Lines sent in one piece, and the bytes after which no more are added.
const PIECE: usize = 256;
const PIECE_BYTES: usize = 1 << 20;
/// Lines that wait for their acknowledgement.
const IN_FLIGHT: usize = 8192;
/// Refused lines told on standard error, where not each line is acknowledged.
const TOLD: u64 = 20;

/// What to send, and from where.
pub struct Lines {
    /// A file, or `-`.
    pub from: PathBuf,
    /// What the lines do.
    pub mode: LinesMode,
    /// JSON pointers of texts.
    pub texts: Vec<String>,
    /// Whether edits may create documents.
    pub create: bool,
}

/// One line as read, with its number: a document to send, or why it is none. Empty lines are counted and passed over.
type ReadLine = (u64, Result<(DocLine, usize), Refused>);

/// A line that is not sent: what it names, as far as that could be read, and why.
struct Refused {
    doctype: Option<String>,
    id: Option<String>,
    error: ControlError,
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Self {
        Refused {
            doctype: None,
            id: None,
            error,
        }
    }
}

/// A line on its way, in order.
struct Pending {
    line: u64,
    /// Why it was not sent; `None` for one that was.
    refused: Option<Refused>,
}

impl Lines {
    /// Sends all lines, prints what became of them; an error if any was refused.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let from_stdin = self.from == Path::new("-");
        let input: Box<dyn Read + Send> = if from_stdin {
            Box::new(std::io::stdin())
        } else {
            let path = absolute(&self.from)?;
            let file = File::open(&path).map_err(|error| {
                ControlError::io(format_args!("read {}", path.display()), &error)
            })?;
            Box::new(file)
        };
        let request = Request::DocLines {
            mode: self.mode,
            texts: self.texts,
            create: self.create,
        };
        let call = background::connect(context).await?.send(&request).await?;
        let (reader, writer) = call.split();
        let (to_send, lines) = mpsc::channel(READ_AHEAD);
        std::thread::spawn(move || read_lines(input, &to_send));
        let (sent, pending) = mpsc::channel(IN_FLIGHT);
        let mut report = Report::new(context, from_stdin);
        let reply = carry(
            send(writer, lines, sent),
            receive(reader, pending, &mut report),
        )
        .await?;
        report.finish(&reply)
    }
}

/// Sends and receives side by side until the reply. What `sending` gives stays until then: it is the connection's
/// writing half, and closing that means hanging up.
async fn carry<Kept>(
    sending: impl Future<Output = Result<Kept, Failure>>,
    receiving: impl Future<Output = Result<Reply, Failure>>,
) -> Result<Reply, Failure> {
    tokio::pin!(sending, receiving);
    tokio::select! {
        reply = &mut receiving => reply,
        sent = &mut sending => match sent {
            Ok(_kept) => receiving.await,
            // The node usually says why before it closes.
            Err(failure) => match receiving.await {
                Err(Failure::Control(error)) if error.kind != ErrorKind::Cancelled => Err(error.into()),
                _ => Err(failure),
            },
        },
    }
}

/// Reads lines until the end, a line that is too long, or nobody listens.
fn read_lines(input: impl Read, to_send: &mpsc::Sender<ReadLine>) {
    let mut input = BufReader::with_capacity(256 * 1024, input);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = match (&mut input)
            .take(MAX_LINE as u64 + 1)
            .read_until(b'\n', &mut line)
        {
            Ok(0) => return,
            Ok(_) if line.len() > MAX_LINE => {
                let error =
                    ControlError::usage("the line is too long; the lines after it were not read")
                        .with_code("too-large");
                let _ = to_send.blocking_send((number, Err(error.into())));
                return;
            }
            Ok(_) if line.trim_ascii().is_empty() => continue,
            Ok(_) => parse(&line),
            Err(error) => {
                let error = ControlError::io("read the lines", &error);
                let _ = to_send.blocking_send((number, Err(error.into())));
                return;
            }
        };
        if to_send.blocking_send((number, read)).is_err() {
            return;
        }
    }
}

fn parse(line: &[u8]) -> Result<(DocLine, usize), Refused> {
    let why = match serde_json::from_slice::<DocLine>(line) {
        Ok(parsed) if parsed.value.is_object() => return Ok((parsed, line.len())),
        Ok(_) => "the value is no JSON object".to_owned(),
        Err(error) => format!("not {{\"doctype\",\"id\",\"value\"}}: {error}"),
    };
    // Whoever matches answers with lines by name should find this one too.
    let read: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let text = |name: &str| read.get(name)?.as_str().map(str::to_owned);
    Err(Refused {
        doctype: text("doctype"),
        id: text("id"),
        error: ControlError::usage(why),
    })
}

/// Sends lines as they come, those that have come meanwhile together.
async fn send(
    mut writer: CallWriter,
    mut lines: mpsc::Receiver<ReadLine>,
    sent: mpsc::Sender<Pending>,
) -> Result<CallWriter, Failure> {
    let mut next = lines.recv().await;
    while next.is_some() {
        let mut piece = Vec::new();
        let mut bytes = 0;
        while let Some((line, read)) = next.take() {
            let refused = match read {
                Ok((document, size)) => {
                    piece.push((line, document));
                    bytes += size;
                    None
                }
                Err(error) => Some(error),
            };
            let ends_piece = refused.is_some();
            if !piece.is_empty() && (ends_piece || piece.len() >= PIECE || bytes >= PIECE_BYTES) {
                flush(&mut writer, &mut piece, &sent).await?;
                bytes = 0;
            }
            if refused.is_some() {
                announce(&sent, Pending { line, refused }).await?;
            }
            next = lines.try_recv().ok();
        }
        if !piece.is_empty() {
            flush(&mut writer, &mut piece, &sent).await?;
        }
        next = lines.recv().await;
    }
    writer.end().await?;
    Ok(writer)
}

async fn flush(
    writer: &mut CallWriter,
    piece: &mut Vec<(u64, DocLine)>,
    sent: &mpsc::Sender<Pending>,
) -> Result<(), Failure> {
    for (line, _) in piece.iter() {
        let (line, refused) = (*line, None);
        announce(sent, Pending { line, refused }).await?;
    }
    let documents = piece.drain(..).map(|(_, document)| document);
    Ok(writer.lines(documents.collect()).await?)
}

async fn announce(sent: &mpsc::Sender<Pending>, pending: Pending) -> Result<(), Failure> {
    let gone = |_| ControlError::new(ErrorKind::Cancelled, "coffer ended before it answered");
    Ok(sent.send(pending).await.map_err(gone)?)
}

/// Brings lines and acknowledgements together, in order.
async fn receive(
    mut reader: CallReader,
    mut pending: mpsc::Receiver<Pending>,
    report: &mut Report<'_>,
) -> Result<Reply, Failure> {
    let mut acks: VecDeque<Ack> = VecDeque::new();
    let mut reply = None;
    loop {
        let waiting = match pending.try_recv() {
            Ok(waiting) => Some(waiting),
            Err(_) => {
                report.flush()?;
                // While no line is under way the node has nothing to say but an early end: listen for both.
                tokio::select! {
                    waiting = pending.recv() => waiting,
                    message = reader.next(), if reply.is_none() => {
                        take(message?, &mut acks, &mut reply)?;
                        continue;
                    }
                }
            }
        };
        let Some(Pending { line, refused }) = waiting else {
            break;
        };
        report.begin(line);
        match refused {
            Some(Refused { doctype, id, error }) => {
                report.refused(doctype.as_deref(), id.as_deref(), &error)?;
            }
            None => {
                while acks.is_empty() {
                    report.flush()?;
                    if reply.is_some() {
                        return Err(unexpected());
                    }
                    take(reader.next().await?, &mut acks, &mut reply)?;
                }
                if let Some(ack) = acks.pop_front() {
                    report.acknowledged(&ack)?;
                }
            }
        }
    }
    report.flush()?;
    loop {
        match reply {
            Some(reply) => return Ok(reply),
            None => take(reader.next().await?, &mut acks, &mut reply)?,
        }
    }
}

fn take(
    message: FromNode,
    acks: &mut VecDeque<Ack>,
    reply: &mut Option<Reply>,
) -> Result<(), Failure> {
    match message {
        FromNode::Item(Item::Acks(more)) => acks.extend(more),
        FromNode::Reply(last @ Reply::Lines { .. }) => *reply = Some(last),
        FromNode::Progress(_) => {}
        _ => return Err(unexpected()),
    }
    Ok(())
}

/// What is printed: each acknowledgement as JSON, or progress, refused lines and a summary.
struct Report<'a> {
    context: &'a Context,
    each: bool,
    printed: Vec<serde_json::Value>,
    bar: Option<ProgressBar>,
    /// The line that is told of.
    line: u64,
    /// How many were told of.
    done: u64,
    failed: u64,
    first: Option<ControlError>,
}

impl<'a> Report<'a> {
    fn new(context: &'a Context, each: bool) -> Self {
        let bar = (!each && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("documents {spinner} {human_pos} {per_sec}");
            let bar = ProgressBar::no_length()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Report {
            context,
            each,
            printed: Vec::new(),
            bar,
            line: 0,
            done: 0,
            failed: 0,
            first: None,
        }
    }

    fn acknowledged(&mut self, ack: &Ack) -> Result<(), Failure> {
        match &ack.result {
            AckResult::Error(error) => self.refused(Some(&ack.doctype), Some(&ack.id), error),
            AckResult::Revision(revision) => {
                if self.each {
                    let (doctype, id) = (&ack.doctype, &ack.id);
                    self.printed.push(json!({ "line": self.line, "doctype": doctype, "id": id, "revision": revision }));
                }
                Ok(())
            }
        }
    }

    fn refused(
        &mut self,
        doctype: Option<&str>,
        id: Option<&str>,
        error: &ControlError,
    ) -> Result<(), Failure> {
        self.failed += 1;
        self.first.get_or_insert_with(|| error.clone());
        if self.each {
            let line = self.line;
            self.printed
                .push(json!({ "line": line, "doctype": doctype, "id": id, "error": error }));
        } else if self.failed <= TOLD {
            let told = || {
                self.context.output.remark(format_args!(
                    "line {}: {}",
                    self.line,
                    crate::output::shown(&error.message)
                ))
            };
            match &self.bar {
                Some(bar) => bar.suspend(told),
                None => told(),
            }
        }
        Ok(())
    }

    fn begin(&mut self, line: u64) {
        self.line = line;
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.printed.is_empty() {
            return Ok(());
        }
        let result = self.context.output.objects(&self.printed);
        self.printed.clear();
        result
    }

    fn finish(mut self, reply: &Reply) -> Result<(), Failure> {
        self.flush()?;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let Reply::Lines {
            written, unchanged, ..
        } = reply
        else {
            return Err(unexpected());
        };
        if !self.each {
            let output = self.context.output;
            if output.is_json() {
                output.object(
                    &json!({ "written": written, "unchanged": unchanged, "failed": self.failed }),
                )?;
            } else {
                output.line(format_args!(
                    "{} written, {} unchanged",
                    count(*written, "document", "documents"),
                    number(*unchanged)
                ))?;
            }
        }
        match self.first {
            None => Ok(()),
            Some(first) => {
                let message = format!(
                    "{} of {} refused; the first: {}",
                    number(self.failed),
                    count(self.done, "line", "lines"),
                    first.message
                );
                Err(ControlError { message, ..first }.into())
            }
        }
    }
}
