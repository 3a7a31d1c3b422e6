//! The command line of the binary: what was typed, what it means, and what to do. Uses the
//! library by its root only; the library never imports it.

mod capabilities;
mod legacy;
mod options;
mod process_options;
mod settings;
mod share_options;

use clap::Parser;

pub(crate) use capabilities::CAPABILITIES;
pub(crate) use settings::Settings;

/// What the user wants.
#[derive(Debug)]
pub(crate) enum Command {
    /// Print what a launcher may rely on, and end.
    PrintCapabilities,
    /// Serve a directory.
    Run(Box<Settings>),
}

/// Reads the command line. Ends the program with status 2 and a message when it makes no sense,
/// and with status 0 after `--help` and `--version`.
pub(crate) fn parse() -> Command {
    settings::command(options::Options::parse()).unwrap_or_else(|error| error.exit())
}
