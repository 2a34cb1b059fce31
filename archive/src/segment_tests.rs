//! What a segment keeps, and what damage it shows.

use super::*;

/// Three partitions; the middle one fills several blocks.
fn sample() -> (Bytes, Vec<Block>) {
    let mut writer = Writer::begin();
    for (partition, batches, bytes) in [(1, 2, 100), (5, 30, 40_000), (9, 1, 7)] {
        for at in 0..batches {
            let batch = vec![(partition * 31 + at) as u8; bytes];
            let base = Offset(u64::from(at) * 10);
            writer.push(PartitionId(partition), &batch, base, base.plus(10), i64::from(at), Millis(i64::from(at) + 5));
        }
    }
    let (bytes, blocks) = writer.finish();
    (Bytes::from(bytes), blocks)
}

fn directory(segment: &Bytes) -> Result<Directory, SegmentDamage> {
    let total = segment.len() as u64;
    let position = Directory::footer_at(&segment[segment.len() - TRAILER_BYTES..], total)?;
    Directory::decode(&segment[position as usize..], position)
}

#[test]
fn blocks_are_found_by_partition_and_hold_their_batches() {
    let (segment, blocks) = sample();
    let read = directory(&segment).expect("own bytes");
    assert_eq!(read.all(), blocks);
    assert_eq!((read.of(PartitionId(1)).len(), read.of(PartitionId(2)).len(), read.of(PartitionId(9)).len()), (1, 0, 1));
    let middle = read.of(PartitionId(5));
    assert!(middle.len() > 3 && middle.windows(2).all(|pair| pair[0].end == pair[1].base));
    assert_eq!((middle[0].base, middle[middle.len() - 1].end), (Offset(0), Offset(300)));
    for block in read.all() {
        let body = block.open(&segment.slice(block.position as usize..)).expect("own bytes");
        assert_eq!(body.len(), block.body_bytes as usize);
    }
    assert_eq!(Directory::from_blocks(&segment), read);
}

/// A flipped bit costs at most the block it is in; the others are read, by the footer or without it.
#[test]
fn every_flip_is_found_and_harms_one_block() {
    let (segment, blocks) = sample();
    for at in (0..segment.len()).step_by(9_973) {
        let mut flipped = segment.to_vec();
        flipped[at] ^= 0x04;
        let flipped = Bytes::from(flipped);
        let read = directory(&flipped).unwrap_or_else(|_| Directory::from_blocks(&flipped));
        let sound = |block: &&Block| block.open(&flipped.slice(block.position as usize..)).is_ok();
        let hit = |block: &&Block| (block.position as usize..block.position as usize + block.bytes()).contains(&at);
        let kept: Vec<_> = read.all().iter().filter(sound).copied().collect();
        let expected: Vec<_> = blocks.iter().filter(|block| !hit(block)).copied().collect();
        assert_eq!(kept, expected, "flip at {at}");
    }
}

/// A reader must not take a lost block for records that were never there.
#[test]
fn a_lost_block_leaves_a_hole() {
    let (segment, blocks) = sample();
    let mut damaged = segment.to_vec();
    damaged[segment.len() - 60] ^= 1;
    damaged[blocks[2].position as usize + 1000] ^= 1;
    let read = Directory::from_blocks(&Bytes::from(damaged));
    // Without its footer nothing says that the last block was the last.
    assert_eq!((read.all().len(), &read.holes), (blocks.len() - 1, &vec![2, blocks.len() - 1]));
    assert!(read.lacks(PartitionId(5), 1) && !read.lacks(PartitionId(5), 2) && !read.lacks(PartitionId(1), 0));
}

#[test]
fn cut_segments_give_what_is_whole() {
    let (segment, blocks) = sample();
    for cut in (0..segment.len()).step_by(40_009) {
        let cut_short = segment.slice(..cut);
        if cut >= TRAILER_BYTES {
            assert!(directory(&cut_short).is_err(), "cut at {cut}");
        }
        let holes = |directory: &Directory| directory.holes.clone();
        let whole = blocks.iter().filter(|block| block.position as usize + block.bytes() <= cut).count();
        let read = Directory::from_blocks(&cut_short);
        assert_eq!((read.all().len(), holes(&read)), (whole, vec![whole]), "cut at {cut}");
    }
}

/// On the disks of users.
#[test]
fn a_segment_keeps_its_bytes() {
    let mut writer = Writer::begin();
    writer.push(PartitionId(7), b"batch", Offset(40), Offset(42), 5, Millis(6));
    let (bytes, _) = writer.finish();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let head =
        concat!("46424c4b", "07000000", "2800000000000000", "2a00000000000000", "0500000000000000", "0600000000000000", "0500000001000000");
    assert_eq!(&hex[..16], "4649525448534731");
    assert_eq!(&hex[16..112], head);
    assert_eq!(&hex[160..170], "6261746368");
    assert_eq!(&hex[170..186], "0800000000000000");
    assert_eq!(&hex[186..282], head);
    assert_eq!(&hex[282..314], "01000000000000005500000000000000");
    assert_eq!(bytes.len(), 85 + 56 + 48);
}

/// A batch of so many bytes.
fn batch(base: u64, bytes: usize) -> Vec<u8> {
    let mut batch = vec![(base % 251) as u8; bytes];
    batch[..16].copy_from_slice(&firth_model::batch::prefix(Offset(base), bytes as u32, firth_model::ids::LeaderEpoch(0)));
    batch[16] = 2;
    batch[23..27].copy_from_slice(&0i32.to_be_bytes());
    firth_model::batch::seal(&mut batch);
    batch
}

/// One flipped bit costs the batches of its 16 KiB and no other; a block that ends early keeps what is there.
#[test]
fn damaged_blocks_give_what_is_whole() {
    let mut writer = Writer::begin();
    let batches: Vec<Vec<u8>> = (0..100).map(|base| batch(base, 700 + (base as usize * 37) % 5000)).collect();
    for (base, batch) in (0u64..).zip(&batches) {
        writer.push(PartitionId(1), batch, Offset(base), Offset(base + 1), 0, Millis(0));
    }
    let (segment, blocks) = writer.finish();
    let block = blocks[0];
    let whole = Bytes::from(segment).slice(block.position as usize..block.position as usize + block.bytes());
    let count = block.batches as usize;
    assert_eq!(block.salvage(&whole), batches[..count]);
    let mut flipped = whole.to_vec();
    flipped[HEAD_BYTES + 3] ^= 1;
    let flipped = Bytes::from(flipped);
    assert!(block.open(&flipped).is_ok() && block.check(&flipped).is_err() && block.check(&whole).is_ok(), "sums alone");
    for at in (HEAD_BYTES..whole.len()).step_by(4_999) {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 0x20;
        let saved = block.salvage(&Bytes::from(flipped));
        assert!(saved.iter().all(|batch| batches.iter().any(|other| other == batch)), "flip at {at}");
        let lost: usize = batches[..count].iter().filter(|batch| !saved.iter().any(|other| other == *batch)).map(Vec::len).sum();
        assert!(lost < PIECE_BYTES + 2 * 6000, "flip at {at} lost {lost} bytes");
        assert!(block.open(&whole.slice(..at)).is_err());
        let cut = block.salvage(&whole.slice(..at));
        assert!(cut.iter().zip(&batches).all(|(saved, batch)| saved == batch), "cut at {at}");
        let there = at.saturating_sub(block.body_at()) / PIECE_BYTES * PIECE_BYTES;
        assert!(cut.iter().map(Bytes::len).sum::<usize>() + 6000 > there, "cut at {at}");
    }
}

#[test]
fn mutated_segments_do_no_harm() {
    let (segment, _) = sample();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..60 {
        let mut bytes = segment[segment.len() - 45_000..].to_vec();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 20) as u8;
        }
        fuzz_decode(&bytes);
    }
}
