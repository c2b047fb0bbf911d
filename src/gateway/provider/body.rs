//! The body of an answer, unpacked where a server packs what nobody asked it to pack.
//!
//! reqwest unpacks what bears the usual names. Left to us are other names and spellings of gzip, and `deflate`, by which some
//! servers mean zlib's form and some the bare one.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use reqwest::Response;
use reqwest::header::CONTENT_ENCODING;

use super::error::ModelError;

/// What one piece may become, in bytes: far more than any piece of an answer, and less than would hurt.
const PIECE_LIMIT: usize = 16 << 20;

pub(super) struct Body {
    response: Response,
    packed: Option<Packed>,
}

impl Body {
    pub(super) fn of(response: Response) -> Self {
        let coding = response.headers().get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        let packed = coding.and_then(Packed::of);
        Self { response, packed }
    }

    /// The next piece; `None` at the end. A piece may be empty.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ModelError> {
        let chunk = self.response.chunk().await.map_err(|error| ModelError::from_transport(&error.without_url()))?;
        match (&mut self.packed, chunk) {
            (Some(packed), Some(bytes)) => {
                let unpacked = packed.push(&bytes);
                unpacked.map(|bytes| Some(bytes.into())).map_err(|_| ModelError::undecodable())
            }
            (_, chunk) => Ok(chunk),
        }
    }
}

/// Packed bytes on their way.
enum Packed {
    Gzip(MultiGzDecoder<Piece>),
    /// Its first two bytes tell which form it has.
    Deflate(Vec<u8>),
    Zlib(ZlibDecoder<Piece>),
    Bare(DeflateDecoder<Piece>),
}

impl Packed {
    fn of(coding: &str) -> Option<Self> {
        match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip(MultiGzDecoder::new(Piece::default()))),
            "deflate" => Some(Self::Deflate(Vec::new())),
            _ => None,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        if let Self::Deflate(head) = self {
            head.extend_from_slice(bytes);
            let [first, second, ..] = head[..] else { return Ok(Vec::new()) };
            let is_zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31);
            let head = std::mem::take(head);
            *self = if is_zlib {
                Self::Zlib(ZlibDecoder::new(Piece::default()))
            } else {
                Self::Bare(DeflateDecoder::new(Piece::default()))
            };
            return self.push(&head);
        }
        match self {
            Self::Gzip(decoder) => {
                unpack(decoder, bytes)?;
                Ok(decoder.get_mut().take())
            }
            Self::Zlib(decoder) => {
                unpack(decoder, bytes)?;
                Ok(decoder.get_mut().take())
            }
            Self::Bare(decoder) => {
                unpack(decoder, bytes)?;
                Ok(decoder.get_mut().take())
            }
            Self::Deflate(_) => Ok(Vec::new()),
        }
    }
}

fn unpack(decoder: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match decoder.write(bytes)? {
            // What comes behind the end is no part of it.
            0 => break,
            taken => bytes = &bytes[taken..],
        }
    }
    // An event must not wait for the next one.
    decoder.flush()
}

/// Where unpacked bytes go.
#[derive(Default)]
struct Piece(Vec<u8>);

impl Piece {
    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Write for Piece {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > PIECE_LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = b"data: one\n\ndata: two\n\n";

    fn packed<W: Write>(mut encoder: W, finish: impl Fn(W) -> io::Result<Vec<u8>>) -> Vec<u8> {
        encoder.write_all(TEXT).unwrap();
        finish(encoder).unwrap()
    }

    #[test]
    fn every_form_is_unpacked_however_it_is_cut() {
        let level = Compression::default();
        let gzip = packed(GzEncoder::new(Vec::new(), level), GzEncoder::finish);
        let zlib = packed(ZlibEncoder::new(Vec::new(), level), ZlibEncoder::finish);
        let bare = packed(DeflateEncoder::new(Vec::new(), level), DeflateEncoder::finish);
        for (coding, packed) in
            [("x-gzip", &gzip), ("GZip", &gzip), ("deflate", &zlib), ("deflate", &bare), (" Deflate ", &bare)]
        {
            for size in [1, 2, 7, packed.len()] {
                let mut unpacking = Packed::of(coding).unwrap();
                let pieces = packed.chunks(size).flat_map(|piece| unpacking.push(piece).unwrap());
                assert_eq!(pieces.collect::<Vec<u8>>(), TEXT, "{coding} by {size}");
            }
        }
        assert!(Packed::of("identity").is_none() && Packed::of("br").is_none());
        assert!(Packed::of("x-gzip").unwrap().push(b"{\"choices\": []}").is_err());
    }

    #[test]
    fn an_event_does_not_wait_for_the_next_one() {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(TEXT).unwrap();
        encoder.flush().unwrap();
        assert_eq!(Packed::of("deflate").unwrap().push(encoder.get_ref()).unwrap(), TEXT);
    }

    #[test]
    fn a_piece_that_becomes_too_much_is_refused() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&vec![0; PIECE_LIMIT + 1]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(Packed::of("deflate").unwrap().push(&bomb).is_err());
    }
}
