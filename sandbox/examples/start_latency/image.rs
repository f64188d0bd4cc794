//! The benchmark's app: a static server, alone and as an OCI image, and as a bundle for other runtimes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Compiles the server.
pub(crate) fn server(dir: &Path) -> PathBuf {
    let source = dir.join("server.c");
    fs::write(&source, include_str!("server.c")).unwrap();
    let server = dir.join("server");
    let compiled = Command::new("cc")
        .args(["-static", "-O2", "-w", "-o"])
        .arg(&server)
        .arg(&source)
        .status();
    assert!(
        compiled.is_ok_and(|status| status.success()),
        "needs a C compiler and a static C library"
    );
    server
}

/// An OCI layout with the server as its only file.
pub(crate) fn oci_layout(dir: &Path, server: &Path) -> PathBuf {
    let (root, layout) = (dir.join("layer"), dir.join("layout"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::copy(server, root.join("server")).unwrap();
    fs::set_permissions(root.join("server"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--owner=0", "--group=0", "-C"]).arg(&root);
    let tar = tar.args(["-cf", "-", "server"]).output().unwrap().stdout;
    let layer = blob(&layout, &tar);
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": ["/server"], "User": "1000:1000"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(&layout, config.to_string().as_bytes());
    let typed = |mut blob: Value, kind: &str| {
        blob["mediaType"] = json!(format!("application/vnd.oci.image.{kind}"));
        blob
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": typed(config, "config.v1+json"), "layers": [typed(layer, "layer.v1.tar")],
    });
    let manifest = typed(blob(&layout, manifest.to_string().as_bytes()), "manifest.v1+json");
    fs::write(
        layout.join("oci-layout"),
        json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )
    .unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    layout
}

fn blob(layout: &Path, bytes: &[u8]) -> Value {
    let mut sum = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sum.stdin.take().unwrap().write_all(bytes).unwrap();
    let said = String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap();
    let hex = said.split_whitespace().next().unwrap();
    fs::write(layout.join("blobs/sha256").join(hex), bytes).unwrap();
    json!({"digest": format!("sha256:{hex}"), "size": bytes.len()})
}

/// An OCI bundle of the same server with the same seven namespaces, for other runtimes.
pub(crate) fn bundle(dir: &Path, server: &Path) -> PathBuf {
    const FIRST: u32 = 0x6f00_0000;
    let bundle = dir.join("bundle");
    let root = bundle.join("rootfs");
    for sub in ["", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(sub)).unwrap();
        chown(root.join(sub), Some(FIRST), Some(FIRST)).unwrap();
    }
    fs::copy(server, root.join("server")).unwrap();
    // Users of the container must be able to reach it.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let namespaces = ["mount", "pid", "network", "ipc", "uts", "cgroup", "user"].map(|kind| json!({"type": kind}));
    let map = json!([{"containerID": 0, "hostID": FIRST, "size": 65_536}]);
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 1000, "gid": 1000}, "args": ["/server", "8080"], "env": ["PATH=/"], "cwd": "/",
            "noNewPrivileges": true, "capabilities": {},
        },
        "root": {"path": "rootfs", "readonly": true}, "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", &[]), mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ],
        "linux": {
            "namespaces": namespaces, "uidMappings": map, "gidMappings": map,
            "resources": {"memory": {"limit": 268_435_456}, "pids": {"limit": 100}},
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    bundle
}
