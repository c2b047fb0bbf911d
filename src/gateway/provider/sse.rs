//! Server-sent events as model servers send them: only the `data:` lines matter, in whatever pieces they arrive.

use std::time::Duration;

use reqwest::Response;
use tokio::sync::mpsc;

use super::{Completion, ModelError};

/// Longest line that is kept, in bytes.
const LINE_LIMIT: usize = 1 << 20;
/// Longest silence within a stream. Models think before the first word, rarely between two.
const SILENCE: Duration = Duration::from_secs(90);

/// Puts an answer together from its events.
pub(super) trait Assembler {
    /// Takes one event; what it adds to the text is returned.
    fn event(&mut self, data: &str) -> Result<Option<String>, ModelError>;

    /// The whole answer.
    ///
    /// # Errors
    /// When the stream ended before the answer did.
    fn finish(self) -> Result<Completion, ModelError>;
}

/// Reads a stream to its end, and passes each piece of text on as it comes.
pub(super) async fn read(
    mut response: Response,
    mut assembler: impl Assembler,
    deltas: &mpsc::Sender<String>,
) -> Result<Completion, ModelError> {
    let mut lines = Lines::default();
    loop {
        let chunk = tokio::time::timeout(SILENCE, response.chunk()).await;
        let chunk = chunk.map_err(|_| ModelError::Garbage("its stream fell silent"))?;
        let Some(chunk) = chunk.map_err(|error| ModelError::Broken(error.without_url()))? else { break };
        lines.push(&chunk)?;
        while let Some(line) = lines.next() {
            let Some(data) = line.strip_prefix("data:") else { continue };
            if let Some(text) = assembler.event(data.trim())? {
                // Nobody listens any more: the answer is still worth having whole.
                let _ = deltas.send(text).await;
            }
        }
    }
    assembler.finish()
}

/// Lines out of pieces.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    start: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Result<(), ModelError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.len() + piece.len() > LINE_LIMIT {
            return Err(ModelError::Garbage("a line of its stream is too long"));
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole line, without its end. A line that is not UTF-8 comes out repaired: half a character is never
    /// seen here, since a line is cut only at its end.
    fn next(&mut self) -> Option<String> {
        let rest = &self.buffer[self.start..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&rest[..end]).trim_end_matches('\r').to_owned();
        self.start += end + 1;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_pieces() {
        let text = "data: é1\r\n\r\ndata: 2\n";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut seen = vec![];
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece).unwrap();
                seen.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(seen, ["data: é1", "", "data: 2"], "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        assert!((0..2000).any(|_| lines.push(&[b'x'; 1024]).is_err()));
    }
}
