//! Real programs do their ordinary work in a sandbox: on the image `host`, and on an imported one.

use std::process::Command;

use client::api::SpawnRequest;
use testkit::wait_for;

use super::crashes::world::{IMAGE, SOON, Server, World, in_time, shell};

/// The Debian python of the machine, which the image `host` shows.
const PYTHON: &str = "/usr/bin/python3";

struct Bench {
    world: World,
    server: Server,
    id: String,
}

/// A sandbox with room for a compiler.
async fn on(image: &str) -> Bench {
    let mut world = World::new("native");
    let server = world.start().await;
    let wanted = SpawnRequest {
        image: Some(image.to_owned()),
        memory_mb: Some(512),
        disk_size_mb: Some(256),
        ..SpawnRequest::default()
    };
    let id = server.spawn_as(wanted).await.id;
    Bench { world, server, id }
}

impl Bench {
    async fn said(&self, script: &str) -> String {
        self.server.said(&self.id, script).await
    }

    async fn put(&self, path: &str, content: &str) {
        let put = self.server.client.write_file(&self.id, path, content, None);
        in_time("a write", put).await.unwrap();
    }

    /// Content that is no text, as the file API takes it.
    async fn put_bytes(&self, path: &str, bytes: &[u8]) {
        self.put(&format!("{path}.b64"), &base64(bytes)).await;
        self.said(&format!("base64 -d {path}.b64 > {path} && rm {path}.b64")).await;
    }

    async fn end(self) {
        self.server.destroy(&self.id).await;
        self.server.stop().await;
        self.world.assert_nothing_left().await;
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[bits >> (18 - 6 * place) & 63];
            text.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[test]
fn base64_is_what_others_read() {
    for (bytes, text) in [(&b""[..], ""), (b"a", "YQ=="), (b"ab", "YWI="), (b"abc\xff", "YWJj/w==")]
    {
        assert_eq!(base64(bytes), text);
    }
}

#[tokio::test]
async fn a_python_script_with_files_and_subprocesses() {
    let bench = on("host").await;
    bench.put("/workspace/work.py", PYTHON_WORK).await;
    let told = bench.said("python3 work.py 2>&1").await;
    assert_eq!(told.lines().last(), Some("all is well"), "{told}");
    let report = bench.server.client.read_file(&bench.id, "/workspace/report.json").await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["squares"][9], 81);
    assert_eq!(report["children"], serde_json::json!([0, 1, 2, 3]));
    bench.end().await;
}

const PYTHON_WORK: &str = r#"
import concurrent.futures, json, multiprocessing, os, pathlib, sqlite3, subprocess, sys, tempfile, threading

base = pathlib.Path("tree")
for n in range(50):
    (base / str(n % 5)).mkdir(parents=True, exist_ok=True)
    (base / str(n % 5) / f"{n}.txt").write_text("ü" * n)
assert sum(len(p.read_text()) for p in base.rglob("*.txt")) == sum(range(50))

out = subprocess.run(["sort", "-rn"], input="\n".join(map(str, range(1000))), text=True,
                     capture_output=True, check=True).stdout.split()
assert out[0] == "999", out[:3]
piped = subprocess.Popen("seq 100 | tail -1", shell=True, stdout=subprocess.PIPE, text=True)
assert piped.communicate()[0] == "100\n" and piped.returncode == 0
failed = subprocess.run([sys.executable, "-c", "raise SystemExit(3)"])
assert failed.returncode == 3

with tempfile.TemporaryDirectory() as folder:
    db = sqlite3.connect(os.path.join(folder, "db"))
    db.execute("create table t (n)")
    db.executemany("insert into t values (?)", [(n,) for n in range(1000)])
    db.commit()
    assert db.execute("select sum(n) from t").fetchone() == (499500,)

seen = []
threads = [threading.Thread(target=seen.append, args=(n,)) for n in range(20)]
[t.start() for t in threads], [t.join() for t in threads]
assert sorted(seen) == list(range(20))

def square(n):
    return n * n

if __name__ == "__main__":
    with multiprocessing.Pool(3) as pool:
        squares = pool.map(square, range(10))
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert sum(pool.map(square, range(10))) == sum(squares)
    children = []
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            os._exit(n)
        children.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    json.dump({"squares": squares, "children": children}, open("report.json", "w"))
    print("all is well")
"#;

#[tokio::test]
async fn a_shell_pipeline() {
    for image in ["host", IMAGE] {
        let bench = on(image).await;
        let sorted = bench.said("seq 1 1000 | grep 7 | sort -rn | head -3 | tr '\\n' ' '").await;
        assert_eq!(sorted.trim(), "997 987 979", "{image}");
        let words = "printf 'b a\\nc b a\\na\\n' > f; tr -s ' ' '\\n' < f | sort | uniq -c | \
                     sort -rn | awk '{print $2 $1}' | tr '\\n' ,";
        assert_eq!(bench.said(words).await, "a3,b2,c1,", "{image}");
        let large = "head -c 20000000 /dev/zero | tr '\\0' x | tee copy | gzip -c | gunzip -c > back; \
                     cmp back copy && wc -c < copy";
        assert_eq!(bench.said(large).await, "20000000", "{image}");
        let tree = "mkdir -p d/e && echo x > d/e/f && tar cf - d | (mkdir o && cd o && tar xf -) && \
                    find o -type f -exec cat {} +";
        assert_eq!(bench.said(tree).await, "x", "{image}");
        let here =
            "cat <<END | sed s/one/two/ | while read -r line; do echo \"[$line]\"; done\none\nEND";
        assert_eq!(bench.said(here).await, "[two]", "{image}");
        bench.end().await;
    }
}

#[tokio::test]
async fn a_c_program_is_compiled_and_run() {
    let bench = on("host").await;
    bench.put("/workspace/sum.c", C_PROGRAM).await;
    bench
        .put("/workspace/Makefile", "sum: sum.c\n\tgcc -O2 -Wall -Werror -pthread -o $@ $<\n")
        .await;
    let made =
        "if command -v make > /dev/null; then make -s; else gcc -O2 -pthread -o sum sum.c; fi";
    bench.said(&format!("{made} 2>&1")).await;
    assert_eq!(bench.said("./sum 8").await, "8 threads: 28");
    let done = bench.server.sh(&bench.id, "./sum").await;
    assert_eq!((done.exit_code, done.stderr.as_str()), (2, "how many?\n"));
    assert_eq!(bench.server.sh(&bench.id, "./sum crash").await.exit_code, 128 + 6);
    bench.end().await;
}

const C_PROGRAM: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long total;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *add(void *n) {
    pthread_mutex_lock(&lock);
    total += (long)n;
    pthread_mutex_unlock(&lock);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 2) { fputs("how many?\n", stderr); return 2; }
    if (!strcmp(argv[1], "crash")) abort();
    long count = atol(argv[1]);
    pthread_t *threads = calloc(count, sizeof *threads);
    for (long n = 0; n < count; n++) if (pthread_create(&threads[n], NULL, add, (void *)n)) return 1;
    for (long n = 0; n < count; n++) pthread_join(threads[n], NULL);
    printf("%ld threads: %ld\n", count, total);
    return 0;
}
"#;

#[tokio::test]
async fn a_server_inside_answers_a_client_inside() {
    let server_of = [
        (
            "host",
            "exec python3 -u -m http.server 8765 --bind 127.0.0.1",
            "python3 -c \"from urllib.request import urlopen as u; print(u('http://localhost:8765/page').read().decode())\"",
        ),
        (IMAGE, "exec httpd -f -p 127.0.0.1:8765", "wget -q -O - http://127.0.0.1:8765/page"),
    ];
    for (image, serve, ask) in server_of {
        let bench = on(image).await;
        bench.put("/workspace/page", "served inside").await;
        let mut serving = bench.server.stream(&bench.id, &format!("echo up; {serve}")).await;
        in_time("its start", serving.next()).await.unwrap();
        wait_for("an answer", SOON, async || {
            let done = bench.server.sh(&bench.id, ask).await;
            if done.stdout.trim() == "served inside" { Ok(()) } else { Err(done.stderr) }
        })
        .await;
        // Each sandbox has a loopback of its own.
        let other = bench
            .server
            .spawn_as(SpawnRequest { image: Some(image.to_owned()), ..Default::default() });
        let other = other.await.id;
        assert_ne!(bench.server.sh(&other, ask).await.exit_code, 0, "{image}");
        bench.server.destroy(&other).await;
        // Also when it is left alone in the background.
        drop(serving);
        let alone = format!(
            "{} > /dev/null 2>&1 & sleep 0.1",
            serve.replace("exec ", "").replace("8765", "8766")
        );
        bench.said(&alone).await;
        let ask = ask.replace("8765", "8766");
        wait_for("an answer of the other", SOON, async || {
            let done = bench.server.sh(&bench.id, &ask).await;
            if done.stdout.trim() == "served inside" { Ok(()) } else { Err(done.stderr) }
        })
        .await;
        bench.end().await;
    }
}

#[tokio::test]
async fn pip_installs_a_wheel_from_a_file() {
    let bench = on("host").await;
    let name = "tiny_tool-1.2-py3-none-any.whl";
    bench.put_bytes(&format!("/workspace/{name}"), &wheel(name)).await;
    bench.said("python3 -m venv env 2>&1").await;
    let install = "env/bin/pip install --no-index --disable-pip-version-check";
    bench.said(&format!("{install} ./{name} 2>&1")).await;
    assert_eq!(bench.said("env/bin/tiny-tool").await, "tiny 1.2");
    assert_eq!(
        bench.said("env/bin/pip show --disable-pip-version-check tiny-tool | head -2").await,
        "Name: tiny-tool\nVersion: 1.2"
    );
    // Without an environment: into the user's own folder, since the host's is read-only.
    bench
        .said(&format!(
            "python3 -m pip install --no-index --break-system-packages --user ./{name} 2>&1"
        ))
        .await;
    assert_eq!(
        bench.said("cd / && python3 -c 'import tiny_tool; tiny_tool.main()'").await,
        "tiny 1.2"
    );
    assert_eq!(bench.said("/root/.local/bin/tiny-tool").await, "tiny 1.2");
    bench.end().await;
}

/// A wheel of our own: a module and a program.
fn wheel(name: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let script = r#"
import sys, zipfile
info = "tiny_tool-1.2.dist-info"
files = {
    "tiny_tool.py": "def main():\n    print('tiny 1.2')\n",
    f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-tool\nVersion: 1.2\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{info}/entry_points.txt": "[console_scripts]\ntiny-tool = tiny_tool:main\n",
}
files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as out:
    for name, text in files.items():
        out.writestr(name, text)
"#;
    let made = Command::new(PYTHON).args(["-c", script]).arg(&path).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn users_change_on_the_image_host() {
    let bench = on("host").await;
    if !has_uid_range(&bench.server).await {
        println!("skipped: one user id is all that a rootless sandbox has");
        return bench.end().await;
    }
    assert_eq!(bench.said("id -u; id -g").await, "0\n0");
    bench.said("touch f && chown 1234:4321 f").await;
    assert_eq!(bench.said("stat -c '%u %g' f").await, "1234 4321");
    assert_eq!(bench.said("su -s /bin/sh nobody -c 'id -u'").await, "65534");
    assert_eq!(bench.said("setpriv --reuid 1234 --regid 4321 --clear-groups id -u").await, "1234");
    let python = "import os; os.setgroups([5]); os.setgid(7); os.setuid(8); \
                  print(os.getresuid(), os.getresgid(), os.getgroups())";
    assert_eq!(bench.said(&format!("python3 -c '{python}'")).await, "(8, 8, 8) (7, 7, 7) [5]");
    // As a package's scripts do.
    bench
        .said("useradd --system --create-home --home-dir /home/tool --shell /bin/sh tool 2>&1")
        .await;
    assert_eq!(
        bench.said("su tool -c 'cd && pwd && touch mine && stat -c %U mine'").await,
        "/home/tool\ntool"
    );
    bench.said("chmod 600 f").await;
    assert_ne!(bench.server.sh(&bench.id, "su tool -c 'cat /workspace/f'").await.exit_code, 0);
    // What dpkg and tar rely on: root's reach over files of others, and modes that stay.
    let install = "install -o 33 -g 33 -m 4755 /bin/true s && stat -c '%u %g %a' s && \
                   tar cf s.tar s && rm s && tar xpf s.tar --same-owner && stat -c '%u %g %a' s";
    assert_eq!(bench.said(install).await, "33 33 4755\n33 33 4755");
    bench.end().await;
}

#[tokio::test]
async fn users_change_on_an_imported_image() {
    let bench = on(IMAGE).await;
    if !has_uid_range(&bench.server).await {
        println!("skipped: one user id is all that a rootless sandbox has");
        return bench.end().await;
    }
    // Some busyboxes can add users; all can take what is written.
    let users = "echo nobody:x:65534:65534:nobody:/:/bin/sh >> /etc/passwd; \
                 echo tool:x:1000:1000:tool:/home/tool:/bin/sh >> /etc/passwd; \
                 echo tools:x:1000: >> /etc/group; mkdir -p /home/tool && chown tool:tools /home/tool";
    bench.said(users).await;
    assert_eq!(bench.said("su tool -c 'id -un; cd; pwd; touch mine'").await, "tool\n/home/tool");
    assert_eq!(bench.said("touch f; chown tool:tools f; stat -c '%U %G' f").await, "tool tools");
    assert_eq!(bench.said("su nobody -c 'id -u'").await, "65534");
    assert_ne!(
        bench.server.sh(&bench.id, "su nobody -c 'echo x > /workspace/f'").await.exit_code,
        0
    );
    assert_eq!(bench.said("su tool -c 'id -u; id -G'").await, "1000\n1000");
    bench.end().await;
}

async fn has_uid_range(server: &Server) -> bool {
    let native = server.client.provider("native").await.unwrap();
    native.health.capabilities.iter().any(|c| c == "uid_range")
}

#[tokio::test]
async fn programs_that_ask_much_of_a_system_run() {
    let bench = on("host").await;
    // Locale, time, terminals, shared memory, signals, many descriptors.
    assert_eq!(bench.said("LC_ALL=C.UTF-8 perl -e 'print ucfirst(\"done\")'").await, "Done");
    assert_eq!(bench.said("TZ=UTC date -d @0 +%Y-%m-%d").await, "1970-01-01");
    let script = "script -qec 'tty > /dev/null && echo terminal' /dev/null | tr -d '\\r'";
    if bench.server.sh(&bench.id, "command -v script").await.exit_code == 0 {
        assert_eq!(bench.said(script).await, "terminal");
    }
    let shared = "from multiprocessing import shared_memory as s; m = s.SharedMemory(create=True, \
                  size=1 << 20); m.buf[:2] = b'ok'; print(bytes(m.buf[:2]).decode()); m.close(); m.unlink()";
    assert_eq!(bench.said(&format!("python3 -c \"{shared}\"")).await, "ok");
    assert_eq!(bench.said("trap 'echo caught' TERM; kill $$; echo on").await, "caught\non");
    assert_eq!(bench.said("timeout 0.2 sleep 9; echo $?").await, "124");
    let sockets = "import socket as s; a, b = s.socketpair(); a.send(b'x'); print(b.recv(1).decode()); \
                   l = s.socket(s.AF_UNIX); l.bind('sock'); l.listen(); \
                   c = s.socket(s.AF_UNIX); c.connect('sock'); print(len(s.if_nameindex()))";
    assert_eq!(bench.said(&format!("python3 -c \"{sockets}\"")).await, "x\n1");
    let git = "git init -q r && cd r && git -c user.name=a -c user.email=b commit -q --allow-empty -m c && \
               git log --format=%s";
    if bench.server.sh(&bench.id, "command -v git").await.exit_code == 0 {
        assert_eq!(bench.said(git).await, "c");
    }
    // A stop and its continuation.
    let stopped = "sleep 603.5 & kill -STOP $!; kill -CONT $!; kill $!; wait $!; echo $?";
    let done =
        in_time("signals", bench.server.client.exec(&bench.id, &shell(stopped))).await.unwrap();
    assert_eq!(done.stdout, "143\n");
    bench.end().await;
}
