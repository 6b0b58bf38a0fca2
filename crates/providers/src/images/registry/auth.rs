//! How a registry asks who we are, and what it is answered.

use reqwest::{Method, Url};
use serde::Deserialize;
use types::{ErrorCode, Fault};

use super::credentials::Credentials;
use super::http::{Call, Http, Trouble};

/// An issuer's answer: a token, and little else.
const TOKEN_BYTES: u64 = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The value of `Authorization` that answers the challenge; `None` if nothing we have does.
pub(super) async fn answer(
    http: &Http,
    challenge: &Challenge,
    credentials: &Credentials,
    scope: &str,
) -> Result<Option<String>, Trouble> {
    match (challenge, credentials) {
        (_, Credentials::Bearer(token)) => Ok(Some(format!("Bearer {}", token.reveal()))),
        (Challenge::Basic, Credentials::Basic { .. }) => Ok(basic(credentials)),
        (Challenge::Basic, Credentials::None | Credentials::Identity(_)) => Ok(None),
        (Challenge::Bearer { realm, service, scope: asked }, _) => {
            let mut url = Url::parse(realm).map_err(|e| {
                Trouble::Final(odd("names no issuer of tokens that can be asked").caused_by(e))
            })?;
            let scope = asked.as_deref().unwrap_or(scope);
            let mut call = Call::get(url.clone());
            let mut pairs = vec![("scope", scope)];
            pairs.extend(service.as_deref().map(|service| ("service", service)));
            if let Credentials::Identity(token) = credentials {
                pairs.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "stacyvm"),
                    ("refresh_token", token.reveal()),
                ]);
                let form = Url::parse_with_params("form:", &pairs).ok();
                let form = form.as_ref().and_then(Url::query).unwrap_or_default().to_owned();
                (call.method, call.form) = (Method::POST, Some(form));
            } else {
                url.query_pairs_mut().extend_pairs(&pairs);
                (call.url, call.authorization) = (url, basic(credentials));
            }
            let response = http.send(call).await?;
            if !response.status().is_success() {
                return match response.status().as_u16() {
                    429 | 500.. => Err(Trouble::again(odd("issues no token at the moment"))),
                    _ => Ok(None),
                };
            }
            let body = http.body(response, TOKEN_BYTES).await?;
            let token: Token = serde_json::from_slice(&body)
                .map_err(|_| Trouble::Final(odd("issues a token that can't be read")))?;
            let token = if token.token.is_empty() { token.access_token } else { token.token };
            Ok((!token.is_empty()).then(|| format!("Bearer {token}")))
        }
    }
}

fn basic(credentials: &Credentials) -> Option<String> {
    let Credentials::Basic { user, password } = credentials else { return None };
    let pair = format!("{user}:{}", password.reveal());
    Some(format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes())))
}

fn odd(what: &str) -> Fault {
    Fault::new(ErrorCode::Unavailable, format!("the registry {what}"))
}

/// Reads `WWW-Authenticate`. Of several challenges a bearer's is taken before a basic one.
pub(super) fn challenge<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for value in values {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            let mut realm = None;
            let (mut service, mut scope) = (None, None);
            for (key, value) in parameters(rest) {
                match key.to_ascii_lowercase().as_str() {
                    "realm" => realm = Some(value),
                    "service" => service = Some(value),
                    "scope" => scope = Some(value),
                    _ => {}
                }
            }
            return Some(Challenge::Bearer { realm: realm?, service, scope });
        }
    }
    basic
}

/// `key="value", key=value`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([',', ' ']).to_owned();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        out.push((key, value.trim().to_owned()));
        rest = left;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let read = |text: &'static str| challenge([text].into_iter());
        let bearer =
            r#"Bearer realm="https://a/token",service="b", scope="repository:c:pull,push""#;
        assert_eq!(
            read(bearer),
            Some(Challenge::Bearer {
                realm: "https://a/token".into(),
                service: Some("b".into()),
                scope: Some("repository:c:pull,push".into()),
            })
        );
        assert_eq!(read(r#"basic realm="x""#), Some(Challenge::Basic));
        for odd in ["", "Bearer", "Bearer realm", "Digest a=b", "Bearer \"=\"", "Bearer ===="] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
