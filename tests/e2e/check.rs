//! Commands that need no running Knarr.

use std::io::Write;
use std::process::Stdio;

use crate::support::manifest::service;
use crate::support::{Output, Place};

fn knarr(words: &[&str]) -> Output {
    Output::of(Place::new().knarr(words))
}

#[test]
fn check_tells_every_mistake_in_one_run() {
    let broken = knarr(&["check", "manifests/examples/broken"]);
    assert_eq!(broken.code, Some(1));
    let file = "manifests/examples/broken/many-mistakes.yaml";
    for (line, field, what) in [
        (
            ":7:",
            "metadata.annotations.knarr.dev/idle",
            "belongs under spec.template.metadata.annotations",
        ),
        (
            ":12:",
            "autoscaling.knative.dev/min-scale",
            "max-scale=2 is less than min-scale=5",
        ),
        (
            ":15:",
            "knarr.dev/cold-start-slo",
            "did you mean knarr.dev/cold-start-sla?",
        ),
        (":16:", "knarr.dev/server-timing", "write enabled, disabled"),
        (
            ":18:",
            "knarr.dev/egress-allow",
            "10.0.0.1/8: has bits behind its prefix; the network is 10.0.0.0/8",
        ),
        (
            ":20:",
            "spec.template.spec.containerConcurency",
            "did you mean `containerConcurrency`?",
        ),
        (
            ":21:",
            "spec.template.spec.timeoutSeconds",
            "must be a whole number, found the text \"soon\"",
        ),
        (
            ":23:",
            "spec.template.spec.imagePullSecrets[0]",
            "there is no Secret default/missing",
        ),
        (
            ":26:",
            "spec.template.spec.volumes[0].configMap",
            "there is no ConfigMap default/missing",
        ),
        (
            ":29:",
            "spec.template.spec.containers[0].image",
            "write an absolute path: oci:/path/to/image",
        ),
        (":30:", "spec.template.spec.containers[0].arg", "did you mean `args`?"),
        (
            ":31:",
            "spec.template.spec.containers[0].ports.containerPort",
            "8012 is a reserved port",
        ),
        (
            ":34:",
            "spec.template.spec.containers[0].env[0].name",
            "\"PORT\" is a reserved environment variable",
        ),
        (
            ":38:",
            "spec.template.spec.containers[0].env[1].valueFrom.secretKeyRef",
            "there is no Secret default/missing",
        ),
        (
            ":45:",
            "spec.template.spec.containers[0].livenessProbe.exec.command",
            "write a program and its arguments",
        ),
        (
            ":46:",
            "spec.template.spec.containers[0].lifecycle",
            "must not set the field(s)",
        ),
        (":50:", "spec.traffic", "Traffic targets sum to 90, want 100"),
        (":57 (document 2):", "kind", "did you mean `Service`?"),
        (":67 (document 3):", "data.stable-window", "quote it: \"60\""),
        (":68 (document 3):", "data.max-scale-up-rate", "must be more than 1"),
        (
            ":69 (document 3):",
            "data.scale-to-zero-grace",
            "did you mean \"scale-to-zero-grace-period\"?",
        ),
        (
            ":14:",
            "autoscaling.knative.dev/windw",
            "did you mean autoscaling.knative.dev/window?",
        ),
    ] {
        let said = |it: &str| it.contains(&format!("{file}{line}")) && it.contains(field) && it.contains(what);
        assert!(broken.out.lines().any(said), "{line} {field}: {what}\n{}", broken.out);
    }
    assert_eq!(broken.err, "22 problems in 1 file\n");
    let quiet = knarr(&["check", "--quiet", "manifests/examples/broken"]);
    assert!(
        broken.out.contains("warning: ") && !quiet.out.contains("warning: "),
        "{quiet:?}"
    );
}

#[test]
fn check_says_what_is_right_and_what_is_not_there() {
    let right = knarr(&["check", "manifests/examples"]).well();
    assert!(
        right.out.is_empty() && right.err.contains("files are right"),
        "{right:?}"
    );
    let planner = knarr(&["check", "manifests/examples/planner"]).well();
    assert!(planner.out.is_empty(), "{planner:?}");
    for name in ["local", "eci", "ecs-burstable", "fargate"] {
        knarr(&["check", &format!("manifests/catalogues/{name}.yaml")]).well();
    }
    for wrong in ["manifests/examples/none.yaml", "none"] {
        let missing = knarr(&["check", wrong]);
        assert_eq!(missing.code, Some(1));
        assert!(missing.err.contains(&format!("{wrong}: No such file")), "{missing:?}");
    }

    let from_stdin = |text: &str| {
        let mut command = Place::new().knarr(&["check", "-"]);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(from_stdin(&service("web").proven().yaml()).0, Some(0));
    let (code, out) = from_stdin("kind: Service\n");
    assert!(code == Some(1) && out.starts_with("-:1: "), "{code:?} {out}");
}

#[test]
fn what_cannot_be_understood_ends_with_2_and_says_what_can() {
    for (words, wanted) in [
        (&["serve"][..], "<PATH>..."),
        (&["serve", "--port", "80", "x"], "unexpected argument '--port'"),
        (&["surf"], "unrecognized subcommand 'surf'"),
        (
            &["explain", "x", "--since", "5"],
            "write a whole number with ms, s, m or h",
        ),
        (&["get", "pods"], "possible values"),
        (&["completions", "tcl"], "possible values"),
    ] {
        let said = knarr(words);
        assert_eq!(said.code, Some(2), "{words:?} {said:?}");
        assert!(said.err.contains(wanted), "{words:?} {said:?}");
    }
    let help = knarr(&["--help"]).well();
    assert!(
        help.out.contains("Examples:") && help.out.contains("knarr demo"),
        "{help:?}"
    );
    assert_eq!(
        knarr(&["--version"]).well().out,
        format!("knarr {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn completions_for_every_shell_even_when_nobody_reads_on() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = knarr(&["completions", shell]).well();
        assert!(
            script.out.contains("knarr") && script.out.contains("explain"),
            "{shell}"
        );
        let place = Place::new();
        let mut child = place
            .knarr(&["completions", shell])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{shell}");
    }
}

#[test]
fn a_runtime_that_is_not_there_is_refused_when_the_manifest_is_read() {
    let place = Place::new();
    let feature = "apiVersion: v1
kind: ConfigMap
metadata: {name: config-features, namespace: knative-serving}
data: {kubernetes.podspec-runtimeclassname: enabled}
";
    let app = "apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: app}
spec: {template: {spec: {runtimeClassName: kata, containers: [{image: app}]}}}
";
    place.write("features.yaml", feature);
    place.write("app.yaml", app);
    let (manifests, config) = (place.manifests(), place.path("knarr.toml"));
    std::fs::write(&config, "[[runtime]]\nname = 'runc'\npath = '/usr/bin/runc'\n").unwrap();
    let (manifests, config) = (manifests.to_str().unwrap(), config.to_str().unwrap());
    knarr(&["check", manifests]).well();
    let wrong = "app.yaml:4: spec.template.spec.runtimeClassName: there is no runtime \"kata\" here; this Knarr has native, runc; \
                 others are [[runtime]] in its settings";
    let checked = knarr(&["check", "--config", config, manifests]);
    assert!(checked.code == Some(1) && checked.out.contains(wrong), "{checked:?}");
    let served = Output::of(place.knarr(&["serve", manifests, "--config", config]));
    assert!(served.code == Some(1) && served.err.contains(wrong), "{served:?}");
    place.write("app.yaml", &app.replace("kata", "runc"));
    knarr(&["check", "--config", config, manifests]).well();
}

#[test]
fn what_keeps_a_server_from_starting_is_said_and_leaves_nothing() {
    let place = Place::new();
    place.write("web.yaml", &service("web").proven().yaml());
    let manifests = place.manifests();
    let manifests = manifests.to_str().unwrap();
    let config = place.path("knarr.toml");
    for (text, wanted) in [
        ("lisen = []", "unknown field `lisen`"),
        ("listen = 80", "listen"),
        ("threads = 0", "threads: 0 is out of range; 1 to 1024"),
        ("[queue]\nrequests = 0", "queue.requests: 0 is out of range"),
        ("drain-timeout = '30'", "drain-timeout: \"30\" is not a duration"),
        ("admin = '192.0.2.1:80'", "is not a loopback address"),
        ("not toml", "knarr.toml"),
        ("[[spec]]\nname = 'x'", "spec: is a manifest now"),
        (
            "instances = 'farget'",
            "write a file, or one of local, eci, ecs-burstable, fargate",
        ),
    ] {
        std::fs::write(&config, text).unwrap();
        let said = Output::of(place.knarr(&["serve", manifests, "--config", config.to_str().unwrap()]));
        assert_eq!(said.code, Some(1), "{text}: {said:?}");
        assert!(
            said.err.starts_with("error: ") && said.err.contains(wanted),
            "{text}: {said:?}"
        );
    }
    for (words, wanted) in [
        (&["--config", "/none.toml"][..], "/none.toml: No such file"),
        (&["--listen", "8080"], "write IP:PORT"),
        (&["--admin", "0.0.0.0:0"], "is not a loopback address"),
        (&["--threads", "0"], "threads: 0 is out of range"),
        (
            &["--instances", "farget"],
            "instances: farget: No such file or directory",
        ),
        (&["--instances", manifests], "instances: "),
    ] {
        let said = Output::of(place.knarr(&[&["serve", manifests], words].concat()));
        assert!(said.code == Some(1) && said.err.contains(wanted), "{words:?} {said:?}");
    }
    place.write(
        "wrong.yaml",
        &service("web").yaml().replace("kind: Service", "kind: Servise"),
    );
    let said = Output::of(place.knarr(&["serve", manifests]));
    assert!(
        said.code == Some(1) && said.err.contains("did you mean `Service`?"),
        "{said:?}"
    );
    let said = Output::of(place.knarr(&["serve", &format!("{manifests}/none.yaml")]));
    assert!(
        said.code == Some(1) && said.err.contains("none.yaml: No such file"),
        "{said:?}"
    );
    assert!(
        !place.data().exists(),
        "nothing was made for a server that cannot start"
    );
    let said = Output::of(place.knarr(&["get"]));
    assert!(
        said.code == Some(1) && said.err.contains("no Knarr runs on"),
        "{said:?}"
    );
}
