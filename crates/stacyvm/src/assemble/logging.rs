//! Where events go: stderr, as JSON for collectors or as lines for people.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::{Config, LogFormat};

/// Installs it for the whole process.
pub fn start(config: &Config) {
    let level = match config.logging.level.as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "warn" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    let builder = fmt().with_max_level(level).with_writer(std::io::stderr);
    // A second call finds one installed, as tests may have done.
    let _ = match config.logging.format {
        LogFormat::Json => tracing::subscriber::set_global_default(
            builder.json().flatten_event(true).with_current_span(false).finish(),
        ),
        LogFormat::Pretty => tracing::subscriber::set_global_default(
            builder.with_ansi(std::io::stderr().is_terminal()).finish(),
        ),
    };
}
