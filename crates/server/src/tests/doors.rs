//! Who may enter where.

use super::house::{ADMIN, API, BOTH, House, Keys, OPEN, open};
use crate::auth::Scope;
use crate::table::{Kind, ROUTES, Row};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind4 {
    Nobody,
    Stranger,
    Api,
    Admin,
}

use Kind4::{Admin, Api, Nobody, Stranger};

fn headers(caller: Kind4) -> Vec<(&'static str, &'static str)> {
    match caller {
        Nobody => vec![],
        Stranger => vec![("X-API-Key", "wrong"), ("X-Admin-API-Key", "wrong")],
        Api => vec![("X-API-Key", API)],
        Admin => vec![("X-Admin-API-Key", ADMIN)],
    }
}

/// What the door has to say: the refusal, or `None` where the handler answers.
fn refusal(keys: Keys, caller: Kind4, row: &Row) -> Option<u16> {
    if row.scope == Scope::None || !(keys.api || keys.admin) {
        return None;
    }
    let api_admits = keys.api;
    let admin_admits = keys.admin;
    match caller {
        Api if api_admits => {
            let promoted = keys.fallback && !keys.admin;
            (row.scope == Scope::Admin && !promoted).then_some(403)
        }
        Admin if admin_admits => None,
        Nobody | Stranger | Api | Admin => Some(401),
    }
}

/// A path of the row that reaches its handler without doing harm.
fn path(row: &Row) -> String {
    format!("/api/v1{}", row.path.replace("{id}", "sb-none").replace("{name}", "none"))
}

async fn walk(house: &House, keys: Keys) {
    for row in ROUTES {
        for caller in [Nobody, Stranger, Api, Admin] {
            let reply = house.send(row.method, &path(row), &headers(caller), "nonsense").await;
            let place =
                format!("{keys:?}: {caller:?} {} {}: {}", row.method, row.path, reply.text());
            match refusal(keys, caller, row) {
                Some(status) => assert_eq!(reply.status, status, "{place}"),
                None => {
                    assert!(!matches!(reply.status, 401 | 403 | 405), "{place}");
                    assert!(!reply.text().contains("no such route"), "{place}");
                }
            }
            assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{place}");
            assert!(reply.header("x-request-id").is_some(), "{place}");
        }
    }
}

#[tokio::test]
async fn every_route_for_every_caller() {
    let strict = Keys { api: true, admin: false, fallback: false };
    let fallback = Keys { fallback: true, ..strict };
    let admin_only = Keys { api: false, admin: true, fallback: true };
    for keys in [BOTH, OPEN, strict, fallback, admin_only] {
        walk(&open(keys).await, keys).await;
    }
}

#[tokio::test]
async fn bug_8_preflights_need_no_key() {
    let house = open(BOTH).await;
    for row in ROUTES {
        let asked = [("Origin", "http://a.example"), ("Access-Control-Request-Method", row.method)];
        let reply = house.send("OPTIONS", &path(row), &asked, "").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, ""), "{}", row.path);
        let methods = reply.header("access-control-allow-methods").unwrap();
        assert!(methods.contains(row.method) && methods.contains("PATCH"), "{methods}");
        assert!(reply.header("access-control-expose-headers").unwrap().contains("X-Request-ID"));
    }
}

#[tokio::test]
async fn bug_46_probes_need_no_key() {
    let house = open(BOTH).await;
    for probe in ["health", "live", "ready"] {
        for caller in [Nobody, Stranger] {
            let path = format!("/api/v1/{probe}");
            let reply = house.send("GET", &path, &headers(caller), "").await;
            assert_eq!(reply.status, 200, "{probe}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn the_door_comes_before_the_map() {
    let house = open(BOTH).await;
    let cases = [
        (Nobody, "/api/v1/nothing", 401),
        (Api, "/api/v1/nothing", 404),
        (Nobody, "/api/v1/admin/nothing", 401),
        (Api, "/api/v1/admin/nothing", 403),
        (Api, "/api/v1/admin", 403),
        (Admin, "/api/v1/admin/nothing", 404),
        (Api, "/api/v1/%61dmin/workers", 404),
        (Api, "/api/v1//admin/workers", 404),
        (Nobody, "/nothing", 404),
        (Nobody, "/", 404),
    ];
    for (caller, path, status) in cases {
        let reply = house.send("GET", path, &headers(caller), "").await;
        assert_eq!(reply.status, status, "{caller:?} {path}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"), "{path}");
    }
}

#[tokio::test]
async fn roots_take_a_slash_and_actions_do_not() {
    let house = open(BOTH).await;
    for row in ROUTES {
        let reply = house.send(row.method, &format!("{}/", path(row)), &headers(Admin), "x").await;
        // `admission/` and the like are then read as an id or a name, which take other methods.
        let words = ["/admission", "/test", "/images/pull", "/images/prune"];
        let shadowed = words.iter().any(|word| row.path.ends_with(word));
        let missing = reply.text().contains("no such route");
        match row.kind {
            Kind::Root => assert!(!missing && reply.status != 405, "{}", row.path),
            Kind::Action if shadowed => assert_eq!(reply.status, 405, "{}", row.path),
            Kind::Action => assert!(missing, "{}", row.path),
        }
    }
}

#[tokio::test]
async fn wrong_methods_are_told_the_right_ones() {
    let house = open(BOTH).await;
    let reply = house.ask("PUT", "/sandboxes", "").await;
    assert_eq!(reply.status, 405);
    assert_eq!(reply.json().unwrap()["code"], "METHOD_NOT_ALLOWED");
    let allow = reply.header("allow").unwrap();
    for method in ["GET", "POST", "DELETE"] {
        assert!(allow.split(',').any(|m| m.trim() == method), "{allow}");
    }
}

#[tokio::test]
async fn without_keys_other_sites_are_refused() {
    let house = open(OPEN).await;
    let spawn = |headers: Vec<(&'static str, &'static str)>| {
        let house = &house;
        async move { house.send("POST", "/api/v1/sandboxes", &headers, "{}").await.status }
    };
    assert_eq!(spawn(vec![]).await, 201);
    assert_eq!(spawn(vec![("Origin", "http://localhost:3000")]).await, 201);
    assert_eq!(spawn(vec![("Origin", "http://evil.example")]).await, 403);
    assert_eq!(spawn(vec![("Host", "evil.example")]).await, 403);
    assert_eq!(spawn(vec![("Host", "localhost"), ("Origin", "null")]).await, 403);
}
