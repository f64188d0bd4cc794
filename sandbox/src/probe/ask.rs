//! One ask: tries a check within its patience, through whoever runs the sandbox.

use std::io;
use std::time::Duration;

use manifests::workload::Check;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::grpc;
use super::http::{self, Place};
use super::worker::{Outcome, Patience};

/// What is asked: one container of a sandbox.
pub(crate) trait Target: Sync {
    /// Waits until something listens on a port inside. Fails when it can never be known.
    fn opened(&self, port: u16) -> impl Future<Output = io::Result<()>> + Send;

    /// Connects to a port inside.
    fn connect(&self, port: u16) -> impl Future<Output = io::Result<TcpStream>> + Send;

    /// Runs a command inside until it ends; its exit code and the first `most` bytes that it said. Dropped, the command
    /// is ended.
    fn exec(&self, command: &[String], most: usize) -> impl Future<Output = io::Result<(i32, Vec<u8>)>> + Send;
}

/// At most this much of an answer is read, head and body each.
pub(super) const MOST: usize = 16 * 1024;

/// What kubelet calls itself, `kube-probe/MAJOR.MINOR`; the version of the API that is followed here.
pub(super) const USER_AGENT: &str = "kube-probe/1.34";

/// Asks a check.
pub(crate) async fn ask(target: &impl Target, check: &Check, patience: Patience) -> Outcome {
    match patience {
        Patience::Once(each) => attempt(target, check, each).await,
        Patience::WhenOpen(each) => {
            if let Some(port) = port(check)
                && let Err(error) = target.opened(port).await
            {
                return Outcome::Unknown(error.to_string());
            }
            match check {
                Check::Tcp { .. } => Outcome::Passed,
                _ => attempt(target, check, each).await,
            }
        }
        Patience::Rounds { each, gap, all } => {
            let mut last = Outcome::Unknown("no try has ended".to_owned());
            let rounds = async {
                loop {
                    last = attempt(target, check, each).await;
                    if last == Outcome::Passed {
                        return;
                    }
                    sleep(gap).await;
                }
            };
            let _ = timeout(all, rounds).await;
            last
        }
    }
}

const fn port(check: &Check) -> Option<u16> {
    match check {
        Check::Tcp { port } | Check::Http { port, .. } | Check::Grpc { port, .. } => Some(*port),
        Check::Exec { .. } => None,
    }
}

/// One try.
async fn attempt(target: &impl Target, check: &Check, limit: Duration) -> Outcome {
    let tried = async {
        match check {
            Check::Tcp { port } => connect(target, *port).await.map(drop),
            Check::Http {
                port,
                tls,
                path,
                headers,
            } => http::get(target, Place::new(*port, *tls, path), headers).await,
            Check::Grpc { port, service } => grpc::check(connect(target, *port).await?, *port, service).await,
            Check::Exec { command } => match target.exec(command, MOST).await {
                Ok((0, _)) => Ok(()),
                Ok((code, said)) => Err(Trouble::Failed(format!(
                    "{} exited with code {code}{}",
                    short(command),
                    last_line(&said)
                ))),
                Err(error) => Err(Trouble::Unknown(format!("{}: {error}", short(command)))),
            },
        }
    };
    match timeout(limit, tried).await {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(Trouble::Failed(why))) => Outcome::Failed(why),
        Ok(Err(Trouble::Unknown(why))) => Outcome::Unknown(why),
        Err(_) => Outcome::Failed(match check {
            Check::Exec { command } => format!("{} did not end within {limit:?}", short(command)),
            Check::Http { port, path, .. } => format!("GET {path} on port {port}: no answer within {limit:?}"),
            Check::Tcp { port } | Check::Grpc { port, .. } => format!("no answer on port {port} within {limit:?}"),
        }),
    }
}

/// Why a try did not pass.
#[derive(Debug)]
pub(super) enum Trouble {
    Failed(String),
    /// It could not be asked.
    Unknown(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

pub(super) async fn connect(target: &impl Target, port: u16) -> Result<TcpStream, Trouble> {
    target.connect(port).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Trouble::Failed(format!("nothing listens on port {port}")),
        // There is no way in: its dialer is being replaced, or it is about to be gone.
        io::ErrorKind::NotConnected | io::ErrorKind::NotFound => Trouble::Unknown(error.to_string()),
        _ => Trouble::Failed(format!("connect to port {port}: {error}")),
    })
}

/// What a command said last, after a colon; nothing when it said nothing.
fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    match text.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!(": {}", line.chars().take(200).collect::<String>()),
        None => String::new(),
    }
}

/// The program of a command; its arguments may hold secrets.
fn short(command: &[String]) -> &str {
    command.first().map_or("the command", String::as_str)
}
