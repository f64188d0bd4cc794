//! Messages with file descriptors over a seqpacket socket: what Knarr, its spawner and its dialer talk by.
//!
//! One packet is one JSON message, its descriptors travel beside it (SCM_RIGHTS). A message too large for a packet goes
//! as a memory file: its descriptor is then the last one.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Larger messages go by memory file.
const PACKET: usize = 48 * 1024;

/// Most descriptors beside one message, the memory file included.
const FDS: usize = 16;

/// First byte of a packet.
const INLINE: u8 = b'i';
const IN_FILE: u8 = b'f';

/// Both ends of a new connection, close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message, `BrokenPipe` when the other end is gone; waits while the other end has no room.
pub(crate) fn send<M: Serialize>(socket: BorrowedFd<'_>, message: &M, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut packet = vec![INLINE];
    serde_json::to_writer(&mut packet, message)?;
    if packet.len() <= PACKET {
        return send_packet(socket, &packet, fds);
    }
    let mut file = File::from(memfd_create("knarr-message", MemfdFlags::CLOEXEC)?);
    file.write_all(&packet[1..])?;
    let mut all = fds.to_vec();
    all.push(file.as_fd());
    send_packet(socket, &[IN_FILE], &all)
}

/// Takes one message if there is one: `WouldBlock` when there is none, `UnexpectedEof` when the other end is gone.
pub(crate) fn receive<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<(M, Vec<OwnedFd>)> {
    receive_with(socket, RecvFlags::DONTWAIT)
}

/// Takes one message, waiting for it.
pub(crate) fn wait<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<(M, Vec<OwnedFd>)> {
    receive_with(socket, RecvFlags::empty())
}

fn receive_with<M: DeserializeOwned>(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<(M, Vec<OwnedFd>)> {
    let mut packet = vec![0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut packet)],
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        ) {
            // The other end has died with something unread, which is told once, and before what it has said itself.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    match packet[..received.bytes].split_first() {
        Some((&INLINE, json)) => Ok((serde_json::from_slice(json)?, fds)),
        Some((&IN_FILE, _)) => {
            let mut file = File::from(fds.pop().ok_or(io::ErrorKind::InvalidData)?);
            let mut json = Vec::new();
            file.rewind()?;
            file.read_to_end(&mut json)?;
            Ok((serde_json::from_slice(&json)?, fds))
        }
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn send_packet(socket: BorrowedFd<'_>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Err(io::ErrorKind::BrokenPipe.into()),
            other => return Ok(other.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors_whatever_its_size() {
        let (a, b) = pair().unwrap();
        for size in [0, 10, PACKET - 3, PACKET - 2, PACKET, 3_000_000] {
            let text = "x".repeat(size);
            let file = memfd_create("t", MemfdFlags::CLOEXEC).unwrap();
            send(a.as_fd(), &text, &[file.as_fd(), a.as_fd()]).unwrap();
            let (got, fds) = receive::<String>(b.as_fd()).unwrap();
            assert_eq!(got.len(), size);
            assert_eq!(fds.len(), 2, "size {size}");
        }
    }

    #[test]
    fn what_was_said_before_a_death_is_heard_whatever_was_left_unread() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), &"last", &[]).unwrap();
        send(b.as_fd(), &"unread", &[]).unwrap();
        drop(a);
        assert_eq!(receive::<String>(b.as_fd()).unwrap().0, "last");
        let end = receive::<String>(b.as_fd()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        // Whoever speaks first hears of it as a broken pipe.
        let (a, b) = pair().unwrap();
        send(b.as_fd(), &"unread", &[]).unwrap();
        drop(a);
        let end = send(b.as_fd(), &"x", &[]).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_empty_socket_and_a_closed_one_are_told_apart() {
        let (a, b) = pair().unwrap();
        assert_eq!(
            receive::<String>(b.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(a);
        assert_eq!(
            receive::<String>(b.as_fd()).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(
            send(b.as_fd(), &"x", &[]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
