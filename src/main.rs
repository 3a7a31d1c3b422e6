//! The virtiofsd binary: reads the command line, starts logging, runs the library, and turns
//! the outcome into an exit status: 0 the front end has gone, 1 something failed (one line says
//! what), 2 the command line makes no sense.

mod cli;

use std::io::{self, Write};
use std::process::ExitCode;

use cli::{CAPABILITIES, Command};
use virtiofsd::Inherited;

fn main() -> ExitCode {
    let inherited = Inherited::find();
    match cli::parse() {
        Command::PrintCapabilities => print_capabilities(),
        Command::Run(settings) => run(&settings, inherited),
    }
}

fn print_capabilities() -> ExitCode {
    match writeln!(io::stdout(), "{CAPABILITIES}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot print the capabilities: {error}")),
    }
}

fn run(settings: &cli::Settings, inherited: Inherited) -> ExitCode {
    let started = virtiofsd::start_logging(settings.log_level, settings.log_destination);
    if let Err(error) = started {
        return fail(&format!("cannot start logging: {error}"));
    }
    virtiofsd::log_panics();
    if let Err(why) = settings.announce() {
        return fail(&why);
    }
    match virtiofsd::run(&settings.daemon, inherited) {
        Ok(outcome) => ExitCode::from(outcome.exit_status()),
        Err(error) => fail(&virtiofsd::error_chain(&error)),
    }
}

/// One log line that says why; on standard error when even errors are not logged, since a
/// failure without a reason helps nobody.
fn fail(why: &str) -> ExitCode {
    if log::log_enabled!(log::Level::Error) {
        log::error!("{why}");
    } else {
        // With nowhere to say it, the exit status has to do.
        let _ = writeln!(io::stderr(), "virtiofsd: {why}");
    }
    ExitCode::FAILURE
}
