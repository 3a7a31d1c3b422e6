//! The room driven as the server drives it, on directories of the host.
//!
//! Each test ends with `guest.leftovers()` equal to [`share::NOTHING_LEFT`]: no node, no handle,
//! no descriptor into the share but its root's, and the files beside the share unchanged.

mod acl;
mod attr;
mod births;
mod caching;
mod cold;
mod credentials;
mod data;
mod dir;
mod export;
mod footprint;
mod ioctl;
mod killpriv;
mod limits;
mod lock_waits;
mod locks;
mod lookup;
mod mounts;
mod namespace;
mod open;
mod reuse;
mod secctx;
mod session;
pub(super) mod share;
mod unopened;
mod unopened_dirs;
mod xattr;
