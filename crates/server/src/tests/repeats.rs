//! Spawns that are repeated: by key, by name.

use testkit::Reply;

use super::house::{ADMIN, API, BOTH, House, open};

async fn spawn(house: &House, headers: &[(&str, &str)], body: &str) -> Reply {
    house.send("POST", "/api/v1/sandboxes", headers, body).await
}

fn id(reply: &Reply) -> String {
    reply.json().unwrap()["id"].as_str().unwrap_or_else(|| panic!("{}", reply.text())).to_owned()
}

#[tokio::test]
async fn bug_50_an_idempotency_key_is_answered_once() {
    let house = open(BOTH).await;
    let with = |key| [("X-API-Key", API), ("Idempotency-Key", key)];
    let first = spawn(&house, &with("a"), "{}").await;
    let again = spawn(&house, &with("a"), "{}").await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json().unwrap(), again.json().unwrap());
    let other = spawn(&house, &with("a"), r#"{"ttl":"5m"}"#).await;
    assert_eq!(
        (other.status, other.json().unwrap()["code"].as_str()),
        (422, Some("UNPROCESSABLE"))
    );
    assert_ne!(id(&spawn(&house, &with("b"), "{}").await), id(&first));
    // Another caller's word is another key.
    for who in [("X-User-ID", "me"), ("X-Tenant-ID", "me"), ("X-Admin-API-Key", ADMIN)] {
        let reply = spawn(&house, &[with("a")[0], with("a")[1], who], "{}").await;
        assert_ne!(id(&reply), id(&first), "{who:?}");
    }
    assert_eq!(spawn(&house, &with(""), "{}").await.status, 400);
    let path = format!("/sandboxes/{}", id(&first));
    assert_eq!(house.ask("DELETE", &path, "").await.status, 200);
    let gone = spawn(&house, &with("a"), "{}").await;
    assert_eq!((gone.status, id(&gone)), (201, id(&first)));
    assert_eq!(gone.json().unwrap()["state"], "destroyed");
}

#[tokio::test]
async fn a_name_is_answered_with_the_one_that_has_it() {
    let house = open(BOTH).await;
    let mine = [("X-API-Key", API), ("X-User-ID", "me")];
    let named = r#"{"name":"box"}"#;
    let first = spawn(&house, &mine, named).await;
    assert_eq!((first.status, first.json().unwrap()["name"].as_str()), (201, Some("box")));
    let again = spawn(&house, &mine, r#"{"name":"box","ttl":"5m"}"#).await;
    assert_eq!((again.status, id(&again)), (200, id(&first)));
    let theirs = spawn(&house, &mine[..1], named).await;
    assert_eq!(theirs.status, 201);
    assert_ne!(id(&theirs), id(&first));
    assert_eq!(house.ask("DELETE", &format!("/sandboxes/{}", id(&first)), "").await.status, 200);
    let next = spawn(&house, &mine, named).await;
    assert_eq!(next.status, 201);
    assert_ne!(id(&next), id(&first));
    for bad in ["a b", "a/b", "\u{7}"] {
        let body = serde_json::json!({ "name": bad }).to_string();
        assert_eq!(spawn(&house, &mine, &body).await.status, 400, "{bad:?}");
    }
    // An empty one is none.
    let none = spawn(&house, &mine, r#"{"name":""}"#).await;
    assert!(none.status == 201 && none.json().unwrap().get("name").is_none());
}
