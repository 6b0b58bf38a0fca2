//! Turns what a caller wants into an order to the spawner.

use protocol::spawner::{Root, SpawnSpec, Upper};

use crate::CreateSpec;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const HOME: &str = "HOME=/root";
const WORKDIR: &str = "/workspace";
const MIB: u64 = 1 << 20;

pub(super) fn spawn_spec(spec: &CreateSpec, upper: Upper, pids: u32) -> SpawnSpec {
    let memory = u64::from(spec.size.memory_mb) * MIB;
    // A tmpfs is charged to the sandbox: without its size on top, files would eat the memory.
    let on_top = match &upper {
        Upper::Tmpfs { bytes, .. } => *bytes,
        Upper::Disk { .. } => 0,
    };
    SpawnSpec {
        id: spec.id.to_string(),
        hostname: spec.id.to_string(),
        root: Root::Overlay {
            layers: spec.image.layers.clone(),
            binds: spec.image.binds.clone(),
            upper,
        },
        // The home of another user stands in the image's list of users.
        env: match spec.image.user {
            Some(_) => environment(&[PATH], &spec.image.env),
            None => environment(&[PATH, HOME], &spec.image.env),
        },
        user: spec.image.user.clone(),
        workdir: spec.image.workdir.clone().unwrap_or_else(|| WORKDIR.into()),
        memory_bytes: memory + on_top,
        cpu_millis: spec.size.vcpus.saturating_mul(1000),
        pids,
        deadline_boot_nanos: spec.deadline.nanos(),
        limits: Default::default(),
        dies_with_fd: spec.tied,
        slot: None,
    }
}

/// Ours first; the image's wins where both name one.
pub(crate) fn environment(ours: &[&str], image: &[String]) -> Vec<String> {
    let key = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    let named: Vec<String> = image.iter().map(|v| key(v)).collect();
    let kept = ours.iter().filter(|v| !named.contains(&key(v))).map(|v| (*v).to_owned());
    kept.chain(image.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PreparedImage;
    use types::clock::BootTime;
    use types::{SandboxId, SandboxSize};

    fn spec(env: &[&str]) -> CreateSpec {
        CreateSpec {
            id: SandboxId::parse("sb-1").unwrap(),
            dir: "/d".into(),
            socket: None,
            image: PreparedImage {
                env: env.iter().map(|v| (*v).into()).collect(),
                ..Default::default()
            },
            size: SandboxSize { memory_mb: 64, vcpus: 2, disk_size_mb: 100 },
            deadline: BootTime::from_nanos(9),
            tied: false,
        }
    }

    #[test]
    fn memory_and_environment() {
        let disk = spawn_spec(&spec(&[]), Upper::Disk { name: "n".into() }, 7);
        assert_eq!((disk.memory_bytes, disk.cpu_millis, disk.pids), (64 << 20, 2000, 7));
        assert_eq!(disk.env, [PATH, HOME]);
        assert_eq!(disk.workdir, "/workspace");
        let upper = Upper::Tmpfs { bytes: 100 << 20, inodes: 1 };
        let tmpfs = spawn_spec(&spec(&["PATH=/x", "A=b"]), upper, 7);
        assert_eq!(tmpfs.memory_bytes, 164 << 20);
        assert_eq!(tmpfs.env, [HOME, "PATH=/x", "A=b"]);
    }
}
