//! Random and damaged inputs.

use firth_model::batch_builder::{BatchBuilder, Draft, Producer};
use firth_model::compression::Codec;

use crate::codec::dice::Dice;
use crate::fuzz::{fuzz_batch, fuzz_request};

/// `FIRTH_FUZZ_SEED` and `FIRTH_FUZZ_ROUNDS` make a run other or longer.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex")).collect()
}

/// Request frames written by the Java client's code, all versions of all APIs.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for line in include_str!("../../tests/golden/bodies.txt").lines() {
        let mut words = line.split(' ');
        let (key, version, kind, body) = (words.next(), words.next(), words.next(), words.next());
        let (Some(Ok(key)), Some(Ok(version)), Some("request")) = (key.map(str::parse::<i16>), version.map(str::parse::<i16>), kind) else {
            continue;
        };
        let mut frame = [key.to_be_bytes(), version.to_be_bytes(), [0, 0], [0, 9], [0, 1]].concat();
        frame.push(b'c');
        if crate::apis::ApiKey::find(key).is_some_and(|key| key.api().form(version).flexible) {
            frame.push(0);
        }
        frame.extend(unhex(body.unwrap_or_default()));
        frames.push(frame);
    }
    frames
}

fn damage(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() as u64 + 1) as usize;
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, dice.roll() as u8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            4 => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
            5 => bytes[at..].iter_mut().take(4).zip([0x7f, 0xff, 0xff, 0xff]).for_each(|(byte, large)| *byte = large),
            _ => {}
        }
    }
}

#[test]
fn damaged_requests_never_panic() {
    let (seed, rounds) = (setting("FIRTH_FUZZ_SEED", 77), setting("FIRTH_FUZZ_ROUNDS", 30_000));
    println!("seed {seed}");
    let mut dice = Dice::with_seed(seed);
    let frames = frames();
    let mut readable = 0;
    for frame in &frames {
        assert!(fuzz_request(frame));
    }
    for _ in 0..rounds {
        let mut frame = frames[dice.below(frames.len() as u64) as usize].clone();
        damage(&mut dice, &mut frame);
        readable += u64::from(fuzz_request(&frame));
    }
    println!("{readable} of {rounds} still readable");
    assert!(readable > 0 && readable < rounds);
}

#[test]
fn noise_never_panics() {
    let seed = setting("FIRTH_FUZZ_SEED", 78);
    println!("seed {seed}");
    let mut dice = Dice::with_seed(seed);
    for _ in 0..setting("FIRTH_FUZZ_ROUNDS", 10_000) {
        let noise: Vec<u8> = (0..dice.below(200)).map(|_| dice.roll() as u8).collect();
        fuzz_request(&noise);
        fuzz_batch(&noise);
    }
}

#[test]
fn damaged_batches_never_panic() {
    let (seed, rounds) = (setting("FIRTH_FUZZ_SEED", 79), setting("FIRTH_FUZZ_ROUNDS", 10_000));
    println!("seed {seed}");
    let mut dice = Dice::with_seed(seed);
    let batches: Vec<Vec<u8>> = Codec::ALL.iter().map(|codec| sample(&mut dice, *codec)).collect();
    for batch in &batches {
        assert!(fuzz_batch(batch));
    }
    let mut good = 0;
    for _ in 0..rounds {
        let mut batch = batches[dice.below(batches.len() as u64) as usize].clone();
        damage(&mut dice, &mut batch);
        good += u64::from(fuzz_batch(&batch));
    }
    println!("{good} of {rounds} still good");
    assert!(good > 0 && good < rounds);
}

fn sample(dice: &mut Dice, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::with_codec(codec).producer(Producer { id: 5, epoch: 0, base_sequence: 0 });
    for index in 0..20 {
        let (key, value) = (dice.text(), dice.text());
        let headers = [("h", Some(value.as_bytes())), ("i", None)];
        builder = builder.record(Draft {
            timestamp: 1000 + index,
            key: (index % 3 != 0).then_some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: if index % 2 == 0 { &headers } else { &[] },
        });
    }
    builder.build().to_vec()
}
