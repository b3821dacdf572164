use super::*;

const DEFLATE: Filter = Filter::Deflate;
const SHUFFLE: Filter = Filter::Shuffle { element_bytes: 4 };

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut compress = libdeflater::Compressor::new(libdeflater::CompressionLvl::fastest());
    let mut out = vec![0; compress.zlib_compress_bound(bytes.len())];
    let n = compress.zlib_compress(bytes, &mut out).unwrap();
    out.truncate(n);
    out
}

fn decoded(stored: &[u8], filters: &[Filter], mask: u32, bytes: usize) -> Result<Vec<u8>> {
    let mut decoder = Decoder::new();
    decoder.stored().extend_from_slice(stored);
    decoder.decode(filters, mask, bytes).map(<[u8]>::to_vec)
}

#[test]
fn filters_that_were_left_out_are_left_out() {
    let bytes: Vec<u8> = (0..1001u32).flat_map(|i| (i * 7).to_le_bytes()).collect();
    let pipeline = [SHUFFLE, DEFLATE, Filter::Fletcher32];
    assert_eq!(decoded(&bytes, &pipeline, 0b111, bytes.len()).unwrap(), bytes);
    assert_eq!(decoded(&deflated(&bytes), &pipeline, 0b101, bytes.len()).unwrap(), bytes);
    assert_eq!(decoded(&deflated(&bytes), &[DEFLATE], 0, bytes.len()).unwrap(), bytes);
    assert!(decoded(&bytes, &pipeline, 0b011, bytes.len()).is_err());
    assert!(decoded(&bytes, &[], 0, bytes.len() + 1).unwrap_err().to_string().contains("holds 4004 bytes, not 4005"));
}

#[test]
fn a_stream_within_a_stream_inflates_and_one_that_is_too_long_does_not() {
    let bytes = vec![7; 100_000];
    let twice = deflated(&deflated(&bytes));
    assert_eq!(decoded(&twice, &[DEFLATE, DEFLATE], 0, bytes.len()).unwrap(), bytes);
    assert!(decoded(&twice, &[DEFLATE, DEFLATE], 0, bytes.len() - 1).is_err());
    // A megabyte where a few bytes were stored: not more than the bound is made of it.
    let bomb = deflated(&vec![0; 1 << 24]);
    let mut decoder = Decoder::new();
    decoder.stored().extend_from_slice(&bomb);
    assert!(decoder.decode(&[DEFLATE, DEFLATE], 0, 100).is_err());
    assert!(decoder.undone.capacity() <= 16 * 100 + (64 << 10));
}

#[test]
fn streams_within_streams_are_given_the_room_that_they_need() {
    let bytes: Vec<u8> = (0..70_000u32).map(|i| (i / 300) as u8).collect();
    let bzip2 = |bytes: &[u8]| {
        use std::io::Read;
        let mut out = Vec::new();
        bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast()).read_to_end(&mut out).unwrap();
        out
    };
    // A frame that says its length, one that does not, and both.
    let zstd_told = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).unwrap();
    let (first, last) = bytes.split_at(1000);
    let frames = [zstd_told(first), zstd(last)].concat();
    for (stored, inner) in [(bzip2(&frames), Filter::Zstd), (bzip2(&bzip2(&bytes)), Filter::Bzip2)] {
        assert_eq!(decoded(&stored, &[inner, Filter::Bzip2], 0, bytes.len()).unwrap(), bytes);
    }
    for stored in [zstd_told(&bzip2(&bytes)), zstd(&bzip2(&bytes))] {
        assert_eq!(decoded(&stored, &[Filter::Bzip2, Filter::Zstd], 0, bytes.len()).unwrap(), bytes);
        assert!(decoded(&stored, &[Filter::Bzip2, Filter::Zstd], 0, bytes.len() - 1).is_err());
        assert!(decoded(&stored[..stored.len() - 1], &[Filter::Bzip2, Filter::Zstd], 0, bytes.len()).is_err());
    }
}
