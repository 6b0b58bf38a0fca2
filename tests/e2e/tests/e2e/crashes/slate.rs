//! The clean-slate check: exactly what should be there is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Leftover, wait_for};

use super::world::{SOON, Server, World, names};

/// Waits until the given sandboxes live and are used as ever, and nothing else is there.
pub async fn assert_clean(world: &World, server: &Server, living: &[&str]) {
    wait_for("a clean slate", SOON, async || look(world, server, living).await).await;
    for id in living {
        assert_eq!(server.said(id, "echo alive").await, "alive");
        assert_eq!(server.client.get(id).await.unwrap().state, "running");
    }
}

async fn look(world: &World, server: &Server, living: &[&str]) -> Result<(), String> {
    let mut wanted: Vec<String> = living.iter().map(|id| (*id).to_owned()).collect();
    wanted.sort();
    let ready = server.running.call("GET", "/api/v1/ready", &[], &serde_json::Value::Null).await?;
    same("readiness", &200, &ready.status)?;
    same("sandboxes", &wanted, &server.ids().await.map_err(|e| e.to_string())?)?;
    same("folders", &wanted, &names(&world.folders()))?;
    folders(world, living)?;
    same("rows", &rows_of(living), &rows(world)?)?;
    on_the_host(world, server, living)?;
    if world.provider == "native" {
        layers(world, &wanted)?;
    }
    Ok(())
}

/// Each folder holds what one of a living sandbox holds.
fn folders(world: &World, living: &[&str]) -> Result<(), String> {
    let mut usual = vec!["agent.sock", "journal"];
    if world.provider == "mock" {
        usual.push("root");
    }
    living.iter().try_for_each(|id| {
        same(
            &format!("files of {id}"),
            &usual,
            &names(&world.folders().join(id)).iter().map(String::as_str).collect(),
        )
    })
}

/// Processes, mounts, loop devices and control groups.
fn on_the_host(world: &World, server: &Server, living: &[&str]) -> Result<(), String> {
    let mut helpers = vec![server.running.pid()];
    helpers.extend(testkit::Process::children_of(server.running.pid()).iter().map(|p| p.pid));
    let (mut mounts, mut loops) = (Vec::new(), Vec::new());
    for left in world.system.leftovers() {
        match left {
            Leftover::Process { pid, words } => {
                let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                let ours = u32::try_from(pid).is_ok_and(|pid| helpers.contains(&pid))
                    || living.iter().any(|id| groups.contains(id))
                    // It ended while we looked.
                    || groups.is_empty();
                if !ours {
                    return Err(format!("process {pid} belongs to nobody: {words}\n{groups}"));
                }
            }
            Leftover::Mount(at) => mounts.push(at),
            Leftover::Loop { file, .. } => loops.push(file),
            Leftover::ControlGroup(dir) => groups_of(&dir, living)?,
            Leftover::UserIds(_) => {}
        }
    }
    let disk = world.system.data_dir().join("disk");
    let store = disk.join("mnt");
    if mounts.iter().any(|m| *m != store) || mounts.len() > 1 {
        return Err(format!("mounts: {mounts:?}"));
    }
    if loops.iter().any(|f| !Path::new(f).starts_with(&disk)) || loops.len() > 1 {
        return Err(format!("loop devices: {loops:?}"));
    }
    Ok(())
}

/// Below an installation's control group only living sandboxes have one.
fn groups_of(parent: &Path, living: &[&str]) -> Result<(), String> {
    let strange = names(parent)
        .into_iter()
        .filter(|name| name.starts_with("sb-") && !living.contains(&name.as_str()))
        .map(|name| parent.join(name));
    let strange: Vec<PathBuf> = strange.collect();
    if strange.is_empty() { Ok(()) } else { Err(format!("control groups: {strange:?}")) }
}

/// Every writable layer on the disk store is a living sandbox's, or prepared for a new one.
fn layers(world: &World, wanted: &[String]) -> Result<(), String> {
    let point = world.system.data_dir().join("disk/mnt");
    if !point.exists() {
        return Ok(());
    }
    let layers = names(&point).into_iter().filter_map(|n| Some(n.split_once('.')?.1.to_owned()));
    let used: Vec<String> = layers.filter(|n| !n.starts_with("pool.")).collect();
    same("writable layers", &wanted.to_vec(), &used)
}

/// What the database should say, a line each.
fn rows_of(living: &[&str]) -> BTreeSet<String> {
    let mut rows: BTreeSet<_> = living.iter().map(|id| format!("{id} running 1")).collect();
    rows.insert(format!("counted {}", living.len()));
    rows
}

/// The rows that are not of the past, and what the counters make of them.
pub fn rows(world: &World) -> Result<BTreeSet<String>, String> {
    let script = "
import sqlite3, sys
db = sqlite3.connect('file:' + sys.argv[1] + '?mode=ro', uri=True)
for row in db.execute(\"select id, state, answered from sandboxes where state <> 'destroyed'\"):
    print(*row)
print('counted', *db.execute(\"select coalesce(sum(live), 0) from live_counts where kind = 'total'\").fetchone())
";
    let database = world.system.data_dir().join("stacyvm.db");
    let told = Command::new("/usr/bin/python3").args(["-c", script]).arg(&database).output();
    let told = told.map_err(|e| format!("/usr/bin/python3: {e}"))?;
    if !told.status.success() {
        return Err(format!("rows: {}", String::from_utf8_lossy(&told.stderr)));
    }
    Ok(String::from_utf8_lossy(&told.stdout).lines().map(str::to_owned).collect())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, seen: &T) -> Result<(), String> {
    if wanted == seen { Ok(()) } else { Err(format!("{what}: {seen:?} instead of {wanted:?}")) }
}

#[tokio::test]
async fn the_check_sees_what_should_not_be_there() {
    let mut world = World::new("native");
    let server = world.start().await;
    let id = server.spawn().await;
    assert_clean(&world, &server, &[&id]).await;
    let sees = async |what: &str, living: &[&str]| {
        let seen = look(&world, &server, living).await.expect_err(what);
        assert!(seen.starts_with(what), "{what}: {seen}");
    };
    sees("sandboxes", &[]).await;
    let folder = world.folders().join("sb-stray");
    fs::create_dir(&folder).unwrap();
    sees("folders", &[&id]).await;
    fs::remove_dir(folder).unwrap();
    let stray = world.system.data_dir().join("stray");
    fs::create_dir(&stray).unwrap();
    let mut process = Command::new("sleep").arg("605.5").current_dir(&stray).spawn().unwrap();
    sees("process", &[&id]).await;
    process.kill().unwrap();
    process.wait().unwrap();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", world.agent_of(&id).pid)).unwrap();
    let v2 = groups.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or_default().to_owned();
    if let Some((parent, _)) = v2.split_once(&id) {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|r| format!("{r}{parent}"));
        let root = roots.iter().find(|r| Path::new(r).exists()).expect("a v2 hierarchy");
        let group = Path::new(root).join("sb-stray");
        fs::create_dir(&group).unwrap();
        sees("control groups", &[&id]).await;
        fs::remove_dir(group).unwrap();
    }
    let layers = world.system.data_dir().join("disk/mnt");
    if layers.exists() {
        fs::create_dir(layers.join("scope.sb-stray")).unwrap();
        sees("writable layers", &[&id]).await;
        fs::remove_dir(layers.join("scope.sb-stray")).unwrap();
    }
    assert_clean(&world, &server, &[&id]).await;
    server.destroy(&id).await;
    server.stop().await;
    world.assert_nothing_left().await;
}
