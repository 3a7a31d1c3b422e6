//! The rules of the house that a compiler does not know: who may import whom, how long a file
//! may be, where `unsafe` and `process::exit` may stand, and no `unwrap` where a guest can reach.
//! The table is the one in doc/architecture.md; change both together.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file in lines.
const FILE_LINES_MAX: usize = 600;

/// Room, and the prefixes below `crate::` that it may name besides its own.
const IMPORTS: &[(&str, &[&str])] = &[
    ("log_limit", &[]),
    ("sys", &["log_limit"]),
    ("wire", &[]),
    ("ids", &[]),
    ("xattr_map", &[]),
    ("metrics", &[]),
    ("fs", &["wire::flags", "ids::types", "sys::errno"]),
    (
        "server",
        &[
            "wire",
            "fs",
            "ids::types",
            "sys::errno",
            "sys::waits",
            "metrics",
            "log_limit",
        ],
    ),
    (
        "transport",
        &[
            "wire::channel",
            "wire::header",
            "wire::opcode",
            "wire::pod",
            "sys",
            "metrics",
            "log_limit",
        ],
    ),
    (
        "passthrough",
        &["fs", "ids", "xattr_map", "sys", "wire::flags", "log_limit"],
    ),
    ("process", &["sys"]),
];

/// Rooms of the binary: they use the library by its root, `virtiofsd::`, and each other.
const BINARY_ROOMS: &[&str] = &["cli", "main"];

/// Rooms that know everything.
const FREE_ROOMS: &[&str] = &["daemon", "lib"];

/// Rooms in which a panic could be caused by a guest or a front end.
const GUEST_FACING: &[&str] = &[
    "wire",
    "fs",
    "server",
    "transport",
    "passthrough",
    "ids",
    "xattr_map",
];

struct SourceFile {
    path: PathBuf,
    room: String,
    text: String,
}

impl SourceFile {
    /// Lines of code that is not a test and not a comment, with their numbers from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test_file = self
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name == "tests.rs" || name.starts_with("test_"))
            || self
                .path
                .components()
                .any(|part| part.as_os_str() == "tests");
        let end = if is_test_file {
            0
        } else {
            self.text
                .lines()
                .position(|line| line.starts_with("#[cfg(test)]"))
                .unwrap_or(usize::MAX)
        };
        self.text
            .lines()
            .enumerate()
            .take(end)
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn source_files() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut pending = vec![root.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).unwrap();
                let first = relative.components().next().unwrap().as_os_str();
                files.push(SourceFile {
                    room: first.to_string_lossy().trim_end_matches(".rs").to_owned(),
                    text: fs::read_to_string(&path).unwrap(),
                    path,
                });
            }
        }
    }
    assert!(files.len() > 20, "the sources were not found");
    files
}

fn findings(check: impl Fn(&SourceFile) -> Vec<String>) -> String {
    source_files()
        .iter()
        .flat_map(check)
        .collect::<Vec<_>>()
        .join("\n")
}

fn may_import(room: &str, path: &str) -> bool {
    if FREE_ROOMS.contains(&room) || path.split("::").next() == Some(room) {
        return true;
    }
    if BINARY_ROOMS.contains(&room) {
        return BINARY_ROOMS.contains(&path.split("::").next().unwrap_or_default());
    }
    let (_, allowed) = IMPORTS
        .iter()
        .find(|(name, _)| *name == room)
        .unwrap_or_else(|| panic!("room {room} is not in the import table"));
    allowed.iter().any(|prefix| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

#[test]
fn imports_follow_the_table() {
    let found = findings(|file| {
        let mut wrong = Vec::new();
        for (number, line) in file.code() {
            for (start, _) in line.match_indices("crate::") {
                let path: String = line[start + "crate::".len()..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
                    .collect();
                if !may_import(&file.room, path.trim_end_matches(':')) {
                    wrong.push(format!("{}:{number}: crate::{path}", file.path.display()));
                }
            }
        }
        wrong
    });
    assert!(
        found.is_empty(),
        "imports that the table does not allow:\n{found}"
    );
}

#[test]
fn files_are_short_and_ascii_and_have_a_head() {
    let found = findings(|file| {
        let mut wrong = Vec::new();
        let path = file.path.display();
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"));
        }
        if !file.text.is_ascii() {
            wrong.push(format!("{path}: not ASCII"));
        }
        if !file.text.starts_with("//!") {
            wrong.push(format!("{path}: no //! head"));
        }
        wrong
    });
    assert!(found.is_empty(), "{found}");
}

#[test]
fn unsafe_code_stands_in_its_three_places() {
    let found = findings(|file| {
        let allowed = file.room == "sys"
            || file.path.ends_with("wire/pod.rs")
            || file.path.ends_with("transport/guest_io.rs");
        file.code()
            .filter(|(_, line)| !allowed && line.split("//").next().unwrap().contains("unsafe "))
            .map(|(number, line)| format!("{}:{number}: {line}", file.path.display()))
            .collect()
    });
    assert!(found.is_empty(), "{found}");
}

#[test]
fn the_process_ends_only_in_main() {
    let found = findings(|file| {
        file.code()
            .filter(|(_, line)| file.room != "main" && line.contains("process::exit"))
            .map(|(number, line)| format!("{}:{number}: {line}", file.path.display()))
            .collect()
    });
    assert!(found.is_empty(), "{found}");
}

#[test]
fn code_that_a_guest_reaches_has_no_unwrap() {
    const BANNED: &[&str] = &[
        ".unwrap()",
        ".expect(",
        "panic!(",
        "todo!(",
        "unreachable!(",
    ];
    let found = findings(|file| {
        let reached = GUEST_FACING.contains(&file.room.as_str());
        file.code()
            .filter(|(_, line)| reached && BANNED.iter().any(|word| line.contains(word)))
            .map(|(number, line)| format!("{}:{number}: {line}", file.path.display()))
            .collect()
    });
    assert!(found.is_empty(), "{found}");
}
