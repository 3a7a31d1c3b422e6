//! Nodes beyond the descriptor budget whose files are known by their time of birth.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use super::cold::{BUDGET, FILES, frugal_guest, is_pinned, make_files, name_of, shares, walk};
use super::share::{Guest, NOTHING_LEFT, ROOT, Share, file_name};
use crate::fs::filesystem::FileSystem;
use crate::sys::errno::Errno;

/// Files that were made so long ago that their time of birth tells them apart once they are cold.
fn make_old_files(guest: &Guest) {
    make_files(guest);
    thread::sleep(Duration::from_millis(1_050));
}

fn dates_births(share: &Share) -> bool {
    let born = fs::metadata(share.path()).unwrap().created();
    if born.is_err() {
        println!("skipped: the file system keeps no times of birth");
    }
    born.is_ok()
}

#[test]
fn cold_node_of_an_old_file_is_found_without_a_descriptor_and_pinned_by_use() {
    for share in shares() {
        let Some(guest) = frugal_guest(share, BUDGET) else {
            continue;
        };
        if !dates_births(&guest.share) {
            continue;
        }
        make_old_files(&guest);
        let node = guest.lookup(ROOT, c"f0");
        let others = walk(&guest);
        guest.forget(node);
        for _ in 0..40 {
            assert_eq!(guest.lookup(ROOT, c"f0"), node);
            guest.forget(node);
        }
        assert!(
            !is_pinned(&guest, node),
            "look-ups take nothing from others"
        );
        let rounds = (0..20).take_while(|_| {
            assert_eq!(guest.fs.getattr(node, None).unwrap().attr.size, 1);
            !is_pinned(&guest, node)
        });
        assert!(rounds.count() < 20);
        guest.forget(node);
        others
            .into_iter()
            .skip(1)
            .for_each(|node| guest.forget(node));
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}

#[test]
fn cold_node_of_an_old_file_is_not_taken_for_a_later_one() {
    for share in shares() {
        let Some(guest) = frugal_guest(share, BUDGET) else {
            continue;
        };
        make_old_files(&guest);
        let nodes = walk(&guest);
        let mut recycled = 0;
        for (index, node) in nodes.iter().enumerate() {
            let path = guest.share.join(&format!("f{index}"));
            let old_ino = fs::metadata(&path).unwrap().ino();
            let was_pinned = is_pinned(&guest, *node);
            fs::remove_file(&path).unwrap();
            fs::write(&path, b"a later one").unwrap();
            let later = guest.find(ROOT, file_name(&name_of(index))).unwrap();
            assert_ne!(later.lookup.node(), *node, "{index}");
            assert_eq!(later.attr.size, 11, "{index}");
            recycled += usize::from(later.attr.ino == old_ino);
            if !was_pinned && !is_pinned(&guest, *node) {
                let stale = guest.fs.getattr(*node, None).unwrap_err();
                assert_eq!(stale, Errno::ESTALE, "{index}");
            }
            let again = guest.lookup(ROOT, &name_of(index));
            assert_eq!(again, later.lookup.node(), "{index}");
            guest.forget(again);
            drop(later);
            guest.forget(*node);
        }
        println!("{recycled} of {FILES} inode numbers were used again");
        assert_eq!(guest.leftovers(), NOTHING_LEFT);
    }
}
