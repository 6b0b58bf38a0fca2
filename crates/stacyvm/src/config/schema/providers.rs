//! `providers.*`: what sandboxes are made with.

use std::collections::BTreeMap;
use std::time::Duration;

use types::Secret;

use crate::config::section::{choice, section};

section! {
    /// `providers.*`
    Providers {
        /// Empty or `auto` until resolved to `native`.
        default: String,
        native: Native,
        mock: Mock,
        docker: Docker,
        firecracker: Firecracker,
        e2b: E2b,
        custom: Custom,
        proot: Proot,
    }
}

section! {
    /// `providers.native.*`
    Native {
        enabled: bool = true,
        /// Processes of one sandbox.
        pids_limit: u32 = 256,
        storage: NativeStorage = NativeStorage::Auto,
        /// How large the store of writable layers may grow; 0: half of what is free.
        storage_size_mb: u64,
        /// Sandboxes' parts that are prepared ahead of time; 0: none.
        pool: u32 = 64,
    }
}

choice! {
    /// Where the writable layers of native sandboxes lie.
    NativeStorage {
        Auto = "auto",
        Disk = "disk",
        Tmpfs = "tmpfs",
    }
}

section! {
    /// `providers.mock.*`
    Mock {
        enabled: bool,
    }
}

section! {
    /// `providers.docker.*`. Not served yet: known, at its defaults.
    Docker {
        enabled: bool = true,
        socket: String,
        runtime: String = "runc".to_owned(),
        default_image: String = "alpine:latest".to_owned(),
        network_mode: String = "bridge".to_owned(),
        seccomp_profile: String = "default".to_owned(),
        read_only_rootfs: bool,
        memory: String = "512m".to_owned(),
        cpus: String = "1".to_owned(),
        pids_limit: i64 = 256,
        user: String,
        dropped_caps: Vec<String> = vec!["ALL".to_owned()],
        added_caps: Vec<String>,
        tmpfs: BTreeMap<String, String>,
        pool_security: PoolSecurity,
    }
}

section! {
    /// `providers.docker.pool_security.*`
    PoolSecurity {
        per_user_uid: bool,
        pid_namespace: bool,
        hidepid: bool,
        workspace_permissions: bool = true,
    }
}

section! {
    /// `providers.firecracker.*`. Not served yet: known, at its defaults.
    Firecracker {
        enabled: bool = true,
        firecracker_path: String = "/usr/local/bin/firecracker".to_owned(),
        kernel_path: String = "/var/lib/stacyvm/vmlinux.bin".to_owned(),
        default_rootfs: String,
        agent_path: String = "./bin/stacyvm-agent".to_owned(),
        data_dir: String = "/var/lib/stacyvm".to_owned(),
    }
}

section! {
    /// `providers.e2b.*`
    E2b {
        enabled: bool,
        api_key: Secret,
        base_url: String = "https://api.e2b.dev".to_owned(),
    }
}

section! {
    /// `providers.custom.*`
    Custom {
        enabled: bool,
        name: String = "custom".to_owned(),
        base_url: String,
        api_key: Secret,
        timeout: Duration = Duration::from_secs(60),
    }
}

section! {
    /// `providers.proot.*`
    Proot {
        enabled: bool,
        proot_binary: String = "proot".to_owned(),
        rootfs_path: String = "/var/lib/stacyvm/rootfs".to_owned(),
        workspace_base: String = "/var/lib/stacyvm/workspaces".to_owned(),
        default_timeout: Duration = Duration::from_secs(60),
        max_sandboxes: u64 = 10,
        max_memory_mb: u64 = 512,
        max_disk_mb: u64 = 1024,
        languages: Vec<String> =
            ["python3", "node", "bash"].map(str::to_owned).to_vec(),
    }
}
