//! What a batch costs the shard: decide, apply, hand over, show.
//!
//! `cargo bench -p firth-broker`. One iteration is one batch of 16 KiB of one of 1,000 partitions, from the inbox to its answer; the
//! journal's part (copy, checksums, write, sync) is left out, because other threads do it.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use firth_broker::bench::Rig;
use firth_model::batch::{Batch, HEADER_BYTES, seal};

fn batch(bytes: usize, producer: i64, sequence: i32) -> Batch {
    let mut out = vec![0; bytes];
    out[8..12].copy_from_slice(&((bytes - 12) as u32).to_be_bytes());
    out[16] = 2;
    out[43..51].copy_from_slice(&producer.to_be_bytes());
    out[53..57].copy_from_slice(&sequence.to_be_bytes());
    out[57..61].copy_from_slice(&1i32.to_be_bytes());
    seal(&mut out[..bytes.max(HEADER_BYTES)]);
    Batch::check(Bytes::from(out)).expect("made well")
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    for (name, in_turn) in [("one batch a turn", 1), ("64 batches a turn", 64)] {
        group.throughput(Throughput::Elements(in_turn as u64));
        group.bench_function(name, |bencher| {
            let mut rig = Rig::with_partitions(1000);
            let plain = batch(16 << 10, -1, -1);
            bencher.iter_batched(
                || (0..in_turn).map(|_| plain.clone()).collect::<Vec<_>>(),
                |batches| rig.publish(batches),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, publish);
criterion_main!(benches);
