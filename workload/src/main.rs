//! The workload app as a program of its own: `knarr-workload --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    workload::main(std::env::args_os().skip(1))
}
