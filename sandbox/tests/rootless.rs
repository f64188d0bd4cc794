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

use images::subordinate::Subordinate;
use manifests::ids::SandboxId;
use manifests::workload::{Egress, Image, Workload};
use sandbox::conformance;
use sandbox::driver::{Driver, StartError};
use sandbox::egress::Cluster;
use sandbox::test_support::outside::{CLOSED, ECHO, Outside, has_ip};
use sandbox::{LocalConfig, LocalDriver};
use support::contract::{Source, fixture};
use support::shut_in::{assert_commands_are_hidden, assert_shut_in, findings};
use support::{TESTAPP, spec, workload};

const NOBODY: u32 = 65_534;

/// Set for the copy that runs as an ordinary user: where the test app is.
const APP: &str = "KNARR_TEST_ROOTLESS_APP";

/// True when the caller is to go on, as an ordinary user; as root it runs `test` as one, and returns false.
fn is_ordinary(test: &str) -> bool {
    as_ordinary(test, None, &[])
}

fn as_ordinary(test: &str, ids: Option<u32>, more: &[(&str, String)]) -> bool {
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
    let mut command = match ids {
        // `CommandExt::groups` is not stable: as root, `uid` alone drops the other groups.
        None => {
            let mut command = Command::new(binary);
            command.gid(NOBODY).uid(NOBODY);
            command
        }
        // In a mount namespace with an /etc/subuid of its own, which ends with it.
        Some(ranges) => {
            let count = ranges * 65_536;
            let given = dir.path().join("subordinate");
            fs::write(&given, format!("nobody:{FIRST}:{count}\n")).unwrap();
            let script = "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && exec setpriv --reuid 65534 \
                          --regid 65534 --clear-groups \"$@\"";
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
            command.arg(given).arg(binary);
            command
        }
    };
    let status = command
        .args(["--exact", test, "--nocapture"])
        .env(APP, app)
        .envs(more.iter().cloned())
        .current_dir("/")
        .status()
        .unwrap();
    assert!(status.success(), "as an ordinary user: {status}");
    false
}

/// The first subordinate id of the tests.
const FIRST: u32 = 700_000_000;

/// The same as a user with so many ranges of subordinate ids; false, with the reason printed, where there is no way to them.
fn has_ranges(test: &str, ranges: u32) -> bool {
    if rustix::process::geteuid().is_root() {
        let needed = ["/usr/bin/newuidmap", "/usr/bin/setpriv", "/etc/subuid", "/etc/subgid"];
        if let Some(missing) = needed.iter().find(|path| !Path::new(path).exists()) {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "CI needs {missing} (uidmap)"
            );
            eprintln!("skipped: needs {missing} (uidmap)");
            return false;
        }
        return as_ordinary(test, Some(ranges), &[]);
    }
    match Subordinate::find() {
        Ok(ids) if ids.ranges() == ranges => true,
        found => {
            eprintln!("skipped: needs {ranges} ranges of subordinate ids: {found:?}");
            false
        }
    }
}

fn app() -> String {
    std::env::var(APP).unwrap_or_else(|_| TESTAPP.to_owned())
}

fn config(data_dir: &Path) -> LocalConfig {
    LocalConfig::new(data_dir, support::clock()).with_spawner(app())
}

/// Nothing is made ahead: what its spawner makes is what it was asked for.
fn alone(mut config: LocalConfig) -> LocalConfig {
    (config.pool, config.pool_services) = (0, 0);
    config
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
        driver.shutdown(Duration::from_secs(5)).await;
    });
}

#[test]
fn an_ordinary_users_app_cannot_look_into_a_command_on_its_way() {
    if !is_ordinary("an_ordinary_users_app_cannot_look_into_a_command_on_its_way") {
        return;
    }
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let driver = LocalDriver::new(alone(config(dir.path()))).unwrap();
        assert_commands_are_hidden(Arc::clone(&driver), &app()).await;
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

#[test]
fn an_ordinary_users_sandbox_with_full_egress_reaches_other_machines_and_never_this_one() {
    const TEST: &str = "an_ordinary_users_sandbox_with_full_egress_reaches_other_machines_and_never_this_one";
    const NEEDS: &str = "KNARR_TEST_OUTSIDE";
    if rustix::process::geteuid().is_root() {
        if has_ip() {
            // Another machine takes root to make; its name server too.
            let outside = Outside::new();
            outside.say("there.example", outside.there);
            let addresses = [
                outside.host.to_string(),
                outside.there.to_string(),
                outside.name_server.to_string(),
            ];
            as_ordinary(TEST, None, &[(NEEDS, addresses.join(" "))]);
        }
        return;
    }
    let Ok(addresses) = std::env::var(NEEDS) else {
        eprintln!("skipped: needs root to make another machine");
        return;
    };
    let addresses: Vec<&str> = addresses.split(' ').collect();
    let (host, there, names) = (addresses[0], addresses[1], addresses[2]);
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir.path().join("data"));
        config.egress.default = Egress::Full;
        config.egress.name_servers = dir.path().join("resolv.conf");
        fs::write(&config.egress.name_servers, format!("nameserver {names}\n")).unwrap();
        let driver = LocalDriver::new(config).unwrap();
        driver
            .start(spec("caller", workload(&app(), &["serve"])))
            .await
            .unwrap();
        let net = async |what: String| support::get(&*driver, "caller", &format!("/net/{what}")).await.unwrap();
        for target in [format!("{there}:{ECHO}"), format!("there.example:{ECHO}")] {
            let answer = net(format!("echo/2000000/{target}")).await;
            assert_eq!(answer, "2000000 back", "{target}");
        }
        // What the other machine refuses, what is this one's, and what is nobody's business.
        let here = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        for target in [
            format!("{there}:{CLOSED}"),
            format!("{host}:{here}"),
            "169.254.169.254:80".to_owned(),
        ] {
            let answer = net(format!("connect/5000/{target}")).await;
            assert!(answer.starts_with("error ConnectionRefused"), "{target}: {answer}");
        }
        let answer = net(format!("udp/{there}:9")).await;
        assert!(answer.starts_with("error PermissionDenied"), "{answer}");
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

#[test]
fn subordinate_ids_keep_the_contract() {
    if has_ranges("subordinate_ids_keep_the_contract", 3) {
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
fn subordinate_ids_let_an_app_reach_nothing_either() {
    if !has_ranges("subordinate_ids_let_an_app_reach_nothing_either", 1) {
        return;
    }
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let driver = LocalDriver::new(config(&dir.path().join("data"))).unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = findings(&*driver, &app(), dir.path(), host.local_addr().unwrap().port()).await;
        assert_shut_in(&found, &app());
        assert!(found["Uid"].starts_with("65532"), "{}", found["Uid"]);
        driver.shutdown(Duration::from_secs(5)).await;
    });
}

/// The host's uid of a sandbox's first process.
async fn host_uid(driver: &dyn Driver, id: &str) -> u32 {
    let pid = driver.stats(&SandboxId::new(id)).await.unwrap().main_pid.unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn sandboxes_are_distinct_users_as_far_as_ranges_go_and_none_is_the_user_itself() {
    if !has_ranges(
        "sandboxes_are_distinct_users_as_far_as_ranges_go_and_none_is_the_user_itself",
        3,
    ) {
        return;
    }
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let driver = LocalDriver::new(alone(config(dir.path()))).unwrap();
        for round in 0..3 {
            let mut uids = Vec::new();
            for id in ["a", "b", "c", "d"] {
                driver.start(spec(id, workload(&app(), &["serve"]))).await.unwrap();
                uids.push(host_uid(&*driver, id).await);
            }
            assert!(!uids.contains(&rustix::process::geteuid().as_raw()), "{uids:?}");
            let range = |uid: &u32| (uid - FIRST) / 65_536;
            let mut ranges: Vec<u32> = uids.iter().map(range).collect();
            ranges.sort_unstable();
            // Two have one alone, the others share the first.
            assert_eq!(ranges, [0, 0, 1, 2], "round {round}: {uids:?}");
            for id in ["a", "b", "c", "d"] {
                assert_eq!(support::get(&*driver, id, "/").await.unwrap(), id);
                driver.stop(&SandboxId::new(id), Duration::ZERO).await.unwrap();
            }
        }
        let warned = driver
            .isolation_warnings()
            .iter()
            .any(|it| it.contains("beyond 2 at once"));
        assert!(warned, "{:?}", driver.isolation_warnings());
        driver.shutdown(Duration::ZERO).await;
    });
}

/// `docker save` of an image with files of three users, made by hand with tar and sha256sum.
fn archive(dir: &Path, busybox: &Path) -> std::path::PathBuf {
    let root = dir.join("made");
    for sub in ["bin", "etc", "home/web/deep", "data"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for tool in ["sh", "id", "stat", "touch", "cat", "mkdir", "chown", "grep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:102:\nstaff:x:50:web\n").unwrap();
    fs::write(root.join("home/web/deep/mine"), "web's").unwrap();
    fs::write(root.join("data/far"), "far").unwrap();
    fs::set_permissions(root.join("home/web"), fs::Permissions::from_mode(0o700)).unwrap();
    let script = "tar --numeric-owner --owner=0 --group=0 -C made -cf layer.tar bin etc data &&
        tar --numeric-owner --owner=101 --group=102 -C made -rf layer.tar home/web &&
        tar --numeric-owner --owner=4000000 --group=50 --transform s/far/farther/ -C made -rf layer.tar data/far &&
        sum=$(sha256sum layer.tar | cut -d' ' -f1) &&
        printf '{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:%s\"]}}' $ARCH $sum >config.json &&
        printf '[{\"Config\":\"config.json\",\"RepoTags\":[\"owners:latest\"],\"Layers\":[\"layer.tar\"]}]' >manifest.json &&
        tar -cf image.tar manifest.json config.json layer.tar";
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let output = Command::new("sh")
        .args(["-c", script])
        .env("ARCH", arch)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    dir.join("image.tar")
}

fn busybox() -> Option<&'static Path> {
    let found = ["/bin/busybox", "/usr/bin/busybox"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs busybox-static");
        eprintln!("skipped: needs busybox-static");
    }
    found
}

#[test]
fn subordinate_ids_give_images_all_their_users() {
    if !has_ranges("subordinate_ids_give_images_all_their_users", 1) {
        return;
    }
    let Some(busybox) = busybox() else { return };
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = archive(dir.path(), busybox);
        let data = dir.path().join("data");
        let driver = LocalDriver::new(config(&data)).unwrap();
        let script = |text: &str| {
            let mut app = Workload::new(Image::DockerArchive {
                path: path.clone(),
                tag: None,
            });
            app.serving.command = vec!["sh".into(), "-c".into(), format!("exec 2>&1; {text}").into()];
            app.stop_grace = Duration::ZERO;
            app
        };
        let run = async |id: &str, app: Workload| match driver.start(spec(id, app)).await {
            Err(StartError::Exited(exit)) => exit.last_output,
            other => panic!("{id} ends: {other:?}"),
        };
        // Root inside: files have the image's owners, and it may give files away; numbers beyond a sandbox's are nobody's.
        let look = "id -u; stat -c '%u:%g' /bin/busybox /home/web /home/web/deep/mine /data/far /data/farther; \
                    touch /n && chown 7:8 /n && stat -c '%u:%g' /n; cat /home/web/deep/mine";
        let said = run("root", script(look)).await;
        assert_eq!(said, "0\n0:0\n101:102\n101:102\n0:0\n65534:50\n7:8\nweb's");
        // The image's user by name, with its groups; its own directory, and no other's.
        let mut image = script(
            "id -u; id -g; id -G; touch /home/web/new && stat -c %u /home/web/new; touch /n || echo no; \
                              grep -c . /proc/self/uid_map",
        );
        image.serving.security.user = Some(101);
        image.supplemental_groups = vec![77];
        let said = run("web", image).await;
        assert_eq!(said, "101\n102\n102 50 77\n101\ntouch: /n: Permission denied\nno\n2\n");
        // A user that the image does not know, and what cannot be honoured.
        let mut image = script("id -u; cat /home/web/deep/mine");
        image.serving.security.user = Some(5000);
        assert!(run("other", image.clone()).await.starts_with("5000\ncat: can't open"));
        image.fs_group = Some(5);
        let refused = driver.start(spec("group", image)).await.unwrap_err().to_string();
        assert!(refused.contains("fsGroup"), "{refused}");

        // On disk they are the user's subordinate ones; and all of it can be removed again.
        let mine = walk(&data).into_iter().find(|path| path.ends_with("home/web")).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::symlink_metadata(&mine).unwrap());
        assert_eq!(owner, FIRST + 100);
        driver.shutdown(Duration::ZERO).await;
        drop(driver);
        let config = images::StoreConfig::default().with_worker(app());
        let store = images::Store::open(&data.join("images"), config).unwrap();
        let pruned = store.prune(true);
        assert!(!mine.exists(), "{pruned:?}");
        assert!(walk(&data.join("images/layers")).is_empty(), "{pruned:?}");
        assert!(walk(&data.join("images/trash")).is_empty(), "{pruned:?}");
    });
}

/// Everything below a directory, as far as this user sees it.
fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}
