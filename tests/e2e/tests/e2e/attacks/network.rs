//! What listens on the host, and in a neighbour.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::control::{self, Control, Without};
use super::ground::{Ground, IMAGE};

/// Answers every datagram until it is dropped.
struct Echo {
    at: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (at, ended) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let until = ended.clone();
        let answer = move || {
            while !until.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
                    let _ = socket.send_to(b"y", from);
                }
            }
        };
        Self { at, ended, thread: Some(std::thread::spawn(answer)) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An address of this host that is not loopback's, if it has one.
fn outward() -> Option<std::net::IpAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing: the kernel only looks for a route.
    probe.connect("192.0.2.1:9").ok()?;
    probe.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback())
}

#[tokio::test]
async fn the_host_cannot_be_reached() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let target = ground.spawn(IMAGE).await;
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let udp = Echo::new();
    let name = format!("stacyvm-attacks-{}", std::process::id());
    let at = UnixAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&at).unwrap();

    let mut attacks = vec![
        (format!("connect_tcp={}", tcp.local_addr().unwrap()), "ECONNREFUSED"),
        (format!("connect_tcp={}", ground.server().addr()), "ECONNREFUSED"),
        (format!("send_udp={}", udp.at), "ECONNREFUSED"),
        (format!("connect_abstract={name}"), "ECONNREFUSED"),
    ];
    if let Some(ip) = outward() {
        let port = everywhere.local_addr().unwrap().port();
        attacks.push((format!("connect_tcp={ip}:{port}"), "ENETUNREACH"));
    }
    for (attack, error) in &attacks {
        let seen = target.try_one(attack).await;
        assert_eq!(seen.error(), Some(*error), "{seen:?}");
        let control = Control::User.run_without(Without::Network, &[attack]).unwrap();
        assert!(control.iter().all(|v| v.broke()), "{control:?}");
    }
    assert_eq!(target.try_one("connect_tcp=192.0.2.1:80").await.error(), Some("ENETUNREACH"));
    assert_eq!(target.try_one("list_unix").await.error(), Some("ENOENT"));
    ground.end().await;
}

/// Each has a loopback of its own: it works, and ends at its walls.
#[tokio::test]
async fn nor_can_a_neighbour() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let (listens, other) = (ground.spawn(IMAGE).await, ground.spawn(IMAGE).await);
    let seen = listens.try_one("listen_tcp=127.0.0.1:8080").await;
    assert_eq!(seen.words, "held:0 listens");
    let attack = "connect_tcp=127.0.0.1:8080";
    assert_eq!(other.try_one(attack).await.error(), Some("ECONNREFUSED"));
    assert!(listens.try_one(attack).await.broke(), "its own loopback does not work");
    ground.end().await;
}
