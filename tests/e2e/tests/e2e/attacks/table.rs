//! What each plain attack has to answer, and where it works.

use super::control::Control::{self, Nowhere, Root, User};

/// An attack that needs nothing of the test, the errors that it may be held with, and its control.
pub struct Row {
    pub attack: &'static str,
    pub held: &'static [&'static str],
    pub control: Control,
}

const fn row(attack: &'static str, held: &'static [&'static str], control: Control) -> Row {
    Row { attack, held, control }
}

const PERM: &[&str] = &["EPERM"];
const NOSYS: &[&str] = &["ENOSYS"];
const FAMILY: &[&str] = &["EAFNOSUPPORT"];
/// Known to nobody, or refused: either is right where the kernel's list has grown.
const GONE: &[&str] = &["EPERM", "ENOSYS"];

const NO_MODULES: Control = Nowhere("this kernel takes no modules");
const NO_KEXEC: Control = Nowhere("this kernel cannot start another");
const NOT_BUILT: Control = Nowhere("not in this kernel");
const REAL: Control = Nowhere("it would be real");

/// Single system calls and more namespaces.
pub const CALLS: &[Row] = &[
    row("init_module", PERM, NO_MODULES),
    row("finit_module", PERM, NO_MODULES),
    row("delete_module", PERM, NO_MODULES),
    row("create_module", GONE, NOT_BUILT),
    row("kexec_load", PERM, NO_KEXEC),
    row("kexec_file_load", PERM, NO_KEXEC),
    row("keyctl", PERM, User),
    row("add_key", PERM, User),
    row("request_key", PERM, User),
    row("bpf", PERM, Root),
    row("perf_event_open", PERM, User),
    row("io_uring_setup", PERM, User),
    row("io_uring_enter", PERM, User),
    row("io_uring_register", PERM, User),
    row("userfaultfd", PERM, Root),
    row("userfaultfd_user", PERM, User),
    row("fanotify_init", PERM, Root),
    row("open_by_handle_at", PERM, Root),
    row("quotactl", PERM, User),
    row("quotactl_fd", PERM, User),
    row("swapon", PERM, Root),
    row("swapoff", PERM, Root),
    row("acct", PERM, Root),
    row("syslog_read", PERM, Root),
    row("syslog_size", PERM, Root),
    row("settimeofday", PERM, REAL),
    row("clock_settime", PERM, REAL),
    row("clock_adjtime", PERM, REAL),
    row("adjtimex", PERM, REAL),
    row("sethostname", PERM, User),
    row("setdomainname", PERM, User),
    row("iopl", PERM, NOT_BUILT),
    row("ioperm", PERM, NOT_BUILT),
    row("reboot", PERM, REAL),
    row("vhangup", PERM, REAL),
    row("personality_exec", PERM, User),
    row("personality_aslr", PERM, User),
    row("lookup_dcookie", GONE, NOT_BUILT),
    row("uselib", GONE, NOT_BUILT),
    row("ustat", GONE, User),
    row("sysfs", GONE, User),
    row("nfsservctl", GONE, NOT_BUILT),
    row("migrate_pages", PERM, User),
    row("move_pages", PERM, User),
    row("process_madvise", PERM, User),
    row("mbind", PERM, User),
    row("set_mempolicy_home_node", GONE, User),
    row("statmount", GONE, User),
    row("listmount", GONE, User),
    row("lsm_get_self_attr", GONE, User),
    row("unknown_call", NOSYS, Nowhere("no kernel has it")),
    row("call32", GONE, User),
    row("mount32", GONE, User),
    row("call_x32", GONE, NOT_BUILT),
    row("call_x32_plain", GONE, NOT_BUILT),
];

pub const NAMESPACES: &[Row] = &[
    row("mount_tmpfs", PERM, User),
    row("mount_proc", PERM, User),
    row("mount_sysfs", PERM, User),
    row("mount_overlay", PERM, User),
    row("mount_cgroup", PERM, User),
    row("mount_bind", PERM, User),
    row("mount_move", PERM, User),
    row("mount_propagation", PERM, User),
    row("remount", PERM, User),
    row("umount2", PERM, User),
    row("pivot_root", PERM, User),
    row("open_tree", PERM, User),
    row("open_tree_clone", PERM, User),
    row("open_tree_attr", GONE, User),
    row("move_mount", PERM, User),
    row("fsopen", PERM, User),
    row("fsconfig", PERM, User),
    row("fsmount", PERM, User),
    row("fspick", PERM, User),
    row("mount_setattr", PERM, User),
    row("unshare=mnt", PERM, User),
    row("unshare=user", PERM, User),
    row("unshare=pid", PERM, User),
    row("unshare=net", PERM, User),
    row("unshare=ipc", PERM, User),
    row("unshare=uts", PERM, User),
    row("unshare=cgroup", PERM, User),
    row("unshare=time", PERM, User),
    row("clone=mnt", PERM, User),
    row("clone=user", PERM, User),
    row("clone=pid", PERM, User),
    row("clone=net", PERM, User),
    row("clone=ipc", PERM, User),
    row("clone=uts", PERM, User),
    row("clone=cgroup", PERM, User),
    row("clone3", NOSYS, User),
    row("clone3=user", NOSYS, User),
    row("clone3=mnt", NOSYS, User),
    row("clone3=time", NOSYS, User),
    row("setns=mnt", PERM, User),
    row("setns=user", PERM, User),
    row("setns=pid", PERM, User),
    row("setns=net", PERM, User),
    row("setns=ipc", PERM, User),
    row("setns=uts", PERM, User),
    row("setns=cgroup", PERM, User),
    row("setns=time", PERM, User),
    row("setns_pidfd", PERM, User),
];

pub const SOCKETS: &[Row] = &[
    row("socket=packet", FAMILY, User),
    row("socket=packet_dgram", FAMILY, User),
    row("socket=raw", PERM, User),
    row("socket=raw6", PERM, User),
    row("socket=old_packet", PERM, User),
    row("socket=vsock", FAMILY, User),
    row("socket=alg", FAMILY, NOT_BUILT),
    row("socket=xdp", FAMILY, User),
    row("socket=bluetooth", FAMILY, NOT_BUILT),
    row("socket=key", FAMILY, NOT_BUILT),
    row("socket=tipc", FAMILY, NOT_BUILT),
    row("socket=can", FAMILY, NOT_BUILT),
    row("socket=audit", FAMILY, User),
    row("socket=uevent", FAMILY, User),
    row("socket=generic", FAMILY, User),
    row("socket=netfilter", FAMILY, User),
    row("socket=sock_diag", FAMILY, User),
    row("socket=xfrm", FAMILY, User),
    row("socket=connector", FAMILY, User),
    row("other_families", FAMILY, User),
    row("other_netlinks", FAMILY, User),
    row("other_pairs", FAMILY, User),
    row("configure_network", PERM, User),
];

/// The agent is PID 1; a control's PID 1 is the attacker's own parent.
pub const AGENT: &[Row] = &[
    row("scan_processes", &["ESRCH"], Nowhere("`see_process` has one")),
    row("ptrace_agent", PERM, User),
    row("vm_readv_agent", PERM, User),
    row("vm_writev_agent", PERM, User),
    row("pidfd_getfd_agent", PERM, User),
    row("kcmp_agent", PERM, User),
    row("prlimit_agent", PERM, User),
    row("agent_folder", &["EACCES", "EPERM"], User),
    row("agent_descriptors", &["EACCES", "EPERM"], User),
    row("signal_agent", &["0"], Nowhere("the kernel keeps PID 1 deaf")),
];

/// Files of the kernel, devices and terminals.
pub const FILES: &[Row] = &[
    row("inherited_descriptors", &["EBADF"], User),
    row("write_below=/proc/sys", &["EROFS", "EACCES", "EPERM"], User),
    row("write_below=/sys", &["EROFS", "EACCES", "EPERM", "ENOENT"], Root),
    row("write_proc", &["EROFS", "EACCES", "EPERM"], User),
    row("write_file=/proc/sys/kernel/core_pattern", &["EROFS", "EACCES"], Root),
    row("write_file=/proc/sysrq-trigger", &["EROFS", "EACCES", "ENOENT"], REAL),
    row("read_masked", &["ENOENT", "EACCES", "EPERM"], User),
    row("device_below=/dev", &["ENODEV"], User),
    row("mknod_block", PERM, Root),
    row("mknod_memory", PERM, Root),
    row("mknod_null", PERM, Root),
    row("push_input", PERM, User),
    row("push_input_wide", PERM, User),
    row("console_paste", PERM, User),
    row("steal_console", PERM, REAL),
    row("freeze", &["EPERM", "ENOTTY"], REAL),
];

pub const ROOMS: [&[Row]; 5] = [CALLS, NAMESPACES, SOCKETS, AGENT, FILES];

/// What needs something of the test: a secret of the host, a listener, a limit.
pub const ELSEWHERE: &[&str] = &[
    "see_process",
    "signal_process",
    "signal_by_descriptor",
    "read_path",
    "read_dotdot",
    "chroot_escape",
    "read_proc_root",
    "change",
    "swap",
    "suid",
    "who",
    "connect_tcp",
    "listen_tcp",
    "send_udp",
    "connect_abstract",
    "list_unix",
    "fork_bomb",
    "fork_and_stay",
    "memory",
    "memory_bomb",
    "fill",
    "fill_inodes",
    "fill_descriptors",
    "burn",
    "kill_all",
    "stop_all",
    "outlive",
    "linger",
    "forge",
    "flood_console",
    "affinity_agent",
];
