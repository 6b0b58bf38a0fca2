//! Commands that run as another user of the image.

use std::os::unix::fs::PermissionsExt;

use protocol::agent::{AgentErrorCode as Code, ExecSpec, Request, TtySize};

use crate::harness::*;

fn with_passwd(agent: &Agent, passwd: &str, group: &str) {
    std::fs::create_dir_all(agent.path("/etc")).unwrap();
    std::fs::write(agent.path("/etc/passwd"), passwd).unwrap();
    std::fs::write(agent.path("/etc/group"), group).unwrap();
    // The test's folder is private to its owner, as a real root is not.
    for dir in [agent.dir.path().to_owned(), agent.root()] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn as_user(user: &str, script: &str) -> Request {
    Request::Exec(ExecSpec { user: Some(user.into()), ..sh(script) })
}

#[test]
fn a_name_or_a_number_of_the_image() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: nobody else can be become here");
        return;
    }
    for hold in holds() {
        let agent = Agent::held(hold);
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:1033:1034::/srv/web:/bin/sh\n";
        with_passwd(&agent, passwd, "web:x:1034:\nextra:x:1099:web\n");
        let mut client = agent.connect();
        let script = "id -u; id -g; id -G; echo $HOME; echo x >/dev/stdout";
        for user in ["web", "1033"] {
            let seen = client.call(&as_user(user, script));
            assert_eq!(seen.out(), "1033\n1034\n1034 1099\n/srv/web\nx\n", "{}", seen.err());
        }
        let seen =
            client.call(&as_user("4321:5", "id -u; id -g; id -G; grep Cap /proc/self/status"));
        assert!(seen.out().starts_with("4321\n5\n5\n"), "{:?}", seen.out());
        assert!(seen.out().contains("CapEff:\t0000000000000000"));
        assert_eq!(client.call(&as_user("root", "id -u")).out(), "0\n");
        let tty = Some(TtySize { cols: 80, rows: 24 });
        let spec = ExecSpec { tty, user: Some("web".into()), ..sh("echo hi >$(tty)") };
        assert_eq!(client.call(&Request::Exec(spec)).out(), "hi\r\n");
    }
}

#[test]
fn who_is_not_there_is_a_typed_error() {
    let agent = Agent::start();
    with_passwd(&agent, "evil:x:4294967295:0::/:\nbad:x:zero:0::/:\n", "");
    let mut client = agent.connect();
    for user in ["nobody", "evil", "bad", "-1", "web:none"] {
        assert_eq!(client.call(&as_user(user, "true")).error(), Code::NoSuchUser, "{user}");
    }
    assert_eq!(client.call(&as_user("", "true")).error(), Code::BadRequest);
    // A passwd that is a link to outside, a FIFO, or has no end, names nobody and holds up nobody.
    let passwd = agent.path("/etc/passwd");
    std::fs::remove_file(&passwd).unwrap();
    std::os::unix::fs::symlink("../../../../../../../../etc/passwd", &passwd).unwrap();
    assert_eq!(client.call(&as_user("daemon", "true")).error(), Code::NoSuchUser);
    std::fs::remove_file(&passwd).unwrap();
    let fifo = std::ffi::CString::new(passwd.to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o644) }, 0);
    assert_eq!(client.call(&as_user("daemon", "true")).error(), Code::NoSuchUser);
    std::fs::remove_file(&passwd).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &passwd).unwrap();
    assert_eq!(client.call(&as_user("daemon", "true")).error(), Code::NoSuchUser);
}

#[test]
fn the_images_own_user_runs_what_names_nobody_and_owns_new_files() {
    use std::os::unix::fs::MetadataExt;
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: nobody else can be become here");
        return;
    }
    let usual = |user: &str| Agent::with(Setup { user: Some(user.into()), ..Setup::default() });
    let agent = usual("web");
    let open = std::fs::Permissions::from_mode(0o755);
    for dir in [agent.dir.path().to_owned(), agent.root()] {
        std::fs::set_permissions(dir, open.clone()).unwrap();
    }
    let mut client = agent.connect();
    let script = "id -u; id -g; echo $HOME; echo mine > file && cat file";
    let seen = client.call(&Request::Exec(sh(script)));
    // The harness says HOME itself, as an image's variables would.
    assert_eq!(seen.out(), "1033\n1034\n/root\nmine\n", "{}", seen.err());
    assert_eq!(client.call(&as_user("root", "id -u; echo $HOME")).out(), "0\n/root\n");
    client.write("/workspace/new/file", None, b"x").done();
    for path in ["/workspace", "/workspace/new", "/workspace/new/file"] {
        let meta = std::fs::metadata(agent.path(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1033, 1034), "{path}");
    }
    let agent = usual("nobody-here");
    let seen = agent.connect().call(&Request::Exec(sh("true")));
    assert_eq!(seen.error(), Code::NoSuchUser);
}
