//! Logging in at a registry: from its challenge to what goes into `Authorization` (distribution: token authentication).

use std::fmt;
use std::time::Duration;

use http_auth::parser::ChallengeParser;
use manifests::reference::Reference;
use manifests::workload::RegistryAuth;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::credentials::{self, Credential};
use super::problem;
use super::retry::{self, Failure};
use crate::ImageError;

/// What one pull knows of logging in. Credentials are looked for only when a registry asks.
pub(crate) struct Login {
    image: Reference,
    http: reqwest::Client,
    plain: bool,
    auth: Vec<RegistryAuth>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Goes into `Authorization`.
    header: Option<HeaderValue>,
    /// It has been accepted before: when it is refused now, it has expired.
    worked: bool,
    challenge: Option<Challenge>,
    /// To be tried in turn; `None` before anybody asked.
    candidates: Option<Vec<Credential>>,
    /// The candidate to try next.
    next: usize,
}

/// How a registry wants to be logged in to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token, to be had elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// What the token is for.
        service: Option<String>,
    },
}

impl Challenge {
    /// The best of what the registry offers.
    pub(crate) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for challenge in headers
            .into_iter()
            .flat_map(|header| ChallengeParser::new(header).map_while(Result::ok))
        {
            let parameter = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                let service = parameter("service");
                return Some(Self::Bearer { realm, service });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

/// Without what it logs in with.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.image.registry)
    }
}

impl Login {
    pub(crate) fn new(image: Reference, http: reqwest::Client, plain: bool, auth: Vec<RegistryAuth>) -> Self {
        Self {
            image,
            http,
            plain,
            auth,
            state: Mutex::default(),
        }
    }

    /// What to send.
    pub(crate) async fn header(&self) -> Option<HeaderValue> {
        self.state.lock().await.header.clone()
    }

    /// A request with this header was accepted.
    pub(crate) async fn accepted(&self, header: Option<&HeaderValue>) {
        let mut state = self.state.lock().await;
        if state.header.as_ref() == header {
            state.worked = true;
        }
    }

    /// A request with `header` was refused: finds another one. Ends, since each candidate is tried once, and once more
    /// when it has expired.
    pub(crate) async fn refused(
        &self,
        header: Option<&HeaderValue>,
        challenge: Option<Challenge>,
        said: String,
    ) -> Result<(), ImageError> {
        let mut state = self.state.lock().await;
        if state.header.as_ref() != header {
            // Another request of this pull has found one meanwhile.
            return Ok(());
        }
        if challenge.is_some() {
            state.challenge = challenge;
        }
        let Some(challenge) = state.challenge.clone() else {
            return Err(self.unauthorized(said));
        };
        if state.candidates.is_none() {
            let found = credentials::candidates(&self.image, &self.auth).await;
            state.candidates = Some(if found.is_empty() {
                vec![Credential::Nobody]
            } else {
                found
            });
        }
        if std::mem::take(&mut state.worked) && header.is_some() {
            state.next = state.next.saturating_sub(1);
        }
        let mut said = said;
        loop {
            let Some(candidate) = state.candidates.as_deref().and_then(|all| all.get(state.next)).cloned() else {
                let all = state.candidates.as_deref().unwrap_or_default();
                return Err(self.unauthorized(in_words(all, &self.image.registry, &said)));
            };
            state.next += 1;
            match self.authorize(&challenge, &candidate).await? {
                Ok(header) => {
                    state.header = Some(header);
                    return Ok(());
                }
                Err(reason) => said = reason,
            }
        }
    }

    fn unauthorized(&self, reason: String) -> ImageError {
        ImageError::Unauthorized {
            registry: self.image.registry.clone(),
            image: self.image.to_string(),
            reason,
        }
    }

    /// The header that a credential makes of a challenge, or why not.
    async fn authorize(
        &self,
        challenge: &Challenge,
        credential: &Credential,
    ) -> Result<Result<HeaderValue, String>, ImageError> {
        match (challenge, credential) {
            (Challenge::Basic, Credential::Password { username, password }) => {
                // The client makes the header; the request is not sent.
                let request = self
                    .http
                    .get("https://localhost/")
                    .basic_auth(username, Some(password))
                    .build();
                let header = request
                    .ok()
                    .and_then(|request| request.headers().get(AUTHORIZATION).cloned());
                Ok(header.ok_or_else(|| "the user name or password has characters that cannot be sent".to_owned()))
            }
            (Challenge::Basic, Credential::Token(_)) => Ok(Err(
                "it wants a password, and the stored credential is an identity token".to_owned(),
            )),
            (Challenge::Basic, Credential::Nobody) => Ok(Err("it wants a user name and a password".to_owned())),
            (Challenge::Bearer { realm, service }, credential) => {
                self.token(realm, service.as_deref(), credential).await
            }
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        credential: &Credential,
    ) -> Result<Result<HeaderValue, String>, ImageError> {
        let scope = format!("repository:{}:pull", self.image.repository);
        let query: Vec<(&str, &str)> = service
            .map(|it| ("service", it))
            .into_iter()
            .chain([("scope", scope.as_str())])
            .collect();
        let build = || match credential {
            Credential::Nobody => self.http.get(realm).query(&query),
            Credential::Password { username, password } => {
                self.http.get(realm).query(&query).basic_auth(username, Some(password))
            }
            Credential::Token(token) => {
                // OAuth 2, as registries that give out identity tokens want it.
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "knarr"),
                    ("refresh_token", token),
                ];
                let form = url_encoded(fields.into_iter().chain(query.iter().copied()));
                let request = self.http.post(realm);
                request
                    .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form)
            }
        };
        let response = retry::send(|| build().timeout(TOKEN_TIMEOUT)).await;
        let mut response = match response {
            Ok(response) => response,
            Err(Failure::Status { status, said, .. })
                if status == StatusCode::UNAUTHORIZED
                    || status == StatusCode::FORBIDDEN
                    || status == StatusCode::BAD_REQUEST =>
            {
                return Ok(Err(said));
            }
            Err(failure) => return Err(problem::of(failure, &self.image, self.plain)),
        };
        let mut body = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| problem::of(Failure::Transport(error), &self.image, self.plain))?
        {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST_TOKEN {
                return Ok(Err("the answer of its token service is too long".to_owned()));
            }
        }
        let token = serde_json::from_slice::<Token>(&body).ok();
        let token = token.and_then(|it| [it.token, it.access_token].into_iter().find(|it| !it.is_empty()));
        let header = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        Ok(header
            .map(|mut header| {
                header.set_sensitive(true);
                header
            })
            .ok_or_else(|| "its token service gives no token".to_owned()))
    }
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

fn url_encoded<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// Why nobody got in, and what to do.
fn in_words(tried: &[Credential], registry: &str, said: &str) -> String {
    let names: Vec<&str> = tried.iter().filter_map(Credential::name).collect();
    if names.is_empty() {
        let login = if registry == "docker.io" {
            String::new()
        } else {
            format!(" {registry}")
        };
        return format!(
            "{said}; it may not exist, or needs a login: name a Secret in imagePullSecrets, or run `docker login{login}`"
        );
    }
    format!("{said}; tried as {}", names.join(", "))
}

/// A token service answers at once or not at all.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TOKEN: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
            })
        };
        let cases: [(&[&str], Option<Challenge>); 8] = [
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
                ],
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (&[r#"bearer Realm="https://x/t""#], bearer("https://x/t", None)),
            (&[r#"Basic realm="Registry Realm""#], Some(Challenge::Basic)),
            (
                &[r#"Basic realm="r", Bearer realm="https://x/t""#],
                bearer("https://x/t", None),
            ),
            (
                &[r#"Basic realm="r""#, r#"Bearer realm="https://x/t""#],
                bearer("https://x/t", None),
            ),
            (&[r#"Bearer service="without realm""#], None),
            (&["Negotiate"], None),
            (&[], None),
        ];
        for (headers, wanted) in cases {
            assert_eq!(Challenge::parse(headers.iter().copied()), wanted, "{headers:?}");
        }
    }
}
