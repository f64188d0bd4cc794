//! Profiles of a manifest's own, under the native sandboxes and under OCI runtimes; and what capabilities open.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::workload::{Image, Seccomp, Workload};
use sandbox::driver::{Driver, Exit, StartError};
use sandbox::{LocalDriver, Runtime};
use support::spec;

/// The root directory of an image with busybox's tools; `None`, with the reason printed, where there cannot be one.
fn image(dir: &Path) -> Option<PathBuf> {
    if !support::is_root() {
        return None;
    }
    if !Path::new("/bin/busybox").exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs busybox-static");
        eprintln!("skipped: needs busybox-static");
        return None;
    }
    let root = dir.join("image");
    for sub in ["bin", "etc"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for tool in [
        "sh", "mkdir", "chroot", "mount", "unshare", "echo", "grep", "true", "rm",
    ] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    Some(root)
}

fn shell(root: &Path, script: &str) -> Workload {
    let mut workload = Workload::new(Image::Dir(root.to_owned()));
    workload.serving.command = vec!["sh".into(), "-c".into(), format!("exec 2>&1; {script}").into()];
    workload.stop_grace = Duration::ZERO;
    workload
}

async fn run(driver: &dyn Driver, id: &str, workload: Workload) -> Exit {
    match driver.start(spec(id, workload)).await {
        Err(StartError::Exited(exit)) => exit,
        other => panic!("{id} ends: {other:?}"),
    }
}

async fn refused(driver: &dyn Driver, id: &str, workload: Workload) -> String {
    match driver.start(spec(id, workload)).await {
        Err(StartError::Refused(why)) => why,
        other => panic!("{id} is refused: {other:?}"),
    }
}

/// Docker's format: everything is allowed but `mkdir`, and `mount` only with the capability for it.
const OPEN: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17, "includes": {"caps": ["CAP_SYS_ADMIN"]}}
    ]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_of_its_own_decides_which_calls_run() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let mut config = support::config(&dir.path().join("data"));
    let profiles = dir.path().join("profiles");
    config.seccomp.clone_from(&profiles);
    let driver = LocalDriver::new(config).unwrap();
    let with = |profile: &str, script: &str| {
        let mut app = shell(&root, script);
        app.serving.security.seccomp = Seccomp::Localhost(profile.into());
        app
    };
    let why = refused(&*driver, "none", with("open.json", "true")).await;
    assert!(why.contains("there is no directory"), "{why}");
    fs::create_dir_all(profiles.join("own")).unwrap();
    fs::write(profiles.join("own/open.json"), OPEN).unwrap();
    fs::write(
        profiles.join("bad.json"),
        OPEN.replace("SCMP_ACT_ERRNO", "SCMP_ACT_MAYBE"),
    )
    .unwrap();

    let script = "mkdir /tmp/x; unshare -U true; grep Seccomp: /proc/self/status; rm /bin/true && echo removed";
    let said = run(&*driver, "own", with("own/open.json", script)).await.last_output;
    assert!(
        said.contains("mkdir: can't create directory '/tmp/x': No space left on device"),
        "{said}"
    );
    assert!(
        said.contains("unshare(0x10000000): Resource temporarily unavailable"),
        "{said}"
    );
    assert!(said.contains("Seccomp:\t2") && said.ends_with("removed\n"), "{said}");
    // The same profile with a capability.
    let mut app = with("own/open.json", "unshare -U true");
    app.serving.security.capabilities.add = vec!["SYS_ADMIN".to_owned()];
    let said = run(&*driver, "admin", app).await.last_output;
    assert!(said.contains("File exists"), "{said}");

    for (profile, wanted) in [
        ("gone.json", "gone.json: there is no such file"),
        ("bad.json", "bad.json: syscalls[0].action: \"SCMP_ACT_MAYBE\" is none"),
        ("../image/etc", "leads out of"),
    ] {
        let why = refused(&*driver, "refused", with(profile, "true")).await;
        assert!(why.contains(wanted), "{profile}: {why}");
    }
    // A command in it is under the same profile.
    let mut app = with("own/open.json", "while :; do :; done");
    app.serving.probes.readiness = None;
    driver.start(spec("long", app)).await.unwrap();
    let command = sandbox::exec::ExecSpec::new(["/bin/mkdir", "/tmp/y"]);
    let exec = driver
        .exec(&manifests::ids::SandboxId::new("long"), command)
        .await
        .unwrap();
    let ran = exec.ran(4096).await;
    assert_eq!(ran.status.code(), 1);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_open_their_calls_in_the_default_profile() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let driver = support::driver(&dir.path().join("data"));
    // SYS_CHROOT is in the default set: the call for it is too.
    let said = run(&*driver, "chroot", shell(&root, "chroot / true && echo went")).await;
    assert_eq!(said.last_output, "went\n");
    let mut app = shell(&root, "chroot / true && echo went");
    app.serving.security.capabilities.drop = vec!["SYS_CHROOT".to_owned()];
    let said = run(&*driver, "no-chroot", app).await.last_output;
    assert!(said.contains("not permitted") && !said.contains("went"), "{said}");
    // With SYS_ADMIN over its own users the call gets through to the kernel, which has more to say than the filter: no
    // namespace can be made below a sandbox's own.
    let mut app = shell(&root, "unshare -U true");
    let said = run(&*driver, "plain", app.clone()).await.last_output;
    assert!(said.contains("not permitted"), "{said}");
    app.serving.security.capabilities.add = vec!["SYS_ADMIN".to_owned()];
    let said = run(&*driver, "admin", app).await.last_output;
    assert!(said.contains("No space left on device"), "{said}");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oci_runtimes_are_handed_the_same_profile() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let runtimes = [("runc", "/usr/sbin/runc"), ("crun", "/usr/bin/crun")];
    if let Some((missing, _)) = runtimes.iter().find(|(_, path)| !Path::new(path).exists()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs {missing}");
        eprintln!("skipped: needs {missing}");
        return;
    }
    let mut config = support::config(&dir.path().join("data"));
    config.seccomp = dir.path().join("profiles");
    fs::create_dir(&config.seccomp).unwrap();
    fs::write(config.seccomp.join("open.json"), OPEN).unwrap();
    for (name, path) in runtimes {
        config.runtimes.insert(name.to_owned(), Runtime::new(path));
    }
    let driver = LocalDriver::new(config).unwrap();
    for (name, _) in runtimes {
        let mut app = shell(&root, "mkdir /tmp/x; unshare -U true; chroot / true && echo went");
        app.runtime = Some(name.into());
        let said = run(&*driver, &format!("{name}-default"), app.clone()).await.last_output;
        assert!(said.contains("went") && !said.contains("No space"), "{name}: {said}");
        app.serving.security.seccomp = Seccomp::Localhost("open.json".into());
        let said = run(&*driver, &format!("{name}-own"), app).await.last_output;
        assert!(
            said.contains("No space left on device") && said.contains("temporarily"),
            "{name}: {said}"
        );
    }
    driver.shutdown(Duration::ZERO).await;
}
