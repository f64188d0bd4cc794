use std::time::Duration;

use crate::record::{Answer, ErrorKind, Outcome, Recorder, Sent};
use crate::results::{Endpoint, Observed, Results, Stage, Verdict};
use crate::server_timing::{Temperature, Timing};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Ten requests a second for ten seconds, the first ones cold, some failed, one replica more each second.
fn sample() -> Results {
    let stage = |name: &str, start, end| Stage {
        name: name.to_owned(),
        start: ms(start),
        end: ms(end),
        arrivals: "constant 10/s".to_owned(),
        asked_rate: None,
        closed_loop: false,
        beside: false,
    };
    let target = Endpoint {
        name: "a<b".to_owned(),
        url: "http://\"quoted\"&co/".to_owned(),
        protocol: "h1".to_owned(),
    };
    let stages = vec![stage("wake", 0, 3_000), stage("<steady>", 3_000, 10_000)];
    let mut results = Results::new("ten a second".to_owned(), 1, stages, vec![target]);
    let mut recorder = Recorder::new();
    for nth in 0..100_u64 {
        let due = ms(nth * 100);
        let (latency, temperature) = match nth {
            ..5 => (250, Temperature::Cold),
            _ => (3 + nth % 7, Temperature::Warm),
        };
        recorder.issued(due, due);
        recorder.sent(due, due);
        let outcome = if nth % 30 == 29 {
            Outcome::Failed(ErrorKind::Closed, "gone".to_owned())
        } else {
            let timing = Timing {
                temperature,
                phases: [None, None, Some(ms(latency / 2)), None, Some(ms(1))],
            };
            Outcome::Answered(Answer {
                status: 200,
                first_byte: due + ms(latency),
                body_bytes: 1,
                timing,
            })
        };
        let request = Sent {
            stage: usize::from(nth >= 30),
            target: 0,
            due,
        };
        recorder.over(request, outcome, due + ms(latency));
    }
    recorder.fill(&mut results);
    for second in 0..10 {
        results.timeline.at(ms(second * 1_000)).observe(Observed {
            target: 0,
            replicas: u32::try_from(second).expect("small"),
            starting: 1,
            rung: if second == 0 { "zero" } else { "full" }.to_owned(),
            queue: 9 - second,
        });
    }
    results.verdicts = vec![Verdict {
        stage: Some("wake".to_owned()),
        target: None,
        threshold: "p99 < 100ms".to_owned(),
        seen: "250ms".to_owned(),
        held: false,
    }];
    results
}

/// Every element is closed by its own end, in order; attributes are quoted. What a browser would quietly mend.
fn check_nesting(html: &str) {
    const ALONE: [&str; 2] = ["meta", "br"];
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("ends");
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/', '\n'])
            .next()
            .expect("a name");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if tag.starts_with('!') || tag.ends_with('/') || ALONE.contains(&name) {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_is_whole_needs_nothing_else_and_trusts_no_text() {
    let html = sample().html("a <title>");
    check_nesting(&html);
    for outside in ["http-equiv", "<script", "src=", "@import", "url(", "href="] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("a &lt;title&gt;") && html.contains("&lt;steady&gt;") && html.contains("a&lt;b"));
    assert!(!html.contains("<steady>") && !html.contains("a<b"));
    for expected in [
        "broken</b> wake: p99 &lt; 100ms",
        "Latency, by when the request was due",
        "cold (5)",
        "Requests per second",
        "Replicas: at most 9 ready",
        "Queue in front of them",
        "rung-zero",
        "Latency by percentile",
        "Where the time went",
        "The generator's own share",
        "prefers-color-scheme:dark",
    ] {
        assert!(html.contains(expected), "{expected}");
    }
    assert!(
        !html.contains("NaN") && !html.contains("inf"),
        "every place is a number"
    );
}

#[test]
fn a_run_without_anything_is_a_page_as_well() {
    let mut nothing = sample();
    nothing.series.clear();
    nothing.phases.clear();
    nothing.timeline = crate::results::Timeline::default();
    let html = nothing.html("nothing");
    check_nesting(&html);
    assert!(!html.contains("NaN") && html.contains("of 0 requests"));
    // One request.
    let mut recorder = Recorder::new();
    let request = Sent {
        stage: 0,
        target: 0,
        due: ms(0),
    };
    let answer = Answer {
        status: 503,
        first_byte: ms(0),
        body_bytes: 0,
        timing: Timing::default(),
    };
    recorder.over(request, Outcome::Answered(answer), ms(0));
    recorder.fill(&mut nothing);
    let html = nothing.html("one");
    check_nesting(&html);
    assert!(!html.contains("NaN"));
}
