//! What: the device's configuration space, VIRTIO 1.2 section 5.11.4.
//!
//! In: the tag and the number of request queues to announce. Out: the bytes of GET_CONFIG.
//! Invariant: the tag is one that Linux accepts. Does not: decide whether the feature is offered.

use super::error::TransportError;

/// Bytes of the tag field.
const TAG_SIZE: usize = 36;
const CONFIG_SIZE: usize = TAG_SIZE + 4;

/// The bytes, with zeros for all that is read beyond them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigSpace {
    bytes: [u8; CONFIG_SIZE],
}

impl ConfigSpace {
    /// Lays the fields out: the tag padded with NUL (a full one has none), then the le32 count.
    pub(super) fn new(tag: &str, num_request_queues: u32) -> Result<ConfigSpace, TransportError> {
        let mut bytes = [0; CONFIG_SIZE];
        let (tag_field, count_field) = bytes.split_at_mut(TAG_SIZE);
        let bad = tag.is_empty() || tag.len() > TAG_SIZE || tag.contains(['\0', '\n']);
        let Some(tag_place) = tag_field.get_mut(..tag.len()).filter(|_| !bad) else {
            return Err(TransportError::Tag(tag.to_owned()));
        };
        tag_place.copy_from_slice(tag.as_bytes());
        // The device must announce at least one, VIRTIO 1.2 section 5.11.4.2.
        count_field.copy_from_slice(&num_request_queues.max(1).to_le_bytes());
        Ok(ConfigSpace { bytes })
    }

    /// `size` bytes from `offset` on.
    pub(super) fn read(&self, offset: usize, size: usize) -> Vec<u8> {
        let mut answer: Vec<u8> = self.bytes.iter().copied().skip(offset).take(size).collect();
        answer.resize(size, 0);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_beyond_the_fields_is_padded_with_zeros() {
        let space = ConfigSpace::new("share", 4).expect("a good tag");
        let bytes = space.read(0, 60);
        assert_eq!(bytes.len(), 60);
        assert_eq!(&bytes[..6], b"share\0");
        assert_eq!(&bytes[36..40], &[4, 0, 0, 0]);
        assert!(bytes[40..].iter().all(|byte| *byte == 0));
        assert_eq!(space.read(36, 4), [4, 0, 0, 0]);
        assert_eq!(space.read(250, 6), [0; 6]);
    }

    #[test]
    fn tag_of_every_length_is_accepted_up_to_36_bytes() {
        for (len, accepted) in [(0, false), (1, true), (35, true), (36, true), (37, false)] {
            let tag = "t".repeat(len);
            assert_eq!(ConfigSpace::new(&tag, 1).is_ok(), accepted, "{len}");
        }
    }

    #[test]
    fn tag_with_newline_or_nul_is_refused() {
        for tag in ["a\nb", "a\0b"] {
            assert!(ConfigSpace::new(tag, 1).is_err());
        }
    }
}
