//! What: every place where a user or group id crosses the border, under `--translate-uid` and
//! `--translate-gid`, over a real socket: what the guest sees, and what the host has.
//!
//! All of it needs root, to own files as somebody else and to act as somebody else.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};

use common::client::Client;
use common::request::{ROOT, SetAttr, group_extension};
use common::session::Reply;
use common::session_data::At;
use common::share::{Share, tree_state};

const REG: u32 = libc::S_IFREG;
const FIFO: u32 = libc::S_IFIFO;

const MODE: u32 = 1 << 0;
const UID: u32 = 1 << 1;
const GID: u32 = 1 << 2;

/// 0xffffffff, which is nobody's id.
const NO_ID: u32 = u32::MAX;

/// Users 0 to 9 of the guest are 1000 to 1009 of the host, groups 0 to 9 are 2000 to 2009.
const BOTH_WAYS: [&str; 2] = [
    "--translate-uid=map:0:1000:10",
    "--translate-gid=map:0:2000:10",
];

/// A share of which everybody may write the root.
fn open_share() -> Share {
    let share = Share::new();
    fs::set_permissions(share.path(), Permissions::from_mode(0o777)).expect("own directory");
    share
}

fn own(share: &Share, name: &str, uid: u32, gid: u32) {
    lchown(share.at(name), Some(uid), Some(gid)).expect("root may give files away");
}

fn host_owner(share: &Share, name: &str) -> (u32, u32) {
    let host = share.stat(name);
    (host.uid(), host.gid())
}

fn act_as(client: &mut Client, uid: u32, gid: u32) {
    client.uid = uid;
    client.gid = gid;
}

/// The name of what was to be made, and the owner that the guest sees.
type Made = (&'static str, Reply<(u32, u32)>);

/// Makes one object of each kind, as the present caller.
fn make_everything(client: &mut Client) -> Vec<Made> {
    let owner = |entry: common::request::Entry| (entry.attr.uid, entry.attr.gid);
    let create = client.create(ROOT, "file", REG | 0o644, libc::O_RDWR);
    let tmpfile = client.tmpfile(ROOT, REG | 0o644, libc::O_RDWR);
    let tmpfile = tmpfile.map(|(entry, _)| {
        // Under a name, so that the host's side can be seen.
        client.link(entry.node, ROOT, "tmpfile").expect("LINK")
    });
    vec![
        ("file", create.map(|(entry, _)| owner(entry))),
        ("tmpfile", tmpfile.map(owner)),
        ("dir", client.mkdir(ROOT, "dir", 0o755).map(owner)),
        (
            "fifo",
            client.mknod(ROOT, "fifo", FIFO | 0o644, 0).map(owner),
        ),
        ("link", client.symlink(ROOT, "link", "to").map(owner)),
    ]
}

#[test]
fn attributes_show_the_guests_ids_whichever_way_they_are_asked_for() {
    if !common::is_root_or_skip("attributes_show_the_guests_ids_whichever_way_they_are_asked_for") {
        return;
    }
    let share = Share::new();
    let cases = [
        ("inside", (1005, 2009), (5, 9)),
        ("outside", (77, 1005), (77, 1005)),
        ("link", (1000, 2000), (0, 0)),
    ];
    share.write("inside", b"");
    share.mkdir("outside");
    symlink("inside", share.at("link")).unwrap();
    for (name, host, _) in cases {
        own(&share, name, host.0, host.1);
    }
    own(&share, "", 1001, 2001);
    let mut client = Client::with_args(&share, &BOTH_WAYS);
    let root = client.getattr(ROOT, None).unwrap().attr;
    assert_eq!((root.uid, root.gid), (1, 1));
    for (name, _, guest) in cases {
        let entry = client.lookup(ROOT, name).unwrap();
        assert_eq!((entry.attr.uid, entry.attr.gid), guest, "LOOKUP {name}");
        let attr = client.getattr(entry.node, None).unwrap().attr;
        assert_eq!((attr.uid, attr.gid), guest, "GETATTR {name}");
        let statx = client.statx(entry.node, 0xfff).unwrap();
        assert_eq!((statx.uid, statx.gid), guest, "STATX {name}");
    }
    let inside = client.node("inside");
    let fh = client.open(inside, libc::O_RDONLY).unwrap().fh;
    let attr = client.getattr(inside, Some(fh)).unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (5, 9), "GETATTR by handle");
    let fh = client.opendir(ROOT).unwrap().fh;
    let start = At {
        node: ROOT,
        fh,
        offset: 0,
    };
    let mut seen = 0;
    for dirent in client.readdir_once(start, 4096, true).unwrap() {
        let entry = dirent.entry.unwrap();
        let case = cases.iter().find(|case| case.0.as_bytes() == dirent.name);
        if let Some((name, _, guest)) = case {
            seen += 1;
            assert_eq!((entry.attr.uid, entry.attr.gid), *guest, "{name}");
        }
    }
    assert_eq!(seen, cases.len(), "READDIRPLUS");
}

#[test]
fn what_is_made_has_the_hosts_ids_and_shows_the_guests() {
    if !common::is_root_or_skip("what_is_made_has_the_hosts_ids_and_shows_the_guests") {
        return;
    }
    for (guest, host) in [
        ((5, 6), (1005, 2006)),
        ((0, 0), (1000, 2000)),
        ((50, 60), (50, 60)),
    ] {
        let share = open_share();
        let mut client = Client::with_args(&share, &BOTH_WAYS);
        act_as(&mut client, guest.0, guest.1);
        for (name, owner) in make_everything(&mut client) {
            assert_eq!(owner, Ok(guest), "{name}");
            assert_eq!(host_owner(&share, name), host, "{name}");
        }
        assert!(client.shut_down().success());
    }
}

#[test]
fn create_of_an_existing_name_asks_for_the_rights_of_the_hosts_user() {
    if !common::is_root_or_skip("create_of_an_existing_name_asks_for_the_rights_of_the_hosts_user")
    {
        return;
    }
    let share = open_share();
    share.write("secret", b"for user 5 of the guest");
    fs::set_permissions(share.at("secret"), Permissions::from_mode(0o600)).unwrap();
    own(&share, "secret", 1005, 2005);
    let mut client = Client::with_args(&share, &BOTH_WAYS);
    for (uid, expected) in [
        (5, Ok((5, 5))),
        (6, Err(libc::EACCES)),
        (1004, Err(libc::EACCES)),
    ] {
        act_as(&mut client, uid, 6);
        let opened = client.create(ROOT, "secret", REG | 0o644, libc::O_RDONLY);
        let owner = opened.map(|(entry, _)| (entry.attr.uid, entry.attr.gid));
        assert_eq!(owner, expected, "{uid}");
    }
}

#[test]
fn setattr_gives_files_to_the_hosts_ids() {
    if !common::is_root_or_skip("setattr_gives_files_to_the_hosts_ids") {
        return;
    }
    let share = Share::new();
    share.write("file", b"");
    let mut client = Client::with_args(&share, &BOTH_WAYS);
    let node = client.node("file");
    for (valid, guest, shown, host) in [
        (UID, (5, 99), (5, 0), (1005, 0)),
        (GID, (99, 6), (5, 6), (1005, 2006)),
        (UID | GID, (0, 0), (0, 0), (1000, 2000)),
        (UID | GID, (70, 80), (70, 80), (70, 80)),
    ] {
        let changes = SetAttr {
            valid,
            uid: guest.0,
            gid: guest.1,
            ..SetAttr::default()
        };
        let attr = client.setattr(node, &changes).unwrap().attr;
        assert_eq!((attr.uid, attr.gid), shown);
        assert_eq!(host_owner(&share, "file"), host);
    }
}

#[test]
fn access_compares_the_guests_ids() {
    if !common::is_root_or_skip("access_compares_the_guests_ids") {
        return;
    }
    let share = Share::new();
    share.write("file", b"");
    own(&share, "file", 1005, 2006);
    fs::set_permissions(share.at("file"), Permissions::from_mode(0o640)).unwrap();
    let mut client = Client::with_args(&share, &BOTH_WAYS);
    let node = client.node("file");
    for (uid, gid, read, write) in [
        (5, 70, true, true),
        (70, 6, true, false),
        (1005, 70, false, false),
        (70, 2006, false, false),
        (0, 0, true, true),
    ] {
        act_as(&mut client, uid, gid);
        let answer = |allowed| if allowed { Ok(()) } else { Err(libc::EACCES) };
        assert_eq!(client.access(node, 4), answer(read), "{uid} {gid}");
        assert_eq!(client.access(node, 2), answer(write), "{uid} {gid}");
    }
}

#[test]
fn a_supplementary_group_is_the_hosts() {
    if !common::is_root_or_skip("a_supplementary_group_is_the_hosts") {
        return;
    }
    let share = Share::new();
    for (name, gid) in [("mapped", 2007), ("same-number", 7)] {
        share.mkdir(name);
        own(&share, name, 0, gid);
        fs::set_permissions(share.at(name), Permissions::from_mode(0o770)).unwrap();
    }
    let mut client = Client::with_args(&share, &BOTH_WAYS);
    let (mapped, same) = (client.node("mapped"), client.node("same-number"));
    act_as(&mut client, 5, 5);
    assert_eq!(client.mkdir(mapped, "a", 0o755), Err(libc::EACCES));
    client.extension = group_extension(&[7]);
    client.mkdir(mapped, "a", 0o755).unwrap();
    assert_eq!(host_owner(&share, "mapped/a"), (1005, 2005));
    assert_eq!(client.mkdir(same, "a", 0o755), Err(libc::EACCES));
}

#[test]
fn the_two_directions_are_independent() {
    if !common::is_root_or_skip("the_two_directions_are_independent") {
        return;
    }
    let share = open_share();
    let mut client = Client::with_args(
        &share,
        &[
            "--translate-uid=guest:5:1005:1",
            "--translate-gid=HOST+6+7+1",
        ],
    );
    act_as(&mut client, 5, 6);
    let entry = client.mkdir(ROOT, "dir", 0o755).unwrap();
    assert_eq!(host_owner(&share, "dir"), (1005, 6));
    assert_eq!((entry.attr.uid, entry.attr.gid), (1005, 7));
}

#[test]
fn squashed_ids_are_all_one() {
    if !common::is_root_or_skip("squashed_ids_are_all_one") {
        return;
    }
    let share = open_share();
    share.write("old", b"");
    own(&share, "old", 4321, 8765);
    let squash = [
        "--translate-uid=squash-guest:0:1234:4294967295",
        "--translate-gid=squash-guest:0:5678:4294967295",
        "--translate-uid=squash-host:0:11:4294967295",
        "--translate-gid=squash-host:0:12:4294967295",
    ];
    let mut client = Client::with_args(&share, &squash);
    let old = client.lookup(ROOT, "old").unwrap();
    assert_eq!((old.attr.uid, old.attr.gid), (11, 12));
    for (number, uid) in [0, 1, 1234, u32::MAX - 1].into_iter().enumerate() {
        act_as(&mut client, uid, uid);
        let name = format!("dir{number}");
        let entry = client.mkdir(ROOT, &name, 0o755).unwrap();
        assert_eq!(host_owner(&share, &name), (1234, 5678), "{uid}");
        assert_eq!((entry.attr.uid, entry.attr.gid), (11, 12), "{uid}");
        let changes = SetAttr {
            valid: UID | GID,
            uid,
            gid: uid,
            ..SetAttr::default()
        };
        client.setattr(old.node, &changes).unwrap();
        assert_eq!(host_owner(&share, "old"), (1234, 5678), "{uid}");
    }
}

#[test]
fn forbidden_ids_get_eperm_and_nothing_is_made_or_changed() {
    if !common::is_root_or_skip("forbidden_ids_get_eperm_and_nothing_is_made_or_changed") {
        return;
    }
    let share = open_share();
    share.write("old", b"contents");
    let before = tree_state(&share.path());
    let forbid = [
        "--translate-uid=forbid-guest:100:10",
        "--translate-gid=forbid-guest:200:10",
    ];
    let mut client = Client::with_args(&share, &forbid);
    let old = client.node("old");
    let oracle = client.oracle();
    for (uid, gid) in [(100, 0), (109, 0), (0, 200), (0, 209), (105, 205)] {
        act_as(&mut client, uid, gid);
        for (name, made) in make_everything(&mut client) {
            assert_eq!(made, Err(libc::EPERM), "{name} as {uid} {gid}");
        }
        let existing = client.create(ROOT, "old", REG | 0o644, libc::O_RDONLY);
        assert_eq!(existing.map(drop), Err(libc::EPERM), "{uid} {gid}");
        let changes = SetAttr {
            valid: MODE | if uid >= 100 { UID } else { 0 } | if gid >= 200 { GID } else { 0 },
            mode: REG | 0o777,
            uid,
            gid,
            ..SetAttr::default()
        };
        let changed = client.setattr(old, &changes);
        assert_eq!(changed.map(drop), Err(libc::EPERM), "{uid} {gid}");
        client.assert_sound(&oracle, &format!("caller {uid} {gid}"));
    }
    act_as(&mut client, 5, 5);
    client.extension = group_extension(&[203]);
    let made = client.mkdir(ROOT, "dir", 0o755).map(drop);
    assert_eq!(made, Err(libc::EPERM));
    assert_eq!(tree_state(&share.path()), before);
    // The neighbours of the ranges are as free as anybody.
    client.extension = Vec::new();
    for (name, uid, gid) in [("a", 99, 199), ("b", 110, 210)] {
        act_as(&mut client, uid, gid);
        client.mkdir(ROOT, name, 0o755).unwrap();
        assert_eq!(host_owner(&share, name), (uid, gid));
    }
}

#[test]
fn a_forbidden_caller_may_still_use_what_is_there() {
    if !common::is_root_or_skip("a_forbidden_caller_may_still_use_what_is_there") {
        return;
    }
    let share = Share::new();
    share.write("file", b"contents");
    own(&share, "file", 100, 0);
    let mut client = Client::with_args(&share, &["--translate-uid=forbid-guest:100:1"]);
    act_as(&mut client, 100, 0);
    let entry = client.lookup(ROOT, "file").unwrap();
    assert_eq!(
        entry.attr.uid, 100,
        "files of forbidden ids are shown as theirs"
    );
    client.access(entry.node, 6).unwrap();
    let fh = client.open(entry.node, libc::O_RDWR).unwrap().fh;
    assert_eq!(client.read_all(entry.node, fh), b"contents");
    client.rename((ROOT, "file"), (ROOT, "renamed")).unwrap();
    client.unlink(ROOT, "renamed").unwrap();
}

#[test]
fn no_id_is_refused_at_the_edge_whatever_the_rules_say() {
    if !common::is_root_or_skip("no_id_is_refused_at_the_edge_whatever_the_rules_say") {
        return;
    }
    let share = open_share();
    share.write("old", b"");
    let before = tree_state(&share.path());
    let squash = [
        "--translate-uid=squash-guest:0:1234:4294967295",
        "--translate-gid=squash-guest:0:5678:4294967295",
    ];
    let mut client = Client::with_args(&share, &squash);
    let old = client.node("old");
    for (uid, gid) in [(NO_ID, 0), (0, NO_ID), (NO_ID, NO_ID)] {
        act_as(&mut client, uid, gid);
        for (name, made) in make_everything(&mut client) {
            assert_eq!(made, Err(libc::EOVERFLOW), "{name} as {uid} {gid}");
        }
        let changes = SetAttr {
            valid: UID | GID,
            uid,
            gid,
            ..SetAttr::default()
        };
        let changed = client.setattr(old, &changes);
        assert_eq!(changed.map(drop), Err(libc::EINVAL), "{uid} {gid}");
    }
    client.extension = group_extension(&[NO_ID]);
    act_as(&mut client, 5, 5);
    let made = client.mkdir(ROOT, "dir", 0o755).map(drop);
    assert_eq!(made, Err(libc::EINVAL));
    assert_eq!(tree_state(&share.path()), before);
}

#[test]
fn root_of_a_guest_with_its_own_ids_may_write_to_all_directories() {
    if !common::is_root_or_skip("root_of_a_guest_with_its_own_ids_may_write_to_all_directories") {
        return;
    }
    let share = Share::new();
    share.mkdir("home");
    own(&share, "home", 1005, 2005);
    fs::set_permissions(share.at("home"), Permissions::from_mode(0o700)).unwrap();
    let mut client = Client::with_args(&share, &BOTH_WAYS);
    let home = client.node("home");
    client.mkdir(home, "by-root", 0o755).unwrap();
    assert_eq!(host_owner(&share, "home/by-root"), (1000, 2000));
    let (entry, _) = client
        .create(home, "file", REG | 0o600, libc::O_RDWR)
        .unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (0, 0));
    // Root is not all-powerful: a disk that user 1000 of the host could open is not made.
    let disk = client.mknod(home, "disk", libc::S_IFBLK | 0o600, 0x800);
    assert_eq!(disk.map(drop), Err(libc::EPERM));
    // Others are held to the permissions, and so is the thread after it has acted for root.
    act_as(&mut client, 6, 6);
    let refused = client.mkdir(home, "by-six", 0o755);
    assert_eq!(refused.map(drop), Err(libc::EACCES));
    act_as(&mut client, 5, 5);
    client.mkdir(home, "by-five", 0o755).unwrap();
}

#[test]
fn a_squashed_root_is_held_to_permissions() {
    if !common::is_root_or_skip("a_squashed_root_is_held_to_permissions") {
        return;
    }
    let share = Share::new();
    share.mkdir("home");
    own(&share, "home", 5, 5);
    let squash = ["--translate-uid=squash-guest:0:65534:1"];
    let mut client = Client::with_args(&share, &squash);
    let home = client.node("home");
    let refused = client.mkdir(home, "new", 0o755);
    assert_eq!(refused.map(drop), Err(libc::EACCES));
}
