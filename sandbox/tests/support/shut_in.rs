//! What an app finds out from inside its sandbox, and what must be true of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::workload::{Check, Probe};
use sandbox::LocalDriver;
use sandbox::driver::Driver;
use sandbox::exec::ExecSpec;

use super::{get, spec, stepped, workload};

/// The findings of the app's `check`, by name.
pub async fn findings(driver: &dyn Driver, testapp: &str, dir: &Path, host_port: u16) -> BTreeMap<String, String> {
    let own = dir.join("secret");
    fs::write(&own, "s").unwrap();
    let forbidden = [
        "/etc/shadow",
        "/var/run/docker.sock",
        "/run",
        "/root",
        "/home",
        "/var/lib",
        "/var/log",
        "/boot",
        "/mnt",
        "/srv",
    ];
    let mut check = workload(testapp, &["check"]);
    let forbidden = forbidden.join(":") + ":" + &own.display().to_string() + ":" + &dir.display().to_string();
    check.serving.env.insert("FORBIDDEN".into(), forbidden.into());
    // Its neighbour listens on 8081, the host on `host_port`.
    check
        .serving
        .env
        .insert("PORTS".into(), format!("8081,{host_port}").into());
    let mut neighbour = workload(testapp, &["serve"]);
    neighbour.port = 8081;
    neighbour.serving.probes.readiness = Some(Probe::aggressive(Check::Tcp { port: 8081 }));
    driver.start(spec("neighbour", neighbour)).await.unwrap();
    driver.start(spec("check", check)).await.unwrap();
    let found = get(driver, "check", "/").await.unwrap();
    println!("{found}");
    by_name(&found)
}

/// What an app has found out, by name.
pub fn by_name(found: &str) -> BTreeMap<String, String> {
    found
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// What must hold for root and for an ordinary user alike.
pub fn assert_shut_in(found: &BTreeMap<String, String>, testapp: &str) {
    for (name, value) in found {
        // Some directories exist inside, and are empty.
        assert!(
            !value.starts_with("REACHED") || value == "REACHED 0 entries",
            "{name}: {value}"
        );
    }
    let is = |name: &str, value: &str| assert_eq!(found[name], value, "{name}");
    is("Pid", "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        is(set, "0000000000000000");
    }
    is("NoNewPrivs", "1");
    is("Seccomp", "2");
    is("processes", "1");
    is("interfaces", "lo");
    is("ls /home", "");
    is("ls /run", "");
    is("ls /sys", "");
    // Nothing but the way to the test app, where that is built below /tmp.
    let way = Path::new(testapp)
        .strip_prefix("/tmp")
        .ok()
        .and_then(|p| p.iter().next());
    assert!(
        found["ls /tmp"].is_empty() || way == Some(found["ls /tmp"].as_ref()),
        "{}",
        found["ls /tmp"]
    );
    is("ls /var", "run tmp");
    is("tmp", "Ok(())");
    is("stdout", "Ok(())");
    is("low port", "Ok(())");
    assert!(
        !found["Uid"].starts_with('0') && !found["Gid"].starts_with('0'),
        "{} {}",
        found["Uid"],
        found["Gid"]
    );
    assert!(
        found["cgroup"].split(' ').all(|line| line.ends_with(":/")),
        "{}",
        found["cgroup"]
    );
    // Its standard streams, its listener, and the directory it is just reading.
    for fd in found["fds"].split(' ').filter(|fd| !fd.is_empty()) {
        let (number, target) = fd.split_once('=').unwrap();
        let expected = match number {
            "0" => "/dev/null",
            "1" | "2" => "pipe:",
            _ => "socket:",
        };
        assert!(target.starts_with(expected), "{fd} of {}", found["fds"]);
    }
}

/// A command that stands still after every step of its way, and an app that tries to look into it each time.
pub async fn assert_commands_are_hidden(driver: Arc<LocalDriver>, testapp: &str) {
    driver
        .start(spec("watcher", workload(testapp, &["serve"])))
        .await
        .unwrap();
    // Other tests of this process have spawners too.
    let first = driver
        .stats(&SandboxId::new("watcher"))
        .await
        .unwrap()
        .main_pid
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    let spawner: i32 = parent.trim().parse().unwrap();
    let (runtime, own) = (tokio::runtime::Handle::current(), Arc::clone(&driver));
    // Whoever traces a process must be one thread throughout.
    let followed = std::thread::spawn(move || {
        let seen = std::cell::RefCell::new(Vec::new());
        let looks = stepped::follow(spawner, |step| {
            let what = runtime.block_on(get(&*own, "watcher", "/look")).unwrap();
            seen.borrow_mut().push(format!("{}: {what}", step.trim_end()));
        });
        (looks, seen.into_inner())
    });
    // The tracer is there first, or the command is over before it comes.
    let traced = || {
        let status = fs::read_to_string(format!("/proc/{spawner}/status")).unwrap();
        !status.contains("TracerPid:\t0\n")
    };
    while !traced() {
        assert!(!followed.is_finished(), "the tracer has ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let exec = driver
        .exec(&SandboxId::new("watcher"), ExecSpec::new(["/bin/true"]))
        .await
        .unwrap();
    assert_eq!(exec.ran(0).await.status.code(), 0);
    let (looks, seen) = tokio::task::spawn_blocking(|| followed.join().unwrap()).await.unwrap();
    let all = seen.join("\n");
    println!("{looks} looks\n{all}");
    assert!(looks > 30, "{looks} looks\n{all}");
    assert!(seen.iter().filter(|look| look.contains("seen")).count() > 30, "{all}");
    assert!(!all.contains("REACHED"), "{all}");
}
