//! Whether another try is worth it, and when. PURE but for [`send`], the shell around it.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, Response, StatusCode};

/// Tries of one request, the first included.
const TRIES: u32 = 5;
/// Wait after the first failure; doubled with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// A registry that wants us to wait longer than this is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Of what a registry says with an error.
const MOST_OF_AN_ERROR: usize = 64 << 10;

/// Why a request has no useful answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No answer, or a broken one.
    Transport(reqwest::Error),
    /// An answer that says no.
    Status {
        /// The status.
        status: StatusCode,
        /// What the registry said, in words.
        said: String,
        /// Its `WWW-Authenticate` headers.
        challenges: Vec<String>,
        /// The host that answered: after redirects, not always the registry.
        host: Option<String>,
    },
}

/// How long to wait after `tries` failures; `None` to give up. `draw` from 0 to 1 spreads those who failed together.
pub(crate) fn wait_before_next(tries: u32, retry_after: Option<Duration>, draw: f64) -> Option<Duration> {
    if tries >= TRIES {
        return None;
    }
    match retry_after {
        Some(wanted) => (wanted <= LONGEST_WAIT).then_some(wanted),
        None => Some(
            FIRST_WAIT
                .saturating_mul(1 << (tries.max(1) - 1))
                .mul_f64(0.5 + draw / 2.0),
        ),
    }
}

/// Statuses that another try may change: too many requests, and faults of the server or of what stands before it.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether another try may get an answer soon: a certificate that is not trusted stays so, and who did not take a
/// connection for ten seconds has had time enough.
fn is_passing_fault(error: &reqwest::Error) -> bool {
    if error.is_connect() && error.is_timeout() {
        return false;
    }
    let words = super::problem::chain(error);
    !error.is_builder() && !error.is_redirect() && !words.contains("certificate") && !words.contains("corrupt message")
}

/// Sends until there is an answer that another try would not change.
pub(crate) async fn send(build: impl Fn() -> RequestBuilder) -> Result<Response, Failure> {
    let mut tries = 0;
    loop {
        let result = build().send().await;
        tries += 1;
        let (failure, retry_after) = match result {
            Ok(response) if response.status().is_success() => return Ok(response),
            Ok(response) => {
                let (status, retry_after) = (response.status(), retry_after(&response));
                let failure = refused(response).await;
                if !is_passing(status) {
                    return Err(failure);
                }
                (failure, retry_after)
            }
            Err(error) if is_passing_fault(&error) => (Failure::Transport(error.without_url()), None),
            Err(error) => return Err(Failure::Transport(error.without_url())),
        };
        let Some(wait) = wait_before_next(tries, retry_after, rand::random()) else {
            return Err(failure);
        };
        tracing::debug!(?failure, ?wait, "trying again");
        tokio::time::sleep(wait).await;
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads what a registry says with an error, but no more than it can mean.
async fn refused(mut response: Response) -> Failure {
    let status = response.status();
    let challenges = response.headers().get_all(reqwest::header::WWW_AUTHENTICATE);
    let challenges = challenges
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    let host = response.url().host_str().map(str::to_owned);
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > MOST_OF_AN_ERROR {
            break;
        }
    }
    Failure::Status {
        status,
        said: super::problem::said(status, &body),
        challenges,
        host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let ms = |tries| wait_before_next(tries, None, 1.0).map(|wait| wait.as_millis());
        assert_eq!(
            [ms(1), ms(2), ms(3), ms(4), ms(5)],
            [Some(200), Some(400), Some(800), Some(1600), None]
        );
        assert_eq!(wait_before_next(1, None, 0.0), Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_registry_may_name_the_wait_within_reason() {
        let seconds = |seconds| wait_before_next(1, Some(Duration::from_secs(seconds)), 0.5);
        assert_eq!(seconds(0), Some(Duration::ZERO));
        assert_eq!(seconds(30), Some(Duration::from_secs(30)));
        assert_eq!(seconds(31), None);
    }

    #[test]
    fn only_passing_statuses_are_tried_again() {
        let again: Vec<u16> = (400..600)
            .filter(|code| is_passing(StatusCode::from_u16(*code).unwrap()))
            .collect();
        assert_eq!(again, [408, 429, 500, 502, 503, 504]);
    }
}
