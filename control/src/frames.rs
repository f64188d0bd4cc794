//! What goes over an upgraded connection of `knarr exec`: length-prefixed frames on numbered channels.
//!
//! A frame is its length (4 bytes, big-endian), a channel, and the rest. The channels are numbered as in Kubernetes'
//! remote command protocol (`v5.channel.k8s.io`); 5 is ours.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use sandbox::exec::WindowSize;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// The name of the protocol, for the `Upgrade` header.
pub const PROTOCOL: &str = "knarr-exec/1";

/// A longer frame is refused. Streams come in pieces of at most 16 KiB.
const LONGEST: usize = 64 * 1024;

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// To the command; an empty one is the end of the input.
    Stdin(Bytes),
    /// From the command.
    Stdout(Bytes),
    /// From the command.
    Stderr(Bytes),
    /// The command has ended, with this code as a shell would have it; nothing comes after it.
    Ended(i32),
    /// The terminal has a new size.
    Resize(WindowSize),
    /// A signal for the command, by number.
    Signal(i32),
}

#[derive(Serialize, Deserialize)]
struct Ended {
    code: i32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Frames over a connection.
pub fn framed<S: AsyncRead + AsyncWrite>(stream: S) -> Framed<S, LengthDelimitedCodec> {
    LengthDelimitedCodec::builder()
        .max_frame_length(LONGEST)
        .new_framed(stream)
}

impl Frame {
    /// As it goes into a frame.
    pub fn encode(&self) -> Bytes {
        let with = |channel: u8, rest: &[u8]| {
            let mut frame = BytesMut::with_capacity(rest.len() + 1);
            frame.put_u8(channel);
            frame.put_slice(rest);
            frame.freeze()
        };
        let json = |channel, text: String| with(channel, text.as_bytes());
        match self {
            Self::Stdin(bytes) => with(0, bytes),
            Self::Stdout(bytes) => with(1, bytes),
            Self::Stderr(bytes) => with(2, bytes),
            Self::Ended(code) => json(3, format!("{{\"code\":{code}}}")),
            Self::Resize(size) => json(4, format!("{{\"Width\":{},\"Height\":{}}}", size.columns, size.rows)),
            Self::Signal(signal) => json(5, signal.to_string()),
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// `InvalidData` for anything else.
    pub fn decode(mut frame: BytesMut) -> io::Result<Self> {
        if frame.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let channel = frame.split_to(1)[0];
        let rest = frame.freeze();
        match channel {
            0 => Ok(Self::Stdin(rest)),
            1 => Ok(Self::Stdout(rest)),
            2 => Ok(Self::Stderr(rest)),
            3 => Ok(Self::Ended(serde_json::from_slice::<Ended>(&rest)?.code)),
            4 => {
                let size: Size = serde_json::from_slice(&rest)?;
                Ok(Self::Resize(WindowSize {
                    rows: size.height,
                    columns: size.width,
                }))
            }
            5 => Ok(Self::Signal(serde_json::from_slice(&rest)?)),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("there is no channel {other}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_comes_back_and_nonsense_does_not() {
        let text = Bytes::from_static(b"\0text\xff");
        for frame in [
            Frame::Stdin(text.clone()),
            Frame::Stdin(Bytes::new()),
            Frame::Stdout(text.clone()),
            Frame::Stderr(text),
            Frame::Ended(137),
            Frame::Resize(WindowSize { rows: 50, columns: 132 }),
            Frame::Signal(15),
        ] {
            assert_eq!(Frame::decode(BytesMut::from(&frame.encode()[..])).unwrap(), frame);
        }
        for wrong in [&b""[..], b"\x09", b"\x03{}", b"\x04{\"Width\":-1}", b"\x05x"] {
            assert!(Frame::decode(BytesMut::from(wrong)).is_err(), "{wrong:?}");
        }
    }
}
