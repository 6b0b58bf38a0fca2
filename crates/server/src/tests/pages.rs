//! Pages and filters of lists.

use super::house::{BOTH, House, open};

async fn ids(house: &House, path: &str) -> (Vec<String>, Option<String>) {
    let reply = house.ask("GET", path, "").await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    let all = reply.json().unwrap();
    let ids = all.as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned());
    (ids.collect(), reply.header("x-next-cursor").map(str::to_owned))
}

#[tokio::test]
async fn bug_50_lists_come_in_pages_by_what_is_asked_for() {
    let house = open(BOTH).await;
    let mut made = Vec::new();
    for n in 0..5 {
        let body = format!(r#"{{"metadata":{{"n":"{}","all":"yes"}}}}"#, n % 2);
        let reply = house.ask("POST", "/sandboxes", &body).await;
        made.insert(0, reply.json().unwrap()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids(&house, "/sandboxes").await, (made.clone(), None));
    for (limit, filter) in [(1, ""), (2, "&metadata.all=yes"), (5, "&state=running"), (9, "")] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/sandboxes?limit={limit}&cursor={cursor}{filter}");
            let (page, next) = ids(&house, &path).await;
            assert!(page.len() <= limit);
            seen.extend(page);
            let Some(next) = next else { break };
            cursor = next;
        }
        assert_eq!(seen, made, "by {limit}");
    }
    let odd = ids(&house, "/sandboxes?metadata.n=1&metadata.all=yes&provider=mock").await.0;
    assert_eq!(odd, [made[1].clone(), made[3].clone()]);
    for none in ["metadata.n=2", "metadata.none=1", "provider=native", "state=error"] {
        assert!(ids(&house, &format!("/sandboxes?{none}")).await.0.is_empty(), "{none}");
    }
    for bad in ["limit=0", "limit=1001", "cursor=eA", "cursor=!", "state=gone"] {
        let reply = house.ask("GET", &format!("/sandboxes?{bad}"), "").await;
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text());
    }
    let pruned = house.ask("DELETE", "/sandboxes?state=running&metadata.n=1", "").await;
    assert_eq!(pruned.json().unwrap()["pruned"], 2);
    let nothing = house.ask("DELETE", "/sandboxes", "").await;
    assert_eq!(nothing.json().unwrap()["pruned"], 0);
    let ended = ids(&house, "/sandboxes?state=destroyed").await.0;
    assert_eq!(ended, odd);
    assert_eq!(ids(&house, "/workers?limit=1").await, (vec!["w@1".to_owned()], None));
}
