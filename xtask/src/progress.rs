//! What a person sees while something runs: one line says what happens, the next what was seen. On stderr, always.

use std::env;
use std::fmt::Display;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_lab::{Launch, SharedProgress};

use crate::output;

/// Milliseconds that had passed when a process handed its progress on to the first process of a lab.
const ELAPSED_VARIABLE: &str = "BERTH_XTASK_ELAPSED_MS";
/// Asks for colour although the output goes through a pipe; what many programs understand.
const FORCE_COLOUR_VARIABLE: &str = "CLICOLOR_FORCE";

/// Writes progress. Reads well without colour; colour only for a terminal and only when `NO_COLOR` is not set.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    started: Instant,
    colour: bool,
}

impl Progress {
    /// Starts the clock that the lines show, or goes on with that of the process which started this one.
    pub fn start() -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let before = env::var(ELAPSED_VARIABLE).ok().and_then(|text| text.parse().ok()).map(Duration::from_millis);
        let now = Instant::now();
        Self {
            started: before.and_then(|before| now.checked_sub(before)).unwrap_or(now),
            colour: !set("NO_COLOR") && (set(FORCE_COLOUR_VARIABLE) || std::io::stderr().is_terminal()),
        }
    }

    /// Lets the first process of a lab go on with this progress.
    pub fn hand_on<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        let launch = launch.env(ELAPSED_VARIABLE, self.elapsed().as_millis().to_string());
        if self.colour { launch.env(FORCE_COLOUR_VARIABLE, "1") } else { launch }
    }

    /// Tells of the lab's own steps, too.
    pub fn shared(&self) -> SharedProgress {
        Arc::new(*self)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Says what happens next.
    pub fn step(&self, what: impl Display) {
        output::line(format_args!("{} {}", self.dim(format!("{:>6}", seconds(self.elapsed()))), self.bold(what)));
    }

    /// Says what was seen.
    pub fn seen(&self, what: impl Display) {
        output::line(format_args!("       {} {what}", self.green("->")));
    }

    /// Says something that explains the lines around it.
    pub fn note(&self, what: impl Display) {
        output::line(format_args!("          {}", self.dim(what)));
    }

    fn bold(&self, text: impl Display) -> String {
        self.painted("1", text)
    }

    fn dim(&self, text: impl Display) -> String {
        self.painted("2", text)
    }

    fn green(&self, text: impl Display) -> String {
        self.painted("32", text)
    }

    fn painted(&self, code: &str, text: impl Display) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_string() }
    }
}

impl berth_lab::Progress for Progress {
    fn finished(&self, what: &str, took: Duration) {
        self.note(format_args!("{what}: {}", seconds(took)));
    }
}

/// `4.2s`, `3m07s`: short, and as exact as a person cares.
pub fn seconds(duration: Duration) -> String {
    let total = duration.as_secs();
    if total < 60 { format!("{:.1}s", duration.as_secs_f64()) } else { format!("{}m{:02}s", total / 60, total % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_a_person_would_say_them() {
        for (millis, text) in [(0, "0.0s"), (4_240, "4.2s"), (59_949, "59.9s"), (60_000, "1m00s"), (187_400, "3m07s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn without_colour_there_is_no_escape_sequence() {
        let plain = Progress { started: Instant::now(), colour: false };
        assert_eq!(plain.bold("x"), "x");
        assert_eq!(Progress { colour: true, ..plain }.bold("x"), "\u{1b}[1mx\u{1b}[0m");
    }
}
