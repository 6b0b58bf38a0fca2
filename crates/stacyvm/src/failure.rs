//! How a command fails: what is said, and with which code the process ends.

use std::error::Error;
use std::fmt::Write as _;

use types::Fault;

/// The exit code of a failure that is ours.
const OURS: u8 = 1;
/// The exit code of a program that nobody listens to any more: 128 and SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// Empty: there is nothing to say, or it has been said.
    pub text: String,
    pub code: u8,
}

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: OURS }
    }

    /// Nothing more to say.
    pub fn silent() -> Self {
        Self { text: String::new(), code: OURS }
    }

    /// `doing` failed because of `error`, whose whole chain is told: this is the terminal of
    /// whoever owns the machine.
    pub fn because(doing: &str, error: &dyn Error) -> Self {
        Self::new(format!("{doing}: {}", chain(error)))
    }
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        next = cause.source();
    }
    text
}

/// Writing an answer failed. A reader that has seen enough is no error worth a word.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { text: String::new(), code: BROKEN_PIPE };
        }
        Self::because("cannot write the answer", &error)
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let hint = match &error {
            client::Error::Api { status: 401, .. } => {
                "\n  set --api-key or STACYVM_API_KEY to a key of that server"
            }
            client::Error::Api { code, .. } if code == "IMAGE_NOT_FOUND" => {
                "\n  `stacyvm image ls` lists what is there, `stacyvm image pull` and `import` add one"
            }
            client::Error::Api { status: 404, .. } => {
                "\n  `stacyvm list` shows the sandboxes that are there"
            }
            _ => "",
        };
        let text = match &error {
            // Why nobody could be reached is a chain of library words; the first says it all.
            client::Error::Connect { .. } | client::Error::Api { .. } => error.to_string(),
            _ => chain(&error),
        };
        Self::new(format!("{text}{hint}"))
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::new(chain(&fault))
    }
}
