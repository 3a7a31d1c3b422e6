//! What: operations on names over a real socket: LOOKUP, MKNOD, MKDIR, SYMLINK, LINK, UNLINK,
//! RMDIR, RENAME, RENAME2, READLINK, checked on the host's side.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use common::client::Client;
use common::request::{Bytes, ROOT, op};
use common::share::Share;

const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;
const WHITEOUT: u32 = 4;
const REG: u32 = libc::S_IFREG;

#[test]
fn lookup_finds_each_type_and_repeats_the_node() {
    let share = Share::new();
    share.write("file", b"");
    share.mkdir("dir");
    share.write("dir/inner", b"");
    symlink("file", share.at("link")).unwrap();
    fs::hard_link(share.at("file"), share.at("hard")).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let file = client.lookup(ROOT, "file").unwrap();
    assert_eq!(client.lookup(ROOT, "file").unwrap().node, file.node);
    assert_eq!(client.lookup(ROOT, "hard").unwrap().node, file.node);
    let dir = client.lookup(ROOT, "dir").unwrap();
    let inner = client.lookup(dir.node, "inner").unwrap();
    let link = client.lookup(ROOT, "link").unwrap();
    assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
    for node in [file.node, dir.node, inner.node, link.node] {
        assert!(node > ROOT, "node {node}");
    }
}

#[test]
fn lookup_of_what_is_not_there_returns_enoent() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &["--cache", "never"]);
    assert_eq!(client.lookup(ROOT, "nothing"), Err(libc::ENOENT));
}

#[test]
fn lookup_in_a_file_or_a_link_returns_enotdir() {
    let share = Share::new();
    share.write("file", b"");
    symlink("../outside", share.at("link")).unwrap();
    let mut client = Client::with_args(&share, &[]);
    for name in ["file", "link"] {
        let node = client.node(name);
        assert_eq!(client.lookup(node, "victim"), Err(libc::ENOTDIR), "{name}");
    }
    assert_eq!(client.lookup(4711, "x"), Err(libc::EBADF));
}

#[test]
fn lookup_of_odd_but_legal_names_works() {
    let share = Share::new();
    let longest = "n".repeat(255);
    let mut client = Client::with_args(&share, &[]);
    for name in ["...", "..a", " ", "a\nb", "\u{1b}[31m", "ünï", &longest] {
        let (node, _) = client.make_file(ROOT, name, name.as_bytes());
        assert_eq!(client.lookup(ROOT, name).unwrap().node, node, "{name:?}");
        assert_eq!(share.read(name), name.as_bytes());
    }
    let not_utf8 = client.lookup_bytes(ROOT, b"\xff\xfe");
    assert_eq!(not_utf8, Err(libc::ENOENT));
}

#[test]
fn mknod_makes_files_fifos_sockets_and_devices() {
    if !common::is_root_or_skip("mknod_makes_files_fifos_sockets_and_devices") {
        return;
    }
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let kinds = [
        ("file", libc::S_IFREG),
        ("fifo", libc::S_IFIFO),
        ("socket", libc::S_IFSOCK),
        ("char", libc::S_IFCHR),
        ("block", libc::S_IFBLK),
    ];
    for (name, kind) in kinds {
        let entry = client.mknod(ROOT, name, kind | 0o640, 0x0103).unwrap();
        let host = share.stat(name);
        assert_eq!(host.mode(), kind | 0o640, "{name}");
        assert_eq!(entry.attr.mode, kind | 0o640, "{name}");
        let is_device = kind == libc::S_IFCHR || kind == libc::S_IFBLK;
        assert_eq!(
            entry.attr.rdev,
            if is_device { 0x0103 } else { 0 },
            "{name}"
        );
        assert_eq!(host.rdev(), if is_device { 0x0103 } else { 0 }, "{name}");
    }
    let again = client.mknod(ROOT, "file", REG | 0o600, 0);
    assert_eq!(again, Err(libc::EEXIST));
}

#[test]
fn mkdir_makes_a_directory_once() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let entry = client.mkdir(ROOT, "dir", 0o750).unwrap();
    assert_eq!(share.stat("dir").mode(), libc::S_IFDIR | 0o750);
    assert_eq!(entry.attr.mode, libc::S_IFDIR | 0o750);
    assert_eq!(client.mkdir(ROOT, "dir", 0o750), Err(libc::EEXIST));
    let sub = client.mkdir(entry.node, "sub", 0o700).unwrap();
    assert_eq!(client.lookup(entry.node, "sub").unwrap().node, sub.node);
}

#[test]
fn symlink_keeps_its_target_as_it_is() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let longest = "t".repeat(4095);
    for (name, target) in [
        ("relative", "some/where"),
        ("absolute", "/etc/passwd"),
        ("up", "../../../outside"),
        ("longest", longest.as_str()),
    ] {
        let entry = client.symlink(ROOT, name, target).unwrap();
        assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(
            fs::read_link(share.at(name)).unwrap().to_str(),
            Some(target)
        );
        let read = client.readlink(entry.node, 4096).unwrap();
        assert_eq!(read, target.as_bytes());
    }
    share.assert_outside_unchanged();
}

#[test]
fn symlink_with_a_bad_target_fails() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    assert_eq!(client.symlink(ROOT, "x", ""), Err(libc::ENOENT));
    let too_long = "t".repeat(4096);
    let result = client.symlink(ROOT, "x", &too_long);
    assert_eq!(result, Err(libc::ENAMETOOLONG));
    assert_eq!(share.names(""), [""; 0]);
}

#[test]
fn readlink_of_no_link_returns_einval() {
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("file");
    assert_eq!(client.readlink(node, 4096), Err(libc::EINVAL));
    assert_eq!(client.readlink(ROOT, 4096), Err(libc::EINVAL));
    assert_eq!(client.readlink(4711, 4096), Err(libc::EBADF));
}

#[test]
fn readlink_into_too_little_room_is_an_error_and_never_cut() {
    let share = Share::new();
    symlink("0123456789", share.at("link")).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("link");
    for room in [0, 1, 9] {
        let result = client.readlink(node, room);
        assert!(
            matches!(result, Err(libc::ENAMETOOLONG | libc::ERANGE)),
            "{room}: {result:?}"
        );
    }
}

#[test]
fn link_gives_a_second_name_to_the_same_node() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, _) = client.make_file(ROOT, "one", b"data");
    let entry = client.link(node, ROOT, "two").unwrap();
    assert_eq!((entry.node, entry.attr.nlink), (node, 2));
    assert_eq!(share.stat("one").ino(), share.stat("two").ino());
    assert_eq!(client.link(node, ROOT, "two"), Err(libc::EEXIST));
    let directory = client.mkdir(ROOT, "dir", 0o755).unwrap().node;
    assert_eq!(client.link(directory, ROOT, "three"), Err(libc::EPERM));
    assert_eq!(client.link(4711, ROOT, "four"), Err(libc::EBADF));
}

#[test]
fn link_of_a_symlink_links_the_link() {
    let share = Share::new();
    symlink("../outside/victim", share.at("link")).unwrap();
    let mut client = Client::with_args(&share, &[]);
    let node = client.node("link");
    client.link(node, ROOT, "again").unwrap();
    assert!(share.stat("again").is_symlink());
    share.assert_outside_unchanged();
}

#[test]
fn unlink_removes_a_name_and_keeps_open_files_alive() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    let (node, fh) = client.make_file(ROOT, "file", b"still here");
    client.unlink(ROOT, "file").unwrap();
    assert!(!share.exists("file"));
    assert_eq!(client.read_all(node, fh), b"still here");
    assert_eq!(client.unlink(ROOT, "file"), Err(libc::ENOENT));
    share.mkdir("dir");
    let result = client.unlink(ROOT, "dir");
    assert!(
        matches!(result, Err(libc::EISDIR | libc::EPERM)),
        "{result:?}"
    );
}

#[test]
fn rmdir_removes_only_empty_directories() {
    let share = Share::new();
    share.mkdir("dir");
    share.write("dir/file", b"");
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    assert_eq!(client.rmdir(ROOT, "dir"), Err(libc::ENOTEMPTY));
    assert_eq!(client.rmdir(ROOT, "file"), Err(libc::ENOTDIR));
    assert_eq!(client.rmdir(ROOT, "nothing"), Err(libc::ENOENT));
    fs::remove_file(share.at("dir/file")).unwrap();
    client.rmdir(ROOT, "dir").unwrap();
    assert!(!share.exists("dir"));
}

#[test]
fn rename_moves_and_replaces() {
    let share = Share::new();
    share.write("a", b"A");
    share.write("b", b"B");
    share.mkdir("dir");
    let mut client = Client::with_args(&share, &[]);
    let (a, dir) = (client.node("a"), client.node("dir"));
    client.rename((ROOT, "a"), (dir, "moved")).unwrap();
    assert_eq!(share.read("dir/moved"), b"A");
    assert_eq!(client.lookup(dir, "moved").unwrap().node, a);
    client.rename((dir, "moved"), (ROOT, "b")).unwrap();
    assert_eq!(share.read("b"), b"A");
    assert_eq!(client.rename((ROOT, "a"), (ROOT, "x")), Err(libc::ENOENT));
    let into_itself = client.rename((ROOT, "dir"), (dir, "sub"));
    assert_eq!(into_itself, Err(libc::EINVAL));
    assert_eq!(client.rename((4711, "b"), (ROOT, "x")), Err(libc::EBADF));
    assert_eq!(client.rename((ROOT, "b"), (4711, "x")), Err(libc::EBADF));
}

#[test]
fn rename2_noreplace_refuses_an_existing_target() {
    let share = Share::new();
    share.write("a", b"A");
    share.write("b", b"B");
    let mut client = Client::with_args(&share, &[]);
    let result = client.rename2((ROOT, "a"), (ROOT, "b"), NOREPLACE);
    assert_eq!(result, Err(libc::EEXIST));
    client.rename2((ROOT, "a"), (ROOT, "c"), NOREPLACE).unwrap();
    assert_eq!(share.names(""), ["b", "c"]);
}

#[test]
fn rename2_exchange_swaps_file_and_directory() {
    let share = Share::new();
    share.write("a", b"A");
    share.mkdir("b");
    let mut client = Client::with_args(&share, &[]);
    client.rename2((ROOT, "a"), (ROOT, "b"), EXCHANGE).unwrap();
    assert!(share.stat("a").is_dir());
    assert_eq!(share.read("b"), b"A");
    let missing = client.rename2((ROOT, "a"), (ROOT, "c"), EXCHANGE);
    assert_eq!(missing, Err(libc::ENOENT));
}

#[test]
fn rename2_whiteout_leaves_a_whiteout_device() {
    if !common::is_root_or_skip("rename2_whiteout_leaves_a_whiteout_device") {
        return;
    }
    let share = Share::new();
    share.write("a", b"A");
    let mut client = Client::with_args(&share, &[]);
    client.rename2((ROOT, "a"), (ROOT, "b"), WHITEOUT).unwrap();
    assert_eq!(share.read("b"), b"A");
    let host = share.stat("a");
    assert_eq!(
        (host.mode() & libc::S_IFMT, host.rdev()),
        (libc::S_IFCHR, 0)
    );
}

#[test]
fn rename2_with_unknown_or_conflicting_flags_returns_einval() {
    let share = Share::new();
    share.write("a", b"A");
    share.write("b", b"B");
    let mut client = Client::with_args(&share, &[]);
    for flags in [
        8,
        1 << 31,
        u32::MAX,
        NOREPLACE | EXCHANGE,
        EXCHANGE | 1 << 16,
    ] {
        let result = client.rename2((ROOT, "a"), (ROOT, "b"), flags);
        assert_eq!(result, Err(libc::EINVAL), "{flags:x}");
    }
    assert_eq!(
        (share.read("a"), share.read("b")),
        (b"A".to_vec(), b"B".to_vec())
    );
}

#[test]
fn new_objects_belong_to_the_caller() {
    if !common::is_root_or_skip("new_objects_belong_to_the_caller") {
        return;
    }
    let share = Share::new();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut client = Client::with_args(&share, &[]);
    client.uid = 1000;
    client.gid = 1001;
    client.mkdir(ROOT, "dir", 0o755).unwrap();
    client
        .mknod(ROOT, "fifo", libc::S_IFIFO | 0o600, 0)
        .unwrap();
    client.symlink(ROOT, "link", "target").unwrap();
    client.uid = 0;
    client.gid = 0;
    client.mkdir(ROOT, "roots", 0o755).unwrap();
    for name in ["dir", "fifo", "link"] {
        let host = share.stat(name);
        assert_eq!((host.uid(), host.gid()), (1000, 1001), "{name}");
    }
    assert_eq!(
        (share.stat("roots").uid(), share.stat("roots").gid()),
        (0, 0)
    );
}

#[test]
fn new_objects_without_an_identity_are_refused() {
    let share = Share::new();
    fs::set_permissions(share.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut client = Client::with_args(&share, &[]);
    client.uid = u32::MAX;
    let nobody = Err(libc::EOVERFLOW);
    assert_eq!(client.mkdir(ROOT, "dir", 0o755), nobody);
    assert_eq!(client.mknod(ROOT, "file", REG | 0o600, 0), nobody);
    assert_eq!(client.symlink(ROOT, "link", "target"), nobody);
    assert_eq!(share.names(""), [""; 0]);
    // What creates nothing works without an identity, as on an idmapped mount.
    client.getattr(ROOT, None).unwrap();
}

#[test]
fn unknown_parents_return_ebadf() {
    let share = Share::new();
    let mut client = Client::with_args(&share, &[]);
    assert_eq!(client.mkdir(4711, "x", 0o755), Err(libc::EBADF));
    assert_eq!(client.mknod(4711, "x", REG | 0o600, 0), Err(libc::EBADF));
    assert_eq!(client.symlink(4711, "x", "t"), Err(libc::EBADF));
    assert_eq!(client.unlink(4711, "x"), Err(libc::EBADF));
    assert_eq!(client.rmdir(4711, "x"), Err(libc::EBADF));
}

/// Every operation with a name refuses what is not one path component.
#[test]
fn names_that_are_no_component_are_refused_by_every_operation() {
    let share = Share::new();
    share.mkdir("dir");
    share.write("file", b"");
    let mut client = Client::with_args(&share, &[]);
    let file = client.node("file");
    let bad: [&[u8]; 8] = [
        b"",
        b".",
        b"..",
        b"/",
        b"/etc",
        b"dir/x",
        b"file/",
        b"../outside/victim",
    ];
    for name in bad {
        for (opcode, body) in bodies_with_name(name, file) {
            let result = client.call(opcode, ROOT, &body, 160);
            if opcode == op::LOOKUP && matches!(name, b"." | b"..") {
                // Guests that export the mount ask for these; both are the root here.
                assert_eq!(
                    result.map(|reply| reply.get(..8) == Some(&ROOT.to_ne_bytes())),
                    Ok(true)
                );
                continue;
            }
            assert!(
                matches!(result, Err(libc::EINVAL | libc::ENOENT)),
                "opcode {opcode} with name {:?}: {result:?}",
                String::from_utf8_lossy(name)
            );
        }
    }
    let long = vec![b'n'; 256];
    for (opcode, body) in bodies_with_name(&long, file) {
        let result = client.call(opcode, ROOT, &body, 160);
        assert_eq!(result, Err(libc::ENAMETOOLONG), "opcode {opcode}");
    }
    assert_eq!(share.names(""), ["dir", "file"]);
    share.assert_outside_unchanged();
}

fn bodies_with_name(name: &[u8], node: u64) -> Vec<(u32, Vec<u8>)> {
    let rdwr = libc::O_RDWR;
    let raw = |bytes: Bytes| bytes.done();
    vec![
        (op::LOOKUP, raw(Bytes::new().name(name))),
        (op::UNLINK, raw(Bytes::new().name(name))),
        (op::RMDIR, raw(Bytes::new().name(name))),
        (op::MKDIR, raw(Bytes::new().u32(0o755).u32(0).name(name))),
        (
            op::MKNOD,
            raw(Bytes::new().u32(REG | 0o600).raw(&[0; 12]).name(name)),
        ),
        (op::SYMLINK, raw(Bytes::new().name(name).name(b"target"))),
        (op::LINK, raw(Bytes::new().u64(node).name(name))),
        (
            op::RENAME,
            raw(Bytes::new().u64(ROOT).name(name).name(b"new")),
        ),
        (
            op::RENAME,
            raw(Bytes::new().u64(ROOT).name(b"file").name(name)),
        ),
        (
            op::RENAME2,
            raw(Bytes::new().u64(ROOT).u64(0).name(name).name(b"new")),
        ),
        (
            op::RENAME2,
            raw(Bytes::new().u64(ROOT).u64(0).name(b"file").name(name)),
        ),
        (
            op::CREATE,
            raw(Bytes::new().i32(rdwr).u32(REG | 0o600).u64(0).name(name)),
        ),
    ]
}
