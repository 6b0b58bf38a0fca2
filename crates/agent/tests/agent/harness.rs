//! An agent in a process of its own, and a plain client to it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use protocol::agent::{
    AgentErrorCode, Body, Channel, Decoder, End, Event, ExecDone, ExecSpec, Frame, Hello, Kind,
    Limits, PROTOCOL_VERSION, Request,
};
use rustix::fs::{Mode as FileMode, OFlags};
use types::clock::{Clock, SystemClock};

/// Until a test gives up waiting for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);
const UNIFIED: &str = "/sys/fs/cgroup/unified";

pub fn now() -> Duration {
    Duration::from_nanos(SystemClock.boot().nanos())
}

/// Polls until `condition` holds; says what was waited for if it never does.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let until = now() + PATIENCE;
    while !condition() {
        assert!(now() < until, "waited in vain: {what}");
        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        rustix::event::poll(&mut [], Some(&pause)).ok();
    }
}

/// How execs are held together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Reaper,
    Cgroup,
}

/// Both ways, as far as the machine has them.
pub fn holds() -> Vec<Hold> {
    let writable = rustix::fs::access(UNIFIED, rustix::fs::Access::WRITE_OK).is_ok();
    if writable && rustix::process::geteuid().is_root() {
        vec![Hold::Reaper, Hold::Cgroup]
    } else {
        eprintln!("no writable cgroup v2 at {UNIFIED}: only the reaper is tested");
        vec![Hold::Reaper]
    }
}

pub struct Setup {
    pub hold: Hold,
    pub limits: Limits,
    pub deadline: u64,
    pub oom_events: Option<PathBuf>,
    /// The image's own user; it has one called `web`.
    pub user: Option<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            hold: Hold::Reaper,
            limits: Limits::default(),
            deadline: 0,
            oom_events: None,
            user: None,
        }
    }
}

pub struct Agent {
    pub pid: i32,
    pub dir: tempfile::TempDir,
    cgroup: Option<PathBuf>,
    tie: Option<OwnedFd>,
    status: Option<i32>,
}

impl Agent {
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    pub fn held(hold: Hold) -> Self {
        Self::with(Setup { hold, ..Setup::default() })
    }

    pub fn with(setup: Setup) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        if setup.user.is_some() {
            std::fs::create_dir_all(root.join("etc")).unwrap();
            let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:1033:1034::/srv/web:/bin/sh\n";
            std::fs::write(root.join("etc/passwd"), passwd).unwrap();
        }
        let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
        let open = |path: &Path, flags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, FileMode::empty()).unwrap()
        };
        let (tied, tie) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let cgroup = (setup.hold == Hold::Cgroup).then(|| {
            let path = PathBuf::from(format!("{UNIFIED}/agent-test-{}-{n}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            path
        });
        let config = agent::Config {
            sandbox_id: "sb-test".into(),
            listener: listener.into(),
            root: open(&root, OFlags::PATH),
            root_prefix: root.to_str().unwrap().to_owned(),
            env: vec![
                "PATH=/usr/local/bin:/usr/bin:/bin".into(),
                "HOME=/root".into(),
                "BASE=from the sandbox".into(),
            ],
            user: setup.user,
            workdir: "/workspace".into(),
            deadline_boot_nanos: setup.deadline,
            cgroup: cgroup.as_ref().map(|p| open(p, OFlags::PATH | OFlags::DIRECTORY)),
            oom_events: setup.oom_events.map(|p| open(&p, OFlags::RDONLY)),
            tied_to: Some(tied),
            oom_score_adj: 300,
            limits: setup.limits,
        };
        let pid = fork_agent(config);
        Self { pid, dir, cgroup, tie: Some(tie), status: None }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.root().join(inside.trim_start_matches('/'))
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.dir.path().join("sock"))
    }

    pub fn connect_raw(&self) -> Client {
        Client::new(UnixStream::connect(self.dir.path().join("sock")).unwrap())
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }

    /// Waits until the agent has ended; its exit code.
    pub fn ended(&mut self) -> i32 {
        let pid = self.pid;
        *self.status.get_or_insert_with(|| exit_of(pid))
    }

    pub fn untie(&mut self) {
        self.tie = None;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.tie = None;
        if std::thread::panicking() {
            // Whatever state it is in, it must not stay.
            if let Some(pid) = rustix::process::Pid::from_raw(self.pid)
                && self.status.is_none()
            {
                let pause = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
                rustix::event::poll(&mut [], Some(&pause)).ok();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).ok();
            }
        } else {
            assert_eq!(self.ended(), 0);
        }
        if let Some(path) = &self.cgroup {
            let left: Vec<_> = std::fs::read_dir(path)
                .unwrap()
                .flatten()
                .filter(|e| e.metadata().is_ok_and(|m| m.is_dir()))
                .map(|e| e.path())
                .collect();
            for dir in &left {
                std::fs::remove_dir(dir).ok();
            }
            let removed = std::fs::remove_dir(path);
            if !std::thread::panicking() {
                assert!(left.is_empty(), "the agent left cgroups: {left:?}");
                removed.unwrap();
            }
        }
    }
}

/// Forks a process that serves; it keeps no descriptor but those in its configuration, so that the
/// sockets of other tests don't stay open in it.
pub fn fork_agent(config: agent::Config) -> i32 {
    let mut keep: Vec<i32> = vec![config.listener.as_raw_fd(), config.root.as_raw_fd()];
    for fd in [&config.cgroup, &config.oom_events, &config.tied_to].into_iter().flatten() {
        keep.push(fd.as_raw_fd());
    }
    // SAFETY: the child of this multi-threaded process runs the agent, which takes no lock that
    // another thread may have held but malloc's, and that survives fork.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            close_others(keep);
            agent::settle_signals();
            let code = agent::serve(config);
            // SAFETY: ends the process without running the test program's own end.
            unsafe { libc::_exit(code) }
        }
        pid => pid,
    }
}

/// Closes all descriptors but the standard ones and `keep`, in a forked child.
pub fn close_others(mut keep: Vec<i32>) {
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([i32::MAX]) {
        if fd > from {
            // SAFETY: closes descriptors that nobody in this process uses any more.
            unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// A frame, owned.
#[derive(Debug)]
pub struct Got {
    pub kind: Kind,
    pub channel: Channel,
    pub call: u32,
    pub payload: Vec<u8>,
}

/// All that a call brought.
#[derive(Debug, Default)]
pub struct Result {
    pub out: Vec<u8>,
    pub err: Vec<u8>,
    pub events: Vec<Event>,
    /// After how many bytes how many were lost.
    pub gaps: Vec<(usize, u64)>,
    pub end: Option<End>,
}

impl Result {
    pub fn exec(&self) -> ExecDone {
        match &self.end {
            Some(End::Ok(Body::Exec(done))) => done.clone(),
            other => panic!("not the end of an exec: {other:?}, stderr {:?}", self.err()),
        }
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    pub fn body(self) -> Body {
        match self.end {
            Some(End::Ok(body)) => body,
            other => panic!("failed: {other:?}"),
        }
    }

    pub fn done(self) {
        assert_eq!(self.body(), Body::Done);
    }

    pub fn error(&self) -> AgentErrorCode {
        match &self.end {
            Some(End::Err(error)) => error.code,
            other => panic!("no error: {other:?}"),
        }
    }
}

pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
    next_call: u32,
    pub hello: Hello,
    /// Whether data is answered with credit.
    pub granting: bool,
}

impl Client {
    /// Connects and greets.
    pub fn connect(socket: &Path) -> Self {
        let mut client = Self::new(UnixStream::connect(socket).unwrap());
        let hello = client.next();
        assert_eq!((hello.kind, hello.call), (Kind::Hello, 0));
        client.hello = serde_json::from_slice(&hello.payload).unwrap();
        let ours = Hello { version: PROTOCOL_VERSION, min_version: 1, ..Hello::default() };
        client.send(Kind::Hello, Channel::Input, 0, &serde_json::to_vec(&ours).unwrap());
        client
    }

    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            decoder: Decoder::new(),
            next_call: 1,
            hello: Hello::default(),
            granting: true,
        }
    }

    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        use std::io::Write;
        self.stream.write_all(bytes)
    }

    pub fn send(&mut self, kind: Kind, channel: Channel, call: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        Frame { kind, channel, call, payload }.encode(&mut bytes);
        self.raw(&bytes).unwrap();
    }

    pub fn begin(&mut self, request: &Request) -> u32 {
        let call = self.next_call;
        self.next_call += 1;
        self.send(Kind::Request, Channel::Input, call, &serde_json::to_vec(request).unwrap());
        call
    }

    pub fn data(&mut self, call: u32, bytes: &[u8]) {
        self.send(Kind::Data, Channel::Input, call, bytes);
    }

    pub fn eof(&mut self, call: u32) {
        self.send(Kind::Eof, Channel::Input, call, &[]);
    }

    pub fn cancel(&mut self, call: u32) {
        self.send(Kind::Cancel, Channel::Input, call, &[]);
    }

    pub fn grant(&mut self, call: u32, bytes: u32) {
        self.send(Kind::Credit, Channel::Input, call, &bytes.to_le_bytes());
    }

    /// The next frame; `None` when the agent has closed the connection.
    pub fn try_next(&mut self) -> Option<Got> {
        use std::io::Read;
        loop {
            if let Some(f) = self.decoder.next().unwrap() {
                let got = Got {
                    kind: f.kind,
                    channel: f.channel,
                    call: f.call,
                    payload: f.payload.to_vec(),
                };
                return Some(got);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Ok(n) => self.decoder.feed(&bytes[..n]),
                Err(e) => panic!("nothing from the agent: {e}"),
            }
        }
    }

    pub fn next(&mut self) -> Got {
        self.try_next().expect("the agent closed the connection")
    }

    /// Whether something is to be read within `wait`.
    pub fn readable(&self, wait: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let wait = rustix::time::Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        poll(&mut [PollFd::new(&self.stream.as_fd(), PollFlags::IN)], Some(&wait)).unwrap() > 0
    }

    /// Reads until `call` has ended.
    pub fn finish(&mut self, call: u32) -> Result {
        let mut result = Result::default();
        while result.end.is_none() {
            let got = self.next();
            assert_eq!(got.call, call, "{got:?}");
            self.take(&mut result, got);
        }
        result
    }

    pub fn take(&mut self, result: &mut Result, got: Got) {
        match (got.kind, got.channel) {
            (Kind::Data, channel) => {
                if self.granting {
                    self.grant(got.call, u32::try_from(got.payload.len()).unwrap());
                }
                match channel {
                    Channel::Out => result.out.extend(got.payload),
                    Channel::Err => result.err.extend(got.payload),
                    Channel::Gap => {
                        for lost in got.payload.chunks(8) {
                            let lost = u64::from_le_bytes(lost.try_into().unwrap());
                            result.gaps.push((result.out.len() + result.err.len(), lost));
                        }
                    }
                    Channel::Input => panic!("input from the agent"),
                }
            }
            (Kind::Event, _) => result.events.push(serde_json::from_slice(&got.payload).unwrap()),
            (Kind::End, _) => result.end = Some(serde_json::from_slice(&got.payload).unwrap()),
            (Kind::Credit, _) => {}
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn call(&mut self, request: &Request) -> Result {
        let call = self.begin(request);
        self.finish(call)
    }

    pub fn sh(&mut self, script: &str) -> Result {
        self.call(&Request::Exec(sh(script)))
    }

    pub fn write(&mut self, path: &str, mode: Option<u32>, content: &[u8]) -> Result {
        let call = self.begin(&Request::Write { path: path.into(), mode });
        for piece in content.chunks(32 * 1024) {
            self.data(call, piece);
        }
        self.eof(call);
        self.finish(call)
    }

    pub fn read(&mut self, path: &str) -> Result {
        self.call(&Request::Read { path: path.into(), range: None })
    }
}

/// A shell command with an id of its own.
pub fn sh(script: &str) -> ExecSpec {
    argv(&["sh", "-c", script])
}

pub fn argv(args: &[&str]) -> ExecSpec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    ExecSpec {
        exec_id: format!("exec-{n}"),
        argv: args.iter().map(|a| (*a).to_owned()).collect(),
        ..ExecSpec::default()
    }
}

/// Waits for a child; its exit code.
pub fn exit_of(pid: i32) -> i32 {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let mut status = None;
    wait_for("the agent ends", || {
        let opts = rustix::process::WaitOptions::NOHANG;
        let found = rustix::process::waitpid(Some(pid), opts).unwrap();
        status = found.map(|(_, s)| s.exit_status().unwrap_or(-1));
        status.is_some()
    });
    status.unwrap()
}

/// Whether a process lives (a zombie does not).
pub fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|s| s.rsplit_once(')').map(|(_, rest)| rest.trim_start().to_owned()))
        .is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

/// The pid that a script wrote into a file.
pub fn pid_in(path: &Path) -> i32 {
    let mut pid = 0;
    wait_for("a pid is written", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        pid = if text.ends_with('\n') { text.trim().parse().unwrap_or(0) } else { 0 };
        pid > 0
    });
    pid
}

pub fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}
