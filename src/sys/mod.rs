//! Linux system calls, one file per family of man pages, as safe functions over owned and
//! borrowed descriptors. `errno` is read in here and nowhere else.

pub mod errno;
