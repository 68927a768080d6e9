//! What `kubectl berth plan` says of files in `src/golden/`, word for word: `NAME.txt` for each case.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::FromArgMatches as _;
use jiff::Timestamp;

use super::{plan, tables};
use crate::args::{self, Cli, Command};
use crate::table::Style;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/golden").join(of)
}

/// What it says to these words, which name files of a folder: the tables and notes, the report, and whether somebody would lose something.
pub fn said(of: &str, words: &str) -> Result<(String, serde_json::Value, bool), String> {
    let folder = folder(of);
    let file = |word: &str| {
        let file = folder.join(word);
        if file.is_file() { file.display().to_string() } else { word.to_owned() }
    };
    let place = |words: &str| words.split(',').map(file).collect::<Vec<_>>().join(",");
    let words = ["kubectl-berth", "plan"].map(str::to_owned).into_iter().chain(words.split_whitespace().map(place));
    let matches = args::command().try_get_matches_from(words).map_err(|error| error.to_string())?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    let Command::Plan(plan_args) = &cli.command else { return Err("no plan".to_owned()) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let planned = runtime.block_on(plan(plan_args, &cli.client, NOW)).map_err(|error| error.to_string())?;
    let mut text = tables(&planned.report, false, Style::Plain);
    for note in planned.notes {
        writeln!(text, "{note}").unwrap();
    }
    let breaks = planned.report.breaks();
    let here = format!("{}/", folder.display());
    Ok((text.replace(&here, ""), serde_json::to_value(planned.report).unwrap(), breaks))
}

/// Whether a file of a folder says that. `BERTH_UPDATE_GOLDEN=1` writes it anew.
pub fn check_file(of: &str, name: &str, text: &str) {
    let file = folder(of).join(name);
    if std::env::var_os("BERTH_UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&file).unwrap_or_default(), "{name}");
}

/// Whether all cases are as their files say: name, words, and whether somebody would lose something.
pub fn check(of: &str, cases: &[(&str, &str, bool)]) {
    for (name, words, breaks) in cases {
        let (text, _, found) = said(of, words).unwrap_or_else(|error| panic!("{name}: {error}"));
        check_file(of, &format!("{name}.txt"), &format!("$ kubectl berth plan {words}\n{text}"));
        assert_eq!(found, *breaks, "{name}");
    }
}
