//! The channel under answers that are late, strange, or never come.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use protocol::spawner::{HostFacts, Made};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use super::*;

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn answer(socket: &OwnedFd, n: u64, body: Reply) {
    let text = serde_json::to_vec(&Numbered { n, body }).unwrap();
    rustix::net::send(socket, &text, SendFlags::empty()).unwrap();
}

/// One message and the descriptors that came with it; `None` at the end.
fn take(socket: &OwnedFd) -> Option<(serde_json::Value, Vec<OwnedFd>)> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut riders = RecvAncillaryBuffer::new(&mut space);
    let mut into = [io::IoSliceMut::new(&mut buffer)];
    let got = recvmsg(socket, &mut into, &mut riders, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fds = riders
        .drain()
        .flat_map(|m| match m {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        })
        .collect();
    (got.bytes > 0).then(|| (serde_json::from_slice(&buffer[..got.bytes]).unwrap(), fds))
}

fn order(id: &str) -> Order {
    Order::Release { id: id.into(), slot: None }
}

#[tokio::test]
async fn answers_find_their_questions_in_any_order_and_descriptors_ride_along() {
    let (ours, theirs) = pair();
    let fake = std::thread::spawn(move || {
        let (setup, _) = take(&theirs).unwrap();
        assert_eq!((&setup["n"], &setup["pool"]), (&0.into(), &7.into()));
        answer(&theirs, 0, Reply::Ready { facts: HostFacts::default() });
        let mut seen: Vec<_> = (0..2).map(|_| take(&theirs).unwrap()).collect();
        let riders: usize = seen.iter().map(|(_, fds)| fds.len()).sum();
        assert_eq!(riders, 2);
        seen.reverse();
        for (message, _) in &seen {
            let n = message["n"].as_u64().unwrap();
            let pid = message["id"].as_str().unwrap().parse().unwrap();
            answer(&theirs, 99, Reply::Released); // nobody asked that
            answer(&theirs, n, Reply::Spawned { made: Made { pid, ..Default::default() } });
        }
        take(&theirs)
    });
    let channel = Arc::new(Channel::new(ours).unwrap());
    let reader = channel.clone();
    let reader = tokio::spawn(async move { reader.listen().await });
    let setup = Setup { pool: 7, ..Default::default() };
    assert!(matches!(channel.set_up(&setup).await.unwrap(), Reply::Ready { .. }));
    let fds = [std::io::stdin(), std::io::stdin()].map(|f| f.as_raw_fd());
    // SAFETY: the standard input is open for the whole test.
    let fds = fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
    let (first, second) = (order("11"), order("22"));
    let (a, b) = tokio::join!(channel.ask(&first, &fds), channel.ask(&second, &[]));
    for (reply, wanted) in [(a, 11), (b, 22)] {
        assert!(matches!(reply.unwrap(), Reply::Spawned { made } if made.pid == wanted));
    }
    channel.close();
    reader.await.unwrap();
    assert!(fake.join().unwrap().is_none());
}

#[tokio::test]
async fn who_waits_is_told_when_the_spawner_goes() {
    let (ours, theirs) = pair();
    let fake = std::thread::spawn(move || drop(take(&theirs)));
    let channel = Arc::new(Channel::new(ours).unwrap());
    let reader = channel.clone();
    let reader = tokio::spawn(async move { reader.listen().await });
    assert!(matches!(channel.ask(&order("x"), &[]).await, Err(ChannelError::Closed)));
    fake.join().unwrap();
    reader.await.unwrap();
    assert!(matches!(channel.ask(&order("y"), &[]).await, Err(ChannelError::Closed)));
}

#[tokio::test]
async fn long_messages_are_refused_and_leave_nothing_waiting() {
    let (ours, _theirs) = pair();
    let channel = Channel::new(ours).unwrap();
    let long = order(&"x".repeat(MAX_MESSAGE));
    assert!(matches!(channel.ask(&long, &[]).await, Err(ChannelError::TooLong)));
    let short = order("z");
    let wait = std::time::Duration::from_millis(20);
    let unanswered = tokio::time::timeout(wait, channel.ask(&short, &[]));
    assert!(unanswered.await.is_err());
    assert!(channel.waiting().by_number.is_empty());
}
