use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A cluster with this catalogue and these defaults.
fn cluster(catalogue: &str, defaults: &[(&str, &str)]) -> ClusterConfig {
    let mut cluster = ClusterConfig::default();
    cluster
        .apply("config-instances", &map(&[("catalogue", catalogue)]))
        .unwrap();
    cluster.apply("config-planner", &map(defaults)).unwrap();
    cluster
}

fn read(cluster: &ClusterConfig, annotations: &[(&str, &str)]) -> KnarrSettings {
    knarr_settings(&map(annotations), cluster).unwrap_or_else(|errors| panic!("{annotations:?}: {errors:#?}"))
}

fn names(specs: &[Arc<str>]) -> Vec<&str> {
    specs.iter().map(|name| &**name).collect()
}

/// (annotations, defaults of the cluster, policy)
#[test]
fn the_policy_is_the_templates_then_alibabas_then_the_clusters() {
    let delay = Some(Duration::from_secs(5));
    let knarr = "knarr.dev/idle";
    let sla = ("knarr.dev/cold-start-sla", "p99<500ms");
    let reserve = ("knative.aliyun.com/reserve-instance", "enable");
    let off = ("knative.aliyun.com/reserve-instance", "disable");
    for (annotations, defaults, want) in [
        (vec![], vec![], IdlePolicy::Knative),
        (vec![(knarr, "zero")], vec![], IdlePolicy::Zero),
        (vec![(knarr, "throttled")], vec![], IdlePolicy::Throttled),
        (vec![(knarr, "reserve")], vec![], IdlePolicy::Reserve),
        (vec![(knarr, "keep")], vec![], IdlePolicy::Keep),
        (
            vec![(knarr, "frozen")],
            vec![("freeze-delay", "5s")],
            IdlePolicy::Frozen { delay },
        ),
        // A limit alone asks for a plan that keeps it; a limit for all does not, nor with another word.
        (vec![sla], vec![], IdlePolicy::Auto),
        (vec![sla, (knarr, "knative")], vec![], IdlePolicy::Knative),
        (vec![], vec![("cold-start-sla", "p99<500ms")], IdlePolicy::Knative),
        (vec![sla], vec![("idle", "zero")], IdlePolicy::Zero),
        (vec![], vec![("idle", "auto")], IdlePolicy::Auto),
        (vec![(knarr, "knative")], vec![("idle", "auto")], IdlePolicy::Knative),
        (vec![reserve], vec![], IdlePolicy::Reserve),
        (vec![reserve, sla], vec![("idle", "auto")], IdlePolicy::Reserve),
        (vec![reserve, (knarr, "auto")], vec![], IdlePolicy::Auto),
        (vec![off], vec![], IdlePolicy::Knative),
        (vec![off], vec![("idle", "auto")], IdlePolicy::Auto),
    ] {
        let cluster = cluster("local", &defaults);
        assert_eq!(
            read(&cluster, &annotations).idle,
            want,
            "{annotations:?} over {defaults:?}"
        );
    }
}

#[test]
fn every_key_has_a_default_of_the_clusters_and_wins_over_it() {
    let all = [
        ("cold-start-sla", "p95<20ms"),
        ("freeze-delay", "1s"),
        ("idle", "frozen"),
        ("idle-ignore", "/healthz"),
        ("instance-specs", "full, reserve"),
        ("keep-warm", "Mon 08:00-09:00 Europe/Oslo"),
        ("min-scale-as", "throttled"),
    ];
    let cluster = cluster("local", &all);
    let plain = read(&cluster, &[]);
    let planning = &plain.planning;
    assert_eq!(
        plain.idle,
        IdlePolicy::Frozen {
            delay: Some(Duration::from_secs(1))
        }
    );
    assert_eq!(planning.sla.to_string(), "p95<20ms");
    assert_eq!(names(&planning.specs), ["full", "reserve"]);
    assert_eq!(planning.min_scale_as, Rung::Throttled);
    let warm = planning.keep_warm.as_ref().map(ToString::to_string);
    assert_eq!(warm.as_deref(), Some("Mon 08:00-09:00 Europe/Oslo"));
    assert_eq!(plain.idle_ignore.unwrap().answer("/healthz", None), Some(200));

    let own = read(
        &cluster,
        &[
            ("knarr.dev/instance-specs", "throttled"),
            ("knarr.dev/min-scale-as", "frozen"),
            ("knarr.dev/idle-ignore", "/ping -> 204"),
        ],
    );
    assert_eq!(
        (names(&own.planning.specs), own.planning.min_scale_as),
        (vec!["throttled"], Rung::Frozen)
    );
    let none = read(
        &cluster,
        &[
            ("knarr.dev/instance-specs", "all"),
            ("knarr.dev/idle-ignore", "none"),
            ("knarr.dev/keep-warm", "none"),
        ],
    );
    assert_eq!(
        (none.planning.specs.len(), none.planning.keep_warm, none.idle_ignore),
        (0, None, None)
    );
    let ignored = own.idle_ignore.unwrap();
    assert_eq!(
        (ignored.answer("/healthz", None), ignored.answer("/ping", None)),
        (None, Some(204))
    );
}

#[test]
fn specs_are_those_of_the_catalogue_in_the_users_order() {
    let eci = cluster("eci", &[]);
    for (text, want) in [
        ("4-8Gi,2-4Gi", vec!["4-8Gi", "2-4Gi"]),
        (" economy-1-2Gi , 1-2Gi,1-2Gi ", vec!["economy-1-2Gi", "1-2Gi"]),
        ("1000m-2048Mi", vec!["1-2Gi", "economy-1-2Gi"]),
    ] {
        let said = read(&eci, &[("knarr.dev/instance-specs", text)]);
        assert_eq!(names(&said.planning.specs), want, "{text}");
    }
    for (text, fault) in [
        ("", "names no spec"),
        (", ,", "names no spec"),
        (
            "2-4gi",
            "the catalogue eci has no instance spec 2-4gi: did you mean 2-4Gi?",
        ),
        (
            "ecs.c6.large",
            "the catalogue eci has no instance spec ecs.c6.large: there are 0.25-0.5Gi, ",
        ),
    ] {
        let errors = knarr_settings(&map(&[("knarr.dev/instance-specs", text)]), &eci).unwrap_err();
        assert!(errors.len() == 1 && errors[0].1.contains(fault), "{text}: {errors:?}");
    }
}

/// Alibaba's own examples.
#[test]
fn alibabas_annotations_mean_the_same() {
    let specs = ("k8s.aliyun.com/eci-use-specs", "2-4Gi,4-8Gi,ecs.c6.xlarge");
    let eci = read(&cluster("eci", &[]), &[specs]);
    assert_eq!(
        (names(&eci.planning.specs), eci.idle),
        (vec!["2-4Gi", "4-8Gi"], IdlePolicy::Knative)
    );
    assert_eq!(eci.left_out.len(), 1);
    let (key, said) = &eci.left_out[0];
    assert_eq!(*key, "k8s.aliyun.com/eci-use-specs");
    assert!(
        said.starts_with("the catalogue eci has no instance spec ecs.c6.xlarge: "),
        "{said}"
    );
    // By size where names differ; ours wins; nothing known is the whole catalogue.
    let ecs = read(&cluster("ecs-burstable", &[]), &[specs]);
    let sizes = [
        "ecs.t5-lc1m2.large",
        "ecs.t5-c1m2.large",
        "ecs.t6-c1m2.large",
        "ecs.e-c1m2.large",
        "ecs.u1-c1m2.large",
    ];
    assert_eq!(names(&ecs.planning.specs)[..5], sizes);
    assert!(names(&ecs.planning.specs).contains(&"ecs.c6.xlarge") && ecs.left_out.is_empty());
    let both = read(&cluster("eci", &[]), &[specs, ("knarr.dev/instance-specs", "1-2Gi")]);
    assert_eq!((names(&both.planning.specs), both.left_out.len()), (vec!["1-2Gi"], 0));
    let local = read(&cluster("local", &[]), &[specs]);
    assert_eq!((local.planning.specs.len(), local.left_out.len()), (0, 3));

    let enable = ("knative.aliyun.com/reserve-instance", "enable");
    let use_specs = (
        "knative.aliyun.com/reserve-instance-eci-use-specs",
        "ecs.t6-c1m1.large,ecs.t5-lc1m2.small",
    );
    let cpu = ("knative.aliyun.com/reserve-instance-cpu-resource-request", "1");
    let memory = ("knative.aliyun.com/reserve-instance-memory-resource-request", "1Gi");
    let limit = ("knative.aliyun.com/reserve-instance-memory-resource-limit", "2Gi");
    let replicas = ("knative.aliyun.com/reserve-instance-replicas", "2");
    let kind = ("knative.aliyun.com/reserve-instance-type", "ecs");
    let ecs = cluster("ecs-burstable", &[]);
    for (annotations, specs, count) in [
        (vec![enable], vec![], 1),
        (
            vec![enable, use_specs, replicas],
            vec!["ecs.t6-c1m1.large", "ecs.t5-lc1m2.small"],
            2,
        ),
        // The cheapest with as much of both: two vCPU and 1 GiB.
        (vec![enable, kind, cpu, memory], vec!["ecs.t6-c2m1.large"], 1),
        (vec![enable, kind, cpu, memory, limit], vec!["ecs.e-c1m1.large"], 1),
        (
            vec![enable, use_specs, cpu],
            vec!["ecs.t6-c1m1.large", "ecs.t5-lc1m2.small"],
            1,
        ),
    ] {
        let reserve = read(&ecs, &annotations).planning.reserve.unwrap();
        assert_eq!(
            (names(&reserve.specs), reserve.replicas),
            (specs, Replicas(count)),
            "{annotations:?}"
        );
    }
    assert_eq!(read(&ecs, &[use_specs]).planning.reserve, None);
    let huge = ("knative.aliyun.com/reserve-instance-cpu-resource-limit", "500");
    let huge = read(&ecs, &[enable, huge]);
    assert!(
        huge.left_out[0].1.contains("has no instance spec with 500000m of CPU"),
        "{:?}",
        huge.left_out
    );
}

#[test]
fn every_mistake_at_once() {
    let wrong = [
        ("knarr.dev/idle", "sleep"),
        ("knarr.dev/idle-ignore", "healthz"),
        ("knarr.dev/instance-specs", "fuul"),
        ("knarr.dev/keep-warm", "08:00-09:00 Europe/Olso"),
        ("knarr.dev/min-scale-as", "zero"),
        ("knative.aliyun.com/reserve-instance", "on"),
        ("knative.aliyun.com/reserve-instance-cpu-resource-limit", "0"),
        ("knative.aliyun.com/reserve-instance-eci-use-specs", ","),
        ("knative.aliyun.com/reserve-instance-memory-resource-request", "much"),
        ("knative.aliyun.com/reserve-instance-replicas", "0"),
        ("knative.aliyun.com/reserve-instance-type", "spot"),
    ];
    let wrong = wrong.into_iter().filter(|(key, _)| !key.contains("eci-use-specs"));
    let annotations: Vec<_> = wrong.collect();
    let findings = check(&map(&annotations), Place::Template, &ClusterConfig::default());
    let refused: Vec<&str> = findings
        .iter()
        .filter(|it| it.refused)
        .map(|it| it.key.as_str())
        .collect();
    for (key, _) in &annotations {
        assert!(refused.contains(key), "{key}: {findings:#?}");
    }
    assert!(findings.iter().all(|it| !it.hint.is_empty()), "{findings:#?}");
}

/// What is right and does nothing is said; nothing else.
#[test]
fn what_has_no_effect() {
    let warned = |defaults: &[(&str, &str)], annotations: &[(&str, &str)]| {
        let findings = check(&map(annotations), Place::Template, &cluster("local", defaults));
        assert!(findings.iter().all(|it| !it.refused), "{findings:#?}");
        findings
            .iter()
            .map(|it| format!("{}: {}", it.key, it.message))
            .collect::<Vec<_>>()
    };
    let sla = ("knarr.dev/cold-start-sla", "p99<1s");
    let as_frozen = ("knarr.dev/min-scale-as", "frozen");
    let min = ("autoscaling.knative.dev/min-scale", "1");
    let none: [&str; 0] = [];
    for effective in [
        vec![sla],
        vec![sla, ("knarr.dev/idle", "reserve")],
        vec![sla, ("knarr.dev/idle", "knative"), ("knarr.dev/instance-specs", "full")],
        vec![as_frozen, min],
        vec![as_frozen, ("knarr.dev/keep-warm", "08:00-09:00")],
        vec![
            as_frozen,
            ("autoscaling.knative.dev/minScale", "2"),
            sla,
            ("knarr.dev/idle", "knative"),
        ],
    ] {
        assert_eq!(warned(&[], &effective), none, "{effective:?}");
    }
    let needs = "knarr.dev/cold-start-sla: has no effect without knarr.dev/idle: auto";
    for idle in ["knative", "zero", "frozen", "keep"] {
        assert_eq!(warned(&[], &[sla, ("knarr.dev/idle", idle)]), [needs], "{idle}");
    }
    assert_eq!(warned(&[("idle", "zero")], &[sla]), [needs]);
    let needs =
        "knarr.dev/min-scale-as: has no effect without autoscaling.knative.dev/min-scale or knarr.dev/keep-warm";
    assert_eq!(warned(&[], &[as_frozen]), [needs]);
    assert_eq!(
        warned(&[], &[as_frozen, ("autoscaling.knative.dev/min-scale", "0")]),
        [needs]
    );
    assert_eq!(warned(&[("keep-warm", "08:00-09:00")], &[as_frozen]), none);
    let replicas = ("knative.aliyun.com/reserve-instance-replicas", "2");
    assert_eq!(
        warned(&[], &[replicas]),
        [
            "knative.aliyun.com/reserve-instance-replicas: has no effect without knative.aliyun.com/reserve-instance: enable"
        ]
    );
    assert_eq!(
        warned(&[], &[replicas, ("knative.aliyun.com/reserve-instance", "enable")]),
        none
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is written, in a manifest and for the cluster: no panic, and what is accepted is in the catalogue.
    #[test]
    fn accepted_words_are_sound(
        template in prop::collection::btree_map(0..ALL.len(), "([a-z]{1,9}|-?[0-9]{1,4}(m|Mi|-[0-9]Gi|s)?|enable|full|,|p99<1s|/a|[0-9]{2}:00-[0-9]{2}:00)(,[a-z0-9-]{0,5})?", 0..6),
        defaults in prop::collection::btree_map(0..crate::config::DEFAULTABLE.len(), "(auto|full|p9<1s|/a|08:00-09:00|2-4Gi|1s|[a-z]{0,4})", 0..4),
        catalogue in prop::sample::select(vec!["local", "eci", "fargate"]),
    ) {
        let mut cluster = cluster(catalogue, &[]);
        let defaults = defaults.into_iter().map(|(nth, value)| (crate::config::DEFAULTABLE[nth].key.trim_start_matches("knarr.dev/").to_owned(), value));
        // Wrong ones change nothing.
        let _ = cluster.apply("config-planner", &defaults.collect());
        let template: StringMap = template.into_iter().map(|(nth, value)| (ALL[nth].key.to_owned(), value)).collect();
        let _ = check(&template, Place::Template, &cluster);
        if let Ok(settings) = knarr_settings(&template, &cluster) {
            let planning = settings.planning;
            let reserved = planning.reserve.iter().flat_map(|reserve| reserve.specs.iter());
            for name in planning.specs.iter().chain(reserved) {
                prop_assert!(cluster.instances.get(name).is_some(), "{}", name);
            }
            prop_assert!(planning.min_scale_as > Rung::Zero);
            prop_assert!(planning.reserve.is_none_or(|reserve| reserve.replicas.0 >= 1));
        }
    }
}
