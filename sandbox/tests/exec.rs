//! Commands in running sandboxes: as locked down as the app, with a terminal when asked, and never left behind.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Bytes;
use sandbox::LocalDriver;
use sandbox::driver::{Driver, ExitStatus, Limits};
use sandbox::exec::{Exec, ExecError, ExecSpec, WindowSize};
use support::shut_in::{assert_commands_are_hidden, assert_shut_in, by_name, findings};
use support::{TESTAPP, get, serve, spec, workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const BOUND: Duration = Duration::from_secs(20);

fn id(name: &str) -> SandboxId {
    SandboxId::new(name)
}

/// Runs it to its end; what it said and how it ended.
async fn ran(driver: &dyn Driver, name: &str, command: &[&str]) -> (String, i32) {
    let exec = driver
        .exec(&id(name), ExecSpec::new(command.iter().copied()))
        .await
        .unwrap();
    let ran = timeout(BOUND, exec.ran(1 << 20)).await.unwrap();
    (String::from_utf8(ran.output).unwrap(), ran.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_locked_down_as_its_app() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let app = findings(&*driver, TESTAPP, dir.path(), host.local_addr().unwrap().port()).await;
    let (said, code) = ran(&*driver, "check", &[TESTAPP, "findings"]).await;
    assert_eq!(code, 0, "{said}");
    let mut command = by_name(&said);
    assert!(command["Pid"].parse::<u32>().unwrap() > 1, "{}", command["Pid"]);
    assert_eq!(
        command["processes"], "2",
        "the app and the command, and no process in between"
    );
    let fds = command["fds"].clone();
    for fd in fds.split(' ') {
        assert!(
            fd[1..].starts_with("=pipe:[") && ("0"..="2").contains(&&fd[..1]),
            "{fds}"
        );
    }
    // What must differ, does; all else is the same.
    for differs in ["Pid", "processes", "fds", "ls /tmp"] {
        command.insert(differs.to_owned(), app[differs].clone());
    }
    assert_eq!(command, app);
    assert_shut_in(&command, TESTAPP);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_directory_and_codes_are_as_in_a_shell() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let mut app = workload(TESTAPP, &["serve"]);
    app.serving.env.insert("GREETING".into(), "hi there".into());
    app.serving.working_dir = Some("/usr/share".into());
    driver.start(spec("env", app)).await.unwrap();
    let mut command = ExecSpec::new(["sh", "-c", "echo $GREETING $PORT $K_REVISION $EXTRA; pwd; ls /home"]);
    command.env = vec![("EXTRA".into(), "more".into())];
    let exec = driver.exec(&id("env"), command).await.unwrap();
    let said = String::from_utf8(exec.ran(1000).await.output).unwrap();
    assert_eq!(said, "hi there 8080 hello-00001 more\n/usr/share\n");

    for (script, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
        ("ulimit -n 10; exit 7", 7),
    ] {
        assert_eq!(ran(&*driver, "env", &["sh", "-c", script]).await.1, code, "{script}");
    }
    for (program, code) in [("nope", 127), ("/nope/x", 127), ("/etc/hostname", 126), ("/usr", 126)] {
        let refused = driver.exec(&id("env"), ExecSpec::new([program])).await.unwrap_err();
        assert_eq!(refused.exit_code(), code, "{program}: {refused}");
        assert!(refused.to_string().contains(program), "{refused}");
    }
    // It says far more than is kept, and leaves somebody behind who holds its output open.
    let script = "sleep 60 & head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2";
    let exec = driver
        .exec(&id("env"), ExecSpec::new(["sh", "-c", script]))
        .await
        .unwrap();
    let ran = timeout(BOUND, exec.ran(1000)).await.expect("it is not waited for");
    assert_eq!((ran.status, ran.output.len()), (ExitStatus::Code(0), 1000));
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_counts_against_the_limits_of_its_sandbox() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let driver = support::driver(dir.path());
    let mut limited = serve("limited");
    limited.limits = Limits {
        memory: Some(Bytes(64 << 20)),
        pids: Some(8),
        ..Limits::default()
    };
    driver.start(limited).await.unwrap();
    let (said, code) = ran(&*driver, "limited", &["sh", "-c", "head -c 200000000 /dev/zero | tail"]).await;
    assert_ne!(code, 0, "more memory than there is: {said}");
    let mut many = Vec::new();
    let refused = loop {
        match driver.exec(&id("limited"), ExecSpec::new(["sleep", "60"])).await {
            Ok(exec) => many.push(exec),
            Err(error) => break error,
        }
        assert!(many.len() < 9);
    };
    assert!(
        matches!(&refused, ExecError::Refused(why) if why.contains("as many processes")),
        "{refused:?}"
    );
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    with_terminal(&support::driver(dir.path())).await;
    let dir = tempfile::tempdir().unwrap();
    let plain = sandbox::LocalConfig {
        unsafe_no_isolation: true,
        ..support::config(dir.path())
    };
    with_terminal(&LocalDriver::new(plain).unwrap()).await;
}

async fn with_terminal(driver: &Arc<LocalDriver>) {
    driver.start(serve("tty")).await.unwrap();
    let script = "tty; stty size; echo err >&2; echo -n x > /dev/tty; read line; echo got $line; stty size; \
                  trap 'echo int; exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let mut exec = terminal(driver, script).await;
    assert!(exec.stderr.is_none());
    let mut said = String::new();
    until(&mut exec, &mut said, "\r\nx").await;
    assert!(
        said.starts_with("/dev/pts/") && said.contains("\r\n30 100\r\nerr\r\n"),
        "{said:?}"
    );
    let size = WindowSize { rows: 50, columns: 132 };
    exec.process.resize(size).unwrap();
    exec.stdin.as_mut().unwrap().write_all(b"word\n").await.unwrap();
    until(&mut exec, &mut said, "ready\r\n").await;
    assert!(said.contains("word\r\ngot word\r\n50 132\r\n"), "{said:?}");
    // Ctrl-C is a signal to what runs in front.
    exec.stdin.as_mut().unwrap().write_all(b"\x03").await.unwrap();
    until(&mut exec, &mut said, "int\r\n").await;
    assert_eq!(timeout(BOUND, exec.process.wait()).await.unwrap(), ExitStatus::Code(9));
    assert_eq!(exec.stdout.read(&mut [0; 9]).await.unwrap(), 0, "its end");

    // Given up, what runs in front is hung up on, too.
    let mut exec = terminal(driver, "sleep 86399 & sleep 86398").await;
    let mut said = String::new();
    let both = |wanted: usize| async move {
        let count = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
            lines.filter(|line| line.starts_with("sleep\08639")).count()
        };
        let mut waited = Duration::ZERO;
        while count() != wanted {
            assert!(waited < BOUND, "{} instead of {wanted}", count());
            tokio::time::sleep(Duration::from_millis(10)).await;
            waited += Duration::from_millis(10);
        }
    };
    both(2).await;
    exec.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    until(&mut exec, &mut said, "hello").await;
    drop(exec);
    both(0).await;
    assert_eq!(get(&**driver, "tty", "/").await.unwrap(), "tty");
    driver.shutdown(Duration::ZERO).await;
}

async fn terminal(driver: &Arc<LocalDriver>, script: &str) -> Exec {
    let mut command = ExecSpec::new(["sh", "-c", script]);
    command.terminal = Some(WindowSize { rows: 30, columns: 100 });
    driver.exec(&id("tty"), command).await.unwrap()
}

async fn until(exec: &mut Exec, said: &mut String, wanted: &str) {
    let mut buffer = [0; 4096];
    while !said.contains(wanted) {
        let read = timeout(BOUND, exec.stdout.read(&mut buffer)).await;
        let n = read.unwrap_or_else(|_| panic!("no {wanted:?} in {said:?}")).unwrap();
        assert!(n > 0, "no {wanted:?} in {said:?}");
        said.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_cannot_look_into_a_command_on_its_way() {
    if !support::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut config = support::config(dir.path());
    // Nothing is made ahead: what its spawner makes is what it was asked for.
    (config.pool, config.pool_services) = (0, 0);
    let driver = sandbox::LocalDriver::new(config).unwrap();
    assert_commands_are_hidden(std::sync::Arc::clone(&driver), support::TESTAPP).await;
    driver.shutdown(Duration::ZERO).await;
}
