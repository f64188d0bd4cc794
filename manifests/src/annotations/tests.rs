use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::ClusterConfig;
use crate::revision::{ColdStartSla, IdlePolicy, Planning};

fn annotations(pairs: &[(&str, &str)]) -> StringMap {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn the_table_names_each_key_once() {
    let mut seen = BTreeSet::new();
    for known in ALL {
        assert!(seen.insert(known.key), "{} twice", known.key);
        assert!(
            known.alias.is_empty() || seen.insert(known.alias),
            "{} twice",
            known.alias
        );
        assert!(
            known.meaning.ends_with('.') && !known.range.is_empty() && !known.default.is_empty(),
            "{}",
            known.key
        );
    }
}

#[test]
fn the_key_of_today_wins_over_its_alias() {
    let both = annotations(&[
        ("autoscaling.knative.dev/minScale", "1"),
        ("autoscaling.knative.dev/min-scale", "2"),
    ]);
    assert_eq!(MIN_SCALE.of(&both), Some(("autoscaling.knative.dev/min-scale", "2")));
    let old = annotations(&[("autoscaling.knative.dev/minScale", "1"), ("", "7")]);
    assert_eq!(MIN_SCALE.of(&old), Some(("autoscaling.knative.dev/minScale", "1")));
    assert_eq!(
        find("autoscaling.knative.dev/minScale").map(|known| known.key),
        Some(MIN_SCALE.key)
    );
    assert!(find("").is_none() && METRIC.value(&old).is_none());
}

#[test]
fn slas() {
    let table = [
        ("p99<500ms", 0.99, Duration::from_millis(500)),
        ("p99.9<1s", 0.999, Duration::from_secs(1)),
        ("p50<10us", 0.5, Duration::from_micros(10)),
        ("p5<3600s", 0.05, Duration::from_secs(3600)),
        ("p0.1<1s", 0.001, Duration::from_secs(1)),
    ];
    for (text, quantile, limit) in table {
        assert_eq!(text.parse(), Ok(ColdStartSla { quantile, limit }), "{text}");
    }
    let bad = [
        "",
        "p99",
        "99<1s",
        "p99<",
        "p<1s",
        "p0<1s",
        "p0.0<1s",
        "p100<1s",
        "p99.99<1s",
        "p99.<1s",
        "p.5<1s",
        "P99<1s",
        "p99>1s",
        "p99<=1s",
        "p99<1",
        "p99<1m",
        "p99<1.5s",
        "p99<-1s",
        "p99<0ms",
        "p99<3601s",
        "p99 < 1s",
        "p-1<1s",
        "p99<1s ",
        "p99<99999999999999999999s",
    ];
    for text in bad {
        assert!(text.parse::<ColdStartSla>().is_err(), "{text:?}");
    }
}

/// Without anything of the cluster's.
fn settings(annotations: &StringMap) -> Result<KnarrSettings, Vec<(&'static str, String)>> {
    knarr_settings(annotations, &ClusterConfig::default())
}

#[test]
fn knarr_settings_default_to_knative() {
    let plain = settings(&annotations(&[("autoscaling.knative.dev/window", "6s")])).unwrap();
    assert_eq!(
        plain,
        KnarrSettings {
            idle: IdlePolicy::Knative,
            planning: Planning::default(),
            idle_ignore: None,
            server_timing: false,
            upstream_keepalive: true,
            egress: None,
            left_out: vec![],
        }
    );

    let auto = settings(&annotations(&[("knarr.dev/idle", "auto")])).unwrap();
    assert_eq!((auto.idle, auto.planning), (IdlePolicy::Auto, Planning::default()));

    let all = annotations(&[
        ("knarr.dev/idle", "auto"),
        ("knarr.dev/cold-start-sla", "p95<20ms"),
        ("knarr.dev/server-timing", "enabled"),
        ("knarr.dev/upstream-keepalive", "disabled"),
    ]);
    let all = settings(&all).unwrap();
    let sla = ColdStartSla {
        quantile: 0.95,
        limit: Duration::from_millis(20),
    };
    assert_eq!((all.idle, all.planning.sla), (IdlePolicy::Auto, sla));
    assert!(all.server_timing && !all.upstream_keepalive);
}

#[test]
fn frozen_with_and_without_a_delay() {
    let frozen = |delay: Option<&str>| {
        let delay = delay.map(|delay| ("knarr.dev/freeze-delay", delay));
        let pairs: Vec<_> = [("knarr.dev/idle", "frozen")].into_iter().chain(delay).collect();
        settings(&annotations(&pairs)).map(|settings| settings.idle)
    };
    assert_eq!(frozen(None), Ok(IdlePolicy::Frozen { delay: None }));
    let good = [
        ("0s", 0),
        ("0", 0),
        ("250ms", 250),
        ("1m30s", 90_000),
        ("1h", 3_600_000),
    ];
    for (text, millis) in good {
        let delay = Some(Duration::from_millis(millis));
        assert_eq!(frozen(Some(text)), Ok(IdlePolicy::Frozen { delay }), "{text}");
    }
    for text in ["", "-1s", "1h1ns", "5", "1d", "soon"] {
        let errors = frozen(Some(text)).expect_err(text);
        assert_eq!(errors.len(), 1, "{text}");
        assert_eq!(errors[0].0, "knarr.dev/freeze-delay");
    }
    // It speaks of frozen only, and says so.
    for (idle, hint) in [
        (None, "add knarr.dev/idle: \"frozen\""),
        (Some("auto"), "remove it, or write knarr.dev/idle: \"frozen\""),
    ] {
        let idle = idle.map(|idle| ("knarr.dev/idle", idle));
        let pairs: Vec<_> = [("knarr.dev/freeze-delay", "5s")].into_iter().chain(idle).collect();
        let findings = check(&annotations(&pairs), Place::Template, &ClusterConfig::default());
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].refused, &*findings[0].hint), (false, hint));
    }
}

#[test]
fn says_what_is_unknown_misplaced_or_wrong() {
    let template = annotations(&[
        ("knarr.dev/idel", "auto"),
        ("knarr.dev/sla", "x"),
        ("knarr.dev/server-timing", "true"),
        ("knarr.dev/cold-start-sla", "p99<500"),
        ("autoscaling.knative.dev/min-scal", "1"),
        ("serving.knative.dev/rollout-duration", "10s"),
        ("example.com/mine", "anything"),
    ]);
    let lines = |findings: Vec<Finding>| -> Vec<String> {
        findings
            .iter()
            .map(|it| {
                format!(
                    "{} {}: {}; {}",
                    if it.refused { "E" } else { "W" },
                    it.key,
                    it.message,
                    it.hint
                )
            })
            .collect()
    };
    assert_eq!(
        lines(check(&template, Place::Template, &ClusterConfig::default())),
        [
            "W autoscaling.knative.dev/min-scal: unknown annotation, has no effect; did you mean autoscaling.knative.dev/min-scale?",
            "E knarr.dev/idel: unknown annotation; did you mean knarr.dev/idle?",
            "E knarr.dev/sla: unknown annotation; did you mean knarr.dev/cold-start-sla?",
            "W serving.knative.dev/rollout-duration: annotation in the wrong place, has no effect; it belongs under \
             metadata.annotations of the Service or Route",
            "E knarr.dev/server-timing: invalid value: true; write enabled, disabled",
            "E knarr.dev/cold-start-sla: invalid value: p99<500: the limit is not a whole number with us, ms or s; write \
             pNN<DURATION or pNN.N<DURATION with us, ms or s, up to 1h: p99<500ms",
        ]
    );
    let object = annotations(&[("knarr.dev/idle", "auto"), ("autoscaling.knative.dev/window", "6s")]);
    assert_eq!(
        lines(check(&object, Place::Object, &ClusterConfig::default())),
        ["E knarr.dev/idle: annotation in the wrong place; it belongs under spec.template.metadata.annotations"]
    );
}

proptest! {
    #[test]
    fn a_printed_sla_reads_as_itself(tenths in 1u16..=999, micros in 1u64..=3_600_000_000) {
        let sla = ColdStartSla { quantile: f64::from(tenths) / 1000.0, limit: Duration::from_micros(micros) };
        prop_assert_eq!(sla.to_string().parse(), Ok(sla));
    }

    #[test]
    fn no_text_panics_and_what_is_read_is_in_range(text in "[p0-9.<ums \u{e9}-]{0,12}") {
        if let Ok(sla) = text.parse::<ColdStartSla>() {
            prop_assert!(sla.quantile > 0.0 && sla.quantile < 1.0);
            prop_assert!(!sla.limit.is_zero() && sla.limit <= Duration::from_secs(3600));
        }
    }
}

#[test]
fn where_an_app_may_connect_to() {
    use crate::workload::Egress;
    let read = |pairs: &[(&str, &str)]| settings(&annotations(pairs)).map(|settings| settings.egress);
    let list = "api.example.com:443, 10.0.0.0/8";
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&[("knarr.dev/egress", "none")]), Ok(Some(Egress::None)));
    assert_eq!(read(&[("knarr.dev/egress", "full")]), Ok(Some(Egress::Full)));
    let rules = parse_egress_rules(list).unwrap();
    assert_eq!(rules.len(), 2);
    assert_eq!(
        read(&[("knarr.dev/egress", "allow-list"), ("knarr.dev/egress-allow", list)]),
        Ok(Some(Egress::AllowList(rules)))
    );
    for (pairs, key, said) in [
        (
            vec![("knarr.dev/egress", "some")],
            "knarr.dev/egress",
            "invalid value: some",
        ),
        (
            vec![("knarr.dev/egress", "allow-list")],
            "knarr.dev/egress",
            "allow-list without knarr.dev/egress-allow",
        ),
        (
            vec![
                ("knarr.dev/egress", "allow-list"),
                ("knarr.dev/egress-allow", "10.0.0.1/8"),
            ],
            "knarr.dev/egress-allow",
            "invalid value: 10.0.0.1/8: has bits behind its prefix; the network is 10.0.0.0/8",
        ),
    ] {
        assert_eq!(read(&pairs), Err(vec![(key, said.to_owned())]));
    }
    let alone = check(
        &annotations(&[("knarr.dev/egress-allow", list)]),
        Place::Template,
        &ClusterConfig::default(),
    );
    assert!(alone[0].refused && alone[0].message.contains("without knarr.dev/egress: allow-list"));
}
