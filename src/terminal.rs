//! The user's terminal: its size, and keys that go through as they are.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sandbox::exec::WindowSize;

/// Keys go through unchanged, until this is dropped.
pub(crate) struct Raw(Termios);

impl Raw {
    /// Of the terminal that is standard input.
    pub(crate) fn begin() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Of the terminal that standard output or input is; `None` where there is none, or it does not know.
pub(crate) fn size() -> Option<WindowSize> {
    let size = if io::stdout().is_terminal() {
        tcgetwinsize(rustix::stdio::stdout())
    } else {
        tcgetwinsize(rustix::stdio::stdin())
    };
    let size = size.ok().filter(|size| size.ws_row > 0 && size.ws_col > 0)?;
    Some(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}
