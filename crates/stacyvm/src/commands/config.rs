//! `config show` and `config lint`.

use super::load_options;
use crate::check::{Check, any_failed};
use crate::cli::{ConfigCommand, Global};
use crate::config;
use crate::failure::Failure;
use crate::output;

pub fn run(global: &Global, command: ConfigCommand) -> Result<(), Failure> {
    let (mut options, env) = load_options(global);
    match command {
        ConfigCommand::Show(format) => {
            let loaded = config::load(&options, &env)?;
            let shown = config::shown(&loaded.config);
            if format.json {
                output::json(&shown)?;
            } else {
                let text = serde_saphyr::to_string(&shown)
                    .map_err(|e| Failure::because("cannot write YAML", &e))?;
                output::line(text.trim_end())?;
            }
            for warning in &loaded.warnings {
                output::note(&format!("warning: {warning}"));
            }
            Ok(())
        }
        ConfigCommand::Lint { file, production, format } => {
            options.file = file.or(options.file);
            let checks = match config::load(&options, &env) {
                Ok(loaded) => config::lint(&loaded, production),
                Err(e) => e
                    .problems
                    .iter()
                    .map(|p| Check::fail("config", p, "correct it: nothing else can be checked"))
                    .collect(),
            };
            output::checks(&checks, format.json)?;
            if any_failed(&checks) { Err(Failure::silent()) } else { Ok(()) }
        }
    }
}
