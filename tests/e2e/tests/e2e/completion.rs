//! `stacyvm completion`: what it prints is loaded by the shell it is for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::stacyvm;

/// The script for a shell, as a file.
fn script(dir: &Path, shell: &str) -> PathBuf {
    let output = Command::new(stacyvm()).args(["completion", shell]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{shell}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Sub-commands, and options of one of them.
    for word in ["exec", "attach", "completion", "detach"] {
        assert!(text.contains(word), "{shell} knows no {word}");
    }
    let file = dir.join(format!("_stacyvm.{shell}"));
    fs::write(&file, text).unwrap();
    file
}

/// What the shell says to a line of its own, after the script was loaded; `None` without that shell.
fn said(shell: &str, args: &[&str], line: &str) -> Option<String> {
    if Command::new(shell).arg("--version").output().is_err() {
        println!("skipped for {shell}: it is not on this machine");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let line = line.replace("SCRIPT", script(dir.path(), shell).to_str().unwrap());
    let output = Command::new(shell)
        .args(args)
        .args(["-c", &line])
        .env("HOME", dir.path())
        .current_dir(dir.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{shell}: {} {error}", output.status);
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn bash_completes_our_words() {
    let line = "set -eu; source SCRIPT; complete -p stacyvm; \
                COMP_WORDS=(stacyvm ex); COMP_CWORD=1; _stacyvm stacyvm ex stacyvm; \
                echo \"found ${COMPREPLY[*]}\"; \
                COMP_WORDS=(stacyvm exec --det); COMP_CWORD=2; _stacyvm stacyvm --det exec; \
                echo \"found ${COMPREPLY[*]}\"";
    let Some(said) = said("bash", &["--noprofile", "--norc"], line) else { return };
    assert!(said.contains("-F _stacyvm"), "{said}");
    assert!(said.contains("found exec\n") && said.contains("found --detach\n"), "{said}");
}

#[test]
fn zsh_completes_our_words() {
    let line = "autoload -U compinit && compinit -u -D && source SCRIPT && print $_comps[stacyvm]";
    let Some(said) = said("zsh", &["-f"], line) else { return };
    assert_eq!(said, "_stacyvm\n");
}

#[test]
fn fish_completes_our_words() {
    let line = "source SCRIPT; complete --do-complete 'stacyvm ex'; \
                complete --do-complete 'stacyvm exec --det'";
    let Some(said) = said("fish", &["--no-config"], line) else { return };
    let found: Vec<&str> = said.lines().filter_map(|l| l.split('\t').next()).collect();
    assert_eq!(found, ["exec", "--detach"], "{said}");
}

#[test]
fn other_shells_have_theirs_and_unknown_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["elvish", "powershell"] {
        script(dir.path(), shell);
        println!("{shell}: printed, not loaded");
    }
    let output = Command::new(stacyvm()).args(["completion", "tcsh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bash"), "what there is, is named");
}
