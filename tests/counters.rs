//! The counters of the daemon: what it says at SIGUSR1 and at its end, against what a guest sent.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::client::Client;
use common::daemon::{Daemon, DaemonLog};
use common::frontend::Setup;
use common::request::op;
use common::session_data::{At, read_body};
use common::session_lock::Lock;
use common::share::Share;
use common::{TIMEOUT, sys, u64_of};

const ROOT: u64 = 1;
const HEADER: &str = "operation requests errors bytes p50_us p99_us max_us";
/// How each block of lines ends.
const LAST_LINE: &str = "counters: transport: ";
/// `F_WRLCK`.
const WRITE_LOCK: u32 = 1;

/// Requests, errors, bytes.
type Row = (u64, u64, u64);

/// A block of lines: what was counted by operation, and the line of the connection.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    rows: BTreeMap<String, Row>,
    /// The names in the order of the lines.
    order: Vec<String>,
    /// Those of which a request has ended.
    timed: BTreeSet<String>,
    transport: String,
}

/// What the daemon said, without a line that has not come through the pipe as a whole.
fn whole_lines(log: &DaemonLog) -> String {
    let mut text = log.text();
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    text
}

/// What stands behind the mark of all lines of counters.
fn counter_lines(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .filter_map(|line| Some(line.split_once("counters: ")?.1))
        .collect()
}

/// The last whole block in the log.
fn last_table(log: &DaemonLog) -> Table {
    let text = whole_lines(log);
    let lines = counter_lines(&text);
    let last = lines.iter().rposition(|line| line.starts_with("transport"));
    let last = last.unwrap_or_else(|| panic!("no counters\n{}", log.describe()));
    let lines = &lines[..=last];
    let first = lines.iter().rposition(|line| line.starts_with(HEADER));
    let first = first.unwrap_or_else(|| panic!("no header\n{}", log.describe()));
    let mut table = Table {
        rows: BTreeMap::new(),
        order: Vec::new(),
        timed: BTreeSet::new(),
        transport: lines[last].to_owned(),
    };
    for line in &lines[first + 1..last] {
        let columns: Vec<&str> = line.split(' ').collect();
        assert_eq!(columns.len(), HEADER.split(' ').count(), "{line}");
        let count = |index: usize| columns[index].parse::<u64>().unwrap();
        if columns[4..] != ["-", "-", "-"] {
            let times: Vec<f64> = columns[4..].iter().map(|us| us.parse().unwrap()).collect();
            assert!(times.is_sorted() && times[0] > 0.0, "{line}");
            table.timed.insert(columns[0].to_owned());
        }
        let row = (count(1), count(2), count(3));
        assert_eq!(table.rows.insert(columns[0].to_owned(), row), None);
        table.order.push(columns[0].to_owned());
    }
    table
}

fn wait_for_count(log: &DaemonLog, words: &str, count: usize) {
    let deadline = Instant::now() + TIMEOUT;
    while whole_lines(log).matches(words).count() < count {
        assert!(
            Instant::now() < deadline,
            "not said {count} times: {words}\n{}",
            log.describe()
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sends SIGUSR1 and waits for the answer.
fn ask(log: &DaemonLog, pid: u32) -> Table {
    let before = whole_lines(log).matches(LAST_LINE).count();
    sys::kill(pid, libc::SIGUSR1);
    wait_for_count(log, LAST_LINE, before + 1);
    last_table(log)
}

/// Sends some requests of many kinds, and gives what should be counted for them and for INIT.
fn send_some(client: &mut Client) -> BTreeMap<String, Row> {
    for _ in 0..40 {
        client.getattr(ROOT, None).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(client.lookup(ROOT, "missing"), Err(libc::ENOENT));
    }
    let (node, fh) = client.make_file(ROOT, "file", &[7; 5000]);
    let at = |offset| At { node, fh, offset };
    assert_eq!(client.read(at(0), 4096).unwrap().len(), 4096);
    assert_eq!(client.read(at(4096), 4096).unwrap().len(), 904);
    let stale = At {
        fh: fh + 1,
        ..at(0)
    };
    assert_eq!(client.read(stale, 4096), Err(libc::EBADF));
    client.node("file");
    client.forget(node, 1);
    let directory = client.opendir(ROOT).unwrap();
    let body = read_body(
        At {
            node: ROOT,
            fh: directory.fh,
            offset: 0,
        },
        4096,
        0,
    );
    let listing = client.call(op::READDIR, ROOT, &body, 4096).unwrap();
    client.releasedir(ROOT, directory.fh).unwrap();
    client.release(node, fh).unwrap();
    [
        ("INIT", (1, 0, 0)),
        ("GETATTR", (40, 0, 0)),
        ("LOOKUP", (4, 3, 0)),
        ("CREATE", (1, 0, 0)),
        ("WRITE", (1, 0, 5000)),
        ("READ", (3, 1, 5000)),
        ("FORGET", (1, 0, 0)),
        ("OPENDIR", (1, 0, 0)),
        ("READDIR", (1, 0, u64_of(listing.len()))),
        ("RELEASEDIR", (1, 0, 0)),
        ("RELEASE", (1, 0, 0)),
    ]
    .map(|(name, row)| (name.to_owned(), row))
    .into()
}

#[test]
fn sigusr1_to_either_process_tells_what_was_sent() {
    for mode in ["none", "namespace"] {
        let share = Share::new();
        let mut client = Client::with_args(&share, &["--sandbox", mode]);
        let expected = send_some(&mut client);
        let log = Arc::clone(&client.vm.daemon.log);
        let by_main = ask(&log, client.vm.daemon.main_pid());
        let by_serving = ask(&log, client.vm.daemon.pid());
        assert_eq!(by_main.rows, expected, "{mode}");
        assert_eq!(by_main, by_serving, "{mode}: asking counts for nothing");
        let first: Vec<&str> = by_main.order.iter().map(String::as_str).take(3).collect();
        assert_eq!(first, ["GETATTR", "LOOKUP", "READ"], "{mode}");
        let clean = &by_main.transport;
        assert!(clean.starts_with("transport: dropped requests 0, lost signals 0, "));
        assert!(
            clean.split(", ").all(|part| part.ends_with(" 0")),
            "{clean}"
        );
        client.getattr(ROOT, None).unwrap();
        let after = ask(&log, client.vm.daemon.main_pid());
        assert_eq!(after.rows["GETATTR"], (41, 0, 0), "{mode}");
        assert!(client.shut_down().success(), "{mode}");
    }
}

#[test]
fn sigusr1_before_a_front_end_is_answered_and_ends_nobody() {
    for mode in ["none", "namespace"] {
        let share = Share::new();
        let args = ["--sandbox", mode].map(str::to_owned);
        let mut daemon = Daemon::spawn(&share.path(), &args);
        daemon.log.wait_for("waiting for the front end");
        let none_yet = "counters: no front end has connected yet";
        sys::kill(daemon.main_pid(), libc::SIGUSR1);
        wait_for_count(&daemon.log, none_yet, 1);
        sys::kill(daemon.pid(), libc::SIGUSR1);
        wait_for_count(&daemon.log, none_yet, 2);
        drop(daemon.connect());
        assert!(daemon.wait_exit().success(), "{mode}");
    }
}

#[test]
fn counters_are_told_at_the_end_with_log_level_debug_only() {
    for (level, ending, is_told) in [
        ("debug", "disconnect", true),
        ("debug", "SIGTERM", true),
        ("info", "disconnect", false),
    ] {
        let share = Share::new();
        let mut client = Client::with_args(&share, &["--log-level", level]);
        let expected = send_some(&mut client);
        let log = Arc::clone(&client.vm.daemon.log);
        if ending == "SIGTERM" {
            client.vm.daemon.signal(libc::SIGTERM);
        }
        assert!(client.shut_down().success(), "{level} {ending}");
        if is_told {
            assert_eq!(last_table(&log).rows, expected, "{ending}");
        } else {
            let text = log.text();
            assert_eq!(counter_lines(&text), Vec::<&str>::new());
        }
    }
}

#[test]
fn sigusr1_is_harmless_where_its_answer_is_not_logged() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--log-level", "warn"]);
    let log = Arc::clone(&client.vm.daemon.log);
    for pid in [client.vm.daemon.main_pid(), client.vm.daemon.pid()] {
        sys::kill(pid, libc::SIGUSR1);
        client.getattr(ROOT, None).unwrap();
    }
    assert!(client.shut_down().success());
    let text = log.text();
    assert_eq!(counter_lines(&text), Vec::<&str>::new());
}

#[test]
fn counts_of_queues_at_once_are_exact_while_they_are_asked_for() {
    const QUEUES: usize = 4;
    const REQUESTS: u64 = 400;
    for pool in ["0", "3"] {
        let share = Share::new();
        let setup = Setup::default()
            .queues(QUEUES)
            .args(&["--thread-pool-size", pool]);
        let mut client = Client::mount(&setup, &share);
        let sessions: Vec<_> = (2..=QUEUES).map(|index| client.session_on(index)).collect();
        let log = Arc::clone(&client.vm.daemon.log);
        let pid = client.vm.daemon.main_pid();
        let told: Vec<u64> = thread::scope(|scope| {
            for mut session in sessions {
                scope.spawn(move || {
                    for _ in 0..REQUESTS {
                        session.getattr(ROOT, None).unwrap();
                    }
                });
            }
            let requests_of = |table: Table| table.rows.get("GETATTR").map_or(0, |row| row.0);
            (0..10).map(|_| requests_of(ask(&log, pid))).collect()
        });
        let table = ask(&log, pid);
        let all = 3 * REQUESTS;
        assert!(told.is_sorted() && told.iter().all(|&sum| sum <= all));
        assert_eq!(table.rows["GETATTR"], (all, 0, 0), "pool of {pool}");
        assert!(client.shut_down().success());
    }
}

#[test]
fn error_of_a_lock_that_was_given_up_counts_when_it_comes() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--posix-lock"]);
    let open = client.make_file(ROOT, "file", b"");
    client.setlk(&Lock::new(open, 1, WRITE_LOCK)).unwrap();
    let waiting = client.start_setlkw(&Lock::new(open, 2, WRITE_LOCK));
    let log = Arc::clone(&client.vm.daemon.log);
    let pid = client.vm.daemon.pid();
    let deadline = Instant::now() + TIMEOUT;
    // Until it was set aside nobody can take it back.
    while !ask(&log, pid).timed.contains("SETLKW") {
        assert!(Instant::now() < deadline, "SETLKW is not set aside");
    }
    assert_eq!(ask(&log, pid).rows["SETLKW"], (1, 0, 0));
    client.interrupt(waiting);
    assert_eq!(client.finish(waiting), Err(libc::EINTR));
    let table = ask(&log, pid);
    assert_eq!(table.rows["SETLKW"], (1, 1, 0));
    assert_eq!(table.rows["INTERRUPT"], (1, 0, 0));
}

#[test]
fn requests_that_cannot_be_answered_stand_in_the_line_of_the_connection() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let completion = client.send_raw(&[1, 2, 3], 0);
    assert_eq!(completion.used_len, 0);
    // An operation that does not exist.
    assert_eq!(client.plain(4000, ROOT, &[]), Err(libc::ENOSYS));
    let log = Arc::clone(&client.vm.daemon.log);
    let table = ask(&log, client.vm.daemon.pid());
    assert!(
        table
            .transport
            .starts_with("transport: dropped requests 1,"),
        "{table:?}"
    );
    assert_eq!(table.rows["unknown"], (1, 1, 0));
    assert_eq!(table.rows.len(), 2, "and INIT");
}

#[test]
fn readme_describes_the_columns_as_they_are() {
    let readme = include_str!("../README.md");
    assert!(readme.contains(HEADER));
    assert!(readme.contains("SIGUSR1"));
}
