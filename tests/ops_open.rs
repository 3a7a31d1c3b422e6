//! What: OPEN, CREATE, TMPFILE, RELEASE, FLUSH over a real socket: flags, owners, cache modes.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::client::Client;
use common::request::{ROOT, group_extension};
use common::session_data::At;
use common::share::Share;

const DIRECT_IO: u32 = 1 << 0;
const KEEP_CACHE: u32 = 1 << 1;
const CACHE_DIR: u32 = 1 << 3;
const OPEN_KILL_SUIDGID: u32 = 1;

/// Flags of the one descriptor of the daemon that leads to `name`, as /proc shows them.
fn host_open_flags(client: &Client, share: &Share, name: &str) -> i32 {
    let pid = client.vm.daemon.pid();
    // By identity: paths are others in the daemon's sandbox.
    let identity = |path: std::path::PathBuf| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let want = identity(share.at(name));
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon runs");
    let flags = fds.flatten().filter_map(|fd| {
        let target = identity(fd.path());
        let number = fd.file_name().into_string().ok()?;
        let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let octal = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = i32::from_str_radix(octal.trim(), 8).ok()?;
        (target == want && flags & libc::O_PATH == 0).then_some(flags)
    });
    let flags: Vec<i32> = flags.collect();
    assert_eq!(flags.len(), 1, "descriptors of {name}: {flags:x?}");
    flags[0]
}

#[test]
fn open_for_each_access_mode_gives_just_that() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let at = |fh| At {
        node,
        fh,
        offset: 0,
    };
    let read_only = client.open(node, libc::O_RDONLY).unwrap().fh;
    assert_eq!(client.read(at(read_only), 10).unwrap(), b"data");
    assert_eq!(client.write(at(read_only), b"x"), Err(libc::EBADF));
    let write_only = client.open(node, libc::O_WRONLY).unwrap().fh;
    assert_eq!(client.write(at(write_only), b"x"), Ok(1));
    assert_eq!(client.read(at(write_only), 10), Err(libc::EBADF));
    let both = client.open(node, libc::O_RDWR).unwrap().fh;
    assert_eq!(client.write(at(both), b"y"), Ok(1));
    assert_eq!(client.read(at(both), 10).unwrap(), b"yata");
    for fh in [read_only, write_only, both] {
        client.flush(node, fh).unwrap();
        client.release(node, fh).unwrap();
    }
}

#[test]
fn open_of_what_is_no_regular_file_is_refused_without_opening_it() {
    let share = Share::new();
    share.mkdir("dir");
    std::os::unix::fs::symlink("dir", share.at("link")).unwrap();
    common::sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o644, 0).unwrap();
    common::sys::mknod(&share.at("socket"), libc::S_IFSOCK | 0o644, 0).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let cases = [
        ("dir", libc::EISDIR),
        ("link", libc::ELOOP),
        ("fifo", libc::ENXIO),
        ("socket", libc::ENXIO),
    ];
    for (name, errno) in cases {
        let node = client.node(name);
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
            assert_eq!(client.open(node, flags), Err(errno), "{name} {flags:x}");
        }
    }
}

#[test]
fn open_of_a_device_is_refused() {
    if !common::is_root_or_skip("open_of_a_device_is_refused") {
        return;
    }
    let share = Share::new();
    common::sys::mknod(&share.at("null"), libc::S_IFCHR | 0o666, 0x103).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("null");
    assert_eq!(client.open(node, libc::O_RDWR), Err(libc::ENXIO));
}

#[test]
fn open_of_unknown_node_returns_ebadf() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    assert_eq!(client.open(4711, libc::O_RDONLY), Err(libc::EBADF));
}

#[test]
fn open_with_o_trunc_empties_the_file() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    client.open(node, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(share.read("file"), b"");
}

#[test]
fn open_with_o_trunc_and_kill_suidgid_clears_set_id_bits() {
    let share = Share::new();
    let path = share.write("file", b"data");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    let mut client = Client::with_args(&share, &["--killpriv-v2"]);
    if !client.kills_set_ids_or_skip("open_with_o_trunc_and_kill_suidgid_clears_set_id_bits") {
        return;
    }
    let node = client.node("file");
    client
        .open_with(node, libc::O_WRONLY | libc::O_TRUNC, OPEN_KILL_SUIDGID)
        .unwrap();
    assert_eq!(share.stat("file").mode() & 0o7777, 0o755);
}

#[test]
fn open_strips_flags_that_a_guest_may_not_set() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    for flags in [
        libc::O_CREAT | libc::O_EXCL,
        libc::O_ASYNC,
        libc::O_NOATIME,
        libc::O_DIRECT,
        libc::O_APPEND,
    ] {
        let Ok(opened) = client.open(node, libc::O_RDWR | flags) else {
            continue;
        };
        let host = host_open_flags(&client, &share, "file");
        assert_eq!(host & flags, 0, "{flags:x} reached the host: {host:x}");
        client.release(node, opened.fh).unwrap();
    }
}

#[test]
fn open_with_o_direct_reaches_the_host_only_with_allow_direct_io() {
    let share = Share::new();
    share.write("file", &[7; 8192]);
    let mut client = Client::with_args(&share, &["--allow-direct-io"]);
    let node = client.node("file");
    client.open(node, libc::O_RDONLY | libc::O_DIRECT).unwrap();
    let host = host_open_flags(&client, &share, "file");
    assert_eq!(host & libc::O_DIRECT, libc::O_DIRECT);
}

#[test]
fn open_with_o_noatime_reaches_the_host_only_with_preserve_noatime() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &["--preserve-noatime"]);
    let node = client.node("file");
    client.open(node, libc::O_RDONLY | libc::O_NOATIME).unwrap();
    let host = host_open_flags(&client, &share, "file");
    assert_eq!(host & libc::O_NOATIME, libc::O_NOATIME);
}

#[test]
fn open_under_writeback_reads_through_write_only_handles() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &["--writeback"]);
    let node = client.node("file");
    let fh = client
        .open(node, libc::O_WRONLY | libc::O_APPEND)
        .unwrap()
        .fh;
    let at = At {
        node,
        fh,
        offset: 0,
    };
    assert_eq!(client.read(at, 10).unwrap(), b"data");
    assert_eq!(client.write_with(at, b"D", 1, libc::O_APPEND), Ok(1));
    assert_eq!(share.read("file"), b"Data");
}

#[test]
fn cache_mode_sets_the_open_flags() {
    let cases = [
        ("never", DIRECT_IO, 0),
        ("auto", 0, 0),
        ("always", KEEP_CACHE, KEEP_CACHE | CACHE_DIR),
        ("metadata", DIRECT_IO, KEEP_CACHE | CACHE_DIR),
    ];
    let mask = DIRECT_IO | KEEP_CACHE | CACHE_DIR;
    for (mode, file_flags, dir_flags) in cases {
        let share = Share::new();
        share.write("file", b"");
        let mut client = Client::with_args(&share, &["--cache", mode]);
        let node = client.node("file");
        let file = client.open(node, libc::O_RDONLY).unwrap();
        let dir = client.opendir(ROOT).unwrap();
        let (_, created) = client
            .create(ROOT, "new", libc::S_IFREG | 0o600, libc::O_RDWR)
            .unwrap();
        assert_eq!(file.flags & mask, file_flags, "{mode}: file");
        assert_eq!(created.flags & mask, file_flags, "{mode}: created file");
        assert_eq!(dir.flags & mask, dir_flags, "{mode}: directory");
    }
}

#[test]
fn create_makes_and_opens_the_file() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (entry, opened) = client
        .create(ROOT, "new", libc::S_IFREG | 0o640, libc::O_RDWR)
        .unwrap();
    let at = At {
        node: entry.node,
        fh: opened.fh,
        offset: 0,
    };
    client.write_all(at, b"hello");
    assert_eq!(share.read("new"), b"hello");
    assert_eq!(share.stat("new").mode(), libc::S_IFREG | 0o640);
    assert_eq!(entry.attr.ino, share.stat("new").ino());
    assert_eq!(client.lookup(ROOT, "new").unwrap().node, entry.node);
}

#[test]
fn create_on_existing_file_opens_it_and_o_trunc_empties_it() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let mode = libc::S_IFREG | 0o600;
    let (entry, opened) = client.create(ROOT, "file", mode, libc::O_RDWR).unwrap();
    assert_eq!(entry.node, node);
    assert_eq!(client.read_all(node, opened.fh), b"data");
    client
        .create(ROOT, "file", mode, libc::O_RDWR | libc::O_TRUNC)
        .unwrap();
    assert_eq!(share.read("file"), b"");
    assert_eq!(
        share.stat("file").mode() & 0o777,
        0o644,
        "mode of the old file"
    );
}

#[test]
fn create_excl_on_existing_returns_eexist() {
    let share = Share::new();
    share.write("file", b"data");
    share.mkdir("dir");
    std::os::unix::fs::symlink("nowhere", share.at("link")).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let flags = libc::O_RDWR | libc::O_EXCL | libc::O_TRUNC;
    for name in ["file", "dir", "link"] {
        let result = client.create(ROOT, name, libc::S_IFREG | 0o600, flags);
        assert_eq!(result, Err(libc::EEXIST), "{name}");
    }
    assert_eq!(share.read("file"), b"data");
}

#[test]
fn create_on_what_is_no_regular_file_fails_and_leaks_nothing() {
    let share = Share::new();
    share.mkdir("dir");
    std::os::unix::fs::symlink("../outside/victim", share.at("link")).unwrap();
    common::sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o644, 0).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let oracle = client.oracle();
    for (name, errno) in [
        ("dir", libc::EISDIR),
        ("link", libc::ELOOP),
        ("fifo", libc::ENXIO),
    ] {
        let flags = libc::O_RDWR | libc::O_TRUNC;
        let result = client.create(ROOT, name, libc::S_IFREG | 0o600, flags);
        assert_eq!(result, Err(errno), "{name}");
        client.assert_sound(&oracle, name);
    }
    share.assert_outside_unchanged();
}

#[test]
fn create_in_what_is_no_directory_fails() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let mode = libc::S_IFREG | 0o600;
    let result = client.create(node, "x", mode, libc::O_RDWR);
    assert_eq!(result, Err(libc::ENOTDIR));
    let result = client.create(4711, "x", mode, libc::O_RDWR);
    assert_eq!(result, Err(libc::EBADF));
}

#[test]
fn create_gives_the_file_to_the_caller() {
    if !common::is_root_or_skip("create_gives_the_file_to_the_caller") {
        return;
    }
    let share = Share::new();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut client = Client::with_args(&share, &[]);
    for (uid, gid) in [(1000, 1001), (0, 1002), (1003, 0), (0, 0)] {
        client.uid = uid;
        client.gid = gid;
        let name = format!("file-{uid}-{gid}");
        client.make_file(ROOT, &name, b"x");
        let host = share.stat(&name);
        assert_eq!((host.uid(), host.gid()), (uid, gid));
    }
}

#[test]
fn create_without_an_identity_is_refused() {
    let share = Share::new();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut client = Client::with_args(&share, &[]);
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        client.uid = uid;
        client.gid = gid;
        let result = client.create(ROOT, "x", libc::S_IFREG | 0o600, libc::O_RDWR);
        assert_eq!(result, Err(libc::EOVERFLOW), "{uid}/{gid}");
    }
    assert_eq!(share.names(""), [""; 0]);
}

#[test]
fn create_in_a_setgid_directory_inherits_its_group() {
    if !common::is_root_or_skip("create_in_a_setgid_directory_inherits_its_group") {
        return;
    }
    let share = Share::new();
    let dir = share.mkdir("dir");
    std::os::unix::fs::chown(&dir, Some(1000), Some(2000)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2777)).unwrap();
    let mut client = Client::with_args(&share, &[]);
    client.uid = 1000;
    client.gid = 1000;
    let parent = client.node("dir");
    client.make_file(parent, "file", b"");
    client.mkdir(parent, "sub", libc::S_IFDIR | 0o755).unwrap();
    assert_eq!(
        (share.stat("dir/file").uid(), share.stat("dir/file").gid()),
        (1000, 2000)
    );
    assert_eq!(share.stat("dir/sub").gid(), 2000);
    assert_eq!(share.stat("dir/sub").mode() & 0o7777, 0o2755);
}

#[test]
fn create_with_a_supplementary_group_is_allowed_by_it_and_it_is_dropped_after() {
    if !common::is_root_or_skip("create_with_a_supplementary_group_is_allowed_by_it") {
        return;
    }
    let share = Share::new();
    let dir = share.mkdir("dir");
    std::os::unix::fs::chown(&dir, Some(1), Some(3000)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2770)).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let parent = client.node("dir");
    client.uid = 1000;
    client.gid = 1000;
    client.extension = group_extension(&[3000]);
    client.make_file(parent, "with-group", b"");
    let (_, set_group_id) = (
        client
            .mknod(parent, "setgid", libc::S_IFREG | 0o2755, 0)
            .unwrap(),
        share.stat("dir/setgid").mode() & 0o2000,
    );
    assert_eq!(
        set_group_id, 0o2000,
        "a member of the group may keep setgid"
    );
    client.extension.clear();
    let mode = libc::S_IFREG | 0o600;
    let result = client.create(parent, "without-group", mode, libc::O_RDWR);
    assert_eq!(result, Err(libc::EACCES), "the group must be gone again");
    let host = share.stat("dir/with-group");
    assert_eq!((host.uid(), host.gid()), (1000, 3000));
}

#[test]
fn create_in_a_directory_of_others_is_refused() {
    if !common::is_root_or_skip("create_in_a_directory_of_others_is_refused") {
        return;
    }
    let share = Share::new();
    share.mkdir("dir");
    let mut client = Client::with_args(&share, &[]);
    let parent = client.node("dir");
    client.uid = 1000;
    client.gid = 1000;
    let result = client.create(parent, "x", libc::S_IFREG | 0o600, libc::O_RDWR);
    assert_eq!(result, Err(libc::EACCES));
    client.uid = 0;
    client.gid = 0;
    client.make_file(parent, "x", b"root can");
}

#[test]
fn create_keeps_the_mode_that_the_guest_masked() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    client.umask = 0o077;
    client
        .create(ROOT, "x", libc::S_IFREG | 0o666, libc::O_RDWR)
        .unwrap();
    assert_eq!(
        share.stat("x").mode() & 0o7777,
        0o666,
        "no DONT_MASK, no umask"
    );
}

#[test]
fn tmpfile_is_nameless_until_it_is_linked() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (entry, opened) = client
        .tmpfile(ROOT, libc::S_IFREG | 0o600, libc::O_RDWR)
        .unwrap();
    let at = At {
        node: entry.node,
        fh: opened.fh,
        offset: 0,
    };
    client.write_all(at, b"secret");
    assert_eq!(share.names(""), [""; 0]);
    assert_eq!(entry.attr.nlink, 0);
    let linked = client.link(entry.node, ROOT, "named").unwrap();
    assert_eq!(linked.node, entry.node);
    assert_eq!(share.read("named"), b"secret");
}

#[test]
fn tmpfile_belongs_to_the_caller() {
    if !common::is_root_or_skip("tmpfile_belongs_to_the_caller") {
        return;
    }
    let share = Share::new();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut client = Client::with_args(&share, &[]);
    client.uid = 1000;
    client.gid = 1001;
    let (entry, _) = client
        .tmpfile(ROOT, libc::S_IFREG | 0o600, libc::O_RDWR)
        .unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (1000, 1001));
}

#[test]
fn release_twice_and_use_after_release_return_ebadf() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    let fh = client.open(node, libc::O_RDWR).unwrap().fh;
    client.release(node, fh).unwrap();
    let at = At {
        node,
        fh,
        offset: 0,
    };
    assert_eq!(client.release(node, fh), Err(libc::EBADF));
    assert_eq!(client.read(at, 1), Err(libc::EBADF));
    assert_eq!(client.write(at, b"x"), Err(libc::EBADF));
    assert_eq!(client.flush(node, fh), Err(libc::EBADF));
    assert_eq!(client.fsync(node, fh), Err(libc::EBADF));
}
