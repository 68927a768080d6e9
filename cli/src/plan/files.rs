//! The texts that are named on the command line, as kubectl takes them: files, directories, standard input.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What kubectl takes for a manifest in a directory.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];
/// Standard input.
const STDIN: &str = "-";

/// A text, and what it is called in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path, or `standard input`.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// Why a text cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened, or is no text.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A directory without manifests.
    #[error(
        "the directory {0} has no file that ends in .json, .yaml or .yml; name another, or look into those below it with -R"
    )]
    Empty(String),
    /// An address on the web.
    #[error("{0} is not fetched; fetch it first: curl -fsSL {0} | kubectl berth plan -f -")]
    Url(String),
    /// Standard input can be read once.
    #[error("standard input is named twice; name it once")]
    StdinTwice,
}

/// Reads what is named, in its order; the files of a directory by name.
pub fn read(names: &[String], recursive: bool) -> Result<Vec<Source>, FileError> {
    let names: Vec<&str> = names.iter().flat_map(|name| listed(name)).collect();
    if names.iter().filter(|name| **name == STDIN).count() > 1 {
        return Err(FileError::StdinTwice);
    }
    let mut sources = Vec::new();
    for name in names {
        let unreadable = |source| FileError::Unreadable { path: name.to_owned(), source };
        if name == STDIN {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text).map_err(unreadable)?;
            sources.push(Source { name: "standard input".to_owned(), text });
        } else if name.starts_with("http://") || name.starts_with("https://") {
            return Err(FileError::Url(name.to_owned()));
        } else if fs::metadata(name).map_err(unreadable)?.is_dir() {
            let mut paths = Vec::new();
            manifests(Path::new(name), recursive, &mut paths).map_err(unreadable)?;
            if paths.is_empty() {
                return Err(FileError::Empty(name.to_owned()));
            }
            for path in paths {
                sources.push(file(&path)?);
            }
        } else {
            sources.push(file(Path::new(name))?);
        }
    }
    Ok(sources)
}

/// Several names may be separated by commas, as kubectl has it; a comma may also be in a name.
fn listed(name: &str) -> Vec<&str> {
    if !name.contains(',') || Path::new(name).exists() { vec![name] } else { name.split(',').collect() }
}

/// Reads a file.
pub fn file(path: &Path) -> Result<Source, FileError> {
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Ok(Source { name, text }),
        Err(source) => Err(FileError::Unreadable { path: name, source }),
    }
}

fn manifests(folder: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if recursive {
                manifests(&path, recursive, found)?;
            }
        } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known)) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_its_manifests_by_name_and_those_below_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("below")).unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "README.md", "below/d.yaml"] {
            fs::write(at(name), name).unwrap();
        }
        let root = folder.path().display().to_string();
        for (recursive, expected) in
            [(false, &["a.yml", "b.yaml", "c.json"][..]), (true, &["a.yml", "b.yaml", "below/d.yaml", "c.json"])]
        {
            let texts: Vec<_> =
                read(std::slice::from_ref(&root), recursive).unwrap().into_iter().map(|s| s.text).collect();
            assert_eq!(texts, expected);
        }
    }

    #[test]
    fn names_may_be_separated_by_commas_unless_a_file_is_called_so() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["a.yaml", "b.yaml", "c,d.yaml"] {
            fs::write(at(name), name).unwrap();
        }
        let both = format!("{},{}", at("a.yaml"), at("b.yaml"));
        for (name, expected) in [(both, &["a.yaml", "b.yaml"][..]), (at("c,d.yaml"), &["c,d.yaml"])] {
            let texts: Vec<_> = read(&[name], false).unwrap().into_iter().map(|source| source.text).collect();
            assert_eq!(texts, expected);
        }
        let missing = read(&[format!("{},{}", at("a.yaml"), at("e.yaml"))], false).unwrap_err().to_string();
        assert!(missing.starts_with(&format!("{} cannot be read", at("e.yaml"))), "{missing}");
    }

    #[test]
    fn what_cannot_be_read_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display().to_string();
        fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
        for (names, says) in [
            (&["/nowhere/pools.yaml"][..], "/nowhere/pools.yaml cannot be read: No such file".to_owned()),
            (&[root.as_str()], format!("the directory {root} has no file that ends in")),
            (&[&format!("{root}/binary")], "binary cannot be read: stream did not contain valid UTF-8".to_owned()),
            (
                &["https://example.com/a.yaml"],
                "curl -fsSL https://example.com/a.yaml | kubectl berth plan -f -".to_owned(),
            ),
            (&["-", "-"], "standard input is named twice".to_owned()),
        ] {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            let error = read(&names, false).unwrap_err().to_string();
            assert!(error.contains(&says), "{error}");
        }
    }
}
