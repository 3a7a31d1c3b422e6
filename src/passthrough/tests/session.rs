//! Setting up, INIT, a second INIT, and the end.

use std::error::Error;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::share::{Guest, NOTHING_LEFT, ROOT, Share, file_name, released};
use crate::fs::filesystem::FileSystem;
use crate::passthrough::PassthroughFs;
use crate::passthrough::settings::{CachePolicy, HandlePolicy, Negotiation, Settings};
use crate::passthrough::setup::SetupError;
use crate::sys::errno::Errno;
use crate::wire::flags::SessionFlags;

fn wanted(settings: Settings) -> SessionFlags {
    let share = Share::new();
    let fs = PassthroughFs::new(settings, share.path()).unwrap();
    let wishes = fs.session_wishes();
    assert_eq!(wishes.required, SessionFlags::empty());
    wishes.wanted
}

#[test]
fn wishes_follow_the_settings() {
    let plus = SessionFlags::DO_READDIRPLUS | SessionFlags::READDIRPLUS_AUTO;
    let auto = wanted(Settings::new(CachePolicy::Auto));
    assert!(auto.contains(plus | SessionFlags::AUTO_INVAL_DATA | SessionFlags::SUBMOUNTS));
    assert!(!auto.intersects(
        SessionFlags::WRITEBACK_CACHE
            | SessionFlags::EXPLICIT_INVAL_DATA
            | SessionFlags::DONT_MASK
            | SessionFlags::POSIX_ACL
            | SessionFlags::HANDLE_KILLPRIV_V2
    ));
    assert!(!wanted(Settings::new(CachePolicy::Never)).intersects(plus));
    assert!(wanted(Settings::new(CachePolicy::Metadata)).contains(plus));
    let odd = wanted(Settings {
        readdirplus: false,
        writeback: true,
        killpriv_v2: true,
        ..Settings::new(CachePolicy::Auto)
    });
    assert!(!odd.intersects(plus));
    assert!(odd.contains(SessionFlags::WRITEBACK_CACHE | SessionFlags::HANDLE_KILLPRIV_V2));
    let always = wanted(Settings::new(CachePolicy::Always));
    assert!(always.contains(plus | SessionFlags::EXPLICIT_INVAL_DATA));
}

#[test]
fn wishes_for_lists_and_labels_are_hopes_or_conditions() {
    let lists = SessionFlags::POSIX_ACL | SessionFlags::DONT_MASK | SessionFlags::SETXATTR_EXT;
    let of = |posix_acl| {
        let share = Share::new();
        let settings = Settings {
            posix_acl,
            ..Settings::new(CachePolicy::Auto)
        };
        let wishes = PassthroughFs::new(settings, share.path())
            .unwrap()
            .session_wishes();
        (
            wishes.wanted & lists,
            wishes.missed & lists,
            wishes.required & lists,
        )
    };
    let none = SessionFlags::empty();
    let labels = |security_label| {
        let share = Share::new();
        let settings = Settings {
            security_label,
            ..Settings::new(CachePolicy::Auto)
        };
        let wishes = PassthroughFs::new(settings, share.path())
            .unwrap()
            .session_wishes();
        [wishes.wanted, wishes.missed, wishes.required]
            .map(|flags| flags.contains(SessionFlags::SECURITY_CTX))
    };
    assert_eq!(labels(Negotiation::Never), [false, false, false]);
    assert_eq!(labels(Negotiation::Auto), [true, true, false]);
    assert_eq!(labels(Negotiation::Always), [false, false, true]);
    let always_wanted = SessionFlags::SETXATTR_EXT;
    assert_eq!(of(Negotiation::Never), (always_wanted, none, none));
    assert_eq!(of(Negotiation::Auto), (lists, lists, none));
    assert_eq!(of(Negotiation::Always), (always_wanted, none, lists));
}

#[test]
fn second_session_starts_afresh_and_reuses_no_number() {
    let guest = Guest::new();
    let open = guest.create(c"file");
    let dir = guest.opendir(ROOT);
    let before = guest.find(ROOT, file_name(c"file")).unwrap();
    guest.mount(SessionFlags::empty());
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
    assert_eq!(guest.read(open, 0, 1).unwrap_err(), Errno::EBADF);
    assert_eq!(
        guest.fs.releasedir(&released(dir)).unwrap_err(),
        Errno::EBADF
    );
    let after = guest.open(guest.lookup(ROOT, c"file"), 0);
    // A grant of the first session that is taken back now must not touch the second.
    drop(before);
    assert_ne!(after.node, open.node);
    assert_ne!(after.handle, open.handle);
    assert!(guest.fs.getattr(after.node, Some(after.handle)).is_ok());
    guest.fs.end_session();
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn grants_that_are_dropped_are_taken_back() {
    let guest = Guest::new();
    guest.share.write("file", b"");
    let node = guest.lookup(ROOT, c"file");
    let flags = crate::wire::flags::OpenFlags::empty();
    drop(guest.fs.open(node, flags, false).unwrap());
    drop(guest.fs.opendir(ROOT, flags).unwrap());
    drop(
        guest
            .fs
            .create(&super::share::create_request(c"new"))
            .unwrap(),
    );
    guest.forget(node);
    assert_eq!(guest.leftovers(), NOTHING_LEFT);
}

#[test]
fn setup_says_which_step_failed_on_what() {
    let share = Share::new();
    let auto = || Settings::new(CachePolicy::Auto);
    let missing = PassthroughFs::new(auto(), &share.join("no\nthing")).unwrap_err();
    assert!(matches!(missing, SetupError::OpenShare { .. }), "{missing}");
    assert!(missing.to_string().contains("no\\nthing"), "{missing}");
    assert!(
        missing
            .source()
            .unwrap()
            .to_string()
            .contains("No such file")
    );
    let device = PassthroughFs::new(auto(), Path::new("/dev/null")).unwrap_err();
    assert!(matches!(device, SetupError::ShareType { .. }), "{device}");
    let nul = PassthroughFs::new(auto(), Path::new("a\0b")).unwrap_err();
    assert!(matches!(nul, SetupError::OpenShare { .. }), "{nul}");
}

#[test]
fn setup_refuses_rules_about_ids_that_contradict_each_other() {
    let share = Share::new();
    let rule = |text: &str| text.parse().unwrap();
    let settings = Settings {
        uid_rules: vec![rule("map:0:1000:5"), rule("guest:4:0:1")],
        ..Settings::new(CachePolicy::Auto)
    };
    let refused = PassthroughFs::new(settings, share.path()).unwrap_err();
    assert!(matches!(refused, SetupError::IdRules(_)), "{refused}");
    let text = "--translate-uid 'map:0:1000:5' and 'guest:4:0:1' both say what becomes of guest \
                id 4";
    assert_eq!(refused.to_string(), text);
    assert!(refused.source().is_none());
}

#[test]
fn setup_combines_acls_with_rules_that_keep_every_id_apart_only() {
    let share = Share::new();
    for (rules, acl, is_refused) in [
        (&["map:0:1000:5"] as &[&str], Negotiation::Never, false),
        (&["map:0:1000:5"], Negotiation::Auto, true),
        (&["map:0:1000:5"], Negotiation::Always, true),
        (&["squash-guest:0:7:2"], Negotiation::Always, true),
        (
            &["map:0:1000:5", "map:1000:0:5"],
            Negotiation::Always,
            false,
        ),
        (&[], Negotiation::Always, false),
    ] {
        let settings = Settings {
            gid_rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            xattr: true,
            posix_acl: acl,
            ..Settings::new(CachePolicy::Auto)
        };
        let made = PassthroughFs::new(settings, share.path());
        assert_eq!(made.is_err(), is_refused, "{rules:?} {acl:?}");
        if let Err(refused) = made {
            assert!(matches!(refused, SetupError::AclIds(_)), "{refused}");
            assert!(refused.to_string().contains("group"), "{refused}");
        }
    }
}

#[test]
fn setup_without_file_handles_goes_on_unless_they_are_mandatory() {
    // Nothing in /proc has a file handle.
    let share = Path::new("/proc/self");
    let with = |inode_file_handles| Settings {
        inode_file_handles,
        ..Settings::new(CachePolicy::Auto)
    };
    let refused = PassthroughFs::new(with(HandlePolicy::Mandatory), share).unwrap_err();
    assert!(
        matches!(refused, SetupError::FileHandles { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("/proc/self"), "{refused}");
    let cause = refused.source().unwrap().to_string();
    assert!(cause.contains("has none"), "{cause}");
    for policy in [HandlePolicy::Prefer, HandlePolicy::Never] {
        let fs = PassthroughFs::new(with(policy), share).unwrap();
        assert!(fs.getattr(ROOT, None).is_ok());
        let wanted = fs.session_wishes().wanted;
        assert!(wanted.contains(SessionFlags::NO_EXPORT_SUPPORT));
        assert!(!wanted.contains(SessionFlags::EXPORT_SUPPORT));
    }
}

#[test]
fn setup_follows_a_link_that_the_operator_names() {
    let share = Share::new();
    std::fs::create_dir(share.join("dir")).unwrap();
    symlink("dir", share.join("link")).unwrap();
    let fs = PassthroughFs::new(Settings::new(CachePolicy::Auto), &share.join("link")).unwrap();
    let attr = fs.getattr(ROOT, None).unwrap();
    assert_eq!(attr.attr.mode & 0o170_000, 0o040_000);
    assert_eq!(attr.valid, Duration::from_secs(1));
}

#[test]
fn share_may_be_a_single_file() {
    let share = Share::new();
    share.write("file", b"all there is");
    let settings = Settings::new(CachePolicy::Auto);
    let fs = PassthroughFs::new(settings, &share.join("file")).unwrap();
    assert_eq!(fs.getattr(ROOT, None).unwrap().attr.size, 12);
    let found = fs.lookup(ROOT, file_name(c"x"));
    assert_eq!(found.unwrap_err(), Errno::ENOTDIR);
    let flags = crate::wire::flags::OpenFlags::empty();
    assert!(fs.open(ROOT, flags, false).is_ok());
    assert_eq!(fs.opendir(ROOT, flags).unwrap_err(), Errno::ENOTDIR);
}
