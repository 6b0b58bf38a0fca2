//! `doctor`: whether this machine can run sandboxes, and how well.

use std::path::Path;

use ::providers::native;

use super::load_options;
use crate::assemble::{self, DataDir};
use crate::check::{Check, Severity, any_failed};
use crate::cli::{Doctor, Global};
use crate::config::{self, Config, Loaded};
use crate::failure::Failure;
use crate::output;

/// Below this much free space, images and sandboxes soon have none.
const LITTLE_SPACE: u64 = 1 << 30;

pub fn run(global: &Global, args: Doctor) -> Result<(), Failure> {
    let (options, env) = load_options(global);
    let checks = match config::load(&options, &env) {
        Ok(loaded) => look(&loaded, args.production),
        Err(e) => e.problems.iter().map(|p| Check::fail("config", p, "correct it")).collect(),
    };
    output::checks(&checks, args.format.json)?;
    if any_failed(&checks) { Err(Failure::silent()) } else { Ok(()) }
}

fn look(loaded: &Loaded, production: bool) -> Vec<Check> {
    let config = &loaded.config;
    let mut out = config::lint(loaded, production);
    // `doctor` names what it takes from there; how a server is tuned is `config lint`'s matter.
    out.retain(of_the_machine);
    let data_dir = data_dir(config, &mut out);
    if let Some(data_dir) = &data_dir {
        images(config, data_dir, &mut out);
    }
    if config.providers.native.enabled {
        let storage = assemble::storage(config.providers.native.storage);
        let disk = data_dir
            .map_or_else(|| Path::new(&config.data_dir).join("disk"), |data_dir| data_dir.disk());
        out.extend(native::doctor(storage, &disk).into_iter().map(of_native));
    } else {
        let text = "is off: sandboxes can't be isolated";
        let fix = "set providers.native.enabled: true";
        out.push(Check::of(false, Severity::Warn, "native", text, fix));
    }
    out
}

fn of_the_machine(check: &Check) -> bool {
    const ALSO: [&str; 5] = [
        "config",
        "auth.api_key",
        "auth.admin_api_key",
        "auth.admin_fallback_enabled",
        "database.path",
    ];
    check.severity == Severity::Fail && !check.name.starts_with("defaults.")
        || ALSO.contains(&check.name.as_str())
}

fn of_native(check: native::Check) -> Check {
    let severity = match check.status {
        native::CheckStatus::Ok => Severity::Pass,
        native::CheckStatus::Warn => Severity::Warn,
        native::CheckStatus::Fail => Severity::Fail,
    };
    Check {
        severity,
        name: format!("native.{}", check.name.replace(' ', "_")),
        message: check.message,
        fix: check.fix,
    }
}

fn data_dir(config: &Config, out: &mut Vec<Check>) -> Option<DataDir> {
    let path = Path::new(&config.data_dir);
    let found = match DataDir::look(path) {
        Ok(found) => found,
        Err(e) => {
            let fix = "set data_dir to a directory of its own that this user may write";
            out.push(Check::fail("data_dir", &e.to_string(), fix));
            return None;
        }
    };
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(path);
    let free = rustix::fs::statvfs(there).map(|s| s.f_bavail * s.f_frsize);
    let enough = free.is_ok_and(|bytes| bytes >= LITTLE_SPACE);
    let shown = path.display();
    let text = match (enough, &found) {
        (false, _) => format!("the disk of {shown} is almost full"),
        (true, Some(_)) => format!("{shown} is ours"),
        (true, None) => format!("{shown} will be made"),
    };
    let fix = "free some space, or set data_dir to a larger disk";
    out.push(Check::of(enough, Severity::Warn, "data_dir", &text, fix));
    found
}

fn images(config: &Config, data_dir: &DataDir, out: &mut Vec<Check>) {
    out.push(match assemble::image_store(config, data_dir) {
        Ok(_) => Check::pass("images", "the store can be used"),
        Err(e) => Check::fail("images", &e.text, "see that this user may write in data_dir"),
    });
}
