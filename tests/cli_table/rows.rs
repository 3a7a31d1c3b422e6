//! The table. Words are separated by one space; `{usual}` stands for a shared directory and a
//! socket path, `{served}` for these and `--sandbox none`; other names in braces are things of the
//! scene (see `runner`). `{served}` comes first, so that a later option overrides it.

/// How a command line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Not: a daemon waits for its front end.
    Serves,
    /// With this exit status.
    With(i32),
}

/// A daemon waits for its front end.
pub(crate) const SERVED: Ends = Ends::Serves;
/// Status 0: something was printed.
const DONE: Ends = Ends::With(0);
/// Status 1: one ERROR line says what cannot be done.
pub(crate) const END: Ends = Ends::With(1);
/// Status 2: the command line makes no sense.
const NONSENSE: Ends = Ends::With(2);

/// One command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) line: &'static str,
    pub(crate) ends: Ends,
    /// All of these are said.
    pub(crate) says: &'static [&'static str],
    /// Why the existing daemon ends with another status, if it does.
    pub(crate) differs: Option<&'static str>,
    /// What others than root are told, when only root can do this.
    pub(crate) for_root: Option<&'static str>,
}

const fn row(line: &'static str, ends: Ends, says: &'static [&'static str]) -> Row {
    Row {
        line,
        ends,
        says,
        differs: None,
        for_root: None,
    }
}

impl Row {
    const fn for_root(self, others_are_told: &'static str) -> Row {
        Row {
            for_root: Some(others_are_told),
            ..self
        }
    }

    const fn unlike_the_existing(self, why: &'static str) -> Row {
        Row {
            differs: Some(why),
            ..self
        }
    }
}

const DEPRECATED_O: &str = "-o is deprecated";

pub(crate) const ROWS: &[Row] = &[
    // What is printed.
    row("", NONSENSE, &["Usage: virtiofsd", "--shared-dir"]),
    row("-h", DONE, &["Usage: virtiofsd", "--sandbox"]),
    row("--help", DONE, &["Usage: virtiofsd", "Possible values"]),
    row("-V", DONE, &["virtiofsd "]),
    row("--version", DONE, &["virtiofsd "]),
    row(
        "--print-capabilities",
        DONE,
        &[
            "{\n  \"type\": \"fs\",\n  \"features\": [\n    \"posix-acl-negotiation-mode\",\n    \
             \"security-label-negotiation-mode\",\n    \"separate-options\"\n  ]\n}\n",
        ],
    ),
    row(
        "--print-capabilities --shared-dir /nowhere",
        DONE,
        &["separate-options"],
    ),
    row("--print-capabilities --fd 99", DONE, &["separate-options"]),
    row(
        "--print-capabilities -o source=/nowhere,xattr",
        DONE,
        &["separate-options"],
    ),
    row(
        "--print-capabilities -o nonsense",
        NONSENSE,
        &["-o nonsense"],
    ),
    row(
        "--print-capabilities --seccomp KILL",
        NONSENSE,
        &["--seccomp"],
    ),
    row(
        "--print-capabilities --socket-group root",
        NONSENSE,
        &["--socket-group"],
    ),
    // What is required, and what excludes what.
    row("--shared-dir {share}", NONSENSE, &["--socket-path"]),
    row("--socket-path s", NONSENSE, &["--shared-dir"]),
    row("--fd 3", NONSENSE, &["--shared-dir"]),
    row(
        "--shared-dir {share} --socket-path s --fd 3",
        NONSENSE,
        &["--fd", "cannot be used"],
    ),
    row(
        "--shared-dir {share} --socket s --fd 3",
        NONSENSE,
        &["--fd", "cannot be used"],
    ),
    row(
        "--shared-dir {share} --fd 3 --socket-group root",
        NONSENSE,
        &["--socket-group"],
    ),
    row(
        "-o xattr --socket-path s",
        END,
        &["missing \"--shared-dir\" or \"-o source\" option"],
    ),
    row(
        "-o xattr --fd 99",
        END,
        &["missing \"--shared-dir\" or \"-o source\" option"],
    ),
    row("-o xattr", NONSENSE, &["--socket-path"]),
    row("{served} --no-such-option", NONSENSE, &["--no-such-option"]),
    row(
        "--shared-di {share} --socket-path s",
        NONSENSE,
        &["--shared-di", "--shared-dir"],
    ),
    row("{served} -Z", NONSENSE, &["-Z"]),
    row("{served} stray", NONSENSE, &["stray"]),
    row(
        "{served} --cache",
        NONSENSE,
        &["--cache", "value is required"],
    ),
    row("{served} --xattr=yes", NONSENSE, &["--xattr"]),
    // The directory.
    row("{served}", SERVED, &["sharing "]),
    row("{usual}", SERVED, &["sharing "]),
    row(
        "{served} --shared-dir {dir}/nowhere",
        END,
        &["/nowhere does not exist", "create it"],
    ),
    row(
        "--shared-dir {empty} --socket-path s",
        END,
        &["does not exist"],
    ),
    row(
        "{served} --shared-dir {dir}/dangling",
        END,
        &["/dangling does not exist"],
    ),
    row("{served} --shared-dir {dir}/link", SERVED, &[]),
    row("{usual} --shared-dir {dir}/link", SERVED, &[])
        .unlike_the_existing("it shares links without a sandbox only"),
    row("{served} --shared-dir {dir}/file", SERVED, &[]),
    row("{usual} --shared-dir {dir}/file", END, &["/file"]),
    row("{served} --shared-dir {comma}", SERVED, &["a,b c"]),
    row("{served} --shared-dir {bytes}", SERVED, &[]).unlike_the_existing("it takes UTF-8 only"),
    row("{usual} --shared-dir {bytes}", SERVED, &[]).unlike_the_existing("it takes UTF-8 only"),
    row("{served} --shared-dir={share}", SERVED, &[]),
    // The socket.
    row(
        "{served} --socket-path {dir}/no/s",
        END,
        &["/no does not exist", "create it first"],
    ),
    row(
        "{served} --socket-path {empty}",
        END,
        &["socket path is empty"],
    ),
    row(
        "{served} --socket-path {dir}/file",
        END,
        &["is not a socket", "choose another"],
    )
    .unlike_the_existing("it replaces the file by its socket"),
    row(
        "{served} --socket-path {dir}/link",
        END,
        &["is not a socket"],
    )
    .unlike_the_existing("it replaces the link by its socket"),
    row(
        "{served} --socket-path {dir}/dangling",
        END,
        &["is not a socket"],
    )
    .unlike_the_existing("it replaces the link by its socket"),
    row(
        "{served} --socket-path {dir}/share",
        END,
        &["is not a socket"],
    ),
    row(
        "{served} --socket-path {dir}/{long}",
        END,
        &["longer than 107 bytes"],
    ),
    row("{served} --socket-path {dir}/{byte}", SERVED, &[])
        .unlike_the_existing("it takes UTF-8 only"),
    row(
        "--shared-dir {share} --socket {dir}/s --sandbox none",
        SERVED,
        &["--socket is deprecated"],
    ),
    row(
        "{served} --socket {dir}/no/s",
        SERVED,
        &["--socket is deprecated"],
    ),
    row("{served} --socket-group root", SERVED, &[]).for_root("root"),
    row("{served} --socket-group 0", SERVED, &[])
        .for_root("root")
        .unlike_the_existing("it takes names only"),
    row(
        "{served} --socket-group no-such-group",
        END,
        &["no group \"no-such-group\"", "groupadd"],
    ),
    row("{served} --socket-group {empty}", END, &["--socket-group"]),
    row(
        "{served} --socket-group 4294967295",
        END,
        &["--socket-group"],
    ),
    // Inherited descriptors that are none.
    row(
        "--shared-dir {share} --sandbox none --fd 99",
        END,
        &["(--fd)", "is not open"],
    )
    .unlike_the_existing("it says that it waits before it looks at the descriptor"),
    row(
        "--shared-dir {share} --sandbox none --fd 0",
        END,
        &["(--fd)", "is not a socket"],
    )
    .unlike_the_existing("it says that it waits before it looks at the descriptor"),
    row(
        "--shared-dir {share} --sandbox none --fd=-1",
        END,
        &["(--fd)", "is not open"],
    )
    .unlike_the_existing("it panics"),
    row(
        "--shared-dir {share} --sandbox none --fd=-2147483648",
        END,
        &["is not open"],
    )
    .unlike_the_existing("it panics or ends by the number"),
    row(
        "--shared-dir {share} --sandbox none --fd 2147483647",
        END,
        &["is not open"],
    )
    .unlike_the_existing("it says that it waits before it looks at the descriptor"),
    row("--shared-dir {share} --fd -1", NONSENSE, &["-1"]),
    row(
        "--shared-dir {share} --fd 2147483648",
        NONSENSE,
        &["--fd", "2147483647"],
    ),
    row("--shared-dir {share} --fd 99999999999", NONSENSE, &["--fd"]),
    row("--shared-dir {share} --fd three", NONSENSE, &["--fd"]),
    row("--shared-dir {share} --fd {empty}", NONSENSE, &["--fd"]),
    // The tag.
    row("{served} --tag t", SERVED, &[]),
    row(
        "{served} --tag 012345678901234567890123456789012345",
        SERVED,
        &[],
    ),
    row(
        "{served} --tag 0123456789012345678901234567890123456",
        NONSENSE,
        &["36 bytes"],
    ),
    row("{served} --tag {empty}", NONSENSE, &["--tag"]),
    row("{served} --tag {byte}", NONSENSE, &["UTF-8"]),
    // Threads and descriptors.
    row("{served} --thread-pool-size 0", SERVED, &[]),
    row("{served} --thread-pool-size=4", SERVED, &[]),
    row("{served} --thread-pool-size 1024", SERVED, &[]),
    row(
        "{served} --thread-pool-size 1025",
        NONSENSE,
        &["1025", "0..=1024"],
    )
    .unlike_the_existing("it takes any number, and has threads for as many"),
    row("{served} --thread-pool-size -1", NONSENSE, &["-1"]),
    row(
        "{served} --thread-pool-size=-1",
        NONSENSE,
        &["--thread-pool-size"],
    ),
    row(
        "{served} --thread-pool-size 99999999999999999999",
        NONSENSE,
        &["--thread-pool-size"],
    ),
    row("{served} --poll-us 0", SERVED, &[]).unlike_the_existing("it has no such option"),
    row("{served} --poll-us=10000", SERVED, &[]).unlike_the_existing("it has no such option"),
    row("{served} --poll-us 10001", NONSENSE, &["0..=10000"]),
    row("{served} --poll-us 1.5", NONSENSE, &["--poll-us"]),
    row("{served} --rlimit-nofile 0", SERVED, &[]),
    row(
        "{served} --rlimit-nofile 609",
        END,
        &["must be at least 610", "--rlimit-nofile"],
    ),
    row(
        "{served} --rlimit-nofile 610",
        SERVED,
        &["very few for the guest"],
    ),
    row(
        "{served} --rlimit-nofile 737",
        SERVED,
        &["very few for the guest"],
    ),
    row("{served} --rlimit-nofile 738", SERVED, &[]),
    row("{served} --rlimit-nofile 1", END, &["must be at least 610"]),
    row(
        "{served} --rlimit-nofile 4096 --thread-pool-size 4",
        SERVED,
        &[],
    ),
    row(
        "{served} --rlimit-nofile {beyond}",
        END,
        &["cannot be increased above"],
    ),
    row(
        "{served} --rlimit-nofile 18446744073709551615",
        END,
        &["cannot be increased above"],
    ),
    row(
        "{served} --rlimit-nofile 18446744073709551616",
        NONSENSE,
        &["--rlimit-nofile"],
    ),
    row(
        "{served} --rlimit-nofile=-1",
        NONSENSE,
        &["--rlimit-nofile"],
    ),
    row("{served} --rlimit-nofile -1", NONSENSE, &["-1"]),
    row("{served} --rlimit-nofile abc", NONSENSE, &["abc"]),
    // Caching.
    row("{served} --cache auto", SERVED, &[]),
    row("{served} --cache ALWAYS", SERVED, &[]),
    row("{served} --cache=metadata", SERVED, &[]),
    row(
        "{served} --cache never --allow-mmap --no-readdirplus",
        SERVED,
        &[],
    ),
    row("{served} --cache none", NONSENSE, &["--cache", "never"]),
    row(
        "{served} --cache always --cache nonsense",
        NONSENSE,
        &["nonsense"],
    ),
    row(
        "{served} --cache always --cache never --writeback",
        SERVED,
        &[],
    ),
    // Attributes and ids.
    row("{served} --xattr --posix-acl --security-label", SERVED, &[]),
    row(
        "{served} --posix-acl=auto --security-label=never",
        SERVED,
        &[],
    ),
    row("{served} --posix-acl=maybe", NONSENSE, &["maybe", "always"]),
    row("{served} --posix-acl auto", NONSENSE, &["auto"]),
    row(
        "{served} --security-label=on",
        NONSENSE,
        &["--security-label"],
    ),
    row("{served} --xattrmap :map::user.virtiofs.:", SERVED, &[]),
    row("{served} --xattrmap {empty}", NONSENSE, &["--xattrmap"]),
    row("{served} --xattrmap foo", NONSENSE, &["--xattrmap"]),
    row("{served} --xattrmap :map::user.{byte}.:", SERVED, &[])
        .unlike_the_existing("it takes UTF-8 only"),
    row(
        "{served} --xattrmap :map::a.: --xattrmap :map::b.:",
        SERVED,
        &[],
    ),
    row("{served} --killpriv-v2 --no-killpriv-v2", SERVED, &[]),
    row(
        "{served} --translate-uid MAP/0/1000/5 --translate-gid squash-guest:0:5:10",
        SERVED,
        &[],
    ),
    row(
        "{served} --translate-uid map:0:10:5 --translate-uid map:5:20:5",
        SERVED,
        &[],
    ),
    row(
        "{served} --translate-uid map:0:10:5 --translate-uid guest:4:0:2",
        END,
        &["'guest:4:0:2'"],
    ),
    row("{served} --translate-uid map:0:1", NONSENSE, &["map:0:1"]),
    row("{served} --translate-gid mop:0:1:2", NONSENSE, &["'mop'"]),
    // Semantics.
    row(
        "{served} --readonly --allow-direct-io --preserve-noatime",
        SERVED,
        &[],
    ),
    row(
        "{served} --announce-submounts --no-announce-submounts",
        SERVED,
        &[],
    ),
    row("{served} --inode-file-handles=never", SERVED, &[]),
    row("{served} --inode-file-handles=prefer", SERVED, &[]),
    row(
        "{served} --inode-file-handles=fallback",
        SERVED,
        &["fallback is deprecated"],
    ),
    row(
        "{served} --inode-file-handles never",
        NONSENSE,
        &["equal sign"],
    ),
    row(
        "{served} --inode-file-handles=some",
        NONSENSE,
        &["mandatory"],
    ),
    // Confinement.
    row("{usual} --sandbox NameSpace", SERVED, &[]),
    row("{usual} --sandbox chroot", SERVED, &[]).for_root("root"),
    row("{usual} --sandbox=NONE", SERVED, &[]),
    row("{usual} --sandbox jail", NONSENSE, &["jail", "namespace"]),
    row("{usual} --sandbox namespace --sandbox none", SERVED, &[]),
    row("{served} --seccomp none", SERVED, &[]),
    row("{served} --seccomp=log", SERVED, &[]),
    row("{served} --seccomp kill", SERVED, &[]),
    row("{served} --seccomp trap", SERVED, &[]),
    row(
        "{served} --seccomp KILL",
        NONSENSE,
        &["KILL", "possible values"],
    ),
    row(
        "{served} --modcaps=+sys_admin:-mknod --inode-file-handles=never",
        SERVED,
        &[],
    ),
    row("{served} --modcaps +chown", SERVED, &[]),
    row("{served} --modcaps -mknod", NONSENSE, &["-m"]),
    row(
        "{served} --modcaps=foo",
        END,
        &["--modcaps", "has no sign", "+NAME or -NAME"],
    ),
    row(
        "{served} --modcaps=+cap_chown",
        END,
        &["--modcaps", "names no capability"],
    ),
    row(
        "{served} --modcaps=-no_such_capability",
        END,
        &["names no capability"],
    ),
    row("{served} --modcaps=+chown:", END, &["is empty"]),
    row("{served} --modcaps=:", END, &["is empty"]),
    row("{served} --modcaps=", END, &["is empty"]),
    row("{served} --modcaps=+CHOWN:-Mknod", SERVED, &[]),
    row("{served} -o modcaps=foo", END, &["has no sign"]),
    row(
        "{served} --modcaps=-dac_read_search",
        END,
        &["dac_read_search", "--inode-file-handles=never"],
    ),
    row(
        "{served} --modcaps=-DAC_READ_SEARCH",
        END,
        &["--inode-file-handles=never"],
    ),
    row(
        "{served} --modcaps=-dac_read_search --inode-file-handles=never",
        SERVED,
        &[],
    ),
    row(
        "{served} --modcaps=-dac_read_search:+dac_read_search",
        SERVED,
        &[],
    ),
    row(
        "{served} --uid-map :0:1:1:",
        END,
        &["--uid-map", "--sandbox none"],
    ),
    row(
        "{served} --gid-map :0:1:1:",
        END,
        &["--gid-map", "--sandbox none"],
    ),
    row(
        "{served} --sandbox chroot --uid-map :0:1:1:",
        END,
        &["--uid-map", "--sandbox chroot"],
    ),
    row(
        "{usual} --uid-map 0:1:1",
        NONSENSE,
        &["--uid-map", ":0:100000:65536:"],
    ),
    row("{usual} --uid-map :0:1:", NONSENSE, &["three numbers"]),
    row(
        "{usual} --gid-map :0:1:4294967296:",
        NONSENSE,
        &["--gid-map"],
    ),
    row("{usual} --gid-map :0:one:1:", NONSENSE, &["--gid-map"]),
    // The log.
    row(
        "{served} --log-level WARN --log-level info",
        SERVED,
        &["INFO"],
    ),
    row("{served} --log-level debug", SERVED, &[]),
    row("{served} --log-level trace", SERVED, &[]),
    row("{served} --log-level loud", NONSENSE, &["--log-level"]),
    row(
        "{served} --log-level error --shared-dir {dir}/nowhere",
        END,
        &["does not exist"],
    ),
    row("{served} -d", SERVED, &["-d is deprecated"]),
    row(
        "{served} -f",
        SERVED,
        &["-f is deprecated and has no effect"],
    ),
    row(
        "{served} -df",
        SERVED,
        &["-d is deprecated", "-f is deprecated"],
    ),
    // Options of the C daemon.
    row(
        "-o source={share} --socket-path {dir}/s --sandbox none",
        SERVED,
        &[DEPRECATED_O],
    ),
    row(
        "{served} -o source={dir}/nowhere",
        END,
        &["/nowhere does not exist"],
    ),
    row(
        "{served} --shared-dir {dir}/nowhere -o source={share}",
        SERVED,
        &[DEPRECATED_O],
    ),
    row("{served} -o source={commas},xattr", SERVED, &["a,b c"])
        .unlike_the_existing("it does not know the doubled comma"),
    row("{served} -o source={bytes}", SERVED, &[DEPRECATED_O])
        .unlike_the_existing("it takes UTF-8 only"),
    row(
        "{served} -o xattr -o no_xattr,cache=always -o cache=none",
        SERVED,
        &[DEPRECATED_O],
    ),
    row("{served} -o cache=auto,cache=metadata", SERVED, &[]),
    row("{served} -o cache=never", NONSENSE, &["-o cache=never"]),
    row("{served} -o loglevel=debug,loglevel=info", SERVED, &[]),
    row("{served} -o loglevel=loud", NONSENSE, &["-o loglevel=loud"]),
    row("{served} -o log_level=info", SERVED, &[])
        .unlike_the_existing("it has only the other spelling"),
    row("{usual} -o sandbox=chroot", SERVED, &[]).for_root("root"),
    row("{usual} -o sandbox=namespace", SERVED, &[]),
    row("{served} -o sandbox=none", NONSENSE, &["-o sandbox=none"]),
    row(
        "{served} -o readdirplus,no_readdirplus,writeback,no_writeback,allow_direct_io,\
         no_allow_direct_io,announce_submounts,killpriv_v2,no_killpriv_v2,posix_acl,no_posix_acl,\
         security_label,no_security_label,no_posix_lock,no_flock",
        SERVED,
        &[DEPRECATED_O],
    ),
    row("{served} -o posix_lock,flock", SERVED, &[]).unlike_the_existing("it has no locks"),
    row("{served} -o timeout=2.5", SERVED, &[])
        .unlike_the_existing("it has no time-out of its own"),
    row("{served} -o timeout=-1", NONSENSE, &["-o timeout=-1"]),
    row("{served} -o debug", SERVED, &[]).unlike_the_existing("it has -d only"),
    row("{served} -o max_idle_threads=3", SERVED, &["has no effect"])
        .unlike_the_existing("it does not know what has no effect"),
    row(
        "{served} -o max_idle_threads=x",
        NONSENSE,
        &["max_idle_threads=x"],
    ),
    row("{served} -o allow_root", SERVED, &["has no effect"])
        .unlike_the_existing("it does not know what has no effect"),
    row("{served} -o modcaps=-mknod:+chown", SERVED, &[]),
    row(
        "{served} -o modcaps=-dac_read_search",
        END,
        &["dac_read_search"],
    ),
    row("{served} -o xattrmap=:map::user.:", SERVED, &[]),
    row("{served} -o xattrmap=foo", NONSENSE, &["-o xattrmap=foo"]),
    row("{served} -o nonsense", NONSENSE, &["-o nonsense"]),
    row("{served} -o {empty}", NONSENSE, &["-o "]),
    row("{served} -o xattr,", NONSENSE, &["'-o '"]),
    row("{served} -o xattr=1", NONSENSE, &["-o xattr=1"]),
    row("{served} -o cache", NONSENSE, &["-o cache"]),
    row("{served} -ocache=always", SERVED, &[DEPRECATED_O]),
    // Migration, which is not built yet.
    row(
        "{served} --migration-mode find-paths",
        NONSENSE,
        &["'--migration-mode'", "leave it out"],
    )
    .unlike_the_existing("it has migration"),
    row(
        "{served} --migration-on-error=abort",
        NONSENSE,
        &["'--migration-on-error'"],
    )
    .unlike_the_existing("it has migration"),
    row(
        "{served} --migration-verify-handles",
        NONSENSE,
        &["'--migration-verify-handles'"],
    )
    .unlike_the_existing("it has migration"),
    row(
        "{served} --migration-confirm-paths",
        NONSENSE,
        &["'--migration-confirm-paths'"],
    )
    .unlike_the_existing("it has migration"),
];

/// The command lines of libvirt 11.3.0, with its listening socket as descriptor 3.
pub(crate) const FD_ROWS: &[Row] = &[
    row("--fd=3 --shared-dir {share}", SERVED, &[]),
    row("--fd=3 -o source={share}", SERVED, &[DEPRECATED_O]),
    row("--fd=3 --shared-dir {share} --cache never", SERVED, &[]),
    row("--fd=3 -o source={share},cache=none", SERVED, &[]),
    row(
        "--fd=3 -o source={share},cache=always,no_xattr",
        SERVED,
        &[],
    ),
    row("--fd=3 --shared-dir {share} --sandbox chroot", SERVED, &[]).for_root("root"),
    row("--fd=3 -o source={share},sandbox=chroot", SERVED, &[]).for_root("root"),
    row("--fd=3 -o source={share},flock,posix_lock", SERVED, &[]),
    row(
        "--fd=3 -o source={share},no_flock,no_posix_lock",
        SERVED,
        &[],
    ),
    row(
        "--fd=3 --shared-dir {share} --thread-pool-size=4",
        SERVED,
        &[],
    ),
    row(
        "--fd=3 --shared-dir {share} --rlimit-nofile=4096 --readonly",
        SERVED,
        &[],
    ),
    row(
        "--fd=3 --shared-dir {share} --cache always --sandbox namespace --xattr \
         --thread-pool-size=2 --rlimit-nofile=10000",
        SERVED,
        &[],
    ),
    row(
        "--fd=3 -o source={share},cache=always,sandbox=namespace,xattr --thread-pool-size=2 \
         --rlimit-nofile=10000",
        SERVED,
        &[],
    ),
    row(
        "--fd=3 --shared-dir {share} --uid-map=:0:100000:65536: --gid-map=:0:100000:65536:",
        SERVED,
        &[],
    )
    .for_root("newuidmap"),
    row(
        "--fd=3 --shared-dir {share} --uid-map=:0:1500:1: --uid-map=:1:100000:65536: \
         --gid-map=:0:1500:1: --gid-map=:1:100000:65536:",
        SERVED,
        &[],
    )
    .for_root("newuidmap"),
    row("--fd=3 --shared-dir {comma}", SERVED, &["a,b c"]),
    row("--fd=3 -o source={commas}", SERVED, &["a,b c"]),
    row(
        "--fd=3 --shared-dir {share} --modcaps=-dac_read_search",
        END,
        &["dac_read_search"],
    ),
    row(
        "{share-and-fd} 3 --socket-group root",
        NONSENSE,
        &["--socket-group"],
    ),
    row("{share-and-fd} 2", END, &["is not a socket"]),
];
