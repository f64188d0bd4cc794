//! Whole files against what came of them: problems, warnings, and every object with the revision it makes.
//!
//! `KNARR_BLESS=1 cargo test -p knarr-manifests --test golden` writes the `.expected` files; read the difference before
//! you commit it.

#![allow(clippy::unwrap_used, reason = "a test over fixed files")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use manifests::bundle::{Bundle, Checked, Input, bundle};
use manifests::convert::{self, Identity};
use manifests::domains::{Hosts, RouteMeta};
use manifests::ids::{ObjectId, RevisionId};
use manifests::names;
use manifests::problem::Problem;
use manifests::resources::{ObjectMeta, Resource, RevisionTemplate, TrafficTarget};
use manifests::revision::Planning;
use manifests::units::Timestamp;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The YAML files of a folder, by name, named as from the crate's folder.
fn inputs(folder: &str) -> Vec<Input> {
    let entries = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .collect();
    files.sort();
    let input = |path: PathBuf| Input {
        name: path.strip_prefix(root()).unwrap().display().to_string(),
        text: std::fs::read_to_string(&path).unwrap(),
    };
    files.into_iter().map(input).collect()
}

fn render(checked: &Checked) -> String {
    let mut text = String::new();
    for (title, list) in [("problems", &checked.problems), ("warnings", &checked.warnings)] {
        writeln!(text, "{title}: {}", list.len()).unwrap();
        for problem in list {
            writeln!(text, "  {}", problem.to_string().replace('\n', "\n    ")).unwrap();
        }
    }
    for (key, object) in &checked.bundle.objects {
        writeln!(text, "\n{:?} {} ({})", key.kind, key.id, object.origin.file).unwrap();
        match &object.resource {
            Resource::Service(it) => {
                hosts(&mut text, &it.metadata, &it.spec.traffic, &checked.bundle);
                revision(&mut text, &it.metadata, &it.spec.template, true, &checked.bundle);
            }
            Resource::Configuration(it) => revision(&mut text, &it.metadata, &it.spec.template, false, &checked.bundle),
            Resource::Route(it) => hosts(&mut text, &it.metadata, &it.spec.traffic, &checked.bundle),
            _ => {}
        }
    }
    text
}

fn hosts(text: &mut String, meta: &ObjectMeta, traffic: &[TrafficTarget], bundle: &Bundle) {
    let hosts = Hosts {
        network: &bundle.cluster.network,
        domains: &bundle.cluster.domain,
    };
    let route = RouteMeta {
        name: &meta.name,
        namespace: &meta.namespace,
        labels: &meta.labels,
        annotations: &meta.annotations,
    };
    for tag in std::iter::once("").chain(
        traffic
            .iter()
            .map(|target| target.tag.as_str())
            .filter(|tag| !tag.is_empty()),
    ) {
        let host = hosts
            .domain_name(route, &hosts.hostname(&meta.name, tag).unwrap())
            .unwrap();
        writeln!(text, "  host {tag:?}: {host}").unwrap();
    }
    for target in traffic {
        writeln!(text, "  target: {}", serde_json::to_string(target).unwrap()).unwrap();
    }
}

fn revision(text: &mut String, meta: &ObjectMeta, template: &RevisionTemplate, in_service: bool, bundle: &Bundle) {
    let id = ObjectId::new(meta.namespace.as_str(), meta.name.as_str());
    let name = Some(template.metadata.name.clone()).filter(|name| !name.is_empty());
    let identity = Identity {
        id: RevisionId::new(id.namespace(), name.unwrap_or_else(|| names::revision(&meta.name, 1))),
        configuration: id.clone(),
        service: in_service.then_some(id),
        created: Timestamp::EPOCH,
    };
    let made = convert::revision_from(identity, &template.metadata, &template.spec, bundle.around()).unwrap();
    writeln!(text, "  revision {}", made.id).unwrap();
    writeln!(text, "    workload: {:?}", made.workload).unwrap();
    // Left out of `Debug`, for they may be secret.
    for it in made.workload.containers() {
        let (command, args, env) = (&it.command, &it.args, &it.env);
        writeln!(text, "    {}: command {command:?}, args {args:?}, env {env:?}", it.name).unwrap();
    }
    writeln!(text, "    scaling: {:?}", made.scaling).unwrap();
    writeln!(text, "    {:?}, {:?}", made.container_concurrency, made.timeouts).unwrap();
    let flags = format!(
        "server timing {}, upstream keepalive {}",
        made.server_timing, made.upstream_keepalive
    );
    writeln!(text, "    idle: {:?}, {flags}", made.idle).unwrap();
    if made.planning != Planning::default() || made.idle_ignore.is_some() {
        let planning = &made.planning;
        write!(text, "    planning: {}, specs {:?}", planning.sla, planning.specs).unwrap();
        write!(text, ", min-scale as {}", planning.min_scale_as.as_str()).unwrap();
        writeln!(text, ", reserve {:?}", planning.reserve).unwrap();
        let warm = planning.keep_warm.iter().map(|warm| format!("    keep warm: {warm}\n"));
        let ignored = made
            .idle_ignore
            .iter()
            .map(|ignored| format!("    idle-ignore: {ignored}\n"));
        text.extend(warm.chain(ignored));
    }
}

/// Compares with, or writes, the expected text.
fn check(expected: &Path, got: &str) {
    if std::env::var_os("KNARR_BLESS").is_some() {
        std::fs::write(expected, got).unwrap();
        return;
    }
    let want = std::fs::read_to_string(expected).unwrap_or_default();
    for (nth, (got, want)) in got.lines().zip(want.lines()).enumerate() {
        assert_eq!(got, want, "{} line {}", expected.display(), nth + 1);
    }
    assert_eq!(
        got.lines().count(),
        want.lines().count(),
        "lines of {}",
        expected.display()
    );
}

#[test]
fn each_golden_file() {
    let inputs = inputs("tests/golden");
    assert!(inputs.len() >= 8);
    for input in inputs {
        let expected = root().join(&input.name).with_extension("expected");
        check(&expected, &render(&bundle(std::slice::from_ref(&input), None)));
    }
}

#[test]
fn all_examples_together_are_right() {
    let checked = bundle(&inputs("examples"), None);
    assert_eq!(checked.problems, Vec::<Problem>::new());
    assert_eq!(checked.warnings, Vec::<Problem>::new());
    check(&root().join("tests/golden/examples.expected"), &render(&checked));
}

#[test]
fn each_example_is_right_alone() {
    for input in inputs("examples") {
        let checked = bundle(std::slice::from_ref(&input), None);
        assert_eq!(checked.problems, Vec::<Problem>::new(), "{}", input.name);
        assert!(
            !checked.bundle.objects.is_empty() || input.name.ends_with("config.yaml"),
            "{}",
            input.name
        );
    }
}

/// They set the cluster's defaults, so they stand apart.
#[test]
fn the_planners_examples_are_right() {
    let checked = bundle(&inputs("examples/planner"), None);
    assert_eq!(checked.problems, Vec::<Problem>::new());
    assert_eq!(checked.warnings, Vec::<Problem>::new());
    check(&root().join("tests/golden/planner.expected"), &render(&checked));
}

#[test]
fn the_broken_example_says_everything_at_once() {
    let checked = bundle(&inputs("examples/broken"), None);
    assert!(checked.bundle.objects.is_empty());
    check(&root().join("tests/golden/broken.expected"), &render(&checked));
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let inputs = inputs("examples");
    let first = bundle(&inputs, None);
    let second = bundle(&inputs, Some(&first.bundle));
    assert_eq!(second.problems, Vec::<Problem>::new());
    assert_eq!(render(&second), render(&first));
    for (key, object) in &first.bundle.objects {
        assert_eq!(second.bundle.objects[key].resource, object.resource, "{key:?}");
    }
}
