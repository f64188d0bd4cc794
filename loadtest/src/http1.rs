//! HTTP/1.1 answers, read as they come: status, `Server-Timing`, where the body ends, whether the connection may go on.
//! Pure: bytes in, no I/O. The body itself is counted and thrown away.
//!
//! Written by hand over `httparse`: a generator that costs more than the server it measures measures itself.

use httparse::{EMPTY_HEADER, Status};

use crate::server_timing::Timing;

/// One connection's answers, one after the other.
#[derive(Debug)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were read and not yet understood: an unfinished head.
    filled: usize,
    state: State,
    answer: Head,
}

/// What an answer says.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) timing: Timing,
    pub(crate) body_bytes: u64,
    /// Whether another request may follow on the connection.
    pub(crate) reusable: bool,
}

/// How far an answer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Its head is not whole.
    Head,
    /// Its head is, its body is not.
    Body,
    /// All of it is here.
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunks),
    UntilClosed,
    Done,
}

/// Where in a chunked body (RFC 9112, 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chunks {
    /// In the size, of which that much is known; the flag says whether there was a digit.
    Size(u64, bool),
    /// Behind it, up to the line's end.
    Extension(u64),
    Data(u64),
    /// After the data, before its line's end.
    DataEnd,
    /// At the start of a line of the trailer, or within one.
    Trailer {
        empty: bool,
    },
}

/// A head must end within that.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
const FIRST_BUFFER: usize = 4 * 1024;
/// For bodies that do not come at once.
const LARGE_BUFFER: usize = 64 * 1024;

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; FIRST_BUFFER],
            filled: 0,
            state: State::Done,
            answer: Head::default(),
        }
    }

    /// A request was sent; its answer is next.
    pub(crate) fn expect_answer(&mut self) {
        self.filled = 0;
        self.state = State::Head;
        self.answer = Head::default();
    }

    /// Whether anything of the answer has come.
    pub(crate) fn untouched(&self) -> bool {
        self.state == State::Head && self.filled == 0
    }

    /// Where to read to; never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// `count` bytes were read into [`Reader::space`]. `to_head` says that the request was a HEAD, whose answer has no
    /// body. The error says what is wrong.
    pub(crate) fn read(&mut self, count: usize, to_head: bool) -> Result<Step, String> {
        let end = self.filled + count;
        let mut start = 0;
        while self.state == State::Head {
            match self.head(start, end, to_head)? {
                Some(length) => start += length,
                None => {
                    if end - start > MAX_HEAD {
                        return Err(format!("the head of the answer is longer than {MAX_HEAD} bytes"));
                    }
                    self.buffer.copy_within(start..end, 0);
                    self.filled = end - start;
                    return Ok(Step::Head);
                }
            }
        }
        self.filled = 0;
        let rest = self.body(start, end)?;
        if self.state == State::Done {
            // Bytes behind an answer belong to nothing that was asked.
            self.answer.reusable &= rest == end;
            return Ok(Step::Done);
        }
        let much = matches!(self.state, State::Length(left) if left > FIRST_BUFFER as u64) || end == self.buffer.len();
        if much && self.buffer.len() < LARGE_BUFFER {
            self.buffer.resize(LARGE_BUFFER, 0);
        }
        Ok(Step::Body)
    }

    /// The server closed the connection: the end of an answer without a length, else cut short.
    pub(crate) fn closed(&mut self) -> bool {
        if self.state == State::UntilClosed {
            self.state = State::Done;
        }
        self.state == State::Done
    }

    /// The answer; whole once [`Step::Done`] was returned, its head from [`Step::Body`] on.
    pub(crate) fn take(&mut self) -> Head {
        std::mem::take(&mut self.answer)
    }

    /// Reads a head; how long it is, or `None` when it is not whole. An interim one leaves the state as it is.
    fn head(&mut self, start: usize, end: usize, to_head: bool) -> Result<Option<usize>, String> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(&self.buffer[start..end]) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(format!("not HTTP: {error}")),
        };
        let status = parsed.code.unwrap_or_default();
        if (100..200).contains(&status) && status != 101 {
            return Ok(Some(length));
        }
        let answer = &mut self.answer;
        answer.status = status;
        // HTTP/1.0 closes unless it says otherwise.
        answer.reusable = parsed.version == Some(1);
        let mut body_length = None;
        let mut chunked = None;
        for header in &*parsed.headers {
            let name = header.name.as_bytes();
            match name.len() {
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let length = digits(header.value).ok_or("the content-length is not a number")?;
                    if body_length.is_some_and(|before| before != length) {
                        return Err("two content-lengths that differ".to_owned());
                    }
                    body_length = Some(length);
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    chunked = Some(has_word(header.value, b"chunked"));
                }
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    answer.reusable &= !has_word(header.value, b"close");
                    answer.reusable |= has_word(header.value, b"keep-alive");
                }
                13 if name.eq_ignore_ascii_case(b"server-timing") => {
                    answer.timing.add(str::from_utf8(header.value).unwrap_or_default());
                }
                _ => {}
            }
        }
        // RFC 9112, 6.3, in its order.
        self.state = match (chunked, body_length) {
            _ if to_head || status == 204 || status == 304 => State::Done,
            _ if status == 101 => State::UntilClosed,
            (Some(true), _) => State::Chunked(Chunks::Size(0, false)),
            (Some(false), _) => State::UntilClosed,
            (None, Some(0)) => State::Done,
            (None, Some(length)) => State::Length(length),
            (None, None) => State::UntilClosed,
        };
        if self.state == State::UntilClosed {
            answer.reusable = false;
        }
        Ok(Some(length))
    }

    /// Reads of the body what is there; where it stopped.
    fn body(&mut self, start: usize, end: usize) -> Result<usize, String> {
        let there = (end - start) as u64;
        match self.state {
            State::Done | State::Head => Ok(start),
            State::UntilClosed => {
                self.answer.body_bytes += there;
                Ok(end)
            }
            State::Length(left) => {
                let read = left.min(there);
                self.answer.body_bytes += read;
                self.state = if read == left {
                    State::Done
                } else {
                    State::Length(left - read)
                };
                Ok(start + usize::try_from(read).unwrap_or(0))
            }
            State::Chunked(mut at) => {
                let mut next = start;
                while next < end {
                    if let Chunks::Data(left) = at {
                        let read = left.min((end - next) as u64);
                        self.answer.body_bytes += read;
                        next += usize::try_from(read).unwrap_or(0);
                        at = if read == left {
                            Chunks::DataEnd
                        } else {
                            Chunks::Data(left - read)
                        };
                        continue;
                    }
                    let byte = self.buffer[next];
                    next += 1;
                    match at.byte(byte)? {
                        Some(following) => at = following,
                        None => {
                            self.state = State::Done;
                            return Ok(next);
                        }
                    }
                }
                self.state = State::Chunked(at);
                Ok(end)
            }
        }
    }
}

impl Chunks {
    /// One byte that is not data; `None` at the end of the body. Line ends may lack their CR, as all servers' readers
    /// allow.
    fn byte(self, byte: u8) -> Result<Option<Self>, &'static str> {
        let end_of_size = |size| match size {
            0 => Self::Trailer { empty: true },
            size => Self::Data(size),
        };
        Ok(Some(match (self, byte) {
            (Self::Size(_, false), b'\n' | b'\r' | b';' | b' ') => return Err("a chunk without a size"),
            (Self::Size(size, true) | Self::Extension(size), b'\n') => end_of_size(size),
            (Self::Size(size, true), b'\r' | b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Size(size, _), digit) => {
                let digit = char::from(digit)
                    .to_digit(16)
                    .ok_or("the size of a chunk is not a number")?;
                if size >> 60 != 0 {
                    return Err("the size of a chunk is too large");
                }
                Self::Size(size << 4 | u64::from(digit), true)
            }
            (Self::Extension(size), _) => Self::Extension(size),
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size(0, false),
            (Self::DataEnd, _) => return Err("a chunk is longer than its size"),
            (Self::Trailer { empty: true }, b'\n') => return Ok(None),
            (Self::Trailer { empty: false }, b'\n') => Self::Trailer { empty: true },
            (Self::Trailer { empty }, b'\r') => Self::Trailer { empty },
            (Self::Trailer { .. }, _) => Self::Trailer { empty: false },
            (Self::Data(left), _) => Self::Data(left),
        }))
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok()?.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

/// Whether a comma-separated list has this word.
fn has_word(value: &[u8], word: &[u8]) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::server_timing::Temperature;

    /// Feeds `text` in pieces of these lengths, again and again.
    fn read(text: &str, pieces: &[usize], to_head: bool) -> Result<(Step, Head), String> {
        let mut reader = Reader::new();
        reader.expect_answer();
        let mut left = text.as_bytes();
        let mut lengths = pieces.iter().cycle();
        let mut step = Step::Head;
        while !left.is_empty() {
            let space = reader.space();
            let length = (*lengths.next().expect("endless")).min(left.len()).min(space.len());
            space[..length].copy_from_slice(&left[..length]);
            left = &left[length..];
            step = reader.read(length, to_head)?;
            if step == Step::Done {
                break;
            }
        }
        let mut head = reader.take();
        head.reusable &= left.is_empty();
        Ok((step, head))
    }

    fn done(text: &str) -> Head {
        let (step, head) = read(text, &[usize::MAX], false).expect("HTTP");
        assert_eq!(step, Step::Done, "{text:?}");
        head
    }

    #[test]
    fn knows_where_an_answer_ends_and_whether_another_may_follow() {
        for (text, status, body_bytes, reusable) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, 2, true),
            ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, 0, true),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, 0, true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 304, 0, true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
                200,
                2,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: x, Close\r\n\r\nok",
                200,
                2,
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, 2, false),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok",
                200,
                2,
                true,
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok more", 200, 2, false),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
                200,
                1,
                true,
            ),
            (
                "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
                204,
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                200,
                5,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\ncontent-length: 3\r\n\r\n\
                 A;name=value\r\n0123456789\r\n1 \r\nx\r\n0\r\nx-trailer: yes\r\n\r\n",
                200,
                11,
                true,
            ),
        ] {
            let head = done(text);
            assert_eq!(
                (head.status, head.body_bytes, head.reusable),
                (status, body_bytes, reusable),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_has_no_length_ends_with_the_connection() {
        let mut reader = Reader::new();
        reader.expect_answer();
        let text = b"HTTP/1.1 200 OK\r\n\r\nhello";
        reader.space()[..text.len()].copy_from_slice(text);
        assert_eq!(reader.read(text.len(), false), Ok(Step::Body));
        assert!(reader.closed());
        let head = reader.take();
        assert_eq!((head.body_bytes, head.reusable), (5, false));

        let (step, _) = read("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", &[100], true).expect("HTTP");
        assert_eq!(step, Step::Done, "the answer to HEAD has no body");
        let mut cut = Reader::new();
        cut.expect_answer();
        assert!(cut.untouched() && !cut.closed());
    }

    #[test]
    fn what_is_not_http_is_said() {
        for (text, words) in [
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", "not a number"),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
                "differ",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
                "not a number",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
                "without a size",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
                "longer than its size",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                "too large",
            ),
        ] {
            let error = read(text, &[usize::MAX], false).expect_err(text);
            assert!(error.contains(words), "{error}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(2 * MAX_HEAD));
        assert!(
            read(&endless, &[1_000], false)
                .expect_err("endless")
                .contains("longer than")
        );
    }

    #[test]
    fn reads_server_timing() {
        let head = done("HTTP/1.1 200 OK\r\nserver-timing: start;desc=cold;dur=2.5\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(head.timing.temperature, Temperature::Cold);
        assert_eq!(head.timing.phases[2], Some(Duration::from_micros(2_500)));
    }

    proptest! {
        /// However the bytes are cut into pieces, the answer is the same.
        #[test]
        fn pieces_make_no_difference(
            pieces in prop::collection::vec(1_usize..40, 1..8),
            chunks in prop::collection::vec(1_usize..30_000, 0..4),
            interim in any::<bool>(),
        ) {
            let mut text = String::new();
            if interim {
                text += "HTTP/1.1 100 Continue\r\n\r\n";
            }
            text += "HTTP/1.1 200 OK\r\nserver-timing: start;desc=warm\r\ntransfer-encoding: chunked\r\n\r\n";
            for length in &chunks {
                text += &format!("{length:x}\r\n{}\r\n", "y".repeat(*length));
            }
            text += "0\r\nx-trailer: 1\r\n\r\n";
            let whole = read(&text, &[usize::MAX], false);
            prop_assert_eq!(&whole, &read(&text, &pieces, false));
            let (step, head) = whole.expect("HTTP");
            prop_assert_eq!((step, head.body_bytes, head.reusable), (Step::Done, chunks.iter().sum::<usize>() as u64, true));
        }
    }
}
