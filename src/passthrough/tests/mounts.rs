//! Other file systems below the share, in a process with mounts of its own.

use std::process::Command;

/// Set in the environment of the process that may mount.
const STARTED: &str = "VIRTIOFSD_TEST_HAS_OWN_MOUNTS";

#[test]
fn file_systems_below_the_share_are_served_in_a_mount_namespace() {
    let probe = Command::new("unshare").args(["-m", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("skipped: no right to a mount namespace");
        return;
    }
    let done = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--nocapture", "--test-threads=1"])
        .arg("passthrough::tests::mounts::inside::")
        .env(STARTED, "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    println!("{said}");
    assert!(done.status.success(), "{said}\n{errors}");
}

/// What the test above runs.
mod inside {
    use std::collections::HashSet;
    use std::ffi::{CString, OsStr};
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use super::STARTED;
    use crate::fs::filesystem::{FileSystem, ReadDirRequest};
    use crate::fs::types::{DirEntry, DirSink, NodeId, Packed};
    use crate::passthrough::settings::{CachePolicy, HandlePolicy, Settings};
    use crate::passthrough::tests::share::{
        Guest, NOTHING_LEFT, ROOT, Share, file_name, keep, released,
    };
    use crate::sys::errno::{Errno, Result};
    use crate::wire::flags::SessionFlags;

    /// Names that a table of mounts has to escape.
    const NAMES: [&str; 3] = ["plain", "with space", "line\nbreak\\040"];

    /// Mounts that end with this.
    struct Mounts(Vec<PathBuf>);

    impl Mounts {
        fn new() -> Option<Self> {
            let may = std::env::var_os(STARTED).is_some();
            if !may {
                println!("skipped here: file_systems_below_the_share_are_served runs it");
            }
            may.then(|| Mounts(Vec::new()))
        }

        fn add(&mut self, at: &Path, arguments: &[&OsStr]) {
            let done = Command::new("mount").args(arguments).arg(at).status();
            assert!(done.unwrap().success(), "{at:?}");
            self.0.push(at.to_owned());
        }

        fn add_tmpfs(&mut self, at: &Path) {
            fs::create_dir_all(at).unwrap();
            self.add(at, &["-t", "tmpfs", "none"].map(OsStr::new));
        }

        fn bind(&mut self, from: &Path, at: &Path) {
            self.add(at, &[OsStr::new("--bind"), from.as_os_str()]);
        }
    }

    impl Drop for Mounts {
        fn drop(&mut self) {
            for at in self.0.iter().rev() {
                let mut umount = Command::new("umount");
                // It may have been unmounted by the test already.
                umount.arg("-l").arg(at).stderr(Stdio::null());
                let _ = umount.status();
            }
            // The shares were dropped before, and could not remove what was mounted on.
            for at in &self.0 {
                let mut above = at.ancestors().skip_while(|path| !path.ends_with("share"));
                if let Some(base) = above.nth(1) {
                    let _ = fs::remove_dir_all(base);
                }
            }
        }
    }

    fn umount(at: &Path) -> bool {
        Command::new("umount").arg(at).status().unwrap().success()
    }

    fn guest_on(share: Share, announce: bool, policy: HandlePolicy, budget: usize) -> Guest {
        Guest::on(
            share,
            Settings {
                announce_submounts: announce,
                inode_file_handles: policy,
                guest_fds_max: budget,
                ..Settings::new(CachePolicy::Auto)
            },
        )
    }

    fn c(name: &str) -> CString {
        CString::new(name).unwrap()
    }

    /// A share with a tmpfs at each of the names, and a file with the same number on each.
    fn share_with_tmpfs(mounts: &mut Mounts) -> Share {
        let share = Share::new();
        for name in NAMES {
            let at = share.join(name);
            mounts.add_tmpfs(&at);
            fs::write(at.join("file"), name).unwrap();
            fs::create_dir(at.join("dir")).unwrap();
        }
        share
    }

    /// The numbers that READDIR tells.
    #[derive(Default)]
    struct Listed(Vec<(String, u64)>);

    impl DirSink for Listed {
        fn add(&mut self, entry: DirEntry<'_>) -> Packed {
            let name = String::from_utf8_lossy(entry.name).into_owned();
            self.0.push((name, entry.ino));
            Packed::Yes
        }
    }

    fn list(guest: &Guest, node: NodeId) -> Vec<(String, u64)> {
        let open = guest.opendir(node);
        let mut listed = Listed::default();
        let request = ReadDirRequest {
            node,
            handle: open.handle,
            offset: 0,
        };
        guest.fs.readdir(&request, &mut listed).unwrap();
        guest.fs.releasedir(&released(open)).unwrap();
        listed.0
    }

    fn listed_ino(guest: &Guest, node: NodeId, name: &str) -> u64 {
        let listed = list(guest, node);
        listed.iter().find(|(seen, _)| seen == name).unwrap().1
    }

    fn ino(guest: &Guest, node: NodeId) -> u64 {
        let attr = guest.fs.getattr(node, None).unwrap().attr;
        let extended = guest.fs.statx(node, None, 0).unwrap().attr.attr;
        assert_eq!(attr.ino, extended.ino);
        attr.ino
    }

    #[test]
    fn announced_mounts_keep_the_numbers_of_the_host() {
        let Some(mut mounts) = Mounts::new() else {
            return;
        };
        let share = share_with_tmpfs(&mut mounts);
        let guest = guest_on(share, true, HandlePolicy::Prefer, 1_000);
        for name in NAMES {
            let entry = guest.find(ROOT, file_name(&c(name))).unwrap();
            assert!(entry.attr.is_submount, "{name:?}");
            let mount = keep(entry);
            let host = fs::metadata(guest.share.join(name)).unwrap();
            assert_eq!(ino(&guest, mount), host.ino());
            let file = guest.lookup(mount, c"file");
            let host = fs::metadata(guest.share.join(name).join("file")).unwrap();
            assert_eq!(ino(&guest, file), host.ino());
            assert_eq!(listed_ino(&guest, mount, "file"), host.ino());
            let dir = guest.find(mount, file_name(c"dir")).unwrap();
            assert!(!dir.attr.is_submount);
            drop(dir);
            guest.fs.syncfs(mount).unwrap();
            guest.forget(file);
            guest.forget(mount);
        }
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }

    #[test]
    fn hidden_mounts_have_numbers_that_meet_nowhere() {
        let Some(mut mounts) = Mounts::new() else {
            return;
        };
        let share = share_with_tmpfs(&mut mounts);
        share.write("file", b"");
        let guest = guest_on(share, false, HandlePolicy::Prefer, 1_000);
        let in_root = guest.lookup(ROOT, c"file");
        let host = fs::metadata(guest.share.join("file")).unwrap();
        assert_eq!(ino(&guest, in_root), host.ino());
        let mut seen = HashSet::from([host.ino(), ino(&guest, ROOT)]);
        let mut held = vec![in_root];
        for name in NAMES {
            let mount = guest.lookup(ROOT, &c(name));
            let attr = guest.fs.getattr(mount, None).unwrap().attr;
            assert!(!attr.is_submount, "{name:?}");
            let (file, dir) = (guest.lookup(mount, c"file"), guest.lookup(mount, c"dir"));
            // Each tmpfs numbers its files alike.
            for node in [mount, file, dir] {
                assert!(seen.insert(ino(&guest, node)), "{name:?} {node:?}");
            }
            // What a directory tells is what stat(2) tells.
            assert_eq!(listed_ino(&guest, mount, "file"), ino(&guest, file));
            assert_eq!(listed_ino(&guest, mount, "dir"), ino(&guest, dir));
            assert_eq!(listed_ino(&guest, mount, "."), ino(&guest, mount));
            assert_eq!(listed_ino(&guest, dir, ".."), ino(&guest, mount));
            // But for mount points, where it tells what is below the mount, as on the host.
            let covered = listed_ino(&guest, ROOT, name);
            assert_ne!(covered, ino(&guest, mount));
            assert_eq!(covered >> 48, 0);
            held.extend([mount, file, dir]);
        }
        held.into_iter().for_each(|node| guest.forget(node));
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }

    #[test]
    fn guest_that_knows_no_submounts_sees_mapped_numbers() {
        let Some(mut mounts) = Mounts::new() else {
            return;
        };
        let share = share_with_tmpfs(&mut mounts);
        let guest = guest_on(share, true, HandlePolicy::Prefer, 1_000);
        guest.mount(SessionFlags::empty());
        let mount = guest.lookup(ROOT, c"plain");
        let attr = guest.fs.getattr(mount, None).unwrap().attr;
        assert!(!attr.is_submount && attr.ino >> 48 != 0);
        guest.forget(mount);
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }

    #[test]
    fn file_that_is_a_mount_is_told_from_its_neighbours() {
        let Some(mut mounts) = Mounts::new() else {
            return;
        };
        let share = share_with_tmpfs(&mut mounts);
        share.write("bound", b"covered");
        mounts.bind(&share.join("plain/file"), &share.join("bound"));
        let guest = guest_on(share, true, HandlePolicy::Prefer, 1_000);
        let entry = guest.find(ROOT, file_name(c"bound")).unwrap();
        assert!(!entry.attr.is_submount);
        assert_eq!(entry.attr.size, 5);
        assert_ne!(entry.attr.ino >> 48, 0);
        let bound = keep(entry);
        let plain = guest.lookup(ROOT, c"plain");
        let original = guest.lookup(plain, c"file");
        assert_ne!(bound, original);
        let open = guest.open(bound, 0);
        assert_eq!(guest.read(open, 0, 99).unwrap(), b"plain");
        guest.close(open);
        guest.forget(original);
        guest.forget(plain);
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }

    #[test]
    fn nodes_on_mounts_are_put_out_and_reached_again_until_the_host_unmounts() {
        let Some(mut mounts) = Mounts::new() else {
            return;
        };
        let share = share_with_tmpfs(&mut mounts);
        let guest = guest_on(share, true, HandlePolicy::Prefer, 4);
        if !guest.fs.store.has_handles() {
            println!("skipped: file handles do not work here");
            return;
        }
        let held: Vec<_> = NAMES
            .iter()
            .map(|name| {
                let mount = guest.lookup(ROOT, &c(name));
                (mount, guest.lookup(mount, c"file"))
            })
            .collect();
        for (name, (_, file)) in NAMES.iter().zip(&held) {
            let open = guest.open(*file, 0);
            assert_eq!(guest.read(open, 0, 99).unwrap(), name.as_bytes());
            guest.fs.release(&released(open)).unwrap();
        }
        assert!(!umount(&guest.share.join("plain")), "it is in use");
        for (mount, file) in &held {
            guest.forget(*file);
            guest.forget(*mount);
        }
        // The guest agreed on EXPORT_SUPPORT: what is retired must not be in the way either.
        for name in NAMES {
            assert!(umount(&guest.share.join(name)), "{name:?}");
        }
        for (mount, file) in held {
            assert_eq!(guest.fs.lookup_self(file).unwrap_err(), Errno::ESTALE);
            assert_eq!(guest.fs.lookup_self(mount).unwrap_err(), Errno::ESTALE);
        }
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
        assert_eq!(guest.fs.store.budget().used(), 0);
    }

    #[test]
    fn parent_of_a_mount_is_the_directory_that_it_is_in() {
        let Some(mut mounts) = Mounts::new() else {
            return;
        };
        let share = Share::new();
        fs::create_dir(share.join("above")).unwrap();
        mounts.add_tmpfs(&share.join("above/mount"));
        fs::create_dir(share.join("above/mount/dir")).unwrap();
        let guest = guest_on(share, true, HandlePolicy::Prefer, 1_000);
        let above = guest.lookup(ROOT, c"above");
        let mount = guest.lookup(above, c"mount");
        let dir = guest.lookup(mount, c"dir");
        let parent = guest.fs.lookup_parent(dir).unwrap();
        assert_eq!(parent.lookup.node(), mount);
        assert!(parent.attr.is_submount);
        drop(parent);
        let parent = guest.fs.lookup_parent(mount).unwrap();
        assert_eq!(parent.lookup.node(), above);
        assert!(!parent.attr.is_submount);
        drop(parent);
        for node in [dir, mount, above] {
            guest.forget(node);
        }
        // A mount that is found from below is known for one all the same.
        guest.mount(SessionFlags::SUBMOUNTS);
        let above = guest.lookup(ROOT, c"above");
        let mount = guest.lookup(above, c"mount");
        let dir = guest.lookup(mount, c"dir");
        guest.forget(mount);
        let parent = guest.fs.lookup_parent(dir).unwrap();
        assert_ne!(parent.lookup.node(), mount);
        assert!(parent.attr.is_submount);
        drop(parent);
        guest.forget(dir);
        guest.forget(above);
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }

    #[test]
    fn mount_without_handles_is_pinned_or_refused() {
        let Some(mut mounts) = Mounts::new() else {
            return;
        };
        for policy in [HandlePolicy::Prefer, HandlePolicy::Mandatory] {
            let share = Share::new();
            let proc = share.join("proc");
            fs::create_dir(&proc).unwrap();
            mounts.add(&proc, &["-t", "proc", "none"].map(OsStr::new));
            let guest = guest_on(share, true, policy, 1_000);
            let found = guest.find(ROOT, file_name(c"proc"));
            if policy == HandlePolicy::Mandatory {
                assert_eq!(found.unwrap_err(), Errno::EIO);
            } else {
                let node = keep(found.unwrap());
                assert!(guest.fs.store.get(node).unwrap().is_pinned());
                let uptime = guest.lookup(node, c"uptime");
                guest.forget(uptime);
                guest.forget(node);
            }
            assert_eq!(guest.leftovers(), NOTHING_LEFT);
            drop(guest);
            umount(&proc);
        }
    }

    #[test]
    fn overlay_with_exports_is_walked_beyond_the_budget() {
        let Some(mut mounts) = Mounts::new() else {
            return;
        };
        let share = Share::new();
        let base = share.join("base");
        mounts.add_tmpfs(&base);
        for name in ["lower", "upper", "work"] {
            fs::create_dir(base.join(name)).unwrap();
        }
        for index in 0..40 {
            fs::write(base.join(format!("lower/f{index}")), b"low").unwrap();
        }
        let at = share.join("overlay");
        fs::create_dir(&at).unwrap();
        let options = format!(
            "index=on,nfs_export=on,lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
            base.display()
        );
        let arguments = ["-t", "overlay", "none", "-o", &options].map(OsStr::new);
        mounts.add(&at, &arguments);
        let guest = guest_on(share, true, HandlePolicy::Prefer, 6);
        let overlay = guest.lookup(ROOT, c"overlay");
        let nodes: Vec<_> = (0..40)
            .map(|index| guest.lookup(overlay, &c(&format!("f{index}"))))
            .collect();
        let all: Result<Vec<_>> = nodes
            .iter()
            .map(|node| guest.fs.getattr(*node, None))
            .collect();
        assert_eq!(all.unwrap().len(), 40);
        // Copying up gives a file a new inode below, but not a new number above.
        let open = guest.open(nodes[0], 2);
        guest.write(open, 0, b"up").unwrap();
        guest.fs.release(&released(open)).unwrap();
        let open = guest.open(nodes[0], 0);
        assert_eq!(guest.read(open, 0, 9).unwrap(), b"upw");
        guest.fs.release(&released(open)).unwrap();
        assert_eq!(guest.lookup(overlay, c"f0"), nodes[0]);
        guest.forget(nodes[0]);
        nodes.into_iter().for_each(|node| guest.forget(node));
        guest.forget(overlay);
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}
