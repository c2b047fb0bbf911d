//! Small writes of several pieces in one.
//!
//! hyper gives head and body of a message as two pieces, so that neither is copied. A system call that takes pieces costs more than one
//! that takes bytes: 0.2 µs of the 8 µs in which 750 bytes go over the loopback device, and ten times what their copy takes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Pieces that are longer together are written as they are.
const SMALL: usize = 1024;

/// A connection that writes small pieces together.
pub(crate) struct Packed<S>(S);

impl<S> Packed<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Packed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Packed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.0);
        if let [one] = pieces {
            return inner.poll_write(context, one);
        }
        let mut packed = [0; SMALL];
        let mut length = 0;
        for piece in pieces {
            let Some(room) = packed.get_mut(length..length + piece.len()) else {
                return inner.poll_write_vectored(context, pieces);
            };
            room.copy_from_slice(piece);
            length += piece.len();
        }
        inner.poll_write(context, &packed[..length])
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Notes in how many pieces each write came, and takes at most so many bytes of it.
    struct Pieces {
        writes: Vec<(usize, Vec<u8>)>,
        takes: usize,
    }

    impl AsyncWrite for Pieces {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.takes);
            self.writes.push((1, bytes[..taken].to_vec()));
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            let taken = whole.len().min(self.takes);
            self.writes.push((pieces.len(), whole[..taken].to_vec()));
            Poll::Ready(Ok(taken))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// In how many pieces these were written, with what was taken of them.
    fn written(pieces: &[&[u8]], takes: usize) -> (usize, Vec<u8>) {
        let mut packed = Packed::new(Pieces { writes: Vec::new(), takes });
        let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let wrote = Pin::new(&mut packed).poll_write_vectored(&mut Context::from_waker(Waker::noop()), &pieces);
        let [write] = <[_; 1]>::try_from(packed.0.writes).expect("one write");
        assert!(matches!(wrote, Poll::Ready(Ok(taken)) if taken == write.1.len()), "{wrote:?}");
        write
    }

    #[test]
    fn small_pieces_are_written_in_one_and_large_ones_as_they_are() {
        assert_eq!(written(&[b"head", b"", b"body"], 99), (1, b"headbody".to_vec()));
        assert_eq!(written(&[b"head", b"body"], 6), (1, b"headbo".to_vec()), "no more is told than was taken");
        let (large, rest) = (vec![b'x'; SMALL], vec![b'y'; 1]);
        assert_eq!(written(&[&large], 9999), (1, large.clone()), "one piece needs no copy");
        assert_eq!(written(&[&large[1..], &rest], 9999), (1, [&large[1..], &rest].concat()), "the most that is packed");
        assert_eq!(written(&[&large, &rest], 9999), (2, [large.clone(), rest].concat()));
        assert_eq!(written(&[], 9).1, b"");
    }
}
