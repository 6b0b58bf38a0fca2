//! Raw files: any size, parts, checksums.

use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use std::sync::atomic::Ordering;

use super::house::{API, BOTH, House, open};

fn of(id: &str, path: &str) -> String {
    format!("/api/v1/sandboxes/{id}/files/content?path={path}")
}

async fn get(house: &House, path: &str, with: &[(&str, &str)]) -> testkit::Reply {
    let headers: Vec<_> = [&[("X-API-Key", API)], with].concat();
    house.send("GET", path, &headers, "").await
}

#[tokio::test]
async fn bug_32_an_upload_is_not_bounded_by_the_bound_of_json() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let body = "x".repeat(5 * 1024 * 1024);
    let key = ("X-API-Key", API);
    let put = house.send("PUT", &of(&id, "/f&mode=0600"), &[key], &body).await;
    assert_eq!(
        (put.status, put.text().as_str()),
        (200, "{\"status\":\"written\",\"size\":5242880}\n")
    );
    assert_eq!(house.seen.written.load(Ordering::SeqCst), body.len());
    // Refused early, its sender still reads why.
    let full = house.send("PUT", &of(&id, "/full"), &[key], &"x".repeat(40 << 20)).await;
    assert_eq!((full.status, full.json().unwrap()["code"].as_str()), (422, Some("DISK_FULL")));
    for bad in ["", "/f&mode=rwx", "/f%00"] {
        assert_eq!(house.send("PUT", &of(&id, bad), &[key], "x").await.status, 400, "{bad}");
    }
    let packed = [key, ("Content-Encoding", "gzip")];
    assert_eq!(house.send("PUT", &of(&id, "/f"), &packed, "x").await.status, 400);
}

#[tokio::test]
async fn archives_stream_both_ways() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let path = |rest: &str| format!("/api/v1/sandboxes/{id}/files/archive?path=/d{rest}");
    for (format, kind) in [
        ("", "application/x-tar"),
        ("&format=tar", "application/x-tar"),
        ("&format=gzip", "application/gzip"),
        ("&format=zstd", "application/zstd"),
    ] {
        let got = get(&house, &path(format), &[]).await;
        assert_eq!((got.status, got.header("content-type")), (200, Some(kind)), "{format}");
        assert_eq!(got.text(), "/d");
    }
    let key = ("X-API-Key", API);
    let put = house.send("PUT", &path("&format=gzip"), &[key], &"x".repeat(3 << 20)).await;
    assert_eq!((put.status, put.text().as_str()), (200, "{\"status\":\"written\"}\n"));
    assert_eq!(house.seen.written.load(Ordering::SeqCst), 3 << 20);
    assert_eq!(get(&house, &path("&format=zip"), &[]).await.status, 400);
}

#[tokio::test]
async fn an_upload_is_checked_against_its_checksum() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    let sum = BASE64.encode(&Sha256::digest("content"));
    for (value, body, status) in [
        (format!("sha-256=:{sum}:"), "content", 200),
        (format!("sha-256=:{sum}:"), "Content", 400),
        ("md5=:AAAA:".to_owned(), "content", 400),
    ] {
        let headers = [("X-API-Key", API), ("Repr-Digest", value.as_str())];
        let put = house.send("PUT", &of(&id, "/f"), &headers, body).await;
        assert_eq!(put.status, status, "{value} {body}: {}", put.text());
    }
}

#[tokio::test]
async fn a_download_has_parts_and_a_checksum() {
    let house = open(BOTH).await;
    let id = house.spawned().await;
    // The worker here gives a file's path for its content.
    let path = of(&id, "/0123456789");
    let whole = get(&house, &path, &[]).await;
    assert_eq!((whole.status, whole.text().as_str()), (200, "/0123456789"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    for (range, text, told) in [
        ("bytes=1-3", "012", "bytes 1-3/11"),
        ("bytes=8-", "789", "bytes 8-10/11"),
        ("bytes=-2", "89", "bytes 9-10/11"),
        ("bytes=0-999", "/0123456789", "bytes 0-10/11"),
    ] {
        let part = get(&house, &path, &[("Range", range)]).await;
        assert_eq!((part.status, part.text().as_str()), (206, text), "{range}");
        assert_eq!(part.header("content-range"), Some(told));
        assert_eq!(part.header("content-length"), Some(text.len().to_string().as_str()));
    }
    let none = get(&house, &path, &[("Range", "bytes=11-")]).await;
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */11")));
    assert_eq!(none.json().unwrap()["code"], "RANGE_NOT_SATISFIABLE");
    let sum = BASE64.encode(&Sha256::digest("/0123456789"));
    // Of the whole file, also beside a part of it.
    let with = [("Range", "bytes=1-3"), ("Want-Repr-Digest", "sha-256=1")];
    let part = get(&house, &path, &with).await;
    assert_eq!(part.header("repr-digest"), Some(format!("sha-256=:{sum}:").as_str()));
    let old = get(&house, &path, &[("Want-Digest", "sha-256")]).await;
    assert_eq!(old.header("digest"), Some(format!("SHA-256={sum}").as_str()));
    assert_eq!(get(&house, &of(&id, ""), &[]).await.status, 400);
}
