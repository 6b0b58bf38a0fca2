//! The command line: what can be written, and what it is taken to mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use types::{Secret, duration};

/// Makes, runs and removes sandboxes for code that nobody vouches for.
#[derive(Parser)]
#[command(name = "stacyvm", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args)]
pub struct Global {
    /// Address of the server
    #[arg(
        long,
        global = true,
        env = "STACYVM_SERVER_URL",
        default_value = "http://localhost:7423",
        value_name = "URL"
    )]
    pub server: String,
    /// Key for the server
    #[arg(
        long,
        global = true,
        env = "STACYVM_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        value_parser = secret
    )]
    pub api_key: Option<Secret>,
    /// Configuration file; else $STACYVM_CONFIG, ./stacyvm.yaml, ~/.stacyvm/config.yaml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the API server
    Serve(Serve),
    /// Run one command in a sandbox of its own, without a server
    Run(Run),
    /// Make a sandbox
    Spawn(Spawn),
    /// Run a command in a sandbox
    Exec(Exec),
    /// Copy files and directories into or out of a sandbox
    Cp(Cp),
    /// Show a command of a sandbox on this terminal; Ctrl-P Ctrl-Q leaves it running
    Attach(Attach),
    /// List the commands of a sandbox
    Ps(Ps),
    /// List sandboxes
    #[command(visible_alias = "ls")]
    List(Format),
    /// Destroy a sandbox
    Kill(Kill),
    /// Show the console of a sandbox
    Logs(Logs),
    /// The images on this machine
    #[command(subcommand)]
    Image(Image),
    /// Check whether this machine can run sandboxes, and how well
    Doctor(Doctor),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a script that completes the words of this program in a shell
    Completion(Completion),
    /// Show the version
    Version(Format),
}

#[derive(Args)]
pub struct Format {
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Serve {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes a free one
    #[arg(long)]
    pub port: Option<u16>,
    /// Write the bound address to this file once requests are served
    #[arg(long, value_name = "FILE")]
    pub addr_file: Option<PathBuf>,
    /// Allow a public address without any key
    #[arg(long)]
    pub insecure: bool,
}

/// How large a sandbox is and what it is made from.
#[derive(Args)]
pub struct Shape {
    /// Image: `host`, one that was imported, or one to be pulled
    #[arg(long)]
    pub image: Option<String>,
    /// Memory in MiB
    #[arg(long, value_name = "MB")]
    pub memory: Option<u32>,
    /// Processors
    #[arg(long)]
    pub vcpus: Option<u32>,
    /// Disk in MiB
    #[arg(long, value_name = "MB")]
    pub disk: Option<u32>,
}

/// What a command gets.
#[derive(Args)]
pub struct Surroundings {
    /// End the command after so long, like 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub timeout: Option<Duration>,
    /// Add a variable to the command's environment (repeatable)
    #[arg(long, short = 'e', value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// Directory to start in
    #[arg(long, short = 'w', value_name = "PATH")]
    pub workdir: Option<String>,
    /// Run as this user of the image: a name or a uid
    #[arg(long, short = 'u', value_name = "USER")]
    pub user: Option<String>,
}

#[derive(Args)]
pub struct Run {
    /// Pass the terminal's input on (piped input always is)
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub surroundings: Surroundings,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<String>,
}

#[derive(Args)]
pub struct Spawn {
    #[command(flatten)]
    pub shape: Shape,
    /// Provider; the server's default without it
    #[arg(long)]
    pub provider: Option<String>,
    /// How long it lives, like 30m
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub ttl: Option<Duration>,
    /// Call it so; a living one of that name is the answer instead of a second one
    #[arg(long)]
    pub name: Option<String>,
    /// Remember this with it (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Args)]
pub struct Exec {
    /// The sandbox
    pub id: String,
    /// Join the words and give them to a shell
    #[arg(long)]
    pub shell: bool,
    /// Pass our input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Start it, print its id, and leave it running
    #[arg(long, conflicts_with = "interactive")]
    pub detach: bool,
    #[command(flatten)]
    pub surroundings: Surroundings,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<String>,
}

#[derive(Args)]
pub struct Cp {
    /// A file or a directory: ID:/path in a sandbox, a path here, or - for standard input
    pub src: String,
    /// Where it goes: ID:/path in a sandbox, a path here, or - for standard output
    pub dst: String,
}

#[derive(Args)]
pub struct Attach {
    /// The sandbox
    pub id: String,
    /// The command, as `ps` and `exec --detach` name it
    pub exec_id: String,
    /// Bytes of its output to pass over
    #[arg(long, default_value_t = 0)]
    pub offset: u64,
    /// Only look
    #[arg(long)]
    pub no_stdin: bool,
}

#[derive(Args)]
pub struct Ps {
    /// The sandbox
    pub id: String,
    /// Those that have ended too: its history, also when it has ended itself
    #[arg(long, short)]
    pub all: bool,
    /// At most so many, the newest
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1000)]
    pub last: usize,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Args)]
pub struct Completion {
    /// bash, zsh, fish, …
    pub shell: clap_complete::Shell,
}

#[derive(Args)]
pub struct Kill {
    /// The sandbox
    pub id: String,
    /// Ask it to end, and wait so long before it is made to
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub grace: Option<Duration>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Args)]
pub struct Logs {
    /// The sandbox
    pub id: String,
    /// How many of the last lines
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub lines: u32,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Subcommand)]
pub enum Image {
    /// Fetch an image from its registry
    Pull {
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Add an image from a directory or a tar: a root file system, or a saved image
    Import {
        path: PathBuf,
        /// Its name, like alpine:latest; else its own, or the name of the file
        #[arg(long)]
        tag: Option<String>,
        /// Of several saved images, the one of this name
        #[arg(long, value_name = "NAME")]
        pick: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// List images
    #[command(visible_alias = "list")]
    Ls(Format),
    /// Show what is known of an image
    Inspect {
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Give an image another name
    Tag { name: String, tag: String },
    /// Remove an image
    #[command(visible_alias = "remove")]
    Rm { name: String },
    /// Remove images without a name; never one that is in use
    Prune(PruneImages),
}

#[derive(Args)]
pub struct PruneImages {
    /// All that no sandbox uses
    #[arg(long)]
    pub all: bool,
    /// Those of which no sandbox was made for so long, like 240h
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub unused_for: Option<Duration>,
    /// The ones unused for longest, until the rest is no larger (MiB)
    #[arg(long, value_name = "MB")]
    pub keep: Option<u64>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Args)]
pub struct Doctor {
    /// Fail on what only matters in production
    #[arg(long)]
    pub production: bool,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Show every key with its value in effect; secrets redacted
    Show(Format),
    /// Check the configuration and give advice
    Lint {
        /// The file to check
        #[arg(long)]
        file: Option<PathBuf>,
        /// Fail on what only matters in production
        #[arg(long)]
        production: bool,
        #[command(flatten)]
        format: Format,
    },
}

/// An empty key is none: `STACYVM_API_KEY=` switches it off.
fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

fn positive(text: &str) -> Result<Duration, String> {
    let parsed = duration::parse_unsigned(text).map_err(|e| e.to_string())?;
    if parsed.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(parsed) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it like KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_commands_own_flags_are_left_to_it() {
        let cli = Cli::parse_from(["stacyvm", "exec", "sb-1", "--shell", "--", "ls", "--json"]);
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        assert!(exec.shell);
        assert_eq!(exec.command, ["ls", "--json"]);
        let cli = Cli::parse_from(["stacyvm", "run", "-e", "A=b=c", "sh", "-c", "exit 3"]);
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.command, ["sh", "-c", "exit 3"]);
        assert_eq!(run.surroundings.env, [("A".to_owned(), "b=c".to_owned())]);
        assert!(Cli::try_parse_from(["stacyvm", "run"]).is_err());
        assert!(Cli::try_parse_from(["stacyvm", "run", "--timeout", "-1s", "--", "x"]).is_err());
    }
}
