//! What: the payload of READDIR and READDIRPLUS.
//!
//! In: entries, one by one. Out: records in a private buffer, and for READDIRPLUS the lookups
//! that they grant. Invariants: a record is whole or absent; its padding is zero; an entry that
//! does not fit grants nothing. An empty list means the end of the directory to a guest, so room
//! for not even one entry is an error, as with getdents(2). Does not: write to the guest.

use crate::fs::types::{DirEntry, DirPlusSink, DirSink, Entry, LookupRef, Packed};
use crate::server::encode::entry_out;
use crate::sys::errno::{Errno, Result};
use crate::wire::dirent::{Dirent, Direntplus, record_align};
use crate::wire::pod::Plain;
use crate::wire::response::EntryOut;

/// Packs records one behind the other.
#[derive(Debug)]
pub(super) struct DirPacker<'b> {
    room: &'b mut [u8],
    len: usize,
    refused: bool,
}

impl<'b> DirPacker<'b> {
    pub(super) fn new(room: &'b mut [u8]) -> Self {
        DirPacker {
            room,
            len: 0,
            refused: false,
        }
    }

    /// Length of the list. Errors: `EINVAL` there was an entry but no room for it.
    pub(super) fn finish(self) -> Result<usize> {
        match (self.len, self.refused) {
            (0, true) => Err(Errno::EINVAL),
            (len, _) => Ok(len),
        }
    }

    /// Adds a record of `fixed`, `name` and zeroes.
    fn pack(&mut self, fixed: &[u8], name: &[u8]) -> Packed {
        let room = self.room.get_mut(self.len..).unwrap_or_default();
        match fill_record(room, fixed, name) {
            Some(record_len) => {
                self.len = self.len.saturating_add(record_len);
                Packed::Yes
            }
            None => {
                self.refused = true;
                Packed::Full
            }
        }
    }
}

impl DirSink for DirPacker<'_> {
    fn add(&mut self, entry: DirEntry<'_>) -> Packed {
        match dirent(&entry) {
            Some(fixed) => self.pack(fixed.as_wire(), entry.name),
            None => Packed::Full,
        }
    }
}

/// Packs records with attributes.
#[derive(Debug)]
pub(super) struct DirPlusPacker<'b, 'fs> {
    packer: DirPacker<'b>,
    lookups: Vec<LookupRef<'fs>>,
}

impl<'b, 'fs> DirPlusPacker<'b, 'fs> {
    pub(super) fn new(room: &'b mut [u8]) -> Self {
        DirPlusPacker {
            packer: DirPacker::new(room),
            lookups: Vec::new(),
        }
    }

    /// Length of the list and the lookups that it grants. Errors: as [`DirPacker::finish`].
    pub(super) fn finish(self) -> Result<(usize, Vec<LookupRef<'fs>>)> {
        Ok((self.packer.finish()?, self.lookups))
    }
}

impl<'fs> DirPlusSink<'fs> for DirPlusPacker<'_, 'fs> {
    fn fits(&self, name_len: usize) -> bool {
        let left_len = self.packer.room.len().saturating_sub(self.packer.len);
        record_len(size_of::<Direntplus>(), name_len).is_some_and(|len| len <= left_len)
    }

    fn add(&mut self, entry: DirEntry<'_>, found: Option<Entry<'fs>>) -> Packed {
        let Some(dirent) = dirent(&entry) else {
            return Packed::Full;
        };
        let entry_out = found.as_ref().map_or_else(EntryOut::zero, entry_out);
        let fixed = Direntplus { entry_out, dirent };
        let packed = self.packer.pack(fixed.as_wire(), entry.name);
        match packed {
            Packed::Yes => self.lookups.extend(found.map(|found| found.lookup)),
            // Dropping the entry takes its lookup back.
            Packed::Full => drop(found),
        }
        packed
    }
}

fn dirent(entry: &DirEntry<'_>) -> Option<Dirent> {
    Some(Dirent {
        ino: entry.ino,
        off: entry.next_offset,
        namelen: u32::try_from(entry.name.len()).ok()?,
        type_: u32::from(entry.kind),
    })
}

/// Writes a record to the front of `room` and returns its length, or `None` if it does not fit.
fn fill_record(room: &mut [u8], fixed: &[u8], name: &[u8]) -> Option<usize> {
    let len = record_len(fixed.len(), name.len())?;
    let record = room.get_mut(..len)?;
    let (fixed_room, rest) = record.split_at_mut_checked(fixed.len())?;
    let (name_room, padding) = rest.split_at_mut_checked(name.len())?;
    fixed_room.copy_from_slice(fixed);
    name_room.copy_from_slice(name);
    padding.fill(0);
    Some(len)
}

fn record_len(fixed_len: usize, name_len: usize) -> Option<usize> {
    record_align(fixed_len.checked_add(name_len)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8]) -> DirEntry<'_> {
        DirEntry {
            ino: 7,
            next_offset: u64::MAX,
            kind: 8,
            name,
        }
    }

    #[test]
    fn a_record_needs_its_aligned_length_and_not_a_byte_less() {
        for (name_len, record_len) in [(1, 32), (8, 32), (9, 40), (255, 280)] {
            let name = vec![b'n'; name_len];
            let mut room = vec![0xee; record_len];
            let mut packer = DirPacker::new(&mut room);
            assert_eq!(packer.add(entry(&name)), Packed::Yes);
            assert_eq!(packer.add(entry(&name)), Packed::Full);
            assert_eq!(packer.finish(), Ok(record_len));
            let mut short = vec![0xee; record_len - 1];
            let mut packer = DirPacker::new(&mut short);
            assert_eq!(packer.add(entry(&name)), Packed::Full);
            assert_eq!(packer.finish(), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn a_record_is_laid_out_as_fuse_h_says_and_its_padding_is_zero() {
        let mut room = vec![0xee; 64];
        let mut packer = DirPacker::new(&mut room);
        assert_eq!(packer.add(entry(b"abc")), Packed::Yes);
        assert_eq!(packer.finish(), Ok(32));
        let mut expected = [7_u64.to_ne_bytes(), u64::MAX.to_ne_bytes()].concat();
        expected.extend_from_slice(&3_u32.to_ne_bytes());
        expected.extend_from_slice(&8_u32.to_ne_bytes());
        expected.extend_from_slice(b"abc\0\0\0\0\0");
        assert_eq!(room[..32], expected);
        assert_eq!(room[32..], [0xee; 32]);
    }

    #[test]
    fn an_empty_list_is_the_end_of_the_directory() {
        assert_eq!(DirPacker::new(&mut []).finish(), Ok(0));
    }

    #[test]
    fn plus_fits_tells_what_add_will_do() {
        for room_len in 0..400 {
            let mut room = vec![0xee; room_len];
            let mut packer = DirPlusPacker::new(&mut room);
            let fits = packer.fits(3);
            assert_eq!(fits, room_len >= 160);
            assert_eq!(packer.add(entry(b"abc"), None) == Packed::Yes, fits);
            let fits_again = packer.fits(3);
            assert_eq!(fits_again, room_len >= 320);
            assert_eq!(packer.add(entry(b"abc"), None) == Packed::Yes, fits_again);
        }
    }

    #[test]
    fn plus_without_a_node_has_an_entry_of_zeroes() {
        let mut room = vec![0xee; 160];
        let mut packer = DirPlusPacker::new(&mut room);
        assert_eq!(packer.add(entry(b".."), None), Packed::Yes);
        let (len, lookups) = packer.finish().expect("one entry");
        assert_eq!((len, lookups.len()), (160, 0));
        assert_eq!(room[..128], [0; 128]);
        assert_eq!(room[152..], *b"..\0\0\0\0\0\0");
    }
}
