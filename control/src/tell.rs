//! What Knarr says to its user unasked.

use std::fmt;
use std::io::{self, Write as _};

/// One line on standard error. That nobody reads it is no reason to stop serving.
pub fn tell(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}
