//! Lets clients in whose `:authority` is the percent-encoded path of the socket.
//!
//! gRPC's C core, under Python, C++, Ruby and PHP, sends `run%2Fattestor%2Fworkload.sock` for a Unix
//! socket. The HTTP library takes that for a malformed request and resets the stream before anybody
//! is asked. Nobody looks at the authority here: there is one service on the socket. So a percent sign
//! in it becomes a hyphen on the way in, which moves no byte: lengths and compression state stay what
//! the client made them.
//!
//! Only complete, plain HEADERS frames are touched, and in them only values of `:authority` that are
//! spelt out without Huffman coding, as that library does; everything else passes as it came, to be
//! judged by HTTP/2 itself.
//!
//! # Source
//! RFC 9113, section 6.2 (HEADERS); RFC 7541, sections 5 and 6 (HPACK).

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes before the first frame.
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
/// Largest frame that a client may send us: HTTP/2's default.
const MAX_FRAME_BYTES: usize = 16 * 1024;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in HPACK's static table.
const AUTHORITY_INDEX: usize = 1;

/// A connection whose incoming header blocks are looked at.
pub(crate) struct Lenient<S> {
    inner: S,
    frames: Frames,
    /// What was looked at and not read yet, from `at`.
    ready: Vec<u8>,
    at: usize,
}

impl<S> Lenient<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, frames: Frames::default(), ready: Vec::new(), at: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let rest = this.ready.get(this.at..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.len().min(out.remaining());
                out.put_slice(rest.get(..count).unwrap_or_default());
                this.at += count;
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.at = 0;
            let mut chunk = [0; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut chunk))?;
            if chunk.filled().is_empty() {
                this.ready.append(&mut this.frames.held);
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.frames.take(chunk.filled(), &mut this.ready);
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

/// Finds the frames in what comes in pieces.
#[derive(Default)]
struct Frames {
    state: State,
    /// The beginning of a frame that is not complete; at most one frame.
    held: Vec<u8>,
}

enum State {
    /// So many bytes are nobody's business.
    Pass(usize),
    FrameHeader,
    /// A whole frame of so many bytes is waited for.
    HeaderBlock(usize),
}

impl Default for State {
    fn default() -> Self {
        Self::Pass(PREFACE_BYTES)
    }
}

impl Frames {
    fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let wanted = match self.state {
                State::Pass(count) => count,
                State::FrameHeader => FRAME_HEADER_BYTES.saturating_sub(self.held.len()),
                State::HeaderBlock(total) => total.saturating_sub(self.held.len()),
            };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            let is_complete = now.len() == wanted;
            match self.state {
                State::Pass(count) => {
                    out.extend_from_slice(now);
                    self.state = match count - now.len() {
                        0 => State::FrameHeader,
                        rest => State::Pass(rest),
                    };
                }
                State::FrameHeader => {
                    self.held.extend_from_slice(now);
                    if is_complete {
                        self.begin_frame(out);
                    }
                }
                State::HeaderBlock(_) => {
                    self.held.extend_from_slice(now);
                    if is_complete {
                        // What cannot be read is left as it is.
                        let _ = mend_frame(&mut self.held);
                        out.append(&mut self.held);
                        self.state = State::FrameHeader;
                    }
                }
            }
        }
    }

    fn begin_frame(&mut self, out: &mut Vec<u8>) {
        let &[high, middle, low, kind, flags, ..] = self.held.as_slice() else { return };
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let is_whole = kind == HEADERS && flags & END_HEADERS != 0;
        if is_whole && (1..=MAX_FRAME_BYTES).contains(&length) {
            self.state = State::HeaderBlock(FRAME_HEADER_BYTES + length);
            return;
        }
        out.append(&mut self.held);
        self.state = if length == 0 { State::FrameHeader } else { State::Pass(length) };
    }
}

/// Replaces percent signs in the authority of a HEADERS frame; `None` where it cannot be read.
fn mend_frame(frame: &mut [u8]) -> Option<()> {
    let flags = *frame.get(4)?;
    let mut payload = frame.get_mut(FRAME_HEADER_BYTES..)?;
    if flags & PADDED != 0 {
        let padding = usize::from(*payload.first()?);
        let end = payload.len().checked_sub(padding)?;
        payload = payload.get_mut(1..end)?;
    }
    if flags & PRIORITY != 0 {
        payload = payload.get_mut(5..)?;
    }
    let mut at = 0;
    while at < payload.len() {
        if let Some(value) = next_field(payload, &mut at)? {
            for byte in payload.get_mut(value)?.iter_mut().filter(|byte| **byte == b'%') {
                *byte = b'-';
            }
        }
    }
    Some(())
}

/// Steps over one field of a header block: where the plain value of an `:authority` stands.
fn next_field(block: &[u8], at: &mut usize) -> Option<Option<Range<usize>>> {
    let first = *block.get(*at)?;
    let name_bits = match first {
        // An indexed field, or a table's new size: a number alone.
        0x80.. => return integer(block, at, 7).map(|_| None),
        0x20..0x40 => return integer(block, at, 5).map(|_| None),
        0x40..0x80 => 6,
        0x00..0x20 => 4,
    };
    let name = match integer(block, at, name_bits)? {
        0 => {
            let (range, is_huffman) = string(block, at)?;
            !is_huffman && block.get(range)? == b":authority"
        }
        index => index == AUTHORITY_INDEX,
    };
    let (value, is_huffman) = string(block, at)?;
    Some((name && !is_huffman).then_some(value))
}

/// A string: where it stands, and whether it is Huffman-coded.
fn string(block: &[u8], at: &mut usize) -> Option<(Range<usize>, bool)> {
    let is_huffman = block.get(*at)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let end = at.checked_add(length).filter(|end| *end <= block.len())?;
    let range = *at..end;
    *at = end;
    Some((range, is_huffman))
}

/// A number whose first byte has `bits` of it.
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    // Three further bytes are more than a frame holds.
    for shift in [0, 7, 14] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut out = length[1..].to_vec();
        out.extend([kind, flags, 0, 0, 0, 1]);
        out.extend(payload);
        out
    }

    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        if !name.is_empty() {
            out.push(u8::try_from(name.len()).unwrap());
            out.extend(name);
        }
        out.push(u8::try_from(value.len()).unwrap());
        out.extend(value);
        out
    }

    /// What comes out, whatever the pieces it comes in.
    async fn through(frames: &[u8]) -> Vec<u8> {
        let input = [PREFACE, frames].concat();
        let mut results = Vec::new();
        for size in [1, 2, 7, 10_000] {
            let (client, mut server) = tokio::io::duplex(64 * 1024);
            let mut lenient = Lenient::new(client);
            for piece in input.chunks(size) {
                tokio::io::AsyncWriteExt::write_all(&mut server, piece).await.unwrap();
            }
            drop(server);
            let mut out = Vec::new();
            lenient.read_to_end(&mut out).await.unwrap();
            results.push(out);
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
        let out = results.remove(0);
        assert_eq!(out[..PREFACE_BYTES], PREFACE[..]);
        out[PREFACE_BYTES..].to_vec()
    }

    #[tokio::test]
    async fn percent_signs_of_the_authority_become_hyphens_and_nothing_else_changes() {
        let (encoded, plain) = (b"run%2Fa%2Fw.sock", b"run-2Fa-2Fw.sock");
        let others =
            [literal(0x40, b"x", b"a%2Fb"), literal(0x44, b"", b"/a%2Fb"), vec![0x83, 0x3f, 0x01]]
                .concat();
        // Named in full or by the static table; indexed, not indexed, never indexed.
        for (first, name) in [
            (0x40, &b":authority"[..]),
            (0x41, b""),
            (0x01, b""),
            (0x11, b""),
            (0x10, b":authority"),
        ] {
            let block =
                |value: &[u8]| [&others, &literal(first, name, value)[..], &others].concat();
            for flags in [END_HEADERS, END_HEADERS | PADDED | PRIORITY] {
                let wrap = |block: Vec<u8>| match flags {
                    END_HEADERS => block,
                    // The padding's length, the priority, and the padding.
                    _ => [&[2, 0, 0, 0, 0, 9], &block[..], b"%%"].concat(),
                };
                let input = frame(HEADERS, flags, &wrap(block(encoded)));
                let expected = frame(HEADERS, flags, &wrap(block(plain)));
                let around = |middle: &[u8]| {
                    [&frame(4, 0, b""), middle, &frame(0, 1, b"%%%")[..], middle].concat()
                };
                assert_eq!(through(&around(&input)).await, around(&expected));
            }
        }
    }

    proptest::proptest! {
        /// Whatever comes, as much goes out, and at most percent signs differ.
        #[test]
        fn no_byte_is_moved(
            payloads in proptest::collection::vec(
                (0_u8..3, proptest::num::u8::ANY, proptest::collection::vec(0_u8..0x50, 0..60)), 0..4),
            tail in proptest::collection::vec(proptest::num::u8::ANY, 0..30),
            size in 1_usize..40,
        ) {
            let mut input = PREFACE.to_vec();
            for (kind, flags, payload) in payloads {
                input.extend(frame(kind, flags | END_HEADERS, &payload));
            }
            input.extend(tail);
            let (mut frames, mut out) = (Frames::default(), Vec::new());
            for piece in input.chunks(size) {
                frames.take(piece, &mut out);
            }
            out.append(&mut frames.held);
            assert_eq!(out.len(), input.len());
            let is_kept = |(new, old): (&u8, &u8)| new == old || (*old == b'%' && *new == b'-');
            assert!(out.iter().zip(&input).all(is_kept));
        }
    }

    #[tokio::test]
    async fn what_is_not_a_plain_header_block_passes_as_it_came() {
        let field = literal(0x41, b"", b"a%2Fb");
        let mut huffman = field.clone();
        huffman[1] |= 0x80;
        let cut = &field[..field.len() - 1];
        let endless = [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        for (kind, flags, payload) in [
            (HEADERS, 0, &field[..]),
            (9, END_HEADERS, &field),
            (0, END_HEADERS, &field),
            (HEADERS, END_HEADERS, &huffman),
            (HEADERS, END_HEADERS, cut),
            (HEADERS, END_HEADERS, &endless),
            (HEADERS, END_HEADERS, b""),
            (HEADERS, END_HEADERS | PADDED, b"\xff"),
            (HEADERS, END_HEADERS | PRIORITY, b"%"),
        ] {
            let input = frame(kind, flags, payload);
            assert_eq!(through(&input).await, input);
        }
        // Longer than a frame may be, and cut off.
        let long = frame(HEADERS, END_HEADERS, &vec![b'%'; MAX_FRAME_BYTES + 1]);
        assert_eq!(through(&long).await, long);
        let field = frame(HEADERS, END_HEADERS, &field);
        let cut = &field[..field.len() - 1];
        assert_eq!(through(cut).await, cut);
    }
}
