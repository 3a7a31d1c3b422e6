//! What: the capabilities that a process has after it has given up the rest.
//!
//! In: needs and changes, and processes that had more or less to begin with. Out: what
//! /proc/self/status says of them afterwards, and what they warn of. The processes are this test
//! binary again, running one of the ignored tests below, see [`common::child`].

#![allow(unsafe_code, reason = "chroot(2) has no safe wrapper")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::child::{AFTER, Child, Ended, case, own_binary};
use common::share::TempDir;
use common::{is_root_or_skip, sys};
use virtiofsd::process::capabilities::{self, CapabilityChanges, Needs};

/// The environment variable with the changes of `--modcaps`.
const CHANGES: &str = "VIRTIOFSD_TEST_MODCAPS";
/// A user without rights.
const NOBODY: &str = "65534";

#[test]
#[ignore = "runs in a process of its own"]
fn child_restricts_itself() {
    let Some(case) = case() else { return };
    virtiofsd::start_logging(
        log::LevelFilter::Debug,
        virtiofsd::LogDestination::StandardError,
    )
    .expect("there is no other logger");
    let changes = match std::env::var(CHANGES) {
        Ok(text) => text.parse().expect("well-formed"),
        Err(_) => CapabilityChanges::default(),
    };
    let needs = Needs {
        file_handles: case.contains("handles"),
        immutable: case.contains("immutable"),
    };
    let prepared = capabilities::prepare().expect("/proc is mounted");
    if case.contains("all") {
        capabilities::drop_all(prepared).expect("dropping works");
    } else {
        capabilities::restrict(prepared, needs, &changes).expect("restricting works");
    }
    let status = || fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
    println!("{}", status());
    println!("{}", std::thread::spawn(status).join().expect("it lives"));
    eprintln!("{AFTER}");
}

/// The sets of a thread and of one that it started afterwards: permitted, effective, inheritable,
/// bounding and ambient, which must be the same, and whether there are no new privileges.
fn sets(ended: &Ended) -> [u64; 6] {
    let said = ended.said();
    assert!(ended.code() == Some(0) && ended.says(AFTER), "{said}");
    let field = |name: &str, radix: u32| {
        let values: Vec<u64> = said
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .map(|value| u64::from_str_radix(value.trim(), radix).expect("a number"))
            .collect();
        assert_eq!(values.len(), 2, "{name} {said}");
        assert_eq!(values[0], values[1], "{name} of the thread, {said}");
        values[0]
    };
    [
        field("CapPrm:", 16),
        field("CapEff:", 16),
        field("CapInh:", 16),
        field("CapBnd:", 16),
        field("CapAmb:", 16),
        field("NoNewPrivs:", 10),
    ]
}

/// A copy of this binary where every user can run it.
fn public_copy(directory: &TempDir) -> PathBuf {
    let copy = directory.path().join("test");
    fs::copy(own_binary(), &copy).expect("room in the temporary directory");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&copy, mode.clone()).expect("it is ours");
    fs::set_permissions(directory.path(), mode).expect("it is ours");
    copy
}

fn restricted(case: &str, changes: Option<&str>) -> Ended {
    let child = Child::new("child_restricts_itself", case);
    match changes {
        Some(changes) => child.env(CHANGES, changes).run(),
        None => child.run(),
    }
}

fn restricted_through(wrapper: &[&str], binary: &Path, changes: Option<&str>) -> Ended {
    let child = Child::through(wrapper, binary, "child_restricts_itself", "handles");
    match changes {
        Some(changes) => child.env(CHANGES, changes).run(),
        None => child.run(),
    }
}

/// Whether a program can be run like this here; says why not.
fn works_or_skip(test: &str, command: &[&str]) -> bool {
    let [program, args @ ..] = command else {
        return false;
    };
    let output = Command::new(program).args(args).arg("true").output();
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("skipped {test}: {command:?} does not work here: {why}");
            false
        }
        Err(error) => {
            eprintln!("skipped {test}: cannot run {program}: {error}");
            false
        }
    }
}

#[test]
fn root_keeps_exactly_what_is_needed_and_asked_for() {
    if !is_root_or_skip("root_keeps_exactly_what_is_needed_and_asked_for") {
        return;
    }
    for (case, changes, kept) in [
        ("handles", None, 0x8800_00df_u64),
        ("plain", None, 0x8800_00db),
        ("handles immutable", None, 0x8800_02df),
        ("handles", Some("-mknod"), 0x8000_00df),
        ("handles", Some("+SYS_ADMIN:-mknod"), 0x8020_00df),
        ("plain", Some("+dac_read_search"), 0x8800_00df),
        (
            "handles",
            Some("-chown:-dac_override:-fowner:-fsetid"),
            0x8800_00c4,
        ),
    ] {
        let ended = restricted(case, changes);
        let expected = [kept, kept, 0, 0, 0, 1];
        assert_eq!(sets(&ended), expected, "{case} {changes:?}");
        assert!(!ended.says("WARN"), "{case} {changes:?}: {}", ended.said());
    }
}

#[test]
fn drop_all_leaves_nothing() {
    if !is_root_or_skip("drop_all_leaves_nothing") {
        return;
    }
    assert_eq!(sets(&restricted("all", None)), [0, 0, 0, 0, 0, 1]);
}

#[test]
fn inherited_ambient_capabilities_are_gone() {
    const WRAPPER: [&str; 3] = [
        "setpriv",
        "--inh-caps=+chown,+kill",
        "--ambient-caps=+chown",
    ];
    let test = "inherited_ambient_capabilities_are_gone";
    if !is_root_or_skip(test) || !works_or_skip(test, &WRAPPER) {
        return;
    }
    let ended = restricted_through(&WRAPPER, &own_binary(), None);
    assert_eq!(sets(&ended), [0x8800_00df, 0x8800_00df, 0, 0, 0, 1]);
}

#[test]
fn root_without_some_capabilities_keeps_the_others_and_is_told() {
    const WRAPPER: [&str; 3] = [
        "setpriv",
        "--bounding-set=-mknod,-dac_read_search,-sys_admin",
        "--inh-caps=-mknod,-dac_read_search,-sys_admin",
    ];
    let test = "root_without_some_capabilities_keeps_the_others_and_is_told";
    if !is_root_or_skip(test) || !works_or_skip(test, &WRAPPER) {
        return;
    }
    let ended = restricted_through(&WRAPPER, &own_binary(), Some("+sys_admin:+kill"));
    assert_eq!(sets(&ended), [0x8000_00fb, 0x8000_00fb, 0, 0, 0, 1]);
    assert!(
        ended.says("--modcaps asks for CAP_SYS_ADMIN, which"),
        "{}",
        ended.said()
    );
    let missing = "without CAP_DAC_READ_SEARCH, CAP_MKNOD:";
    assert!(ended.says(missing), "{}", ended.said());
    assert!(ended.says("--cap-add"), "{}", ended.said());
}

#[test]
fn root_that_cannot_shrink_the_bounding_set_still_drops_the_rest() {
    const WRAPPER: [&str; 3] = ["setpriv", "--bounding-set=-setpcap", "--inh-caps=-setpcap"];
    let test = "root_that_cannot_shrink_the_bounding_set_still_drops_the_rest";
    if !is_root_or_skip(test) || !works_or_skip(test, &WRAPPER) {
        return;
    }
    let ended = restricted_through(&WRAPPER, &own_binary(), None);
    let [permitted, effective, inheritable, bounding, ambient, no_new] = sets(&ended);
    assert_eq!((permitted, effective), (0x8800_00df, 0x8800_00df));
    assert_eq!((inheritable, ambient, no_new), (0, 0, 1));
    assert_ne!(bounding, 0);
    assert!(ended.says("there is no CAP_SETPCAP"), "{}", ended.said());
}

#[test]
fn ordinary_user_has_nothing_and_is_told_of_what_was_asked_for() {
    let test = "ordinary_user_has_nothing_and_is_told_of_what_was_asked_for";
    let wrapper = [
        "setpriv",
        "--reuid",
        NOBODY,
        "--regid",
        NOBODY,
        "--clear-groups",
    ];
    let directory = TempDir::new("caps");
    let binary = public_copy(&directory);
    // As an ordinary user this process is one already.
    let wrapper: &[&str] = match sys::effective_uid() {
        0 if works_or_skip(test, &wrapper) => &wrapper,
        0 => return,
        _ => &[],
    };
    let quiet = restricted_through(wrapper, &binary, None);
    let [permitted, effective, inheritable, _, ambient, no_new] = sets(&quiet);
    assert_eq!([permitted, effective, inheritable, ambient], [0; 4]);
    assert_eq!(no_new, 1);
    assert!(!quiet.says("WARN"), "{}", quiet.said());
    let told = restricted_through(wrapper, &binary, Some("+sys_admin:-mknod"));
    assert!(
        told.says("--modcaps asks for CAP_SYS_ADMIN, which"),
        "{}",
        told.said()
    );
}

#[test]
fn root_of_a_user_namespace_and_others_with_its_rights_get_the_same_set() {
    let test = "root_of_a_user_namespace_and_others_with_its_rights_get_the_same_set";
    for wrapper in [
        &["unshare", "--user", "--map-root-user"][..],
        &["unshare", "--user", "--map-current-user", "--keep-caps"][..],
    ] {
        if !works_or_skip(test, wrapper) {
            continue;
        }
        let ended = restricted_through(wrapper, &own_binary(), None);
        let kept = 0x8800_00df;
        assert_eq!(sets(&ended), [kept, kept, 0, 0, 0, 1], "{wrapper:?}");
    }
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_restricts_itself_among_traps() {
    if case().is_none() {
        return;
    }
    let prepared = capabilities::prepare().expect("/proc is mounted");
    let root = TempDir::new("traps");
    // A FIFO that nobody writes to holds up whoever opens it.
    let id = std::process::id();
    for trap in [
        "proc/sys/kernel/cap_last_cap".to_owned(),
        "proc/self/status".to_owned(),
        "proc/thread-self/status".to_owned(),
        format!("proc/{id}/status"),
    ] {
        let path = root.path().join(trap);
        fs::create_dir_all(path.parent().expect("it has one")).expect("room");
        sys::mknod(&path, libc::S_IFIFO | 0o600, 0).expect("room");
    }
    let inside = std::ffi::CString::new(root.path().as_os_str().as_encoded_bytes());
    let inside = inside.expect("no NUL");
    // SAFETY: the path is NUL-terminated and outlives the call.
    let moved = unsafe { libc::chroot(inside.as_ptr()) };
    assert_eq!(moved, 0);
    let needs = Needs {
        file_handles: true,
        immutable: false,
    };
    capabilities::restrict(prepared, needs, &CapabilityChanges::default()).expect("it works");
    eprintln!("{AFTER}");
}

#[test]
fn restrict_opens_nothing_in_the_sandbox() {
    if !is_root_or_skip("restrict_opens_nothing_in_the_sandbox") {
        return;
    }
    let ended = Child::new("child_restricts_itself_among_traps", "any").run();
    assert_eq!(ended.code(), Some(0), "{}", ended.said());
    assert!(ended.says(AFTER), "{}", ended.said());
}
