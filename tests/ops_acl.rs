//! What: access control lists over a real socket: what INIT agrees on, the umask, default lists,
//! set-group-id, and ids that differ between guest and host.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::time::{Duration, Instant};

use common::client::Client;
use common::frontend::Setup;
use common::request::{ROOT, init};
use common::session::{Init, LINUX_OFFERS};
use common::share::Share;
use common::sys;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const ACL_KILL_SGID: u32 = 1 << 0;
const NO_ID: u32 = u32::MAX;
const LISTS: u64 = init::POSIX_ACL | init::DONT_MASK;

/// `u::rwx,u:USER:rw-,g::r--,m::rw-,o::---` as linux/posix_acl_xattr.h lays it out.
fn list_for(user: u32) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [
        (0x01_u16, 7_u16, NO_ID),
        (0x02, 6, user),
        (0x04, 4, NO_ID),
        (0x10, 6, NO_ID),
        (0x20, 0, NO_ID),
    ] {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// A mounted guest, unless the temporary directory keeps no lists; then a line says so.
fn mounted(share: &Share, args: &[&str], test: &str) -> Option<Client> {
    let mut client = Client::with_args(share, args);
    assert_eq!(client.flags & LISTS, LISTS, "what INIT agreed on");
    if client.getxattr(ROOT, ACCESS, 100) == Err(libc::EOPNOTSUPP) {
        eprintln!("skipped {test}: no ACLs in the temporary directory");
        return None;
    }
    Some(client)
}

fn mount_offering(share: &Share, arg: &str, offered: u64) -> (Result<u64, i32>, Client) {
    let mut client = Client::attach(Setup::default().args(&[arg]).boot(&share.path()));
    let init = Init {
        flags: offered,
        ..Init::default()
    };
    let flags = client.init_with(&init).map(|out| out.flags);
    (flags, client)
}

/// The daemon's words reach us through a pipe and a thread, so they may come late.
fn wait_for_log(client: &Client, words: &str) {
    let deadline = Instant::now() + common::TIMEOUT;
    while !client.vm.daemon.log.text().contains(words) {
        let log = &client.vm.daemon.log;
        assert!(
            Instant::now() < deadline,
            "not said: {words}\n{}",
            log.text()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn init_agrees_on_lists_as_the_option_says() {
    let share = Share::new();
    let needed = [init::POSIX_ACL, init::DONT_MASK, init::SETXATTR_EXT];
    for lacking in needed {
        let offered = LINUX_OFFERS & !lacking;
        let (refused, client) = mount_offering(&share, "--posix-acl", offered);
        assert_eq!(refused, Err(libc::EPROTO), "without {lacking:#x}");
        wait_for_log(&client, "which the options of this daemon require");
        assert_eq!(client.shut_down().code(), Some(0));
        let (agreed, client) = mount_offering(&share, "--posix-acl=auto", offered);
        assert_eq!(agreed.map(|flags| flags & LISTS), Ok(0));
        wait_for_log(&client, "it goes on without");
    }
    let (agreed, client) = mount_offering(&share, "--posix-acl=auto", LINUX_OFFERS);
    assert_eq!(agreed.map(|flags| flags & LISTS), Ok(LISTS));
    let log = client.vm.daemon.log.text();
    assert!(!log.contains("it goes on without"), "{log}");
    let (agreed, _client) = mount_offering(&share, "--posix-acl=never", LINUX_OFFERS);
    assert_eq!(agreed.map(|flags| flags & LISTS), Ok(0));
}

#[test]
fn umask_of_the_request_counts_with_lists_only() {
    let share = Share::new();
    for (args, modes) in [
        (&["--posix-acl"][..], [0o640, 0o750, 0o640]),
        (&["--xattr"][..], [0o666, 0o777, 0o666]),
    ] {
        let mut client = Client::with_args(&share, args);
        client.umask = 0o027;
        client
            .create(ROOT, "file", libc::S_IFREG | 0o666, libc::O_RDWR)
            .unwrap();
        client.mkdir(ROOT, "dir", 0o777).unwrap();
        client
            .mknod(ROOT, "fifo", libc::S_IFIFO | 0o666, 0)
            .unwrap();
        let made = ["file", "dir", "fifo"].map(|name| share.stat(name).mode() & 0o7777);
        assert_eq!(made, modes, "{args:?}");
        share.clear();
    }
}

#[test]
fn default_list_is_inherited_and_takes_the_place_of_the_umask() {
    let share = Share::new();
    let test = "default_list_is_inherited_and_takes_the_place_of_the_umask";
    let Some(mut client) = mounted(&share, &["--posix-acl"], test) else {
        return;
    };
    client.setxattr(ROOT, DEFAULT, &list_for(1000), 0).unwrap();
    client.umask = 0o777;
    let dir = client.mkdir(ROOT, "dir", 0o777).unwrap();
    assert_eq!(dir.attr.mode & 0o7777, 0o760);
    assert_eq!(client.getxattr(dir.node, DEFAULT, 100), Ok(list_for(1000)));
    let (file, _) = client
        .create(dir.node, "file", libc::S_IFREG | 0o666, libc::O_RDWR)
        .unwrap();
    assert_eq!(file.attr.mode & 0o7777, 0o660);
    let host = sys::get_xattr(&share.at("dir/file"), c"system.posix_acl_access");
    assert!(host.is_ok(), "{host:?}");
}

#[test]
fn access_list_with_kill_sgid_clears_set_group_id() {
    if !common::is_root_or_skip("access_list_with_kill_sgid_clears_set_group_id") {
        return;
    }
    let share = Share::new();
    let test = "access_list_with_kill_sgid_clears_set_group_id";
    let Some(mut client) = mounted(&share, &["--posix-acl"], test) else {
        return;
    };
    let path = share.write("file", b"");
    chown(&path, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2755)).unwrap();
    let node = client.node("file");
    let list = list_for(1001);
    client.setxattr(node, ACCESS, &list, 0).unwrap();
    assert_eq!(share.stat("file").mode() & 0o7777, 0o2760);
    let refused = client.setxattr_with(node, ACCESS, &list[..12], (0, ACL_KILL_SGID));
    assert_eq!(refused, Err(libc::EINVAL));
    assert_eq!(share.stat("file").mode() & 0o7777, 0o2760);
    client
        .setxattr_with(node, ACCESS, &list, (0, ACL_KILL_SGID))
        .unwrap();
    assert_eq!(share.stat("file").mode() & 0o7777, 0o760);
}

#[test]
fn lists_name_the_ids_of_each_side() {
    if !common::is_root_or_skip("lists_name_the_ids_of_each_side") {
        return;
    }
    let share = Share::new();
    let args = [
        "--posix-acl",
        "--translate-uid=map:0:100000:1000",
        "--translate-uid=host:0:100000:1000",
        "--translate-uid=forbid-guest:100000:1000",
    ];
    let Some(mut client) = mounted(&share, &args, "lists_name_the_ids_of_each_side") else {
        return;
    };
    share.write("file", b"");
    let node = client.node("file");
    client.setxattr(node, ACCESS, &list_for(7), 0).unwrap();
    let host = sys::get_xattr(&share.at("file"), c"system.posix_acl_access").unwrap();
    assert_eq!(host, list_for(100_007));
    assert_eq!(client.getxattr(node, ACCESS, 100), Ok(list_for(7)));
    let forbidden = client.setxattr(node, ACCESS, &list_for(100_000), 0);
    assert_eq!(forbidden, Err(libc::EPERM));
}
