//! `Idempotency-Key`: what makes a repeated request find its first answer.
//!
//! Only digests go on from here. A key is its caller's own: the same word of another role, tenant or
//! user is another key.

use control::{Context, RepeatKey};
use data_encoding::HEXLOWER;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use types::Fault;

use crate::auth::{Caller, Role};

const HEADER: &str = "idempotency-key";
const LONGEST: usize = 255;

/// The key of a request with that body, if it has one.
pub(crate) fn key(
    headers: &HeaderMap,
    caller: &Caller,
    context: &Context,
    body: &[u8],
) -> Result<Option<RepeatKey>, Fault> {
    let mut given = headers.get_all(HEADER).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let text = value.as_bytes();
    let printable = text.iter().all(|b| (b' '..=b'~').contains(b));
    if text.is_empty() || text.len() > LONGEST || !printable || given.next().is_some() {
        let words = format!("an Idempotency-Key has 1 to {LONGEST} printable ASCII characters");
        return Err(Fault::bad_request(words));
    }
    let role = match caller.role {
        Role::Anonymous => "anonymous",
        Role::Api => "api",
        Role::Admin => "admin",
    };
    let tenant = context.tenant.as_ref().map_or("", |t| t.as_str());
    let user = context.owner.as_ref().map_or("", |o| o.as_str());
    let mut digest = Sha256::new();
    for part in [role.as_bytes(), tenant.as_bytes(), user.as_bytes(), text] {
        // The lengths keep one part from passing for the end of another.
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    Ok(Some(RepeatKey {
        key: HEXLOWER.encode(&digest.finalize()),
        request: HEXLOWER.encode(&Sha256::digest(body)),
    }))
}

#[cfg(test)]
mod tests {
    use types::{OwnerId, TenantId};

    use super::*;

    fn keyed(word: &str, role: Role, tenant: &str, user: &str, body: &str) -> RepeatKey {
        let tenant = TenantId::parse(tenant).ok();
        let caller = Caller { role, tenant: tenant.clone() };
        let context = Context { tenant, owner: OwnerId::parse(user).ok() };
        let headers = [(HEADER.parse().unwrap(), word.parse().unwrap())].into_iter().collect();
        key(&headers, &caller, &context, body.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_key_is_its_callers_own() {
        let first = keyed("k", Role::Api, "t", "u", "{}");
        assert_eq!(keyed("k", Role::Api, "t", "u", "{}"), first);
        for other in [
            keyed("K", Role::Api, "t", "u", "{}"),
            keyed("k", Role::Admin, "t", "u", "{}"),
            keyed("k", Role::Api, "tu", "", "{}"),
            keyed("k", Role::Api, "", "tu", "{}"),
            keyed("uk", Role::Api, "t", "", "{}"),
        ] {
            assert_ne!(other.key, first.key);
            assert_eq!(other.request, first.request);
        }
        let other = keyed("k", Role::Api, "t", "u", "{ }");
        assert!(other.key == first.key && other.request != first.request);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let caller = Caller { role: Role::Anonymous, tenant: None };
        let context = Context::default();
        let longest = "x".repeat(LONGEST);
        let one = |word: &str| -> HeaderMap {
            [(HEADER.parse().unwrap(), word.parse().unwrap())].into_iter().collect()
        };
        assert!(key(&HeaderMap::new(), &caller, &context, b"").unwrap().is_none());
        assert!(key(&one(&longest), &caller, &context, b"").unwrap().is_some());
        let mut two = one("a");
        two.append(HEADER, "b".parse().unwrap());
        for bad in [one(""), one(&format!("{longest}x")), one("k\u{e9}"), two] {
            assert!(key(&bad, &caller, &context, b"").is_err(), "{bad:?}");
        }
    }
}
