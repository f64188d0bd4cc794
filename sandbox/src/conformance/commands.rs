//! The checks of commands in running sandboxes.

use std::time::Duration;

use manifests::ids::SandboxId;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use super::{App, BOUND, Bench, Command};
use crate::driver::{DriverError, ExitStatus};
use crate::exec::{Exec, ExecError, ExecSpec, WindowSize};

const GRACE: Duration = Duration::from_secs(10);

pub(super) async fn commands(bench: &Bench) {
    let unknown = bench
        .driver()
        .exec(&SandboxId::new("never-was"), spec(bench, Command::Copy))
        .await;
    assert!(
        matches!(&unknown, Err(ExecError::Driver(DriverError::NotFound(_)))),
        "{unknown:?}"
    );
    let id = bench.start(App::Quick).await;
    let missing = bench.driver().exec(&id, spec(bench, Command::Missing)).await;
    assert!(
        matches!(&missing, Err(ExecError::NotFound(why)) if !why.is_empty()),
        "{missing:?}"
    );
    let nowhere = ExecSpec {
        container: Some("no-such-container".into()),
        ..spec(bench, Command::Copy)
    };
    let nowhere = bench.driver().exec(&id, nowhere).await;
    assert!(
        matches!(&nowhere, Err(ExecError::Refused(why)) if why.contains("no-such-container")),
        "{nowhere:?}"
    );
    let nothing = bench.driver().exec(&id, ExecSpec::default()).await;
    assert!(matches!(&nothing, Err(ExecError::Refused(_))), "{nothing:?}");

    // Without input it ends at once.
    let ran = run(bench, &id, spec(bench, Command::Copy)).await.ran(100).await;
    assert_eq!(
        (ran.status, ran.output.as_slice()),
        (ExitStatus::Code(3), &b"done\n"[..])
    );

    // More than any pipe holds, in and out at once.
    let mut copy = run(
        bench,
        &id,
        ExecSpec {
            stdin: true,
            ..spec(bench, Command::Copy)
        },
    )
    .await;
    let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut input = copy.stdin.take().expect("it was asked for");
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let mut complaints = copy.stderr.take().expect("without a terminal");
    let everything = async {
        tokio::join!(
            async {
                input.write_all(&sent).await.expect("it reads");
                drop(input);
            },
            async { copy.stdout.read_to_end(&mut output).await.expect("it writes") },
            async { complaints.read_to_end(&mut errors).await.expect("it complains") },
        );
        copy.process.wait().await
    };
    let status = timeout(BOUND, everything).await.expect("it ends");
    assert_eq!(status, ExitStatus::Code(3));
    assert!(output == sent, "{} bytes of {}", output.len(), sent.len());
    assert_eq!(errors, b"done\n");
    assert_eq!(copy.process.wait().await, status, "asked again");
    copy.process.signal(15);

    // The app has not noticed.
    let mut stream = bench.dial(&id).await;
    bench.get(&id, &mut stream).await;
    bench.stop(&id, GRACE).await;
    let late = bench.driver().exec(&id, spec(bench, Command::Copy)).await;
    assert!(
        matches!(&late, Err(ExecError::Driver(DriverError::NotFound(_)))),
        "{late:?}"
    );
}

pub(super) async fn terminals(bench: &Bench) {
    let id = bench.start(App::Quick).await;
    let asked = ExecSpec {
        terminal: Some(WindowSize { rows: 33, columns: 101 }),
        ..spec(bench, Command::Size)
    };
    // An OCI runtime passes the size on once more after it has started the command, which may look in between.
    let tries = if bench.fixture.signals { 1 } else { 5 };
    let mut told = (String::new(), ExitStatus::Code(-1));
    for _ in 0..tries {
        let mut sized = run(bench, &id, asked.clone()).await;
        assert!(sized.stderr.is_none() && sized.stdin.is_some(), "{sized:?}");
        let mut said = String::new();
        timeout(BOUND, sized.stdout.read_to_string(&mut said))
            .await
            .expect("it ends")
            .expect("it can be read");
        told = (said.trim_end().to_owned(), ended(&sized).await);
        if told.1 == ExitStatus::Code(0) {
            break;
        }
    }
    assert_eq!(told, ("33 101".to_owned(), ExitStatus::Code(0)));
    let lasting = ExecSpec {
        command: (bench.fixture.command)(Command::Forever),
        ..asked
    };
    let mut lasting = run(bench, &id, lasting).await;
    let mut line = String::new();
    let mut stdout = BufReader::new(&mut lasting.stdout);
    let read = timeout(BOUND, stdout.read_line(&mut line))
        .await
        .expect("it says something");
    assert_eq!((read.is_ok(), line.trim_end()), (true, format!("here {id}").as_str()));
    lasting
        .process
        .resize(WindowSize::default())
        .expect("it has a terminal");
    drop(lasting);
    let plain = run(bench, &id, spec(bench, Command::Forever)).await;
    assert!(plain.process.resize(WindowSize::default()).is_err(), "it has none");
    drop(plain);
    bench.stop(&id, GRACE).await;
}

pub(super) async fn ends(bench: &Bench) {
    let id = bench.start(App::Quick).await;
    let other = bench.start(App::Quick).await;
    for killed in [false, true] {
        let (mut here, _errors) = begin(bench, &id).await;
        let (mut there, _errors) = begin(bench, &other).await;
        there.process.signal(15);
        assert_eq!(bench.status(ended(&there).await), ExitStatus::Signal(15));
        assert_eq!(there.stdout.read(&mut [0; 8]).await.expect("its end"), 0);
        if !killed {
            // Nobody holds it any more: its sandbox is as before.
            drop(here);
            continue;
        }
        (bench.fixture.kill)(&id);
        bench.one_exit(&id).await;
        assert_eq!(
            bench.status(ended(&here).await),
            ExitStatus::Signal(9),
            "with its sandbox"
        );
        assert_eq!(here.stdout.read(&mut [0; 8]).await.expect("its end"), 0);
    }
    // A stop does not wait for commands.
    let (running, _errors) = begin(bench, &other).await;
    bench.stop(&other, GRACE).await;
    assert_eq!(bench.status(ended(&running).await), ExitStatus::Signal(9));
    bench.clean("after commands").await;

    // Dropped on its way, at some point.
    let id = bench.start(App::Quick).await;
    for micros in [0, 50, 100, 200, 400, 800, 1600, 3200] {
        let point = Duration::from_micros(micros);
        drop(timeout(point, bench.driver().exec(&id, spec(bench, Command::Forever))).await);
    }
    let mut stream = bench.dial(&id).await;
    bench.get(&id, &mut stream).await;
    bench.stop(&id, GRACE).await;
}

/// A command that runs for ever and has said so, and its standard error.
async fn begin(bench: &Bench, id: &SandboxId) -> (Exec, Option<crate::exec::Output>) {
    let mut exec = run(bench, id, spec(bench, Command::Forever)).await;
    let mut line = String::new();
    let mut stdout = BufReader::new(&mut exec.stdout);
    timeout(BOUND, stdout.read_line(&mut line))
        .await
        .expect("it says something")
        .expect("it can be read");
    assert_eq!(line, format!("here {id}\n"));
    let errors = exec.stderr.take();
    (exec, errors)
}

async fn run(bench: &Bench, id: &SandboxId, spec: ExecSpec) -> Exec {
    match timeout(BOUND, bench.driver().exec(id, spec)).await {
        Ok(Ok(exec)) => exec,
        Ok(Err(error)) => panic!("{}: a command in {id}: {error}", bench.check),
        Err(_) => panic!("{}: a command in {id} does not start", bench.check),
    }
}

async fn ended(exec: &Exec) -> ExitStatus {
    timeout(BOUND, exec.process.wait()).await.expect("it ends")
}

fn spec(bench: &Bench, command: Command) -> ExecSpec {
    ExecSpec::new((bench.fixture.command)(command))
}
