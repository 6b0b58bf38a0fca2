//! `/sandboxes/{id}/exec`: run a command, captured or streamed.

use axum::extract::State;
use axum::response::Response;
use control::{Captured, ExecInput, ExecMode};
use types::api::{ExecRequest, ExecResult};
use types::{ErrorCode, Fault, duration};

use super::sandboxes::span;
use super::stream;
use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::extract::{Json, Param, ok};
use crate::utf8;

pub(crate) async fn exec(
    State(app): State<App>,
    caller: Caller,
    Param(id): Param,
    Json(request): Json<ExecRequest>,
) -> Result<Response, Error> {
    let streamed = request.stream.unwrap_or(false);
    let input = input(request)?;
    let context = caller.context();
    if streamed {
        let events = app.control.exec_stream(&context, &id, input).await?;
        return Ok(stream::respond(events, app.closing.clone()));
    }
    Ok(ok(&result(app.control.exec(&context, &id, input).await?)?))
}

fn result(captured: Captured) -> Result<ExecResult, Fault> {
    if captured.exit.timed_out {
        return Err(Fault::new(ErrorCode::Timeout, "the command ran into its timeout"));
    }
    Ok(ExecResult {
        exit_code: captured.exit.exit_code,
        stdout: utf8::whole(captured.stdout, captured.stdout_truncated),
        stderr: utf8::whole(captured.stderr, captured.stderr_truncated),
        duration: duration::format(captured.duration),
        stdout_truncated: captured.stdout_truncated,
        stderr_truncated: captured.stderr_truncated,
        oom_killed: captured.exit.oom_killed,
    })
}

fn input(request: ExecRequest) -> Result<ExecInput, Fault> {
    let mode = match request.mode.as_deref().unwrap_or_default().trim() {
        "" | "shell" => ExecMode::Shell,
        "argv" => ExecMode::Argv,
        _ => return Err(Fault::bad_request("mode is shell or argv")),
    };
    let command = request.command.unwrap_or_default();
    if matches!(mode, ExecMode::Argv) && command.trim().is_empty() {
        return Err(Fault::bad_request("mode argv needs a command"));
    }
    let args = request.args.unwrap_or_default();
    let env = request.env.unwrap_or_default();
    let workdir = request.workdir.filter(|w| !w.is_empty());
    let nul = |word: &String| word.contains('\0');
    if args.iter().chain([&command]).chain(&workdir).chain(env.values()).any(nul) {
        return Err(Fault::bad_request("a command's words can't hold a NUL"));
    }
    if env.keys().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(Fault::bad_request("a variable's name can't be empty, nor hold = or a NUL"));
    }
    let timeout = request.timeout.as_deref().filter(|t| !t.is_empty());
    let timeout = timeout.map(|t| span("timeout", t)).transpose()?;
    let timeout = timeout.filter(|t| !t.is_zero());
    Ok(ExecInput { command, args, mode, env, workdir, timeout })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(request: ExecRequest) -> bool {
        input(request).is_err_and(|f| f.code == ErrorCode::BadRequest)
    }

    #[test]
    fn bug_47_mistakes_are_bad_requests() {
        let with = |set: fn(&mut ExecRequest)| {
            let mut request = ExecRequest { command: Some("true".into()), ..Default::default() };
            set(&mut request);
            request
        };
        assert!(refused(with(|r| r.mode = Some("fish".into()))));
        assert!(refused(with(|r| r.timeout = Some("soon".into()))));
        assert!(refused(with(|r| r.timeout = Some("-1s".into()))));
        assert!(refused(with(|r| r.command = Some("a\0b".into()))));
        assert!(refused(with(|r| r.env = Some([("A=B".into(), "x".into())].into()))));
        assert!(refused(with(|r| {
            r.command = Some("  ".into());
            r.mode = Some("argv".into());
        })));
    }

    #[test]
    fn bug_22_a_timeout_of_zero_is_no_timeout_given() {
        for text in ["", "0s", "0", "-0s"] {
            let request = ExecRequest { timeout: Some(text.into()), ..Default::default() };
            assert_eq!(input(request).unwrap().timeout, None, "{text}");
        }
        let request = ExecRequest { timeout: Some("1.5s".into()), ..Default::default() };
        assert_eq!(input(request).unwrap().timeout, Some(Duration::from_millis(1500)));
    }
}
