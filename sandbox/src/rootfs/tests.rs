//! Every step has its place, and nothing private is shown.

use super::*;

/// Whatever is mounted, linked or written has its directory made before; nothing of the forbidden places is shown.
#[test]
fn every_step_has_its_directory_and_nothing_private_is_shown() {
    let program = Program {
        path: "/home/ann/app/bin/run".into(),
        show: vec![
            Shown::Dir("/home/ann/app/bin".into()),
            Shown::File {
                source: "/tmp/x".into(),
                path: "/tmp/x".into(),
            },
        ],
    };
    let mut hosts = host();
    hosts.extend(of_program(&program, 1000));
    hosts.extend(names("hello-1", 7, "", &[]));
    let cgroups = [CgroupMount {
        dir: "memory".into(),
        fstype: "cgroup",
        options: "memory".into(),
    }];
    let mut images = image(&cgroups);
    images.extend(of_container(Path::new("/dev/termination-log")));
    images.extend(image_names("hello-1", "", &[]));
    for steps in [hosts, images] {
        check(&steps);
    }
}

fn check(steps: &[FsStep]) {
    let mut made: BTreeSet<PathBuf> = [PathBuf::from("/")].into();
    let mut owned = BTreeSet::new();
    let mut proc_is_up = false;
    for step in steps {
        match step {
            FsStep::Dir { path } | FsStep::Symlink { path, .. } | FsStep::File { path, .. } => {
                assert!(made.contains(path.parent().unwrap()), "{step:?} has no directory");
                made.insert(path.clone());
            }
            FsStep::Own { path, name, .. } => {
                assert!(made.contains(path.parent().unwrap()), "{step:?} has no directory");
                assert!(owned.insert(name), "{step:?} twice");
            }
            FsStep::Content { name, .. } => assert!(owned.contains(name), "{step:?} was not mounted"),
            FsStep::Volume { .. } | FsStep::Staged { .. } => panic!("{step:?} is of no root"),
            FsStep::Mount { path, fstype, .. } => {
                assert!(
                    made.contains(path) || (proc_is_up && path.starts_with("/proc")),
                    "{step:?}"
                );
                proc_is_up |= fstype == "proc";
            }
            FsStep::Bind {
                source, path, access, ..
            } => {
                assert!(
                    made.contains(path) || (proc_is_up && path.starts_with("/proc")),
                    "{step:?}"
                );
                let private = [
                    "/run",
                    "/var",
                    "/root",
                    "/etc/shadow",
                    "/etc/ssl/private",
                    "/data/other",
                ];
                assert!(!private.iter().any(|p| source.starts_with(p)), "{step:?}");
                assert!(*access == Access::ReadOnly || source.starts_with("/dev"), "{step:?}");
            }
        }
    }
}

#[test]
fn nothing_writable_is_larger_than_the_memory_limit() {
    assert_eq!(writable(None, Some(4096)), 4096);
    assert_eq!(writable(None, None), WRITABLE);
    assert_eq!(writable(None, Some(u64::MAX)), WRITABLE);
    assert_eq!(writable(Some(u64::MAX), None), u64::MAX);
    assert_eq!(writable(Some(10), Some(4096)), 10);
    assert_eq!(writable(Some(8192), Some(4096)), 4096);
}

#[test]
fn a_skeleton_has_every_place_that_is_mounted_on() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        make_skeleton(&dir.path().join("s")).unwrap();
    }
    for path in ["dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        assert!(dir.path().join("s").join(path).exists(), "{path}");
    }
}
