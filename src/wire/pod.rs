//! What: the proof that a wire layout is nothing but bytes, and the two conversions that need it.
//!
//! In: a struct written with `wire_struct!`. Out: [`Plain`], that is, the struct's bytes and the
//! struct from bytes. Invariants, checked when compiling: `repr(C)`, no padding between or after
//! fields, every field itself plain, and the size that fuse.h gives. This is the only file of
//! `wire` with `unsafe`. Does not: check what the bytes mean.

use vm_memory::ByteValued;

/// A layout that any bytes may fill and that has no bytes besides its fields.
pub trait Plain: ByteValued {
    /// The bytes of the value, in the order of the wire.
    fn as_wire(&self) -> &[u8] {
        self.as_slice()
    }

    /// The same, to be filled with any bytes.
    fn as_wire_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }

    /// A value with every byte zero.
    fn zero() -> Self {
        Self::zeroed()
    }

    /// A copy of the value at the front of `bytes` (at any alignment) and what follows it, or
    /// `None` when there are too few bytes.
    fn split_from(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (front, rest) = bytes.split_at_checked(size_of::<Self>())?;
        let mut value = Self::zeroed();
        value.as_wire_mut().copy_from_slice(front);
        Some((value, rest))
    }

    /// A value from the front of `bytes`; bytes that are missing count as zero, those beyond are
    /// ignored. For layouts that grew at their end (INIT).
    fn from_grown(bytes: &[u8]) -> Self {
        let mut value = Self::zeroed();
        for (to, from) in value.as_wire_mut().iter_mut().zip(bytes) {
            *to = *from;
        }
        value
    }
}

impl<T: ByteValued> Plain for T {}

/// Checks at compile time that a field is plain itself.
pub(crate) const fn require_plain<T: ByteValued>() {}

/// Declares a layout of fuse.h: `wire_struct! { "C name", size; pub struct Name { pub a: u32, } }`.
macro_rules! wire_struct {
    (
        $c_name:literal, $size:literal;
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty, )*
        }
    ) => {
        #[doc = concat!("`struct ", $c_name, "`, ", $size, " bytes.")]
        ///
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        $vis struct $name {
            $(
                #[doc = concat!("`", stringify!($field), "` of `", $c_name, "`.")]
                $(#[$field_meta])*
                $field_vis $field: $type,
            )*
        }

        const _: () = {
            assert!(size_of::<$name>() == $size, "not the size that fuse.h gives");
            assert!(size_of::<$name>() == 0 $( + size_of::<$type>() )*, "padding");
            $( $crate::wire::pod::require_plain::<$type>(); )*
        };

        #[expect(unsafe_code, reason = "the proof is made by the assertions of this macro")]
        // SAFETY: ByteValued asks that any bytes are a valid value and that no byte is padding.
        // Every field is ByteValued (`require_plain`), the type is `repr(C)` and Copy, and the
        // sizes of the fields add up to the size of the type, so there is no padding.
        unsafe impl ::vm_memory::ByteValued for $name {}
    };
}
pub(crate) use wire_struct;

#[cfg(test)]
mod tests {
    use super::*;

    wire_struct! {
        "sample", 8;
        /// For these tests.
        struct Sample { a: u16, b: [u8; 2], c: i32, }
    }

    #[test]
    fn split_from_copies_the_front_at_any_alignment() {
        let sample = Sample {
            a: 0x1234,
            b: [5, 6],
            c: -7,
        };
        let mut bytes = vec![0xee];
        bytes.extend_from_slice(sample.as_wire());
        bytes.push(0xdd);
        let (value, rest) = Sample::split_from(&bytes[1..]).expect("nine bytes");
        assert_eq!(value, sample);
        assert_eq!(rest, [0xdd]);
        assert!(Sample::split_from(&bytes[2..9]).is_none());
    }

    #[test]
    fn from_grown_counts_missing_bytes_as_zero() {
        assert_eq!(Sample::from_grown(&[]), Sample::zero());
        assert_eq!(Sample::from_grown(&[0, 0, 9]).b, [9, 0]);
        assert_eq!(Sample::from_grown(&[0xff; 99]).c, -1);
    }
}
