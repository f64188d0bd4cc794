//! When a request has taken too long. PURE.
//!
//! Knative: three limits of a revision (queue-proxy, C3), all from the moment the request came in, so that a wait in the
//! queue counts. `timeoutSeconds` ends any request; `responseStartTimeoutSeconds` one whose response has not begun;
//! `idleTimeoutSeconds` one that has not written for so long, before its first byte too.

use std::time::Duration;

use manifests::revision::Timeouts;
use manifests::units::Timestamp;

/// Which limit a request has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expiry {
    /// `timeoutSeconds`.
    Request,
    /// `responseStartTimeoutSeconds`.
    ResponseStart,
    /// `idleTimeoutSeconds`.
    Idle,
}

/// The limits of one request, as instants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    request: Timestamp,
    /// `None` when not set, and once the response has begun.
    response_start: Option<Timestamp>,
    idle: Option<Duration>,
    /// When the last byte was written; when the request came in, before the first.
    wrote: Timestamp,
}

impl Deadlines {
    /// For a request that came in at `now`.
    pub(crate) fn new(now: Timestamp, timeouts: &Timeouts) -> Self {
        Self {
            request: now.plus(timeouts.request),
            response_start: timeouts.response_start.map(|after| now.plus(after)),
            idle: timeouts.idle,
            wrote: now,
        }
    }

    /// The head of the response, or a piece of its body, goes to the client at `now`.
    pub(crate) fn wrote(&mut self, now: Timestamp) {
        self.response_start = None;
        self.wrote = now;
    }

    /// When the request as a whole must be over.
    pub(crate) fn request(&self) -> Timestamp {
        self.request
    }

    /// The first instant at which [`Self::expired`] says something, if nothing is written before it.
    pub(crate) fn next(&self) -> Timestamp {
        let mut next = self.request;
        if let Some(start) = self.response_start {
            next = next.min(start);
        }
        if let Some(idle) = self.idle {
            next = next.min(self.wrote.plus(idle));
        }
        next
    }

    /// Which limit has been passed at `now`.
    pub(crate) fn expired(&self, now: Timestamp) -> Option<Expiry> {
        if now >= self.request {
            Some(Expiry::Request)
        } else if self.response_start.is_some_and(|at| now >= at) {
            Some(Expiry::ResponseStart)
        } else if self.idle.is_some_and(|idle| now >= self.wrote.plus(idle)) {
            Some(Expiry::Idle)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        id: String,
        timeout_ms: u64,
        response_start_timeout_ms: u64,
        idle_timeout_ms: u64,
        msg: String,
        script: Vec<Step>,
        want: Want,
    }

    #[derive(Deserialize)]
    struct Step {
        at_ms: u64,
        op: String,
        #[serde(default)]
        body: String,
        #[serde(default)]
        code: u16,
        want: Option<Wrote>,
    }

    #[derive(Deserialize)]
    struct Wrote {
        n: usize,
        err: String,
    }

    #[derive(Deserialize)]
    struct Want {
        status: u16,
        body: String,
        returned_ms: u64,
        ctx_done_ms: u64,
    }

    /// What a client sees of a scripted app behind [`Deadlines`].
    #[derive(Default)]
    struct Client {
        status: Option<u16>,
        body: String,
        cut: bool,
        ended: u64,
    }

    fn play(case: &Case) -> Client {
        let ms = Duration::from_millis;
        let optional = |value: u64| (value > 0).then(|| ms(value));
        let timeouts = Timeouts {
            request: ms(case.timeout_ms),
            response_start: optional(case.response_start_timeout_ms),
            idle: optional(case.idle_timeout_ms),
        };
        let mut deadlines = Deadlines::new(Timestamp::EPOCH, &timeouts);
        let mut client = Client::default();
        for step in &case.script {
            let now = Timestamp::from_millis(step.at_ms);
            let due = deadlines.next();
            if due <= now {
                assert_eq!(
                    deadlines.expired(due.minus(Duration::from_nanos(1))),
                    None,
                    "{}: too early",
                    case.id
                );
                assert!(deadlines.expired(due).is_some(), "{}: due but not expired", case.id);
                client.ended = due.as_millis();
                match client.status {
                    None => {
                        client.status = Some(504);
                        client.body = case.msg.clone();
                    }
                    Some(_) => client.cut = true,
                }
                return client;
            }
            assert_eq!(deadlines.expired(now), None, "{}: expired before it was due", case.id);
            match step.op.as_str() {
                "header" => {
                    deadlines.wrote(now);
                    client.status.get_or_insert(step.code);
                }
                "write" => {
                    let want = step.want.as_ref().expect("a write has a result");
                    assert_eq!(
                        (want.n, want.err.as_str()),
                        (step.body.len(), ""),
                        "{}: refused a write",
                        case.id
                    );
                    deadlines.wrote(now);
                    client.status.get_or_insert(200);
                    client.body.push_str(&step.body);
                }
                // Go's recorder sends the head on a flush; the timeout handler does not count it as a write. An app
                // behind a socket cannot do that: its head is a write.
                "flush" => {
                    client.status.get_or_insert(200);
                }
                // A panic ends the handler; the status is the recorder's default.
                "return" | "panic" => {
                    client.status.get_or_insert(200);
                    client.ended = step.at_ms;
                    return client;
                }
                other => panic!("{}: unknown step {other}", case.id),
            }
        }
        panic!("{}: the script does not end", case.id)
    }

    /// Every case of Knative's timeout handler, with one deliberate difference: where a response has begun, Knative
    /// writes the text of the timeout behind what was sent and ends the response as if it were whole. A client cannot
    /// tell that from success. Here such a response is cut (connection aborted, or RST_STREAM), so its body is what the
    /// app sent and nothing else.
    #[test]
    fn equals_knative_except_that_a_begun_response_is_cut() {
        let cases = include_str!("../tests/vectors/timeouts_http.jsonl");
        let mut played = 0;
        for line in cases.lines() {
            let case: Case = serde_json::from_str(line).expect("a case");
            let client = play(&case);
            let want_body = if client.cut {
                case.want
                    .body
                    .strip_suffix(&case.msg)
                    .expect("Knative ends it with the message")
            } else {
                &case.want.body
            };
            assert_eq!(client.status, Some(case.want.status), "{}", case.id);
            assert_eq!(client.body, want_body, "{}", case.id);
            assert_eq!(client.ended, case.want.returned_ms, "{}", case.id);
            assert_eq!(client.ended, case.want.ctx_done_ms, "{}", case.id);
            played += 1;
        }
        assert_eq!(played, 120);
    }
}
