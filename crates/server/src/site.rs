//! Who may ask while no key is configured.
//!
//! Any web page that the user visits can send requests to a loopback port. Without a key, two
//! things tell such a page from the user: its Origin, and, when its name was rebound to our
//! address, the Host it thinks it talks to.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};
use types::{ErrorCode, Fault};

use crate::cors::Cors;

pub(crate) fn guard(
    headers: &HeaderMap,
    uri: &Uri,
    loopback_only: bool,
    cors: &Cors,
) -> Result<(), Fault> {
    let hosts = headers.get_all(HOST).iter().map(|v| v.to_str().ok().map(host_of));
    let mut hosts = hosts.chain(uri.host().map(|h| Some(h.trim_matches(['[', ']']))));
    if loopback_only && !hosts.all(|h| h.is_some_and(is_loopback)) {
        return Err(forbidden("without keys this server answers to loopback names only"));
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let own = headers.get(HOST).and_then(|v| v.to_str().ok()).map(host_of).unwrap_or_default();
    let ours = origin.to_str().is_ok_and(|o| cors.names(o) || same_site(o, own));
    if ours {
        return Ok(());
    }
    Err(forbidden("without keys this server refuses requests from other sites"))
}

fn forbidden(message: &str) -> Fault {
    Fault::new(ErrorCode::Forbidden, message)
}

/// Whether a page of this origin was served by the host that it now talks to.
fn same_site(origin: &str, own: &str) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = host_of(authority);
    host.eq_ignore_ascii_case(own) || (is_loopback(host) && is_loopback(own))
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// `localhost` itself, not a name below it: those are for what runs inside sandboxes.
fn is_loopback(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(host: &str, origin: Option<&str>, loopback_only: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        let cors = Cors::new(&["http://console.example".to_owned()]);
        guard(&headers, &Uri::from_static("/x"), loopback_only, &cors).is_ok()
    }

    #[test]
    fn names_that_are_not_ours_are_refused_on_loopback() {
        for ours in ["localhost", "LocalHost:1", "127.0.0.1:7423", "[::1]:7423", "127.9.9.9"] {
            assert!(passes(ours, None, true), "{ours}");
        }
        for foreign in
            ["evil.example", "localhost.evil.example", "10.0.0.1:7423", "3000-x.localhost"]
        {
            assert!(!passes(foreign, None, true), "{foreign}");
            assert!(passes(foreign, None, false), "{foreign}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        assert!(passes("localhost:7423", Some("http://localhost:3000"), true));
        assert!(passes("localhost:7423", Some("http://127.0.0.1:7423"), true));
        assert!(passes("api.example", Some("https://api.example"), false));
        assert!(passes("api.example", Some("http://console.example"), false));
        for foreign in ["http://evil.example", "null", "http://3000-sb-a.localhost", "http://x@y"] {
            assert!(!passes("localhost:7423", Some(foreign), true), "{foreign}");
        }
    }
}
