//! `/sandboxes/{id}/exec`: run a command, captured, streamed or detached.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use control::{Captured, ExecInput, ExecKind, ExecMode};
use data_encoding::BASE64;
use http::{HeaderMap, StatusCode};
use protocol::worker::TtySize;
use types::api::{ExecRequest, ExecResult, Started, TimedOut};
use types::{ErrorCode, ExecId, Fault, duration};

use super::sandboxes::span;
use super::stream;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, status};
use crate::extract::{Json, Param, answer, ok};
use crate::utf8;

pub(crate) async fn exec(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Param(id): Param,
    Json(request): Json<ExecRequest>,
) -> Result<Response, Error> {
    let (streamed, detached) = (request.stream == Some(true), request.detach == Some(true));
    let encoding = Encoding::parse(request.encoding.as_deref())?;
    if streamed && detached {
        return Err(Fault::bad_request("stream and detach exclude each other").into());
    }
    if request.tty == Some(true) && !detached {
        return Err(Fault::bad_request("a terminal needs detach, or the WebSocket").into());
    }
    let input = input(request, encoding)?;
    let context = caller.context_with_owner(&headers)?;
    if detached {
        let exec_id = app.control.exec_detached(&context, &id, input).await?.to_string();
        return Ok(answer(StatusCode::ACCEPTED, &Started { exec_id }));
    }
    if streamed {
        let events = app.control.exec_stream(&context, &id, input, ExecKind::Streamed).await?;
        return Ok(stream::respond(events, app.closing.clone(), encoding, None));
    }
    let captured = app.control.exec(&context, &id, input).await?;
    if captured.exit.timed_out {
        return Ok(answer(status(ErrorCode::Timeout), &timed_out(captured, encoding)));
    }
    Ok(ok(&result(captured, encoding)))
}

/// How the bytes of a command's output stand in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// UTF-8; what is none becomes U+FFFD.
    Text,
    Base64,
}

impl Encoding {
    pub fn parse(text: Option<&str>) -> Result<Self, Fault> {
        match text.unwrap_or_default() {
            "" | "utf-8" | "utf8" => Ok(Self::Text),
            "base64" => Ok(Self::Base64),
            _ => Err(Fault::bad_request("encoding is base64, or absent")),
        }
    }

    /// As it is echoed.
    pub fn name(self) -> Option<String> {
        match self {
            Self::Text => None,
            Self::Base64 => Some("base64".to_owned()),
        }
    }

    /// A whole output.
    fn whole(self, bytes: Vec<u8>, truncated: bool) -> String {
        match self {
            Self::Text => utf8::whole(bytes, truncated),
            Self::Base64 => BASE64.encode(&bytes),
        }
    }

    /// What a client wrote.
    pub fn decode(self, what: &str, text: String) -> Result<Bytes, Fault> {
        match self {
            Self::Text => Ok(text.into()),
            Self::Base64 => BASE64
                .decode(text.as_bytes())
                .map(Bytes::from)
                .map_err(|_| Fault::bad_request(format!("{what} is not base64"))),
        }
    }
}

/// The name of a signal that ended a command.
pub(super) fn signal_name(number: i32) -> Option<String> {
    (number > 0).then(|| types::signal::name(number))
}

fn result(captured: Captured, encoding: Encoding) -> ExecResult {
    ExecResult {
        exit_code: captured.exit.exit_code,
        stdout: encoding.whole(captured.stdout, captured.stdout_truncated),
        stderr: encoding.whole(captured.stderr, captured.stderr_truncated),
        duration: duration::format(captured.duration),
        stdout_truncated: captured.stdout_truncated,
        stderr_truncated: captured.stderr_truncated,
        oom_killed: captured.exit.oom_killed,
        signal: signal_name(captured.exit.signal),
        encoding: encoding.name(),
    }
}

fn timed_out(captured: Captured, encoding: Encoding) -> TimedOut {
    let after = captured.timeout.map(duration::format).unwrap_or_default();
    TimedOut {
        code: ErrorCode::Timeout.as_str().to_owned(),
        message: format!("the command did not end within {after}"),
        stdout: encoding.whole(captured.stdout, captured.stdout_truncated),
        stderr: encoding.whole(captured.stderr, captured.stderr_truncated),
        duration: duration::format(captured.duration),
        stdout_truncated: captured.stdout_truncated,
        stderr_truncated: captured.stderr_truncated,
        encoding: encoding.name(),
    }
}

/// The size of a terminal that was asked for.
pub(super) fn tty_size(cols: Option<u16>, rows: Option<u16>) -> Result<TtySize, Fault> {
    let size = TtySize { cols: cols.unwrap_or(80), rows: rows.unwrap_or(24) };
    if size.cols == 0 || size.rows == 0 {
        return Err(Fault::bad_request("a terminal has at least one column and one row"));
    }
    Ok(size)
}

pub(super) fn input(request: ExecRequest, encoding: Encoding) -> Result<ExecInput, Fault> {
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
    let user = request.user.map(|u| u.trim().to_owned()).filter(|u| !u.is_empty());
    if user.as_deref().is_some_and(|u| u.chars().any(char::is_control)) {
        return Err(Fault::bad_request("user is a name or a uid of the image"));
    }
    let exec_id = request.exec_id.filter(|id| !id.is_empty()).map(ExecId::parse).transpose();
    let exec_id = exec_id.map_err(|e| Fault::bad_request(e.to_string()))?;
    let stdin = request.stdin.map(|text| encoding.decode("stdin", text)).transpose()?;
    let tty = match request.tty {
        Some(true) => Some(tty_size(request.cols, request.rows)?),
        Some(false) | None => None,
    };
    Ok(ExecInput { command, args, mode, env, workdir, timeout, user, stdin, exec_id, tty })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(request: ExecRequest) -> bool {
        input(request, Encoding::Text).is_err_and(|f| f.code == ErrorCode::BadRequest)
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
            assert_eq!(input(request, Encoding::Text).unwrap().timeout, None, "{text}");
        }
        let request = ExecRequest { timeout: Some("1.5s".into()), ..Default::default() };
        assert_eq!(
            input(request, Encoding::Text).unwrap().timeout,
            Some(Duration::from_millis(1500))
        );
    }
}
