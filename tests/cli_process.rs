//! The daemon as a process among others: what it inherits, whom it tells that it is ready, what
//! it leaves behind, and who may connect.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::client::Client;
use common::frontend::Setup;
use common::share::Share;

/// Longest time for anything to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// `O_CLOEXEC` in the flags line of /proc/PID/fdinfo/N, which is octal.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vfsd-process-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("share")).unwrap();
        TempDir(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The daemon on the share, with the socket `s`, both by relative paths.
    fn daemon(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtiofsd"));
        command
            .args(["--shared-dir", "share", "--socket-path", "s"])
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET");
        command
    }

    /// The process in the pid file.
    fn daemon_pid(&self) -> u32 {
        let text = fs::read_to_string(self.path("s.pid")).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A daemon in the foreground, asked to end at the end. (One that is killed leaves its sandboxed
/// child listening for a moment, in the way of the next one.)
struct Foreground(Child);

impl Drop for Foreground {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            signal("TERM", self.0.id());
        }
        let _ = self.0.wait();
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The next message. A wait with a time limit ends when the process is stopped and goes on,
/// signal(7).
fn receive(socket: &UnixDatagram, message: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(message) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            done => return done,
        }
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    })
}

/// The session of a process, proc_pid_stat(5).
fn session(pid: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap().to_owned();
    after_name.split_whitespace().nth(3).unwrap().to_owned()
}

fn stream(pid: u32, number: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap()
}

/// Descriptors above 2 of a process that a program it starts would inherit.
fn inheritable(pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let number = entry.unwrap().file_name().into_string().unwrap();
        if number.parse::<u32>().unwrap() <= 2 {
            continue;
        }
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")) else {
            continue;
        };
        let flags = text
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        if flags & CLOSE_ON_EXEC == 0 {
            let target = fs::read_link(format!("/proc/{pid}/fd/{number}"));
            found.push(format!("{number} -> {target:?}"));
        }
    }
    found
}

#[test]
fn daemonize_returns_when_a_front_end_can_connect() {
    let modes: &[&str] = match is_root() {
        true => &["none", "namespace", "chroot"],
        false => &["none", "namespace"],
    };
    for mode in modes {
        let temp = TempDir::new(&format!("daemonize-{mode}"));
        let started = temp
            .daemon()
            .args(["--daemonize", "--sandbox", mode])
            .output()
            .unwrap();
        assert_eq!(
            started.status.code(),
            Some(0),
            "{mode}: {}",
            stderr(&started)
        );
        let pid = temp.daemon_pid();
        let streams: Vec<PathBuf> = (0..=2).map(|number| stream(pid, number)).collect();
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        let sessions = (session(&pid.to_string()), session("self"));
        // No retry: it must be possible at once.
        let front_end = UnixStream::connect(temp.path("s"));
        drop(front_end.unwrap());
        wait_until("the daemon ends with its front end", || !is_running(pid));
        assert_eq!(
            streams,
            [Path::new("/dev/null"); 3].map(PathBuf::from),
            "{mode}"
        );
        assert_eq!(directory, Path::new("/"), "{mode}");
        assert_ne!(sessions.0, sessions.1, "{mode}");
        let left = [temp.path("s"), temp.path("s.pid")].map(|path| path.exists());
        assert_eq!(left, [false, false], "{mode}");
    }
}

#[test]
fn daemonize_hears_sigterm_in_the_background() {
    let temp = TempDir::new("daemonize-term");
    let started = temp
        .daemon()
        .args(["--daemonize", "--sandbox=none"])
        .stderr(Stdio::null())
        .status();
    assert!(started.unwrap().success());
    let pid = temp.daemon_pid();
    signal("TERM", pid);
    wait_until("the daemon ends", || !is_running(pid));
    assert!(!temp.path("s").exists() && !temp.path("s.pid").exists());
}

#[test]
fn daemonize_that_fails_says_why_and_ends_with_its_status() {
    for (extra, said) in [
        (&["--shared-dir", "nowhere"][..], "nowhere does not exist"),
        (&["--socket-path", "no/s"], "create it first"),
        (&["--rlimit-nofile", "609"], "at least 610"),
        (
            &["--inode-file-handles=mandatory", "--shared-dir", "/proc"],
            "file handles",
        ),
    ] {
        let temp = TempDir::new("daemonize-fails");
        let ended = temp
            .daemon()
            .args(["--daemonize", "--sandbox", "none"])
            .args(extra)
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(1), "{extra:?}");
        assert!(
            stderr(&ended).contains(said),
            "{extra:?}: {}",
            stderr(&ended)
        );
        assert!(!temp.path("s").exists(), "{extra:?}");
    }
}

#[test]
fn foreground_and_daemonize_override_each_other() {
    let temp = TempDir::new("foreground");
    let mut daemon = Foreground(
        temp.daemon()
            .args(["--daemonize", "-f", "--sandbox", "none"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_until("the socket is there", || temp.path("s").exists());
    assert!(daemon.0.try_wait().unwrap().is_none());
    assert_eq!(temp.daemon_pid(), daemon.0.id());
}

#[test]
fn service_manager_is_told_when_a_front_end_can_connect() {
    let name = format!("vfsd-notify-{}", std::process::id());
    let temp = TempDir::new("notify");
    let by_path = UnixDatagram::bind(temp.path("notify")).unwrap();
    let abstract_name = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
    let path = temp.path("notify").display().to_string();
    for (address, manager) in [(path, by_path), (format!("@{name}"), by_name)] {
        for mode in ["none", "namespace"] {
            manager.set_read_timeout(Some(PATIENCE)).unwrap();
            let _daemon = Foreground(
                temp.daemon()
                    .args(["--sandbox", mode])
                    .env("NOTIFY_SOCKET", &address)
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap(),
            );
            let mut message = [0; 256];
            let len = receive(&manager, &mut message).unwrap();
            assert!(message[..len].starts_with(b"READY=1\n"), "{address} {mode}");
            // No retry: it must be possible at once.
            assert!(
                UnixStream::connect(temp.path("s")).is_ok(),
                "{address} {mode}"
            );
        }
    }
}

#[test]
fn service_manager_that_is_not_there_is_a_warning() {
    let temp = TempDir::new("no-manager");
    for address in ["/no/such/socket", "vsock:2:1"] {
        let started = temp
            .daemon()
            .args(["--daemonize", "--sandbox", "none"])
            .env("NOTIFY_SOCKET", address)
            .output()
            .unwrap();
        let pid = temp.daemon_pid();
        signal("TERM", pid);
        wait_until("the daemon ends", || !is_running(pid));
        assert_eq!(started.status.code(), Some(0));
        let said = stderr(&started);
        assert!(said.contains("cannot tell the service manager"), "{said}");
    }
}

#[test]
fn descriptors_of_parent_and_front_end_are_not_passed_on() {
    let share = Share::new();
    // The shell leaves three descriptors open, one of them a directory.
    let leaky = "exec 7</dev/null 8>&2 9</ && exec \"$0\" \"$@\"";
    for mode in ["none", "namespace"] {
        let setup = Setup::default()
            .through(&["/bin/sh", "-c", leaky])
            .args(&["--sandbox", mode]);
        let mut client = Client::mount(&setup, &share);
        // Kick, call and error descriptors, memory, and the file of a request.
        let root = client.session.getattr(1, None);
        let leaked = inheritable(client.vm.daemon.pid());
        assert!(root.is_ok(), "{mode}");
        assert_eq!(leaked, Vec::<String>::new(), "{mode}");
    }
}

#[test]
fn closed_standard_streams_are_replaced_by_dev_null() {
    let temp = TempDir::new("closed");
    let usual = temp.daemon();
    let mut command = Command::new("/bin/sh");
    command
        .args([
            "-c",
            "exec \"$0\" \"$@\" <&- >&- 2>&-",
            env!("CARGO_BIN_EXE_virtiofsd"),
        ])
        .args(usual.get_args())
        .args(["--sandbox", "none"])
        .current_dir(&temp.0);
    let daemon = Foreground(command.spawn().unwrap());
    wait_until("the socket is there", || temp.path("s").exists());
    let streams: Vec<PathBuf> = (0..=2)
        .map(|number| stream(daemon.0.id(), number))
        .collect();
    assert_eq!(streams, [Path::new("/dev/null"); 3].map(PathBuf::from));
}

#[test]
fn inherited_socket_may_be_standard_input() {
    let temp = TempDir::new("inetd");
    let listener = UnixListener::bind(temp.path("inherited")).unwrap();
    let daemon = Command::new(env!("CARGO_BIN_EXE_virtiofsd"))
        .args(["--shared-dir", "share", "--fd", "0", "--sandbox", "none"])
        .current_dir(&temp.0)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = Foreground(daemon);
    drop(UnixStream::connect(temp.path("inherited")).unwrap());
    let status = daemon.0.wait().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn socket_activation_by_systemd_serves_on_descriptor_3() {
    let temp = TempDir::new("activation");
    let socket = temp.path("activated");
    let mut command = Command::new("systemd-socket-activate");
    command
        .arg("--listen")
        .arg(&socket)
        .args([
            env!("CARGO_BIN_EXE_virtiofsd"),
            "--fd=3",
            "--shared-dir",
            "share",
        ])
        .current_dir(&temp.0)
        .stderr(Stdio::null());
    let Ok(daemon) = command.spawn() else {
        println!("skipped: systemd-socket-activate is not installed");
        return;
    };
    let mut daemon = Foreground(daemon);
    // The connection starts the daemon, which finds that it has ended.
    wait_until("somebody listens", || UnixStream::connect(&socket).is_ok());
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
}

#[test]
fn socket_group_may_connect_and_others_may_not() {
    let temp = TempDir::new("group");
    let own_group = fs::metadata(temp.path("share")).unwrap().gid();
    // Root may choose any; 12345 needs no entry in /etc/group.
    let group = if is_root() { 12_345 } else { own_group };
    let _daemon = Foreground(
        temp.daemon()
            .args(["--sandbox=none", "--socket-group", &group.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let socket = || fs::metadata(temp.path("s"));
    wait_until("the socket is shared", || {
        socket().is_ok_and(|found| found.permissions().mode() & 0o777 == 0o770)
    });
    assert_eq!(socket().unwrap().gid(), group);
}

#[test]
fn pid_file_of_another_kind_is_refused_and_never_waited_for() {
    let temp = TempDir::new("pid");
    let pid_file = temp.path("s.pid");
    let precious = temp.path("precious");
    fs::write(&precious, "precious").unwrap();
    let refused = |what: &str| {
        let ended = temp.daemon().args(["--sandbox", "none"]).output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{what}");
        assert!(stderr(&ended).contains(what), "{}", stderr(&ended));
        assert!(!temp.path("s").exists(), "{what}");
        fs::remove_file(&pid_file).unwrap();
    };
    let made = Command::new("mkfifo").arg(&pid_file).status().unwrap();
    assert!(made.success());
    refused("is not a regular file");
    std::os::unix::fs::symlink(&precious, &pid_file).unwrap();
    refused("is a symbolic link");
    fs::hard_link(&precious, &pid_file).unwrap();
    refused("is a hard link");
    if is_root() {
        fs::write(&pid_file, "").unwrap();
        std::os::unix::fs::chown(&pid_file, Some(65_534), None).unwrap();
        refused("owned by another user");
    } else {
        println!("skipped in part: only root can make a file of another user");
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

/// Runs the daemon where `/run` is `run`, in mounts of its own.
fn with_run_directory(temp: &TempDir, run: &Path, mode: &str) -> io::Result<Child> {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.arg("--map-root-user");
    }
    let script = "mount --bind \"$0\" /run && exec \"$@\"";
    command
        .args(["--mount", "--", "/bin/sh", "-c", script])
        .arg(run)
        .arg(env!("CARGO_BIN_EXE_virtiofsd"))
        .args(temp.daemon().get_args())
        .args(["--syslog", "--sandbox", mode, "--log-level", "info"])
        .current_dir(&temp.0)
        .env("RUST_LOG", "off")
        .stderr(Stdio::piped())
        .spawn()
}

#[test]
fn syslog_gets_the_lines_from_inside_the_sandbox_too() {
    if Path::new("/dev/log").exists() {
        println!("skipped: /dev/log is there, and comes before the syslog of this test");
        return;
    }
    for mode in ["none", "namespace"] {
        let temp = TempDir::new(&format!("syslog-{mode}"));
        let run = temp.path("run");
        fs::create_dir(&run).unwrap();
        let syslog = UnixDatagram::bind(run.join("log")).unwrap();
        syslog.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut daemon = Foreground(with_run_directory(&temp, &run, mode).unwrap());
        let mut lines = String::new();
        while !lines.contains("waiting for the front end") {
            let mut line = [0; 1024];
            let len = match receive(&syslog, &mut line) {
                Ok(len) => len,
                Err(error) => {
                    let _ = daemon.0.kill();
                    let mut said = String::new();
                    let mut stream = daemon.0.stderr.take().unwrap();
                    io::Read::read_to_string(&mut stream, &mut said).unwrap();
                    let is_denied = said.contains("unshare") || said.contains("mount");
                    assert!(
                        is_denied,
                        "{error}, {lines} in the log, {said} on standard error"
                    );
                    println!("skipped: no mounts of its own for the daemon: {said}");
                    return;
                }
            };
            lines.push_str(&String::from_utf8_lossy(&line[..len]));
            lines.push('\n');
        }
        let last = lines.lines().last().unwrap();
        // Facility user (1), severity informational (6).
        assert!(last.starts_with("<14>"), "{last}");
        let name = format!(" virtiofsd[{}]: ", temp.daemon_pid());
        assert!(last.contains(&name), "{name} in {last}");
        signal("USR1", temp.daemon_pid());
        let mut line = [0; 1024];
        let len = receive(&syslog, &mut line).unwrap();
        let line = String::from_utf8_lossy(&line[..len]);
        assert!(line.contains("counters: no front end"), "{line}");
    }
}

#[test]
fn syslog_that_is_not_there_is_a_warning() {
    let is_socket =
        |path: &&str| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let places = ["/dev/log", "/var/run/syslog", "/var/run/log"];
    if let Some(there) = places.iter().find(|path| is_socket(path)) {
        println!("skipped: there is a syslog, {there}");
        return;
    }
    let temp = TempDir::new("no-syslog");
    let ended = temp
        .daemon()
        .args(["--syslog", "--sandbox=none", "--socket-path", "no/s"])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = stderr(&ended);
    assert!(said.contains("cannot log to syslog"), "{said}");
    assert!(said.contains("create it first"), "{said}");
}
