//! What opens a registry: from the configuration, else from Docker's own file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use reqwest::Url;
use serde::Deserialize;
use types::Secret;

use super::address::Policy;

/// Docker's file is a list of names; far beyond any real one.
const MOST: u64 = 1 << 20;
/// What Docker Hub is called there.
const HUB_KEYS: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];

#[derive(Clone, Default)]
pub(super) enum Credentials {
    #[default]
    None,
    Basic {
        user: String,
        password: Secret,
    },
    /// Exchanged for a token at the registry's own issuer.
    Identity(Secret),
    /// Sent as it is.
    Bearer(Secret),
}

#[derive(Deserialize)]
struct DockerFile {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    auth: String,
    username: String,
    #[serde(deserialize_with = "secret")]
    password: Secret,
    #[serde(deserialize_with = "secret")]
    identitytoken: Secret,
    #[serde(deserialize_with = "secret")]
    registrytoken: Secret,
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

/// Finds what opens the registry at `base`. A file that can't be read is as good as none, and the
/// log says so.
pub(super) fn find(policy: &Policy, base: &Url, docker: Option<&Path>) -> Credentials {
    if let Some(listed) = policy.listed(base) {
        if !listed.token.is_empty() {
            return Credentials::Bearer(listed.token.clone());
        }
        if !listed.username.is_empty() {
            let (user, password) = (listed.username.clone(), listed.password.clone());
            return Credentials::Basic { user, password };
        }
    }
    let Some(path) = docker else { return Credentials::None };
    match read(path) {
        Ok(Some(file)) => in_file(file, base),
        Ok(None) => Credentials::None,
        Err(error) => {
            tracing::warn!(%error, "Docker's file of credentials can't be read");
            Credentials::None
        }
    }
}

fn read(path: &Path) -> std::io::Result<Option<DockerFile>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    // What serde says could repeat a secret.
    serde_json::from_slice(&bytes).map(Some).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

fn in_file(file: DockerFile, base: &Url) -> Credentials {
    let host = base.host_str().unwrap_or_default();
    let with_port = base.port().map(|port| format!("{host}:{port}"));
    let wanted = with_port.as_deref().unwrap_or(host);
    let is_hub = HUB_KEYS.contains(&host);
    let found = file.auths.into_iter().find(|(key, _)| {
        let key = key.split_once("://").map_or(key.as_str(), |(_, rest)| rest);
        let key = key.split('/').next().unwrap_or_default();
        key.eq_ignore_ascii_case(wanted) || (is_hub && HUB_KEYS.contains(&key))
    });
    let Some((_, auth)) = found else { return Credentials::None };
    if !auth.registrytoken.is_empty() {
        return Credentials::Bearer(auth.registrytoken);
    }
    if !auth.identitytoken.is_empty() {
        return Credentials::Identity(auth.identitytoken);
    }
    let decoded = data_encoding::BASE64.decode(auth.auth.as_bytes()).ok();
    let pair = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    match pair {
        Some((user, password)) => {
            Credentials::Basic { user: user.to_owned(), password: Secret::new(password) }
        }
        None if !auth.username.is_empty() => {
            Credentials::Basic { user: auth.username, password: auth.password }
        }
        None => {
            if file.creds_store.is_some() {
                tracing::info!("Docker keeps its credentials in a helper, which is not asked");
            }
            Credentials::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str, base: &str) -> String {
        let file: DockerFile = serde_json::from_str(text).unwrap();
        match in_file(file, &Url::parse(base).unwrap()) {
            Credentials::None => "none".into(),
            Credentials::Basic { user, password } => format!("{user}/{}", password.reveal()),
            Credentials::Identity(token) => format!("identity {}", token.reveal()),
            Credentials::Bearer(token) => format!("bearer {}", token.reveal()),
        }
    }

    #[test]
    fn dockers_file_is_understood() {
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "Ym9iOmE6Yg=="},
            "localhost:5000": {"auth": "eDp5"}, "id.example": {"identitytoken": "t"},
            "empty.example": {}}, "credsStore": "desktop"}"#;
        assert_eq!(look(text, "https://registry-1.docker.io/"), "bob/a:b");
        assert_eq!(look(text, "http://localhost:5000/"), "x/y");
        assert_eq!(look(text, "http://localhost:5001/"), "none");
        assert_eq!(look(text, "https://id.example/"), "identity t");
        assert_eq!(look(text, "https://empty.example/"), "none");
        assert_eq!(look("{}", "https://a.example/"), "none");
    }
}
