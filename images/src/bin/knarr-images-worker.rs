//! The unpack worker alone, for tests and benchmarks, whose own `main` is another.

fn main() -> std::process::ExitCode {
    images::worker::main()
}
