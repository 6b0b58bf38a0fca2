//! The agent as PID 1 of a namespace of its own, which only root can make here.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use protocol::agent::{Body, Request};
use rustix::fs::{Mode, OFlags};

use crate::harness::*;

/// An agent that ends with its test.
struct PidOne {
    pid: i32,
    _tie: OwnedFd,
}

/// Forks a process with namespaces of its own, whose child serves as PID 1. Its root is the
/// host's, its /proc its own.
fn start(dir: &std::path::Path) -> Option<PidOne> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make a PID namespace");
        return None;
    }
    std::fs::create_dir_all(dir.join("workspace")).unwrap();
    let listener = OwnedFd::from(UnixListener::bind(dir.join("sock")).unwrap());
    let dup = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).unwrap();
    let (tied, tie) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let workdir = dir.join("workspace").to_str().unwrap().to_owned();
    // SAFETY: the child makes system calls, and then runs the agent, as in `fork_agent`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid > 0 {
        return Some(PidOne { pid, _tie: tie });
    }
    // SAFETY: all in a forked child of our own, which ends here whatever happens.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS) != 0 {
            libc::_exit(90);
        }
        let none = std::ptr::null();
        libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast());
        match libc::fork() {
            0 => {
                libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, none.cast());
                let options = c"newinstance,ptmxmode=0666".as_ptr().cast();
                libc::mount(
                    c"devpts".as_ptr(),
                    c"/dev/pts".as_ptr(),
                    c"devpts".as_ptr(),
                    0,
                    options,
                );
                let bind = libc::MS_BIND;
                libc::mount(
                    c"/dev/pts/ptmx".as_ptr(),
                    c"/dev/ptmx".as_ptr(),
                    none,
                    bind,
                    none.cast(),
                );
                let config = agent::Config {
                    sandbox_id: "sb-one".into(),
                    listener: dup(&listener),
                    root: dup(&root),
                    root_prefix: String::new(),
                    user: None,
                    env: vec!["PATH=/usr/bin:/bin".into()],
                    workdir,
                    deadline_boot_nanos: 0,
                    cgroup: None,
                    oom_events: None,
                    tied_to: Some(dup(&tied)),
                    oom_score_adj: 300,
                    limits: Default::default(),
                };
                // Without the descriptors of the tests beside us.
                let tied = config.tied_to.as_ref();
                let ours = [Some(&config.listener), Some(&config.root), tied];
                close_others(ours.into_iter().flatten().map(AsRawFd::as_raw_fd).collect());
                drop_capabilities();
                agent::settle_signals();
                libc::_exit(agent::serve(config))
            }
            child => {
                let mut status = 0;
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
                libc::waitpid(child, &mut status, 0);
                libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 99 })
            }
        }
    }
}

/// Else those inside could not trace PID 1 for the sole reason that it may do more than they.
fn drop_capabilities() {
    const VERSION_3: u32 = 0x2008_0522;
    let (header, none) = ([VERSION_3, 0], [0u32; 6]);
    // SAFETY: header and data have the kernel's layout: version and pid, two times three sets.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
}

#[test]
fn pid_one_withstands_those_inside() {
    let agent = tempfile::tempdir().unwrap();
    let Some(one) = start(agent.path()) else { return };
    let mut client = Client::connect(&agent.path().join("sock"));
    let script = "for s in KILL STOP TERM SEGV ABRT CHLD 64; do kill -$s 1; done; \
                  echo alive; cat /proc/1/environ /proc/1/maps >/dev/null 2>&1; ls -l /proc/1/fd";
    let result = client.call(&Request::Exec(argv(&["bash", "-c", script])));
    assert!(result.out().starts_with("alive\n"), "{result:?}");
    // Orphans are reaped, however many, and the agent is still itself.
    let orphans = "for i in $(seq 200); do (sleep 0.01 &) ; done; true";
    assert_eq!(client.call(&Request::Exec(argv(&["bash", "-c", orphans]))).exec().exit_code, 0);
    wait_for("no zombie is left", || {
        let count = client.call(&Request::Exec(argv(&[
            "sh",
            "-c",
            "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '",
        ])));
        count.out() == "0\n"
    });
    // A flood of stops does not stop it: a child may be stopped before its execve, never PID 1.
    let stopper = client.begin(&Request::Exec(argv(&[
        "bash",
        "-c",
        "trap '' TERM; while :; do kill -STOP -1; kill -CONT -1; done 2>/dev/null",
    ])));
    client.next();
    let mut other = Client::connect(&agent.path().join("sock"));
    for _ in 0..50 {
        assert!(matches!(other.call(&Request::Status).body(), Body::Status(_)));
        let spec = protocol::agent::ExecSpec { timeout_ms: Some(50), ..argv(&["true"]) };
        assert!(other.call(&Request::Exec(spec)).end.is_some());
    }
    client.cancel(stopper);
    assert!(client.finish(stopper).exec().cancelled);
    other.call(&Request::Shutdown).done();
    assert_eq!(exit_of(one.pid), 0);
}

#[test]
fn the_console_is_a_terminal_and_bounded() {
    let agent = tempfile::tempdir().unwrap();
    let Some(one) = start(agent.path()) else { return };
    let mut client = Client::connect(&agent.path().join("sock"));
    let logs = |client: &mut Client| match client.call(&Request::Logs { lines: 5000 }).body() {
        Body::Lines { lines } => lines,
        other => panic!("{other:?}"),
    };
    let write = "printf 'hello console\\nhalf' > /dev/pts/0";
    client.call(&Request::Exec(argv(&["sh", "-c", write])));
    wait_for("the words arrive", || {
        let lines = logs(&mut client);
        lines.contains(&"hello console".to_owned()) && lines.last().is_some_and(|l| l == "half")
    });
    let flood = "head -c 20000000 /dev/zero | tr '\\0' x > /dev/pts/0; yes | head -n 1000000 > /dev/pts/0; echo; echo END > /dev/pts/0";
    assert_eq!(client.call(&Request::Exec(argv(&["sh", "-c", flood]))).exec().exit_code, 0);
    wait_for("the last line arrives", || logs(&mut client).iter().any(|l| l == "END"));
    client.call(&Request::Shutdown).done();
    assert_eq!(exit_of(one.pid), 0);
}

#[test]
fn nobody_inside_reads_or_traces_it() {
    let agent = tempfile::tempdir().unwrap();
    let Some(one) = start(agent.path()) else { return };
    let mut client = Client::connect(&agent.path().join("sock"));
    // Root with every capability may; so one without is asked, and shown to be able to read its own.
    let script = "cat /proc/$$/environ >/dev/null && echo own; cat /proc/1/environ && echo agent; \
                  readlink /proc/1/fd/3 && echo descriptor; ls /proc/1/root && echo root";
    let result = client.call(&Request::Exec(argv(&[
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "sh",
        "-c",
        script,
    ])));
    assert_eq!(result.out(), "own\n", "{}", result.err());
    client.call(&Request::Shutdown).done();
    assert_eq!(exit_of(one.pid), 0);
}
