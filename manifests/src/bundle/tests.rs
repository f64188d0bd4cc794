use proptest::prelude::*;

use super::*;
use crate::annotations::ALL;
use crate::revision::Metric;
use crate::workload::Image;

fn input(name: &str, text: &str) -> Input {
    Input {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn service(name: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  template:\n    spec:\n      \
         containers:\n        - image: host:/bin/app\n{rest}"
    )
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn names(bundle: &Bundle) -> Vec<String> {
    bundle
        .objects
        .keys()
        .map(|key| format!("{:?} {}", key.kind, key.id))
        .collect()
}

#[test]
fn config_maps_come_first_wherever_they_stand() {
    let texts = [
        input(
            "a.yaml",
            &service(
                "a",
                "          env:\n            - {name: X, valueFrom: {configMapKeyRef: {name: c, key: k}}}\n",
            ),
        ),
        input(
            "b.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: v}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: \
             config-defaults, namespace: knative-serving}\ndata: {container-concurrency: '7'}\n",
        ),
    ];
    let checked = bundle(&texts, None);
    assert_eq!((lines(&checked.problems), lines(&checked.warnings)), (vec![], vec![]));
    assert_eq!(names(&checked.bundle), ["Service default/a"]);
    assert_eq!(checked.bundle.cluster.settings.defaults.container_concurrency, 7);
    assert!(checked.bundle.of_kind(ObjectKind::Service).next().is_some());

    let without = bundle(&texts[..1], None);
    assert_eq!(
        lines(&without.problems),
        [
            "a.yaml:12: spec.template.spec.containers[0].env[0].valueFrom.configMapKeyRef: there is no ConfigMap default/c; add it, or set \
             optional: true"
        ]
    );
    assert!(without.bundle.objects.is_empty());
}

#[test]
fn a_runtime_must_be_one_that_is_there() {
    let features = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-features, namespace: knative-serving}\n\
                    data: {kubernetes.podspec-runtimeclassname: enabled}\n";
    let app = |runtime: &str| {
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  template:\n    spec:\n      \
             runtimeClassName: {runtime}\n      containers: [{{image: ab}}]\n"
        )
    };
    let problems = |runtime: &str, runtimes: Option<&[&str]>| {
        let inputs = [input("features.yaml", features), input("a.yaml", &app(runtime))];
        let runtimes = runtimes.map(|names| names.iter().map(ToString::to_string).collect());
        let checked = bundle_for(runtimes.as_ref(), &inputs, None);
        assert_eq!(checked.bundle.objects.is_empty(), !checked.problems.is_empty());
        lines(&checked.problems)
    };
    let none: [&str; 0] = [];
    assert_eq!(problems("crun", None), none, "nobody knows");
    assert_eq!(problems("crun", Some(&["crun", "runc"])), none);
    assert_eq!(problems("native", Some(&[])), none);
    let wrong = "a.yaml:7: spec.template.spec.runtimeClassName: there is no runtime \"kata\" here; this Knarr has";
    let others = "others are [[runtime]] in its settings";
    for (known, names) in [(&["crun", "runc"][..], "native, crun, runc"), (&[], "native")] {
        assert_eq!(problems("kata", Some(known)), [format!("{wrong} {names}; {others}")]);
    }
}

#[test]
fn a_template_converts_with_what_the_bundle_says() {
    let checked = bundle(&[input("a.yaml", &service("a", ""))], None);
    let (id, object) = checked.bundle.of_kind(ObjectKind::Service).next().unwrap();
    let Resource::Service(service) = &object.resource else {
        panic!("{object:?}")
    };
    let template = &service.spec.template;
    let identity = convert::Identity {
        id: crate::ids::RevisionId::new(id.namespace(), "a-00001"),
        configuration: id.clone(),
        service: Some(id.clone()),
        created: crate::units::Timestamp::EPOCH,
    };
    let revision = convert::revision_from(identity, &template.metadata, &template.spec, checked.bundle.around());
    assert_eq!(revision.unwrap().workload.serving.image, Image::Host("/bin/app".into()));
}

#[test]
fn doubles_and_clashes_name_both_places() {
    let route = |name: &str, traffic: &str| {
        format!(
            "---\napiVersion: serving.knative.dev/v1\nkind: Route\nmetadata: {{name: {name}}}\nspec: {{traffic: [{traffic}]}}\n"
        )
    };
    let traffic = "  traffic:\n    - {latestRevision: true, percent: 100, tag: blue}\n";
    let a = service("hello", traffic) + &service("hello", "");
    let b = route("hello", "{configurationName: hello, percent: 100}")
        + &route("blue-hello", "{configurationName: hello, percent: 100}");
    let checked = bundle(&[input("a.yaml", &a), input("b.yaml", &b)], None);
    assert_eq!(
        lines(&checked.problems),
        [
            "a.yaml:17 (document 2): metadata.name: Service default/hello is defined twice, first at a.yaml:5; remove one, or rename it",
            "b.yaml:4: metadata.name: Service default/hello at a.yaml:5 makes a Route of this name; rename it",
            "b.yaml:4: metadata.name: host hello.default.svc.cluster.local is served by a.yaml:5 already; choose another name or tag",
            "b.yaml:9 (document 2): metadata.name: host blue-hello.default.svc.cluster.local is served by a.yaml:5 already; choose another name or tag",
        ]
    );
    assert_eq!(names(&checked.bundle), ["Service default/hello"]);
}

#[test]
fn targets_that_are_not_there_are_warnings() {
    let text = "apiVersion: serving.knative.dev/v1\nkind: Route\nmetadata: {name: r}\nspec:\n  traffic:\n    - {configurationName: gone, \
                percent: 50}\n    - {revisionName: gone-1, percent: 50}\n";
    let known = "---\napiVersion: serving.knative.dev/v1\nkind: Route\nmetadata: {name: ok}\nspec:\n  traffic:\n    - {revisionName: \
                 s-00007, percent: 50}\n    - {revisionName: mine-a, percent: 50}\n";
    let own = "---\napiVersion: serving.knative.dev/v1\nkind: Configuration\nmetadata: {name: mine}\nspec: {template: {metadata: {name: \
               mine-a}, spec: {containers: [{image: host:a}]}}}\n";
    let checked = bundle(
        &[input("r.yaml", &format!("{text}{known}{own}{}", service("s", "")))],
        None,
    );
    assert_eq!(lines(&checked.problems), [""; 0]);
    assert_eq!(
        lines(&checked.warnings),
        [
            "r.yaml:6: spec.traffic[0].configurationName: there is no Configuration default/gone; the Route waits until there is one",
            "r.yaml:7: spec.traffic[1].revisionName: no manifest makes a revision default/gone-1; the Route waits until there is one",
        ]
    );
    assert_eq!(names(&checked.bundle).len(), 4);
}

#[test]
fn what_is_not_built_is_refused_and_a_domain_mapping_only_warned_of() {
    let mapping = "---\napiVersion: serving.knative.dev/v1beta1\nkind: DomainMapping\nmetadata: {name: a.example.com}\nspec: {ref: {kind: \
                   Service, apiVersion: serving.knative.dev/v1, name: a}}\n";
    let text = service("a", "          securityContext: {allowPrivilegeEscalation: true}\n") + mapping;
    let checked = bundle(&[input("-", &text)], None);
    let path = "spec.template.spec.containers[0].securityContext.allowPrivilegeEscalation";
    let hint = "leave it out: no process of a sandbox can gain privileges";
    assert_eq!(
        lines(&checked.problems),
        [format!("-:11: not supported yet: {path}; {hint}")]
    );
    assert_eq!(
        lines(&checked.warnings),
        ["-:14 (document 2): not supported yet: kind; the DomainMapping is checked, but not served"]
    );
    assert_eq!(names(&checked.bundle), ["DomainMapping default/a.example.com"]);
}

#[test]
fn claims_are_checked_and_found() {
    let claim = |spec: &str| {
        format!("---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: data}}\nspec: {{{spec}}}\n")
    };
    let features = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-features, namespace: knative-serving}\ndata: \
                    {kubernetes.podspec-persistent-volume-claim: enabled, kubernetes.podspec-persistent-volume-write: enabled}\n";
    let app = service(
        "a",
        "          volumeMounts: [{name: d, mountPath: /d}]\n      volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]\n",
    );
    let run = |text: String| {
        let checked = bundle(&[input("-", &text)], None);
        (lines(&checked.problems), lines(&checked.warnings))
    };
    let size = "resources: {requests: {storage: 1Gi}}";
    let right = claim(&format!("accessModes: [ReadWriteOnce], {size}"));
    assert_eq!(run(format!("{features}{app}{right}")), (vec![], vec![]));
    let missing = "-:17 (document 2): spec.template.spec.volumes[0].persistentVolumeClaim.claimName: there is no PersistentVolumeClaim \
                   default/data; add it";
    assert_eq!(run(format!("{features}{app}")).0, [missing]);
    let table = [
        (
            size,
            "spec.accessModes: missing; write [ReadWriteOnce] or [ReadWriteMany]",
        ),
        (
            "accessModes: [Once]",
            "spec.accessModes[0]: invalid value: Once; there are ReadWriteOnce, ReadWriteOncePod, ReadOnlyMany, ReadWriteMany",
        ),
        (
            "accessModes: [ReadWriteOnce], volumeMode: Block",
            "spec.volumeMode: not supported: Block; write Filesystem",
        ),
        (
            "accessModes: [ReadWriteOnce], volumeName: disk",
            "not supported yet: spec.volumeName; a claim is a new directory under the data directory",
        ),
    ];
    for (spec, want) in table {
        let (problems, _) = run(claim(spec));
        assert!(problems.len() == 1 && problems[0].ends_with(want), "{problems:?}");
    }
    let (_, warnings) = run(claim("accessModes: [ReadWriteOnce], storageClassName: fast"));
    assert!(
        warnings[0].contains("spec.storageClassName: has no effect"),
        "{warnings:?}"
    );
    let (problems, _) = run(right.replace("name: data", "name: ../data"));
    assert!(
        problems[0].contains("metadata.name: invalid value: ../data"),
        "{problems:?}"
    );
}

/// As a Pod stays when its claim is deleted: what names the claim stays right, and is told; nothing new may name it.
#[test]
fn a_deleted_claim_is_known_as_long_as_something_names_it() {
    let features = input(
        "features.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-features, namespace: knative-serving}\ndata: \
         {kubernetes.podspec-persistent-volume-claim: enabled, kubernetes.podspec-persistent-volume-write: enabled}\n",
    );
    let claim = input(
        "claim.yaml",
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce]}\n",
    );
    let app = input(
        "app.yaml",
        &service(
            "app",
            "          volumeMounts: [{name: v, mountPath: /v}]\n      volumes: [{name: v, persistentVolumeClaim: {claimName: \
             data}}]\n",
        ),
    );
    let id = ObjectId::new("default", "data");
    let first = bundle(&[features.clone(), claim.clone(), app.clone()], None);
    assert_eq!((lines(&first.problems), lines(&first.warnings)), (vec![], vec![]));
    let without = bundle(&[features.clone(), app.clone()], Some(&first.bundle));
    assert_eq!(
        (lines(&without.problems), lines(&without.warnings)),
        (
            vec![],
            vec![
                "app.yaml:12: spec.template.spec.volumes[0].persistentVolumeClaim.claimName: PersistentVolumeClaim default/data was \
                 deleted; it goes when the last sandbox with it has ended; no other one starts with it"
                    .to_owned()
            ]
        )
    );
    assert_eq!(names(&without.bundle), names(&first.bundle));
    assert!(without.bundle.sources.is_deleted(&id) && without.bundle.sources.claims().next().is_none());
    let again = bundle(&[features.clone(), claim, app.clone()], Some(&without.bundle));
    assert!(!again.bundle.sources.is_deleted(&id) && again.warnings.is_empty());
    let unused = bundle(std::slice::from_ref(&features), Some(&without.bundle));
    assert!(!unused.bundle.sources.is_deleted(&id));
    // From then on it is as if it had never been.
    let late = bundle(&[features, app], Some(&unused.bundle));
    assert!(lines(&late.problems)[0].contains("there is no PersistentVolumeClaim default/data"));
}

#[test]
fn a_spec_that_is_in_use_does_not_go_from_the_catalogue() {
    let map = |name: &str, data: &str| {
        let head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: knative-serving, name: ";
        input(&format!("{name}.yaml"), &format!("{head}{name}}}\ndata:\n  {data}\n"))
    };
    let annotated = |specs: &str| {
        let template = format!(
            "    metadata: {{annotations: {{knarr.dev/instance-specs: '{specs}'}}}}\n    spec:\n      containers"
        );
        input(
            "app.yaml",
            &service("a", "").replace("    spec:\n      containers", &template),
        )
    };
    let catalogue = |specs: &[&str]| {
        let specs: Vec<_> = specs
            .iter()
            .map(|name| format!("{{name: {name}, cpu: 1, price: 1/h}}"))
            .collect();
        map("config-instances", &format!("specs: '[{}]'", specs.join(", ")))
    };
    let planner = map("config-planner", "instance-specs: p, q");
    let first = bundle(&[planner.clone(), annotated("q"), catalogue(&["p", "q", "r"])], None);
    assert_eq!((lines(&first.problems), lines(&first.warnings)), (vec![], vec![]));
    let first = &first.bundle;
    let again = |inputs: &[Input]| {
        let checked = bundle(inputs, Some(first));
        assert_eq!(names(&checked.bundle), ["Service default/a"], "{:?}", checked.problems);
        let specs: Vec<String> = checked.bundle.cluster.instances.names().map(str::to_owned).collect();
        (
            specs.join(""),
            [lines(&checked.problems), lines(&checked.warnings)].concat(),
        )
    };

    // Whoever names it, the catalogue is at fault, and stays; nobody names r.
    let (specs, said) = again(&[planner.clone(), annotated("q"), catalogue(&["q", "r"])]);
    let wrong = "config-instances.yaml:4: data: there is no spec p any more, which ConfigMap knative-serving/config-planner names";
    assert!(
        specs == "pqr" && said.len() == 1 && said[0].starts_with(wrong),
        "{specs} {said:?}"
    );
    let (specs, said) = again(&[annotated("q"), catalogue(&["p"])]);
    assert!(
        specs == "pqr" && said[0].contains("there is no spec q any more, which Service default/a names"),
        "{said:?}"
    );
    assert_eq!(
        again(&[planner.clone(), annotated("q"), catalogue(&["p", "q"])]),
        ("pq".to_owned(), vec![])
    );
    assert_eq!(again(&[annotated("p"), catalogue(&["p"])]), ("p".to_owned(), vec![]));
    // Wrong by itself, or gone.
    let broken = map("config-instances", "specs: '[{name: p, price: -1/h}]'");
    let (specs, said) = again(&[annotated("q"), broken]);
    assert!(
        specs == "pqr" && said.len() == 1 && said[0].contains("it is negative"),
        "{said:?}"
    );
    let (specs, said) = again(&[annotated("q")]);
    assert!(
        specs == "pqr" && said.len() == 1 && said[0].contains("is gone; it stays in use"),
        "{said:?}"
    );

    // At first there is nothing to go back to.
    let wrong = bundle(&[planner, annotated("s"), catalogue(&["q"])], None);
    let said = lines(&wrong.problems);
    assert!(
        said.len() == 2 && said[0].contains("data.instance-specs: the catalogue own has no instance spec p"),
        "{said:?}"
    );
    assert!(
        said[1].contains("the catalogue own has no instance spec s: there are q"),
        "{said:?}"
    );
}

#[test]
fn one_bad_file_leaves_the_others_alone() {
    let checked = bundle(
        &[input("bad.yaml", "kind: [\n"), input("good.yaml", &service("a", ""))],
        None,
    );
    assert!(checked.problems.iter().all(|problem| &*problem.file == "bad.yaml") && !checked.problems.is_empty());
    assert_eq!(names(&checked.bundle), ["Service default/a"]);
}

#[test]
fn an_update_keeps_what_defaulting_filled_in_and_obeys_knatives_rules() {
    let config = |seconds: u32| {
        let data = format!("data: {{revision-timeout-seconds: '{seconds}'}}\n");
        input(
            "c.yaml",
            &format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config-defaults, namespace: knative-serving}}\n{data}"
            ),
        )
    };
    let timeout = |bundle: &Bundle| {
        let (_, object) = bundle.of_kind(ObjectKind::Service).next().unwrap();
        match &object.resource {
            Resource::Service(it) => it.spec.template.spec.timeout_seconds,
            other => panic!("{other:?}"),
        }
    };
    let first = bundle(&[config(100), input("a.yaml", &service("a", ""))], None).bundle;
    assert_eq!(timeout(&first), Some(100));

    // New defaults are for new objects; what the manifest says is for all.
    let second = bundle(&[config(200), input("a.yaml", &service("a", ""))], Some(&first)).bundle;
    assert_eq!(timeout(&second), Some(100));
    assert_eq!(
        second.objects.values().next().unwrap().resource,
        first.objects.values().next().unwrap().resource
    );
    let said = service("a", "      timeoutSeconds: 7\n");
    let third = bundle(&[config(200), input("a.yaml", &said)], Some(&second)).bundle;
    assert_eq!(timeout(&third), Some(7));
    let unsaid = bundle(&[config(200), input("a.yaml", &service("a", ""))], Some(&third)).bundle;
    assert_eq!(timeout(&unsaid), Some(200));

    // A template with a name of the user's own changes only together with that name.
    let named = |name: &str, image: &str| {
        let text = service("a", "").replace(
            "    spec:\n      containers",
            &format!("    metadata: {{name: {name}}}\n    spec:\n      containers"),
        );
        [input("a.yaml", &text.replace("host:/bin/app", image))]
    };
    let one = bundle(&named("a-one", "host:/bin/one"), None);
    assert_eq!(lines(&one.problems), [""; 0]);
    let same_name = bundle(&named("a-one", "host:/bin/two"), Some(&one.bundle));
    assert!(
        lines(&same_name.problems)[0].contains("Saw the following changes without a name change"),
        "{:?}",
        same_name.problems
    );
    assert_eq!(
        lines(&bundle(&named("a-two", "host:/bin/two"), Some(&one.bundle)).problems),
        [""; 0]
    );
}

/// The revision of the one Service in a bundle; `None` when it was refused.
fn only_revision(checked: &Checked) -> Option<crate::revision::Revision> {
    let (id, object) = checked.bundle.of_kind(ObjectKind::Service).next()?;
    let Resource::Service(service) = &object.resource else {
        panic!("{object:?}")
    };
    let template = &service.spec.template;
    let identity = convert::Identity {
        id: crate::ids::RevisionId::new(id.namespace(), "a-00001"),
        configuration: id.clone(),
        service: Some(id.clone()),
        created: crate::units::Timestamp::EPOCH,
    };
    let around = checked.bundle.around();
    Some(convert::revision_from(identity, &template.metadata, &template.spec, around).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever annotations say: no panic, a refusal names them, and what is accepted can be scaled by.
    #[test]
    fn accepted_annotations_make_sound_numbers(
        chosen in prop::collection::btree_map(0..ALL.len(), "([+-]?[0-9]{1,5}(\\.[0-9])?(s|m|ms|h)?|NaN|-?Inf|rps|concurrency|linear|auto|p9[0-9]<[0-9]{1,3}ms|enabled|1_0)", 0..6),
        limit in 0u32..20,
    ) {
        let annotations: Vec<_> = chosen.iter().map(|(nth, value)| format!("'{}': '{value}'", ALL[*nth].key)).collect();
        let text = service("a", &format!("      containerConcurrency: {limit}\n"))
            .replace("    spec:\n      containers", &format!("    metadata: {{annotations: {{{}}}}}\n    spec:\n      containers", annotations.join(", ")));
        let checked = bundle(&[input("a.yaml", &text)], None);
        let Some(revision) = only_revision(&checked) else {
            prop_assert!(!checked.problems.is_empty());
            return Ok(());
        };
        let scaling = &revision.scaling;
        let (target, total) = match scaling.metric {
            Metric::Concurrency { target, total } => (target.0, total.0),
            Metric::Rps { target, total } => (target.0, total.0),
        };
        prop_assert!(target.is_finite() && total.is_finite() && target >= 0.01 && total >= 0.01);
        prop_assert!((6..=3600).contains(&scaling.stable_window.as_secs()));
        prop_assert!(scaling.panic_window.as_secs() >= 1 && scaling.panic_window <= scaling.stable_window);
        prop_assert!(scaling.panic_threshold >= 1.1 && scaling.panic_threshold <= 10.0);
        prop_assert!(scaling.max_scale.is_none_or(|most| most >= scaling.min_scale && most.0 > 0));
        prop_assert!(scaling.target_burst_capacity.is_none_or(|burst| burst >= 0.0 && burst.is_finite()));
        prop_assert!(scaling.initial_scale.0 >= 1 && scaling.activation_scale.0 >= 1);
    }

    /// Lines taken away, doubled or shifted: no panic, and nothing wrong goes unsaid.
    #[test]
    fn any_damage_to_a_text_is_survived(edits in prop::collection::vec((0usize..120, 0u8..4), 1..5)) {
        let whole = include_str!("../../tests/golden/everything.yaml");
        let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        for (at, edit) in edits {
            let at = at % lines.len();
            match edit {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at].clone()),
                2 => lines[at].insert_str(0, "  "),
                _ => lines[at] = lines[at].replace(':', ""),
            }
        }
        let checked = bundle(&[input("a.yaml", &lines.join("\n"))], None);
        let kept = checked.bundle.objects.len();
        prop_assert!(kept == 1 || !checked.problems.is_empty());
        prop_assert!(kept == 0 || checked.problems.is_empty());
    }
}
