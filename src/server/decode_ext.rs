//! What: the extensions at the end of creating requests.
//!
//! In: the bytes that `total_extlen` marks off, or, for guests that are too old to have that,
//! everything behind the last name. Out: a few security contexts and at most one supplementary
//! group, which is all that Linux sends. Invariants: every record is bounded by the
//! bytes that are there; unknown types, types that were not negotiated, duplicates and records
//! cut short are `EINVAL`. Does not: apply anything.

use crate::fs::types::{Negotiated, SecurityContext, SecurityContexts};
use crate::ids::types::GuestGid;
use crate::server::body::XATTR_NAME_LEN_MAX;
use crate::server::cursor::Cursor;
use crate::sys::errno::{Errno, Result};
use crate::wire::MINOR_VERSION_EXTENSIONS;
use crate::wire::extension::{ExtHeader, SECCTX_TYPE_MAX, Secctx, SuppGroups, TYPE_GROUPS};
use crate::wire::flags::SessionFlags;
use crate::wire::opcode::Opcode;
use crate::wire::pod::Plain;

/// Longest extensions in bytes: a context is an extended attribute, and Linux limits those to
/// 64 KiB; labels in use have some dozen bytes. What is left over holds names and headers.
pub(super) const EXTENSIONS_LEN_MAX: usize = 64 * 1024;

/// How creating requests bring their extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExtensionForm {
    /// As many bytes at the end as the header says.
    Counted,
    /// One record of contexts behind the last name, at no particular alignment, of which the
    /// header says nothing: FUSE 7.36 and 7.37 (Linux 5.17 to 6.2) with SECURITY_CTX.
    Trailing,
}

impl ExtensionForm {
    /// The form in this session.
    pub(super) fn of(session: &Negotiated) -> Self {
        let is_labelling = session.flags.contains(SessionFlags::SECURITY_CTX);
        match is_labelling && session.minor < MINOR_VERSION_EXTENSIONS {
            true => ExtensionForm::Trailing,
            false => ExtensionForm::Counted,
        }
    }
}

/// What the extensions of one request say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions<'a> {
    pub(super) security_contexts: SecurityContexts<'a>,
    /// Outer `None`: no record of groups. Inner `None`: an empty list.
    supplementary_gid: Option<Option<GuestGid>>,
}

impl Extensions<'_> {
    /// The group that the caller is a member of besides its own.
    pub(super) fn supplementary_gid(&self) -> Option<GuestGid> {
        self.supplementary_gid.flatten()
    }
}

/// Whether requests of this kind may carry extensions at all.
pub(super) const fn takes_extensions(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Create | Opcode::Tmpfile
    )
}

/// Parses all extensions of a request.
pub(super) fn decode_extensions(bytes: &[u8], enabled: SessionFlags) -> Result<Extensions<'_>> {
    let mut cursor = Cursor::new(bytes);
    let mut extensions = Extensions::default();
    let mut context_seen = false;
    // Each round consumes at least a header, so the bytes bound the rounds.
    while !cursor.rest().is_empty() {
        let (header, payload) = take_record(&mut cursor)?;
        if header.type_ <= SECCTX_TYPE_MAX {
            if context_seen || !enabled.contains(SessionFlags::SECURITY_CTX) {
                return Err(Errno::EINVAL);
            }
            context_seen = true;
            extensions.security_contexts = decode_contexts(header.type_, payload)?;
        } else if header.type_ == TYPE_GROUPS {
            let seen = extensions.supplementary_gid.is_some();
            if seen || !enabled.contains(SessionFlags::CREATE_SUPP_GROUP) {
                return Err(Errno::EINVAL);
            }
            extensions.supplementary_gid = Some(decode_groups(payload)?);
        } else {
            return Err(Errno::EINVAL);
        }
    }
    Ok(extensions)
}

/// The next record without its header and padding.
fn take_record<'a>(cursor: &mut Cursor<'a>) -> Result<(ExtHeader, Cursor<'a>)> {
    let header: ExtHeader = cursor.take()?;
    let size = usize::try_from(header.size).map_err(|_| Errno::EINVAL)?;
    let payload_len = size
        .checked_sub(size_of::<ExtHeader>())
        .ok_or(Errno::EINVAL)?;
    let payload = cursor.take_bytes(payload_len)?;
    skip_padding(cursor, size)?;
    Ok((header, Cursor::new(payload)))
}

/// Skips what fills `len` bytes up to a multiple of 8.
fn skip_padding(cursor: &mut Cursor<'_>, len: usize) -> Result<()> {
    let aligned = crate::wire::dirent::record_align(len).ok_or(Errno::EINVAL)?;
    let padding_len = aligned.checked_sub(len).ok_or(Errno::EINVAL)?;
    cursor.take_bytes(padding_len).map(drop)
}

/// The contexts of one record; `count` is bounded by what [`SecurityContexts`] hold.
fn decode_contexts(count: u32, mut payload: Cursor<'_>) -> Result<SecurityContexts<'_>> {
    let mut contexts = SecurityContexts::default();
    for _ in 0..count {
        let start_len = payload.rest().len();
        contexts.add(take_context(&mut payload)?)?;
        let used_len = start_len
            .checked_sub(payload.rest().len())
            .ok_or(Errno::EINVAL)?;
        // Linux pads the last context as well, and counts that into the record; other guests may
        // not.
        if !payload.rest().is_empty() {
            skip_padding(&mut payload, used_len)?;
        }
    }
    payload.finish()?;
    Ok(contexts)
}

fn take_context<'a>(payload: &mut Cursor<'a>) -> Result<SecurityContext<'a>> {
    let header: Secctx = payload.take()?;
    let name = payload.take_c_str()?;
    if name.is_empty() || name.count_bytes() > XATTR_NAME_LEN_MAX || header.size == 0 {
        return Err(Errno::EINVAL);
    }
    let size = usize::try_from(header.size).map_err(|_| Errno::EINVAL)?;
    let value = payload.take_bytes(size)?;
    Ok(SecurityContext { name, value })
}

fn decode_groups(mut payload: Cursor<'_>) -> Result<Option<GuestGid>> {
    let groups: SuppGroups = payload.take()?;
    let group = match groups.nr_groups {
        0 => None,
        1 => {
            let (raw, _) = u32::split_from(payload.take_bytes(4)?).ok_or(Errno::EINVAL)?;
            Some(GuestGid::new(raw).ok_or(Errno::EINVAL)?)
        }
        // Only the group of the parent directory is ever of use.
        2.. => return Err(Errno::EINVAL),
    };
    // The record itself is padded to 8 bytes.
    if payload.rest().len() >= crate::wire::dirent::RECORD_ALIGN {
        return Err(Errno::EINVAL);
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: SessionFlags = SessionFlags::SECURITY_CTX.union(SessionFlags::CREATE_SUPP_GROUP);

    fn record(type_: u32, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len() + 8).expect("small");
        let mut bytes = [size.to_ne_bytes(), type_.to_ne_bytes()].concat();
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn groups(list: &[u32]) -> Vec<u8> {
        let count = u32::try_from(list.len()).expect("small");
        let numbers = std::iter::once(&count).chain(list);
        record(
            TYPE_GROUPS,
            &numbers.flat_map(|n| n.to_ne_bytes()).collect::<Vec<_>>(),
        )
    }

    fn context(size: u32, name_and_value: &[u8]) -> Vec<u8> {
        let mut payload = [size.to_ne_bytes(), [0; 4]].concat();
        payload.extend_from_slice(name_and_value);
        record(1, &payload)
    }

    /// One record with a context `security.NAME=v` for each name.
    fn contexts(names: &[&[u8]]) -> Vec<u8> {
        let mut payload = Vec::new();
        for name in names {
            payload.extend_from_slice(&1_u32.to_ne_bytes());
            payload.extend_from_slice(&[0; 4]);
            payload.extend_from_slice(&[b"security.", *name, b"\0v"].concat());
            payload.resize(payload.len().next_multiple_of(8), 0);
        }
        record(u32::try_from(names.len()).expect("small"), &payload)
    }

    #[test]
    fn several_contexts_are_understood() {
        let bytes = contexts(&[b"selinux", b"SMACK64"]);
        let extensions = decode_extensions(&bytes, BOTH).expect("well-formed");
        let names: Vec<_> = extensions
            .security_contexts
            .iter()
            .map(|c| c.name)
            .collect();
        assert_eq!(names, [c"security.selinux", c"security.SMACK64"]);
    }

    #[test]
    fn one_group_and_one_context_are_understood() {
        let bytes = [context(3, b"security.x\0abc"), groups(&[100])].concat();
        let extensions = decode_extensions(&bytes, BOTH).expect("well-formed");
        assert_eq!(extensions.supplementary_gid(), GuestGid::new(100));
        let expected = SecurityContext {
            name: c"security.x",
            value: b"abc",
        };
        let contexts: Vec<_> = extensions.security_contexts.iter().collect();
        assert_eq!(contexts, [expected]);
        assert_eq!(decode_extensions(&[], BOTH), Ok(Extensions::default()));
        let no_groups = groups(&[]);
        let empty = decode_extensions(&no_groups, BOTH).expect("well-formed");
        assert_eq!(empty.supplementary_gid(), None);
    }

    #[test]
    fn malformed_records_are_einval() {
        let no_nul = context(3, b"security.xabc");
        let too_long = context(300, b"security.x\0abc");
        let mut size_seven = groups(&[1]);
        size_seven[0] = 7;
        let mut size_zero = groups(&[1]);
        size_zero[0] = 0;
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("size 0", size_zero),
            ("size 7", size_seven),
            ("size beyond the end", groups(&[1])[..8].to_vec()),
            ("unknown type", record(33, &[0; 8])),
            ("two contexts that are empty", record(2, &[0; 32])),
            (
                "more contexts than modules",
                contexts(&[b"a", b"b", b"c", b"d", b"e"]),
            ),
            ("two contexts of one name", contexts(&[b"a", b"a"])),
            (
                "two context records",
                [context(1, b"a\0b"), context(1, b"a\0b")].concat(),
            ),
            ("context without NUL", no_nul),
            ("context value too long", too_long),
            ("context of size 0", context(0, b"a\0")),
            ("context without name", context(1, b"\0b")),
            ("two groups", groups(&[1, 2])),
            (
                "claims 65537 groups",
                record(TYPE_GROUPS, &65537_u32.to_ne_bytes()),
            ),
            ("the id that is none", groups(&[u32::MAX])),
            ("two group records", [groups(&[1]), groups(&[1])].concat()),
            ("half a header", vec![0; 4]),
        ];
        for (name, bytes) in cases {
            assert_eq!(
                decode_extensions(&bytes, BOTH),
                Err(Errno::EINVAL),
                "{name}"
            );
        }
    }

    #[test]
    fn types_that_were_not_negotiated_are_einval() {
        for (bytes, others) in [
            (groups(&[1]), SessionFlags::SECURITY_CTX),
            (context(1, b"a\0b"), SessionFlags::CREATE_SUPP_GROUP),
        ] {
            assert!(decode_extensions(&bytes, BOTH).is_ok());
            assert_eq!(decode_extensions(&bytes, others), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn every_truncation_is_an_error_or_fewer_records() {
        let bytes = [context(3, b"security.x\0abc"), groups(&[100])].concat();
        let boundary = context(3, b"security.x\0abc").len();
        for len in (1..bytes.len()).filter(|&len| len != boundary) {
            let result = decode_extensions(&bytes[..len], BOTH);
            assert_eq!(result, Err(Errno::EINVAL), "cut at {len}");
        }
    }
}
