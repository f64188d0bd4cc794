//! The fake's own knobs; its contract is checked by the conformance suite.

use manifests::workload::{Container, Image};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::*;
use crate::conformance::{self, App, Fixture};
use crate::testing::{revision, spec};

const SECOND: Duration = Duration::from_secs(1);

fn id(name: &str) -> SandboxId {
    SandboxId::new(name)
}

#[tokio::test(start_paused = true)]
async fn starts_follow_their_plan() {
    let driver = FakeDriver::new();
    let starts = vec![
        Start::ready_after(2 * SECOND),
        Start::Refused("no".into()),
        Start::Exhausted("later".into()),
        Start::Exits {
            after: SECOND,
            status: ExitStatus::Code(3),
        },
        Start::NeverReady,
        Start::ready_after(Duration::ZERO),
    ];
    driver.set(
        &revision("a"),
        Behaviour {
            starts: starts.into(),
            output: vec!["bye".into()],
            ..Behaviour::default()
        },
    );
    let started = driver.start(spec("a", "a-1")).await.unwrap();
    assert_eq!(started.phases.ready, 2 * SECOND);
    assert!(matches!(driver.start(spec("a", "a-2")).await, Err(StartError::Refused(why)) if why == "no"));
    assert!(matches!(
        driver.start(spec("a", "a-2")).await,
        Err(StartError::Exhausted(_))
    ));
    let exit = Exit {
        status: ExitStatus::Code(3),
        oom_killed: false,
        requested: false,
        unhealthy: None,
        last_output: "bye".into(),
        peak_memory: Some(Bytes(16 << 20)),
    };
    assert!(matches!(driver.start(spec("a", "a-2")).await, Err(StartError::Exited(e)) if e == exit));
    let begin = now();
    let deadline = 30 * SECOND;
    assert!(
        matches!(driver.start(spec("a", "a-2")).await, Err(StartError::NotReady { after, .. }) if after == deadline)
    );
    assert_eq!(now() - begin, deadline);
    for _ in 0..2 {
        assert_eq!(
            driver.start(spec("a", "a-2")).await.unwrap().phases.ready,
            Duration::ZERO
        );
        driver.stop(&id("a-2"), SECOND).await.unwrap();
    }
    assert_eq!((driver.starts(&revision("a")), driver.starts(&revision("b"))), (7, 0));
    assert_eq!(driver.list(), [id("a-1")]);
    assert_eq!(driver.logs(&id("a-1")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn ends_are_as_set_and_are_told() {
    let driver = FakeDriver::new();
    let mut events = driver.events();
    driver.set_default(Behaviour {
        stops_after: Some(3 * SECOND),
        ..Behaviour::default()
    });
    driver.set(
        &revision("b"),
        Behaviour {
            exits_after: Some((SECOND, ExitStatus::Code(1))),
            ..Behaviour::default()
        },
    );
    for name in ["a-1", "a-2", "a-3", "a-4", "b-1"] {
        driver.start(spec(&name[..1], name)).await.unwrap();
    }
    assert!(driver.kill(&id("a-1"), ExitStatus::Signal(11)) && !driver.kill(&id("a-1"), ExitStatus::Signal(11)));
    assert!(driver.kill_for_memory(&id("a-2")));
    let exit = driver.stop(&id("a-3"), 10 * SECOND).await.unwrap().unwrap();
    assert_eq!((exit.status, exit.requested), (ExitStatus::Code(0), true));
    let exit = driver.stop(&id("a-4"), SECOND).await.unwrap().unwrap();
    assert_eq!(
        (exit.status, exit.requested),
        (ExitStatus::Signal(9), true),
        "the grace was too short"
    );
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        let Event::Exited { id, exit, .. } = event else {
            panic!("{event:?}")
        };
        told.push((id.to_string(), exit.status.code(), exit.oom_killed));
    }
    let want = [
        ("a-1", 139, false),
        ("a-2", 137, true),
        ("b-1", 1, false),
        ("a-3", 0, false),
        ("a-4", 137, false),
    ];
    assert_eq!(told, want.map(|(id, code, oom)| (id.to_owned(), code, oom)));
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_is_recorded_with_its_time() {
    let driver = FakeDriver::new();
    driver.start(spec("a", "a-1")).await.unwrap();
    sleep(SECOND).await;
    let limits = Limits {
        pids: Some(7),
        ..Limits::default()
    };
    driver.set_limits(&id("a-1"), limits).await.unwrap();
    assert_eq!(driver.limits(&id("a-1")), Some(limits));
    driver.shutdown(SECOND).await;
    let calls: Vec<_> = driver
        .calls()
        .into_iter()
        .map(|call| (call.at.as_millis(), call.what))
        .collect();
    let start = What::Start {
        revision: revision("a"),
        limits: Limits::default(),
    };
    assert_eq!(
        calls,
        [
            (0, start),
            (1010, What::SetLimits { limits }),
            (1010, What::Stop { grace: SECOND })
        ]
    );
    assert_eq!(driver.limits(&id("a-1")), None);
}

#[tokio::test(start_paused = true)]
async fn the_same_test_runs_the_same_way_every_time() {
    async fn run() -> Vec<(Duration, String)> {
        let driver = FakeDriver::new();
        let starts = Starts::by(|n| Start::ready_after(Duration::from_millis(n * 37 % 101)));
        driver.set_default(Behaviour {
            starts,
            exits_after: Some((SECOND, ExitStatus::Code(0))),
            ..Behaviour::default()
        });
        let mut events = driver.events();
        let begin = now();
        let names: Vec<_> = (0..50).map(|n| format!("a-{n}")).collect();
        let mut starts = tokio::task::JoinSet::new();
        for name in names {
            let driver = driver.clone();
            starts.spawn(async move { driver.start(spec("a", &name)).await.map(drop) });
        }
        let mut log = Vec::new();
        while log.len() < 50 {
            let event = events.recv().await.unwrap();
            log.push((now() - begin, event.sandbox().to_string()));
        }
        log
    }
    assert_eq!(run().await, run().await);
}

#[tokio::test(start_paused = true)]
async fn probes_fail_as_planned_and_as_told() {
    let driver = FakeDriver::new();
    let mut events = driver.events();
    driver.set_default(Behaviour {
        unready_after: Some((SECOND, 2 * SECOND)),
        unhealthy_after: Some(5 * SECOND),
        stops_after: Some(SECOND),
        ..Behaviour::default()
    });
    let begin = now();
    driver.start(spec("a", "a-1")).await.unwrap();
    let mut told = Vec::new();
    let exit = loop {
        match events.recv().await.unwrap() {
            Event::Readiness { ready, why, .. } => {
                assert_eq!((driver.unready().len(), why.is_empty()), (usize::from(!ready), ready));
                told.push(format!("{} {ready}", (now() - begin).as_millis()));
            }
            Event::Unhealthy { .. } => told.push(format!("{} unhealthy", (now() - begin).as_millis())),
            Event::Exited { exit, .. } => break exit,
            Event::Reclaimed { .. } => panic!("nothing was frozen"),
        }
    };
    assert_eq!(told, ["1010 false", "3010 true", "5010 unhealthy"]);
    assert_eq!((now() - begin).as_millis(), 6010);
    assert_eq!(exit.unhealthy.as_deref(), Some("liveness probe failed: as planned"));
    assert_eq!((exit.status, exit.requested), (ExitStatus::Code(0), false));
    let gone = id("a-1");
    assert!(!driver.set_readiness(&gone, Some("x")) && !driver.fail_liveness(&gone, "x"));
    driver.set_default(Behaviour {
        starts: Start::Unhealthy {
            after: SECOND,
            why: "startup probe failed".into(),
        }
        .into(),
        ..Behaviour::default()
    });
    let error = driver.start(spec("a", "a-2")).await.unwrap_err();
    let text = "startup probe failed; the app was ended before it was ready (signal 9)";
    assert_eq!(error.to_string(), text);
    assert!(driver.list().is_empty());
}

/// Answers every request with the sandbox's name.
async fn say_name(id: SandboxId, mut stream: TcpStream) {
    let mut chunk = [0; 1024];
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{id}", id.as_str().len());
    while stream.read(&mut chunk).await.is_ok_and(|n| n > 0) {
        if stream.write_all(answer.as_bytes()).await.is_err() {
            break;
        }
    }
}

fn say(mut streams: Streams, text: String) -> BoxFuture<'static, ExitStatus> {
    Box::pin(async move {
        streams.stdout.write_all(text.as_bytes()).await.unwrap();
        ExitStatus::Code(0)
    })
}

fn obey(id: SandboxId, spec: &ExecSpec, mut streams: Streams) -> Option<BoxFuture<'static, ExitStatus>> {
    let terminal = spec.terminal;
    match spec.command[0].as_str() {
        "Copy" => Some(Box::pin(async move {
            tokio::io::copy(&mut streams.stdin, &mut streams.stdout).await.unwrap();
            streams.stderr.write_all(b"done\n").await.unwrap();
            ExitStatus::Code(3)
        })),
        "Read" => Some(say(streams, "first\nbeside\n".to_owned())),
        "Size" => {
            let size = terminal.unwrap_or_default();
            Some(say(streams, format!("{} {}\n", size.rows, size.columns)))
        }
        "Forever" => Some(Box::pin(async move {
            let line = format!("here {id}\n");
            streams.stdout.write_all(line.as_bytes()).await.unwrap();
            let _streams = streams;
            std::future::pending().await
        })),
        _ => None,
    }
}

fn fixture() -> Fixture {
    const CAPACITY: usize = 16;
    let driver = FakeDriver::with_event_capacity(CAPACITY);
    let base = Behaviour {
        starts: Start::ready_after(Duration::from_millis(3)).into(),
        serve: Serve::Handler(Arc::new(|id, stream| Box::pin(say_name(id, stream)))),
        commands: Commands::by(|id, spec, streams| obey(id.clone(), &spec, streams)),
        cpu: 0.1,
        ..Behaviour::default()
    };
    let crash = Start::Exits {
        after: Duration::from_millis(2),
        status: ExitStatus::Code(3),
    };
    let mayfly = Some((Duration::from_millis(300), ExitStatus::Code(7)));
    let ends = |status| Behaviour {
        starts: Start::Exits {
            after: Duration::from_millis(2),
            status,
        }
        .into(),
        ..base.clone()
    };
    let refused = |why: &str| Behaviour {
        starts: Start::Refused(why.to_owned()).into(),
        ..base.clone()
    };
    let behaviours = [
        (App::Quits, ends(ExitStatus::Code(0))),
        (App::Broken, ends(ExitStatus::Signal(11))),
        (App::NoImage, refused("no such image")),
        (App::Hollow, refused("no such program in the image")),
        (App::Stranger, refused("no such user in the image")),
        (App::Missing, refused("no such program")),
        (
            App::Asked,
            Behaviour {
                starts: Start::ready_after(Duration::from_millis(300)).into(),
                ..base.clone()
            },
        ),
        (
            App::Hungry,
            Behaviour {
                starves_after: Some(Duration::from_millis(300)),
                ..base.clone()
            },
        ),
        (App::Pod, base.clone()),
        (App::Quick, base.clone()),
        (
            App::Slow,
            Behaviour {
                starts: Start::ready_after(2 * SECOND).into(),
                ..base.clone()
            },
        ),
        (
            App::Never,
            Behaviour {
                starts: Start::NeverReady.into(),
                ..base.clone()
            },
        ),
        (
            App::Crasher,
            Behaviour {
                starts: crash.into(),
                output: vec!["no luck".into()],
                ..base.clone()
            },
        ),
        (
            App::Stubborn,
            Behaviour {
                stops_after: None,
                ..base.clone()
            },
        ),
        (
            App::Chatty,
            Behaviour {
                output: (0..100).map(|n| format!("chatty {n}")).collect(),
                ..base.clone()
            },
        ),
        (
            App::Mayfly,
            Behaviour {
                exits_after: mayfly,
                ..base.clone()
            },
        ),
        (
            App::Moody,
            Behaviour {
                unready_after: Some((Duration::from_millis(300), Duration::from_millis(700))),
                ..base.clone()
            },
        ),
        (
            App::Hung,
            Behaviour {
                unhealthy_after: Some(Duration::from_millis(300)),
                ..base.clone()
            },
        ),
        (App::Watched, base.clone()),
        (
            App::Sleeper,
            Behaviour {
                starts: Start::Unhealthy {
                    after: SECOND,
                    why: "startup probe failed".into(),
                }
                .into(),
                ..base.clone()
            },
        ),
    ];
    behaviours
        .into_iter()
        .for_each(|(app, behaviour)| driver.set(&app.revision(), behaviour));
    let (killer, holder) = (driver.clone(), driver.clone());
    Fixture {
        driver: Arc::new(driver),
        workload: Box::new(|app| {
            let mut workload = crate::testing::workload();
            if app == App::Pod {
                let other = |name: &str| Container::new(name, Image::Host("/bin/sh".into()));
                (workload.init, workload.sidecars) = (vec![other("before")], vec![other("beside")]);
            }
            Some(workload)
        }),
        command: Box::new(|command| vec![format!("{command:?}")]),
        kill: Box::new(move |id| _ = killer.kill(id, ExitStatus::Signal(9))),
        leftovers: Box::new(move || holder.state().sandboxes.keys().map(ToString::to_string).collect()),
        event_capacity: Some(CAPACITY),
        limits: true,
        signals: true,
    }
}

#[tokio::test(start_paused = true)]
async fn the_fake_conforms() {
    conformance::run(fixture).await;
}
