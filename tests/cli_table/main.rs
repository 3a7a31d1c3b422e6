//! Command lines as a table: each is given to the real binary, and both its exit status and the
//! key phrase of what it says are compared. Those that are fine start a daemon, which is stopped
//! when it waits for the front end.
//!
//! `VIRTIOFSD_PEER` names an existing daemon; its exit status is then compared, too, in the rows
//! that do not say why it differs.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod rows;
mod runner;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rows::{END, Ends, FD_ROWS, ROWS, Row, SERVED};
use runner::{Ran, Scene};

fn ours() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_virtiofsd"))
}

/// The row as it holds for who runs the test.
fn for_this_user(row: &'static Row) -> Row {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    match &row.for_root {
        Some(told) if !is_root => Row {
            ends: END,
            says: std::slice::from_ref(told),
            ..*row
        },
        Some(_) | None => *row,
    }
}

/// What is wrong with `ran`, if anything is.
fn complaint(row: &'static Row, ran: &Ran) -> Option<String> {
    let row = &for_this_user(row);
    let wrong = |what: String| Some(format!("{}\n  {what}\n  it said: {}", row.line, ran.said));
    match (row.ends, ran.status) {
        (Ends::Serves, None) => (),
        (Ends::Serves, Some(status)) => return wrong(format!("ended with {status}")),
        (Ends::With(expected), status) if status == Some(expected) => (),
        (Ends::With(expected), status) => {
            return wrong(format!("ended with {status:?}, not {expected}"));
        }
    }
    if let Some(missing) = row.says.iter().find(|phrase| !ran.said.contains(**phrase)) {
        return wrong(format!("did not say {missing:?}"));
    }
    let errors = ran
        .said
        .lines()
        .filter(|line| line.contains(" ERROR "))
        .count();
    let logs_errors = row.ends == END;
    if logs_errors && errors != 1 {
        return wrong(format!("{errors} ERROR lines, not one"));
    }
    if ran.said.contains("panicked") {
        return wrong("panicked".to_owned());
    }
    if !ran.is_file_intact {
        return wrong("changed a file that is not its own".to_owned());
    }
    if row.ends != SERVED && !ran.left_behind.is_empty() {
        return wrong(format!("left behind {:?}", ran.left_behind));
    }
    None
}

fn failures(rows: &'static [Row], run: impl Fn(&Scene, &'static Row) -> Option<String>) -> String {
    let failures: Vec<String> = rows
        .iter()
        .filter_map(|row| run(&Scene::new(), row))
        .collect();
    failures.join("\n")
}

fn run_row(binary: &Path, scene: &Scene, row: &Row) -> Ran {
    scene.run(binary, &scene.words(row.line))
}

#[test]
fn command_lines_end_as_the_table_says() {
    assert!(ROWS.len() >= 120, "only {} rows", ROWS.len());
    let failed = failures(ROWS, |scene, row| {
        complaint(row, &run_row(&ours(), scene, row))
    });
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn command_lines_with_an_inherited_socket_end_as_the_table_says() {
    let failed = failures(FD_ROWS, |scene, row| {
        complaint(
            row,
            &scene.run_with_socket_3(&ours(), &scene.words(row.line)),
        )
    });
    assert!(failed.is_empty(), "{failed}");
}

#[test]
fn existing_daemon_ends_likewise_where_the_table_does_not_say_otherwise() {
    let Some(peer) = std::env::var_os("VIRTIOFSD_PEER").map(PathBuf::from) else {
        println!("skipped: VIRTIOFSD_PEER does not name an existing daemon to compare with");
        return;
    };
    let failed = failures(ROWS, |scene, row| {
        let ran = run_row(&peer, scene, row);
        let is_same = match row.ends {
            Ends::Serves => ran.status.is_none(),
            Ends::With(status) => ran.status == Some(status),
        };
        match (is_same, row.differs) {
            (true, None) | (false, Some(_)) => None,
            (true, Some(why)) => Some(format!("{}\n  ends likewise, but: {why}", row.line)),
            (false, None) => Some(format!("{}\n  ended with {:?}", row.line, ran)),
        }
    });
    assert!(failed.is_empty(), "{failed}");
}
