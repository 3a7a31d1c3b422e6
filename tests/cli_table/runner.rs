//! Runs one command line on a scene of its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest time for the binary to get ready or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The log line that ends the start, as this daemon and the existing one have it.
const WAITING: [&str; 2] = [
    "waiting for the front end",
    "Waiting for vhost-user socket connection",
];

/// What the file of a scene holds.
const FILE: &[u8] = b"precious";

/// A directory with everything that a row may name.
#[derive(Debug)]
pub(crate) struct Scene {
    directory: PathBuf,
}

/// How a command line has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit status; none for a daemon that got ready.
    pub(crate) status: Option<i32>,
    /// All of standard output and error (of a daemon: until it was ready).
    pub(crate) said: String,
    /// Sockets and pid files that a failed start has left.
    pub(crate) left_behind: Vec<PathBuf>,
    /// Whether a file that was there before is what it was.
    pub(crate) is_file_intact: bool,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let index = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vfsd-table-{}-{index}", std::process::id());
        let scene = Scene {
            directory: std::env::temp_dir().join(name),
        };
        fs::create_dir_all(scene.directory.join("share")).unwrap();
        fs::create_dir_all(scene.directory.join("a,b c")).unwrap();
        fs::create_dir_all(scene.directory.join(OsStr::from_bytes(b"\xff\xfe"))).unwrap();
        fs::write(scene.directory.join("file"), FILE).unwrap();
        for (link, target) in [("link", "share"), ("dangling", "nowhere")] {
            std::os::unix::fs::symlink(target, scene.directory.join(link)).unwrap();
        }
        scene
    }

    /// The words of a line. A name in braces stands for something in the scene.
    pub(crate) fn words(&self, line: &str) -> Vec<OsString> {
        let in_scene = |name: &str| self.directory.join(name).into_os_string();
        let usual = |words: &mut Vec<OsString>| {
            words.extend(["--shared-dir".into(), in_scene("share")]);
            words.extend(["--socket-path".into(), in_scene("s")]);
        };
        let mut words = Vec::new();
        for word in line.split_terminator(' ') {
            match word {
                "{served}" => {
                    usual(&mut words);
                    words.extend(["--sandbox".into(), "none".into()]);
                }
                "{usual}" => usual(&mut words),
                "{share-and-fd}" => {
                    words.extend(["--shared-dir".into(), in_scene("share")]);
                    words.extend(["--sandbox", "none", "--fd"].map(OsString::from));
                }
                _ => words.push(self.replaced(word)),
            }
        }
        words
    }

    fn replaced(&self, word: &str) -> OsString {
        let nr_open = fs::read_to_string("/proc/sys/fs/nr_open").unwrap();
        let nr_open: u64 = nr_open.trim().parse().unwrap();
        let directory = self.directory.as_os_str().as_bytes();
        let values: &[(&str, Vec<u8>)] = &[
            ("{dir}", directory.to_owned()),
            ("{share}", [directory, b"/share"].concat()),
            ("{comma}", [directory, b"/a,b c"].concat()),
            ("{commas}", [directory, b"/a,,b c"].concat()),
            ("{bytes}", [directory, b"/\xff\xfe"].concat()),
            ("{empty}", Vec::new()),
            ("{beyond}", (nr_open + 1).to_string().into_bytes()),
            ("{long}", vec![b'l'; 120]),
            ("{byte}", vec![0xff]),
        ];
        let mut rest = word;
        let mut bytes = Vec::new();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').unwrap();
            let name = format!("{{{name}}}");
            let found = values.iter().find(|(known, _)| *known == name);
            bytes.extend_from_slice(before.as_bytes());
            bytes.extend_from_slice(&found.unwrap_or_else(|| panic!("what is {name}?")).1);
            rest = tail;
        }
        bytes.extend_from_slice(rest.as_bytes());
        OsString::from_vec(bytes)
    }

    pub(crate) fn run(&self, binary: &Path, words: &[OsString]) -> Ran {
        let mut command = Command::new(binary);
        command.args(words);
        self.watch(command)
    }

    /// The same with a listening socket as descriptor 3.
    pub(crate) fn run_with_socket_3(&self, binary: &Path, words: &[OsString]) -> Ran {
        let listener = UnixListener::bind(self.directory.join("inherited")).unwrap();
        let mut command = Command::new("/bin/sh");
        // The shell moves its standard input, which is the socket, to 3.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 0</dev/null"]);
        command.arg(binary).args(words);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
        self.watch_started(command)
    }

    fn watch(&self, mut command: Command) -> Ran {
        command.stdin(Stdio::null());
        self.watch_started(command)
    }

    fn watch_started(&self, mut command: Command) -> Ran {
        let mut child = command
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .current_dir(&self.directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let to_stdout = sender.clone();
        std::thread::spawn(move || forward(stdout, &to_stdout));
        std::thread::spawn(move || forward(stderr, &sender));
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::new();
        let mut is_ready = false;
        while !is_ready {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    is_ready = WAITING.iter().any(|text| line.contains(text));
                    said.push_str(&line);
                    said.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    child.kill().unwrap();
                    panic!("neither ready nor at an end: {command:?} said {said}");
                }
            }
        }
        if is_ready {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        Ran {
            status: (!is_ready).then(|| status.code().unwrap_or(-1)),
            said,
            left_behind: self.left_behind(),
            is_file_intact: fs::read(self.directory.join("file")).is_ok_and(|text| text == FILE),
        }
    }

    fn left_behind(&self) -> Vec<PathBuf> {
        let names = ["s", "s.pid", "file.pid", "link.pid", "dangling.pid"];
        let paths = names.map(|name| self.directory.join(name));
        let exist = paths.into_iter().filter(|path| path.exists());
        exist.collect()
    }
}

fn forward(stream: impl BufRead, to: &mpsc::Sender<String>) {
    for line in stream.split(b'\n') {
        let Ok(line) = line else {
            return;
        };
        if to
            .send(String::from_utf8_lossy(&line).into_owned())
            .is_err()
        {
            return;
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
