//! What: recvmsg(2) on a UNIX stream socket, with every descriptor that came along.
//!
//! In: a socket whose other end may send anything. Out: bytes, and the descriptors as owners, so
//! that those nobody asked for are closed by being dropped. The kernel passes at most 253 in one
//! message (`SCM_MAX_FD`), and the control buffer has room for all of them.

#![expect(unsafe_code, reason = "recvmsg(2) and its control messages")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;

/// Room for 253 descriptors and a header, in words so that the header is aligned.
const CONTROL_WORDS: usize = 160;

/// One recvmsg(2): the bytes go to `buf`, the descriptors are added to `received`. Gives 0 at
/// the end of the stream. A signal is not an error, the call is made again.
///
/// # Errors
/// What recvmsg(2) reported.
pub fn receive(
    socket: &UnixStream,
    buf: &mut [u8],
    received: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = [0_u64; CONTROL_WORDS];
    loop {
        let mut area = libc::iovec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        };
        // SAFETY: msghdr is plain data and all zeros is a valid, empty one.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = ptr::from_mut(&mut area);
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control) as _;
        // SAFETY: the message names one area, valid for writes of buf.len() bytes, and a control
        // buffer valid for writes of its length; both live until after the call.
        let got = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                ptr::from_mut(&mut message),
                libc::MSG_CMSG_CLOEXEC,
            )
        };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        };
        take_descriptors(&message, received);
        return Ok(got);
    }
}

/// Makes owners of all descriptors in the control messages of a successful recvmsg(2).
fn take_descriptors(message: &libc::msghdr, received: &mut Vec<OwnedFd>) {
    // SAFETY: the message was filled by the kernel and its control buffer is alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(ptr::from_ref(message)) };
    while !next.is_null() {
        // SAFETY: next is not null, so it points to a whole header inside the control buffer.
        let header = unsafe { ptr::read_unaligned(next) };
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: pure arithmetic on a header inside the control buffer.
            let start = unsafe { libc::CMSG_DATA(next) };
            let length = widen(header.cmsg_len);
            let before_start = start as usize - next as usize;
            let count = length.saturating_sub(before_start) / std::mem::size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel wrote `count` descriptors from `start` on, all inside the
                // control buffer.
                let place = unsafe { start.cast::<RawFd>().add(index) };
                // SAFETY: place is valid for reads of one RawFd, by the line before.
                let raw = unsafe { ptr::read_unaligned(place) };
                // SAFETY: the kernel has just installed this descriptor for us, and nobody else
                // knows of it.
                received.push(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        // SAFETY: the message is unchanged and next is a header inside its control buffer.
        next = unsafe { libc::CMSG_NXTHDR(ptr::from_ref(message), next) };
    }
}

/// The length field is a usize with glibc and a u32 with musl.
fn widen<T: TryInto<usize>>(length: T) -> usize {
    length.try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use vmm_sys_util::sock_ctrl_msg::ScmSocket;

    #[test]
    fn receive_with_the_most_descriptors_owns_all_of_them() {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        let null = File::open("/dev/null").expect("/dev/null");
        let raw = vec![null.as_raw_fd(); 253];
        there
            .send_with_fds(&[b"abc".as_slice()], &raw)
            .expect("sendmsg");

        let mut buf = [0; 8];
        let mut received = Vec::new();
        let got = receive(&here, &mut buf, &mut received).expect("recvmsg");

        assert_eq!(got, 3);
        assert_eq!(received.len(), 253);
    }

    #[test]
    fn receive_at_the_end_of_the_stream_gives_zero() {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        drop(there);
        let mut received = Vec::new();
        assert_eq!(
            receive(&here, &mut [0; 8], &mut received).expect("recvmsg"),
            0
        );
        assert!(received.is_empty());
    }
}
