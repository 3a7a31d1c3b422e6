//! The command line of the real binary: what it prints, and with which status it ends.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest time for the binary to get ready or to end.
const PATIENCE: Duration = Duration::from_secs(20);

struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vfsd-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("share")).unwrap();
        TempDir(path)
    }

    fn share(&self) -> String {
        self.0.join("share").display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtiofsd"));
    command.stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    binary().args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Tries to serve `share` on `socket`; for what ends by itself.
fn serve(share: &str, socket: &str) -> Output {
    binary()
        .args(["--shared-dir", share, "--socket-path", socket])
        .args(["--sandbox", "none"])
        .output()
        .unwrap()
}

/// The last line of standard error: where the binary says why it failed.
fn last_line(output: &Output) -> String {
    stderr(output).lines().last().unwrap_or_default().to_owned()
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed() < PATIENCE,
            "{} never appeared",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn no_arguments_prints_help_and_exits_2() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("--shared-dir"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn help_and_version_exit_0() {
    let help = run(&["--help"]);
    let version = run(&["--version"]);
    assert_eq!(help.status.code(), Some(0));
    for option in [
        "--socket-path",
        "--cache",
        "--writeback",
        "--fd",
        "--thread-pool-size",
        "SIGUSR1",
    ] {
        assert!(stdout(&help).contains(option), "{option}");
    }
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        stdout(&version),
        concat!("virtiofsd ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn full_standard_streams_are_a_status_and_no_panic() {
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    let printed = binary()
        .arg("--print-capabilities")
        .stdout(full())
        .output()
        .unwrap();
    assert_eq!(printed.status.code(), Some(1));
    assert!(last_line(&printed).contains("No space left"), "{printed:?}");
    for level in ["info", "off"] {
        let failed = binary()
            .args(["--shared-dir", "/no/such/dir", "--socket-path", "s"])
            .args(["--log-level", level])
            .stderr(full())
            .status()
            .unwrap();
        assert_eq!(failed.code(), Some(1), "{level}");
    }
}

#[test]
fn readme_has_every_option_of_the_help_and_no_other() {
    let help = stdout(&run(&["--help"]));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, options) = readme.split_once("## Options").unwrap();
    let (table, _) = options.split_once("\n## ").unwrap();
    // All that are mentioned anywhere; a mention of an option that does not exist is a mistake, too.
    let names = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .filter(|word| word.starts_with("--") && !word.ends_with('-'))
            .map(str::to_owned)
            .collect()
    };
    let mut known = names(&help);
    known.extend(["--socket", "--migration-mode"].map(str::to_owned));
    let shown = names(table);
    assert!(known.len() > 30);
    assert_eq!(known.difference(&shown).next(), None, "in the help only");
    assert_eq!(shown.difference(&known).next(), None, "in README.md only");
}

#[test]
fn print_capabilities_is_json_for_launchers() {
    let output = run(&["--print-capabilities"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(text.starts_with("{\n  \"type\": \"fs\",\n"), "{text}");
    assert!(text.contains("\"separate-options\""), "{text}");
    // The description that distributions install says the same.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = fs::read_to_string(root.join("doc/50-virtiofsd.json")).unwrap();
    let features = |json: &str| {
        let (_, list) = json.split_once("\"features\": [").unwrap();
        list.split_whitespace().collect::<String>()
    };
    assert_eq!(features(&installed), features(&text));
    assert!(!text.contains("migrate"), "not built yet: {text}");
}

#[test]
fn bad_command_lines_exit_2_and_name_the_option() {
    let cases: &[(&[&str], &str)] = &[
        (&["--shared-dir", "/tmp"], "--socket-path"),
        (
            &["--socket-path", "/tmp/s", "--sandbox", "none"],
            "--shared-dir",
        ),
        (
            &["--shared-dir", "/", "--socket-path", "s", "--fd", "3"],
            "--fd",
        ),
        (
            &["--shared-dir", "/", "--socket-path", "s", "--cache", "some"],
            "--cache",
        ),
        (
            &["--shared-dir", "/", "--socket-path", "s", "--tag", ""],
            "--tag",
        ),
        (
            &[
                "--shared-dir",
                "/",
                "--socket-path",
                "s",
                "--tag",
                "0123456789012345678901234567890123456",
            ],
            "36 bytes",
        ),
        (&["--shared-dir", "/", "--fd", "-1"], "-1"),
        (
            &["--shared-dir", "/", "--fd", "3", "--socket-group", "root"],
            "--socket-group",
        ),
        (
            &["--shared-dir", "/", "--fd", "3", "--log-level", "loud"],
            "--log-level",
        ),
        (
            &["--shared-dir", "/", "--fd", "3", "--thread-pool-size", "x"],
            "--thread-pool-size",
        ),
        (
            &["--shared-dir", "/", "--fd", "3", "--no-such-option"],
            "--no-such-option",
        ),
        (
            &["--shared-dir", "/", "--fd", "3", "--sandbox", "jail"],
            "--sandbox",
        ),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(expected),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn options_that_are_not_built_are_refused_by_name() {
    let cases: &[&[&str]] = &[
        &["--migration-mode", "find-paths"],
        &["--migration-on-error=abort"],
        &["--migration-verify-handles"],
        &["--migration-confirm-paths"],
    ];
    for extra in cases {
        let mut arguments = vec!["--shared-dir", "/", "--fd", "3", "--sandbox", "none"];
        arguments.extend_from_slice(extra);
        let output = run(&arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{extra:?}: {}",
            stderr(&output)
        );
        let text = stderr(&output);
        let name = extra[0].split('=').next().unwrap();
        assert!(text.contains(&format!("'{name}'")), "{text}");
        assert!(
            text.contains("not available in this version"),
            "{extra:?}: {text}"
        );
    }
}

#[test]
fn options_that_contradict_each_other_exit_2_and_say_why() {
    for (extra, said) in [
        (&["--no-open", "--cache=never"][..], "--cache never"),
        (&["--no-open", "--writeback"], "--writeback"),
        (&["--no-open", "--allow-direct-io"], "--allow-direct-io"),
        (&["--no-open", "--preserve-noatime"], "--preserve-noatime"),
    ] {
        let mut arguments = vec!["--shared-dir", "/", "--fd", "3", "--sandbox", "none"];
        arguments.extend_from_slice(extra);
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{extra:?}");
        let text = stderr(&output);
        assert!(text.contains("does not go with") || text.contains("do not go with"));
        assert!(text.contains("--no-open") && text.contains(said), "{text}");
    }
}

#[test]
fn options_that_need_an_equals_sign_or_a_known_value_exit_2_without() {
    for (extra, said) in [
        (&["--inode-file-handles", "never"][..], "equal sign"),
        (&["--inode-file-handles=some"], "mandatory"),
        (&["--posix-acl=maybe"], "always"),
        (&["--timeout=-1"], "--timeout"),
        (&["--entry-timeout", "soon"], "soon"),
        (&["--xattrmap", "foo"], "--xattrmap"),
        (&["--xattrmap", ":ok:client:::"], "catch-all"),
        (&["-o", "xattrmap=foo"], "-o xattrmap=foo"),
        (&["-o", "flock=1"], "-o flock=1"),
        (&["--seccomp", "KILL"], "possible values"),
        (&["--uid-map", "0:1:1"], ":0:100000:65536:"),
        (&["--translate-uid=map:0:1"], "map:GUEST:HOST:COUNT"),
        (&["--translate-gid", "mop:0:1:2"], "'mop'"),
        (&["-o", "cache=never"], "-o cache=never"),
    ] {
        let mut arguments = vec!["--shared-dir", "/", "--fd", "3", "--sandbox", "none"];
        arguments.extend_from_slice(extra);
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{extra:?}");
        assert!(
            stderr(&output).contains(said),
            "{extra:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn limits_of_open_files_that_cannot_be_set_exit_1_with_a_remedy() {
    let temp = TempDir::new("nofile");
    for (limit, said) in [
        ("99999999999", "cannot be increased above"),
        ("609", "must be at least 610"),
    ] {
        let output = binary()
            .args(["--shared-dir", &temp.share(), "--sandbox", "none"])
            .args(["--socket-path", &temp.path("s")])
            .args(["--rlimit-nofile", limit])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = last_line(&output);
        assert!(text.contains(said), "{text}");
        assert!(!Path::new(&temp.path("s")).exists());
    }
}

#[test]
fn file_handles_that_are_mandatory_and_cannot_be_used_exit_1_with_the_cause() {
    let temp = TempDir::new("handles");
    let output = binary()
        .args(["--shared-dir", "/proc/self", "--sandbox", "none"])
        .args(["--socket-path", &temp.path("s")])
        .arg("--inode-file-handles=mandatory")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = last_line(&output);
    assert!(text.contains("file handles are mandatory"), "{text}");
    assert!(text.contains("has none"), "{text}");
    assert!(!Path::new(&temp.path("s")).exists());
}

#[test]
fn rules_about_ids_that_cannot_be_followed_exit_1_and_are_named() {
    let temp = TempDir::new("ids");
    for (rules, said) in [
        (
            &["--translate-uid=map:0:10:5", "--translate-uid=guest:4:0:2"][..],
            "'map:0:10:5' and 'guest:4:0:2'",
        ),
        (
            &["--translate-gid", "forbid-guest:1:4294967295"],
            "--translate-gid 'forbid-guest:1:4294967295'",
        ),
    ] {
        let output = binary()
            .args(["--shared-dir", &temp.share(), "--sandbox", "none"])
            .args(["--socket-path", &temp.path("s")])
            .args(rules)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{rules:?}");
        let text = last_line(&output);
        assert!(text.contains(said), "{text}");
        assert!(!Path::new(&temp.path("s")).exists());
    }
}

#[test]
fn options_of_the_c_daemon_work_and_warn() {
    let temp = TempDir::new("legacy");
    let socket = temp.path("s");
    let mut child = binary()
        .args(["-o", &format!("source={},cache=always", temp.share())])
        .args(["-f", "-d", "--inode-file-handles=fallback"])
        .args(["--socket-path", &socket, "--sandbox", "none"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("waiting for the front end") {
        assert!(said.read_line(&mut text).unwrap() > 0, "{text}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for deprecated in [
        "-o is",
        "-d is",
        "-f is",
        "--inode-file-handles=fallback is",
    ] {
        assert!(text.contains(&format!("{deprecated} deprecated")), "{text}");
    }
    assert!(text.contains("DEBUG"), "{text}");
    let nothing = run(&["-o", "xattr", "--fd", "3", "--sandbox", "none"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(last_line(&nothing).contains("\"-o source\""));
}

#[test]
fn shared_dir_that_does_not_serve_exits_1_and_names_it() {
    let temp = TempDir::new("share");
    let missing = temp.path("missing");
    let socket = temp.path("s");
    let output = serve(&missing, &socket);
    assert_eq!(output.status.code(), Some(1));
    assert!(last_line(&output).contains(&missing), "{}", stderr(&output));
    assert!(
        last_line(&output).contains("No such file or directory"),
        "{}",
        stderr(&output)
    );
    assert!(!Path::new(&socket).exists());
}

#[test]
fn shared_dir_without_permission_exits_1_and_names_it() {
    let temp = TempDir::new("locked");
    let locked = temp.path("locked");
    fs::create_dir_all(format!("{locked}/inner")).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(&locked).is_ok() {
        println!("skipped: this user may read every directory");
        return;
    }
    let output = serve(&locked, &temp.path("s"));
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        last_line(&output).contains("Permission denied"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn socket_path_that_does_not_serve_exits_1_with_cause_and_remedy() {
    let temp = TempDir::new("socket");
    fs::write(temp.path("file"), "precious").unwrap();
    let long = temp.path(&"s".repeat(120));
    let cases = [
        (temp.path("none/s"), "create it first"),
        (temp.path("file"), "is not a socket"),
        (long, "choose a shorter one"),
    ];
    for (socket, expected) in cases {
        let output = serve(&temp.share(), &socket);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(last_line(&output).contains(expected), "{}", stderr(&output));
    }
    assert_eq!(fs::read_to_string(temp.path("file")).unwrap(), "precious");
}

#[test]
fn socket_of_a_living_daemon_is_refused_and_a_stale_one_replaced() {
    let temp = TempDir::new("stale");
    let socket = temp.path("s");
    drop(UnixListener::bind(&socket).unwrap());
    // Another test may be making a process at this moment, with a copy of the listener that it
    // closes when it executes its program.
    let start = Instant::now();
    while fs::read_to_string("/proc/net/unix")
        .unwrap()
        .contains(&socket)
    {
        assert!(start.elapsed() < PATIENCE, "{socket} stays");
    }
    let arguments = [
        "--shared-dir",
        &temp.share(),
        "--socket-path",
        &socket,
        "--sandbox",
        "none",
    ];
    let mut living = binary()
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(Path::new(&format!("{socket}.pid")));
    let start = Instant::now();
    let second = loop {
        let output = binary().args(arguments).output().unwrap();
        if last_line(&output).contains("another daemon") || start.elapsed() > PATIENCE {
            break output;
        }
    };
    let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    let alive = living.try_wait().unwrap().is_none();
    living.kill().unwrap();
    living.wait().unwrap();
    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    assert_eq!(mode, 0o700);
    assert!(alive, "the first daemon must not be disturbed");
}

#[test]
fn socket_of_another_program_that_listens_is_refused() {
    let temp = TempDir::new("foreign");
    let socket = temp.path("s");
    let foreign = UnixListener::bind(&socket).unwrap();
    let output = serve(&temp.share(), &socket);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        last_line(&output).contains("in use by a running process"),
        "{}",
        stderr(&output)
    );
    foreign.set_nonblocking(true).unwrap();
    assert!(foreign.accept().is_err(), "the check must not connect");
}

#[test]
fn fd_that_is_no_listening_socket_exits_1_and_says_why() {
    let temp = TempDir::new("fd");
    let output = run(&[
        "--shared-dir",
        &temp.share(),
        "--fd",
        "0",
        "--sandbox",
        "none",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        last_line(&output).contains("is not a socket"),
        "{}",
        stderr(&output)
    );
    let closed = run(&[
        "--shared-dir",
        &temp.share(),
        "--fd",
        "987",
        "--sandbox",
        "none",
    ]);
    assert_eq!(closed.status.code(), Some(1), "{}", stderr(&closed));
    assert!(
        last_line(&closed).contains("is not open"),
        "{}",
        stderr(&closed)
    );
}

#[test]
fn deprecated_socket_option_works_and_warns() {
    let temp = TempDir::new("deprecated");
    let output = run(&[
        "--shared-dir",
        &temp.share(),
        "--socket",
        &temp.path("none/s"),
        "--sandbox",
        "none",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("--socket is deprecated"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn repeated_options_take_the_last_value() {
    let temp = TempDir::new("repeat");
    let missing = temp.path("missing");
    let output = run(&[
        "--shared-dir",
        &temp.share(),
        "--cache",
        "never",
        "--cache=AUTO",
        "--shared-dir",
        &missing,
        "--socket-path",
        &temp.path("s"),
        "--sandbox",
        "none",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(last_line(&output).contains(&missing), "{}", stderr(&output));
}

#[test]
fn rust_log_wins_over_log_level() {
    let temp = TempDir::new("log");
    let run_with = |filter: Option<&str>| {
        let mut command = binary();
        if let Some(filter) = filter {
            command.env("RUST_LOG", filter);
        }
        let socket = temp.path("none/s");
        command
            .args([
                "--shared-dir",
                &temp.share(),
                "--socket",
                &socket,
                "--sandbox",
                "none",
            ])
            .args(["--log-level", "off"])
            .output()
            .unwrap()
    };
    assert!(!stderr(&run_with(None)).contains("deprecated"));
    assert!(stderr(&run_with(Some("warn"))).contains("deprecated"));
}
