//! A process that cannot be mistaken for another: its pid, its start time, and a descriptor that stays with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};

use super::readiness::readable;
use super::table::{Marked, Stat};

/// How often the end of a process is asked for where the kernel cannot tell us: out of descriptors or epoll watches.
const POLL: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) started_ticks: u64,
    descriptor: OwnedFd,
}

impl Process {
    /// A child of ours that nobody has waited for yet, so that its pid cannot have gone to another.
    pub(super) fn child(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let descriptor = open(pid)?;
        Ok(Self { pid, started_ticks: Stat::of(pid)?.started_ticks, descriptor })
    }

    /// The process that was found, if it still lives. It is read once more behind the descriptor: as long as that shows
    /// life, the pid has not changed hands.
    pub(super) fn found(found: &Marked) -> Option<Self> {
        let descriptor = open(found.pid).ok()?;
        let again = Marked::read(found.pid)?;
        let same = again.stat.started_ticks == found.stat.started_ticks && again.marker == found.marker;
        let process = Self { pid: found.pid, started_ticks: found.stat.started_ticks, descriptor };
        (same && !process.has_ended()).then_some(process)
    }

    /// A member of the session that `leader` led, if it still is one.
    pub(super) fn member(pid: i32, leader: i32) -> Option<Self> {
        let descriptor = open(pid).ok()?;
        let stat = Stat::of(pid).ok().filter(|stat| stat.session == leader && stat.is_alive())?;
        let process = Self { pid, started_ticks: stat.started_ticks, descriptor };
        (!process.has_ended()).then_some(process)
    }

    /// The process that has this pid, if `is_it` says so once it cannot be mistaken for another any more.
    pub(super) fn checked(pid: i32, is_it: impl FnOnce() -> bool) -> Option<Self> {
        let descriptor = open(pid).ok()?;
        let stat = Stat::of(pid).ok().filter(Stat::is_alive)?;
        let process = Self { pid, started_ticks: stat.started_ticks, descriptor };
        (is_it() && !process.has_ended()).then_some(process)
    }

    /// Sends a signal. A process that is gone is no error.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Blocks until the process has ended, at most for `within`. `false`: it lives.
    pub(super) fn wait(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or_default();
            let mut fds = [PollFd::new(&self.descriptor, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(ready) if ready > 0 => return true,
                Ok(_) | Err(_) if left.is_zero() => return false,
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Resolves when the process has ended.
    pub(super) async fn ended(&self) {
        let watched = self.descriptor.try_clone().and_then(readable);
        if let Ok(watched) = watched
            && watched.readable().await.is_ok()
        {
            return;
        }
        while !self.has_ended() {
            tokio::time::sleep(POLL).await;
        }
    }

    /// Exit status of a child of ours that has ended and was not reaped, 128 + n for signal n; `None` for anyone else's
    /// child.
    pub(super) fn exit_code(&self) -> Option<i32> {
        let status = self.wait_status(WaitIdOptions::NOWAIT)?;
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
    }

    /// Frees what the kernel keeps of a child of ours that has ended. How it ended cannot be asked any more.
    pub(super) fn reap(&self) {
        // Anyone else's child has somebody else who does it.
        let _ = self.wait_status(WaitIdOptions::empty());
    }

    fn wait_status(&self, options: WaitIdOptions) -> Option<WaitIdStatus> {
        let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        waitid(WaitId::PidFd(self.descriptor.as_fd()), options).ok()?
    }
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}
