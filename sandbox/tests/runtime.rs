//! Other runtimes: an image handed to runc and crun serves, is limited, ends and leaves nothing, like a native one.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Bytes;
use manifests::workload::{
    Container, FileContent, HostPathKind, Image, Mount, Volume, VolumeFile, VolumeSource, Workload,
};
use sandbox::conformance;
use sandbox::driver::{Driver, ExitStatus, Limits, StartError};
use sandbox::exec::ExecSpec;
use sandbox::{LocalDriver, Runtime};
use support::contract::{Source, fixture};
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
    for tool in [
        "sh", "cat", "id", "httpd", "sleep", "hostname", "grep", "readlink", "touch", "ln",
    ] {
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

/// All of it: volumes, several containers, commands, probes, freezing, limits, and every way to fail and to end.
#[tokio::test(flavor = "multi_thread")]
async fn runtimes_keep_the_contract() {
    for (name, path) in runtimes() {
        println!("runtime: {name}");
        let dir = tempfile::tempdir().unwrap();
        let Some(image) = support::image::oci(dir.path()) else {
            return;
        };
        let mut config = support::image::config(&dir.path().join("data"));
        config.runtimes.insert(name.to_owned(), Runtime::new(path));
        conformance::run(fixture(&config, Source::Image(image, Some(name)), true)).await;
    }
}

/// What an app finds in a bundle: each kind of volume with its access, links that lead nowhere, the other containers'
/// namespaces, names, last words.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_has_its_volumes_names_and_neighbours() {
    for (name, _) in runtimes() {
        let dir = tempfile::tempdir().unwrap();
        let root = image(dir.path());
        let driver = driver(dir.path());
        let host = dir.path().join("host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("file"), "of the host").unwrap();
        fs::write(dir.path().join("secret"), "not for it").unwrap();
        let script =
            "echo written > /disk/x; cat /disk/x; echo no > /config/key || echo read-only; cat /config/key; echo;
            cat /host/file; echo; echo back > /host/answer; touch /fixed/new || echo fixed; cat /one; echo;
            ln -s ../../../secret /disk/out; grep -c alias.example /etc/hosts; readlink /proc/self/ns/net > /disk/net;
            echo last > /dev/termination-log; exec httpd -f -p 8080 -h /www";
        let mut app = workload(&root, name, script);
        let volume = |name: &str, source| Volume {
            name: name.into(),
            source,
        };
        let key = VolumeFile {
            path: "key".into(),
            mode: 0o644,
            content: FileContent::Bytes(b"value".as_slice().into()),
        };
        app.volumes = vec![
            volume(
                "disk",
                VolumeSource::Empty {
                    memory: false,
                    size: None,
                },
            ),
            volume(
                "memory",
                VolumeSource::Empty {
                    memory: true,
                    size: None,
                },
            ),
            volume("config", VolumeSource::Files(vec![key])),
            volume(
                "host",
                VolumeSource::HostPath {
                    path: host.clone(),
                    kind: HostPathKind::Directory,
                },
            ),
        ];
        let mount = |volume: &str, path: &str, sub_path: Option<&str>, read_only| Mount {
            volume: volume.into(),
            path: path.into(),
            sub_path: sub_path.map(Into::into),
            read_only,
        };
        app.serving.mounts = vec![
            mount("disk", "/disk", None, false),
            mount("memory", "/disk/deeper", None, false),
            mount("config", "/config", None, false),
            mount("config", "/one", Some("key"), true),
            mount("host", "/host", None, false),
            mount("host", "/fixed", None, true),
        ];
        app.host_aliases = vec![manifests::workload::HostAlias {
            address: "10.1.2.3".parse().unwrap(),
            names: vec!["alias.example".into()],
        }];
        let mut beside = Container::new("beside", Image::Dir(root.clone()));
        beside.command = vec![
            "sh".into(),
            "-c".into(),
            "readlink /proc/self/ns/net > /disk/net2; exec sleep 1000".into(),
        ];
        beside.mounts = vec![mount("disk", "/disk", None, false)];
        app.sidecars = vec![beside];
        let id = SandboxId::new(format!("{name}-volumes"));
        driver.start(spec(id.as_str(), app.clone())).await.unwrap();
        let said = || {
            let files = driver.logs(&id);
            files
                .iter()
                .map(|path| fs::read_to_string(path).unwrap())
                .collect::<String>()
        };
        for _ in 0..100 {
            if said().contains("fixed") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let all = said();
        for wanted in ["written", "read-only", "value", "of the host", "fixed"] {
            assert!(all.contains(wanted), "{name}: no {wanted:?} in {all}");
        }
        assert_eq!(fs::read_to_string(host.join("answer")).unwrap(), "back\n");
        assert!(!host.join("new").exists());
        // In one network, and each with its own view of it.
        let ran = async |container: Option<&str>, script: &str| {
            let command = ExecSpec {
                container: container.map(Into::into),
                ..ExecSpec::new(["sh", "-c", script])
            };
            let ran = driver.exec(&id, command).await.unwrap().ran(4000).await;
            (ran.status.code(), String::from_utf8(ran.output).unwrap())
        };
        let mut same = (0, String::new());
        for _ in 0..100 {
            same = ran(Some("beside"), "cat /disk/net /disk/net2").await;
            if same.1.lines().count() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let lines: Vec<&str> = same.1.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{name}: {same:?}");
        assert_eq!(
            ran(None, "grep -c alias.example /etc/hosts").await,
            (0, "1\n".to_owned())
        );
        assert_eq!(ran(None, "cat /disk/out").await.0, 1, "{name}: a link leads out");
        assert_eq!(ran(None, "exit 5").await, (5, String::new()));
        let limits = Limits {
            memory: Some(Bytes(80 << 20)),
            pids: Some(99),
            ..Limits::default()
        };
        driver.set_limits(&id, limits).await.unwrap();
        driver.freeze(&id).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(100), get(&*driver, id.as_str(), "/index.html")).await;
        assert!(answer.is_err(), "{name}: a frozen bundle answers");
        driver.thaw(&id).await.unwrap();
        assert_eq!(
            get(&*driver, id.as_str(), "/index.html").await.unwrap(),
            "hello from a bundle"
        );
        let exit = driver.stop(&id, Duration::from_secs(5)).await.unwrap().unwrap();
        assert_eq!(exit.last_output, "last\n", "{name}");
        let left: Vec<_> = fs::read_dir(dir.path().join("data/commands")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");

        // Through a link in a volume that leads out of it: refused, and nothing of the host is shown.
        app.serving.mounts = vec![
            mount("host", "/host", None, false),
            mount("host", "/out", Some("out"), true),
        ];
        app.sidecars.clear();
        symlink("../secret", host.join("out")).unwrap();
        let out = driver.start(spec("out", app)).await.unwrap_err();
        assert!(out.to_string().contains("subPath out"), "{out}");
        driver.shutdown(Duration::ZERO).await;
    }
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
