//! What is told of the machine.

use std::fs;

/// Kernel, processors, memory.
pub fn name() -> String {
    let kernel = read("/proc/sys/kernel/osrelease");
    let release = read("/etc/os-release");
    let system = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |n| n.trim_matches('"').to_owned());
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .and_then(|l| l.split_once(':'))
        .map_or_else(|| "unknown processor".to_owned(), |(_, n)| n.trim().to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let virtual_machine = if cpuinfo.contains("hypervisor") { ", a virtual machine" } else { "" };
    let gib = meminfo("MemTotal") as f64 / f64::from(1 << 20);
    format!("{system}, kernel {}, {cores} × {model}, {gib:.0} GiB{virtual_machine}", kernel.trim())
}

/// A line of /proc/meminfo, in KiB.
pub fn meminfo(field: &str) -> u64 {
    let table = read("/proc/meminfo");
    let line = table.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':').map(str::trim));
    line.and_then(|l| l.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// All memory that is in use and could not be had back by dropping caches of files, in KiB. What
/// the kernel holds is part of it.
pub fn memory_in_use() -> u64 {
    let cached = meminfo("Cached") + meminfo("Buffers");
    meminfo("MemTotal") + meminfo("Shmem") - meminfo("MemFree") - cached
}

/// The proportional share of memory of processes, in KiB.
pub fn pss(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| smaps(*pid, "Pss:")).sum()
}

fn smaps(pid: u32, field: &str) -> u64 {
    let table = read(&format!("/proc/{pid}/smaps_rollup"));
    let line = table.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// All processes below one.
pub fn descendants(of: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut next = vec![of];
    while let Some(pid) = next.pop() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = read(&task.path().join("children").to_string_lossy());
            next.extend(children.split_whitespace().filter_map(|p| p.parse::<u32>().ok()));
        }
        all.push(pid);
    }
    all.retain(|pid| *pid != of);
    all
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
