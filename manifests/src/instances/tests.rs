use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::instances;
use crate::units::PricePerHour;
use crate::workload::{Image, Workload};

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn wrong(pairs: &[(&str, &str)]) -> Vec<String> {
    let errors = instances(&data(pairs)).expect_err("it is wrong");
    errors.iter().map(|error| format!("{error}; {}", error.hint)).collect()
}

fn gib(spec: &InstanceSpec) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few GiB")]
    let bytes = spec.memory.unwrap().0 as f64;
    bytes / f64::from(1 << 30)
}

fn cpus(spec: &InstanceSpec) -> f64 {
    f64::from(spec.cpu.unwrap().0) / 1000.0
}

fn app(cpu_limit: Option<u32>, memory_limit: Option<u64>) -> Workload {
    let mut workload = Workload::new(Image::Host("app".into()));
    workload.serving.resources.cpu_limit = cpu_limit.map(Millicores);
    workload.serving.resources.memory_limit = memory_limit.map(Bytes);
    workload
}

#[test]
fn every_shipped_catalogue_is_right_and_says_where_from() {
    for name in SHIPPED {
        let text = Instances::shipped_text(name).unwrap();
        let read = Instances::from_text(name, text).unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
        let shipped = Instances::shipped(name).unwrap();
        assert_eq!((&*shipped.name, &shipped.specs), (name, &read.specs));
        assert!(!shipped.currency.is_empty() && !shipped.source.is_empty(), "{name}");
        let date: jiff::civil::Date = shipped.date.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(date.year() >= 2024, "{name}");
        assert!(shipped.get(&shipped.default).is_some(), "{name}");
        assert!(
            shipped.specs.iter().all(|spec| spec.start.is_some() || spec.throttled),
            "{name}"
        );
        assert!(text.contains(&format!("knarr serve --instances {name}")), "{name}");
    }
    assert!(Instances::shipped("azure").is_none() && Instances::shipped_text("").is_none());
    assert_eq!(Instances::default(), Instances::shipped("local").unwrap());
    assert_eq!(instances(&BTreeMap::new()), Ok(Instances::default()));
}

#[test]
fn local_costs_what_it_always_did() {
    let local = Instances::default();
    let app = app(None, None);
    let per_hour = |name: &str| local.get(name).unwrap().price_per_hour(&app);
    assert_eq!(
        (per_hour("full"), per_hour("throttled")),
        (PricePerHour(1.0), PricePerHour(0.1))
    );
    let frozen = local.frozen_price(Bytes(256 << 20), &app).map(price::per_hour);
    assert_eq!(frozen, Some(PricePerHour(0.1)));
    assert_eq!(local.full_for(&app, &[]).name, "full".into());
    let throttled = local.get("throttled").unwrap();
    assert!(throttled.in_place && throttled.throttled && throttled.cpu == Some(Millicores(50)));

    // Where a GiB comes with half a core, it costs half a core.
    let small = local.clone().on_machine(2, Bytes(4 << 30));
    let frozen = small.frozen_price(Bytes(1 << 30), &app).map(price::per_hour);
    assert_eq!(frozen, Some(PricePerHour(0.5)));
    let own = instances(&data(&[("frozen", "0.3/h")])).unwrap();
    assert_eq!(
        own.clone().on_machine(2, Bytes(4 << 30)),
        own,
        "a price of the user's own stays"
    );
    let eci = Instances::shipped("eci").unwrap();
    assert_eq!(eci.clone().on_machine(2, Bytes(0)), eci);
}

/// (catalogue, pool, per vCPU, per GiB, rounded to)
#[test]
fn prices_are_those_of_their_sources() {
    let hour = 3600.0;
    for (name, pool, cpu, memory, rounded) in [
        ("eci", "general", 0.000_049, 0.000_006_13, 1.1e-8),
        ("eci", "economy", 0.000_027, 0.000_006_13, 1.1e-8),
        ("fargate", "fargate", 0.040_48 / hour, 0.004_445 / hour, 1e-12),
    ] {
        let catalogue = Instances::shipped(name).unwrap();
        let of_pool: Vec<_> = catalogue.specs.iter().filter(|spec| &*spec.pool == pool).collect();
        assert!(of_pool.len() >= 20, "{name} {pool}");
        for spec in of_pool {
            let want = cpus(spec) * cpu + gib(spec) * memory;
            assert!(
                (spec.price - want).abs() <= rounded,
                "{name} {}: {} {want}",
                spec.name,
                spec.price
            );
            let size = format!("{}-{}Gi", cpus(spec), gib(spec));
            assert_eq!(spec.name.trim_start_matches("economy-"), size, "{name}");
        }
    }
    let fargate = Instances::shipped("fargate").unwrap();
    assert!(fargate.specs.iter().all(|spec| spec.minimum == Duration::from_secs(60)));
    let ecs = Instances::shipped("ecs-burstable").unwrap();
    let per_hour = |name: &str| price::per_hour(ecs.get(name).unwrap().price).0;
    assert_eq!((per_hour("ecs.t6-c4m1.large"), per_hour("ecs.c6.large")), (0.03, 0.39));
    let t5 = ecs.get("ecs.t5-lc1m2.small").unwrap();
    let burst = Burst {
        baseline: 0.1,
        credits_per_hour: 6.0,
        most: 144.0,
    };
    assert_eq!((t5.burst, t5.slow), (Some(burst), 1.0));
    assert_eq!(Instances::shipped("eci").unwrap().get("0.25-0.5Gi").unwrap().slow, 4.0);
}

#[test]
fn specs_are_found_by_name_size_and_need() {
    let eci = Instances::shipped("eci").unwrap();
    let named = |word: &str| {
        eci.named(word)
            .iter()
            .map(|spec| spec.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(named("2-4Gi"), ["2-4Gi"]);
    assert_eq!(named("2000m-4096Mi"), ["2-4Gi", "economy-2-4Gi"]);
    for nothing in ["3-4Gi", "ecs.c6.large", "", "-", "2-", "x-4Gi"] {
        assert!(eci.named(nothing).is_empty(), "{nothing}");
    }
    let least = |cpu, mib: u64| {
        eci.least(Millicores(cpu), Bytes(mib << 20))
            .map(|spec| spec.name.to_string())
    };
    assert_eq!(least(250, 512).as_deref(), Some("economy-0.25-0.5Gi"));
    assert_eq!(least(1500, 3000).as_deref(), Some("economy-2-4Gi"));
    assert_eq!(least(64_001, 1), None);

    let full = |workload: &Workload, listed: &[&str]| {
        let listed: Vec<Arc<str>> = listed.iter().map(|name| (*name).into()).collect();
        eci.full_for(workload, &listed).name.to_string()
    };
    let (silent, asks) = (app(None, None), app(Some(3000), Some(1 << 30)));
    assert_eq!(full(&silent, &[]), "2-4Gi", "the default");
    assert_eq!(full(&asks, &[]), "economy-4-2Gi", "the cheapest that fits");
    assert_eq!(
        full(&asks, &["1-2Gi", "8-16Gi", "4-8Gi"]),
        "8-16Gi",
        "the first that fits"
    );
    assert_eq!(full(&asks, &["1-2Gi", "2-4Gi"]), "1-2Gi", "none fits");
    assert_eq!(full(&silent, &["gone"]), "2-4Gi");
    let local = Instances::default();
    for (listed, want) in [
        (&[][..], "full"),
        (&["reserve", "full"], "full"),
        (&["throttled", "reserve"], "reserve"),
        (&["throttled"], "full"),
    ] {
        let names: Vec<Arc<str>> = listed.iter().map(|name| (*name).into()).collect();
        for workload in [&silent, &asks] {
            assert_eq!(&*local.full_for(workload, &names).name, want, "{listed:?}");
        }
    }
    let ecs = Instances::shipped("ecs-burstable").unwrap();
    let listed = ["ecs.t6-c1m1.large".into(), "ecs.c7.large".into()];
    assert_eq!(
        ecs.full_for(&silent, &listed).name,
        "ecs.c7.large".into(),
        "one that does not burst"
    );
}

#[test]
fn own_specs_stand_alone_or_on_a_shipped_catalogue() {
    let spec = "\
- name: tiny
  pool: spare
  cpu: 0.5
  memory: 512Mi
  price: 0.01/h
  memory-price: 0.001/h
  granularity: 1m
  minimum: 5m
  start: {median: 8s, sigma: 0.7}
  burst: {baseline: 20%, credits-per-hour: 24, most: 576}
  stock: 3
  slow: 1.5
  node-selector: {pool: spare}
  tolerations: [{key: spare, operator: Exists, effect: NoSchedule}]
  annotations: {example.com/a: b}
";
    let own = instances(&data(&[
        ("specs", spec),
        ("currency", "EUR"),
        ("source", "us"),
        ("date", "2026-11-01"),
    ]))
    .unwrap();
    assert_eq!(
        (&*own.name, &*own.currency, own.specs.len(), own.frozen),
        ("own", "EUR", 1, None)
    );
    let tiny = own.get("tiny").unwrap();
    assert_eq!((tiny.cpu, tiny.memory), (Some(Millicores(500)), Some(Bytes(512 << 20))));
    assert_eq!(
        (tiny.granularity, tiny.minimum),
        (Duration::from_secs(60), Duration::from_secs(300))
    );
    assert_eq!((&*tiny.pool, tiny.stock, tiny.slow), ("spare", Some(3), 1.5));
    assert_eq!(
        tiny.start,
        Some(StartPrior {
            median: Duration::from_secs(8),
            sigma: 0.7
        })
    );
    assert_eq!(tiny.scheduling.tolerations[0].key, "spare");
    assert!((tiny.price_of(&app(None, Some(1 << 30))) * 3600.0 - 0.011).abs() < 1e-12);

    let both = instances(&data(&[
        ("catalogue", "fargate"),
        ("specs", "- {name: 1-2Gi, price: 1/d}\n- {name: x, cpu: 1, price: 0/s}"),
    ]));
    let both = both.unwrap();
    let fargate = Instances::shipped("fargate").unwrap();
    assert_eq!(
        (&both.currency, &both.default, both.specs.len()),
        (&fargate.currency, &fargate.default, fargate.specs.len() + 1)
    );
    assert!((both.get("1-2Gi").unwrap().price - 1.0 / 86_400.0).abs() < 1e-15);
    assert_eq!(&*both.source, "", "whose prices these are is for the user to say");
}

#[test]
fn every_mistake_is_said_with_its_place() {
    for (specs, said) in [
        ("", "data.specs: is empty; write at least one spec"),
        ("[]", "data.specs: is empty"),
        ("{name: a}", "data.specs: must be a list"),
        ("- [", "data.specs: not valid YAML"),
        (
            "- {name: a}",
            "data.specs[0].price: missing; write a number of 0 or more per s, m, h or d",
        ),
        ("- {price: 1/h}", "data.specs[0].name: missing"),
        (
            "- {name: 'a b', price: 1/h}",
            "data.specs[0].name: invalid value: \"a b\"",
        ),
        (
            "- {name: a, price: 1/h}\n- {name: a, cpu: 1, price: 1/h}",
            "data.specs[1].name: a second spec is called a",
        ),
        ("- {name: a, price: 1}", "data.specs[0].price: must be"),
        (
            "- {name: a, price: '1'}",
            "data.specs[0].price: invalid value: 1: it does not say per what",
        ),
        ("- {name: a, price: NaN/h}", "it is not a number"),
        ("- {name: a, price: inf/h}", "it is not a number"),
        ("- {name: a, price: -1/h}", "it is negative"),
        ("- {name: a, price: 1e400/h}", "it is too large"),
        ("- {name: a, price: 1/y}", "the unit is not s, m, h or d"),
        (
            "- {name: a, price: 1/h, memory-price: -1/h}",
            "data.specs[0].memory-price: invalid value: -1/h: it is negative",
        ),
        (
            "- {name: a, price: 1/h, cpu: -1}",
            "data.specs[0].cpu: -1 is out of range",
        ),
        ("- {name: a, price: 1/h, cpu: 1e30}", "data.specs[0].cpu: "),
        ("- {name: a, price: 1/h, cpu: lots}", "data.specs[0].cpu: must be"),
        (
            "- {name: a, price: 1/h, memory: 1k}",
            "data.specs[0].memory: 1k is out of range; must be 1Mi to 1Pi",
        ),
        (
            "- {name: a, price: 1/h, minimum: 25h}",
            "data.specs[0].minimum: 25h is out of range",
        ),
        (
            "- {name: a, price: 1/h, granularity: 0s}",
            "data.specs[0].granularity: 0s is out of range",
        ),
        ("- {name: a, price: 1/h, granularity: soon}", "invalid value: soon"),
        (
            "- {name: a, price: 1/h, start: {sigma: 1}}",
            "data.specs[0].start.median: missing",
        ),
        (
            "- {name: a, price: 1/h, start: {median: 1s, sigma: -1}}",
            "data.specs[0].start.sigma: -1 is out of range",
        ),
        (
            "- {name: a, price: 1/h, burst: {baseline: 0%, credits-per-hour: 1, most: 1}}",
            "data.specs[0].burst.baseline: invalid",
        ),
        (
            "- {name: a, price: 1/h, burst: {baseline: 20%}}",
            "data.specs[0].burst.most: missing",
        ),
        (
            "- {name: a, price: 1/h, stock: -1}",
            "data.specs[0].stock: -1 is out of range",
        ),
        (
            "- {name: a, price: 1/h, slow: 0}",
            "data.specs[0].slow: 0 is out of range; must be 0.01 to 1000",
        ),
        (
            "- {name: a, price: 1/h, throttled: true}",
            "data.specs[0].throttled: has the revision's own CPU limit",
        ),
        (
            "- {name: a, price: 1/h, pric: 1/h}",
            "data.specs[0].pric: unknown field `pric`; did you mean `price`?",
        ),
        (
            "- {name: a, price: 1/h}\n- {name: b, price: 1/h}",
            "data.specs: a and b both have the revision's own CPU limit",
        ),
        (
            "- {name: a, price: 1/h}\n- {name: b, cpu: 1, in-place: true, price: 1/h}",
            "data.specs: b costs as much as a",
        ),
        (
            "- {name: a, price: 1/h}\n- {name: b, cpu: 1, throttled: true, price: 0.5/h, memory-price: 1/h}",
            "data.specs: b costs as much as a, which it stands in for",
        ),
    ] {
        let lines = wrong(&[("specs", specs)]);
        assert!(lines.iter().any(|line| line.contains(said)), "{specs}: {lines:#?}");
    }
    for (pairs, said) in [
        (
            &[("catalogue", "farget")][..],
            "data.catalogue: invalid value \"farget\"; did you mean fargate?",
        ),
        (&[("catalogue", "")], "there are local, eci, ecs-burstable, fargate"),
        (
            &[("catalogue", "eci"), ("currency", "EUR")],
            "data.currency: EUR over a catalogue in CNY",
        ),
        (
            &[("default", "ful")],
            "data.default: there is no spec ful; did you mean full?",
        ),
        (
            &[("frozen", "0.4")],
            "data.frozen: invalid value \"0.4\"; it does not say per what; write a price per GiB",
        ),
        (&[("frozen", "NaN/h whole")], "it is not a number"),
        (&[("spec", "[]")], "data.spec: unknown key; did you mean \"specs\"?"),
    ] {
        let lines = wrong(pairs);
        assert!(lines.iter().any(|line| line.contains(said)), "{pairs:?}: {lines:#?}");
    }
    // All at once, and nothing twice.
    let many = wrong(&[
        (
            "specs",
            "- {name: '', price: x, cpu: no}\n- {price: 1/h, memory: 0, stock: many}",
        ),
        ("frozen", "x"),
        ("odd", ""),
    ]);
    assert_eq!(many.len(), 8, "{many:#?}");
    let list: String = (0..1001)
        .map(|nth| format!("- {{name: s{nth}, cpu: 1, price: 1/h}}\n"))
        .collect();
    assert_eq!(
        wrong(&[("specs", &list)]),
        ["data.specs: 1001 specs are too many; write at most 1000"]
    );
}

#[test]
fn a_file_is_a_manifest() {
    let error = |text: &str| {
        let problems = Instances::from_text("c.yaml", text).expect_err("it is wrong");
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        error(""),
        ["c.yaml: has no catalogue; write a ConfigMap called config-instances"]
    );
    let map =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-instances, namespace: knative-serving}\ndata:\n";
    let lines = error(&format!(
        "{map}  # Ours.\n  specs: |\n    - {{name: a, price: -1/h}}\n    - name: b\n      price: 1/h\n      cpu: 0\n      pric: 1\n"
    ));
    for (line, said) in lines.iter().zip([
        "c.yaml:7: data.specs[0].price: invalid value: -1/h: it is negative",
        "c.yaml:10: data.specs[1].cpu: 0 is out of range",
        "c.yaml:11: data.specs[1].pric: unknown field",
    ]) {
        assert!(line.starts_with(said), "{lines:#?}");
    }
    let blank = error(&format!("{map}  specs: |\n\n    # A comment.\n    - {{name: a}}\n"));
    assert!(
        blank[0].starts_with("c.yaml:8: data.specs[0].price: missing"),
        "{blank:?}"
    );
    let folded = error(&format!("{map}  specs: >-\n    [{{name: a,\n    price: -1/h}}]\n"));
    assert!(folded[0].starts_with("c.yaml:5: data.specs[0].price: "), "{folded:?}");
    let quoted = error(&format!("{map}  specs: \"- {{name: a}}\"\n"));
    assert!(
        quoted[0].starts_with("c.yaml:5: data.specs[0].price: missing"),
        "{quoted:?}"
    );
    let elsewhere = error(&format!("{map}  catalogue: eci\n").replace(", namespace: knative-serving", ""));
    assert_eq!(
        elsewhere,
        [
            "c.yaml:3: metadata.name: is the catalogue only in namespace knative-serving; write namespace: knative-serving"
        ]
    );
    assert!(error("kind: [\n")[0].contains("not valid YAML"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is written: no panic, and what is accepted can be counted with.
    #[test]
    fn accepted_catalogues_are_sound(
        fields in prop::collection::vec((
            prop::sample::select(vec!["name", "cpu", "memory", "price", "memory-price", "granularity", "minimum", "stock", "slow", "throttled", "in-place", "burst", "start", "odd"]),
            "(-?[0-9]{1,3}(\\.[0-9])?(/h|/s|m|Mi|s|h|%|e[0-9]{1,3}/h)?|NaN/h|true|a|\\{baseline: 5%, credits-per-hour: 1, most: 2\\}|\\{median: 1s\\}|\\[|~)",
        ), 0..8),
        base in prop::sample::select(vec!["", "local", "eci"]),
    ) {
        let mut text = String::from("- {name: x, cpu: 1, price: 1/h}\n-\n");
        for (key, value) in fields {
            text.push_str(&format!("  {key}: {value}\n"));
        }
        let mut pairs = vec![("specs", text.as_str())];
        if !base.is_empty() {
            pairs.push(("catalogue", base));
        }
        let Ok(read) = instances(&data(&pairs)) else { return Ok(()) };
        prop_assert!(!read.specs.is_empty() && read.get(&read.default).is_some());
        let mut names: Vec<_> = read.names().collect();
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), read.specs.len());
        for spec in read.specs.iter() {
            prop_assert!(spec.price.is_finite() && spec.price >= 0.0 && spec.memory_price.is_finite() && spec.memory_price >= 0.0);
            prop_assert!(spec.slow >= 0.01 && spec.slow <= 1000.0 && !spec.granularity.is_zero());
            prop_assert!(!spec.throttled || (spec.in_place && spec.cpu.is_some()));
            prop_assert!(spec.start.is_none_or(|start| !start.median.is_zero() && start.sigma.is_finite()));
            prop_assert!(spec.burst.is_none_or(|burst| burst.baseline > 0.0 && burst.baseline <= 1.0));
        }
        for (cpu, memory) in [(None, None), (Some(500), Some(1 << 30))] {
            let workload = app(cpu, memory);
            let price = read.full_for(&workload, &[]).price_of(&workload);
            prop_assert!(price.is_finite() && price >= 0.0);
        }
    }

    #[test]
    fn no_text_panics(text in "([-a-z:{}\\[\\]|&*, \n\"'0-9./%]|name|price|specs){0,40}") {
        let _ = instances(&data(&[("specs", &text), ("frozen", &text)]));
        let _ = Instances::from_text("x", &text);
    }
}
