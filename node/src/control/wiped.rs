//! A buffer between a socket and who reads lines from it that forgets what was read: it may have been a passphrase or the
//! recovery words.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use zeroize::Zeroize;

/// Reads through a buffer of fixed size, of which each part is wiped once it was consumed.
pub(crate) struct Wiped<R> {
    input: R,
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl<R> Wiped<R> {
    /// With a buffer of so many bytes.
    pub(crate) fn with_capacity(capacity: usize, input: R) -> Self {
        Wiped {
            input,
            buffer: vec![0; capacity].into_boxed_slice(),
            from: 0,
            to: 0,
        }
    }
}

impl<R> Drop for Wiped<R> {
    fn drop(&mut self) {
        self.buffer[self.from..self.to].zeroize();
    }
}

impl<R: AsyncRead + Unpin> AsyncBufRead for Wiped<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.from == this.to {
            let mut space = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.input).poll_read(cx, &mut space))?;
            let read = space.filled().len();
            (this.from, this.to) = (0, read);
        }
        Poll::Ready(Ok(&this.buffer[this.from..this.to]))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        let end = this.to.min(this.from + amount);
        this.buffer[this.from..end].zeroize();
        this.from = end;
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Wiped<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let available = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = available.len().min(space.remaining());
        space.put_slice(&available[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt};

    use super::*;

    #[tokio::test]
    async fn what_was_consumed_is_in_the_buffer_no_more_and_all_of_it_arrives() {
        let text = b"first\nsecond\nthird";
        for capacity in [1, 3, 7, 64] {
            let mut reader = Wiped::with_capacity(capacity, &text[..]);
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line).await.unwrap();
            assert_eq!(line, b"first\n");
            assert!(reader.buffer[..reader.from].iter().all(|byte| *byte == 0));
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"second\nthird");
            assert!(reader.buffer.iter().all(|byte| *byte == 0));
        }
    }
}
