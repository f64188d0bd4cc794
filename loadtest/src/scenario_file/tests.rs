use std::path::Path;
use std::time::Duration;

use super::*;
use crate::arrivals::Arrivals;
use crate::scenario::{Length, Load};

const GOOD: &str = r#"
name = "everything"
seed = 7
threads = 2
timeout = "5s"
status = "127.0.0.1:9090"
services = ["hello"]
thresholds = ["errors == 0", "max_replicas <= 8"]

[[target]]
name = "hello"
url = "http://127.0.0.1:8080/x"
host = "hello.default.localhost"
headers = { accept = "text/html" }
weight = 9
thresholds = ["p99 < 300ms"]

[[target]]
name = "upload"
url = "https://example.com/"
body = "text"
protocol = "h2"
insecure = true
connections = 4
streams = 10
keep_alive = false

[[stage]]
name = "to zero"
shape = "idle"
until = "replicas == 0"
at_most = "1m"

[[stage]]
shape = "ramp"
from = 0
to = 2e2
duration = "10s"
arrivals = "pareto"
alpha = 2.5
weights = { hello = 1 }
thresholds = ["cold.p99 < 500ms"]

[[stage]]
shape = "burst"
count = 50

[[stage]]
shape = "closed"
concurrency = 90
duration = "30s"

[[stage]]
rate = 20
concurrency = 3
duration = "10s"

[[stage]]
rate = 20
duration = "10s"
thresholds = ["p50 < 10ms"]
"#;

fn error(text: &str) -> String {
    read(text, "s.toml", Path::new(".")).map(drop).expect_err(text)
}

#[test]
fn reads_all_of_it() {
    let planned = read(GOOD, "s.toml", Path::new(".")).expect("right");
    let scenario = &planned.scenario;
    assert_eq!(
        (scenario.name.as_str(), scenario.seed, scenario.threads),
        ("everything", 7, Some(2))
    );
    assert_eq!(scenario.timeout, Duration::from_secs(5));
    assert_eq!(scenario.knarr.as_ref().expect("named").services, ["hello"]);
    let [hello, upload] = &scenario.targets[..] else {
        panic!("two targets");
    };
    assert_eq!((hello.host.as_str(), hello.weight), ("hello.default.localhost", 9.0));
    assert_eq!(hello.headers["accept"], "text/html");
    assert_eq!(
        (upload.method.as_str(), upload.connections, upload.streams),
        ("POST", 4, 10)
    );
    assert!(upload.tls.as_ref().expect("https").insecure && !upload.keep_alive);
    let words: Vec<String> = scenario.stages.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "silence until replicas == 0, at most 60s",
            "ramp from 0/s to 200/s, pareto gaps of shape 2.5 for 10s",
            "burst of 50",
            "closed loop of 90 for 30s",
            "constant 20/s, poisson for 10s",
            "beside it a closed loop of 3",
            "constant 20/s, poisson for 10s",
        ]
    );
    let names: Vec<&str> = scenario.stages[4..].iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["stage 5", "stage 5, closed loop", "stage 6"]);
    assert_eq!(
        (scenario.stages[0].name.as_str(), scenario.stages[1].name.as_str()),
        ("to zero", "stage 2")
    );
    assert_eq!(scenario.stages[1].weights, [1.0, 0.0]);
    let of: Vec<_> = planned
        .thresholds
        .iter()
        .map(|it| (it.to_string(), it.stage, it.target))
        .collect();
    assert_eq!(
        of,
        [
            ("p99 < 300ms".to_owned(), None, Some(0)),
            ("cold.p99 < 500ms".to_owned(), Some(1), None),
            ("p50 < 10ms".to_owned(), Some(6), None),
            ("errors == 0".to_owned(), None, None),
            ("max_replicas <= 8".to_owned(), None, None),
        ]
    );
}

#[test]
fn a_mistake_is_shown_with_its_line_its_field_and_what_would_be_right() {
    let stage = |line: &str| {
        format!(
            "[[target]]\nurl = \"http://127.0.0.1:1/\"\nname = \"hello\"\n[[stage]]\nrate = 5\nduration = \"1s\"\n{line}\n"
        )
    };
    for (text, expected) in [
        (
            stage("").replace("rate = 5", "concurrency = 5"),
            "s.toml:4: stage[0]: `rate` is missing: requests per second, as in 100; or for a closed loop alone: shape = \"closed\"",
        ),
        (
            stage("").replace(
                "rate = 5\nduration = \"1s\"",
                "shape = \"burst\"\ncount = 5\nconcurrency = 5",
            ),
            "s.toml:4: stage[0]: a closed loop beside a burst needs a `duration`, as in \"10s\"",
        ),
        (
            stage("rte = 1"),
            "s.toml:7: stage[0].rte: unknown field; did you mean `rate`?",
        ),
        (
            GOOD.replace("threads = 2", "thread = 2"),
            "s.toml:4: thread: unknown field; did you mean `threads`?",
        ),
        (
            stage("shape = \"rampp\"").replace("rate = 5\n", ""),
            "s.toml:6: stage[0].shape: is \"rampp\", but must be one of constant, ramp, step, burst, sine, idle, closed; \
             did you mean \"ramp\"?",
        ),
        (
            stage("from = 1"),
            "s.toml:7: stage[0].from: belongs to the shape \"ramp\", but this stage's is \"constant\"",
        ),
        (
            stage("").replace("rate = 5", "rate = \"fast\""),
            "s.toml:5: stage[0].rate: is \"fast\", but must be requests per second, as in 100",
        ),
        (
            stage("").replace("rate = 5", "rate = 0"),
            "s.toml:4: stage[0]: the rate is 0 requests per second, but must be more than 0 and finite",
        ),
        (
            stage("").replace("rate = 5\n", ""),
            "s.toml:4: stage[0]: `rate` is missing: requests per second, as in 100",
        ),
        (
            stage("").replace("\"1s\"", "\"soon\""),
            "s.toml:6: stage[0].duration: is \"soon\", but must be a duration in quotes that is more than zero, as in \
             \"500ms\", \"10s\" or \"2m\"",
        ),
        (
            stage("").replace("duration = \"1s\"\n", ""),
            "s.toml:4: stage[0]: it has no end: give a `duration`, as in \"10s\", or `until`, as in \"replicas == 0\"",
        ),
        (
            stage("thresholds = [\"p99 < 0ms\"]"),
            "s.toml:7: stage[0].thresholds[0]: \"p99 < 0ms\" can never hold",
        ),
        (
            stage("thresholds = [\"max_replicas <= 8\"]"),
            "s.toml:7: stage[0].thresholds[0]: \"max_replicas <= 8\" needs a Knarr to ask: give its admin port as `status \
             = \"127.0.0.1:9090\"`",
        ),
        (
            stage("thresholds = [\"late.p99 < 1ms\"]"),
            "s.toml:7: stage[0].thresholds[0]: \"late.p99 < 1ms\" is about the generator, which has one schedule for all: \
             put it into the `thresholds` at the top",
        ),
        (
            stage("weights = { helo = 1 }"),
            "s.toml:7: stage[0].weights.helo: unknown field; did you mean `hello`?",
        ),
        (
            stage("sigma = 1"),
            "s.toml:7: stage[0].sigma: belongs to arrivals = \"lognormal\"",
        ),
        (
            stage("until = \"replicas == 0\""),
            "s.toml:7: stage[0].until: there is a `duration` already: a stage ends by one of the two (`at_most` bounds \
             `until`)",
        ),
        (
            stage("").replace("http://127.0.0.1:1/", "ftp://x/"),
            "s.toml:2: target[0].url: \"ftp://x/\": the scheme is \"ftp\", but must be http or https",
        ),
        (
            "[[stage]]\nrate = 1\n".to_owned(),
            "s.toml:1: `target` is missing: there must be at least one [[target]] with a url",
        ),
        (
            stage("").replace("name = \"hello\"", "insecure = true"),
            "s.toml:3: target[0].insecure: is for https, but the url is http",
        ),
        (
            stage("").replace("name = \"hello\"", "data = \"/does/not/exist.csv\""),
            "s.toml:3: target[0].data: cannot read /does/not/exist.csv: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(error(&text), expected);
    }
    assert!(error("name = \n").starts_with("s.toml:1: "), "{}", error("name = \n"));
}

#[test]
fn stages_have_what_they_say() {
    let text = "[[target]]\nurl = \"http://127.0.0.1:1/\"\n[[stage]]\nshape = \"sine\"\nrate = 50\nswing = 20\n\
                period = \"10s\"\nduration = \"1m\"\n[[stage]]\nshape = \"step\"\nrates = [1, 2.5]\nduration = \"1s\"\n\
                arrivals = \"even\"\n[[stage]]\nshape = \"burst\"\ncount = 3\nevery = \"1s\"\nduration = \"3s\"\n";
    let planned = read(text, "s.toml", Path::new(".")).expect("right");
    let words: Vec<String> = planned.scenario.stages.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "sine 50/s ± 20/s every 10s, poisson for 60s",
            "steps of 1/s, 2.5/s for 1s",
            "burst of 3 every 1s for 3s",
        ]
    );
    let Load::Open(Arrivals::Bursts { count: 3, .. }) = planned.scenario.stages[2].load else {
        panic!("bursts");
    };
    assert_eq!(planned.scenario.stages[2].length, Length::For(Duration::from_secs(3)));
}
