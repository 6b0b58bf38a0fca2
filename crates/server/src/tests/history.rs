//! The history of a sandbox: who ran what, when, and how it ended.

use serde_json::Value;

use super::house::{API, BOTH, House, open};

async fn page(house: &House, path: &str) -> (Vec<Value>, Option<String>) {
    let reply = house.ask("GET", path, "").await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    let all = reply.json().unwrap().as_array().unwrap().clone();
    (all, reply.header("x-next-cursor").map(str::to_owned))
}

#[tokio::test]
async fn bug_50_the_history_of_a_sandbox_is_told_in_pages_also_after_its_end() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let exec = format!("/api/v1/sandboxes/{id}/exec");
    let ann = [("X-API-Key", API), ("X-User-ID", "ann")];
    for n in 0..5 {
        let body = format!(
            r#"{{"command":"true","args":["{n}"],"env":{{"TOKEN":"hush"}},"stdin":"hush",
                "workdir":"/srv","stream":{}}}"#,
            n % 2 == 1
        );
        assert_eq!(house.send("POST", &exec, &ann, &body).await.status, 200);
    }
    let execs = format!("/sandboxes/{id}/execs");
    let (all, next) = page(&house, &execs).await;
    assert_eq!((all.len(), next), (5, None), "what was answered is there");
    for (n, record) in all.iter().rev().enumerate() {
        assert_eq!(record["command"], format!("true {n}"));
        let kind = if n % 2 == 1 { "streamed" } else { "captured" };
        assert_eq!((&record["kind"], &record["state"]), (&kind.into(), &"exited".into()));
        assert_eq!((&record["owner_id"], &record["exit_code"]), (&"ann".into(), &0.into()));
        assert_eq!(record["workdir"], "/srv");
        for time in ["created_at", "started_at", "ended_at", "duration"] {
            assert!(record[time].is_string(), "{time}: {record}");
        }
        assert!(!record.to_string().contains("hush"), "{record}");
    }
    let one = format!("{execs}/{}", all[0]["exec_id"].as_str().unwrap());
    assert_eq!(house.ask("GET", &one, "").await.json().unwrap(), all[0]);
    for limit in [1, 2, 5, 9] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let (part, next) =
                page(&house, &format!("{execs}?limit={limit}&cursor={cursor}")).await;
            assert!(part.len() <= limit);
            seen.extend(part);
            let Some(next) = next else { break };
            cursor = next;
        }
        assert_eq!(seen, all, "by {limit}");
    }
    assert!(page(&house, &format!("{execs}?state=running")).await.0.is_empty());
    for bad in ["limit=0", "limit=1001", "cursor=eA", "cursor=!", "state=exited"] {
        assert_eq!(house.ask("GET", &format!("{execs}?{bad}"), "").await.status, 400, "{bad}");
    }
    let ended = house.ask("DELETE", &format!("/sandboxes/{id}"), "").await;
    assert_eq!(ended.status, 200, "{}", ended.text());
    assert_eq!(page(&house, &execs).await.0, all);
}

#[tokio::test]
async fn the_history_is_the_tenants_own() {
    let house = open(BOTH).await;
    let of = |tenant| [("X-API-Key", API), ("X-Tenant-ID", tenant)];
    let made = house.send("POST", "/api/v1/sandboxes", &of("mine"), "{}").await;
    let id = made.json().unwrap()["id"].as_str().unwrap().to_owned();
    let path = |rest: &str| format!("/api/v1/sandboxes/{id}/{rest}");
    let ran = house.send("POST", &path("exec"), &of("mine"), r#"{"command":"true"}"#).await;
    assert_eq!(ran.status, 200, "{}", ran.text());
    let listed = house.send("GET", &path("execs"), &of("mine"), "").await;
    let exec = listed.json().unwrap()[0]["exec_id"].as_str().unwrap().to_owned();
    for rest in ["execs".to_owned(), format!("execs/{exec}"), format!("execs/{exec}/output")] {
        let reply = house.send("GET", &path(&rest), &of("other"), "").await;
        assert_eq!(reply.status, 404, "{rest}: {}", reply.text());
    }
}
