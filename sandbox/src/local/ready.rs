//! Readiness: when an app counts as ready (Knative: readiness probes; Kubernetes' fields and meanings).
//!
//! `periodSeconds: 0` is Knative's aggressive probing. Knative asks every 50 ms, each try with a timeout of 100 ms; here
//! the port is asked far more often at first, because that interval would be most of a cold start.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use manifests::workload::{Check, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::dial;
use super::state::{Inner, Sandbox};

/// Knative: an aggressive try has this long; then the next begins.
const AGGRESSIVE_TIMEOUT: Duration = Duration::from_millis(100);

/// Between two aggressive HTTP tries: the first gap, and the longest, which is Knative's.
const GAP: Duration = Duration::from_millis(1);
const LONGEST_GAP: Duration = Duration::from_millis(50);

/// Waits until the probe has passed as often as it must. `last` holds what the last try said.
pub(super) async fn ready(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    workload: &Workload,
    last: &mut String,
) -> io::Result<()> {
    let Some(probe) = &workload.serving.probes.readiness else {
        return Ok(());
    };
    // Without isolation the app listens elsewhere than its manifest says.
    let on = |port: u16| if port == workload.port { sandbox.port } else { port };
    let port = match probe.check {
        Check::Tcp { port } | Check::Http { port, .. } | Check::Grpc { port, .. } => on(port),
        Check::Exec { .. } => 0,
    };
    *last = format!("nothing listens on port {port}");
    sleep_if(probe.initial_delay).await;
    let wanted = probe.success_threshold.max(1);
    match probe.period {
        None => aggressive(inner, sandbox, &probe.check, port, wanted, last).await,
        Some(period) => {
            let mut passed = 0;
            loop {
                match attempt(inner, sandbox, &probe.check, port, probe.timeout).await {
                    Ok(()) => passed += 1,
                    Err(why) => {
                        *last = why;
                        passed = 0;
                    }
                }
                if passed >= wanted {
                    return Ok(());
                }
                sleep(period).await;
            }
        }
    }
}

async fn aggressive(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    check: &Check,
    port: u16,
    wanted: u32,
    last: &mut String,
) -> io::Result<()> {
    let mut passed = 0;
    let mut gap = GAP;
    while passed < wanted {
        let socket = dial::socket(inner, sandbox).await?;
        if inner.prober.watch(socket, port).await.is_err() {
            return Err(io::Error::other("the prober has ended"));
        }
        if matches!(check, Check::Tcp { .. }) {
            passed += 1;
            continue;
        }
        match attempt(inner, sandbox, check, port, AGGRESSIVE_TIMEOUT).await {
            Ok(()) => passed += 1,
            Err(why) => {
                *last = why;
                passed = 0;
                sleep(gap).await;
                gap = (gap * 2).min(LONGEST_GAP);
            }
        }
    }
    Ok(())
}

/// One try; why it failed, in words.
async fn attempt(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    check: &Check,
    port: u16,
    limit: Duration,
) -> Result<(), String> {
    let tried = timeout(limit, async {
        let stream = dial::connect(inner, sandbox, port).await.map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused => format!("nothing listens on port {port}"),
            _ => format!("connect to port {port}: {e}"),
        })?;
        match check {
            Check::Tcp { .. } => Ok(()),
            Check::Grpc { .. } | Check::Exec { .. } => Err("not supported yet".to_owned()),
            Check::Http { path, headers, .. } => {
                let status = get(stream, port, path, headers)
                    .await
                    .map_err(|e| format!("GET {path}: {e}"))?;
                if (200..400).contains(&status) {
                    Ok(())
                } else {
                    Err(format!("GET {path} answered {status}"))
                }
            }
        }
    });
    tried
        .await
        .unwrap_or_else(|_| Err(format!("no answer on port {port} within {limit:?}")))
}

/// Asks over HTTP/1.1, as the kubelet does; only the status counts.
async fn get(mut stream: TcpStream, port: u16, path: &str, headers: &[(String, String)]) -> io::Result<u16> {
    stream.write_all(request(port, path, headers).as_bytes()).await?;
    let mut answer = Vec::with_capacity(64);
    while !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await? == 0 || answer.len() > 1024 {
            break;
        }
    }
    status(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer"))
}

fn request(port: u16, path: &str, headers: &[(String, String)]) -> String {
    let mut request = format!("GET {path} HTTP/1.1\r\n");
    let mut default = |name: &str, value: &str| {
        if !headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)) {
            request += &format!("{name}: {value}\r\n");
        }
    };
    default("Host", &format!("127.0.0.1:{port}"));
    default("User-Agent", "kube-probe/knarr");
    default("Accept", "*/*");
    default("Connection", "close");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request + "\r\n"
}

/// The status of `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|b| *b == b'\n').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    version.strip_prefix("HTTP/1.")?;
    rest.get(..3)?.parse().ok()
}

async fn sleep_if(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_and_nothing_else() {
        let cases: [(&[u8], Option<u16>); 6] = [
            (b"HTTP/1.1 200 OK\r\n", Some(200)),
            (b"HTTP/1.0 503\r\nX: y", Some(503)),
            (b"HTTP/2 200\r\n", None),
            (b"hello", None),
            (b"", None),
            (b"HTTP/1.1 2\r\n", None),
        ];
        for (answer, wanted) in cases {
            assert_eq!(status(answer), wanted, "{:?}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn own_headers_replace_the_defaults() {
        let plain = request(80, "/h?x", &[]);
        assert!(
            plain.starts_with("GET /h?x HTTP/1.1\r\nHost: 127.0.0.1:80\r\nUser-Agent: kube-probe/"),
            "{plain}"
        );
        let own = request(80, "/", &[("host".into(), "me".into()), ("X-A".into(), "b".into())]);
        assert!(
            own.contains("host: me\r\n") && own.contains("X-A: b\r\n") && !own.contains("127.0.0.1"),
            "{own}"
        );
        assert!(own.ends_with("\r\n\r\n"));
    }
}
