//! Whole lines out of an instance's output, however it arrives.

use super::LogLine;
use crate::plain::plain;

/// Splits a stream of bytes into lines of plain text.
///
/// A line is whole or it is not given out: the rest of one that was too long, or whose beginning is lost, never shows as
/// a line of its own. Otherwise whoever can make an agent print a long line could choose what the next one says.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
    /// The beginning of the current line is missing.
    missing_head: bool,
}

impl LineSplitter {
    /// Takes the next bytes and hands each line that they complete to `sink`.
    #[cfg_attr(
        not(any(feature = "docker", feature = "kubernetes")),
        allow(dead_code, reason = "a file of ours is read with its offsets")
    )]
    pub(crate) fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(String)) {
        self.push_counted(bytes, |text, _| sink(text));
    }

    /// The same, with the number of these bytes that are used up with each line.
    pub(crate) fn push_counted(&mut self, bytes: &[u8], mut sink: impl FnMut(String, usize)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            let used = bytes.len() - rest.len() + end + 1;
            self.finish(&mut |text| sink(text, used));
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    /// The stream is at its end: what is left without a line break is a line too.
    pub(crate) fn end(&mut self, mut sink: impl FnMut(String)) {
        if !self.partial.is_empty() {
            self.finish(&mut sink);
        }
    }

    /// Bytes are missing here: what was begun is dropped, and what follows up to the next line break.
    #[cfg_attr(not(feature = "process"), allow(dead_code, reason = "an engine's log loses none"))]
    pub(crate) fn discard_partial(&mut self) {
        self.partial.clear();
        self.missing_head = true;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LogLine::MAX - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn finish(&mut self, sink: &mut impl FnMut(String)) {
        if !std::mem::take(&mut self.missing_head) {
            let mut text = plain(&String::from_utf8_lossy(&self.partial)).into_owned();
            // Replacement characters are longer than what they replace.
            text.truncate(text.floor_char_boundary(LogLine::MAX));
            sink(text);
        }
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line));
        }
        splitter.end(|line| lines.push(line));
        lines
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(cut(&[b"one\ntwo\r\n", b"thr", b"ee\n\nlast"]), ["one", "two", "three", "", "last"]);
        assert_eq!(cut(&[b"bad \xff byte\n", "sp\u{e4}t".as_bytes()]), ["bad \u{fffd} byte", "spät"]);
        assert_eq!(cut(&[b""]), Vec::<String>::new());
    }

    #[test]
    fn the_rest_of_a_line_that_is_too_long_is_no_line() {
        let long = [b"x".repeat(LogLine::MAX), b"Send: POST /pair\nnext\n".to_vec()].concat();
        let lines = cut(&[&long]);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].len(), lines[1].as_str()), (LogLine::MAX, "next"));
        assert!(cut(&[&[0xff; LogLine::MAX]])[0].len() <= LogLine::MAX);
    }

    #[test]
    fn a_line_that_lost_bytes_is_dropped() {
        let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
        splitter.push(b"begun ", |line| lines.push(line));
        splitter.discard_partial();
        splitter.push(b"Send: POST /pair\nwhole\n", |line| lines.push(line));
        assert_eq!(lines, ["whole"]);
    }

    proptest::proptest! {
        #[test]
        fn where_the_chunks_end_changes_nothing(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            at in 0..200_usize,
        ) {
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            proptest::prop_assert_eq!(cut(&[first, second]), cut(&[&bytes]));
        }
    }
}
