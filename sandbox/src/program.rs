//! Finds the program that `host:` names, and what of the host must be shown for it to run.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A program on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    /// What is executed: directories without links, but the last name as the user wrote it, for programs that look at
    /// their own name (busybox, a Python virtual environment).
    pub path: PathBuf,
    /// Shown read-only, each at its own path.
    pub show: Vec<Shown>,
}

/// Something of the host that a program needs beside the system's own directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    /// A directory with everything in it.
    Dir(PathBuf),
    /// One file, because its directory is not the program's own: a home directory, `/tmp`, the data directory.
    File {
        /// Its real place.
        source: PathBuf,
        /// Where the program looks for it.
        path: PathBuf,
    },
}

/// The system's own directories, always visible inside.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Never shown as a whole, nor anything above them: what lies there is everybody's, not one program's.
const SHARED: [&str; 16] = [
    "/", "/boot", "/dev", "/etc", "/home", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys", "/tmp",
    "/var", "/var/tmp",
];

/// How many links in a row are followed before it is a loop.
const LINKS: usize = 16;

/// Finds `name`: a path, or a bare name that is looked for beside Knarr's own binary first, then in `PATH`.
///
/// # Errors
/// What was looked for and what is wrong with it, in words for the user.
pub(crate) fn find(name: &Path, data_dir: &Path) -> Result<Program, String> {
    let found = if name.components().count() > 1 || name.is_absolute() {
        if !name.is_absolute() {
            return Err(format!(
                "host:{}: give an absolute path, or a name to look for in PATH",
                name.display()
            ));
        }
        check(name).map_err(|why| format!("host:{}: {why}", name.display()))?;
        name.to_owned()
    } else {
        look_up(name)?
    };
    shown(&found, data_dir).map_err(|e| format!("host:{}: {e}", name.display()))
}

fn look_up(name: &Path) -> Result<PathBuf, String> {
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    search(name, beside, &path)
}

/// The first executable `name` in `beside`, then in the directories of `path`.
fn search(name: &Path, beside: Option<PathBuf>, path: &OsStr) -> Result<PathBuf, String> {
    let mut wrong = Vec::new();
    let listed = env::split_paths(path).filter(|dir| dir.is_absolute());
    for dir in beside.iter().cloned().chain(listed) {
        let candidate = dir.join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(why) if candidate.exists() => wrong.push(format!("{}: {why}", candidate.display())),
            Err(_) => {}
        }
    }
    let beside = beside.map_or(String::new(), |dir| format!("in {} or ", dir.display()));
    let wrong = if wrong.is_empty() {
        String::new()
    } else {
        format!(" ({})", wrong.join("; "))
    };
    Err(format!(
        "host:{}: no such program {beside}in PATH={}{wrong}",
        name.display(),
        path.display()
    ))
}

fn check(path: &Path) -> Result<(), String> {
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => e.to_string(),
    })?;
    if !meta.is_file() {
        Err("is not a file".to_owned())
    } else if meta.permissions().mode() & 0o111 == 0 {
        Err("is not executable (chmod +x)".to_owned())
    } else {
        Ok(())
    }
}

/// The program's path without links in its directories, and all places its own links lead through.
fn shown(found: &Path, data_dir: &Path) -> io::Result<Program> {
    let (dir, name) = split(found)?;
    let path = dir.canonicalize()?.join(name);
    let real = path.canonicalize()?;
    let mut show = Vec::new();
    let mut hop = path.clone();
    for _ in 0..LINKS {
        show_place(&hop, &real, data_dir, &mut show);
        let Ok(target) = fs::read_link(&hop) else { break };
        let target = hop.parent().unwrap_or(Path::new("/")).join(target);
        let (dir, name) = split(&target)?;
        hop = dir.canonicalize()?.join(name);
    }
    Ok(Program { path, show })
}

fn show_place(place: &Path, real: &Path, data_dir: &Path, show: &mut Vec<Shown>) {
    let dir = place.parent().unwrap_or(Path::new("/"));
    if SYSTEM.iter().any(|system| dir.starts_with(system)) {
        return;
    }
    let one = if is_own(dir, data_dir, env::home_dir().as_deref()) {
        Shown::Dir(dir.to_owned())
    } else {
        Shown::File {
            source: real.to_owned(),
            path: place.to_owned(),
        }
    };
    if !show.contains(&one) {
        show.push(one);
    }
}

/// Whether a directory may be shown whole: it belongs to the program, not to a user or to everybody, and the data
/// directory is neither above nor below.
fn is_own(dir: &Path, data_dir: &Path, home: Option<&Path>) -> bool {
    let shared = SHARED.iter().any(|s| dir == Path::new(s));
    let kernel = ["/proc", "/sys", "/dev", "/run"].iter().any(|k| dir.starts_with(k));
    let of_user = dir.parent() == Some(Path::new("/home")) || home.is_some_and(|home| home.starts_with(dir));
    let data = dir.starts_with(data_dir) || data_dir.starts_with(dir);
    !(shared || kernel || of_user || data)
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(Path::new("/")), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_directory_of_the_programs_own_is_shown_whole() {
        let home = Some(Path::new("/srv/people/ann"));
        let cases = [
            ("/opt/app/bin", true),
            ("/home/bob/app", true),
            ("/tmp/build/debug", true),
            ("/root/app", true),
            ("/var/lib/app", true),
            ("/", false),
            ("/tmp", false),
            ("/var", false),
            ("/root", false),
            ("/run/app", false),
            ("/dev/shm/app", false),
            ("/home", false),
            ("/home/bob", false),
            ("/srv/people/ann", false),
            ("/srv/people", false),
            ("/srv/people/ann/app", true),
            ("/data/knarr", false),
            ("/data/knarr/bin", false),
            ("/data", false),
            ("/data/other", true),
        ];
        for (dir, own) in cases {
            assert_eq!(is_own(Path::new(dir), Path::new("/data/knarr"), home), own, "{dir}");
        }
    }

    fn executable(path: &Path) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_bare_name_is_found_beside_the_binary_first_and_a_missing_one_says_where_it_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (beside, listed) = (dir.path().join("beside"), dir.path().join("listed"));
        fs::create_dir(&beside).unwrap();
        fs::create_dir(&listed).unwrap();
        executable(&listed.join("app"));
        let find = |name: &str| search(Path::new(name), Some(beside.clone()), listed.as_os_str());
        assert_eq!(find("app").unwrap(), listed.join("app"));
        executable(&beside.join("app"));
        assert_eq!(find("app").unwrap(), beside.join("app"));
        let missing = find("nope").unwrap_err();
        assert!(
            missing.contains("host:nope") && missing.contains(listed.to_str().unwrap()),
            "{missing}"
        );
        fs::write(listed.join("plain"), "").unwrap();
        let plain = find("plain").unwrap_err();
        assert!(plain.contains("not executable"), "{plain}");
    }

    #[test]
    fn every_hop_of_a_link_is_shown_and_the_name_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["releases", "releases/1", "venv"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        executable(&root.join("releases/1/tool"));
        symlink("releases/1", root.join("current")).unwrap();
        symlink("../current/tool", root.join("venv/python")).unwrap();
        let program = find(&root.join("venv/python"), Path::new("/data")).unwrap();
        assert_eq!(program.path, root.join("venv/python"));
        assert_eq!(
            program.show,
            [Shown::Dir(root.join("venv")), Shown::Dir(root.join("releases/1"))]
        );
        // Through a linked directory.
        let program = find(&root.join("current/tool"), Path::new("/data")).unwrap();
        assert_eq!(program.path, root.join("releases/1/tool"));
    }

    #[test]
    fn a_program_in_the_data_directory_is_shown_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        executable(&root.join("app"));
        let program = find(&root.join("app"), &root).unwrap();
        assert_eq!(
            program.show,
            [Shown::File {
                source: root.join("app"),
                path: root.join("app")
            }]
        );
    }

    #[test]
    fn a_program_of_the_system_needs_nothing_more() {
        assert_eq!(find(Path::new("/bin/sh"), Path::new("/data")).unwrap().show, []);
        let wrong = find(Path::new("/usr/nope"), Path::new("/data")).unwrap_err();
        assert_eq!(wrong, "host:/usr/nope: no such file");
        assert!(
            find(Path::new("a/b"), Path::new("/data"))
                .unwrap_err()
                .contains("absolute")
        );
        assert!(
            find(Path::new("/usr"), Path::new("/data"))
                .unwrap_err()
                .contains("not a file")
        );
    }
}
