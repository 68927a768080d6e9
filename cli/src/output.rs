//! The one place that writes to stdout and stderr.
//!
//! Data goes to stdout, all else to stderr. A reader that went away (`kubectl berth status | head`) is no failure.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::table::Style;

/// Writes data to stdout.
pub fn data(text: &str) -> io::Result<()> {
    unless_nobody_reads(write_all(io::stdout().lock(), text))
}

/// Writes a line to stderr. Where it cannot be written there is nobody to tell.
pub fn note(line: impl Display) {
    let _ = write_all(io::stderr().lock(), &format!("{line}\n"));
}

/// Why a person could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// Nobody is there.
    #[error("nobody can be asked, because standard input is no terminal; give --yes to do it all the same")]
    NoTerminal,
    /// It cannot be read.
    #[error("the answer cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Asks a person. Anything but a clear yes is a no.
pub fn confirm(question: &str) -> Result<bool, ConfirmError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(ConfirmError::NoTerminal);
    }
    let _ = write_all(io::stderr().lock(), &format!("{question} [y/N] "));
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// How stdout is to look: coloured on a terminal whose user did not ask for none (<https://no-color.org>).
pub fn style() -> Style {
    let said = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if io::stdout().is_terminal() && !said("NO_COLOR") && !dumb { Style::Coloured } else { Style::Plain }
}

fn write_all(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
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
    fn only_a_clear_yes_is_one() {
        for (answer, yes) in
            [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("yep\n", false), ("n\n", false)]
        {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is_one() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let written = write_all(writer, "x");
        assert_eq!(written.as_ref().unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(unless_nobody_reads(written).is_ok());
        assert!(unless_nobody_reads(Err(ErrorKind::StorageFull.into())).is_err());
    }
}
