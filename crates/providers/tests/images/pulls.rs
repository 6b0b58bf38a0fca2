//! Pulls from a real registry, and from one that does everything wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use providers::images::{ImageInfo, Options, Patience, PullPolicy, Registry};
use serde_json::json;
use types::{ErrorCode, Fault, Secret};

use crate::layout::{Layout, Pack, assert_same, merged};
use crate::served::{Answer, Asked, Crooked, RealRegistry, tools};
use crate::support::{Ground, Tar, names, root};

/// Content that does not shrink, so that a line can be cut in the middle of it.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(next).collect()
}

fn layout(dir: &Path) -> PathBuf {
    let first = Tar::default().dir("a").file("a/big", &noise(3 << 20, 7)).file("gone", b"x").done();
    let second = Tar::default().file("a/small", b"y").file(".wh.gone", b"").done();
    let layout =
        Layout::new(dir.join("layout")).layer(&first, Pack::Gzip).layer(&second, Pack::Zstd);
    layout.done("1", json!({"Env": ["FROM=registry"]}))
}

fn patience() -> Patience {
    Patience {
        silence: Duration::from_secs(2),
        slow: (Duration::from_millis(400), 64 << 10),
        pause: Duration::from_millis(10),
        ..Patience::default()
    }
}

pub fn ground(registries: Vec<Registry>) -> Ground {
    let options = Options {
        registries,
        patience: patience(),
        pull: PullPolicy::Missing,
        ..Options::default()
    };
    Ground::with(&[], options)
}

pub fn http(host: &str) -> Registry {
    Registry::named(format!("http://{host}"))
}

pub async fn pull(g: &Ground, name: &str) -> Result<ImageInfo, Fault> {
    g.store.pull(name)?.wait().await
}

/// A store, and a registry that behaves like that.
fn crooked(
    behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (Ground, Crooked, String) {
    let place = tempfile::tempdir().unwrap().keep();
    let server = Crooked::start(layout(&place), behaviour);
    let g = ground(vec![http(&server.addr.to_string())]);
    let name = format!("{}/some/image:1", server.addr);
    (g, server, name)
}

async fn refused(
    behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    words: &str,
) -> ErrorCode {
    let (g, server, name) = crooked(behaviour);
    let fault = pull(&g, &name).await.unwrap_err();
    assert!(fault.message.contains(words), "{words}: {}", fault.message);
    assert_ne!(fault.code, ErrorCode::InternalError, "{}", fault.message);
    g.assert_clean(1);
    for left in ["making", "refs", "manifests"] {
        assert_eq!(names(&g.images().join(left)), [""; 0], "{left}: {:?}", server.asked());
    }
    fault.code
}

fn is_layer(asked: &Asked) -> bool {
    // The big one: the only blob that is asked for in parts.
    asked.path.contains("/blobs/")
}

#[tokio::test]
async fn a_real_registry_gives_what_a_layout_gives() {
    if !tools() {
        println!("skipped: it takes skopeo and docker-registry");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let dir = layout(place.path());
    for key in [None, Some("bob:open sesame")] {
        let registry = RealRegistry::start(place.path(), key.is_some());
        registry.push(&dir, "1", "some/image:1", key);
        let mut entry = http(&registry.host);
        let name = format!("{}/some/image:1", registry.host);
        if key.is_some() {
            let fault = pull(&ground(vec![entry.clone()]), &name).await.unwrap_err();
            assert_eq!(fault.code, ErrorCode::ImageNotFound, "{}", fault.message);
            (entry.username, entry.password) = ("bob".into(), Secret::new("open sesame"));
        }
        let g = ground(vec![entry]);
        let image = g.store.prepare(&name).await.unwrap();
        assert_eq!(image.env, ["FROM=registry"]);
        let info = g.store.inspect(&name).await.unwrap();
        assert_eq!((info.names, info.layers.len()), (vec![name.clone()], 2));
        let local = g.store.import(&dir, Some("local"), |_| {}).await.unwrap();
        assert!(local.existed, "the same layers");
        assert_eq!(local.layers, info.layers);
        if root() {
            let other = Ground::new();
            other.store.import(&dir, Some("local"), |_| {}).await.unwrap();
            let other_image = other.store.prepare("local").await.unwrap();
            let theirs = merged(other.store.layers_dir(), &other_image);
            assert_same(&merged(g.store.layers_dir(), &image), &theirs);
        }
        // By the digest that others know it by, here and there.
        let by_digest = format!("{}/some/image@{}", registry.host, info.known_as[0]);
        assert_eq!(g.store.prepare(&by_digest).await.unwrap().layers, image.layers);
        let fresh = ground(vec![Registry {
            username: "bob".into(),
            password: Secret::new("open sesame"),
            ..http(&registry.host)
        }]);
        assert_eq!(fresh.store.prepare(&by_digest).await.unwrap().layers.len(), 3);
        let fault = pull(&g, &format!("{}/no/such:1", registry.host)).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::ImageNotFound);
    }
}

#[tokio::test]
async fn dockers_own_file_opens_a_registry() {
    if !tools() {
        println!("skipped: it takes skopeo and docker-registry");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let registry = RealRegistry::start(place.path(), true);
    registry.push(&layout(place.path()), "1", "some/image:1", Some("bob:open sesame"));
    let file = place.path().join("config.json");
    let auth = data_encoding::BASE64.encode(b"bob:open sesame");
    let auths = json!({"auths": {registry.host.clone(): {"auth": auth}}});
    std::fs::write(&file, auths.to_string()).unwrap();
    let options = Options {
        registries: vec![http(&registry.host)],
        docker_config: Some(file),
        patience: patience(),
        ..Options::default()
    };
    let g = Ground::with(&[], options);
    pull(&g, &format!("{}/some/image:1", registry.host)).await.unwrap();
}

#[tokio::test]
async fn a_token_is_fetched_and_sent_nowhere_else() {
    let other = Crooked::start(layout(&tempfile::tempdir().unwrap().keep()), |_| Answer::Honest);
    let elsewhere = other.addr;
    let (g, server, name) = crooked(move |asked| {
        if asked.path.starts_with("/token") {
            return Answer::Bytes(br#"{"token": "abc"}"#.to_vec());
        }
        match asked.authorization.as_deref() {
            Some("Bearer abc") if asked.path.contains("/blobs/") => {
                Answer::Status(307, format!("location: http://{elsewhere}{}\r\n", asked.path))
            }
            Some("Bearer abc") => Answer::Honest,
            _ => Answer::Status(
                401,
                "www-authenticate: Bearer realm=\"/token\",service=\"s\"\r\n".into(),
            ),
        }
    });
    // The realm of this one is no address at all; the next one's is right.
    let fault = pull(&g, &name).await.unwrap_err();
    assert_eq!(fault.code, ErrorCode::Unavailable, "{}", fault.message);
    drop(server);
    let addr = Arc::new(std::sync::OnceLock::<String>::new());
    let own = Arc::clone(&addr);
    let server = Crooked::start(layout(&tempfile::tempdir().unwrap().keep()), move |asked| {
        if asked.path.starts_with("/token") {
            return Answer::Bytes(br#"{"token": "abc"}"#.to_vec());
        }
        match asked.authorization.as_deref() {
            Some("Bearer abc") if asked.path.contains("/blobs/") => {
                Answer::Status(307, format!("location: http://{elsewhere}{}\r\n", asked.path))
            }
            Some("Bearer abc") => Answer::Honest,
            _ => {
                let realm = format!("http://{}/token", own.get().unwrap());
                Answer::Status(
                    401,
                    format!("www-authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n"),
                )
            }
        }
    });
    addr.set(server.addr.to_string()).unwrap();
    // Its layers are those of the other, which has other content: its own layout has the same.
    let g = ground(vec![http(&server.addr.to_string()), http(&elsewhere.to_string())]);
    pull(&g, &format!("{}/some/image:1", server.addr)).await.unwrap();
    assert!(
        server.asked().iter().any(|a| a.path.contains("scope=repository%3Asome%2Fimage%3Apull"))
    );
    assert!(!other.asked().is_empty());
    assert!(other.asked().iter().all(|a| a.authorization.is_none()), "{:?}", other.asked());
}

#[tokio::test]
async fn a_line_that_breaks_is_taken_up_where_it_broke() {
    let (g, server, name) = crooked(|asked| match asked.before {
        0..3 if is_layer(asked) => Answer::Cut(700_000),
        _ => Answer::Honest,
    });
    pull(&g, &name).await.unwrap();
    let from: Vec<_> = server.blobs().into_iter().filter_map(|a| a.from).collect();
    assert!(from.len() >= 3 && from.windows(2).all(|w| w[0] < w[1]), "{from:?}");
    // A registry that knows no ranges gives it all again.
    let (g, server, name) = crooked(|asked| match asked.before {
        0 if is_layer(asked) => Answer::Cut(700_000),
        _ => Answer::Whole,
    });
    pull(&g, &name).await.unwrap();
    assert!(server.blobs().iter().any(|a| a.from.is_some()));
    // One that is busy is asked again.
    let (g, _server, name) = crooked(|asked| match asked.before {
        0 => Answer::Status(503, String::new()),
        1 => Answer::Status(429, "retry-after: 0\r\n".into()),
        _ => Answer::Honest,
    });
    pull(&g, &name).await.unwrap();
}

#[tokio::test]
async fn registries_that_lie_stall_or_flood_are_given_up() {
    let wrong = |asked: &Asked| match is_layer(asked) {
        true => Answer::Bytes(noise(1000, 3)),
        false => Answer::Honest,
    };
    refused(wrong, "digest").await;
    let flood = |asked: &Asked| match asked.path.contains("/manifests/") {
        true => Answer::Bytes(vec![b' '; 6 << 20]),
        false => Answer::Honest,
    };
    refused(flood, "too large").await;
    refused(|_| Answer::Bytes(b"{}".to_vec()), "manifest").await;
    refused(|_| Answer::Bytes(b"\xff\xfe".to_vec()), "can't be read").await;
    let always = |asked: &Asked| if is_layer(asked) { Answer::Cut(10) } else { Answer::Honest };
    refused(always, "").await;
    let slow = |asked: &Asked| if is_layer(asked) { Answer::Drip } else { Answer::Honest };
    assert_eq!(refused(slow, "too slow").await, ErrorCode::Unavailable);
    assert_eq!(refused(|_| Answer::Silence, "too slow").await, ErrorCode::Unavailable);
    assert_eq!(
        refused(|_| Answer::Status(404, String::new()), "has no").await,
        ErrorCode::ImageNotFound
    );
    refused(|_| Answer::Status(301, "location: /v2/x\r\n".into()), "circles").await;
}

#[tokio::test]
async fn nobody_is_sent_inside() {
    for target in [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/",
        "http://127.0.0.1:22/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://localhost/",
        "http://example.com/",
        "file:///etc/passwd",
    ] {
        let answer = move |asked: &Asked| match asked.path.contains("/manifests/") {
            true => Answer::Status(307, format!("location: {target}\r\n")),
            false => Answer::Honest,
        };
        assert_eq!(refused(answer, "is not asked").await, ErrorCode::Forbidden, "{target}");
        // The issuer of tokens is no way around.
        let answer = move |_: &Asked| {
            let challenge = format!("www-authenticate: Bearer realm=\"{target}\"\r\n");
            Answer::Status(401, challenge)
        };
        assert_eq!(refused(answer, "is not asked").await, ErrorCode::Forbidden, "{target}");
    }
    // Nor by a name of its own, listed or not.
    let g = ground(Vec::new());
    for name in ["127.0.0.1:1/a", "localhost:1/a", "169.254.169.254/a", "10.0.0.1/a:1"] {
        let fault = pull(&g, name).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::Forbidden, "{name}: {}", fault.message);
        let fault = g.store.prepare(name).await.unwrap_err();
        assert_eq!(fault.code, ErrorCode::ImageNotFound, "{name}: {}", fault.message);
        assert!(fault.message.contains("is not asked"), "{}", fault.message);
    }
    let g = ground(vec![Registry::named("quay.io")]);
    assert_eq!(pull(&g, "ghcr.io/a/b").await.unwrap_err().code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn one_pull_serves_all_who_wait_and_outlives_them() {
    let (g, server, name) = crooked(|_| Answer::Honest);
    let waiting: Vec<_> = (0..8).map(|_| g.store.pull(&name).unwrap().wait()).collect();
    let other = g.store.pull(&name.replace(":1", ":2")).unwrap().wait();
    for done in futures_util::future::join_all(waiting).await {
        done.unwrap();
    }
    other.await.unwrap();
    let mut blobs: Vec<_> = server.blobs().into_iter().map(|a| a.path).collect();
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    // Configuration and both layers, each once; the configuration once for each name at most.
    assert!(blobs.len() == 3 && all <= 4, "{:?}", server.blobs());
    let gate = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&gate);
    let (g, _server, name) = crooked(move |_| {
        while !open.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Answer::Honest
    });
    drop(g.store.pull(&name).unwrap());
    gate.store(true, Ordering::SeqCst);
    let mut list = Vec::new();
    for _ in 0..500 {
        list = g.store.list().await.unwrap();
        if !list.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(list[0].names, std::slice::from_ref(&name));
    // Closing stops what runs.
    let (g, _server, name) = crooked(|_| Answer::Silence);
    let pull = g.store.pull(&name).unwrap();
    g.store.close().await;
    assert_eq!(pull.wait().await.unwrap_err().code, ErrorCode::Unavailable);
    g.assert_clean(1);
}

#[tokio::test]
async fn always_asks_and_takes_what_is_here() {
    let place = tempfile::tempdir().unwrap();
    let server = Crooked::start(layout(place.path()), |_| Answer::Honest);
    let options = Options {
        registries: vec![http(&server.addr.to_string())],
        patience: patience(),
        pull: PullPolicy::Always,
        ..Options::default()
    };
    let g = Ground::with(&[], options);
    let name = format!("{}/some/image:1", server.addr);
    g.store.prepare(&name).await.unwrap();
    let (blobs, all) = (server.blobs().len(), server.asked().len());
    g.store.prepare(&name).await.unwrap();
    assert_eq!((server.blobs().len(), server.asked().len()), (blobs, all + 1));
    assert!(g.store.prepare("host").await.is_ok());
}
