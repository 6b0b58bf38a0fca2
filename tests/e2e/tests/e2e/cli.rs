//! The command line, as a shell sees it: output, exit codes, what stays behind.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::{System, busybox_rootfs, stacyvm, wait_for};

const SOON: Duration = Duration::from_secs(20);

fn mock() -> Value {
    json!({ "providers": { "default": "mock", "mock": { "enabled": true },
                           "native": { "enabled": false } } })
}

/// The binary on this system's configuration, with nothing of the test's own environment but PATH.
fn cli(system: &System, args: &[&str]) -> Command {
    let mut command = Command::new(stacyvm());
    command.args(args).stdin(Stdio::null()).env_clear();
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/nonexistent");
    command.env("STACYVM_CONFIG", system.config_file()).current_dir("/");
    command
}

fn ran(mut command: Command) -> (i32, String, String) {
    told(&command.output().expect("the binary can be run"))
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn with_input(mut command: Command, input: &[u8]) -> (i32, String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary can be run");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // A command that does not read must not keep the test.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("writing does not panic");
    told(&output)
}

#[test]
fn it_says_what_it_is() {
    let system = System::new(mock());
    let (code, out, _) = ran(cli(&system, &["version"]));
    assert_eq!(code, 0);
    assert!(out.starts_with("stacyvm ") && out.ends_with(")\n"), "{out}");
    let (_, out, _) = ran(cli(&system, &["version", "--json"]));
    let version: Value = serde_json::from_str(&out).unwrap();
    assert!(version["version"].is_string() && version["arch"].is_string());
}

#[test]
fn wrong_usage_is_code_2_and_errors_are_code_1() {
    let system = System::new(mock());
    assert_eq!(ran(cli(&system, &["fly"])).0, 2);
    assert_eq!(ran(cli(&system, &["run"])).0, 2);
    let (code, out, err) = ran(cli(&system, &["list", "--server", "http://127.0.0.1:1"]));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("is `stacyvm serve` running?"), "{err}");
    assert!(!err.contains('\u{1b}'), "no colour into a pipe: {err:?}");
}

#[test]
fn the_configuration_can_be_looked_at() {
    let mut config = mock();
    config["auth"] = json!({ "api_key": "s3cret" });
    let system = System::new(config);
    let (code, out, _) = ran(cli(&system, &["config", "show"]));
    assert_eq!(code, 0);
    assert!(out.contains("max_exec_timeout") && !out.contains("s3cret"), "{out}");
    let (_, out, _) = ran(cli(&system, &["config", "show", "--json"]));
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["auth"]["api_key"], "[redacted]");
    assert_eq!(shown["server"]["host"], "127.0.0.1");
    let (code, out, _) = ran(cli(&system, &["config", "lint"]));
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("[PASS] config: ") && out.contains("[WARN] auth.api_key: "), "{out}");
    assert!(out.contains("\n  fix: "), "{out}");
    let (code, out, _) = ran(cli(&system, &["config", "lint", "--production"]));
    assert_eq!(code, 1);
    assert!(out.contains("[FAIL] auth.api_key: "), "{out}");
    let file = system.data_dir().with_file_name("other.yaml");
    std::fs::write(&file, "server: {prot: 1}").unwrap();
    let (code, out, _) = ran(cli(&system, &["config", "lint", "--file", file.to_str().unwrap()]));
    assert_eq!(code, 1);
    assert!(out.contains("did you mean `server.port`?"), "{out}");
}

#[tokio::test]
async fn a_sandbox_from_spawn_to_kill() {
    let mut system = System::new(mock());
    let server = system.start().await;
    let url = server.url();
    let call = |args: &[&str]| ran(cli(&system, &[&["--server", &url], args].concat()));

    assert_eq!(call(&["list"]), (0, "no sandboxes\n".to_owned(), String::new()));
    let (code, out, err) = call(&["spawn", "--image", "any", "--metadata", "a=b"]);
    assert_eq!(code, 0, "{err}");
    let id = out.split_whitespace().next().unwrap().to_owned();
    assert_eq!(out, format!("{id}  mock  any\n"));
    let (_, out, _) = call(&["list"]);
    assert!(out.starts_with("ID") && out.contains(&id) && out.contains("running"), "{out}");
    let (_, out, _) = call(&["ls", "--json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed[0]["metadata"]["a"], "b");

    let done = call(&["exec", &id, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(done, (7, "out\n".to_owned(), "err\n".to_owned()));
    let (code, out, _) =
        call(&["exec", &id, "--shell", "-e", "N=5", "--", "echo", "$N", "|", "cat"]);
    assert_eq!((code, out.as_str()), (0, "5\n"));
    let (code, _, err) = call(&["exec", &id, "--timeout", "200ms", "--", "sleep", "30"]);
    assert_eq!(code, 124, "{err}");
    assert_eq!(call(&["exec", &id, "--", "no-such-program"]).0, 127);
    assert_eq!(call(&["exec", &id, "--", "sh", "-c", "kill -9 $$"]).0, 137);

    let (code, out, _) = call(&["logs", &id]);
    assert!(code == 0 && !out.is_empty(), "{out}");
    assert_eq!(call(&["kill", &id]), (0, format!("{id} destroyed\n"), String::new()));
    let (code, _, err) = call(&["exec", &id, "--", "true"]);
    assert_eq!(code, 1);
    assert!(err.contains("stacyvm list"), "{err}");
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_key_is_asked_for_and_sent() {
    let mut config = mock();
    let key = "0123456789abcdef0123456789abcdef";
    config["auth"] = json!({ "api_key": key });
    config["server"] = json!({ "host": "127.0.0.1" });
    let mut system = System::new(config);
    let server = system.start().await;
    let url = server.url();
    let (code, _, err) = ran(cli(&system, &["list", "--server", &url]));
    assert_eq!(code, 1);
    assert!(err.contains("STACYVM_API_KEY"), "{err}");
    assert_eq!(ran(cli(&system, &["list", "--server", &url, "--api-key", key])).0, 0);
    let mut by_variable = cli(&system, &["list"]);
    by_variable.env("STACYVM_API_KEY", key).env("STACYVM_SERVER_URL", &url);
    // A proxy is no way to this machine's own loopback.
    by_variable.env("http_proxy", "http://127.0.0.1:1");
    assert_eq!(ran(by_variable).0, 0);
}

#[tokio::test]
async fn bug_41_a_door_that_should_be_locked_does_not_open() {
    for (change, args, said) in [
        (json!({ "auth": { "enabled": true } }), &[][..], "auth.enabled"),
        (json!({ "server": { "host": "0.0.0.0" } }), &[][..], "--insecure"),
        (json!({ "rate_limit": { "enabled": true } }), &[][..], "rate_limit.enabled"),
        (json!({ "providers": { "default": "docker" } }), &[][..], "providers.default"),
        (json!({}), &["--host", "::"][..], "--insecure"),
    ] {
        let mut config = mock();
        for (section, keys) in change.as_object().unwrap() {
            config[section] = keys.clone();
        }
        let system = System::new(config);
        let (code, _, err) = ran(cli(&system, &[&["serve"], args].concat()));
        assert_eq!(code, 1, "{change}");
        assert!(err.contains(said), "{change}: {err}");
        assert!(!system.data_dir().exists(), "nothing was begun: {change}");
    }
}

#[test]
fn a_foreign_data_directory_is_left_as_it_is() {
    let system = System::new(mock());
    std::fs::create_dir(system.data_dir()).unwrap();
    std::fs::write(system.data_dir().join("stacyvm.db"), "theirs").unwrap();
    for args in [&["serve"][..], &["run", "true"], &["image", "ls"]] {
        let (code, _, err) = ran(cli(&system, args));
        assert_eq!(code, 1, "{args:?}");
        assert!(err.contains("marker"), "{args:?}: {err}");
    }
    let names: Vec<_> = std::fs::read_dir(system.data_dir())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["stacyvm.db"]);
}

#[tokio::test]
async fn two_servers_do_not_share_a_data_directory() {
    let mut system = System::new(mock());
    let server = system.start().await;
    let (code, _, err) = ran(cli(&system, &["serve"]));
    assert_eq!(code, 1);
    assert!(err.contains("another stacyvm serve"), "{err}");
    assert_eq!(server.stop().await.code(), Some(0));
}

#[test]
fn run_passes_everything_through() {
    let system = System::new(json!({}));
    let run = |args: &[&str]| ran(cli(&system, &[&["run"], args].concat()));
    assert_eq!(run(&["--", "echo", "hi"]), (0, "hi\n".to_owned(), String::new()));
    let done = run(&["--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(done, (3, "out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(
        run(&["-e", "A=b c", "-w", "/tmp", "--", "sh", "-c", "echo $A $PWD"]).1,
        "b c /tmp\n"
    );
    assert_eq!(run(&["--", "sh", "-c", "kill -15 $$"]).0, 143);
    assert_eq!(run(&["--", "no-such-program"]).0, 127);
    let (code, _, err) = run(&["--timeout", "200ms", "--", "sleep", "30"]);
    assert_eq!(code, 124);
    assert!(err.contains("--timeout"), "{err}");
    let (code, _, err) = run(&["--image", "not:there", "--", "true"]);
    assert_eq!(code, 1);
    assert!(err.contains("not:there"), "{err}");
    assert!(system.leftovers().is_empty(), "{:?}", system.leftovers());
    assert_eq!(std::fs::read_dir(system.data_dir().join("run")).unwrap().count(), 0);
}

#[test]
fn run_takes_piped_input_byte_for_byte() {
    let system = System::new(json!({}));
    let input: Vec<u8> = (0..=255u8).cycle().take(3_000_000).collect();
    let count = cli(&system, &["run", "--", "sh", "-c", "cat | wc -c"]);
    assert_eq!(with_input(count, &input).1.trim(), "3000000");
    let mut command = cli(&system, &["run", "--", "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(output.stdout, input);
    // Nobody reads it: the command's end is the end.
    assert_eq!(with_input(cli(&system, &["run", "--", "true"]), &input).0, 0);
}

#[tokio::test]
async fn run_leaves_nothing_however_it_ends() {
    let system = System::new(json!({}));
    for (signal, code) in
        [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)]
    {
        let marker = format!("61{}", signal.as_raw());
        let mut command =
            cli(&system, &["run", "--", "sh", "-c", &format!("echo up; sleep {marker}")]);
        command.stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), code);
        wait_for("the command to end", SOON, async || match sleeping(&marker) {
            None => Ok(()),
            Some(process) => Err(process),
        })
        .await;
    }
    // What the killed one left, the next one clears.
    assert_eq!(ran(cli(&system, &["run", "true"])).0, 0);
    assert!(system.leftovers().is_empty(), "{:?}", system.leftovers());
    assert_eq!(std::fs::read_dir(system.data_dir().join("run")).unwrap().count(), 0);
}

/// A process that sleeps for so long.
fn sleeping(seconds: &str) -> Option<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut words = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    let wanted = format!("sleep\0{seconds}\0");
    words.find(|w| *w == wanted.as_bytes()).map(|w| String::from_utf8_lossy(&w).into_owned())
}

#[test]
fn a_closed_pipe_is_no_error_worth_a_word() {
    let system = System::new(json!({}));
    let mut command = cli(&system, &["run", "--", "yes"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut some = [0; 2];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut some).unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(told(&output), (141, String::new(), String::new()));
    assert!(system.leftovers().is_empty(), "{:?}", system.leftovers());
}

#[tokio::test]
async fn images_come_and_go_beside_a_live_server() {
    let mut system = System::new(json!({}));
    let rootfs = tempfile::tempdir().unwrap();
    if let Err(why) = busybox_rootfs(rootfs.path()) {
        println!("skipped: {why}");
        return;
    }
    let server = system.start().await;
    let image = |args: &[&str]| ran(cli(&system, &[&["image"], args].concat()));
    let dir = rootfs.path().to_str().unwrap();
    let (code, out, err) = image(&["import", dir, "--tag", "busybox:1"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("busybox:1  ") && !err.contains('\r'), "{out}{err}");
    let (_, out, _) = image(&["import", dir, "--tag", "alpine:latest"]);
    assert!(out.contains("was here already"), "{out}");
    let (_, out, _) = image(&["ls"]);
    assert!(out.contains("busybox:1") && out.contains("alpine:latest"), "{out}");
    let (_, out, _) = image(&["ls", "--json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(listed[0]["names"], json!(["alpine:latest", "busybox:1"]));

    let url = server.url();
    let (code, out, err) = ran(cli(&system, &["spawn", "--server", &url, "--image", "busybox:1"]));
    assert_eq!(code, 0, "{err}");
    let id = out.split_whitespace().next().unwrap().to_owned();
    let there = ran(cli(&system, &["exec", "--server", &url, &id, "--", "ls", "/bin/busybox"]));
    assert_eq!(there.1, "/bin/busybox\n");
    assert_eq!(image(&["rm", "alpine:latest"]).0, 0);
    let (code, _, err) = image(&["rm", "busybox:1"]);
    assert_eq!(code, 1);
    assert!(err.contains("in use"), "{err}");
    assert_eq!(ran(cli(&system, &["kill", "--server", &url, &id])).0, 0);
    assert_eq!(image(&["rm", "busybox:1"]).0, 0);
    assert_eq!(image(&["rm", "busybox:1"]).0, 1);
    let (code, out, _) = ran(cli(&system, &["run", "--image", "busybox:1", "--", "true"]));
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(server.stop().await.code(), Some(0));
}

#[test]
fn doctor_looks_and_touches_nothing() {
    let system = System::new(json!({}));
    let (code, out, err) = ran(cli(&system, &["doctor"]));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("[PASS] native.kernel: ") && out.contains("data_dir: "), "{out}");
    assert!(!Path::new(&system.data_dir()).exists());
    let (code, out, _) = ran(cli(&system, &["doctor", "--production", "--json"]));
    assert_eq!(code, 1);
    let checks: Value = serde_json::from_str(&out).unwrap();
    let failed = checks.as_array().unwrap().iter().filter(|c| c["status"] == "FAIL");
    assert!(failed.clone().any(|c| c["name"] == "auth.api_key" && c["fix"].is_string()));
}
