//! What: the numbers of the operations.
//!
//! In: the `opcode` of a request. Out: [`Opcode`]. Invariant: every number is either a known
//! operation or [`Opcode::Unknown`]; [`Opcode::has_reply`] alone says whether the guest waits.

/// Whether a guest waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Answered,
    Silent,
}

macro_rules! opcodes {
    ($($name:ident = $number:literal $c_name:literal $manners:ident,)*) => {
        /// An operation (`enum fuse_opcode`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Opcode {
            $(
                #[doc = concat!("`FUSE_", $c_name, "`, ", $number, ".")]
                $name,
            )*
            /// A number that 7.45 does not define, or that belongs to CUSE.
            Unknown(u32),
        }

        impl Opcode {
            /// Every known operation, in the order of the numbers.
            pub const ALL: &[Opcode] = &[$(Opcode::$name,)*];

            /// The operation with this number.
            pub const fn from_raw(number: u32) -> Self {
                match number {
                    $($number => Opcode::$name,)*
                    other => Opcode::Unknown(other),
                }
            }

            /// The number on the wire.
            pub const fn raw(self) -> u32 {
                match self {
                    $(Opcode::$name => $number,)*
                    Opcode::Unknown(number) => number,
                }
            }

            /// The name as fuse.h spells it, without its prefix.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Opcode::$name => $c_name,)*
                    Opcode::Unknown(_) => "unknown",
                }
            }

            /// Whether the guest waits for a reply. Operations without one get not even an error.
            pub const fn has_reply(self) -> bool {
                let manners = match self {
                    $(Opcode::$name => Manners::$manners,)*
                    Opcode::Unknown(_) => Manners::Answered,
                };
                matches!(manners, Manners::Answered)
            }
        }
    };
}

impl Opcode {
    /// Whether it takes as long as there is data, which only the guest knows: to be written out,
    /// to be copied, to be given its blocks.
    pub const fn has_no_bound(self) -> bool {
        matches!(
            self,
            Opcode::Fsync
                | Opcode::Fsyncdir
                | Opcode::Syncfs
                | Opcode::Fallocate
                | Opcode::CopyFileRange
                | Opcode::CopyFileRange64
        )
    }
}

opcodes! {
    Lookup = 1 "LOOKUP" Answered,
    Forget = 2 "FORGET" Silent,
    Getattr = 3 "GETATTR" Answered,
    Setattr = 4 "SETATTR" Answered,
    Readlink = 5 "READLINK" Answered,
    Symlink = 6 "SYMLINK" Answered,
    Mknod = 8 "MKNOD" Answered,
    Mkdir = 9 "MKDIR" Answered,
    Unlink = 10 "UNLINK" Answered,
    Rmdir = 11 "RMDIR" Answered,
    Rename = 12 "RENAME" Answered,
    Link = 13 "LINK" Answered,
    Open = 14 "OPEN" Answered,
    Read = 15 "READ" Answered,
    Write = 16 "WRITE" Answered,
    Statfs = 17 "STATFS" Answered,
    Release = 18 "RELEASE" Answered,
    Fsync = 20 "FSYNC" Answered,
    Setxattr = 21 "SETXATTR" Answered,
    Getxattr = 22 "GETXATTR" Answered,
    Listxattr = 23 "LISTXATTR" Answered,
    Removexattr = 24 "REMOVEXATTR" Answered,
    Flush = 25 "FLUSH" Answered,
    Init = 26 "INIT" Answered,
    Opendir = 27 "OPENDIR" Answered,
    Readdir = 28 "READDIR" Answered,
    Releasedir = 29 "RELEASEDIR" Answered,
    Fsyncdir = 30 "FSYNCDIR" Answered,
    Getlk = 31 "GETLK" Answered,
    Setlk = 32 "SETLK" Answered,
    Setlkw = 33 "SETLKW" Answered,
    Access = 34 "ACCESS" Answered,
    Create = 35 "CREATE" Answered,
    Interrupt = 36 "INTERRUPT" Silent,
    Bmap = 37 "BMAP" Answered,
    Destroy = 38 "DESTROY" Answered,
    Ioctl = 39 "IOCTL" Answered,
    Poll = 40 "POLL" Answered,
    NotifyReply = 41 "NOTIFY_REPLY" Answered,
    BatchForget = 42 "BATCH_FORGET" Silent,
    Fallocate = 43 "FALLOCATE" Answered,
    Readdirplus = 44 "READDIRPLUS" Answered,
    Rename2 = 45 "RENAME2" Answered,
    Lseek = 46 "LSEEK" Answered,
    CopyFileRange = 47 "COPY_FILE_RANGE" Answered,
    Setupmapping = 48 "SETUPMAPPING" Answered,
    Removemapping = 49 "REMOVEMAPPING" Answered,
    Syncfs = 50 "SYNCFS" Answered,
    Tmpfile = 51 "TMPFILE" Answered,
    Statx = 52 "STATX" Answered,
    CopyFileRange64 = 53 "COPY_FILE_RANGE_64" Answered,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_round_trips() {
        for number in (0..70).chain([4096, 1_048_576, 436_207_616, u32::MAX]) {
            assert_eq!(Opcode::from_raw(number).raw(), number);
        }
    }

    #[test]
    fn only_forget_batch_forget_and_interrupt_are_silent() {
        let silent: Vec<u32> = (0..70)
            .filter(|&number| !Opcode::from_raw(number).has_reply())
            .collect();
        assert_eq!(silent, [2, 36, 42]);
    }
}
