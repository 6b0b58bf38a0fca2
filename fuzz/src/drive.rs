//! `drive TARGET SECONDS [SEED]`: mutates the target's corpus by a seeded generator for that long;
//! `drive TARGET FILE`: runs one input again. An input that fails is kept in `fuzz/artifacts`.
//!
//! For machines without a nightly compiler and cargo-fuzz: it knows no coverage, so it finds less.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use stacyvm_fuzz::{TARGETS, Target};
use types::clock::{Clock, SystemClock};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let target = args.first().and_then(|name| TARGETS.iter().find(|(n, _)| n == name));
    let Some(&(name, run)) = target.filter(|_| (2..=3).contains(&args.len())) else {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: drive {} SECONDS|FILE [SEED]", names.join("|"));
        return ExitCode::from(2);
    };
    match args[1].parse() {
        Ok(seconds) => {
            let seed = args.get(2).and_then(|s| s.parse().ok()).unwrap_or(1);
            soak(name, run, Duration::from_secs(seconds), seed)
        }
        Err(_) => {
            let data = fs::read(&args[1]).expect("the input can be read");
            run(&data);
            println!("{name}: this input passes");
            ExitCode::SUCCESS
        }
    }
}

fn soak(name: &str, run: Target, time: Duration, seed: u64) -> ExitCode {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = corpus(&home.join("corpus").join(name));
    let mut random = Random(seed.max(1));
    let start = SystemClock.boot();
    let mut runs = 0_u64;
    for seed_input in &corpus {
        if let Err(kept) = attempt(home, name, run, seed_input) {
            return failed(name, &kept, runs, seed);
        }
    }
    while SystemClock.boot().since(start) < time {
        let input = mutate(&corpus, &mut random);
        runs += 1;
        if let Err(kept) = attempt(home, name, run, &input) {
            return failed(name, &kept, runs, seed);
        }
    }
    println!("{name}: {runs} runs in {time:?} with seed {seed}, none failed");
    ExitCode::SUCCESS
}

fn failed(name: &str, kept: &Path, runs: u64, seed: u64) -> ExitCode {
    println!("{name}: run {runs} with seed {seed} failed; its input is {}", kept.display());
    ExitCode::FAILURE
}

fn attempt(home: &Path, name: &str, run: Target, input: &[u8]) -> Result<(), PathBuf> {
    catch_unwind(AssertUnwindSafe(|| run(input))).map_err(|_| {
        let dir = home.join("artifacts").join(name);
        fs::create_dir_all(&dir).expect("the artifacts' directory can be made");
        let sum = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &b| {
            (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
        let path = dir.join(format!("crash-{sum:016x}"));
        fs::write(&path, input).expect("the input can be kept");
        path
    })
}

/// Sorted, so that a seed means the same on every machine.
fn corpus(dir: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).expect("the corpus is there").flatten().map(|e| e.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the corpus is empty");
    paths.iter().map(|path| fs::read(path).expect("the corpus can be read")).collect()
}

/// xorshift64*: good enough to choose mutations, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }
}

/// Inputs grow no further than this.
const MOST: usize = 64 << 10;
/// Pieces that parsers stumble over.
const TOKENS: [&[u8]; 16] = [
    b"../",
    b"/",
    b"\0",
    b"ustar",
    b"ustar  \0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\0\0\0\0\0\0\0",
    b"77777777777\0",
    b"00000000000\0",
    b"path=",
    b"30 path=../../outside/file\n",
    b"GNU.sparse.major=1",
    b"\x01\0\0\0",
    b"\0\0\x01\0",
    b"-1",
    b"18446744073709551615",
];

fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let len = data.len();
        let at = random.below(len.max(1)).min(len);
        match random.below(9) {
            0 if len > 0 => data[at] ^= 1 << random.below(8),
            1 if len > 0 => data[at] = random.next() as u8,
            2 => {
                let end = (at + random.below(64)).min(len);
                data.drain(at..end);
            }
            3 => {
                let piece = TOKENS[random.below(TOKENS.len())];
                let end = (at + piece.len()).min(len);
                data.splice(at..end, piece.iter().copied());
            }
            4 => {
                // Whole blocks: entries twice, gone, in another order.
                let from = (random.below(len / 512 + 1)) * 512;
                let piece = data[from.min(len)..(from + 512).min(len)].to_vec();
                let to = (random.below(len / 512 + 1) * 512).min(len);
                data.splice(to..to, piece);
            }
            5 => {
                let from = (random.below(len / 512 + 1) * 512).min(len);
                data.drain(from..(from + 512).min(len));
            }
            6 => {
                let other = &corpus[random.below(corpus.len())];
                let from = (random.below(other.len() / 512 + 1) * 512).min(other.len());
                data.truncate(at / 512 * 512);
                data.extend_from_slice(&other[from..]);
            }
            7 => data.truncate(at),
            // A header's type.
            _ if len >= 512 => {
                let block = random.below(len / 512) * 512;
                data[block + 156] = b"0123456789LKxgSDVM\0"[random.below(19)];
            }
            _ => {}
        }
        data.truncate(MOST);
    }
    data
}
