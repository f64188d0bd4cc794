//! The registry client against a server that misbehaves on purpose, and against Debian's registry.

mod misbehaving;
mod real;
mod support;
