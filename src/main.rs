//! The virtiofsd binary: reads the command line, starts logging, runs the library, and turns
//! the outcome into an exit status: 0 the front end has gone, 1 something failed (one line says
//! what), 2 the command line makes no sense.

mod cli;

use std::process::ExitCode;

use cli::{CAPABILITIES, Command};

fn main() -> ExitCode {
    match cli::parse() {
        Command::PrintCapabilities => {
            println!("{CAPABILITIES}");
            ExitCode::SUCCESS
        }
        Command::Run(settings) => run(&settings),
    }
}

fn run(settings: &cli::Settings) -> ExitCode {
    if let Err(error) = virtiofsd::start_logging(settings.log_level) {
        eprintln!("virtiofsd: cannot start logging: {error}");
        return ExitCode::FAILURE;
    }
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    match virtiofsd::run(&settings.daemon) {
        Ok(outcome) => ExitCode::from(outcome.exit_status()),
        Err(error) => {
            eprintln!("virtiofsd: {}", virtiofsd::error_chain(&error));
            ExitCode::FAILURE
        }
    }
}
