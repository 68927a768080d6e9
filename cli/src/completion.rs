//! Completion: scripts for shells, and the answers that kubectl's own completion asks plugins for.
//!
//! kubectl completes `kubectl berth ...` by starting a program `kubectl_complete-berth` with the words behind `berth`, and reads candidates,
//! one a line, and last a line `:N`, where N says what the shell is to do besides. The same program does both, by its name.

use clap::Command;
use clap_complete::generate;

use crate::args::{self, Shell};

/// What kubectl looks for on the PATH.
const KUBECTL_NAME: &str = "kubectl_complete-berth";
/// "Offer no files": what follows `berth` never is one, but for the values of a few flags.
const NO_FILES: &str = ":4";
/// "Do what you would without us", which is to offer files.
const FILES: &str = ":0";
/// Flags whose value is a file.
const FILE_FLAGS: [&str; 6] =
    ["--kubeconfig", "--certificate-authority", "--client-certificate", "--client-key", "--filename", "--observed"];

/// The script of a shell.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut command = args::command().bin_name("kubectl-berth");
    let mut out = Vec::new();
    match shell {
        Shell::Bash => generate(clap_complete::Shell::Bash, &mut command, "kubectl-berth", &mut out),
        Shell::Zsh => generate(clap_complete::Shell::Zsh, &mut command, "kubectl-berth", &mut out),
        Shell::Fish => generate(clap_complete::Shell::Fish, &mut command, "kubectl-berth", &mut out),
        Shell::Power => generate(clap_complete::Shell::PowerShell, &mut command, "kubectl-berth", &mut out),
    }
    out
}

/// Whether the program was called by the name that kubectl's completion looks for.
pub fn is_asked_by_kubectl(program: &str) -> bool {
    let file = program.rsplit(['/', '\\']).next().unwrap_or(program);
    file == KUBECTL_NAME || file == format!("{KUBECTL_NAME}.exe")
}

/// What is offered after `words`, of which the last is the one that is being typed.
pub fn candidates(words: &[String]) -> String {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut root = args::command();
    root.build();
    let mut command = &root;
    for word in before {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let (mut offers, files) = match before.last().and_then(|flag| flag_with_value(command, flag)) {
        Some(flag) => (values(flag), FILE_FLAGS.iter().any(|name| Some(*name) == long(flag).as_deref())),
        None if typed.starts_with('-') => (flags(command), false),
        None => (words_of(command), false),
    };
    offers.retain(|offer| offer.starts_with(typed));
    offers.push(if files { FILES } else { NO_FILES }.to_owned());
    offers.join("\n") + "\n"
}

fn long(argument: &clap::Arg) -> Option<String> {
    argument.get_long().map(|name| format!("--{name}"))
}

/// The flag that a word is, when its value is the next word.
fn flag_with_value<'a>(command: &'a Command, word: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().filter(|argument| argument.get_action().takes_values()).find(|argument| {
        long(argument).as_deref() == Some(word) || argument.get_short().is_some_and(|short| word == format!("-{short}"))
    })
}

fn values(argument: &clap::Arg) -> Vec<String> {
    argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
}

fn flags(command: &Command) -> Vec<String> {
    command.get_arguments().filter(|argument| !argument.is_positional()).filter_map(long).collect()
}

/// Subcommands, and what a positional argument may be.
fn words_of(command: &Command) -> Vec<String> {
    let subcommands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let subcommands = subcommands.map(|command| command.get_name().to_owned());
    subcommands.chain(command.get_positionals().flat_map(values)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Vec<String> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        candidates(&words).lines().map(str::to_owned).collect()
    }

    #[test]
    fn kubectl_is_offered_what_may_follow() {
        for (line, expected) in [
            ("", &["status", "plan", "simulate", "drain", "rebalance", "orphans", "version", "completion", ":4"][..]),
            ("st", &["status", ":4"]),
            ("status --all", &["--all-namespaces", ":4"]),
            ("status -o ", &["json", "yaml", "wide", ":4"]),
            ("version --output y", &["yaml", ":4"]),
            ("completion ", &["bash", "zsh", "fish", "powershell", ":4"]),
            ("status ", &[":4"]),
            ("status --kubeconfig ", &[":0"]),
            ("plan -f ", &[":0"]),
            ("plan --off", &["--offline", ":4"]),
            ("-n shop st", &["status", ":4"]),
            ("version --cli", &["--client", "--client-certificate", "--client-key", ":4"]),
        ] {
            assert_eq!(offered(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_program_knows_when_kubectl_asks() {
        for (program, expected) in [
            ("kubectl_complete-berth", true),
            ("/usr/local/bin/kubectl_complete-berth", true),
            ("/usr/local/bin/kubectl-berth", false),
        ] {
            assert_eq!(is_asked_by_kubectl(program), expected, "{program}");
        }
    }

    #[test]
    fn every_shell_has_a_script_that_knows_the_subcommands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Power] {
            let script = String::from_utf8(script(shell)).unwrap();
            for word in ["kubectl-berth", "status", "all-namespaces", "request-timeout"] {
                assert!(script.contains(word), "{shell:?} does not know {word}");
            }
        }
    }
}
