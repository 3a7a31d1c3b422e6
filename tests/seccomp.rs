//! What: the filter of system calls, in processes of their own.
//!
//! In: cases by name. Out: how a process ends that is under the filter. The processes are this
//! test binary again, running one of the ignored tests below, see [`common::child`].

#![allow(unsafe_code, reason = "the calls under test have no safe wrapper")]

mod common;

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_long};
use std::fs;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use common::child::{AFTER, BEFORE, Child, Ended, case};
use common::share::TempDir;
use common::{is_root_or_skip, sys};
use virtiofsd::process::seccomp::{self, SeccompAction, Uses};

/// The environment variable that tells a child the action.
const ACTION: &str = "VIRTIOFSD_TEST_ACTION";

/// Puts this process under the filter, as the daemon does.
fn enter_filter() {
    let action = std::env::var(ACTION).unwrap_or_else(|_| "kill".to_owned());
    let action: SeccompAction = action.parse().expect("a word that is known");
    let uses = Uses {
        file_handles: false,
        background: false,
    };
    seccomp::enter(action, uses).expect("the kernel takes the filter");
    eprintln!("{BEFORE}");
}

// ---------------------------------------------------------------------------------------------
// How a process ends
// ---------------------------------------------------------------------------------------------

#[expect(unconditional_recursion, reason = "this is the point")]
fn overflow(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    overflow(page[0] + 1) + page[1]
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

/// An empty root without /proc, and a working directory that no path leads to, as threads have
/// that serve requests in a sandbox. The C library's getcwd(3) then goes up by "..".
fn leave_everything() {
    let root = TempDir::new("root");
    let gone = TempDir::new("gone");
    let path_of = |directory: &TempDir| {
        let bytes = directory.path().as_os_str().as_encoded_bytes();
        CString::new(bytes).expect("no NUL")
    };
    let (root_path, gone_path) = (path_of(&root), path_of(&gone));
    // SAFETY: takes flags only.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
    let mount = |from: &CStr, to: &CStr, kind: &CStr, flags| {
        let (from, to, kind) = (from.as_ptr(), to.as_ptr(), kind.as_ptr());
        // SAFETY: all strings are NUL-terminated and outlive the call; there is no data.
        let done = unsafe { libc::mount(from, to, kind, flags, ptr::null()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    };
    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE);
    mount(c"none", &gone_path, c"tmpfs", 0);
    fs::create_dir(gone.path().join("deep")).expect("room");
    std::env::set_current_dir(gone.path().join("deep")).expect("it is there");
    // SAFETY: the path is NUL-terminated and outlives the call.
    let unmounted = unsafe { libc::umount2(gone_path.as_ptr(), libc::MNT_DETACH) };
    assert_eq!(unmounted, 0);
    // SAFETY: the path is NUL-terminated and outlives the call.
    assert_eq!(unsafe { libc::chroot(root_path.as_ptr()) }, 0);
    // Their paths lead elsewhere from here on; the test that started this process cleans up.
    std::mem::forget((root, gone));
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_ends() {
    let Some(case) = case() else { return };
    if case == "panic in a sandbox" {
        leave_everything();
    }
    enter_filter();
    match case.as_str() {
        "panic" => panic!("on the main thread"),
        "panic that is caught" => {
            let caught = std::panic::catch_unwind(|| panic!("and caught"));
            assert!(caught.is_err());
        }
        "panic of a thread" => {
            let named = thread::Builder::new().name("worker".to_owned());
            let thread = named.spawn(|| panic!("on a thread")).expect("a thread");
            assert!(thread.join().is_err());
        }
        "panic in a panic" => {
            let _second = PanicsWhenDropped;
            panic!("first");
        }
        "panic in a sandbox" => panic!("where there is neither /proc nor a way up"),
        "abort" => std::process::abort(),
        "abort of a thread" => thread::spawn(|| std::process::abort()).join().expect("no"),
        "stack overflow" => println!("{}", overflow(0)),
        "stack overflow of a thread" => {
            let sum = thread::spawn(|| overflow(0)).join().expect("no");
            println!("{sum}");
        }
        "no memory" => std::alloc::handle_alloc_error(std::alloc::Layout::new::<u64>()),
        "bad access" => {
            let nowhere = ptr::without_provenance_mut::<u64>(std::hint::black_box(8));
            // SAFETY: none; it faults, which is what the case is about.
            unsafe { ptr::write_volatile(nowhere, 1) };
        }
        #[expect(clippy::exit, reason = "a child's exit status is the case")]
        "exit" => std::process::exit(7),
        #[cfg(target_env = "gnu")]
        "double free" => {
            // Too large for the caches of threads, whose check is another one.
            // SAFETY: takes a size only.
            let block = std::hint::black_box(unsafe { libc::malloc(5000) });
            // SAFETY: the next block keeps the first from being merged with the top.
            let other = std::hint::black_box(unsafe { libc::malloc(5000) });
            // SAFETY: it is a block of malloc.
            unsafe { libc::free(block) };
            // SAFETY: none; glibc notices, which is what the case is about.
            unsafe { libc::free(block) };
            println!("{other:?}");
        }
        other => panic!("no such case: {other}"),
    }
    eprintln!("{AFTER}");
}

#[test]
fn process_ends_under_the_filter_as_it_does_without() {
    for (case, code, signal) in [
        ("panic", Some(101), None),
        ("panic that is caught", Some(0), None),
        ("panic of a thread", Some(0), None),
        ("panic in a panic", None, Some(libc::SIGABRT)),
        ("abort", None, Some(libc::SIGABRT)),
        ("abort of a thread", None, Some(libc::SIGABRT)),
        ("stack overflow", None, Some(libc::SIGABRT)),
        ("stack overflow of a thread", None, Some(libc::SIGABRT)),
        ("no memory", None, Some(libc::SIGABRT)),
        ("bad access", None, Some(libc::SIGSEGV)),
        ("exit", Some(7), None),
    ] {
        for action in ["none", "kill"] {
            let ended = Child::new("child_ends", case).env(ACTION, action).run();
            let found = (ended.code(), ended.signal());
            assert_eq!(found, (code, signal), "{case}, {action}: {}", ended.said());
            assert!(ended.says(BEFORE), "{case}, {action}: {}", ended.said());
        }
    }
}

#[test]
fn panic_in_a_sandbox_under_the_filter_is_a_panic() {
    if !is_root_or_skip("panic_in_a_sandbox_under_the_filter_is_a_panic") {
        return;
    }
    // The child cannot remove its temporary directories from within its root.
    let room = TempDir::new("child");
    let path = room.path().to_str().expect("it is ASCII");
    let child = Child::new("child_ends", "panic in a sandbox").env("TMPDIR", path);
    let ended = child.run();
    assert_eq!(ended.code(), Some(101), "{}", ended.said());
    assert!(ended.says(BEFORE), "{}", ended.said());
    assert!(ended.says("stack backtrace:"), "{}", ended.said());
}

#[test]
#[cfg(target_env = "gnu")]
fn damaged_heap_is_told_before_the_process_aborts() {
    let ended = Child::new("child_ends", "double free").run();
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{}", ended.said());
    assert!(ended.says("double free"), "{}", ended.said());
}

#[test]
fn panic_under_the_filter_is_told_with_a_backtrace() {
    for case in ["panic", "panic that is caught", "panic of a thread"] {
        let ended = Child::new("child_ends", case).run();
        let said = ended.said();
        assert!(said.contains("stack backtrace:"), "{case}: {said}");
        // Names come from the binary's symbols, which take open, mmap and the like to read.
        assert!(said.contains("seccomp::child_ends"), "{case}: {said}");
    }
}

// ---------------------------------------------------------------------------------------------
// What is forbidden
// ---------------------------------------------------------------------------------------------

/// One raw system call; what is not given is 0.
fn raw<const N: usize>(number: c_long, given: [i64; N]) -> i64 {
    let mut args = [0_i64; 6];
    for (to, from) in args.iter_mut().zip(given) {
        *to = from;
    }
    let [a, b, c, d, e, f] = args;
    // SAFETY: every caller passes numbers and null pointers only, so the kernel touches none of
    // our memory; what would make a process ends it at once (see `forbidden`).
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

/// A system call that would make a process: the new one ends at once.
fn raw_fork<const N: usize>(number: c_long, given: [i64; N]) -> i64 {
    let result = raw(number, given);
    if result == 0 {
        // SAFETY: ends the new process without running anything of the old one's.
        unsafe { libc::_exit(0) };
    }
    result
}

type Call = fn() -> i64;

/// Calls that a fault of the daemon must not be able to make. All would fail or do no harm if they
/// were let through.
#[expect(clippy::too_many_lines, reason = "a table")]
fn forbidden() -> Vec<(&'static str, Call)> {
    const PAGE: i64 = 4096;
    const READ_EXEC: i64 = (libc::PROT_READ | libc::PROT_EXEC) as i64;
    const ALL: i64 = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as i64;
    const ANONYMOUS: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
    const SIGCHLD: i64 = libc::SIGCHLD as i64;
    const THREAD: i64 = 0x003d_0f00;
    let mut calls: Vec<(&'static str, Call)> = vec![
        ("execve", || raw(libc::SYS_execve, [])),
        ("execveat", || raw(libc::SYS_execveat, [-1])),
        ("socket unix", || raw(libc::SYS_socket, [1, 1, 0])),
        ("socket inet", || raw(libc::SYS_socket, [2, 1, 0])),
        ("socket netlink", || raw(libc::SYS_socket, [16, 3, 0])),
        ("connect", || raw(libc::SYS_connect, [-1])),
        ("bind", || raw(libc::SYS_bind, [-1])),
        ("listen", || raw(libc::SYS_listen, [-1])),
        ("sendto with an address", || {
            raw(libc::SYS_sendto, [-1, 0, 0, 0, 8, 16])
        }),
        ("socketpair inet", || raw(libc::SYS_socketpair, [2, 1])),
        ("socketpair datagram", || raw(libc::SYS_socketpair, [1, 2])),
        ("getsockopt peer", || {
            raw(libc::SYS_getsockopt, [-1, 1, libc::SO_PEERCRED.into()])
        }),
        ("setsockopt", || raw(libc::SYS_setsockopt, [-1])),
        ("ptrace", || raw(libc::SYS_ptrace, [-1])),
        ("process_vm_readv", || raw(libc::SYS_process_vm_readv, [-1])),
        ("process_vm_writev", || {
            raw(libc::SYS_process_vm_writev, [-1])
        }),
        ("pidfd_open", || raw(libc::SYS_pidfd_open, [-1])),
        ("pidfd_send_signal", || {
            raw(libc::SYS_pidfd_send_signal, [-1])
        }),
        ("kill others", || raw(libc::SYS_kill, [1, 0])),
        ("kill itself", || {
            raw(libc::SYS_kill, [std::process::id().into(), 0])
        }),
        ("tgkill others", || raw(libc::SYS_tgkill, [1, 1, 0])),
        ("mount", || raw(libc::SYS_mount, [])),
        ("umount2", || raw(libc::SYS_umount2, [])),
        ("open_tree", || raw(libc::SYS_open_tree, [-1])),
        ("move_mount", || raw(libc::SYS_move_mount, [-1, 0, -1])),
        ("fsopen", || raw(libc::SYS_fsopen, [])),
        ("fsmount", || raw(libc::SYS_fsmount, [-1])),
        ("mount_setattr", || raw(libc::SYS_mount_setattr, [-1])),
        ("pivot_root", || raw(libc::SYS_pivot_root, [])),
        ("chroot", || raw(libc::SYS_chroot, [])),
        ("chdir", || raw(libc::SYS_chdir, [])),
        ("setns", || raw(libc::SYS_setns, [-1])),
        ("unshare user", || {
            raw(libc::SYS_unshare, [libc::CLONE_NEWUSER.into()])
        }),
        ("unshare fs and mount", || {
            let both = libc::CLONE_FS | libc::CLONE_NEWNS;
            raw(libc::SYS_unshare, [both.into()])
        }),
        ("unshare files", || {
            raw(libc::SYS_unshare, [libc::CLONE_FILES.into()])
        }),
        ("clone of a process", || {
            raw_fork(libc::SYS_clone, [SIGCHLD])
        }),
        ("clone in a user namespace", || {
            raw_fork(libc::SYS_clone, [SIGCHLD | i64::from(libc::CLONE_NEWUSER)])
        }),
        ("clone of a thread in a user namespace", || {
            raw(libc::SYS_clone, [THREAD | i64::from(libc::CLONE_NEWUSER)])
        }),
        ("clone of a thread in a network namespace", || {
            raw(libc::SYS_clone, [THREAD | i64::from(libc::CLONE_NEWNET)])
        }),
        ("io_uring_setup", || raw(libc::SYS_io_uring_setup, [])),
        ("io_uring_enter", || raw(libc::SYS_io_uring_enter, [-1])),
        ("bpf", || raw(libc::SYS_bpf, [-1])),
        ("keyctl", || raw(libc::SYS_keyctl, [-1])),
        ("add_key", || raw(libc::SYS_add_key, [])),
        ("perf_event_open", || raw(libc::SYS_perf_event_open, [])),
        ("userfaultfd", || raw(libc::SYS_userfaultfd, [-1])),
        ("memfd_create", || raw(libc::SYS_memfd_create, [])),
        ("seccomp", || raw(libc::SYS_seccomp, [-1])),
        ("personality", || raw(libc::SYS_personality, [0xffff_ffff])),
        ("prlimit64", || raw(libc::SYS_prlimit64, [-1])),
        ("init_module", || raw(libc::SYS_init_module, [])),
        ("reboot", || raw(libc::SYS_reboot, [])),
        ("mmap for reading and executing", || {
            raw(libc::SYS_mmap, [0, PAGE, READ_EXEC, ANONYMOUS, -1, 0])
        }),
        ("mmap for everything", || {
            raw(libc::SYS_mmap, [0, PAGE, ALL, ANONYMOUS, -1, 0])
        }),
        ("mprotect for executing", || {
            raw(libc::SYS_mprotect, [0, 0, READ_EXEC])
        }),
        ("prctl of dumpability", || {
            raw(libc::SYS_prctl, [libc::PR_GET_DUMPABLE.into()])
        }),
        ("prctl of capabilities", || {
            raw(libc::SYS_prctl, [libc::PR_CAPBSET_READ.into()])
        }),
        ("fcntl of leases", || {
            raw(libc::SYS_fcntl, [-1, libc::F_SETLEASE.into()])
        }),
        ("fcntl of owners", || {
            raw(libc::SYS_fcntl, [-1, libc::F_SETOWN.into()])
        }),
        ("fcntl of locks that wait", || {
            raw(libc::SYS_fcntl, [-1, libc::F_OFD_SETLKW.into()])
        }),
        ("ioctl of terminals", || {
            raw(libc::SYS_ioctl, [-1, 0x5412]) // TIOCSTI
        }),
        ("ioctl of clones", || {
            raw(libc::SYS_ioctl, [-1, 0x4004_9409]) // FICLONE
        }),
        ("ioctl of versions", || {
            raw(libc::SYS_ioctl, [-1, 0x8008_7601]) // FS_IOC_GETVERSION
        }),
        ("open_by_handle_at", || {
            raw(libc::SYS_open_by_handle_at, [-1])
        }),
        ("quotactl", || raw(libc::SYS_quotactl, [-1])),
        ("acct", || raw(libc::SYS_acct, [])),
        ("setuid", || raw(libc::SYS_setuid, [-1])),
        ("a number beyond all", || raw(100_000, [])),
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend::<[(&'static str, Call); 3]>([
        ("fork", || raw_fork(libc::SYS_fork, [])),
        ("iopl", || raw(libc::SYS_iopl, [])),
        ("x32 getpid", || raw(0x4000_0000 + libc::SYS_getpid, [])),
    ]);
    calls
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_calls() {
    let Some(case) = case() else { return };
    let all = forbidden();
    let found = all.iter().find(|(name, _)| *name == case);
    let (_, call) = found.unwrap_or_else(|| panic!("no such case: {case}"));
    enter_filter();
    let result = call();
    eprintln!("{AFTER} with {result}");
}

#[test]
fn forbidden_call_ends_the_process_by_sigsys() {
    for (case, _) in forbidden() {
        let ended = Child::new("child_calls", case).run();
        assert_eq!(
            ended.signal(),
            Some(libc::SIGSYS),
            "{case}: {}",
            ended.said()
        );
        assert!(ended.says(BEFORE), "{case}: {}", ended.said());
    }
}

#[test]
fn forbidden_call_of_a_thread_ends_all_of_the_process() {
    // The waiting main thread would say so if it were left alone.
    let ended = Child::new("child_calls_from_a_thread", "any").run();
    assert_eq!(ended.signal(), Some(libc::SIGSYS), "{}", ended.said());
    assert!(!ended.says(AFTER), "{}", ended.said());
}

#[test]
#[ignore = "runs in a process of its own"]
fn child_calls_from_a_thread() {
    if case().is_none() {
        return;
    }
    // One that was there before the filter.
    let go = Arc::new((Mutex::new(false), Condvar::new()));
    let theirs = Arc::clone(&go);
    let thread = thread::spawn(move || {
        let (told, bell) = &*theirs;
        let told = told.lock().expect("nobody panics with it");
        drop(bell.wait_while(told, |told| !*told));
        raw(libc::SYS_ptrace, [-1])
    });
    enter_filter();
    let (told, bell) = &*go;
    *told.lock().expect("nobody panics with it") = true;
    bell.notify_all();
    let result = thread.join();
    eprintln!("{AFTER} with {result:?}");
}

#[test]
fn actions_do_what_their_names_say() {
    for (action, code, signal, over) in [
        ("none", Some(0), None, true),
        ("kill", None, Some(libc::SIGSYS), false),
        ("log", Some(0), None, true),
        ("trap", None, Some(libc::SIGSYS), false),
    ] {
        let ended = Child::new("child_calls", "chroot")
            .env(ACTION, action)
            .run();
        let found = (ended.code(), ended.signal(), ended.says(AFTER));
        assert_eq!(found, (code, signal, over), "{action}: {}", ended.said());
    }
}

// ---------------------------------------------------------------------------------------------
// What is allowed, beyond what the other tests do with the daemon
// ---------------------------------------------------------------------------------------------

#[test]
#[ignore = "runs in a process of its own"]
fn child_works() {
    if case().is_none() {
        return;
    }
    enter_filter();
    let clone3 = raw(libc::SYS_clone3, [0, 0]);
    let error = std::io::Error::last_os_error().raw_os_error();
    assert_eq!((clone3, error), (-1, Some(libc::ENOSYS)));

    // Arenas of malloc for each thread, large blocks, and blocks that grow.
    let threads: Vec<_> = (0..16)
        .map(|number| {
            thread::spawn(move || {
                let mut grown = vec![number; 1 << 20];
                grown.resize(1 << 22, number);
                let small: Vec<_> = (0..10_000).map(|len| vec![0_u8; len % 100]).collect();
                let map: HashMap<usize, u8> = (0..100).map(|key| (key, 1)).collect();
                thread::yield_now();
                grown.len() + small.len() + map.len()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("it works"), (1 << 22) + 10_100);
    }

    let pair = (Mutex::new(()), Condvar::new());
    let held = pair.0.lock().expect("nobody panics with it");
    let (_held, waited) = pair
        .1
        .wait_timeout(held, Duration::from_millis(5))
        .expect("nobody panics with it");
    assert!(waited.timed_out());

    // The parent stops and continues it while it sleeps.
    println!("asleep");
    thread::sleep(Duration::from_millis(500));
    eprintln!("{AFTER}");
}

#[test]
fn ordinary_work_passes_the_filter_even_when_stopped_in_its_sleep() {
    let mut child = Child::new("child_works", "any").spawn();
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut said = Vec::new();
    while !said.windows(6).any(|words| words == b"asleep") {
        let mut chunk = [0; 256];
        let len = std::io::Read::read(&mut stdout, &mut chunk).expect("a pipe");
        assert_ne!(len, 0, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&chunk[..len]);
    }
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(30));
        sys::kill(child.id(), libc::SIGSTOP);
        thread::sleep(Duration::from_millis(30));
        sys::kill(child.id(), libc::SIGCONT);
    }
    let ended = Ended(child.wait_with_output().expect("it is ours"));
    assert_eq!(ended.code(), Some(0), "{}", ended.said());
    assert!(ended.says(AFTER), "{}", ended.said());
}
