//! The local driver as an ordinary user: isolated by a user namespace, without cgroups where the host delegates none.
//!
//! As root, each test runs again in a copy of this binary as `nobody`; as an ordinary user it runs as it is.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use sandbox::conformance;
use sandbox::driver::Driver;
use sandbox::egress::Cluster;
use sandbox::{LocalConfig, LocalDriver};
use support::contract::{Source, fixture};
use support::shut_in::{assert_commands_are_hidden, assert_shut_in, findings};
use support::{TESTAPP, spec, workload};

const NOBODY: u32 = 65_534;

/// Set for the copy that runs as an ordinary user: where the test app is.
const APP: &str = "KNARR_TEST_ROOTLESS_APP";

/// True when the caller is to go on, as an ordinary user; as root it runs `test` as one, and returns false.
fn is_ordinary(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    // Not below the build directory, which may be root's alone.
    let dir = tempfile::tempdir().unwrap();
    let place = |from: &Path, name: &str| {
        let to = dir.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = place(&std::env::current_exe().unwrap(), "rootless");
    let app = place(Path::new(TESTAPP), "knarr-sandbox-testapp");
    // `CommandExt::groups` is not stable: as root, `uid` alone drops the other groups.
    let status = Command::new(binary)
        .args(["--exact", test, "--nocapture"])
        .env(APP, app)
        .current_dir("/")
        .gid(NOBODY)
        .uid(NOBODY)
        .status()
        .unwrap();
    assert!(status.success(), "as an ordinary user: {status}");
    false
}

fn app() -> String {
    std::env::var(APP).unwrap_or_else(|_| TESTAPP.to_owned())
}

fn config(data_dir: &Path) -> LocalConfig {
    LocalConfig::new(data_dir, support::clock()).with_spawner(app())
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

#[test]
fn an_ordinary_user_keeps_the_contract() {
    if is_ordinary("an_ordinary_user_keeps_the_contract") {
        let dir = tempfile::tempdir().unwrap();
        let limits = sandbox::cgroup::Hierarchy::detect().missing().is_empty();
        run(conformance::run(fixture(
            &config(dir.path()),
            Source::Host(app(), true),
            limits,
        )));
    }
}

#[test]
fn an_ordinary_users_sandbox_reaches_nothing_either() {
    if !is_ordinary("an_ordinary_users_sandbox_reaches_nothing_either") {
        return;
    }
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let driver = LocalDriver::new(config(&dir.path().join("data"))).unwrap();
        assert!(driver.describe().contains("user namespace"), "{}", driver.describe());
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = findings(&*driver, &app(), dir.path(), host.local_addr().unwrap().port()).await;
        assert_shut_in(&found, &app());
        assert!(found["Uid"].starts_with("65532"), "{}", found["Uid"]);
        assert_commands_are_hidden(&*driver).await;
        driver.shutdown(Duration::from_secs(5)).await;
    });
}

#[test]
fn an_ordinary_users_dialer_keeps_up_and_is_replaced() {
    if !is_ordinary("an_ordinary_users_dialer_keeps_up_and_is_replaced") {
        return;
    }
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let driver = LocalDriver::new(config(dir.path())).unwrap();
        driver.start(spec("busy", workload(&app(), &["serve"]))).await.unwrap();
        // Far more connections than sockets are made ahead.
        let mut open = Vec::new();
        for _ in 0..50 {
            open.push(driver.dial(&SandboxId::new("busy")).await.unwrap());
        }
        let [spawner] = support::spawners(std::process::id())[..] else {
            panic!("one spawner")
        };
        let dialers = support::children("knarr-dialer", spawner);
        assert_eq!(dialers.len(), 1);
        support::kill(dialers[0]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        for _ in 0..20 {
            assert_eq!(support::get(&*driver, "busy", "/").await.unwrap(), "busy");
        }
        driver.shutdown(Duration::from_secs(5)).await;
    });
}

#[test]
fn killing_an_ordinary_users_spawner_kills_its_sandboxes_and_the_next_one_works() {
    if !is_ordinary("killing_an_ordinary_users_spawner_kills_its_sandboxes_and_the_next_one_works") {
        return;
    }
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let driver: Arc<dyn Driver> = LocalDriver::new(config(dir.path())).unwrap();
        let mut events = driver.events();
        let ids = ["a", "b", "c"];
        for id in ids {
            driver.start(spec(id, workload(&app(), &["serve"]))).await.unwrap();
        }
        let spawners = support::spawners(std::process::id());
        assert_eq!(spawners.len(), 1, "{spawners:?}");
        support::kill(spawners[0]);
        let mut ended = Vec::new();
        while ended.len() < ids.len() {
            let next = tokio::time::timeout(Duration::from_secs(30), events.recv()).await;
            if let sandbox::driver::Event::Exited { id, .. } = next.expect("an exit for each sandbox").unwrap() {
                ended.push(id.to_string());
            }
        }
        ended.sort();
        assert_eq!(ended, ids);
        assert!(driver.list().is_empty());
        for id in ids {
            assert!(driver.dial(&SandboxId::new(id)).await.is_err());
            driver.start(spec(id, workload(&app(), &["serve"]))).await.unwrap();
            assert_eq!(support::get(&*driver, id, "/").await.unwrap(), id);
        }
        driver.shutdown(Duration::from_secs(5)).await;
    });
}

#[test]
fn an_ordinary_users_sandbox_reaches_services_by_name_and_nothing_else() {
    if !is_ordinary("an_ordinary_users_sandbox_reaches_services_by_name_and_nothing_else") {
        return;
    }
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.egress.cluster = Some(Arc::new(Hello));
        let driver = LocalDriver::new(config).unwrap();
        driver
            .start(spec("caller", workload(&app(), &["serve"])))
            .await
            .unwrap();
        let net = async |what: &str| support::get(&*driver, "caller", &format!("/net/{what}")).await.unwrap();
        let answer = net("get/hello:80/").await;
        assert!(answer.ends_with("hello.default.svc.cluster.local"), "{answer}");
        let refused = net("connect/5000/8.8.8.8:80").await;
        assert!(refused.starts_with("error ConnectionRefused"), "{refused}");
        let refused = net("udp/8.8.8.8:53").await;
        assert!(refused.starts_with("error PermissionDenied"), "{refused}");
        driver.shutdown(Duration::from_secs(5)).await;
    });
}

/// One service.
struct Hello;

impl Cluster for Hello {
    fn exists(&self, host: &str) -> bool {
        host == "hello.default.svc.cluster.local"
    }

    fn serve(&self, host: &Arc<str>, mut stream: TcpStream, _: SocketAddr) {
        stream.set_nonblocking(false).unwrap();
        support::read_head(&mut stream);
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n{host}").unwrap();
    }
}

#[test]
fn an_ordinary_users_images_run_with_one_user_and_more_are_refused() {
    if !is_ordinary("an_ordinary_users_images_run_with_one_user_and_more_are_refused") {
        return;
    }
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
    else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs busybox-static");
        eprintln!("skipped: needs busybox-static");
        return;
    };
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("image");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        let driver = LocalDriver::new(config(&dir.path().join("data"))).unwrap();
        let script = "id -u; id -g; touch /new && stat -c %u /new /bin/busybox; hostname; grep -c . /proc/self/uid_map";
        let script = script.replace("id ", "busybox id ").replace("touch", "busybox touch");
        let script = script
            .replace("stat", "busybox stat")
            .replace("hostname", "busybox hostname");
        let mut app = manifests::workload::Workload::new(manifests::workload::Image::Dir(root.clone()));
        let script = script.replace("grep", "busybox grep");
        app.serving.command = vec!["busybox".into(), "sh".into(), "-c".into(), script.into()];
        let started = driver.start(spec("plain", app.clone())).await;
        let Err(sandbox::driver::StartError::Exited(exit)) = started else {
            panic!("it ends: {started:?}")
        };
        assert_eq!(exit.last_output, "0\n0\n0\n0\nplain\n1\n");
        assert!(!root.join("new").exists());
        app.serving.security.user = Some(1000);
        let refused = driver.start(spec("other", app)).await.unwrap_err().to_string();
        assert!(refused.contains("runAsUser"), "{refused}");
        driver.shutdown(Duration::ZERO).await;
    });
}
