//! `knarr load coldstart --knative`: the real kubectl, against an API server that has of Kubernetes the pods of one Knarr.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use control::status::Status;
use serde_json::{Value, json};

use crate::support::manifest::{SHORT_WINDOWS, service};
use crate::support::{KNARR, Knarr, Output, Place, needs};

/// What kubectl asks before it asks for pods, and the pods: Knarr's sandboxes, with the labels that Knative gives its own.
fn answer(path: &str, status: &Status) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let namespaced = path
        .strip_prefix("/api/v1/namespaces/")
        .and_then(|rest| rest.strip_suffix("/pods"));
    match (path, namespaced) {
        ("/api", _) => json!({"kind": "APIVersions", "versions": ["v1"]}),
        ("/apis", _) => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
        ("/api/v1", _) => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"]}
        ]}),
        (_, Some(namespace)) => {
            let wanted = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "labelSelector");
            let wanted = wanted.expect("pods of one service only").1;
            let pods = status.revisions.iter().flat_map(|revision| {
                let label = format!("serving.knative.dev/service={}", revision.service);
                let of_it = revision.namespace == namespace && label == wanted;
                let starting = (0..revision.starting_replicas).map(|nth| format!("{}-new-{nth}", revision.name));
                let names = revision.sandboxes.iter().cloned().chain(starting);
                names.filter(move |_| of_it)
            });
            let pods = pods.map(|name| json!({"metadata": {"name": name, "namespace": namespace}}));
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods.collect::<Vec<_>>()})
        }
        _ => json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                    "message": format!("there is no {path} here")}),
    }
}

/// Answers one request and closes; says what was asked.
fn serve(stream: TcpStream, status: &Status) -> String {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let said = answer(&path, status);
    let code = if said["kind"] == "Status" {
        "404 Not Found"
    } else {
        "200 OK"
    };
    let body = said.to_string();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // It may have gone away.
    let _ = (&stream).write_all((head + &body).as_bytes());
    path
}

/// `knarr load coldstart` with a kubectl that knows this API server and nothing of this machine's.
fn coldstart(place: &Place, api: SocketAddr, words: &[&str]) -> Output {
    let home = place.path("home");
    fs::create_dir_all(&home).unwrap();
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{api}")}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {}}]});
    fs::write(home.join("kubeconfig"), config.to_string()).unwrap();
    let mut command = Command::new(KNARR);
    command.args(["load", "coldstart"]).args(words);
    command.env("KUBECONFIG", home.join("kubeconfig")).env("HOME", &home);
    Output::of(command)
}

#[test]
fn zero_is_what_kubectl_says_of_a_knative_service() {
    let there = Command::new("kubectl").args(["version", "--client"]).output();
    if !needs("kubectl (kubernetes-client)", there.is_ok()) {
        return;
    }
    let web = service("web").proven().yaml();
    let busy = service("busy").with("min-scale", "1").yaml();
    let knarr = Knarr::serve(&[SHORT_WINDOWS, ("web.yaml", &web), ("busy.yaml", &busy)]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = listener.local_addr().unwrap();
    let (over, asked) = (AtomicBool::new(false), Arc::new(Mutex::new(Vec::new())));
    let (place, url) = (Place::new(), |app: &str| {
        format!("http://{app}.default.localhost:{}/", knarr.gateway.port())
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let path = serve(stream, &knarr.status());
                asked.lock().unwrap().push(path);
            }
        });
        let said = coldstart(&place, api, &[&url("web"), "--knative", "web", "-n", "2", "--json"]).well();
        let said: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(
            (&said["cold"], &said["first_byte"]["count"]),
            (&2.into(), &2.into()),
            "{said}"
        );
        assert!(
            said.to_string().contains("no pod of default/web, as kubectl says"),
            "{said}"
        );
        let paths = asked.lock().unwrap().join("\n");
        assert!(
            paths.contains("/api/v1/namespaces/default/pods?labelSelector="),
            "{paths}"
        );

        // Another service that never goes is none of this one's affair; its own is.
        let patient = ["--knative", "default/busy", "-n", "1", "--patience", "2s"];
        let never = coldstart(&place, api, &[&[&*url("busy")], &patient[..]].concat());
        assert_eq!(never.code, Some(1));
        assert!(
            never.err.contains("not at zero after 2s: no pod of default/busy"),
            "{never:?}"
        );
        over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(api));
    });
    // What kubectl says is wrong is said on.
    drop(listener);
    let gone = coldstart(&place, api, &[&url("web"), "--knative", "web", "-n", "1"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains("kubectl: "), "{gone:?}");
}
