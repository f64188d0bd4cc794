//! Where manifests come from: files, directories and standard input, read whole and watched for changes.
//!
//! A file that stops being right keeps its last good text; a file that goes away takes its objects with it. This module
//! knows nothing of what the texts mean: [`Sources::judge`] is told which files are wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use manifests::bundle::Input;

/// A path that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct SourceError {
    /// The path as the user wrote it.
    pub path: String,
    /// What the system said.
    pub source: std::io::Error,
}

/// What a path that is not there means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// A mistake.
    Refused,
    /// It has been removed.
    Absent,
}

/// Reads every file of `paths`, in order: a file as it is, a directory's `*.yaml`, `*.yml` and `*.json` (not below
/// it, as `kubectl -f`), `-` as standard input. A file named twice is read once.
///
/// # Errors
/// The first path that cannot be read. A file that vanishes between listing and reading is left out.
pub fn read(paths: &[PathBuf], missing: Missing) -> Result<Vec<Input>, SourceError> {
    let mut inputs = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        let failed = |source| SourceError {
            path: path.display().to_string(),
            source,
        };
        if path == Path::new("-") {
            if seen.insert("-".to_owned()) {
                let mut text = String::new();
                std::io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
                inputs.push(Input {
                    name: "-".to_owned(),
                    text,
                });
            }
        } else if path.is_dir() {
            let mut files: Vec<PathBuf> = std::fs::read_dir(path)
                .map_err(failed)?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|file| is_manifest(file) && file.is_file())
                .collect();
            files.sort();
            for file in files {
                if !seen.insert(file.display().to_string()) {
                    continue;
                }
                match std::fs::read_to_string(&file) {
                    Ok(text) => inputs.push(Input {
                        name: file.display().to_string(),
                        text,
                    }),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(source) => {
                        return Err(SourceError {
                            path: file.display().to_string(),
                            source,
                        });
                    }
                }
            }
        } else if seen.insert(path.display().to_string()) {
            match std::fs::read_to_string(path) {
                Ok(text) => inputs.push(Input {
                    name: path.display().to_string(),
                    text,
                }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && missing == Missing::Absent => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }
    Ok(inputs)
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let known = path
        .extension()
        .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json");
    known && !hidden
}

/// The last good text of every file.
#[derive(Debug, Default)]
pub struct Sources {
    good: BTreeMap<String, String>,
}

/// What became of newly read inputs.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    /// What holds now: right files as they are, wrong ones in their last good form.
    pub inputs: Vec<Input>,
    /// Files that are wrong now and whose last good form is kept.
    pub kept: Vec<String>,
    /// Files that are wrong and never were right: they count for nothing.
    pub ignored: Vec<String>,
}

impl Sources {
    /// Settles what holds, given `wrong(inputs)`: the names of files with a problem. Asked again until what is left has
    /// none, since falling back to an older text of one file can make another one wrong (a name defined twice).
    pub fn judge(&mut self, fresh: Vec<Input>, mut wrong: impl FnMut(&[Input]) -> BTreeSet<String>) -> Judged {
        let mut judged = Judged {
            inputs: fresh,
            kept: Vec::new(),
            ignored: Vec::new(),
        };
        loop {
            let bad = wrong(&judged.inputs);
            if bad.is_empty() {
                break;
            }
            judged.inputs.retain_mut(|input| {
                if !bad.contains(&input.name) {
                    return true;
                }
                match self.good.get(&input.name) {
                    Some(text) if !judged.kept.contains(&input.name) => {
                        input.text.clone_from(text);
                        judged.kept.push(input.name.clone());
                        true
                    }
                    _ => {
                        judged.kept.retain(|name| *name != input.name);
                        judged.ignored.push(input.name.clone());
                        false
                    }
                }
            });
        }
        self.good = judged
            .inputs
            .iter()
            .map(|input| (input.name.clone(), input.text.clone()))
            .collect();
        judged
    }
}

/// What to watch so that a change of `paths` is seen: directories themselves, and the directory of each file, since
/// editors and Kubernetes replace files by renaming. Missing ones are watched through their nearest existing parent.
pub fn watch_points(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    paths
        .iter()
        .filter(|path| *path != Path::new("-"))
        .filter_map(|path| {
            let start = if path.is_dir() {
                Some(path.as_path())
            } else {
                path.parent()
            };
            let start = start.map(|dir| {
                if dir.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    dir
                }
            });
            start?.ancestors().find(|dir| dir.is_dir()).map(Path::to_path_buf)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, text: &str) -> Input {
        Input {
            name: name.into(),
            text: text.into(),
        }
    }

    /// A text is wrong when it says so, or when two files say the same.
    fn wrong(inputs: &[Input]) -> BTreeSet<String> {
        let twice = |i: &&Input| inputs.iter().filter(|other| other.text == i.text).count() > 1;
        inputs
            .iter()
            .filter(|i| i.text.contains("bad") || twice(i))
            .map(|i| i.name.clone())
            .collect()
    }

    #[test]
    fn a_wrong_file_keeps_its_last_good_text_and_a_removed_one_goes() {
        let mut sources = Sources::default();
        let first = sources.judge(vec![input("a", "1"), input("b", "2")], wrong);
        assert_eq!((first.inputs.len(), first.kept.len(), first.ignored.len()), (2, 0, 0));

        let second = sources.judge(vec![input("a", "bad"), input("c", "bad")], wrong);
        assert_eq!(second.inputs, [input("a", "1")]);
        assert_eq!(
            (second.kept, second.ignored),
            (vec!["a".to_owned()], vec!["c".to_owned()])
        );

        let third = sources.judge(vec![input("a", "still bad")], wrong);
        assert_eq!(third.inputs, [input("a", "1")], "good text survives several bad ones");
    }

    #[test]
    fn falling_back_that_makes_another_conflict_ends() {
        let mut sources = Sources::default();
        sources.judge(vec![input("a", "1"), input("b", "2")], wrong);
        let judged = sources.judge(vec![input("a", "bad"), input("b", "1")], wrong);
        assert!(judged.inputs.iter().all(|i| !i.text.contains("bad")));
        assert!(judged.inputs.len() <= 2);
    }

    #[test]
    fn reads_files_and_directories_once_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.yaml", "b"),
            ("a.yml", "a"),
            (".hidden.yaml", "h"),
            ("notes.txt", "n"),
            ("c.json", "c"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let inputs = read(&[dir.path().to_owned(), dir.path().join("a.yml")], Missing::Refused).unwrap();
        assert_eq!(
            inputs.iter().map(|i| i.text.as_str()).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        let gone = [dir.path().join("missing.yaml")];
        assert_eq!(read(&gone, Missing::Absent).unwrap(), []);
        let error = read(&gone, Missing::Refused).unwrap_err();
        assert!(error.to_string().contains("missing.yaml: No such file"), "{error}");
    }

    #[test]
    fn watches_the_directory_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("not/yet/there.yaml");
        assert_eq!(
            watch_points(&[file, "-".into()]),
            BTreeSet::from([dir.path().to_owned()])
        );
        assert_eq!(
            watch_points(&["some-file.yaml".into()]),
            BTreeSet::from([PathBuf::from(".")])
        );
    }
}
