//! What a sandbox is: who one is inside, what one may, and what can be read there of the host.

use super::control;
use super::ground::{Ground, IMAGE, SECRET, Target};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
/// SYS_CHROOT, SETFCAP: Docker's default less NET_RAW, MKNOD and AUDIT_WRITE.
const CAPABILITIES: &str = "00000000800405fb";

async fn status(target: &Target<'_>, name: &str) -> String {
    target.shell(&format!("sed -n 's/^{name}:[^0-9a-f]*//p' /proc/self/status")).await
}

#[tokio::test]
async fn capabilities_are_exactly_those_decided() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    for image in [IMAGE, "host"] {
        let target = ground.spawn(image).await;
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status(&target, set).await.trim(), CAPABILITIES, "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status(&target, set).await.trim(), "0000000000000000", "{set}");
        }
        assert_eq!(status(&target, "NoNewPrivs").await, "1\n");
        assert_eq!(status(&target, "Seccomp").await, "2\n");
        // And they are good for what they are there for.
        let work = "cd /workspace && touch f && chown 1000:1000 f && stat -c %u:%g f";
        assert_eq!(target.shell(work).await, "1000:1000\n");
        assert_eq!(target.shell("chroot / id -u").await, "0\n");
    }
    ground.end().await;
}

#[tokio::test]
async fn the_environment_is_the_images() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    for image in [IMAGE, "host"] {
        let target = ground.spawn(image).await;
        let done = target.exec(&["env"], "10s").await.unwrap();
        let mut names: Vec<&str> =
            done.stdout.lines().filter_map(|l| l.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "PATH"], "{}", done.stdout);
        // Whatever can be read of any process: nothing of the server's is among it.
        let all = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; :";
        assert!(!target.shell(all).await.contains(SECRET));
    }
    ground.end().await;
}

#[tokio::test]
async fn nothing_inside_names_the_host() {
    if !control::possible() {
        return;
    }
    let ground = Ground::new().await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let folder = ground.system().data_dir();
    let folder = folder.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let marker = std::fs::read_to_string(ground.system().data_dir().join("stacyvm-data")).unwrap();
    let installation = marker.lines().find_map(|l| l.strip_prefix("installation "));
    let words = [&folder, installation.unwrap(), "stacyvm-data"];
    for image in [IMAGE, "host"] {
        let target = ground.spawn(image).await;
        assert_eq!(target.shell("hostname").await.trim(), target.id);
        let seen = target
            .shell(
                "cat /proc/self/mountinfo /proc/self/cgroup /proc/1/cmdline /proc/1/comm \
                 /proc/1/status /proc/net/unix /etc/hosts /etc/hostname; hostname; \
                 ls -l /proc/self/fd /proc/self/ns",
            )
            .await;
        for word in words {
            assert!(!seen.contains(word), "{word:?} in {seen}");
        }
        // As a word of its own: some hosts' names are short.
        let named = seen.split(|c: char| !c.is_alphanumeric()).any(|word| word == host.trim());
        assert!(!named, "{host:?} in {seen}");
        // The root is one mount whose options name no folder of the host.
        let root = seen.lines().find(|l| l.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.contains(" overlay ") && !root.contains("=/"), "{root}");
        for refused in ["cgroup", "sysfs", "debugfs", "tracefs", "securityfs", "bpf"] {
            let kind = format!(" - {refused} ");
            let mounted = seen.lines().find(|l| l.contains(&kind));
            assert!(mounted.is_none_or(|l| l.contains(" ro,")), "{mounted:?}");
        }
    }
    ground.end().await;
}
