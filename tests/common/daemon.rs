//! What: the binary under test as a process.
//!
//! In: arguments and a share. Out: its socket, its exit status, what it says on stderr, and what
//! /proc knows about it. Killed when dropped.
//!
//! With a sandbox there are two processes: the one that was started, which watches, and its child,
//! which serves. Signals and the exit status are about the former, numbers from /proc about the
//! latter. `VIRTIOFSD_TEST_SANDBOX` (default: namespace, as users have it) and
//! `VIRTIOFSD_TEST_POOL` (default: adaptive) choose how daemons run whose test does not care. A
//! pool size of "adaptive" stands for no such option, so that the daemon decides for each request.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::share::TempDir;
use super::{TIMEOUT, sys};

/// What the daemon said, for panic messages from anywhere in a test.
#[derive(Debug)]
pub(crate) struct DaemonLog {
    pub(crate) pid: u32,
    stderr: Mutex<Vec<u8>>,
}

impl DaemonLog {
    pub(crate) fn text(&self) -> String {
        let bytes = self.stderr.lock().expect("the reader does not panic");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Process state letter of proc_pid_stat(5); `None` when the process is gone.
    fn state(&self) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let rest = stat.rsplit(')').next()?;
        rest.split_whitespace().next().map(str::to_owned)
    }

    /// Waits until it says `words`, which come through a pipe and a thread, and so perhaps late.
    pub(crate) fn wait_for(&self, words: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.text().contains(words) {
            assert!(
                Instant::now() < deadline,
                "not said: {words}\n{}",
                self.describe()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// False when the process has ended, even if nobody has waited for it yet.
    pub(crate) fn is_running(&self) -> bool {
        self.state()
            .is_some_and(|state| state != "Z" && state != "X")
    }

    /// State and words of the daemon.
    pub(crate) fn describe(&self) -> String {
        let state = self.state().unwrap_or_else(|| "gone".to_owned());
        let text = self.text();
        let start = text.len().saturating_sub(4000);
        let tail = text.get(start..).unwrap_or(&text);
        format!("daemon {} (state {state}) said:\n{tail}", self.pid)
    }
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("VIRTIOFSD_UNDER_TEST").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_virtiofsd")),
        PathBuf::from,
    )
}

/// Arguments that a stand-in for the binary needs on top (`VIRTIOFSD_UNDER_TEST_ARGS`).
fn extra_args() -> Vec<String> {
    let args = std::env::var("VIRTIOFSD_UNDER_TEST_ARGS").unwrap_or_default();
    args.split_whitespace().map(str::to_owned).collect()
}

/// `--sandbox` and `--thread-pool-size`, as the environment says, unless `args` have them.
fn environment_args(args: &[String]) -> Vec<String> {
    let mut chosen = Vec::new();
    for (option, variable, default) in [
        ("--sandbox", "VIRTIOFSD_TEST_SANDBOX", "namespace"),
        ("--thread-pool-size", "VIRTIOFSD_TEST_POOL", "adaptive"),
    ] {
        if !args.iter().any(|arg| arg.starts_with(option)) {
            let value = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
            chosen.extend([option.to_owned(), value]);
        }
    }
    chosen
}

/// Whether a daemon with these arguments serves in a child.
fn has_child(args: &[String]) -> bool {
    let separate = args.windows(2).any(|pair| pair == ["--sandbox", "none"]);
    !separate && !args.iter().any(|arg| arg == "--sandbox=none")
}

/// A child of `parent`; none when it has none (yet).
fn child_of(parent: u32) -> Option<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(path).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    has_child: bool,
    serving_pid: OnceLock<u32>,
    pub(crate) log: Arc<DaemonLog>,
    pub(crate) socket: PathBuf,
    reader: Option<JoinHandle<()>>,
    status: Option<ExitStatus>,
    directory: TempDir,
    /// The tree beside the share that must not change, if the test has one.
    pub(crate) outside: Option<PathBuf>,
}

impl Daemon {
    /// Starts the binary on `share` with a socket of its own. Does not wait for the socket.
    pub(crate) fn spawn(share: &Path, args: &[String]) -> Self {
        Self::spawn_through(&[], share, args)
    }

    /// The same by another program, with its arguments, which becomes the daemon (execve(2)) when
    /// it has changed what it inherits.
    pub(crate) fn spawn_through(wrapper: &[String], share: &Path, args: &[String]) -> Self {
        let directory = TempDir::new("socket");
        let socket = directory.path().join("vhost.sock");
        let mut command = match wrapper {
            [] => Command::new(binary()),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary());
                command
            }
        };
        command.arg("--socket-path").arg(&socket);
        command.arg("--shared-dir").arg(share);
        let mut daemon = Self::run(command, args, socket, directory);
        daemon.outside = share
            .parent()
            .map(|base| base.join("outside"))
            .filter(|outside| outside.is_dir());
        daemon
    }

    /// Starts another program: `words` are its command line, in which `{socket}` and `{share}`
    /// stand for the two paths. Its processes are its own affair: [`Self::pid`] is that of the
    /// process that was started.
    pub(crate) fn spawn_words(words: &[String], share: &Path) -> Self {
        let directory = TempDir::new("socket");
        let socket = directory.path().join("vhost.sock");
        let path = |path: &Path| path.to_str().expect("paths in tests are UTF-8").to_owned();
        let (socket_path, share_path) = (path(&socket), path(share));
        let mut filled = words.iter().map(|word| {
            let word = word.replace("{socket}", &socket_path);
            word.replace("{share}", &share_path)
        });
        let mut command = Command::new(filled.next().expect("a program"));
        command.args(filled);
        Self::start(command, false, socket, directory)
    }

    /// Starts the binary with an inherited listening socket.
    pub(crate) fn spawn_with_fd(share: &Path, listener: &impl std::os::fd::AsRawFd) -> Self {
        let fd = sys::make_inheritable(listener);
        let directory = TempDir::new("socket");
        let socket = directory.path().join("unused.sock");
        let mut command = Command::new(binary());
        command.arg("--fd").arg(fd.to_string());
        command.arg("--shared-dir").arg(share);
        Self::run(command, &[], socket, directory)
    }

    fn run(mut command: Command, args: &[String], socket: PathBuf, directory: TempDir) -> Self {
        let mut all_args = environment_args(args);
        all_args.extend(extra_args());
        all_args.extend_from_slice(args);
        let adaptive = ["--thread-pool-size", "adaptive"];
        while let Some(at) = all_args.windows(2).position(|pair| pair == adaptive) {
            all_args.drain(at..at + 2);
        }
        command.args(&all_args);
        Self::start(command, has_child(&all_args), socket, directory)
    }

    fn start(mut command: Command, has_child: bool, socket: PathBuf, directory: TempDir) -> Self {
        command.stdin(Stdio::null());
        command.stdout(Stdio::null());
        command.stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Arc::new(DaemonLog {
            pid: child.id(),
            stderr: Mutex::new(Vec::new()),
        });
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let sink = Arc::clone(&log);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = stderr.read(&mut chunk) {
                let mut all = sink.stderr.lock().expect("no panic with the log");
                all.extend_from_slice(&chunk[..len]);
            }
        });
        Daemon {
            child,
            has_child,
            serving_pid: OnceLock::new(),
            log,
            socket,
            reader: Some(reader),
            status: None,
            directory,
            outside: None,
        }
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> u32 {
        if !self.has_child {
            return self.child.id();
        }
        *self.serving_pid.get_or_init(|| {
            let deadline = Instant::now() + TIMEOUT;
            loop {
                if let Some(pid) = child_of(self.child.id()) {
                    return pid;
                }
                assert!(
                    Instant::now() < deadline && self.log.is_running(),
                    "there is no child that serves\n{}",
                    self.log.describe()
                );
                thread::sleep(Duration::from_millis(5));
            }
        })
    }

    /// The process that was started.
    pub(crate) fn main_pid(&self) -> u32 {
        self.child.id()
    }

    /// Connects as soon as the daemon listens.
    pub(crate) fn connect(&mut self) -> UnixStream {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return stream,
                Err(error) => {
                    assert!(
                        self.is_alive() && Instant::now() < deadline,
                        "cannot connect to {:?}: {error}\n{}",
                        self.socket,
                        self.log.describe()
                    );
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .unwrap_or_else(|error| panic!("wait for the daemon: {error}"));
        }
        self.status.is_none()
    }

    /// The exit status, if the daemon ends within `timeout`.
    pub(crate) fn exit_within(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // The pipe ends with the process, so that the log is complete.
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log reader does not panic");
        }
        self.status
    }

    /// Waits for the end.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.exit_within(TIMEOUT).unwrap_or_else(|| {
            panic!(
                "the daemon is still running after {TIMEOUT:?}\n{}",
                self.log.describe()
            )
        })
    }

    fn count(&self, what: &str) -> usize {
        let path = format!("/proc/{}/{what}", self.pid());
        fs::read_dir(&path)
            .unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log.describe()))
            .count()
    }

    /// Open descriptors.
    pub(crate) fn fd_count(&self) -> usize {
        self.count("fd")
    }

    /// What the open descriptors lead to, for messages.
    pub(crate) fn fd_list(&self) -> Vec<String> {
        let path = format!("/proc/{}/fd", self.pid());
        let mut list: Vec<String> = fs::read_dir(&path)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .map(|target| target.display().to_string())
            .collect();
        list.sort();
        list
    }

    pub(crate) fn thread_count(&self) -> usize {
        self.count("task")
    }

    fn proc_field(&self, file: &str, field: &str) -> u64 {
        let path = format!("/proc/{}/{file}", self.pid());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        value.unwrap_or_else(|| panic!("{path} has no {field}"))
    }

    /// Resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        self.proc_field("status", "VmRSS:")
    }

    /// CPU time used so far, user and system.
    pub(crate) fn cpu_time(&self) -> Duration {
        sys::cpu_time_of(self.pid()).expect("the daemon runs")
    }

    pub(crate) fn signal(&self, signal: i32) {
        sys::kill(self.main_pid(), signal);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_alive() {
            // Errors mean that it has gone by itself, which is as good.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
