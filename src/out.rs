//! Standard output, whose reader may have gone away.

use std::io::{self, Write as _};

/// Like `print!`, but a reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &[u8]) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
