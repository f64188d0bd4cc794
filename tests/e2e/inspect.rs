//! `knarr top`, `knarr inspect` and `knarr logs`: what a running Knarr shows of its sandboxes.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{Knarr, Output, Place, processes, until};

#[test]
fn top_shows_who_uses_what() {
    let busy = service("busy").proven().with("min-scale", "1").concurrency(5);
    let calm = service("calm").proven().with("min-scale", "2");
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("busy.yaml", &busy.yaml()), ("calm.yaml", &calm.yaml())]);
    knarr.until_revision("calm-00001", "has two", |it| it.actual_replicas == 2);
    let table = knarr
        .ask(&["top", "--once", "--interval", "200ms", "--sort", "name"])
        .well()
        .out;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert!(
        table.starts_with("NAMESPACE   SERVICE") && !table.contains('\x1b'),
        "{table}"
    );
    assert_eq!(rows[1][..3], ["default", "busy", "busy-00001"]);
    assert!(
        rows[2][3].starts_with("calm-00001-") && rows[3][3] > rows[2][3],
        "{table}"
    );

    // A request that burns CPU is seen; and one in flight.
    let load = knarr.burst("busy", "/cpu?ms=2000", 2);
    knarr.until_revision("busy-00001", "has requests", |it| it.in_flight == 2);
    let look = || -> Value {
        let json = knarr.ask(&["top", "--json", "--interval", "500ms"]).well().out;
        serde_json::from_str(&json).unwrap()
    };
    let seen = look();
    assert_eq!(seen[0]["service"], "busy", "the busiest is first: {seen}");
    assert!(
        seen[0]["cpuPercent"].as_f64().unwrap() > 5.0 && seen[0]["inFlight"] == 2,
        "{seen}"
    );
    assert!(
        seen[0]["memory"].as_u64().unwrap() > 100_000 && seen[0]["rung"] == "full",
        "{seen}"
    );
    load.report();
    let none = knarr
        .ask(&["top", "--once", "--interval", "1ms", "--namespace", "none"])
        .well()
        .out;
    assert_eq!(none.lines().count(), 1, "{none}");
    let place = std::sync::Arc::clone(knarr.place());
    knarr.stop();
    let said = Output::of(place.knarr(&["top", "--once"]));
    assert!(
        said.code == Some(1) && said.err.contains("no Knarr runs on"),
        "{said:?}"
    );
}

const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {password: hunter2}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: keeper}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/min-scale: '1'}}
    spec:
      containers:
        - image: host:knarr
          args: [workload]
          resources: {limits: {cpu: 500m, memory: 128Mi}}
          env:
            - {name: PLAIN, value: as it is}
            - {name: PASSWORD, valueFrom: {secretKeyRef: {name: key, key: password}}}
";

#[test]
fn inspect_shows_everything_but_secrets() {
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("keeper.yaml", SECRET)]);
    assert_eq!(
        knarr.get("keeper", "/env").json()["PASSWORD"],
        "hunter2",
        "the app has it"
    );
    let sandbox = knarr.revision("keeper-00001").sandboxes[0].clone();
    let json = |target: &str| -> Value {
        let text = knarr.ask(&["inspect", target, "--json"]).well().out;
        assert!(!text.contains("hunter2"), "{text}");
        serde_json::from_str(&text).unwrap()
    };
    for target in ["keeper", "keeper-00001", "default/keeper", &sandbox] {
        let text = knarr.ask(&["inspect", target]).well().out;
        assert!(text.starts_with("kind: ") && !text.contains("hunter2"), "{text}");
    }
    let service = json("keeper");
    assert_eq!(
        (&service["kind"], &service["revisions"][0]),
        (&"Service".into(), &"keeper-00001".into())
    );
    assert_eq!(service["object"]["status"]["conditions"][0]["status"], "True");
    let revision = json("keeper-00001");
    assert_eq!(revision["kind"], "Revision");
    assert_eq!(
        revision["workload"]["serving"]["variables"],
        serde_json::json!(["PASSWORD", "PLAIN"])
    );
    assert_eq!(revision["running"]["actualReplicas"], 1);
    let found = json(&sandbox);
    assert_eq!(
        (&found["kind"], &found["revision"]),
        (&"Sandbox".into(), &"keeper-00001".into())
    );
    assert_eq!(found["service"], "default/keeper");
    let pid = u32::try_from(found["pid"].as_u64().unwrap()).unwrap();
    assert!(processes::apps(knarr.pid(), "keeper-00001").contains(&pid), "{found}");
    let process = &found["process"];
    assert_eq!(
        (
            &process["noNewPrivileges"],
            &process["seccompFilter"],
            &process["capabilities"]
        ),
        (&true.into(), &true.into(), &"0000000000000000".into())
    );
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert!(
            process["namespaces"].as_array().unwrap().contains(&kind.into()),
            "{kind}: {process}"
        );
    }
    if crate::support::is_root() {
        assert_eq!(
            (&found["limits"]["cpu"], &found["limits"]["memoryBytes"]),
            (&"500m".into(), &(128 << 20).into())
        );
        let cgroup = found["cgroups"][0].as_str().unwrap();
        let inside = fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap();
        assert!(inside.lines().any(|line| line == pid.to_string()), "{cgroup}: {inside}");
    }
    let mounts = found["mounts"].as_array().unwrap();
    assert!(
        mounts.iter().any(|it| it.as_str().unwrap().starts_with("/proc proc ")),
        "{mounts:?}"
    );
    assert!(found["start"]["readyMicroseconds"].as_u64() >= found["start"]["spawnedMicroseconds"].as_u64());
    assert!(fs::exists(found["logs"][0].as_str().unwrap()).unwrap());
    for target in ["nothing", "other/keeper", &format!("other/{sandbox}")] {
        let said = knarr.ask(&["inspect", target]);
        let wanted = format!("no service, revision or sandbox {target}");
        assert!(said.code == Some(1) && said.err.contains(&wanted), "{said:?}");
    }
}

/// An app that says numbered lines, long ones too, and never stops.
const TALKER: &str = "#!/usr/bin/python3
import os, sys, threading, http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        begin, end = map(int, self.path[1:].split('-'))
        for n in range(begin, end):
            text = 'line %d of %s' % (n, os.environ['HOSTNAME'])
            print(text + ('x' * 40000 if n % 1000 == 0 else ''), flush=n % 100 == 0)
        sys.stdout.flush()
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
";

#[test]
fn followed_logs_miss_nothing() {
    if !crate::support::has_python() {
        return;
    }
    let place = Place::new();
    let program = place.program("talker.py", TALKER);
    let talker = service("talker")
        .proven()
        .program(&format!("host:{}", program.display()), &[])
        .with("min-scale", "1");
    place.write(SHORT_WINDOWS.0, SHORT_WINDOWS.1);
    place.write("talker.yaml", &talker.yaml());
    let knarr = Knarr::at(&place, &[]);
    let mut command = place.knarr(&["logs", "-f", "--tail", "0", "talker"]);
    let to = place.path("followed");
    let mut child = command
        .stdout(fs::File::create(&to).unwrap())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    // It follows from when it has asked; nothing tells when that is.
    thread::sleep(Duration::from_millis(500));
    // Over several rotations of 10 MiB each, and two lives of the app.
    let lines = 150_000;
    for part in 0..10 {
        let (begin, end) = (part * lines / 10, (part + 1) * lines / 10);
        assert_eq!(knarr.get("talker", &format!("/{begin}-{end}")).status, 200);
        if part == 4 {
            for pid in processes::apps(knarr.pid(), "talker-00001") {
                processes::kill(pid);
            }
            knarr.until("it is replaced", |_| knarr.get("talker", "/0-0").status == 200);
        }
    }
    let last = format!("line {} of ", lines - 1);
    let said = || String::from_utf8(fs::read(&to).unwrap()).unwrap();
    until(
        "the last line is printed",
        || said().contains(&last),
        || said().lines().count().to_string(),
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let said = said();
    let mut next = 0;
    for line in said.lines() {
        // With its sandbox's name, once there were two.
        let line = line.split_once("] ").map_or(line, |(_, line)| line);
        let Some(number) = line
            .strip_prefix("line ")
            .and_then(|rest| rest.split(' ').next()?.parse::<i32>().ok())
        else {
            continue;
        };
        assert_eq!(next, number, "missing or twice");
        let long = line.ends_with(&"x".repeat(40_000));
        assert_eq!(long, next % 1000 == 0, "a long line is one line: {} bytes", line.len());
        next += 1;
    }
    assert_eq!(next, lines);

    // Two sandboxes, in the order of time; and only what is not older.
    let both = knarr.ask(&["logs", "talker", "--timestamps", "--tail", "3"]).well().out;
    let times: Vec<&str> = both.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert!(
        times.len() == 6 && times.is_sorted() && times[0].ends_with('Z'),
        "{both}"
    );
    assert_eq!(
        knarr
            .ask(&["logs", "talker", "--since", "1h", "--tail", "2"])
            .well()
            .out
            .lines()
            .count(),
        4
    );
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(knarr.ask(&["logs", "talker", "--since", "1s"]).well().out, "");
}
