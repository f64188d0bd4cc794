//! The `knarr` binary: arguments, role selection, exit codes.

fn main() {}
