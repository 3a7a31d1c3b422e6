//! What: the system calls that the serving process may make, as a table, and why each.
//!
//! In: nothing. Out: [`rules`]. Everything that is not in the table is answered by the action of
//! `--seccomp`. The table holds for x86_64 and aarch64, glibc and musl. A call stands here if the
//! daemon, the standard library or a C library makes it after start. Absent are, among others:
//! execve, ptrace, mount and its kin, socket, connect, bind, io_uring_setup, bpf, keyctl,
//! pidfd_open, process_vm_readv, setns, chroot, kill, fork as such, and making memory executable.
//!
//! Calls without a condition on arguments cost the least: since Linux 5.11 the kernel finds out
//! once that they always pass, and does not run the filter for them. So what serves requests
//! should have no condition, and what has one (mmap, fcntl, ioctl, clone) should be rare.

use crate::sys::errno::Errno;
use crate::sys::filter_args as args;

/// What happens to a system call in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// It passes.
    Allow,
    /// It passes if all conditions of any of these hold, and is not in the table otherwise.
    AllowIf(&'static [&'static [Condition]]),
    /// It passes if it is about threads of this process: its first argument is the process id.
    AllowOnSelf,
    /// It fails with this error, because its caller then takes another way.
    Refuse(Errno),
}

/// What one argument must be: equal to `value` in the bits of `mask`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition {
    /// Which argument, from 0.
    pub(crate) argument: u32,
    /// The bits that count.
    pub(crate) mask: u64,
    /// What they must be.
    pub(crate) value: u64,
}

impl Condition {
    /// The first argument is this process.
    pub(crate) fn own_process(id: u32) -> Self {
        int(0, u64::from(id))
    }
}

/// Who needs the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Every build.
    All,
    /// Builds for x86_64: the call has a newer form, and other architectures never had the older.
    X86,
    /// Builds with musl.
    Musl,
    /// Builds with musl for x86_64.
    MuslX86,
    /// Every build, if files are opened by handle.
    FileHandles,
    /// Every build, with `--daemonize`.
    Background,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// The system call.
    pub(crate) name: &'static str,
    /// What happens to it.
    pub(crate) answer: Answer,
    /// Who needs it.
    pub(crate) needed: For,
    /// What for. Read by people and by the test that there is one.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documentation that a test checks")
    )]
    pub(crate) reason: &'static str,
}

const fn allow(name: &'static str, reason: &'static str) -> Rule {
    allow_for(For::All, name, reason)
}

const fn allow_for(needed: For, name: &'static str, reason: &'static str) -> Rule {
    Rule {
        name,
        answer: Answer::Allow,
        needed,
        reason,
    }
}

const fn allow_if(
    name: &'static str,
    alternatives: &'static [&'static [Condition]],
    reason: &'static str,
) -> Rule {
    Rule {
        name,
        answer: Answer::AllowIf(alternatives),
        needed: For::All,
        reason,
    }
}

const fn refuse(name: &'static str, errno: Errno, reason: &'static str) -> Rule {
    Rule {
        name,
        answer: Answer::Refuse(errno),
        needed: For::All,
        reason,
    }
}

const fn int(argument: u32, value: u64) -> Condition {
    Condition {
        argument,
        mask: args::INT_MASK,
        value,
    }
}

const fn word(argument: u32, value: u64) -> Condition {
    Condition {
        argument,
        mask: args::FULL_MASK,
        value,
    }
}

/// Contents and attributes of files that are open or pinned.
const FILES: &[Rule] = &[
    allow("preadv2", "READ, into guest memory"),
    allow("pread64", "READ into one piece of guest memory"),
    allow("pwritev2", "WRITE, out of guest memory"),
    allow("pwrite64", "WRITE out of one piece of guest memory"),
    allow("statx", "attributes and identity of every file"),
    allow(
        "cachestat",
        "whether a READ has to wait, where preadv2 cannot tell",
    ),
    allow_for(For::Musl, "preadv", "preadv2 of musl without flags"),
    allow_for(For::Musl, "pwritev", "pwritev2 of musl without flags"),
    allow("lseek", "LSEEK, directory positions, size of memory files"),
    allow("ftruncate", "SETATTR of the size with a handle"),
    allow("truncate", "SETATTR of the size without a handle"),
    allow("fallocate", "FALLOCATE"),
    allow("copy_file_range", "COPY_FILE_RANGE"),
    allow("fsync", "FSYNC, FSYNCDIR"),
    allow("fdatasync", "FSYNC of contents alone"),
    allow("syncfs", "SYNCFS"),
    allow("flock", "locks of whole files"),
    allow("fstatfs", "STATFS; kind of a file system"),
    allow("fchmodat", "SETATTR of the mode, before Linux 6.6"),
    allow("fchmodat2", "SETATTR of the mode"),
    allow("fchownat", "SETATTR of the owner; dropping set-id bits"),
    allow("utimensat", "SETATTR of times"),
    allow("getxattr", "GETXATTR; ACLs, capabilities of files"),
    allow("fgetxattr", "GETXATTR of an open file"),
    allow("setxattr", "SETXATTR; ACLs, security labels"),
    allow("listxattr", "LISTXATTR"),
    allow("flistxattr", "LISTXATTR of an open file"),
    allow("removexattr", "REMOVEXATTR"),
    allow_if(
        "ioctl",
        &[
            &[int(1, args::IOCTL_GET_FLAGS)],
            &[int(1, args::IOCTL_SET_FLAGS)],
            &[int(1, args::IOCTL_GET_EXTENDED)],
            &[int(1, args::IOCTL_SET_EXTENDED)],
            &[int(1, args::IOCTL_ENABLE_VERITY)],
            &[int(1, args::IOCTL_MEASURE_VERITY)],
            &[int(1, args::IOCTL_NONBLOCKING)],
        ],
        "IOCTL on inodes; std's set_nonblocking",
    ),
    allow_if(
        "fcntl",
        &[
            &[int(1, args::FCNTL_GET_STATUS_FLAGS)],
            &[int(1, args::FCNTL_SET_STATUS_FLAGS)],
            &[int(1, args::FCNTL_SET_LOCK)],
            &[int(1, args::FCNTL_GET_LOCK)],
            &[int(1, args::FCNTL_DUPLICATE)],
            &[int(1, args::FCNTL_GET_DESCRIPTOR_FLAGS)],
            &[int(1, args::FCNTL_SET_DESCRIPTOR_FLAGS)],
        ],
        "GETLK, SETLK; FLUSH by dup and close; O_NONBLOCK of eventfds; std checks descriptors",
    ),
];

/// Names, and how files come to be open.
const NAMES: &[Rule] = &[
    allow(
        "openat",
        "OPEN through /proc/self/fd; kernels without openat2",
    ),
    allow("openat2", "CREATE and LOOKUP beneath a directory"),
    allow("close", "every descriptor"),
    allow("getdents64", "READDIR, READDIRPLUS"),
    allow("mkdirat", "MKDIR"),
    allow("mknodat", "MKNOD"),
    allow("symlinkat", "SYMLINK"),
    allow("linkat", "LINK; a name for a TMPFILE"),
    allow("unlinkat", "UNLINK, RMDIR"),
    allow("renameat2", "RENAME, RENAME2"),
    allow("readlinkat", "READLINK; a backtrace on aarch64"),
    allow(
        "name_to_handle_at",
        "identity of files; whether handles work",
    ),
    allow_for(
        For::FileHandles,
        "open_by_handle_at",
        "nodes that are not pinned by a descriptor",
    ),
    allow_for(
        For::X86,
        "unlink",
        "std removes the socket and the pid file",
    ),
    allow_for(For::MuslX86, "open", "open(3) of musl, for a backtrace"),
    allow_for(For::X86, "readlink", "std's backtrace finds the binary"),
    refuse(
        "getcwd",
        Errno::ENOENT,
        "a backtrace would shorten paths by it; in a sandbox glibc would then search for the name \
         of a directory that has none",
    ),
];

/// On whose behalf a thread acts.
const IDENTITY: &[Rule] = &[
    allow("setresuid", "acting as the user of a request"),
    allow("setresgid", "acting as the group of a request"),
    allow("setgroups", "acting with the groups of a request"),
    allow("getgroups", "what to come back to"),
    allow("geteuid", "what to come back to"),
    allow("getegid", "what to come back to"),
    allow("capget", "what to come back to"),
    allow("capset", "dropping FSETID or inode rights for a request"),
    allow("umask", "threads that create files have none"),
    allow("fchdir", "threads that touch files stand in /proc/self/fd"),
    allow_if(
        "unshare",
        &[&[word(0, args::OWN_FS_STATE)]],
        "a working directory and umask for each thread; no namespace",
    ),
];

/// The connection to the front end, queues and log.
const TRANSPORT: &[Rule] = &[
    allow("read", "kick and exit descriptors; mountinfo; a backtrace"),
    allow("write", "call descriptors; standard error"),
    allow_for(
        For::Background,
        "dup3",
        "/dev/null in the place of the starter's standard streams",
    ),
    allow("accept4", "the connection of the front end"),
    allow("recvmsg", "vhost-user messages with descriptors"),
    allow("sendmsg", "vhost-user replies"),
    allow("shutdown", "ending the connection, which wakes its reader"),
    allow_if(
        "getsockopt",
        &[
            &[
                int(1, args::SOCKET_LEVEL),
                int(2, args::SOCKET_OPTION_DOMAIN),
            ],
            &[int(1, args::SOCKET_LEVEL), int(2, args::SOCKET_OPTION_TYPE)],
        ],
        "the vhost crate looks at what SET_BACKEND_REQ_FD brought",
    ),
    allow("eventfd2", "waking a worker that shall end"),
    allow_if(
        "socketpair",
        &[&[
            int(0, args::LOCAL_SOCKETS),
            Condition {
                argument: 1,
                mask: args::SOCKET_TYPE_MASK,
                value: args::STREAM_SOCKETS,
            },
        ]],
        "between our framing and the vhost crate's; a stream cannot be sent elsewhere",
    ),
    allow("ppoll", "waiting; poll(3) on aarch64"),
    allow_for(For::X86, "poll", "waiting for kicks and messages"),
    // No address: only to where the socket is connected, which is the front end or /dev/log.
    allow_if(
        "sendto",
        &[&[word(4, 0)]],
        "std writes to sockets: messages between threads, log lines to syslog",
    ),
    allow(
        "recvfrom",
        "std reads from sockets: messages between threads",
    ),
];

/// Memory of the process and of the guest; never executable.
const MEMORY: &[Rule] = &[
    allow_if(
        "mmap",
        &[&[NOT_EXECUTABLE]],
        "heap, stacks of threads, guest memory",
    ),
    allow_if(
        "mprotect",
        &[&[NOT_EXECUTABLE]],
        "guard pages; growing heaps of malloc",
    ),
    allow("munmap", "guest memory that goes; stacks; heap"),
    allow("mremap", "realloc of large blocks"),
    allow("madvise", "giving memory back; stacks of ended threads"),
    allow("brk", "malloc"),
];

const NOT_EXECUTABLE: Condition = Condition {
    argument: 2,
    mask: args::EXECUTABLE,
    value: 0,
};

/// Threads and waiting.
const THREADS: &[Rule] = &[
    allow("futex", "locks, condition variables, joining"),
    allow_if(
        "clone",
        &[&[Condition {
            argument: 0,
            mask: args::THREAD_MASK,
            value: args::THREAD_FLAGS,
        }]],
        "threads, but neither processes nor namespaces",
    ),
    refuse(
        "clone3",
        Errno::ENOSYS,
        "its flags lie in memory, out of the filter's sight; C libraries then use clone",
    ),
    allow("set_robust_list", "each new thread"),
    allow("rseq", "each new thread of glibc 2.35 or later"),
    allow("sigaltstack", "std's stack for stack overflows, per thread"),
    allow(
        "sched_getaffinity",
        "glibc asks for it to place arenas and guards",
    ),
    allow("sched_yield", "spinning locks"),
    allow_if(
        "prctl",
        &[&[int(0, args::SET_THREAD_NAME)]],
        "names of threads",
    ),
    allow("exit", "the end of a thread"),
    allow("clock_nanosleep", "sleeping between tries for a lock"),
    allow("clock_gettime", "time, where the vDSO does not tell it"),
    allow(
        "getrusage",
        "whether a slow request has waited, or its thread",
    ),
    allow(
        "restart_syscall",
        "the kernel goes on sleeping after a stop by SIGSTOP",
    ),
    allow(
        "getrandom",
        "first node id; seeds of hash maps and of malloc",
    ),
    allow_for(For::Musl, "nanosleep", "sleep of musl"),
    allow_for(
        For::Musl,
        "membarrier",
        "musl's first thread registers for it",
    ),
    allow_for(
        For::Musl,
        "set_tid_address",
        "threads of musl that cannot start",
    ),
];

/// Signals, and how the process ends.
const ENDING: &[Rule] = &[
    allow(
        "rt_sigprocmask",
        "signals are taken by one thread; abort(3)",
    ),
    allow("rt_sigaction", "abort(3); the handler for stack overflows"),
    allow("rt_sigreturn", "the end of a signal handler"),
    allow("rt_sigtimedwait", "waiting for SIGTERM and its kin"),
    allow("getpid", "abort(3)"),
    allow("gettid", "abort(3); std names the thread that panics"),
    Rule {
        name: "tgkill",
        answer: Answer::AllowOnSelf,
        needed: For::All,
        reason: "abort(3); signals between our own threads",
    },
    Rule {
        name: "tkill",
        answer: Answer::AllowIf(&[&[int(1, args::ABORT_SIGNAL)]]),
        needed: For::Musl,
        reason: "abort(3) of musl",
    },
    allow("exit_group", "the end"),
    allow(
        "fstat",
        "stat(3) of some C libraries, for a backtrace; tells no more than statx",
    ),
    allow("newfstatat", "the same"),
    allow_for(For::MuslX86, "stat", "the same"),
    allow(
        "writev",
        "glibc says what is wrong with the heap before it aborts",
    ),
];

/// The whole table.
pub(crate) fn rules() -> impl Iterator<Item = &'static Rule> {
    [FILES, NAMES, IDENTITY, TRANSPORT, MEMORY, THREADS, ENDING]
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libseccomp::{ScmpArch, ScmpSyscall};
    use std::collections::HashSet;

    /// Whether the architecture has the call: libseccomp gives numbers below zero to calls that
    /// it knows from other architectures only.
    fn has(arch: ScmpArch, name: &str) -> bool {
        let call = ScmpSyscall::from_name_by_arch(name, arch);
        call.unwrap_or_else(|error| panic!("{name}: {error}"))
            .as_raw_syscall()
            >= 0
    }

    #[test]
    fn calls_exist_on_the_architectures_that_they_are_for() {
        for rule in rules() {
            let name = rule.name;
            let old = matches!(rule.needed, For::X86 | For::MuslX86);
            assert!(has(ScmpArch::X8664, name), "{name} on x86_64");
            assert_eq!(has(ScmpArch::Aarch64, name), !old, "{name} on aarch64");
        }
    }

    #[test]
    fn calls_are_there_once_and_have_a_reason() {
        let mut seen = HashSet::new();
        for rule in rules() {
            assert!(seen.insert(rule.name), "{} is there twice", rule.name);
            assert!(rule.reason.len() > 4, "{} has no reason", rule.name);
        }
        assert!(seen.len() > 80, "the table is whole");
    }

    #[test]
    fn conditions_compare_only_what_is_in_their_mask() {
        for rule in rules() {
            let Answer::AllowIf(alternatives) = rule.answer else {
                continue;
            };
            assert!(!alternatives.is_empty(), "{}", rule.name);
            for condition in alternatives.iter().copied().flatten() {
                let outside = condition.value & !condition.mask;
                assert_eq!(outside, 0, "{}: {condition:x?}", rule.name);
                assert!(condition.argument < 6, "{}", rule.name);
            }
        }
    }

    #[test]
    fn calls_that_lead_out_of_the_sandbox_are_absent() {
        let present: HashSet<&str> = rules().map(|rule| rule.name).collect();
        for name in [
            "execve",
            "execveat",
            "fork",
            "vfork",
            "socket",
            "connect",
            "bind",
            "listen",
            "accept",
            "sendmmsg",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_open",
            "pidfd_getfd",
            "kill",
            "mount",
            "umount2",
            "open_tree",
            "move_mount",
            "mount_setattr",
            "fsopen",
            "fsmount",
            "fspick",
            "pivot_root",
            "chroot",
            "setns",
            "io_uring_setup",
            "io_uring_enter",
            "bpf",
            "keyctl",
            "add_key",
            "request_key",
            "perf_event_open",
            "userfaultfd",
            "memfd_create",
            "personality",
            "pkey_mprotect",
            "seccomp",
            "prlimit64",
            "init_module",
            "finit_module",
            "kexec_load",
            "reboot",
            "quotactl",
        ] {
            assert!(!present.contains(name), "{name} is in the table");
        }
    }
}
