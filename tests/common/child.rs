//! What: parts of a test that change their whole process, in processes of their own.
//!
//! In: the name of an ignored test in the same test binary, and of a case. Out: how a process
//! ended that ran it. Such a test asks [`case`] first, and does nothing if nobody told it one, so
//! that running all ignored tests does no harm.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::TIMEOUT;

/// The environment variable that tells a child what to do.
const CASE: &str = "VIRTIOFSD_TEST_CASE";
/// What a child says when it is about to do it.
pub(crate) const BEFORE: &str = "the case begins";
/// What it says when it has lived through it.
pub(crate) const AFTER: &str = "the case is over";

/// A run of an ignored test of this binary, by way of a program that changes what it inherits.
#[derive(Debug)]
pub(crate) struct Child {
    command: Command,
}

impl Child {
    pub(crate) fn new(test: &str, case: &str) -> Self {
        Self::through(&[], &own_binary(), test, case)
    }

    pub(crate) fn through(wrapper: &[&str], binary: &Path, test: &str, case: &str) -> Self {
        let mut command = match wrapper {
            [] => Command::new(binary),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary);
                command
            }
        };
        command.args(["--exact", test, "--ignored", "--nocapture"]);
        // Nothing runs besides it then, but the main thread, which waits.
        command.arg("--test-threads=1");
        command.env(CASE, case).env("RUST_BACKTRACE", "1");
        command.env_remove("RUST_LOG");
        command.stdin(Stdio::null());
        Child { command }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it with its output in pipes, for whoever reads it meanwhile.
    pub(crate) fn spawn(mut self) -> std::process::Child {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.command.spawn();
        child.unwrap_or_else(|error| panic!("{:?}: {error}", self.command))
    }

    /// Runs it to its end, which must come before [`TIMEOUT`]. What it says must fit into a pipe.
    pub(crate) fn run(self) -> Ended {
        let mut child = self.spawn();
        let deadline = Instant::now() + TIMEOUT;
        while child.try_wait().expect("it is ours").is_none() {
            if Instant::now() >= deadline {
                let _ = child.kill();
                let output = child.wait_with_output().expect("it is ours");
                panic!("hangs: {}", Ended(output).said());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ended(child.wait_with_output().expect("it has ended"))
    }
}

pub(crate) fn own_binary() -> PathBuf {
    std::env::current_exe().expect("/proc is mounted")
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Output);

impl Ended {
    pub(crate) fn signal(&self) -> Option<i32> {
        self.0.status.signal()
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    pub(crate) fn said(&self) -> String {
        let out = String::from_utf8_lossy(&self.0.stdout);
        let err = String::from_utf8_lossy(&self.0.stderr);
        format!("{}\n{out}\n{err}", self.0.status)
    }

    pub(crate) fn says(&self, words: &str) -> bool {
        self.said().contains(words)
    }
}

/// The case that this process shall play; `None` when nobody asked for one.
pub(crate) fn case() -> Option<String> {
    let case = std::env::var(CASE).ok();
    if case.is_none() {
        eprintln!("skipped: other tests run this one in a process of its own");
    }
    case
}
