//! The user's own terminal: raw while a command's is shown on it, and put back whatever happens.

use std::io::{IsTerminal, stdin, stdout};
use std::sync::{Mutex, Once};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was before it was made raw, as long as it is.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Keeps the terminal raw until it is dropped.
pub struct Raw(());

impl Raw {
    /// Makes the terminal on stdin raw; nothing to do where there is none.
    pub fn enter() -> std::io::Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            // A panic of any thread is told on a terminal that is as it was.
            std::panic::set_hook(Box::new(move |info| {
                restore();
                usual(info);
            }));
        });
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *lock() = Some(before);
        if let Err(errno) = tcsetattr(stdin(), OptionalActions::Drain, &raw) {
            restore();
            return Err(errno.into());
        }
        Ok(Some(Self(())))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back, once.
fn restore() {
    if let Some(before) = lock().take() {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Columns and rows of the terminal that is written to.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
