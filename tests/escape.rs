//! What: nothing outside the share is ever read or changed, with the sandbox off, whatever the
//! guest sends and whatever another host process does to the tree meanwhile.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use common::client::Client;
use common::request::{Bytes, ROOT, SetAttr, op};
use common::session_data::At;
use common::share::Share;

const REG: u32 = libc::S_IFREG;

/// A mounted guest whose daemon has nothing but its own checks to keep it in the share.
fn unconfined(share: &Share, args: &[&str]) -> Client {
    let args = [&["--sandbox", "none"], args].concat();
    Client::with_args(share, &args)
}

/// Does `step` again and again until dropped.
struct Meanwhile {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meanwhile {
    fn new(mut step: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // Relaxed: nothing is published with the flag.
            while !stopped.load(Ordering::Relaxed) {
                step();
            }
        });
        Meanwhile {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the thread shows as a tree that does not change any more.
            let _ = thread.join();
        }
    }
}

/// renameat2(2) with RENAME_EXCHANGE, as an attacker on the host would swap two names.
fn swap(one: &Path, other: &Path) {
    let spare = one.with_extension("spare");
    // Three renames are enough here: every state in between is one that an attacker can make.
    let _ = fs::rename(one, &spare);
    let _ = fs::rename(other, one);
    let _ = fs::rename(&spare, other);
}

#[test]
fn parent_names_lead_nowhere() {
    let share = Share::new();
    share.mkdir("dir");
    let mut client = unconfined(&share, &[]);
    let dir = client.node("dir");
    let up: [&[u8]; 7] = [
        b"..",
        b"../outside",
        b"../../outside/victim",
        b"dir/../../outside/victim",
        b"./../outside/victim",
        b"/",
        b"//",
    ];
    for name in up {
        for parent in [ROOT, dir] {
            // Guests that export the mount ask for `..`; at most they are given the root.
            let found = client.lookup_bytes(parent, name);
            assert!(
                found.is_err() || (name == b".." && found.is_ok_and(|up| up.node == ROOT)),
                "{name:?}"
            );
            for opcode in [op::UNLINK, op::RMDIR] {
                let body = Bytes::new().name(name).done();
                assert!(client.plain(opcode, parent, &body).is_err(), "{name:?}");
            }
        }
    }
    let victim = share.outside().join("victim");
    let absolute = victim.to_str().unwrap();
    assert!(client.lookup(ROOT, absolute).is_err());
    assert!(client.unlink(ROOT, absolute).is_err());
    assert!(client.rename((ROOT, absolute), (ROOT, "stolen")).is_err());
    assert!(client.rename((ROOT, "dir"), (ROOT, "../stolen")).is_err());
    share.assert_outside_unchanged();
}

#[test]
fn symlinks_out_of_the_share_are_never_followed() {
    let share = Share::new();
    symlink("../outside/victim", share.at("file")).unwrap();
    symlink("../outside", share.at("dir")).unwrap();
    symlink("/", share.at("root")).unwrap();
    let mut client = unconfined(&share, &["--xattr"]);
    for name in ["file", "dir", "root"] {
        let entry = client.lookup(ROOT, name).unwrap();
        assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        let node = entry.node;
        assert!(client.open(node, libc::O_RDWR | libc::O_TRUNC).is_err());
        assert!(client.opendir(node).is_err());
        assert!(client.lookup(node, "victim").is_err());
        let flags = libc::O_RDWR | libc::O_TRUNC;
        assert!(client.create(ROOT, name, REG | 0o666, flags).is_err());
        assert!(client.create(node, "new", REG | 0o666, flags).is_err());
        assert!(client.mkdir(node, "new", 0o755).is_err());
        assert!(client.unlink(node, "victim").is_err());
        assert!(client.rename((node, "victim"), (ROOT, "stolen")).is_err());
        let truncate = SetAttr {
            valid: 1 << 3,
            ..SetAttr::default()
        };
        assert!(client.setattr(node, &truncate).is_err());
        let chmod = SetAttr {
            valid: 1,
            mode: 0o777,
            ..SetAttr::default()
        };
        // Kernels refuse or accept the mode of a link; neither may reach its target.
        let _ = client.setattr(node, &chmod);
        let times = SetAttr {
            valid: 1 << 4 | 1 << 5,
            atime: (1, 0),
            mtime: (1, 0),
            ..SetAttr::default()
        };
        client.setattr(node, &times).unwrap();
        let _ = client.setxattr(node, "user.x", b"v", 0);
    }
    share.assert_outside_unchanged();
}

/// A host process swaps a file and a link to the outside while the guest uses the name.
#[test]
fn file_swapped_with_a_symlink_never_reaches_outside() {
    let share = Share::new();
    share.write("file", b"inside");
    symlink("../outside/victim", share.at("link")).unwrap();
    let (one, other) = (share.at("file"), share.at("link"));
    let mut client = unconfined(&share, &["--cache", "never"]);
    let oracle = client.oracle();
    let swapping = Meanwhile::new(move || swap(&one, &other));
    for _ in 0..3000 {
        let flags = libc::O_RDWR;
        if let Ok((entry, opened)) = client.create(ROOT, "file", REG | 0o644, flags) {
            let at = At {
                node: entry.node,
                fh: opened.fh,
                offset: 0,
            };
            let data = client.read(at, 100).unwrap();
            assert!(data == b"inside" || data.is_empty(), "read {data:?}");
            client.release(entry.node, opened.fh).unwrap();
            client.forget(entry.node, 1);
        }
        if let Ok(entry) = client.lookup(ROOT, "file") {
            if let Ok(opened) = client.open(entry.node, libc::O_RDONLY) {
                let at = At {
                    node: entry.node,
                    fh: opened.fh,
                    offset: 0,
                };
                let data = client.read(at, 100).unwrap();
                assert!(data == b"inside" || data.is_empty(), "read {data:?}");
                client.release(entry.node, opened.fh).unwrap();
            }
            client.forget(entry.node, 1);
        }
    }
    drop(swapping);
    client.assert_sound(&oracle, "a file swapped with a link");
    share.assert_outside_unchanged();
}

/// The same with a directory, through which the guest looks names up and makes files.
#[test]
fn directory_swapped_with_a_symlink_never_reaches_outside() {
    let share = Share::new();
    share.mkdir("dir");
    share.write("dir/victim", b"inside");
    symlink("../outside", share.at("link")).unwrap();
    let (one, other) = (share.at("dir"), share.at("link"));
    let mut client = unconfined(&share, &["--cache", "never"]);
    let swapping = Meanwhile::new(move || swap(&one, &other));
    for index in 0..2000 {
        let Ok(dir) = client.lookup(ROOT, "dir") else {
            continue;
        };
        let name = format!("new{index}");
        if let Ok(entry) = client.mknod(dir.node, &name, REG | 0o644, 0) {
            client.forget(entry.node, 1);
            let _ = client.unlink(dir.node, &name);
        }
        if let Ok(entry) = client.lookup(dir.node, "victim") {
            if let Ok(opened) = client.open(entry.node, libc::O_RDONLY) {
                assert_eq!(client.read_all(entry.node, opened.fh), b"inside");
                client.release(entry.node, opened.fh).unwrap();
            }
            client.forget(entry.node, 1);
        }
        client.forget(dir.node, 1);
    }
    drop(swapping);
    share.assert_outside_unchanged();
}

/// A regular file turns into a FIFO or back between LOOKUP and OPEN: never a hang.
#[test]
fn file_swapped_with_a_fifo_never_hangs_the_queue() {
    let share = Share::new();
    share.write("file", b"inside");
    common::sys::mknod(&share.at("fifo"), libc::S_IFIFO | 0o644, 0).unwrap();
    let (one, other) = (share.at("file"), share.at("fifo"));
    let mut client = unconfined(&share, &["--cache", "never"]);
    let swapping = Meanwhile::new(move || swap(&one, &other));
    for _ in 0..2000 {
        for flags in [libc::O_RDONLY, libc::O_WRONLY] {
            if let Ok((entry, opened)) = client.create(ROOT, "file", REG | 0o644, flags) {
                client.release(entry.node, opened.fh).unwrap();
                client.forget(entry.node, 1);
            }
            if let Ok(entry) = client.lookup(ROOT, "file") {
                if let Ok(opened) = client.open(entry.node, flags) {
                    client.release(entry.node, opened.fh).unwrap();
                }
                client.forget(entry.node, 1);
            }
        }
    }
    drop(swapping);
    client.canary();
}

#[test]
fn directory_moved_out_of_the_share_gives_no_way_up() {
    let share = Share::new();
    fs::create_dir_all(share.at("dir/sub")).unwrap();
    let mut client = unconfined(&share, &[]);
    let dir = client.node("dir");
    let sub = client.lookup(dir, "sub").unwrap().node;
    // Beside the canary, so that the canary itself stays as it is.
    let elsewhere: PathBuf = share.base().join("moved");
    fs::rename(share.at("dir"), &elsewhere).unwrap();
    for node in [dir, sub] {
        for name in ["..", "../outside", "../outside/victim", "../../outside"] {
            assert!(client.lookup(node, name).is_err(), "{name}");
            assert!(client.unlink(node, name).is_err(), "{name}");
        }
    }
    fs::rename(&elsewhere, share.at("dir")).unwrap();
    share.assert_outside_unchanged();
}

#[test]
fn magic_links_are_not_followed() {
    let share = Share::new();
    symlink("/proc/self/root", share.at("root")).unwrap();
    symlink("/proc/self/fd/0", share.at("fd")).unwrap();
    symlink("/proc/self/cwd", share.at("cwd")).unwrap();
    let mut client = unconfined(&share, &[]);
    for name in ["root", "fd", "cwd"] {
        let node = client.node(name);
        assert!(client.open(node, libc::O_RDONLY).is_err(), "{name}");
        assert!(client.opendir(node).is_err(), "{name}");
        assert!(client.lookup(node, "etc").is_err(), "{name}");
    }
}

#[test]
fn root_that_is_renamed_on_the_host_stays_the_root() {
    let share = Share::new();
    share.write("file", b"data");
    let mut client = unconfined(&share, &["--cache", "never"]);
    let moved = share.base().join("elsewhere");
    fs::rename(share.path(), &moved).unwrap();
    fs::create_dir(share.path()).unwrap();
    let (node, fh) = client.make_file(ROOT, "new", b"new");
    assert_eq!(client.read_all(node, fh), b"new");
    assert!(moved.join("new").exists() && !share.exists("new"));
    client.node("file");
    fs::remove_dir(share.path()).unwrap();
    fs::rename(&moved, share.path()).unwrap();
    share.assert_outside_unchanged();
}

#[test]
fn hard_links_are_made_of_the_node_and_not_of_a_path() {
    let share = Share::new();
    share.write("file", b"inside");
    let mut client = unconfined(&share, &[]);
    let node = client.node("file");
    let inode = share.stat("file").ino();
    // The name leads elsewhere now; the node is still the file that was looked up.
    fs::rename(share.at("file"), share.at("kept")).unwrap();
    symlink("../outside/victim", share.at("file")).unwrap();
    client.link(node, ROOT, "linked").unwrap();
    assert_eq!(share.stat("linked").ino(), inode);
    share.assert_outside_unchanged();
}

#[test]
fn devices_and_fifos_of_the_guest_are_never_opened() {
    if !common::is_root_or_skip("devices_and_fifos_of_the_guest_are_never_opened") {
        return;
    }
    let share = Share::new();
    let mut client = unconfined(&share, &[]);
    let oracle = client.oracle();
    // Major and minor of /dev/null and /dev/mem; a block device; a FIFO; a socket.
    let kinds = [
        (libc::S_IFCHR, 0x103),
        (libc::S_IFCHR, 0x101),
        (libc::S_IFBLK, 0x800),
        (libc::S_IFIFO, 0),
        (libc::S_IFSOCK, 0),
    ];
    for (index, (kind, device)) in kinds.into_iter().enumerate() {
        let name = format!("special{index}");
        let Ok(entry) = client.mknod(ROOT, &name, kind | 0o666, device) else {
            continue;
        };
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC] {
            assert!(client.open(entry.node, flags).is_err(), "{kind:o}");
            let result = client.create(ROOT, &name, REG | 0o666, flags);
            assert!(result.is_err(), "{kind:o}");
        }
        client.forget(entry.node, 1);
    }
    client.assert_sound(&oracle, "special files");
}
