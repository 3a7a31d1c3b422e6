//! What: `--sandbox namespace`: a child in namespaces of its own, whose root is the share.
//!
//! ```text
//!   clone the share's mounts --> nodev, nosuid --> put over the share --> pivot_root --> detach
//!   the old root --> ids
//! ```
//!
//! The id switch comes last: the user that the guest's root is may be unable to reach the share by
//! its path. The old root goes with everything below it, /proc and /dev among it.

use std::os::fd::{AsFd, OwnedFd};

use super::error::{MountStep, SandboxError};
use super::id_maps::{self, IdMapEntry, MapWriter};
use super::supervisor::{self, ParentLink, Split};
use super::{Confined, Role, SandboxSettings, SharedDir, private_proc_fd, root_of_process};
use crate::process::capabilities::Prepared;
use crate::sys::credentials;
use crate::sys::errno::Errno;
use crate::sys::fork::Namespaces;
use crate::sys::meta::{self, FileType};
use crate::sys::mount::{self, Submounts};
use crate::sys::open;

/// Splits off the child and confines it.
pub(super) fn enter(
    settings: &SandboxSettings,
    share: &SharedDir,
    prepared: Prepared,
) -> Result<Role, SandboxError> {
    let maps = Maps::wanted(settings);
    let mut namespaces = Namespaces::MOUNT | Namespaces::PID | Namespaces::NETWORK;
    namespaces.set(Namespaces::USER, maps.is_some());
    match supervisor::split(namespaces)? {
        Split::Parent(child) => {
            if let Some(maps) = &maps {
                maps.writer.write(child.pid(), &maps.uid, &maps.gid)?;
            }
            child.go(prepared).map(Role::Supervisor)
        }
        Split::Child(parent) => confine(share, maps.as_ref(), parent).map(Role::Server),
    }
}

/// The ids of the user namespace.
struct Maps {
    uid: Vec<IdMapEntry>,
    gid: Vec<IdMapEntry>,
    writer: MapWriter,
}

impl Maps {
    /// Root needs a user namespace only to give the guest other ids; an ordinary user needs one to
    /// get the others, and is the same user there unless the operator says otherwise.
    fn wanted(settings: &SandboxSettings) -> Option<Self> {
        let (uid, gid) = (credentials::effective_uid(), credentials::effective_gid());
        let is_root = uid == 0;
        if is_root && settings.uid_map.is_empty() && settings.gid_map.is_empty() {
            return None;
        }
        let or_own = |wanted: &[IdMapEntry], id: u32| match wanted {
            [] if is_root => vec![IdMapEntry::EVERYBODY],
            [] => vec![IdMapEntry::own(id)],
            [_, ..] => wanted.to_vec(),
        };
        Some(Maps {
            uid: or_own(&settings.uid_map, uid),
            gid: or_own(&settings.gid_map, gid),
            writer: MapWriter::new(uid, gid),
        })
    }
}

fn confine(
    share: &SharedDir,
    maps: Option<&Maps>,
    parent: ParentLink,
) -> Result<Confined, SandboxError> {
    parent.wait_for_go();
    let step = |step| move |source| SandboxError::Mount { step, source };
    mount::make_all_slave().map_err(step(MountStep::Slave))?;
    let proc_fd = private_proc_fd()?;
    let directory = find_again(share)?;
    let tree = mount::clone_tree(directory.as_fd(), Submounts::Included)
        .map_err(step(MountStep::Clone))?;
    match mount::forbid_devices_and_set_id(tree.as_fd()) {
        Ok(()) => (),
        Err(Errno::ENOSYS) => log::warn!(
            "Linux before 5.12 cannot make the share nodev and nosuid for the daemon; mount it so \
             on the host"
        ),
        Err(source) => return Err(step(MountStep::Attributes)(source)),
    }
    mount::put(tree.as_fd(), directory.as_fd()).map_err(step(MountStep::Put))?;
    mount::enter(tree.as_fd()).map_err(step(MountStep::Enter))?;
    mount::pivot_here().map_err(step(MountStep::Pivot))?;
    mount::detach_here().map_err(step(MountStep::Detach))?;
    let root = root_of_process()?;
    mount::enter(root.as_fd()).map_err(step(MountStep::Enter))?;
    if let Some(maps) = maps {
        become_root_inside(maps)?;
        parent.follow()?;
    }
    Ok(Confined {
        root,
        proc_fd,
        parent: Some(parent),
    })
}

/// The shared directory in this mount namespace: what is pinned belongs to the parent's. Found by
/// its real path, and shown to be the same.
fn find_again(share: &SharedDir) -> Result<OwnedFd, SandboxError> {
    let found = open::pin_path(&share.real_path);
    let found = found.map_err(|source| SandboxError::FindShare {
        path: share.real_path.clone(),
        source,
    })?;
    let stat = |fd| {
        meta::stat_fd(fd).map_err(|source| SandboxError::FindShare {
            path: share.real_path.clone(),
            source,
        })
    };
    let (there, here) = (stat(share.as_fd())?, stat(found.as_fd())?);
    if here.file_type() != FileType::Directory {
        return Err(SandboxError::NotADirectory(share.real_path.clone()));
    }
    if (there.dev, there.ino) != (here.dev, here.ino) {
        return Err(SandboxError::FindShare {
            path: share.real_path.clone(),
            source: Errno::ESTALE,
        });
    }
    Ok(found)
}

/// Root of the user namespace, where it has one; otherwise the user that it was outside.
fn become_root_inside(maps: &Maps) -> Result<(), SandboxError> {
    if !(id_maps::has_root(&maps.uid) && id_maps::has_root(&maps.gid)) {
        log::debug!("the user namespace has no root; ids stay as they are");
        return Ok(());
    }
    match credentials::set_groups(&[]) {
        // A map that the user himself wrote denies it, user_namespaces(7).
        Ok(()) | Err(Errno::EPERM) => (),
        Err(source) => return Err(SandboxError::DropGroups(source)),
    }
    credentials::become_for_good(0, 0).map_err(SandboxError::SetIds)
}
