//! How little an idle agent holds of the machine's memory.
//!
//! Most of what a gateway has in memory is code of its own program that ran once: to start, to shake hands with a
//! model, to open a database. Whenever it falls idle it gives those pages back. They are unchanged copies of a file,
//! mostly still in the page cache for all agents together, and each one that is needed again comes back by itself.

use std::time::Duration;

use tokio::sync::Notify;

/// Without a request for so long, an agent is idle. A conversation goes on faster, and what an idle agent needs anew for
/// a request comes back in a fraction of a millisecond.
const QUIET: Duration = Duration::from_secs(2);

/// Stays small for ever; `requests` tells of each one.
pub(super) async fn stay_small(requests: &Notify) {
    // Once: what is mapped later (another thread's stack, a database) is not the program's code.
    let code = match std::fs::read_to_string("/proc/self/smaps") {
        Ok(smaps) => unchanged(&smaps),
        Err(error) => return tracing::debug!(%error, "the system does not say what this program has mapped"),
    };
    loop {
        if let Err(error) = give_back(&code) {
            return tracing::debug!(%error, "the system takes no pages back");
        }
        requests.notified().await;
        while tokio::time::timeout(QUIET, requests.notified()).await.is_ok() {}
    }
}

/// A stretch of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe interface tells the kernel that pages are not needed")]
fn give_back(code: &[Span]) -> std::io::Result<()> {
    use rustix::mm::{Advice, madvise};
    for &Span { start, end } in code {
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: nothing may write there and no page differs from the file, so what is read there stays the same; and no
        // library is ever unloaded, so nothing else is there.
        unsafe { madvise(address, end - start, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// Elsewhere there is no list of mappings either.
#[cfg(not(target_os = "linux"))]
fn give_back(_: &[Span]) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// The parts of files that nobody may write to and of which no page has become this process's own, as relocated ones
/// have. `smaps` is written as in proc_pid_smaps(5).
fn unchanged(smaps: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(span) = mapping(line) {
            candidate = span;
        } else if let Some(own) = line.strip_prefix("Anonymous:") {
            spans.extend(candidate.take().filter(|_| own.trim() == "0 kB"));
        }
    }
    spans
}

/// Whether a line begins a mapping, and if so its span where that is a part of a file which nobody may write to.
#[expect(clippy::option_option, reason = "a line that begins nothing is not one that begins something of no use")]
fn mapping(line: &str) -> Option<Option<Span>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hexadecimal = |text| usize::from_str_radix(text, 16).ok();
    let span = Span { start: hexadecimal(start)?, end: hexadecimal(end)? };
    let rights = words.next()?;
    let of_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    Some((of_file && rights.starts_with('r') && rights[1..].starts_with('-')).then_some(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 fe:00 7  /usr/bin/agent
Rss:                   8 kB
Anonymous:             0 kB
3000-9000 r-xp 00002000 fe:00 7  /usr/bin/agent (deleted)
Anonymous:             0 kB
VmFlags: rd ex mr mw me
9000-a000 r--p 00008000 fe:00 7  /usr/bin/agent
Anonymous:             4 kB
a000-b000 rw-p 00009000 fe:00 7  /usr/bin/agent
Anonymous:             0 kB
b000-c000 rw-p 00000000 00:00 0  [heap]
Anonymous:             4 kB
c000-d000 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
d000-e000 ---p 00000000 fe:00 9  /lib/libc.so.6
Anonymous:             0 kB
";

    #[test]
    fn only_unchanged_parts_of_files_are_given_back() {
        let spans = [Span { start: 0x1000, end: 0x3000 }, Span { start: 0x3000, end: 0x9000 }];
        assert_eq!(unchanged(SMAPS), spans);
        assert_eq!(unchanged(""), []);
        assert_eq!(unchanged("no mapping\nAnonymous: 0 kB\n"), []);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_goes_on_without_the_pages_it_gave_back() {
        let before = file_pages();
        give_back(&unchanged(&std::fs::read_to_string("/proc/self/smaps").unwrap())).unwrap();
        assert!(file_pages() < before);
        assert_eq!("still here".to_uppercase(), "STILL HERE");
    }

    #[cfg(target_os = "linux")]
    fn file_pages() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }
}
