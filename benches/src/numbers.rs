//! Samples, and how they are written.

use std::time::Duration;

/// Durations of the same thing, done many times.
#[derive(Default, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub fn extend(&mut self, more: Samples) {
        self.0.extend(more.0);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that `per_cent` of the samples do not exceed.
    pub fn percentile(&self, per_cent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    pub fn p50(&self) -> Duration {
        self.percentile(50)
    }

    pub fn p99(&self) -> Duration {
        self.percentile(99)
    }

    /// `p50 / p99 ms`.
    pub fn text(&self) -> String {
        format!("{} / {} ms", ms(self.p50()), ms(self.p99()))
    }
}

pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        x if x < 10.0 => format!("{x:.2}"),
        x if x < 100.0 => format!("{x:.1}"),
        x => format!("{x:.0}"),
    }
}

/// How many times longer `theirs` takes.
pub fn times(ours: Duration, theirs: Duration) -> String {
    factor(theirs.as_secs_f64() / ours.as_secs_f64().max(1e-9))
}

pub fn factor(x: f64) -> String {
    if x < 10.0 { format!("{x:.1}×") } else { format!("{x:.0}×") }
}

/// `12,345`
pub fn thousands(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_and_numbers_are_readable() {
        let mut samples = Samples::default();
        (1..=200).rev().for_each(|n| samples.add(Duration::from_micros(n * 1000)));
        assert_eq!(samples.text(), "100 / 198 ms");
        assert_eq!(Samples::default().p99(), Duration::ZERO);
        assert_eq!(thousands(1_234_567.2), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(times(Duration::from_millis(2), Duration::from_millis(9)), "4.5×");
    }
}
