use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn latencies(millis: impl IntoIterator<Item = u64>) -> Latencies {
    let mut all = Latencies::new();
    millis.into_iter().for_each(|value| all.record(ms(value)));
    all
}

/// What one generator of a run with two stages and two targets found; `offset` moves its latencies.
fn sample(offset: u64) -> Results {
    let stage = |name: &str, start, end| Stage {
        name: name.to_owned(),
        start: ms(start),
        end: ms(end),
        arrivals: "constant 10/s".to_owned(),
        asked_rate: Some(Rps(10.0)),
        closed_loop: false,
        beside: false,
    };
    let target = |name: &str| Endpoint {
        name: name.to_owned(),
        url: format!("http://{name}.default.localhost:8080/"),
        protocol: "h1".to_owned(),
    };
    let stages = vec![stage("warm up", 0, 1_000), stage("steady", 1_000, 3_000)];
    let mut results = Results::new("two stages".to_owned(), 7, stages, vec![target("a"), target("b")]);
    results.elapsed = Duration::from_nanos(3_000_000_001 + offset);
    let series = |stage, target, ended, temperature, latency: Latencies| Series {
        stage,
        target,
        ended,
        temperature,
        first_byte: latency.clone(),
        latency,
    };
    results.series = vec![
        series(0, 0, Ended::Status(200), Temperature::Cold, latencies([250 + offset])),
        series(
            1,
            1,
            Ended::Status(200),
            Temperature::Warm,
            latencies((1..=20).map(|it| it + offset)),
        ),
    ];
    if offset > 0 {
        let timeouts = latencies([30_000]);
        results.series.push(series(
            1,
            0,
            Ended::Error(ErrorKind::Timeout),
            Temperature::Unknown,
            timeouts,
        ));
        let first = "no whole answer in time".to_owned();
        results.errors.insert(ErrorKind::Timeout, Failures { count: 1, first });
    }
    results.phases = vec![PhaseTimes {
        target: 0,
        temperature: Temperature::Cold,
        phase: Phase::Start,
        times: latencies([200]),
    }];
    results.schedule.late = latencies((0..22).map(|_| 0));
    results.schedule.longest_line = 3;
    results.connections.opened = 2;
    results.connections.connect = latencies([1, 2]);
    let row = results.timeline.at(ms(5));
    row.due = 1;
    row.sent = 1;
    row.record(0, Temperature::Cold, true, ms(250 + offset));
    row.observe(Observed {
        target: 0,
        replicas: 1,
        starting: 2,
        rung: "zero".to_owned(),
        queue: 4,
    });
    results.timeline.at(ms(255 + offset)).answered = 1;
    results.timeline.settle();
    results.verdicts = vec![Verdict {
        stage: Some("steady".to_owned()),
        target: None,
        threshold: "p99 < 300ms".to_owned(),
        seen: "20ms".to_owned(),
        held: true,
    }];
    results
}

#[test]
fn json_gives_back_the_same_document_to_the_nanosecond() {
    for results in [sample(0), sample(9)] {
        let text = results.to_json().expect("serialises");
        assert_eq!(Results::from_json(text.as_bytes()).expect("reads"), results);
    }
    let json: serde_json::Value = serde_json::from_str(&sample(9).to_json().expect("serialises")).expect("JSON");
    assert_eq!(json["series"][0]["status"], 200);
    assert_eq!(json["series"][2]["error"], "timeout");
    assert_eq!(json["summary"]["statuses"]["200"], 21);
}

#[test]
fn what_cannot_be_read_is_said_with_its_field() {
    let text = |results: &Results| results.to_json().expect("serialises");
    let error = |text: &str| {
        Results::from_json(text.as_bytes())
            .expect_err("not readable")
            .to_string()
    };
    assert!(error("[]").starts_with("not results of a load run"), "{}", error("[]"));
    assert!(error("{}").contains("missing field `format`"));
    let newer = Results { format: 2, ..sample(0) };
    assert_eq!(
        error(&text(&newer)),
        "the format is 2, but this version reads 1: use a newer knarr"
    );
    let mut lost = sample(0);
    lost.series[1].target = 2;
    assert_eq!(error(&text(&lost)), "series[1].target is 2, but there are only 2");
    let mut empty = sample(0);
    empty.targets.clear();
    assert_eq!(error(&text(&empty)), "targets is empty");
}

#[test]
fn merging_two_generators_is_the_same_as_counting_all_at_once() {
    let mut both = sample(0);
    both.merge(sample(9));
    assert_eq!(both.elapsed, Duration::from_nanos(3_000_000_010));
    let counts: Vec<_> = both
        .series
        .iter()
        .map(|it| (it.stage, it.target, it.latency.count()))
        .collect();
    assert_eq!(counts, [(0, 0, 2), (1, 0, 1), (1, 1, 40)]);
    let warm = both.latency(|series| series.temperature == Temperature::Warm);
    assert_eq!(warm, latencies((1..=20).chain(10..=29)));
    assert_eq!(both.phases[0].times.count(), 2);
    assert_eq!((both.schedule.late.count(), both.schedule.longest_line), (44, 6));
    assert_eq!((both.connections.opened, both.connections.connect.count()), (4, 4));
    assert_eq!(both.errors[&ErrorKind::Timeout].count, 1);
    let row = &both.timeline.rows()[0];
    assert_eq!((row.due, row.count(Temperature::Cold), row.in_flight), (2, 2, 2));
    let report = both.report();
    assert_eq!((report.due, report.count(200), report.failed()), (44, 42, 1));
    assert_eq!(report.stages.iter().map(|it| it.bad).collect::<Vec<_>>(), [0, 1]);
}
