//! Users of the image: `/etc/passwd` and `/etc/group` as they are inside, whatever is in them.

use rustix::fs::{FileType, OFlags, fstat};

use super::child::Identity;
use crate::error::{Outcome, bad_request, fail};
use crate::files::Tree;
use protocol::agent::AgentErrorCode;

/// More of a file is not looked at: nobody has so many users.
const FILE: usize = 1 << 20;
/// Groups of a user that are taken over.
const GROUPS: usize = 64;
/// Characters of the asked-for name.
const NAME: usize = 256;

/// Who a command is to run as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// Absent: already so.
    pub identity: Option<Identity>,
    /// The home directory that the image names.
    pub home: Option<String>,
}

/// Finds a user by name or number, with a group or its number behind a colon.
pub(crate) fn find(tree: &Tree, asked: &str) -> Outcome<User> {
    if asked.is_empty() || asked.len() > NAME || asked.contains(['\0', '\n']) {
        return Err(bad_request("the user is a name or a uid of the image"));
    }
    let user = resolve(asked, &read(tree, "/etc/passwd"), &read(tree, "/etc/group"))?;
    if let Some(identity) = &user.identity {
        reachable(identity)?;
    }
    Ok(user)
}

/// The image's own user. Where there is one user id only, everybody is that: nobody is refused for
/// what nobody can have.
pub(crate) fn find_default(tree: &Tree, asked: &str) -> Outcome<User> {
    let user = resolve(asked, &read(tree, "/etc/passwd"), &read(tree, "/etc/group"))?;
    match &user.identity {
        Some(identity) => match reachable(identity) {
            Err(_) if !mapped("/proc/self/uid_map", 1) => Ok(User { identity: None, ..user }),
            Err(error) => Err(error),
            Ok(()) => Ok(user),
        },
        None => Ok(user),
    }
}

fn resolve(asked: &str, passwd: &str, group: &str) -> Outcome<User> {
    let (name, group_name) = match asked.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (asked, None),
    };
    let entry = entries(passwd, 7).find(|f| f[0] == name);
    let entry = entry.or_else(|| {
        entries(passwd, 7).find(|f| number(f[2]) == number(name) && number(name).is_some())
    });
    let (uid, own_gid) = match &entry {
        Some(fields) => (number(fields[2]), number(fields[3])),
        None => (number(name), Some(0)),
    };
    let uid = uid.ok_or_else(|| nobody(format!("the image has no user {name}")))?;
    let gid = match group_name {
        Some(text) => entries(group, 4)
            .find(|f| f[0] == text)
            .map_or_else(|| number(text), |f| number(f[2]))
            .ok_or_else(|| nobody(format!("the image has no group {text}")))?,
        None => own_gid.unwrap_or(0),
    };
    let mut groups = Vec::new();
    if let (Some(fields), None) = (&entry, group_name) {
        let member = |f: &Vec<&str>| f[3].split(',').any(|m| m.trim() == fields[0]);
        groups.extend(entries(group, 4).filter(member).filter_map(|f| number(f[2])).take(GROUPS));
    }
    groups.retain(|g| *g != gid);
    let home = entry.map(|f| f[5].to_owned()).filter(|h| h.starts_with('/'));
    let identity = Identity { uid, gid, groups };
    let root = Identity { uid: 0, gid: 0, groups: Vec::new() };
    // Root is what the agent is, and where there is one user only, nobody else could be.
    let already = identity == root && rustix::process::geteuid().is_root();
    Ok(User { identity: (!already).then_some(identity), home })
}

/// Lines of so many fields; what is not of that form is passed over.
fn entries(text: &str, fields: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(move |f| f.len() == fields && !f[0].is_empty())
}

/// A uid or gid. The last one means "unchanged" to the kernel, and so is none.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| plain && *n != u32::MAX)
}

fn nobody(text: String) -> protocol::agent::AgentError {
    fail(AgentErrorCode::NoSuchUser, text)
}

/// Whether the namespace knows the numbers: else the command could not become them.
fn reachable(identity: &Identity) -> Outcome<()> {
    let gids = identity.groups.iter().chain([&identity.gid]);
    let may = rustix::process::geteuid().is_root();
    let groups = std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|t| t.trim() == "allow");
    if may
        && groups
        && mapped("/proc/self/uid_map", identity.uid)
        && gids.into_iter().all(|gid| mapped("/proc/self/gid_map", *gid))
    {
        return Ok(());
    }
    Err(nobody("this sandbox has no such user id: it lies outside of its range".to_owned()))
}

fn mapped(map: &str, id: u32) -> bool {
    let text = std::fs::read_to_string(map).unwrap_or_default();
    text.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let (first, count) = (first.unwrap_or(0), count.unwrap_or(0));
        u64::from(id) >= first && u64::from(id) - first < count
    })
}

/// The text of a regular file; nothing of what is none, and never a wait.
fn read(tree: &Tree, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = tree.open(path, flags) else { return String::new() };
    if !fstat(&file).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile) {
        return String::new();
    }
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while bytes.len() < FILE {
        match rustix::io::read(&file, &mut piece) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:5:5::/:\nweb:x:33:34:w:/var/www:\n\
        evil:x:4294967295:0::/:\nbad:x:-1:0::/:\n7:x:70:70::relative:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\ndocker:x:99:a,web\nx:x:34:web\n";

    fn found(asked: &str) -> Option<(u32, u32, Vec<u32>, Option<String>)> {
        let user = resolve(asked, PASSWD, GROUP).ok()?;
        let id = user.identity.unwrap_or(Identity { uid: 0, gid: 0, groups: vec![] });
        Some((id.uid, id.gid, id.groups, user.home))
    }

    #[test]
    fn names_numbers_and_groups() {
        let home = |text: &str| Some(text.to_owned());
        assert_eq!(found("root"), Some((0, 0, vec![], home("/root"))));
        assert_eq!(found("web"), Some((33, 34, vec![99], home("/var/www"))));
        assert_eq!(found("33"), Some((33, 34, vec![99], home("/var/www"))));
        assert_eq!(found("web:docker"), Some((33, 99, vec![], home("/var/www"))));
        assert_eq!(found("1234:5"), Some((1234, 5, vec![], None)));
        assert_eq!(found("7"), Some((70, 70, vec![], None)), "a name wins over a number");
    }

    #[test]
    fn a_hostile_passwd_makes_nobody() {
        for asked in [
            "nobody",
            "evil",
            "bad",
            "-1",
            "4294967295",
            "4294967296",
            "web:none",
            "+5",
            "",
            "broken",
        ] {
            assert_eq!(found(asked), None, "{asked}");
        }
    }
}
