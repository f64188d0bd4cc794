//! The system call profile of an app: the default one, none, or a file's below the directory of profiles.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use manifests::workload::Seccomp;
use rustix::fs::{Mode, OFlags, ResolveFlags, open};
use rustix::io::Errno;
use serde_json::Value;

use crate::doctor;
use crate::inside;
use crate::seccomp::{self, Arch, Circumstances, Document, Filter};
use crate::spawner::protocol::FilterPlan;

/// What an app's manifest asks for.
pub(super) enum Profile {
    /// The default profile of container runtimes.
    Standard,
    /// None.
    Unconfined,
    /// A file's; and what manifests call it.
    Localhost(Document, String),
}

/// More is no profile.
const LARGEST: u64 = 1 << 20;

impl Profile {
    /// Reads the profile, if it is one of a file below `dir`.
    ///
    /// # Errors
    /// Why there is none, in words for the user.
    pub(super) fn find(dir: &Path, wanted: &Seccomp) -> Result<Self, String> {
        let path = match wanted {
            Seccomp::RuntimeDefault => return Ok(Self::Standard),
            Seccomp::Unconfined => return Ok(Self::Unconfined),
            Seccomp::Localhost(path) => path,
        };
        let name = path.display().to_string();
        let about = |why: String| format!("seccompProfile {name}: {why}");
        let text = read(dir, path).map_err(&about)?;
        let document = Document::parse(&text).map_err(|why| about(format!("{}: {why}", dir.join(path).display())))?;
        Ok(Self::Localhost(document, name))
    }

    /// For an app with these capabilities.
    ///
    /// # Errors
    /// A profile that the kernel would not take, in words for the user.
    pub(super) fn plan(&self, capabilities: u64) -> Result<FilterPlan, String> {
        let (document, name) = match self {
            Self::Standard => return Ok(FilterPlan::Default),
            Self::Unconfined => return Ok(FilterPlan::Unconfined),
            Self::Localhost(document, name) => (document, name),
        };
        let Some(under) = circumstances(capabilities) else {
            return Err(format!(
                "seccompProfile {name}: this machine's architecture is not known"
            ));
        };
        let filter = Filter::compile(under.arch, &document.profile(under));
        if filter.len() > Filter::LARGEST {
            let (has, most) = (filter.len(), Filter::LARGEST);
            return Err(format!(
                "seccompProfile {name}: it comes to {has} instructions, the kernel takes {most}; write fewer conditions"
            ));
        }
        Ok(FilterPlan::Program(filter.words()))
    }

    /// For an OCI runtime.
    pub(super) fn oci(&self, capabilities: u64) -> Value {
        let Some(under) = circumstances(capabilities) else {
            return Value::Null;
        };
        match self {
            Self::Standard => seccomp::Profile::standard(capabilities).oci(under.arch),
            Self::Unconfined => Value::Null,
            Self::Localhost(document, _) => document.profile(under).oci(under.arch),
        }
    }
}

fn circumstances(capabilities: u64) -> Option<Circumstances> {
    let system = rustix::system::uname();
    let kernel = doctor::version(&system.release().to_string_lossy()).unwrap_or_default();
    let arch = Arch::native()?;
    Some(Circumstances {
        arch,
        capabilities,
        kernel,
    })
}

fn read(dir: &Path, path: &Path) -> Result<String, String> {
    let shown = dir.display();
    let found = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let dir = found.map_err(|error| match error {
        Errno::NOENT => format!("there is no directory {shown}; make it and put the profile there"),
        error => format!("{shown}: {}", io::Error::from(error)),
    })?;
    // A pipe in its place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = inside::open(&dir, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
    let file = opened.map_err(|error| match error {
        Errno::NOENT => format!("there is no such file in {shown}"),
        Errno::XDEV => format!("it leads out of {shown}; copy the profile there"),
        error => format!("{shown}: {}", io::Error::from(error)),
    })?;
    let file = File::from(file);
    let failed = |error: io::Error| error.to_string();
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || meta.len() > LARGEST {
        return Err(format!("it is not a file of at most {LARGEST} bytes"));
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_profile_is_found_below_the_directory_and_nowhere_else() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("profiles");
        let of = |path: &str| match Profile::find(&dir, &Seccomp::Localhost(path.into())) {
            Ok(_) => "found".to_owned(),
            Err(why) => why,
        };
        assert!(of("a.json").contains("there is no directory"), "{}", of("a.json"));
        fs::create_dir_all(dir.join("own")).unwrap();
        let allow = "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}";
        fs::write(temp.path().join("outside.json"), allow).unwrap();
        fs::write(dir.join("own/a.json"), allow).unwrap();
        symlink("own/a.json", dir.join("link.json")).unwrap();
        symlink("../outside.json", dir.join("up.json")).unwrap();
        symlink(temp.path().join("outside.json"), dir.join("absolute.json")).unwrap();
        fs::write(dir.join("broken.json"), "{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n}").unwrap();
        let cases = [
            ("own/a.json", "found"),
            ("link.json", "found"),
            ("own/./a.json", "found"),
            ("gone.json", "seccompProfile gone.json: there is no such file in "),
            ("up.json", "leads out of"),
            ("absolute.json", "leads out of"),
            ("../outside.json", "leads out of"),
            ("own", "is not a file"),
            ("broken.json", "broken.json: trailing comma at line 2 column 1"),
        ];
        for (path, wanted) in cases {
            assert!(of(path).contains(wanted), "{path}: {}", of(path));
        }
    }

    #[test]
    fn a_profile_that_the_kernel_would_not_take_is_refused() {
        let names: Vec<String> = seccomp::Profile::standard(0).rules[0]
            .names
            .iter()
            .map(|name| {
                let conditions: Vec<String> = (0..6)
                    .map(|index| {
                        format!(
                            "{{\"index\": {index}, \"value\": {}, \"op\": \"SCMP_CMP_GT\"}}",
                            name.len()
                        )
                    })
                    .collect();
                let conditions = conditions.join(",");
                format!("{{\"names\": [\"{name}\"], \"action\": \"SCMP_ACT_LOG\", \"args\": [{conditions}]}}")
            })
            .collect();
        let text = format!(
            "{{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"syscalls\": [{}]}}",
            names.join(",")
        );
        let profile = Profile::Localhost(Document::parse(&text).unwrap(), "big.json".to_owned());
        let refused = profile.plan(0).unwrap_err();
        assert!(refused.contains("big.json") && refused.contains("4096"), "{refused}");
    }
}
