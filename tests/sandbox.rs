//! The sandbox as /proc shows it: in every mode, as root and as an ordinary user, and how the two
//! processes of it end. Cases that need root, user namespaces or newuidmap print why they skip.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::client::Client;
use common::daemon::Daemon;
use common::frontend::Setup;
use common::request::{ROOT, SetAttr, op};
use common::share::Share;
use common::{TIMEOUT, is_root_or_skip};

/// An ordinary user that every Debian system has, who owns nothing.
const USER: u32 = 1;
/// The first of 65536 ids that the ordinary user may map, and the like of root in a test.
const SUB_IDS: u32 = 700_000;
/// Bits of `fuse_setattr_in.valid`.
const FATTR_UID: u32 = 1 << 1;
const FATTR_GID: u32 = 1 << 2;
/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, MKNOD, SETFCAP.
const CAPABILITIES: u64 = 0x8800_00db;
/// The same with DAC_READ_SEARCH, for file handles.
const WITH_FILE_HANDLES: u64 = 0x8800_00df;

/// Makes a daemon run as [`USER`], who may map [`SUB_IDS`]: a mount namespace has other files with
/// that grant. Its arguments are the binary, `--socket-path` and the socket.
const AS_USER: &str = r#"
set -e
work=$(dirname "$3")
printf '%s:%s:65536\n' "$USER_ID" "$SUB_IDS" >"$work/subids"
mount --bind "$work/subids" /etc/subuid
mount --bind "$work/subids" /etc/subgid
cp "$1" "$work/virtiofsd"
chown "$USER_ID:$USER_ID" "$work"
shift
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups "$work/virtiofsd" "$@"
"#;

fn status_text(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_else(|| panic!("no {field}"))
        .trim()
        .to_owned()
}

fn capability_set(pid: u32, set: &str) -> u64 {
    u64::from_str_radix(&status_text(pid, set), 16).unwrap()
}

fn link(pid: u32, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/{name}")).unwrap()
}

/// Whether the namespace of this kind is another than that of the test.
fn is_own(pid: u32, kind: &str) -> bool {
    link(pid, &format!("ns/{kind}")) != link(std::process::id(), &format!("ns/{kind}"))
}

fn own_namespaces(pid: u32) -> Vec<&'static str> {
    let kinds = ["mnt", "pid", "net", "user", "ipc", "uts"];
    kinds.into_iter().filter(|kind| is_own(pid, kind)).collect()
}

fn assert_locked_down(pid: u32, capabilities: u64) {
    assert_eq!(status_text(pid, "NoNewPrivs:"), "1");
    assert_eq!(status_text(pid, "Seccomp:"), "2");
    assert_eq!(status_text(pid, "Seccomp_filters:"), "1");
    for (set, expected) in [
        ("CapPrm:", capabilities),
        ("CapEff:", capabilities),
        ("CapInh:", 0),
        ("CapBnd:", 0),
        ("CapAmb:", 0),
    ] {
        assert_eq!(capability_set(pid, set), expected, "{set}");
    }
    assert_eq!(status_text(pid, "Groups:"), "");
}

fn assert_without_capabilities(pid: u32) {
    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        assert_eq!(capability_set(pid, set), 0, "{set}");
    }
}

/// Waits until the daemon says that it is ready, without taking its one connection.
fn ready(daemon: &Daemon) {
    let start = Instant::now();
    while !daemon.log.text().contains("waiting for the front end") {
        assert!(
            start.elapsed() < TIMEOUT && daemon.log.is_running(),
            "{}",
            daemon.log.describe()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn started(share: &Path, args: &[&str]) -> Daemon {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let daemon = Daemon::spawn(share, &args);
    ready(&daemon);
    daemon
}

fn refused(share: &Path, wrapper: &[String], args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let mut daemon = Daemon::spawn_through(wrapper, share, &args);
    let status = daemon.wait_exit();
    let text = daemon.log.text();
    assert_eq!(status.code(), Some(1), "{text}");
    text.lines().last().unwrap_or_default().to_owned()
}

fn as_user(path: &str) -> Vec<String> {
    let user = USER.to_string();
    let (user_id, sub_ids) = (format!("USER_ID={user}"), format!("SUB_IDS={SUB_IDS}"));
    let path = format!("PATH={path}");
    let words = [
        "env",
        &path,
        &user_id,
        &sub_ids,
        "/usr/bin/unshare",
        "--mount",
        "/bin/sh",
        "-c",
        AS_USER,
        "sh",
    ];
    words.map(str::to_owned).to_vec()
}

const USUAL_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether an ordinary user gets a user namespace here; says so if not.
fn has_user_namespaces(test: &str) -> bool {
    if !is_root_or_skip(test) {
        return false;
    }
    let user = USER.to_string();
    let tried = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["unshare", "--user", "--mount", "true"])
        .output();
    let works = tried.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped {test}: ordinary users get no user namespaces here");
    }
    works
}

fn has_newuidmap(test: &str) -> bool {
    let found = ["/usr/bin/newuidmap", "/bin/newuidmap"]
        .iter()
        .any(|path| Path::new(path).exists());
    if !found {
        eprintln!("skipped {test}: newuidmap is not installed (package uidmap)");
    }
    found && has_user_namespaces(test)
}

#[test]
fn namespace_as_root_leaves_nothing_but_the_share() {
    if !is_root_or_skip("namespace_as_root_leaves_nothing_but_the_share") {
        return;
    }
    let share = Share::new();
    let daemon = started(&share.path(), &["--sandbox", "namespace"]);
    let (child, parent) = (daemon.pid(), daemon.main_pid());
    assert_ne!(child, parent);
    assert_locked_down(child, WITH_FILE_HANDLES);
    assert_eq!(own_namespaces(child), ["mnt", "pid", "net"]);
    assert!(status_text(child, "NSpid:").ends_with("\t1"));
    assert_eq!(link(child, "cwd"), Path::new("/"));
    assert_eq!(link(child, "root"), Path::new("/"));
    let mounts = fs::read_to_string(format!("/proc/{child}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let fields: Vec<&str> = mounts.split(' ').collect();
    assert_eq!(fields[4], "/");
    assert!(fields[3].ends_with(share.path().file_name().unwrap().to_str().unwrap()));
    for option in ["nosuid", "nodev"] {
        assert!(
            fields[5].split(',').any(|given| given == option),
            "{mounts}"
        );
    }
    let inside = fs::metadata(format!("/proc/{child}/root")).unwrap();
    assert_eq!(inside.ino(), fs::metadata(share.path()).unwrap().ino());
    // Only loopback, and that is down.
    let network = fs::read_to_string(format!("/proc/{child}/net/dev")).unwrap();
    assert!(
        network
            .lines()
            .skip(2)
            .all(|line| line.trim().starts_with("lo:"))
    );
    assert_without_capabilities(parent);
    assert_eq!(own_namespaces(parent), [""; 0]);
}

#[test]
fn no_descriptor_of_a_confined_daemon_leads_out_of_the_share() {
    if !is_root_or_skip("no_descriptor_of_a_confined_daemon_leads_out_of_the_share") {
        return;
    }
    // What a careless launcher leaves open counts, too.
    let leak = ["sh", "-c", "exec \"$@\" 9</etc 8</etc/passwd", "sh"].map(str::to_owned);
    for mode in ["namespace", "chroot"] {
        let share = Share::new();
        let args = ["--sandbox".to_owned(), mode.to_owned()];
        let daemon = Daemon::spawn_through(&leak, &share.path(), &args);
        ready(&daemon);
        let root = share.path();
        for target in daemon.fd_list() {
            let is_inside = match mode {
                "namespace" => target == "/",
                _ => Path::new(&target).starts_with(&root) || target == "/",
            };
            let is_no_path = !target.starts_with('/') || target == "/dev/null";
            assert!(is_inside || is_no_path, "{mode}: {target}");
        }
    }
}

#[test]
fn namespace_has_the_mounts_below_the_share() {
    if !is_root_or_skip("namespace_has_the_mounts_below_the_share") {
        return;
    }
    let share = Share::new();
    share.mkdir("mounted");
    let script = format!(
        "mount -t tmpfs none '{}/mounted' && echo there >'{0}/mounted/file' && exec \"$@\"",
        share.path().display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let mut client = Client::mount(
        &Setup::default()
            .through(&wrapper)
            .args(&["--sandbox", "namespace"]),
        &share,
    );
    let mounted = client.node("mounted");
    let file = client.lookup(mounted, "file").unwrap();
    assert_eq!(file.attr.size, 6);
    let child = client.vm.daemon.pid();
    let mounts = fs::read_to_string(format!("/proc/{child}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 2, "{mounts}");
    assert!(
        mounts.lines().all(|line| line.contains("nosuid,nodev")),
        "{mounts}"
    );
}

#[test]
fn chroot_as_root_has_the_share_as_root() {
    if !is_root_or_skip("chroot_as_root_has_the_share_as_root") {
        return;
    }
    let share = Share::new();
    let daemon = started(&share.path(), &["--sandbox", "chroot"]);
    let child = daemon.pid();
    assert_locked_down(child, WITH_FILE_HANDLES);
    assert_eq!(own_namespaces(child), [""; 0]);
    assert_eq!(link(child, "cwd"), share.path());
    assert_eq!(link(child, "root"), share.path());
    assert_without_capabilities(daemon.main_pid());
}

#[test]
fn none_as_root_is_locked_down_as_well() {
    if !is_root_or_skip("none_as_root_is_locked_down_as_well") {
        return;
    }
    let share = Share::new();
    let args = ["--sandbox", "none", "--inode-file-handles=never"];
    let daemon = started(&share.path(), &args);
    assert_eq!(daemon.pid(), daemon.main_pid());
    assert_locked_down(daemon.pid(), CAPABILITIES);
    assert_eq!(own_namespaces(daemon.pid()), [""; 0]);
    assert_eq!(link(daemon.pid(), "root"), Path::new("/"));
}

#[test]
fn share_by_a_link_or_an_inherited_descriptor_works_in_every_mode() {
    if !is_root_or_skip("share_by_a_link_or_an_inherited_descriptor_works_in_every_mode") {
        return;
    }
    let share = Share::new();
    share.write("file", b"data");
    let link = common::share::TempDir::new("link");
    let link = link.path().join("to-share");
    symlink(share.path(), &link).unwrap();
    for mode in ["namespace", "chroot", "none"] {
        let args = ["--sandbox".to_owned(), mode.to_owned()];
        let inherit = format!("exec \"$@\" 9<'{}'", share.path().display());
        let inherit = ["sh", "-c", &inherit, "sh"].map(str::to_owned);
        for (wrapper, path) in [
            (&[][..], link.as_path()),
            (&inherit[..], Path::new("/proc/self/fd/9")),
        ] {
            let setup = Setup::default();
            let mut daemon = Daemon::spawn_through(wrapper, path, &args);
            let stream = daemon.connect();
            let vm = common::frontend::Vm::new(&setup, daemon, stream);
            let mut vm = vm;
            vm.start_all();
            let mut client = Client::attach(vm);
            client.session.init();
            let file = client.lookup(1, "file");
            assert_eq!(file.unwrap().attr.size, 4, "{mode}: {}", path.display());
        }
    }
}

#[test]
fn share_that_is_a_file_is_refused_where_it_cannot_be_the_root() {
    let share = Share::new();
    let file = share.write("file", b"data");
    let said = refused(&file, &[], &["--sandbox", "namespace"]);
    assert!(said.contains("is not a directory"), "{said}");
    assert!(said.contains("--sandbox none"), "{said}");
}

#[test]
fn root_of_the_host_as_share_is_nosuid_and_nodev_all_over() {
    if !is_root_or_skip("root_of_the_host_as_share_is_nosuid_and_nodev_all_over") {
        return;
    }
    let daemon = started(Path::new("/"), &["--sandbox", "namespace"]);
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).unwrap();
    for line in mounts.lines() {
        let options = line.split(' ').nth(5).unwrap();
        assert!(
            options.contains("nosuid") && options.contains("nodev"),
            "{line}"
        );
    }
}

#[test]
fn user_without_maps_is_himself_in_a_namespace_of_his_own() {
    let name = "user_without_maps_is_himself_in_a_namespace_of_his_own";
    if !has_user_namespaces(name) {
        return;
    }
    let share = Share::new();
    let args = ["--sandbox".to_owned(), "namespace".to_owned()];
    // No newuidmap is needed for this one: PATH has nothing but what the wrapper needs.
    let daemon = Daemon::spawn_through(&as_user(USUAL_PATH), &share.path(), &args);
    ready(&daemon);
    let child = daemon.pid();
    assert_eq!(own_namespaces(child), ["mnt", "pid", "net", "user"]);
    for map in ["uid_map", "gid_map"] {
        let text = fs::read_to_string(format!("/proc/{child}/{map}")).unwrap();
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(fields, ["1", "1", "1"], "{map}");
    }
    assert_eq!(status_text(child, "Uid:"), "1\t1\t1\t1");
    assert_eq!(status_text(child, "NoNewPrivs:"), "1");
    assert_eq!(status_text(child, "Seccomp:"), "2");
    // Over a namespace in which he is alone.
    assert_eq!(capability_set(child, "CapEff:") & !WITH_FILE_HANDLES, 0);
    assert_without_capabilities(daemon.main_pid());
}

/// A directory "made" that the guest's root gives to its user and group 1000.
fn given_to_1000(client: &mut Client) -> u64 {
    let made = client.mkdir(1, "made", 0o755).unwrap();
    let owner = SetAttr {
        valid: FATTR_UID | FATTR_GID,
        uid: 1000,
        gid: 1000,
        ..SetAttr::default()
    };
    client.setattr(made.node, &owner).unwrap();
    made.node
}

#[test]
fn user_with_maps_is_root_over_his_sub_ids() {
    if !has_newuidmap("user_with_maps_is_root_over_his_sub_ids") {
        return;
    }
    let share = Share::new();
    std::os::unix::fs::chown(share.path(), Some(SUB_IDS), Some(SUB_IDS)).unwrap();
    let map = format!(":0:{SUB_IDS}:65536:");
    let wrapper = as_user(USUAL_PATH);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let args = [
        "--sandbox",
        "namespace",
        "--uid-map",
        &map,
        "--gid-map",
        &map,
    ];
    let mut client = Client::mount(&Setup::default().through(&wrapper).args(&args), &share);
    let child = client.vm.daemon.pid();
    let uid = SUB_IDS.to_string();
    assert_eq!(status_text(child, "Uid:"), [uid.as_str(); 4].join("\t"));
    assert_eq!(capability_set(child, "CapEff:") & !WITH_FILE_HANDLES, 0);
    given_to_1000(&mut client);
    let seen = share.stat("made");
    assert_eq!((seen.uid(), seen.gid()), (SUB_IDS + 1000, SUB_IDS + 1000));
}

#[test]
fn root_with_maps_gets_a_user_namespace() {
    if !is_root_or_skip("root_with_maps_gets_a_user_namespace") {
        return;
    }
    let share = Share::new();
    std::os::unix::fs::chown(share.path(), Some(SUB_IDS), Some(SUB_IDS)).unwrap();
    let map = format!(":0:{SUB_IDS}:65536:");
    let args = [
        "--sandbox",
        "namespace",
        "--uid-map",
        &map,
        "--gid-map",
        &map,
    ];
    let mut client = Client::with_args(&share, &args);
    let child = client.vm.daemon.pid();
    assert_eq!(own_namespaces(child), ["mnt", "pid", "net", "user"]);
    let made = given_to_1000(&mut client);
    let seen = share.stat("made");
    assert_eq!((seen.uid(), seen.gid()), (SUB_IDS + 1000, SUB_IDS + 1000));
    // An id beyond the map is nobody's.
    let beyond = SetAttr {
        valid: FATTR_UID,
        uid: 70_000,
        ..SetAttr::default()
    };
    assert_eq!(client.setattr(made, &beyond), Err(libc::EINVAL));
}

#[test]
fn steps_that_fail_name_what_is_missing_and_what_works() {
    if !has_user_namespaces("steps_that_fail_name_what_is_missing_and_what_works") {
        return;
    }
    let share = Share::new();
    let map = format!(":0:{SUB_IDS}:65536:");
    let path = share.path();
    let user = as_user(USUAL_PATH);
    let said = refused(&path, &user, &["--sandbox", "chroot"]);
    assert!(said.contains("can only be used by root"), "{said}");
    for mode in ["chroot", "none"] {
        let said = refused(&path, &[], &["--sandbox", mode, "--uid-map", &map]);
        assert!(said.contains("--sandbox namespace"), "{said}");
    }
    let without = |capability: &str| {
        let words = [
            "setpriv",
            "--bounding-set",
            capability,
            "--inh-caps",
            capability,
        ];
        words.map(str::to_owned).to_vec()
    };
    let said = refused(&path, &without("-sys_admin"), &["--sandbox", "namespace"]);
    assert!(
        said.contains("CAP_SYS_ADMIN") && said.contains("chroot"),
        "{said}"
    );
    let said = refused(&path, &without("-sys_chroot"), &["--sandbox", "chroot"]);
    assert!(
        said.contains("CAP_SYS_CHROOT") && said.contains("none"),
        "{said}"
    );
}

#[test]
fn maps_that_cannot_be_had_are_refused_with_the_words_of_newuidmap() {
    if !has_newuidmap("maps_that_cannot_be_had_are_refused_with_the_words_of_newuidmap") {
        return;
    }
    let share = Share::new();
    let foreign = format!(":0:{}:65536:", SUB_IDS + 100_000);
    let args = ["--sandbox", "namespace", "--uid-map", &foreign];
    let said = refused(&share.path(), &as_user(USUAL_PATH), &args);
    assert!(
        said.contains("not allowed") && said.contains("/etc/subuid"),
        "{said}"
    );
    let map = format!(":0:{SUB_IDS}:65536:");
    let tools = common::share::TempDir::new("tools");
    for tool in ["mount", "cp", "chown", "dirname", "setpriv"] {
        let found = [Path::new("/usr/bin"), Path::new("/bin")].map(|bin| bin.join(tool));
        let found = found.iter().find(|path| path.exists()).unwrap();
        symlink(found, tools.path().join(tool)).unwrap();
    }
    let wrapper = as_user(&tools.path().display().to_string());
    let said = refused(
        &share.path(),
        &wrapper,
        &["--sandbox", "namespace", "--uid-map", &map],
    );
    assert!(
        said.contains("newuidmap") && said.contains("uidmap,"),
        "{said}"
    );
}

/// The processes of a daemon, none of which may be left.
fn assert_all_gone(pids: [u32; 2]) {
    let start = Instant::now();
    for pid in pids {
        while fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            assert!(start.elapsed() < TIMEOUT, "process {pid} is left");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn files_of(daemon: &Daemon) -> [PathBuf; 2] {
    let pid_file = format!("{}.pid", daemon.socket.display());
    [daemon.socket.clone(), PathBuf::from(pid_file)]
}

#[test]
fn signals_end_both_processes_and_remove_what_was_made() {
    let share = Share::new();
    for mode in ["namespace", "chroot", "none"] {
        if mode == "chroot" && !is_root_or_skip("signals in chroot mode") {
            continue;
        }
        for (signal, status) in [(libc::SIGTERM, 0), (libc::SIGINT, 0), (libc::SIGHUP, 1)] {
            let mut daemon = started(&share.path(), &["--sandbox", mode]);
            let (pids, files) = ([daemon.pid(), daemon.main_pid()], files_of(&daemon));
            assert!(files.iter().all(|file| file.exists()));
            daemon.signal(signal);
            assert_eq!(daemon.wait_exit().code(), Some(status), "{mode} {signal}");
            assert_all_gone(pids);
            assert!(files.iter().all(|file| !file.exists()), "{mode} {signal}");
        }
    }
}

#[test]
fn signal_to_a_serving_daemon_ends_it_cleanly() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &["--sandbox", "namespace"]);
    client.node("file");
    let files = files_of(&client.vm.daemon);
    client.vm.daemon.signal(libc::SIGTERM);
    let status = client.vm.daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{}", client.vm.daemon.log.text());
    assert!(files.iter().all(|file| !file.exists()));
    assert!(client.vm.daemon.log.text().contains("SIGTERM"));
}

/// A file system whose server never answers stands for storage that has gone.
#[test]
fn request_that_hangs_does_not_keep_a_signal_from_ending_the_daemon() {
    let name = "request_that_hangs_does_not_keep_a_signal_from_ending_the_daemon";
    if !is_root_or_skip(name) {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        eprintln!("skipped {name}: there is no /dev/fuse");
        return;
    }
    let share = Share::new();
    share.mkdir("stuck");
    let script = format!(
        "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 none \
         '{}/stuck' && exec \"$@\"",
        share.path().display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let setup = Setup::default().through(&wrapper);
    let mut client = Client::mount(&setup.args(&["--sandbox", "namespace"]), &share);
    let (message, _) = client.message(op::LOOKUP, ROOT, b"stuck\0");
    client.queue.submit(&message, 256);
    // Whatever the queue's thread has begun when the signal comes has to be waited for.
    let daemon = &mut client.vm.daemon;
    let (pids, files) = ([daemon.pid(), daemon.main_pid()], files_of(daemon));
    let start = Instant::now();
    while !is_waiting_for_fuse(daemon.pid()) {
        assert!(
            start.elapsed() < TIMEOUT,
            "no request reached the file system"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.signal(libc::SIGTERM);
    let status = daemon.exit_within(3 * TIMEOUT).expect("an end");
    assert_eq!(status.code(), Some(1), "{}", daemon.log.text());
    assert!(
        daemon.log.text().contains("still under way"),
        "{}",
        daemon.log.text()
    );
    assert_all_gone(pids);
    assert!(files.iter().all(|file| !file.exists()));
}

/// Whether a thread of the process is in a request to a FUSE server.
fn is_waiting_for_fuse(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.flatten().any(|task| {
        let stack = fs::read_to_string(task.path().join("stack")).unwrap_or_default();
        let place = fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
        stack.contains("fuse") || place.contains("fuse")
    })
}

#[test]
fn child_that_is_killed_takes_its_parent_along_and_the_other_way_round() {
    let share = Share::new();
    let mut daemon = started(&share.path(), &["--sandbox", "namespace"]);
    let (pids, files) = ([daemon.pid(), daemon.main_pid()], files_of(&daemon));
    common::sys::kill(daemon.pid(), libc::SIGKILL);
    assert_eq!(daemon.wait_exit().code(), Some(256 - libc::SIGKILL));
    assert!(daemon.log.text().contains("killed by signal 9"));
    assert_all_gone(pids);
    assert!(files.iter().all(|file| !file.exists()));

    let mut daemon = started(&share.path(), &["--sandbox", "namespace"]);
    let pids = [daemon.pid(), daemon.main_pid()];
    daemon.signal(libc::SIGKILL);
    daemon.wait_exit();
    assert_all_gone(pids);
}

#[test]
fn disconnect_is_status_0_and_a_broken_protocol_status_1_in_every_mode() {
    let share = Share::new();
    for mode in ["namespace", "chroot", "none"] {
        if mode == "chroot" && !is_root_or_skip("disconnect in chroot mode") {
            continue;
        }
        let args = ["--sandbox".to_owned(), mode.to_owned()];
        let mut daemon = Daemon::spawn(&share.path(), &args);
        let files = files_of(&daemon);
        drop(daemon.connect());
        assert_eq!(daemon.wait_exit().code(), Some(0), "{mode}");
        assert!(files.iter().all(|file| !file.exists()), "{mode}");
        let mut daemon = Daemon::spawn(&share.path(), &args);
        let mut stream: UnixStream = daemon.connect();
        std::io::Write::write_all(&mut stream, &[0xff; 64]).unwrap();
        assert_eq!(daemon.wait_exit().code(), Some(1), "{mode}");
    }
}

#[test]
fn guest_that_locks_itself_out_of_the_root_does_not_take_the_daemon_along() {
    if !is_root_or_skip("guest_that_locks_itself_out_of_the_root_does_not_take_the_daemon_along") {
        return;
    }
    for capabilities in [
        "--modcaps=-dac_override",
        "--modcaps=-dac_override:-dac_read_search:-fowner",
        "--modcaps=-chown:-dac_override:-dac_read_search:-fowner:-fsetid:-setgid:-setuid:-mknod:-setfcap",
    ] {
        for mode in ["namespace", "chroot", "none"] {
            let share = Share::new();
            share.write("file", b"data");
            let root = share.path();
            std::os::unix::fs::chown(&root, Some(1000), Some(1000)).unwrap();
            let args = [
                "--sandbox",
                mode,
                capabilities,
                "--inode-file-handles=never",
            ];
            let mut client = Client::with_args(&share, &args);
            let file = client.node("file");
            fs::set_permissions(&root, fs::Permissions::from_mode(0o000)).unwrap();
            client.getattr(1, None).unwrap();
            client.getattr(file, None).unwrap();
            // Whether these work is the host's to say; that they are answered is what counts.
            let answers = [
                client.lookup(1, "file").err(),
                client.lookup(1, "other").err(),
                client.mkdir(1, "new", 0o755).err(),
                client.unlink(1, "file").err(),
                client.rmdir(1, "none").err(),
            ];
            assert!(answers.iter().any(Option::is_some), "{answers:?}");
            client.vm.disconnect();
            assert_eq!(client.vm.daemon.wait_exit().code(), Some(0), "{mode}");
            fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}
