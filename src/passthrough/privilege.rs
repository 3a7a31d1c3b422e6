//! What: acting as the guest's caller while something is made, so that the host's kernel gives
//! it the right owner and group, honours set-group-id directories and quotas, and refuses what
//! the caller may not do.
//!
//! In: a caller with guest ids. Out: [`AsCaller`], a guard: while it lives the calling thread,
//! and no other, has the caller's effective ids.
//!
//! ```text
//!   own ids --setgroups--> --setresgid--> --setresuid--> [--capset-->] caller's ids
//!           <--setgroups-- <--setresgid-- <--setresuid--
//! ```
//!
//! Each step is a guard of its own, made before the next step, so whatever fails, exactly the
//! steps that were taken are undone, in reverse. A switch that fails fails the request. A way
//! back that fails aborts the process: nobody may go on with unknown credentials.
//!
//! Steps that would change nothing are skipped. So is root for a daemon that is not root: it
//! cannot become root, and stands in for the guest's root.
//!
//! **Groups.** A caller may owe the right to write to a directory to one of its supplementary
//! groups. With CREATE_SUPP_GROUP the guest says which, and the host checks exactly. Without
//! it the host cannot know, so `CAP_DAC_OVERRIDE`, and nothing else, stays effective: the guest
//! has checked permissions already. Leaving uid 0 clears the effective set and coming back to 0
//! fills it from the permitted one, so one capset(2) on the way out is all it costs. Keeping
//! every capability (SECBIT_NO_SETUID_FIXUP) would be cheaper by one call, but `CAP_SYS_RESOURCE`
//! would then lift quotas and `CAP_FSETID` the rules for set-group-id.
//!
//! **Root.** Where the policy gives the guest a range of ids of its own, its root is no root on
//! the host, and yet has to be able to make things in directories of the other users of its
//! range, as its kernel has allowed. It keeps `CAP_DAC_OVERRIDE` for the same reason. That is no
//! more than it has by renaming and removing, which the daemon does as itself. It does not keep
//! `CAP_MKNOD`: a device node that belongs to an ordinary user is a hole in the host. A root that
//! is squashed, and so is not shown as root again, keeps nothing.

use std::marker::PhantomData;

use crate::fs::types::Caller;
use crate::ids::translator::Translator;
use crate::ids::types::{GuestUid, HostGid, HostUid};
use crate::sys::credentials;
use crate::sys::errno::{Errno, Result};
use crate::sys::process;
use crate::sys::thread::FsThread;

/// A caller as the host knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostCaller {
    uid: HostUid,
    gid: HostGid,
    supplementary_gid: Option<HostGid>,
    rank: Rank,
}

/// What a caller may do in the guest, as far as the host has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// Root there, and shown as root again.
    Root,
    /// Anybody else.
    Ordinary,
}

impl HostCaller {
    /// Who a caller is on the host.
    ///
    /// # Errors
    /// `EOVERFLOW` for a caller without ids, as open(2) says where an idmapped mount has no
    /// mapping; `EPERM` for ids that the policy forbids.
    pub(super) fn resolve(translator: &Translator, caller: &Caller) -> Result<Self> {
        let uid = caller.uid.ok_or(Errno::EOVERFLOW)?;
        let gid = caller.gid.ok_or(Errno::EOVERFLOW)?;
        let supplementary_gid = match caller.supplementary_gid {
            Some(gid) => Some(translator.host_gid(gid).ok_or(Errno::EPERM)?),
            None => None,
        };
        let host_uid = translator.host_uid(uid).ok_or(Errno::EPERM)?;
        let rank = match (uid, translator.guest_uid(host_uid)) {
            (GuestUid::ROOT, GuestUid::ROOT) => Rank::Root,
            _ => Rank::Ordinary,
        };
        Ok(HostCaller {
            uid: host_uid,
            gid: translator.host_gid(gid).ok_or(Errno::EPERM)?,
            supplementary_gid,
            rank,
        })
    }
}

/// What is known of the supplementary groups that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupKnowledge {
    /// The guest names the one that counts, if any does (CREATE_SUPP_GROUP).
    Exact,
    /// The guest cannot say.
    None,
}

/// The calling thread acts as a caller for as long as this lives. Fields are dropped, and so
/// undone, from top to bottom.
#[derive(Debug)]
pub(super) struct AsCaller<'thread> {
    _uid: Option<EffectiveUid<'thread>>,
    _gid: Option<EffectiveGid<'thread>>,
    _groups: Option<Groups<'thread>>,
}

impl<'thread> AsCaller<'thread> {
    /// Makes the calling thread act as `caller`.
    ///
    /// # Errors
    /// `EPERM` when the daemon may not, `EINVAL` for ids that its user namespace does not map.
    pub(super) fn become_caller(
        thread: &'thread FsThread,
        caller: &HostCaller,
        known: GroupKnowledge,
    ) -> Result<Self> {
        let own = thread.own();
        let (uid, gid) = (caller.uid.raw(), caller.gid.raw());
        // A daemon that is not root cannot switch to root; it stands in for it.
        let stands_in_for = |id: u32| id == 0 && own.uid != 0;
        let switch_uid = uid != own.uid && !stands_in_for(uid);
        let switch_gid = gid != own.gid && !stands_in_for(gid);
        // Groups decide nothing for one who keeps the daemon's own user id.
        let groups = if switch_uid {
            Groups::switch(thread, caller.supplementary_gid)?
        } else {
            None
        };
        let gid = if switch_gid {
            Some(EffectiveGid::switch(thread, gid)?)
        } else {
            None
        };
        let uid = if switch_uid {
            let permissions = match (known, caller.rank) {
                (GroupKnowledge::Exact, Rank::Ordinary) => Permissions::Checked,
                (GroupKnowledge::None, Rank::Root | Rank::Ordinary)
                | (GroupKnowledge::Exact, Rank::Root) => Permissions::Overridden,
            };
            Some(EffectiveUid::switch(thread, uid, permissions)?)
        } else {
            None
        };
        Ok(AsCaller {
            _uid: uid,
            _gid: gid,
            _groups: groups,
        })
    }
}

/// The thread has the caller's supplementary groups.
#[derive(Debug)]
struct Groups<'thread>(&'thread FsThread);

impl<'thread> Groups<'thread> {
    fn switch(thread: &'thread FsThread, gid: Option<HostGid>) -> Result<Option<Self>> {
        let gid = gid.map(HostGid::raw);
        // The daemon's own groups must not help a caller, so they go as well.
        if gid.as_slice() == &*thread.own().groups {
            return Ok(None);
        }
        credentials::set_groups(gid.as_slice())?;
        Ok(Some(Groups(thread)))
    }
}

impl Drop for Groups<'_> {
    fn drop(&mut self) {
        or_abort(credentials::set_groups(&self.0.own().groups));
    }
}

/// The thread has the caller's group id.
#[derive(Debug)]
struct EffectiveGid<'thread>(&'thread FsThread);

impl<'thread> EffectiveGid<'thread> {
    fn switch(thread: &'thread FsThread, gid: u32) -> Result<Self> {
        credentials::set_effective_gid(gid)?;
        Ok(EffectiveGid(thread))
    }
}

impl Drop for EffectiveGid<'_> {
    fn drop(&mut self) {
        or_abort(credentials::set_effective_gid(self.0.own().gid));
    }
}

/// Who checks the permissions of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permissions {
    /// The host's kernel.
    Checked,
    /// The guest's alone: `CAP_DAC_OVERRIDE` stays effective.
    Overridden,
}

/// The thread has the caller's user id, and at most one effective capability.
#[derive(Debug)]
struct EffectiveUid<'thread>(&'thread FsThread);

impl<'thread> EffectiveUid<'thread> {
    fn switch(thread: &'thread FsThread, uid: u32, permissions: Permissions) -> Result<Self> {
        credentials::set_effective_uid(uid)?;
        let switched = EffectiveUid(thread);
        let own = thread.own();
        if permissions == Permissions::Overridden
            && own.uid == 0
            && let Some(sets) = own.capabilities.only_dac_override()
        {
            credentials::set_capabilities(&sets)?;
        }
        Ok(switched)
    }
}

impl Drop for EffectiveUid<'_> {
    fn drop(&mut self) {
        or_abort(credentials::set_effective_uid(self.0.own().uid));
    }
}

/// The thread has the caller's file mode creation mask, which the host's kernel applies unless the
/// directory has a default access control list. Without it the mask is 0.
#[derive(Debug)]
pub(super) struct CallerUmask<'thread>(PhantomData<&'thread FsThread>);

impl<'thread> CallerUmask<'thread> {
    /// Takes over the mask; nothing to do for an empty one. Cannot fail, see umask(2). The
    /// FsThread is the proof that no other thread shares it.
    pub(super) fn set(_: &'thread FsThread, umask: u32) -> Option<Self> {
        if umask == 0 {
            return None;
        }
        process::set_umask(umask);
        Some(CallerUmask(PhantomData))
    }
}

impl Drop for CallerUmask<'_> {
    fn drop(&mut self) {
        process::set_umask(0);
    }
}

/// The thread has no more rights over inode flags than the owner of the inode has. Not to be
/// combined with [`AsCaller`], which takes more away: coming back from here would give it back.
#[derive(Debug)]
pub(super) struct AsOrdinaryOwner<'thread>(Option<&'thread FsThread>);

impl<'thread> AsOrdinaryOwner<'thread> {
    /// Takes the rights away.
    ///
    /// # Errors
    /// As capset(2), which lets everybody take capabilities from himself.
    pub(super) fn on(thread: &'thread FsThread) -> Result<Self> {
        let own = thread.own().capabilities;
        let ordinary = own.without_inode_rights();
        if ordinary == own {
            return Ok(AsOrdinaryOwner(None));
        }
        credentials::set_capabilities(&ordinary)?;
        Ok(AsOrdinaryOwner(Some(thread)))
    }
}

impl Drop for AsOrdinaryOwner<'_> {
    fn drop(&mut self) {
        if let Some(thread) = self.0 {
            or_abort(credentials::set_capabilities(&thread.own().capabilities));
        }
    }
}

/// Ends the process if the way back failed.
fn or_abort(restored: Result<()>) {
    if let Err(errno) = restored {
        log::error!("cannot get back to the daemon's own credentials: {errno}");
        std::process::abort();
    }
}
