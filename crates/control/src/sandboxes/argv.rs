//! What the two modes of an exec make of a command and its args.

use std::collections::BTreeMap;

use types::Fault;

use super::{ExecInput, ExecMode};

/// The program and its arguments.
pub(super) fn argv(input: &ExecInput) -> Result<Vec<String>, Fault> {
    no_nul("command", &input.command)?;
    input.args.iter().try_for_each(|a| no_nul("args", a))?;
    if let Some(workdir) = &input.workdir {
        no_nul("workdir", workdir)?;
    }
    check_env(&input.env)?;
    match input.mode {
        ExecMode::Shell => Ok(vec!["sh".to_owned(), "-c".to_owned(), shell(input)]),
        ExecMode::Argv if input.command.trim().is_empty() => {
            Err(Fault::bad_request("command is required in argv mode"))
        }
        ExecMode::Argv => Ok(std::iter::once(&input.command).chain(&input.args).cloned().collect()),
    }
}

fn shell(input: &ExecInput) -> String {
    let mut text = input.command.clone();
    for arg in &input.args {
        text.push_str(" '");
        text.push_str(&arg.replace('\'', r"'\''"));
        text.push('\'');
    }
    text
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), Fault> {
    for (name, value) in env {
        if name.is_empty() || name.contains('=') {
            return Err(Fault::bad_request("env holds a name that is empty or has an ="));
        }
        no_nul("env", name)?;
        no_nul("env", value)?;
    }
    Ok(())
}

/// The kernel ends every text there.
fn no_nul(what: &str, text: &str) -> Result<(), Fault> {
    if text.contains('\0') {
        return Err(Fault::bad_request(format!("{what} holds a NUL character")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(mode: ExecMode, command: &str, args: &[&str]) -> ExecInput {
        ExecInput {
            command: command.to_owned(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            mode,
            ..ExecInput::default()
        }
    }

    #[test]
    fn shell_args_are_literal_words() {
        let made = argv(&input(ExecMode::Shell, "echo", &["a b", "it's", "$HOME"])).unwrap();
        assert_eq!(made, ["sh", "-c", r"echo 'a b' 'it'\''s' '$HOME'"]);
        assert_eq!(argv(&input(ExecMode::Shell, "", &[])).unwrap(), ["sh", "-c", ""]);
    }

    #[test]
    fn argv_has_no_shell_and_needs_a_program() {
        let made = argv(&input(ExecMode::Argv, "printf", &["%s", "$x"])).unwrap();
        assert_eq!(made, ["printf", "%s", "$x"]);
        let fault = argv(&input(ExecMode::Argv, " \t", &["x"])).unwrap_err();
        assert_eq!(fault.code, types::ErrorCode::BadRequest);
    }

    #[test]
    fn what_the_kernel_cannot_take_is_refused() {
        assert!(argv(&input(ExecMode::Shell, "a\0b", &[])).is_err());
        assert!(argv(&input(ExecMode::Argv, "a", &["\0"])).is_err());
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "\0")] {
            let mut bad = input(ExecMode::Shell, "true", &[]);
            bad.env.insert(name.to_owned(), value.to_owned());
            assert!(argv(&bad).is_err(), "{name:?}={value:?}");
        }
    }
}
