//! Which registries may be asked, and which addresses connected to.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;
use types::{ErrorCode, Fault, Secret};

use super::super::fault::shown;

/// Docker Hub has one name for people and another for programs.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// A registry of the configuration.
#[derive(Clone, Default)]
pub struct Registry {
    /// `*` (any public one), `host`, `host:port`, with `http://` before it where that is meant.
    pub host: String,
    pub username: String,
    pub password: Secret,
    /// A token to be sent as it is, in place of name and password.
    pub token: Secret,
    /// Certificates (PEM) that are trusted beside the machine's own. Empty: none.
    pub ca_file: PathBuf,
}

impl Registry {
    pub fn named(host: impl Into<String>) -> Self {
        Self { host: host.into(), ..Self::default() }
    }

    /// Whether nothing is known of it but its name.
    pub fn is_host_alone(&self) -> bool {
        let keyless = self.username.is_empty() && self.password.is_empty() && self.token.is_empty();
        keyless && self.ca_file.as_os_str().is_empty()
    }
}

/// The configuration's list, parsed.
#[derive(Clone, Default)]
pub(in super::super) struct Policy {
    listed: Vec<Listed>,
    /// Public ones that are not listed, over https.
    any: bool,
}

#[derive(Clone)]
struct Listed {
    http: bool,
    authority: (String, u16),
    registry: Registry,
}

/// How far a connection may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Public,
    /// Private addresses too.
    Listed,
}

impl Policy {
    /// Without entries any public registry may be asked.
    pub(in super::super) fn new(entries: &[Registry]) -> Result<Self, Fault> {
        let mut policy = Self { listed: Vec::new(), any: entries.is_empty() };
        for registry in entries {
            if registry.host == "*" {
                policy.any = true;
                continue;
            }
            let wrong = || {
                let host = shown(registry.host.as_bytes());
                Fault::bad_request(format!("images.registries: '{host}' is not a registry"))
            };
            let http = registry.host.starts_with("http://");
            let whole = if registry.host.contains("://") {
                registry.host.clone()
            } else {
                format!("https://{}", registry.host)
            };
            let url = Url::parse(&whole).map_err(|e| wrong().caused_by(e))?;
            let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty();
            if !plain || url.password().is_some() || !matches!(url.scheme(), "http" | "https") {
                return Err(wrong());
            }
            let authority = authority(&url).ok_or_else(wrong)?;
            let authority = match authority {
                (host, port) if host == HUB || host == "index.docker.io" => (HUB_HOST.into(), port),
                other => other,
            };
            policy.listed.push(Listed { http, authority, registry: registry.clone() });
        }
        Ok(policy)
    }

    /// The address of the registry that a name begins with; without one, Docker Hub.
    pub(super) fn base(&self, registry: Option<&str>) -> Result<Url, Fault> {
        let host = registry.unwrap_or(HUB_HOST);
        let unknown = || Fault::bad_request("there is no such registry");
        for scheme in ["https", "http"] {
            let url = Url::parse(&format!("{scheme}://{host}/"));
            let url = url.map_err(|e| unknown().caused_by(e))?;
            let at = authority(&url).ok_or_else(unknown)?;
            let found =
                self.listed.iter().find(|l| l.authority == at && l.http == (scheme == "http"));
            if found.is_some() {
                return Ok(url);
            }
        }
        if !self.any {
            return Err(refused(host, "images.registries does not list it"));
        }
        Url::parse(&format!("https://{host}/")).map_err(|e| unknown().caused_by(e))
    }

    /// What the configuration knows of the registry at this address.
    pub(super) fn listed(&self, url: &Url) -> Option<&Registry> {
        let at = authority(url)?;
        self.listed.iter().find(|l| l.authority == at).map(|l| &l.registry)
    }

    /// Whether this address may be asked, wherever it came from.
    pub(super) fn check(&self, url: &Url) -> Result<Reach, Fault> {
        let host = url.host_str().unwrap_or_default();
        let Some(at) = authority(url) else { return Err(refused(host, "it has no address")) };
        let listed = self.listed.iter().filter(|l| l.authority == at);
        let reach = if listed.clone().next().is_some() { Reach::Listed } else { Reach::Public };
        match url.scheme() {
            "https" => {}
            "http" if listed.clone().any(|l| l.http) => {}
            _ => return Err(refused(host, "it is not https, and not listed with http://")),
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(ip) if !may_reach(ip, reach) => Err(refused(host, INSIDE)),
            _ => Ok(reach),
        }
    }
}

pub(super) const INSIDE: &str =
    "its address is not a public one, and images.registries does not list it";

pub(super) fn refused(host: &str, why: &str) -> Fault {
    let host = shown(host.as_bytes());
    Fault::new(ErrorCode::Forbidden, format!("'{host}' is not asked for images: {why}"))
}

fn authority(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.trim_end_matches('.').to_ascii_lowercase(), url.port_or_known_default()?))
}

/// Whether an address may be connected to.
pub(super) fn may_reach(ip: IpAddr, reach: Reach) -> bool {
    match kind(ip) {
        Kind::Public => true,
        Kind::Private => reach == Reach::Listed,
        Kind::Never => false,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    /// Link-local (where clouds keep their keys), and what is no host's.
    Never,
}

fn kind(ip: IpAddr) -> Kind {
    let v4 = match ip {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => match hidden(v6) {
            Some(v4) => v4,
            None => return kind_v6(v6),
        },
    };
    let [a, b, c, _] = v4.octets();
    match (a, b, c) {
        (0, ..) | (169, 254, _) | (224.., ..) => Kind::Never,
        (10 | 127, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Kind::Private,
        (192, 0, 0 | 2) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_v6(ip: std::net::Ipv6Addr) -> Kind {
    let first = ip.segments()[0];
    if ip.is_unspecified() || first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00 {
        return Kind::Never;
    }
    // Global unicast is 2000::/3; of it Teredo and documentation lead elsewhere.
    let public = first & 0xe000 == 0x2000 && !matches!(ip.segments(), [0x2001, 0 | 0xdb8, ..]);
    if public { Kind::Public } else { Kind::Private }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64, 6to4.
fn hidden(ip: std::net::Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        std::net::Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(hosts: &[&str]) -> Policy {
        let entries: Vec<Registry> = hosts.iter().map(|h| Registry::named(*h)).collect();
        Policy::new(&entries).unwrap()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn addresses_inside_are_known() {
        for (ip, kind_of) in [
            ("8.8.8.8", Kind::Public),
            ("2606:4700::1", Kind::Public),
            ("127.0.0.1", Kind::Private),
            ("10.1.2.3", Kind::Private),
            ("172.31.0.1", Kind::Private),
            ("172.32.0.1", Kind::Public),
            ("192.168.1.1", Kind::Private),
            ("100.64.0.1", Kind::Private),
            ("169.254.169.254", Kind::Never),
            ("0.0.0.0", Kind::Never),
            ("224.0.0.1", Kind::Never),
            ("255.255.255.255", Kind::Never),
            ("::1", Kind::Private),
            ("::", Kind::Never),
            ("fe80::1", Kind::Never),
            ("fd00:ec2::254", Kind::Private),
            ("::ffff:169.254.169.254", Kind::Never),
            ("::ffff:10.0.0.1", Kind::Private),
            ("64:ff9b::a9fe:a9fe", Kind::Never),
            ("2002:a00:1::", Kind::Private),
            ("2001::1", Kind::Private),
        ] {
            assert_eq!(kind(ip.parse().unwrap()), kind_of, "{ip}");
        }
    }

    #[test]
    fn the_list_says_where() {
        let open = policy(&[]);
        assert_eq!(open.base(None).unwrap().as_str(), "https://registry-1.docker.io/");
        assert_eq!(open.base(Some("ghcr.io")).unwrap().as_str(), "https://ghcr.io/");
        let some = policy(&["docker.io", "http://localhost:5000"]);
        assert!(some.base(None).is_ok() && some.base(Some("ghcr.io")).is_err());
        assert_eq!(some.base(Some("localhost:5000")).unwrap().as_str(), "http://localhost:5000/");
        assert!(policy(&["*", "a.b"]).base(Some("ghcr.io")).is_ok());
        for bad in ["", "a/b", "ftp://a", "http://u:p@a"] {
            assert!(Policy::new(&[Registry::named(bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_url_is_checked() {
        let some = policy(&["*", "http://127.0.0.1:5000", "10.0.0.1"]);
        assert_eq!(some.check(&url("https://cdn.example/x")).unwrap(), Reach::Public);
        assert_eq!(some.check(&url("http://127.0.0.1:5000/x")).unwrap(), Reach::Listed);
        assert_eq!(some.check(&url("https://10.0.0.1/")).unwrap(), Reach::Listed);
        for bad in [
            "http://cdn.example/",
            "http://127.0.0.1:22/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://[::1]/",
            "https://169.254.169.254/latest",
            "http://10.0.0.1/",
            "file:///etc/passwd",
        ] {
            assert!(some.check(&url(bad)).is_err(), "{bad}");
        }
        let link_local = policy(&["169.254.169.254"]);
        assert!(link_local.check(&url("https://169.254.169.254/")).is_err(), "not even listed");
    }
}
