//! Other runtimes: an image handed to runc and crun serves, is limited, ends and leaves nothing, like a native one.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Bytes;
use manifests::workload::{Image, Workload};
use sandbox::driver::{Driver, ExitStatus, Limits, StartError};
use sandbox::exec::ExecSpec;
use sandbox::{LocalDriver, Runtime};
use support::{get, spec};

/// Those of Debian's runtimes that are here; reasons are printed for the others.
fn runtimes() -> Vec<(&'static str, &'static str)> {
    if !support::is_root() {
        return Vec::new();
    }
    let all = [("runc", "/usr/sbin/runc"), ("crun", "/usr/bin/crun")];
    let (here, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, path)| Path::new(path).exists());
    if !missing.is_empty() || !Path::new("/bin/busybox").exists() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "CI needs runc, crun and busybox-static"
        );
        eprintln!("skipped: needs {missing:?} and busybox-static");
    }
    if Path::new("/bin/busybox").exists() {
        here
    } else {
        Vec::new()
    }
}

fn image(dir: &Path) -> std::path::PathBuf {
    let root = dir.join("image");
    for sub in ["bin", "etc", "www"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for tool in ["sh", "cat", "id", "httpd", "sleep", "hostname", "grep"] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    fs::write(root.join("www/index.html"), "hello from a bundle").unwrap();
    root
}

fn workload(root: &Path, runtime: &str, script: &str) -> Workload {
    let mut workload = Workload::new(Image::Dir(root.to_owned()));
    workload.serving.command = vec!["sh".into(), "-c".into(), format!("exec 2>&1; {script}").into()];
    workload.stop_grace = Duration::from_secs(5);
    workload.runtime = Some(runtime.into());
    workload
}

fn driver(dir: &Path) -> std::sync::Arc<LocalDriver> {
    let mut config = support::config(&dir.join("data"));
    for (name, path) in [
        ("runc", "/usr/sbin/runc"),
        ("crun", "/usr/bin/crun"),
        ("gone", "/nowhere/rt"),
    ] {
        config.runtimes.insert(name.to_owned(), Runtime::new(path));
    }
    LocalDriver::new(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_serves_under_its_limits_and_ends() {
    let cgroups = || {
        let output = std::process::Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| line.ends_with("/runc-1") || line.ends_with("/crun-1"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for (name, _) in runtimes() {
        let dir = tempfile::tempdir().unwrap();
        let root = image(dir.path());
        let driver = driver(dir.path());
        let id = SandboxId::new(format!("{name}-1"));
        let mut served = spec(id.as_str(), workload(&root, name, "exec httpd -f -p 8080 -h /www"));
        served.limits = Limits {
            memory: Some(Bytes(64 << 20)),
            ..Limits::default()
        };
        driver.start(served).await.unwrap();
        let said = get(&*driver, id.as_str(), "/index.html").await;
        assert!(
            matches!(&said, Ok(text) if text == "hello from a bundle"),
            "{name}: {said:?}"
        );
        assert!(driver.stats(&id).await.unwrap().memory > Bytes(0), "{name}");
        let refused = driver
            .exec(&id, ExecSpec::new(["/bin/id"]))
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains("another runtime"), "{refused}");
        driver.stop(&id, Duration::from_secs(1)).await.unwrap();

        let script = "id -u; hostname; grep -c CapEff /proc/self/status; grep NoNewPrivs /proc/self/status;
            cat /etc/hostname; cat /proc/1/comm; exit 7";
        let ended = driver
            .start(spec(&format!("{name}-ends"), workload(&root, name, script)))
            .await;
        let Err(StartError::Exited(exit)) = ended else {
            panic!("{name}: {ended:?}")
        };
        assert_eq!(exit.status, ExitStatus::Code(7), "{name}: {exit:?}");
        let ends = format!("{name}-ends");
        let lines: Vec<&str> = exit.last_output.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            ["0", &ends, "1", "NoNewPrivs:\t1", &ends, "sh"],
            "{}",
            exit.last_output
        );
        driver.shutdown(Duration::ZERO).await;
    }
    assert_eq!(cgroups(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_cannot_be_used_is_refused_by_name() {
    if runtimes().is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = image(dir.path());
    let driver = driver(dir.path());
    let mut of_host = Workload::host("/bin/true");
    of_host.runtime = Some("runc".into());
    let cases = [
        (
            workload(&root, "kata", "exit"),
            "no such runtime; the configuration has native, crun, gone, runc",
        ),
        (workload(&root, "gone", "exit"), "/nowhere/rt is not there"),
        (of_host, "it runs images, not programs of this machine"),
    ];
    for (nth, (workload, wanted)) in cases.into_iter().enumerate() {
        let started = driver.start(spec(&format!("refused-{nth}"), workload)).await;
        let Err(StartError::Refused(why)) = started else {
            panic!("{started:?}")
        };
        assert!(why.contains(wanted), "{why}");
    }
    driver.shutdown(Duration::ZERO).await;
}
