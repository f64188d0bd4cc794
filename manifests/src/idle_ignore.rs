//! `knarr.dev/idle-ignore`: requests that are answered without the app, as if nobody had asked.
//!
//! ```text
//! /healthz, /status/* -> 204, user-agent: UptimeRobot        paths, and words in the User-Agent, each with a status
//! ```
//!
//! For uptime monitors: they come every few seconds for ever, and would keep any app awake. `*` stands for any text. A path
//! is compared as a whole and without its query; a user agent matches anywhere in the header, in any case. PURE.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Which requests, and what they get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdleIgnore {
    text: Arc<str>,
    rules: Arc<[Rule]>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    on: On,
    /// Lower case for a user agent.
    pattern: Box<str>,
    status: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum On {
    Path,
    UserAgent,
}

/// The text names no requests: what is wrong, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid value: {text}: {fault}")]
pub struct NotARequest {
    text: String,
    fault: String,
}

impl IdleIgnore {
    /// The status for a request with this path (without query) and `User-Agent`; `None` when it is the app's to answer.
    /// Of a user agent only the first KiB is looked at.
    pub fn answer(&self, path: &str, user_agent: Option<&[u8]>) -> Option<u16> {
        let lower = || user_agent.map(|text| text[..text.len().min(LONGEST_AGENT)].to_ascii_lowercase());
        let mut agent = None;
        let found = self.rules.iter().find(|rule| match rule.on {
            On::Path => matches(rule.pattern.as_bytes(), path.as_bytes()),
            On::UserAgent => {
                let agent = agent.get_or_insert_with(lower);
                agent
                    .as_ref()
                    .is_some_and(|agent| matches(rule.pattern.as_bytes(), agent))
            }
        });
        found.map(|rule| rule.status)
    }
}

/// `*` is any text, also none. At most one step back at a time: time is the product of the lengths at worst.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a character does not fit: behind the last `*`, one character of the text further.
    let mut again: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                again = Some((p + 1, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match again {
                Some((star, from)) => {
                    again = Some((star, from + 1));
                    (p, t) = (star, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl fmt::Display for IdleIgnore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for IdleIgnore {
    type Err = NotARequest;

    fn from_str(text: &str) -> Result<Self, NotARequest> {
        let rules = parse(text).map_err(|fault| NotARequest {
            text: text.to_owned(),
            fault,
        })?;
        Ok(Self {
            text: text.trim().into(),
            rules: rules.into(),
        })
    }
}

fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
    let rules = parts.map(parse_rule).collect::<Result<Vec<_>, _>>()?;
    match rules.len() {
        0 => Err("names no request".to_owned()),
        1..=MOST => Ok(rules),
        _ => Err(format!("more than {MOST} rules")),
    }
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let (what, status) = match text.split_once("->") {
        None => (text, DEFAULT_STATUS),
        Some((what, status)) => {
            let status = status.trim();
            let number = status.parse().ok().filter(|status| (200..=599).contains(status));
            let number = number.ok_or_else(|| format!("`{status}` is not a status, 200 to 599"))?;
            (what.trim(), number)
        }
    };
    if what.len() > LONGEST {
        return Err(format!("a rule is longer than {LONGEST} bytes"));
    }
    let prefix = what
        .get(..AGENT.len())
        .filter(|prefix| prefix.eq_ignore_ascii_case(AGENT));
    let (on, pattern) = match prefix {
        Some(_) => {
            let agent = what[AGENT.len()..].trim().to_ascii_lowercase();
            if agent.trim_matches('*').is_empty() {
                return Err(format!("`{what}` would be every client; name one"));
            }
            (On::UserAgent, format!("*{agent}*"))
        }
        None if !what.starts_with('/') => {
            return Err(format!(
                "`{what}` is neither a path, which begins with /, nor `{AGENT} TEXT`"
            ));
        }
        None if what.contains(['?', '#']) || what.contains(char::is_whitespace) => {
            return Err(format!("`{what}` is not a path; queries are not compared"));
        }
        None if what.trim_matches('*') == "/" && what.len() > 1 => {
            return Err(format!("`{what}` would be every request; name some"));
        }
        None => (On::Path, what.to_owned()),
    };
    Ok(Rule {
        on,
        pattern: pattern.into(),
        status,
    })
}

const AGENT: &str = "user-agent:";
/// Nothing is in it, and all is well.
const DEFAULT_STATUS: u16 = 200;
/// Most rules of one revision.
const MOST: usize = 64;
/// Bytes of a rule.
const LONGEST: usize = 256;
const LONGEST_AGENT: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MONITOR: &str = "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)";

    #[test]
    fn paths_and_user_agents() {
        let all = "/healthz, /status/* -> 204, /, /a*b*c\nuser-agent: UptimeRobot/2, User-Agent:curl*/* -> 503";
        let rules: IdleIgnore = all.parse().unwrap();
        for (path, agent, want) in [
            ("/healthz", "", Some(200)),
            ("/healthz/", "", None),
            ("/healthzz", "", None),
            ("/Healthz", "", None),
            ("/", "", Some(200)),
            ("/x", "", None),
            ("/status", "", None),
            ("/status/", "", Some(204)),
            ("/status/a/b", "", Some(204)),
            ("/abc", "", Some(200)),
            ("/aXbYc", "", Some(200)),
            ("/abcbcd", "", None),
            ("/x", MONITOR, Some(200)),
            ("/x", "UPTIMEROBOT/2", Some(200)),
            ("/x", "uptimerobot/3", None),
            ("/x", "curl/8.5.0", Some(503)),
            ("/status/a", "curl/8.5.0", Some(204)),
        ] {
            let agent = Some(agent.as_bytes()).filter(|agent| !agent.is_empty());
            assert_eq!(rules.answer(path, agent), want, "{path} {agent:?}");
        }
        assert_eq!(rules.to_string(), all);
    }

    #[test]
    fn what_names_no_request_says_so() {
        let most = vec!["/a"; MOST + 1].join(",");
        let long = format!("/{}", "a".repeat(LONGEST));
        for (text, fault) in [
            ("", "names no request"),
            (" ,\n", "names no request"),
            (
                "healthz",
                "`healthz` is neither a path, which begins with /, nor `user-agent: TEXT`",
            ),
            ("/a?b", "queries are not compared"),
            ("/a b", "is not a path"),
            ("/*", "`/*` would be every request"),
            ("user-agent:", "would be every client"),
            ("user-agent: *", "would be every client"),
            ("/a -> 99", "`99` is not a status, 200 to 599"),
            ("/a -> ok", "`ok` is not a status"),
            ("/a ->", "`` is not a status"),
            (&most, "more than 64 rules"),
            (&long, "longer than 256 bytes"),
        ] {
            let error = text.parse::<IdleIgnore>().unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }

    /// The plain definition, exponential and obviously right.
    fn slowly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => slowly(rest, text),
            (Some((b'*', rest)), Some((_, shorter))) => slowly(rest, text) || slowly(pattern, shorter),
            (Some((a, rest)), Some((b, shorter))) => a == b && slowly(rest, shorter),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn stars_mean_any_text(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), slowly(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_text_panics(text in "(/|[a-z]{0,3}|\\*|->|[0-9]{0,4}|user-agent:|,|\u{e9}| ){0,10}", path in "/.{0,10}", agent in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(rules) = text.parse::<IdleIgnore>() {
                let answer = rules.answer(&path, Some(&agent));
                prop_assert!(answer.is_none_or(|status| (200..=599).contains(&status)));
            }
        }
    }
}
