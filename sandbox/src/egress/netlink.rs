//! A netlink socket: requests out, the kernel's acknowledgements in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

const NLMSG_ERROR: u16 = 2;

/// A socket of the network namespace this thread is in.
pub(super) fn open(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends whole messages to the kernel.
pub(super) fn send(socket: impl AsFd, messages: &[u8]) -> io::Result<()> {
    sendto(socket, messages, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

/// Sends `messages`, each of which asks for an acknowledgement, and waits until the last one, number `last`, has it. The
/// kernel answers before `sendto` returns, so this never waits long.
///
/// # Errors
/// What the kernel says to the first message that it refuses.
pub(super) fn request(socket: impl AsFd, messages: &[u8], last: u32) -> io::Result<()> {
    let socket = socket.as_fd();
    send(socket, messages)?;
    let mut buffer = vec![0; 8192];
    loop {
        let (length, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        for message in Messages(&buffer[..length]) {
            if message.kind != NLMSG_ERROR {
                continue;
            }
            let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            if message.sequence == last {
                return Ok(());
            }
        }
    }
}

/// One message.
pub(super) struct Message<'a> {
    pub kind: u16,
    pub sequence: u32,
    /// What comes after the header.
    pub body: &'a [u8],
}

/// The messages in what was received at once. Ends at the first that is cut short.
pub(super) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32::from_ne_bytes(*self.0.first_chunk()?)).ok()?;
        let message = self.0.get(..length).filter(|_| length >= HEADER)?;
        let word = |at: usize| message.get(at..)?.first_chunk::<4>().copied().map(u32::from_ne_bytes);
        let kind = message.get(4..)?.first_chunk::<2>().copied().map(u16::from_ne_bytes)?;
        let sequence = word(8)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind,
            sequence,
            body: &message[HEADER..],
        })
    }
}

/// Writes a header in front of `body`, which must begin with the family's own header.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}
