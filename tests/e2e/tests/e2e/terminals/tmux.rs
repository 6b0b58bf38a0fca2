//! Real programs on a real terminal: tmux stands for the user's.

use std::process::{Command, Stdio};

use serde_json::json;
use testkit::{System, stacyvm, wait_for};

use super::{Bed, SOON, config};
use crate::e2e::crashes::world::running;

/// A terminal of its own server, 100 by 30, that ends with the test.
struct Tmux {
    dir: tempfile::TempDir,
}

impl Tmux {
    fn start(command: &str) -> Self {
        let tmux = Self { dir: tempfile::tempdir().unwrap() };
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", command]);
        tmux.run(&["set-option", "-g", "remain-on-exit", "on"]);
        tmux
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.dir.path().join("tmux"))
            .args(args)
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .expect("tmux can be run: scripts/test installs it");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "tmux {args:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Waits until the screen shows `text`.
    async fn shows(&self, text: &str) {
        wait_for(&format!("{text:?} on the screen"), SOON, async || {
            let screen = self.run(&["capture-pane", "-p"]);
            if screen.contains(text) { Ok(()) } else { Err(screen) }
        })
        .await;
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let socket = self.dir.path().join("tmux");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

/// A shell that runs `command` in the terminal, and then says whether it is cooked again.
fn then_cooked(command: &str) -> String {
    format!(
        "sh -c '{command}; echo \"ended $?\"; stty -a | grep -q \" icanon\" && \
         stty -a | grep -q \" echo \" && echo \"cooked again\"; exec cat'"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn vim_top_python_and_job_control_by_exec_it() {
    let bed = Bed::make("native").await;
    let command = format!(
        "{} --server {} exec -it {} -- sh",
        stacyvm().display(),
        bed.server.url(),
        bed.sandbox
    );
    let tmux = Tmux::start(&then_cooked(&command));
    tmux.keys(&["PS1='ready> '", "Enter"]);
    tmux.shows("ready>").await;
    tmux.keys(&["stty size; echo ${TERM:+terminal}-known", "Enter"]);
    tmux.shows("30 100").await;
    tmux.shows("terminal-known").await;
    // Ctrl-C ends what runs, not the shell; Ctrl-Z stops it, and it can be brought back.
    tmux.keys(&["sleep 1000.25", "Enter"]);
    running(&["sleep", "1000.25"]).await;
    tmux.keys(&["C-c"]);
    tmux.keys(&["echo code $?", "Enter"]);
    tmux.shows("code 130").await;
    tmux.keys(&["sleep 1001", "Enter"]);
    wait_for("it to be stopped", SOON, async || {
        tmux.keys(&["C-z"]);
        let screen = tmux.run(&["capture-pane", "-p"]);
        if screen.contains("Stopped") { Ok(()) } else { Err(screen) }
    })
    .await;
    tmux.keys(&["kill -9 %1; clear", "Enter"]);
    // A window that changes its size.
    tmux.run(&["resize-window", "-x", "72", "-y", "20"]);
    wait_for("the new size", SOON, async || {
        tmux.keys(&["stty size", "Enter"]);
        let screen = tmux.run(&["capture-pane", "-p"]);
        if screen.contains("20 72") { Ok(()) } else { Err(screen) }
    })
    .await;
    tmux.keys(&["clear; vim -u NONE /workspace/written.txt", "Enter"]);
    tmux.shows("written.txt").await;
    tmux.keys(&["itext from vim", "Escape"]);
    tmux.shows("text from vim").await;
    tmux.keys(&[":wq", "Enter"]);
    tmux.shows("ready>").await;
    let file = bed.call("GET", "/files?path=/workspace/written.txt", json!(null)).await;
    assert_eq!(file.text(), "text from vim\n");
    tmux.keys(&["clear; top -d 1", "Enter"]);
    tmux.shows("load average").await;
    wait_for("top to end", SOON, async || {
        tmux.keys(&["q"]);
        let screen = tmux.run(&["capture-pane", "-p"]);
        if screen.contains("ready>") { Ok(()) } else { Err(screen) }
    })
    .await;
    tmux.keys(&["C-u", "clear; /usr/bin/python3 -i -q", "Enter"]);
    tmux.shows(">>>").await;
    tmux.keys(&["print(6 * 7, 'is it')", "Enter"]);
    tmux.shows("42 is it").await;
    tmux.keys(&["C-d"]);
    tmux.keys(&["clear; exit 7", "Enter"]);
    tmux.shows("ended 7").await;
    tmux.shows("cooked again").await;
    drop(tmux);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_and_leave_and_the_terminal_is_put_back_by_signals_too() {
    let bed = Bed::make("native").await;
    let body = json!({ "command": "echo up; exec cat", "detach": true, "tty": true });
    let exec = bed.exec(body).await.json().unwrap()["exec_id"].as_str().unwrap().to_owned();
    let command = format!(
        "{} --server {} attach {} {exec}",
        stacyvm().display(),
        bed.server.url(),
        bed.sandbox
    );
    let tmux = Tmux::start(&then_cooked(&command));
    tmux.shows("up").await;
    tmux.keys(&["typed here", "Enter"]);
    tmux.shows("typed here\ntyped here").await;
    tmux.keys(&["C-p", "C-q"]);
    tmux.shows("ended 0").await;
    tmux.shows("cooked again").await;
    drop(tmux);
    let record = bed.call("GET", &format!("/execs/{exec}"), json!(null)).await.json().unwrap();
    assert_eq!(record["state"], "running");
    // A signal to our own process.
    let tmux = Tmux::start(&then_cooked(&command));
    tmux.shows("up").await;
    let stacyvm = stacyvm().display().to_string();
    let url = bed.server.url();
    let words = [&stacyvm, "--server", &url, "attach", &bed.sandbox, &exec];
    let process = wait_for("the process", SOON, async || {
        testkit::Process::running(&words).ok_or("it is not there")
    })
    .await;
    let pid = rustix::process::Pid::from_raw(process.pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    tmux.shows("ended 143").await;
    tmux.shows("cooked again").await;
    drop(tmux);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_put_back_by_a_panic_too() {
    if !cfg!(debug_assertions) {
        println!("skipped: a release build has no place to panic at");
        return;
    }
    let bed = Bed::make("mock").await;
    let command = format!(
        "RUST_BACKTRACE=0 STACYVM_FAILPOINT=terminal.shown! {} --server {} exec -it {} -- sh",
        stacyvm().display(),
        bed.server.url(),
        bed.sandbox
    );
    let tmux = Tmux::start(&then_cooked(&command));
    // Our own panic, on a terminal that begins each line at its edge again.
    tmux.shows("terminal.shown was told to panic").await;
    tmux.shows("ended 101").await;
    tmux.shows("cooked again").await;
    drop(tmux);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_it_needs_no_server() {
    let system = System::new(config("native"));
    let command = format!(
        "{} --config {} run -it -- sh",
        stacyvm().display(),
        system.config_file().display()
    );
    let tmux = Tmux::start(&then_cooked(&command));
    tmux.keys(&["PS1='ready> '; tty && stty size", "Enter"]);
    tmux.shows("30 100").await;
    tmux.run(&["resize-window", "-x", "61", "-y", "17"]);
    wait_for("the new size", SOON, async || {
        tmux.keys(&["stty size", "Enter"]);
        let screen = tmux.run(&["capture-pane", "-p"]);
        if screen.contains("17 61") { Ok(()) } else { Err(screen) }
    })
    .await;
    tmux.keys(&["clear; exit 5", "Enter"]);
    tmux.shows("ended 5").await;
    tmux.shows("cooked again").await;
    drop(tmux);
    assert!(system.leftovers().is_empty(), "{:?}", system.leftovers());
}
