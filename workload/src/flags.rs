//! The command line: a handful of flags, read without a parser crate because every microsecond of start is measured.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
A small HTTP app for examples, tests and benchmarks. Listens on $PORT (default 8080), IPv6 and IPv4.

Usage: knarr workload [FLAGS]

Flags (DUR is a number with a unit: 250ms, 2s, 1m):
  --start-delay DUR   wait before listening, as an app with a slow start does
  --ready-delay DUR   listen at once, but answer 503 to everything for this long
  --fail-start CODE   exit with CODE instead of listening (after --start-delay)
  --hold MIB          hold this much memory from the start on
  --body BYTES        answer / with exactly this many bytes
  --one-connection    serve one connection at a time, keep-alive included, as Python's HTTPServer does
  --h2c               also speak HTTP/2 without TLS (prior knowledge)
  --ignore-term       take no notice of SIGTERM
  --journal FILE      lock FILE for as long as the process lives, or end with exit code 1; /write adds lines to it
  --chatty            write one line per request to standard output
  -h, --help          this text

Paths:
  /                     a greeting with $TARGET, $K_REVISION and $HOSTNAME
  /echo                 the request's body, streamed; its headers as X-Echo-NAME
  /sleep?ms=N           answers after N milliseconds
  /cpu?ms=N             burns N milliseconds of CPU time, then answers with the wall time it took
  /mem?mb=N&ms=M        holds N MiB for M milliseconds
  /status/NNN           answers with status NNN, 200 to 599
  /exit?code=N          ends the process with exit code N, without an answer
  /stream?n=N&ms=M      N chunks (1 to 1000000), M milliseconds apart
  /trailers             a body with trailers (sent when the request says `TE: trailers`)
  /ws                   WebSocket echo
  /overlap?ms=N         works N milliseconds, to the end even when the client goes away; 409 when two ran at once
  /write?id=N           adds a line with $K_REVISION and N to the --journal
  /overlap/report       what /overlap has seen in this process
  /env                  the environment as JSON
  /ready                200, or 503 while it is not ready
  /unready?ms=N         answers with its $HOSTNAME; not ready for the next N milliseconds
  /hang?ms=N            answers with its $HOSTNAME; then answers nothing for N milliseconds, or for ever without N
  /grpc.health.v1.Health/Check   with --h2c: gRPC health, as /ready
";

/// The flags, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Flags {
    /// 0 lets the kernel choose; the choice is printed.
    pub(crate) port: u16,
    pub(crate) start_delay: Duration,
    pub(crate) ready_delay: Duration,
    pub(crate) fail_start: Option<u8>,
    /// MiB held from the start on.
    pub(crate) hold: usize,
    /// Bytes of the body of `/`; `None` is the greeting.
    pub(crate) body: Option<usize>,
    pub(crate) one_connection: bool,
    pub(crate) h2c: bool,
    pub(crate) ignore_term: bool,
    pub(crate) chatty: bool,
    /// Locked, and written by `/write`.
    pub(crate) journal: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Parsed {
    Run(Flags),
    Help,
}

/// Reads the arguments, and `PORT` through `env`. The error says what is wrong and what would be right.
pub(crate) fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Parsed, String> {
    let mut flags = Flags {
        port: port(env("PORT"))?,
        start_delay: Duration::ZERO,
        ready_delay: Duration::ZERO,
        fail_start: None,
        hold: 0,
        body: None,
        one_connection: false,
        h2c: false,
        ignore_term: false,
        chatty: false,
        journal: None,
    };
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        // Both `--flag value` and `--flag=value`.
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        if matches!(name, "--one-connection" | "--h2c" | "--ignore-term" | "--chatty") && inline.is_some() {
            return Err(format!("{name} takes no value: {arg}"));
        }
        let mut value = || {
            inline
                .clone()
                .or_else(|| args.next())
                .ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "--start-delay" => flags.start_delay = duration(name, &value()?)?,
            "--ready-delay" => flags.ready_delay = duration(name, &value()?)?,
            "--fail-start" => flags.fail_start = Some(number(name, &value()?, "an exit code, 0 to 255")?),
            "--hold" => flags.hold = number(name, &value()?, "a number of MiB")?,
            "--body" => flags.body = Some(number(name, &value()?, "a number of bytes")?),
            "--journal" => flags.journal = Some(value()?.into()),
            "--one-connection" => flags.one_connection = true,
            "--h2c" => flags.h2c = true,
            "--ignore-term" => flags.ignore_term = true,
            "--chatty" => flags.chatty = true,
            "-h" | "--help" => return Ok(Parsed::Help),
            _ => return Err(format!("unknown argument: {arg}")),
        }
    }
    Ok(Parsed::Run(flags))
}

fn port(value: Option<OsString>) -> Result<u16, String> {
    value.map_or(Ok(8080), |value| {
        number("PORT", &value.to_string_lossy(), "a port, 0 to 65535")
    })
}

fn number<T: std::str::FromStr>(name: &str, value: &str, wanted: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name} is {value:?}, but must be {wanted}"))
}

fn duration(name: &str, value: &str) -> Result<Duration, String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let nanos_per_unit = match &value[digits.len()..] {
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        _ => 0.0,
    };
    let wrong = || format!("{name} is {value:?}, but must be a duration with a unit, such as 250ms, 2s or 1m");
    match digits.parse::<f64>() {
        Ok(count) if nanos_per_unit > 0.0 => {
            Duration::try_from_secs_f64(count * nanos_per_unit / 1e9).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Parsed, String> {
        parse(line.split_whitespace().map(OsString::from), |_| None)
    }

    fn flags(line: &str) -> Flags {
        match run(line) {
            Ok(Parsed::Run(flags)) => flags,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn values_come_after_a_space_or_an_equals_sign() {
        assert_eq!(flags("--body 10"), flags("--body=10"));
        assert_eq!(flags("--start-delay=1.5s").start_delay, Duration::from_millis(1500));
        assert_eq!(flags("--ready-delay 250ms").ready_delay, Duration::from_millis(250));
        assert_eq!(flags("--start-delay 1m").start_delay, Duration::from_secs(60));
        assert!(flags("--one-connection --h2c").h2c);
        assert_eq!(flags("--hold 20").hold, 20);
        assert_eq!(flags("--journal /a").journal, Some("/a".into()));
    }

    #[test]
    fn errors_name_the_flag_the_value_and_what_would_be_right() {
        for (line, expected) in [
            (
                "--start-delay 5",
                "--start-delay is \"5\", but must be a duration with a unit, such as 250ms, 2s or 1m",
            ),
            (
                "--start-delay -1s",
                "--start-delay is \"-1s\", but must be a duration with a unit, such as 250ms, 2s or 1m",
            ),
            (
                "--start-delay ms",
                "--start-delay is \"ms\", but must be a duration with a unit, such as 250ms, 2s or 1m",
            ),
            (
                "--fail-start 256",
                "--fail-start is \"256\", but must be an exit code, 0 to 255",
            ),
            ("--body", "--body needs a value"),
            ("--chatty=yes", "--chatty takes no value: --chatty=yes"),
            ("--bdy 3", "unknown argument: --bdy"),
        ] {
            assert_eq!(run(line), Err(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn port_comes_from_the_environment() {
        let with = |port: &str| parse([], |name| (name == "PORT").then(|| port.into()));
        assert!(matches!(with("9000"), Ok(Parsed::Run(Flags { port: 9000, .. }))));
        assert_eq!(
            with("http"),
            Err("PORT is \"http\", but must be a port, 0 to 65535".to_owned())
        );
        assert_eq!(flags("").port, 8080);
    }
}
