//! `exec`: its output as it comes, its exit code as ours.

use std::collections::BTreeMap;

use client::Topic;
use client::api::ExecRequest;
use types::duration;

use super::session::{self, Manner};
use super::{client, term};
use crate::cli::{Exec, Global};
use crate::failure::Failure;
use crate::{output, terminal};

pub async fn run(global: &Global, args: Exec) -> Result<u8, Failure> {
    if args.detach {
        let started = client(global)?.exec_detached(&args.id, &request(&args)).await?;
        output::line(&started.exec_id)?;
        return Ok(0);
    }
    if args.interactive || args.tty {
        let request = Box::new(request(&args));
        let (speaker, listener) =
            client(global)?.talk(&args.id, &Topic::Start(request), args.tty).await?;
        let manner = Manner { tty: args.tty, input: args.interactive, may_leave: false };
        return session::run(speaker, listener, manner).await;
    }
    let mut lines = client(global)?.exec_stream(&args.id, &request(&args)).await?;
    // The server's own words on stderr end without a line break.
    let mut mid_line = false;
    while let Some(line) = lines.next().await? {
        if mid_line && line.stream == "exit" && (line.timed_out || line.error.is_some()) {
            output::note("");
        }
        if let Some(code) = &line.error {
            let text = if line.data.is_empty() { code } else { &line.data };
            return Err(Failure::new(format!("the command was lost: {}", output::tame(text))));
        }
        match line.stream.as_str() {
            "stdout" => output::stdout_bytes(line.data.as_bytes())?,
            "stderr" => {
                output::stderr_bytes(line.data.as_bytes())?;
                mid_line = !line.data.ends_with('\n');
            }
            "exit" => {
                let Some(code) = line.exit_code else { break };
                // That its time was up, the server has said.
                explain(false, line.oom_killed);
                return Ok(exit_code(code));
            }
            // A newer server's line.
            _ => {}
        }
    }
    Err(Failure::new("the stream ended without an exit code: the command's end is not known"))
}

fn request(args: &Exec) -> ExecRequest {
    let around = &args.surroundings;
    let (command, arguments) = if args.shell {
        (args.command.join(" "), Vec::new())
    } else {
        let mut words = args.command.iter().cloned();
        (words.next().unwrap_or_default(), words.collect())
    };
    let term = args.tty.then(term).flatten();
    let env: BTreeMap<_, _> = term.into_iter().chain(around.env.iter().cloned()).collect();
    let size = args.tty.then(terminal::size).flatten();
    ExecRequest {
        command: Some(command),
        args: (!arguments.is_empty()).then_some(arguments),
        mode: Some(if args.shell { "shell" } else { "argv" }.to_owned()),
        env: (!env.is_empty()).then_some(env),
        workdir: around.workdir.clone(),
        timeout: around.timeout.map(duration::format),
        user: around.user.clone(),
        tty: args.tty.then_some(true),
        cols: size.map(|(cols, _)| cols),
        rows: size.map(|(_, rows)| rows),
        ..ExecRequest::default()
    }
}

/// Says what an exit code alone does not.
pub fn explain(timed_out: bool, oom_killed: bool) {
    if timed_out {
        output::note("stacyvm: the command was ended: its time was up (--timeout)");
    } else if oom_killed {
        output::note("stacyvm: the command was killed: the sandbox was out of memory (--memory)");
    }
}

/// A process can only end with 0 to 255; whatever else is said to have happened was no success.
pub fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}
