//! Images: what their processes are and see, whose their files are, and what is left of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manifests::ids::SandboxId;
use manifests::units::Bytes;
use manifests::workload::{Image, Workload};
use sandbox::driver::{Driver, Exit, StartError};
use sandbox::exec::{ExecError, ExecSpec};
use support::spec;

/// Where Debian's busybox-static is; `None`, with the reason printed, without it.
fn busybox() -> Option<PathBuf> {
    let found = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI needs busybox-static");
        eprintln!("skipped: needs busybox-static");
    }
    found
}

/// A root directory with busybox, three users, and files of theirs.
fn image(dir: &Path) -> Option<PathBuf> {
    if !support::is_root() {
        return None;
    }
    let busybox = busybox()?;
    let root = dir.join("image");
    for sub in ["bin", "etc", "home/web", "data", "tmp", "www"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for tool in [
        "sh", "cat", "id", "ls", "stat", "touch", "mkdir", "mount", "hostname", "dd", "chown", "ps", "kill", "sleep",
        "httpd", "grep", "mknod", "rm", "echo", "ln", "env", "pwd", "readlink", "head", "unshare", "chroot", "wc",
    ] {
        symlink("busybox", root.join("bin").join(tool)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:102:\nstaff:x:50:web\n").unwrap();
    fs::write(root.join("home/web/mine"), "web's").unwrap();
    fs::write(root.join("data/secret"), "root's").unwrap();
    fs::set_permissions(root.join("data/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    for path in ["home/web", "home/web/mine"] {
        chown(root.join(path), Some(101), Some(102)).unwrap();
    }
    Some(root)
}

fn shell(root: &Path, script: &str) -> Workload {
    let mut workload = Workload::new(Image::Dir(root.to_owned()));
    workload.serving.command = vec!["sh".into(), "-c".into(), format!("exec 2>&1; {script}").into()];
    workload.stop_grace = Duration::ZERO;
    workload
}

/// Runs it to its end.
async fn run(driver: &dyn Driver, id: &str, workload: Workload) -> Exit {
    match driver.start(spec(id, workload)).await {
        Err(StartError::Exited(exit)) => exit,
        other => panic!("it ends: {other:?}"),
    }
}

/// As `docker exec --user`: by the names that the container itself has now, and no more than its manifest lets it be.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_as_whom_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let driver = support::driver(&dir.path().join("data"));
    let mut app = shell(&root, "exec httpd -f -p $PORT -h /www");
    app.serving.security.user = Some(101);
    driver.start(spec("free", app.clone())).await.unwrap();
    app.serving.security.non_root = true;
    driver.start(spec("bound", app)).await.unwrap();
    let ask = async |sandbox: &str, user: Option<&str>| {
        let command = ExecSpec {
            user: user.map(str::to_owned),
            ..ExecSpec::new([
                "sh",
                "-c",
                "exec 2>&1; id; echo $HOME; cat /data/secret; grep CapEff /proc/self/status",
            ])
        };
        let exec = driver.exec(&SandboxId::new(sandbox), command).await?;
        let ran = exec.ran(10_000).await;
        Ok::<_, ExecError>(String::from_utf8(ran.output).unwrap())
    };
    let nothing = "CapEff:\t0000000000000000\n";
    for (user, wanted) in [
        (None, "uid=101(web) gid=102(web) groups=50(staff)\n/home/web\n"),
        (Some("web"), "uid=101(web) gid=102(web) groups=50(staff)\n/home/web\n"),
        (
            Some("101:staff"),
            "uid=101(web) gid=50(staff) groups=50(staff)\n/home/web\n",
        ),
        (Some("7:8"), "uid=7 gid=8\n/\n"),
    ] {
        for sandbox in ["free", "bound"] {
            let said = ask(sandbox, user).await.unwrap();
            assert!(said.starts_with(wanted) && said.ends_with(nothing), "{user:?}: {said}");
            assert!(said.contains("denied"), "{user:?}: {said}");
        }
    }
    let said = ask("free", Some("root")).await.unwrap();
    assert!(
        said.starts_with("uid=0(root) gid=0(root)") && said.contains("/root\nroot's"),
        "{said}"
    );
    assert!(
        said.ends_with("CapEff:\t00000000800405fb\n"),
        "as root of the image has: {said}"
    );
    // It is the container's own list that counts, as it is now.
    let adds = ExecSpec {
        user: Some("0".to_owned()),
        ..ExecSpec::new(["sh", "-c", "echo late:x:300:300::/late:/bin/sh >>/etc/passwd"])
    };
    let exec = driver.exec(&SandboxId::new("free"), adds).await.unwrap();
    assert_eq!(exec.ran(100).await.output, b"");
    assert!(
        ask("free", Some("late"))
            .await
            .unwrap()
            .starts_with("uid=300(late) gid=300")
    );
    for (sandbox, user, why) in [
        ("bound", "root", "runAsNonRoot"),
        ("bound", "late", "not in its /etc/passwd"),
        ("free", "nobody", "user \"nobody\": "),
        ("free", "web:nogroup", "not in its /etc/group"),
        ("free", "70000", "ids up to 65535"),
    ] {
        let refused = ask(sandbox, Some(user)).await.unwrap_err();
        assert!(
            matches!(&refused, ExecError::Refused(text) if text.contains(why)),
            "{user}: {refused}"
        );
    }
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_runs_as_its_user_and_its_files_are_its_users() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let driver = support::driver(&dir.path().join("data"));
    let script = "id; stat -c '%u:%g %n' / /home/web/mine /data/secret; cat /data/secret; echo; touch /new && stat -c %u /new
        hostname; cat /etc/hostname; grep -c as-root /etc/hosts; echo $HOME $PATH; pwd; cat /proc/self/uid_map; grep Cap /proc/self/status";
    let exit = run(&*driver, "as-root", shell(&root, script)).await;
    let said = &exit.last_output;
    let lines: Vec<&str> = said.lines().collect();
    let wanted = [
        "uid=0(root) gid=0(root)",
        "0:0 /",
        "101:102 /home/web/mine",
        "0:0 /data/secret",
        "root's",
        "0",
        "as-root",
        "as-root",
        "1",
        "/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "/",
    ];
    assert_eq!(lines[..wanted.len()], wanted, "{said}");
    assert!(
        lines[11].split_whitespace().nth(1).unwrap().parse::<u32>().unwrap() >= 0x7000_0000,
        "{said}"
    );
    let sets: Vec<&str> = lines[12..17]
        .iter()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    let default = "00000000800405fb";
    assert_eq!(
        sets,
        ["0000000000000000", default, default, default, "0000000000000000"],
        "{said}"
    );
    // Nothing of it was written to the image.
    assert!(!root.join("new").exists());

    let mut web = shell(
        &root,
        "id; cat /home/web/mine && touch /home/web/x && echo; cat /data/secret; touch /y; echo $HOME; exit 4",
    );
    web.serving.security.user = Some(101);
    web.fs_group = Some(2000);
    web.supplemental_groups = vec![3000];
    let exit = run(&*driver, "as-web", web).await;
    let said = exit.last_output;
    assert!(
        said.starts_with("uid=101(web) gid=102(web) groups=50(staff),2000,3000"),
        "{said}"
    );
    assert!(said.contains("web's\n") && said.ends_with("/home/web\n"), "{said}");
    assert_eq!(said.matches("ermission denied").count(), 2, "{said}");
    assert_eq!(exit.status.code(), 4);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_gone_with_the_sandbox_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let driver = support::driver(&dir.path().join("data"));
    for round in 0..2 {
        let script = "ls /left 2>&1; touch /left; rm /home/web/mine; echo x >>/etc/passwd; ls -a / | wc -l";
        let exit = run(&*driver, &format!("w{round}"), shell(&root, script)).await;
        assert!(exit.last_output.contains("No such file"), "{}", exit.last_output);
    }
    assert_eq!(fs::read_to_string(root.join("home/web/mine")).unwrap(), "web's");
    let mut bounded = shell(
        &root,
        "dd if=/dev/zero of=/fill bs=1M count=64 2>&1; stat -c %s /fill; exit 9",
    );
    bounded.serving.resources.ephemeral_limit = Some(Bytes(8 << 20));
    let exit = run(&*driver, "bounded", bounded).await;
    assert!(exit.last_output.contains("No space left"), "{}", exit.last_output);
    assert!(
        exit.last_output.ends_with(&format!("{}\n", 8 << 20)) || exit.last_output.contains("8",),
        "{}",
        exit.last_output
    );
    let script = "touch /x; touch /tmp/x; echo y >/dev/shm/y && cat /dev/shm/y; cat /etc/hostname; echo bye >/dev/termination-log && cat /dev/termination-log && : >/dev/termination-log";
    let mut read_only = shell(&root, script);
    read_only.serving.security.read_only_root = true;
    let exit = run(&*driver, "read-only", read_only).await;
    assert_eq!(
        exit.last_output.matches("Read-only file system").count(),
        2,
        "{}",
        exit.last_output
    );
    assert!(
        exit.last_output.ends_with("y\nread-only\nbye\n"),
        "{}",
        exit.last_output
    );
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_an_image_lead_nowhere_outside() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let outside = dir.path().join("outside");
    fs::create_dir_all(outside.join("etc")).unwrap();
    // Everything that is mounted on, as links to the host's own directories and to nothing.
    fs::remove_dir_all(root.join("etc")).unwrap();
    symlink(&outside, root.join("etc")).unwrap();
    fs::create_dir_all(root.join(outside.strip_prefix("/").unwrap())).unwrap();
    fs::create_dir_all(root.join("elsewhere")).unwrap();
    symlink("../../../elsewhere", root.join("dev")).unwrap();
    symlink("/proc/1/root", root.join("loop")).unwrap();
    let before = fs::read_dir(&outside).unwrap().count();
    let driver = support::driver(&dir.path().join("data"));
    let script = "ls /dev/null && ls /elsewhere/pts && cat /etc/hostname && ls /proc/self/status && pwd";
    let exit = run(&*driver, "links", shell(&root, script)).await;
    assert!(
        exit.last_output.contains("links\n/proc/self/status\n/\n"),
        "{}",
        exit.last_output
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), before);
    assert!(!outside.join("etc/hostname").exists() && !outside.join("hostname").exists());
    let mut lost = shell(&root, "true");
    lost.serving.working_dir = Some("/loop/etc".into());
    let error = driver.start(spec("lost", lost)).await.unwrap_err().to_string();
    assert!(error.contains("working directory"), "{error}");
    let mut made = shell(&root, "pwd; stat -c %u:%a . ..");
    made.serving.working_dir = Some("/new/deep/dir".into());
    let exit = run(&*driver, "made", made).await;
    assert_eq!(exit.last_output, "/new/deep/dir\n0:755\n0:755\n");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let driver = support::driver(&dir.path().join("data"));
    let but = |change: &dyn Fn(&mut Workload)| {
        let mut workload = shell(&root, "true");
        change(&mut workload);
        workload
    };
    let cases = [
        (but(&|w| w.serving.command.clear()), "does not say what to run"),
        (but(&|w| w.serving.command = vec!["no-such".into()]), "no-such"),
        (
            but(&|w| w.serving.command = vec!["/etc/passwd".into()]),
            "ermission denied",
        ),
        (but(&|w| w.serving.security.non_root = true), "runAsNonRoot"),
        (but(&|w| w.serving.security.user = Some(70_000)), "65535"),
        (
            but(&|w| w.serving.security.capabilities.add = vec!["FLY".into()]),
            "FLY",
        ),
        (
            but(&|w| w.serving.image = Image::Dir("/no/such/image".into())),
            "/no/such/image",
        ),
    ];
    for (i, (workload, wanted)) in cases.into_iter().enumerate() {
        let started = driver.start(spec(&format!("bad-{i}"), workload)).await;
        let Err(StartError::Refused(text)) = started else {
            panic!("{wanted}: {started:?}")
        };
        assert!(text.contains(wanted), "{wanted:?} is not in {text:?}");
    }
    assert_eq!(driver.list(), []);
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_are_what_the_manifest_says_and_never_more_than_its_own_users() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    let driver = support::driver(&dir.path().join("data"));
    let status = "grep -E 'Cap|NoNew|Seccomp:' /proc/self/status";
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let none: &[&str] = &[];
    let cases = [
        (&["ALL"][..], none, None, 0),
        (&["CHOWN"][..], none, None, 0x8004_05fa_u64),
        (&["ALL"][..], &["CHOWN", "SYS_TIME"][..], None, 0x0200_0001),
        (none, none, Some(101), 0),
        (none, &["KILL"][..], Some(101), 0x20),
    ];
    for (i, (drop, add, user, wanted)) in cases.into_iter().enumerate() {
        let mut app = shell(&root, status);
        app.serving.security.capabilities.drop = words(drop);
        app.serving.security.capabilities.add = words(add);
        app.serving.security.user = user;
        let said = run(&*driver, &format!("caps-{i}"), app).await.last_output;
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(
                said.contains(&format!("{set}:\t{wanted:016x}")),
                "{set} of case {i}: {said}"
            );
        }
        assert!(
            said.contains("NoNewPrivs:\t1") && said.contains("Seccomp:\t2"),
            "{said}"
        );
    }
    // All of them, and no filter: still nothing of the machine.
    let script = "mount -t tmpfs x /mnt; mount -t proc x /proc; hostname evil; mknod /n c 1 1; echo 1 >/proc/sys/kernel/panic
        dd if=/dev/mem of=/dev/null count=1; unshare -U true; chroot / true && echo chroot; ls /proc | grep -c '^[0-9]'";
    let mut app = shell(&root, script);
    app.serving.security.capabilities.add = words(&["ALL"]);
    app.serving.security.seccomp = manifests::workload::Seccomp::Unconfined;
    let said = run(&*driver, "all", app).await.last_output;
    assert!(said.contains("chroot\n"), "{said}");
    let refused = [
        "ermission denied",
        "not permitted",
        "Read-only",
        "No such file",
        "No space",
    ];
    let count: usize = refused.iter().map(|word| said.matches(word).count()).sum();
    assert_eq!(count, 7, "{said}");
    driver.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_serves_is_reached_and_starts_from_the_pool_the_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let Some(root) = image(dir.path()) else { return };
    fs::write(root.join("www/index.html"), "hello from an image").unwrap();
    let mut config = support::config(&dir.path().join("data"));
    config.pool = 1;
    let driver = sandbox::LocalDriver::new(config).unwrap();
    let mut app = Workload::new(Image::Dir(root.clone()));
    app.serving.command = vec![
        "httpd".into(),
        "-f".into(),
        "-p".into(),
        "8080".into(),
        "-h".into(),
        "/www".into(),
    ];
    app.stop_grace = Duration::ZERO;
    for round in 0..10 {
        let id = format!("serve-{round}");
        driver.start(spec(&id, app.clone())).await.unwrap();
        let page = support::get(&*driver, &id, "/").await.unwrap();
        assert_eq!(page, "hello from an image");
        driver.stop(&SandboxId::new(id.as_str()), Duration::ZERO).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pool = driver.pool();
    assert!(pool.rooted_starts >= 8, "{pool:?}");
    driver.shutdown(Duration::ZERO).await;
}
