//! The codecs that record batches may be compressed with.

use std::io::{self, BufReader, Read, Write};

/// What `Unfolding` reads ahead.
const BUFFER_BYTES: usize = 16 << 10;
/// Front of the framing that the Java client puts around snappy blocks: magic, version, oldest version that can read it.
const SNAPPY_FRONT: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// The part of the front that is compared when reading.
const SNAPPY_MAGIC_BYTES: usize = 8;
/// Uncompressed bytes of one block that we write.
const SNAPPY_BLOCK_BYTES: usize = 32 << 10;
/// A snappy block cannot grow more: its densest element makes 64 bytes of 3.
const SNAPPY_GROWTH_MAX: u64 = 22;
/// Largest window of a zstd frame, as a power of two: what level 22 uses, so any level a producer may configure.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bits 0 to 2 of a batch's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec that a batch's attributes name; the bits if no codec has them.
    pub fn of(attributes: i16) -> Result<Codec, i16> {
        let bits = attributes & 7;
        let codec = usize::try_from(bits).ok().and_then(|index| Codec::ALL.get(index));
        codec.copied().ok_or(bits)
    }

    pub fn bits(self) -> i16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }
}

/// Compressed bytes that are read uncompressed, piece by piece.
pub type Unfolding<'a> = BufReader<Box<dyn Read + 'a>>;

/// Reads `folded` uncompressed. Takes memory for one block or window of the codec, not for the whole; a single snappy block is
/// refused above `bytes_max` uncompressed bytes, with `ErrorKind::FileTooLarge`.
pub fn unfolding(codec: Codec, folded: &[u8], bytes_max: u64) -> io::Result<Unfolding<'_>> {
    let source: Box<dyn Read + '_> = match codec {
        Codec::None => Box::new(folded),
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(folded)),
        Codec::Snappy => Box::new(SnappyBlocks::over(folded, bytes_max)),
        Codec::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(folded)),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(folded)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok(BufReader::with_capacity(BUFFER_BYTES, source))
}

/// Compresses `plain` as the Java client would.
pub fn fold(codec: Codec, plain: &[u8]) -> Vec<u8> {
    match codec {
        Codec::None => Ok(plain.to_vec()),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).and_then(|()| encoder.finish())
        }
        Codec::Snappy => fold_snappy(plain),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).and_then(|()| encoder.finish().map_err(io::Error::other))
        }
        Codec::Zstd => zstd::stream::encode_all(plain, 0),
    }
    .expect("a vector takes every byte")
}

fn fold_snappy(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut folded = SNAPPY_FRONT.to_vec();
    for block in plain.chunks(SNAPPY_BLOCK_BYTES) {
        let block = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
        let length = i32::try_from(block.len()).map_err(io::Error::other)?;
        folded.extend_from_slice(&length.to_be_bytes());
        folded.extend_from_slice(&block);
    }
    Ok(folded)
}

/// Snappy as Kafka clients send it: blocks with lengths between them (Java), or one bare block (librdkafka and others).
struct SnappyBlocks<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Vec<u8>,
    at: usize,
    bytes_max: u64,
}

impl<'a> SnappyBlocks<'a> {
    fn over(folded: &'a [u8], bytes_max: u64) -> SnappyBlocks<'a> {
        let framed = folded.len() >= SNAPPY_FRONT.len() && folded[..SNAPPY_MAGIC_BYTES] == SNAPPY_FRONT[..SNAPPY_MAGIC_BYTES];
        let rest = if framed { &folded[SNAPPY_FRONT.len()..] } else { folded };
        SnappyBlocks { rest, framed, block: Vec::new(), at: 0, bytes_max }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let folded = if self.framed {
            let (length, rest) = self.rest.split_first_chunk::<4>().ok_or(io::ErrorKind::InvalidData)?;
            let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| io::ErrorKind::InvalidData)?;
            let (block, rest) = rest.split_at_checked(length).ok_or(io::ErrorKind::InvalidData)?;
            self.rest = rest;
            block
        } else {
            std::mem::take(&mut self.rest)
        };
        // The block says its size itself; believed only as far as its bytes can grow.
        let bytes = snap::raw::decompress_len(folded).map_err(|_| io::ErrorKind::InvalidData)?;
        if bytes as u64 > (folded.len() as u64).saturating_mul(SNAPPY_GROWTH_MAX) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if bytes as u64 > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.block.resize(bytes, 0);
        self.at = 0;
        let written = snap::raw::Decoder::new().decompress(folded, &mut self.block);
        if written.is_ok_and(|written| written == bytes) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

impl Read for SnappyBlocks<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.next_block()?;
        }
        let bytes = (&self.block[self.at..]).read(out)?;
        self.at += bytes;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfold(codec: Codec, folded: &[u8], bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        unfolding(codec, folded, bytes_max)?.take(bytes_max).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn folded_comes_back() {
        let plain: Vec<u8> = (0..200_000u32).map(|i| (i / 100 % 251) as u8).collect();
        for codec in Codec::ALL {
            for bytes in [0, 1, plain.len()] {
                let folded = fold(codec, &plain[..bytes]);
                assert_eq!(unfold(codec, &folded, 1 << 20).expect("own work"), plain[..bytes], "{codec:?}");
            }
            assert_eq!(Codec::of(codec.bits()), Ok(codec));
        }
    }

    #[test]
    fn bare_snappy_block_is_read() {
        let folded = snap::raw::Encoder::new().compress_vec(b"bare bare bare").expect("fits");
        assert_eq!(unfold(Codec::Snappy, &folded, 1 << 20).expect("a block"), b"bare bare bare");
    }

    #[test]
    fn snappy_size_is_not_believed() {
        // Five bytes that announce four gigabytes.
        let claims = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(unfold(Codec::Snappy, &claims, u64::MAX).map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));
        let honest = snap::raw::Encoder::new().compress_vec(&[0; 5000]).expect("fits");
        assert_eq!(unfold(Codec::Snappy, &honest, 4999).map_err(|error| error.kind()), Err(io::ErrorKind::FileTooLarge));
    }
}
