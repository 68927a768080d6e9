//! The one place that writes to stdout and stderr.
//!
//! A reader that went away (`cargo xtask demo | head`) is no reason to fail: the work goes on, and nobody hears of it.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Writes data for people or programs, and a line break, to stdout.
pub fn data(what: impl Display) -> io::Result<()> {
    unless_nobody_reads(write_line(io::stdout().lock(), what))
}

/// Writes a line of progress, or an error, to stderr. Where it cannot be written there is nobody to tell.
pub fn line(what: impl Display) {
    let _ = write_line(io::stderr().lock(), what);
}

/// In one piece, so that lines of several processes do not mix.
fn write_line(mut to: impl Write, what: impl Display) -> io::Result<()> {
    to.write_all(format!("{what}\n").as_bytes())?;
    to.flush()
}

fn unless_nobody_reads(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is_one() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let written = write_line(writer, "x");
        assert_eq!(written.as_ref().unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(unless_nobody_reads(written).is_ok());
        assert!(unless_nobody_reads(Err(ErrorKind::StorageFull.into())).is_err());
    }

    #[test]
    fn a_line_ends_with_one_line_break() {
        let mut to = Vec::new();
        write_line(&mut to, format_args!("{}-{}", 1, 2)).unwrap();
        assert_eq!(to, b"1-2\n");
    }
}
