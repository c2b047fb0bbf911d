//! What an I/O error means for a call of the runtime.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::runtime::RuntimeError;

/// Why a program could not be started.
pub(super) fn not_started(program: &Path, error: &io::Error) -> RuntimeError {
    let what = format!("cannot run {}: {error}", program.display());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
            RuntimeError::Invalid(what)
        }
        io::ErrorKind::WouldBlock => RuntimeError::Capacity(what),
        _ if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => RuntimeError::Invalid(what),
        _ => failed("cannot start the instance")(io::Error::new(error.kind(), what)),
    }
}

/// What an I/O error means for the call that met it.
pub(super) fn failed(what: &'static str) -> impl Fn(io::Error) -> RuntimeError {
    move |error| {
        let text = format!("{what}: {error}");
        let out_of_descriptors =
            [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory => {
                RuntimeError::Capacity(text)
            }
            io::ErrorKind::InvalidInput => RuntimeError::Invalid(text),
            _ if out_of_descriptors => RuntimeError::Capacity(text),
            _ => RuntimeError::Unavailable(text),
        }
    }
}

/// What is not there need not be removed.
pub(super) fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_machine_is_told_apart_from_a_broken_one() {
        for (errno, capacity) in
            [(Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::MFILE, true), (Errno::NOMEM, true), (Errno::IO, false)]
        {
            let error = failed("cannot write")(errno.into());
            assert_eq!(matches!(error, RuntimeError::Capacity(_)), capacity, "{error:?}");
            assert_eq!(matches!(error, RuntimeError::Unavailable(_)), !capacity, "{error:?}");
        }
    }

    #[test]
    fn a_program_that_can_never_run_is_told_apart_from_a_machine_that_cannot_run_it_now() {
        for (errno, invalid) in [
            (Errno::NOENT, true),
            (Errno::ACCESS, true),
            (Errno::NOEXEC, true),
            (Errno::AGAIN, false),
            (Errno::NOMEM, false),
        ] {
            let error = not_started(Path::new("/x"), &errno.into());
            assert_eq!(matches!(error, RuntimeError::Invalid(_)), invalid, "{error:?}");
            assert_eq!(matches!(error, RuntimeError::Capacity(_)), !invalid, "{error:?}");
        }
    }
}
