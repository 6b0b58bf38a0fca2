//! Durations as text, and back.

use std::time::Duration;

/// Text that is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    #[error("not a duration: write it like 30s, 1h30m or 250ms")]
    Grammar,
    #[error("a duration out of range")]
    Range,
}

/// A duration that may be negative: the grammar allows it, most places then refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    pub negative: bool,
    pub magnitude: Duration,
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest duration of the peer: 2^63 - 1 nanoseconds, about 292 years.
const MAX_NANOS: u128 = i64::MAX as u128;

/// Parses an optional sign and then one or more number+unit pairs, or the bare `0`.
pub fn parse(text: &str) -> Result<Signed, InvalidDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Signed { negative: false, magnitude: Duration::ZERO });
    }
    if rest.is_empty() {
        return Err(InvalidDuration::Grammar);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (nanos, tail) = pair(rest)?;
        total += nanos;
        if total > MAX_NANOS {
            return Err(InvalidDuration::Range);
        }
        rest = tail;
    }
    let nanos = u64::try_from(total).map_err(|_| InvalidDuration::Range)?;
    Ok(Signed { negative: negative && nanos > 0, magnitude: Duration::from_nanos(nanos) })
}

/// Parses a duration that may not be negative.
pub fn parse_unsigned(text: &str) -> Result<Duration, InvalidDuration> {
    match parse(text)? {
        Signed { negative: false, magnitude } => Ok(magnitude),
        Signed { .. } => Err(InvalidDuration::Range),
    }
}

fn pair(text: &str) -> Result<(u128, &str), InvalidDuration> {
    let digits = |s: &str| s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let whole_len = digits(text);
    let (whole, mut rest) = text.split_at(whole_len);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        let len = digits(after);
        (fraction, rest) = after.split_at(len);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(InvalidDuration::Grammar);
    }
    let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_len);
    let scale = UNITS.iter().find(|(u, _)| *u == unit).ok_or(InvalidDuration::Grammar)?.1;
    let whole: u128 = match whole.trim_start_matches('0') {
        "" => 0,
        w if w.len() > 19 => return Err(InvalidDuration::Range),
        w => w.parse().map_err(|_| InvalidDuration::Range)?,
    };
    let mut nanos = whole * u128::from(scale);
    let mut place = u128::from(scale);
    for digit in fraction.bytes() {
        place /= 10;
        nanos += u128::from(digit - b'0') * place;
    }
    Ok((nanos, rest))
}

/// Writes a duration so that [`parse`] reads the same one: `0s`, `127.345ms`, `1h0m2.5s`.
pub fn format(d: Duration) -> String {
    let nanos = d.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return with_fraction(nanos, 1_000, "\u{b5}s");
    }
    if nanos < 1_000_000_000 {
        return with_fraction(nanos, 1_000_000, "ms");
    }
    let minutes = d.as_secs() / 60;
    let seconds = with_fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

fn with_fraction(nanos: u128, unit: u128, name: &str) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return format!("{whole}{name}");
    }
    let width = unit.ilog10() as usize;
    let fraction = format!("{rest:0width$}");
    format!("{whole}.{}{name}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_grammar() {
        let ok = |t: &str| parse(t).unwrap().magnitude;
        assert_eq!(ok("30s"), Duration::from_secs(30));
        assert_eq!(ok("1h30m"), Duration::from_secs(5400));
        assert_eq!(ok("1.5h"), Duration::from_secs(5400));
        assert_eq!(ok("250ms"), Duration::from_millis(250));
        assert_eq!(ok(".5s"), Duration::from_millis(500));
        assert_eq!(ok("0"), Duration::ZERO);
        assert_eq!(ok("2\u{3bc}s"), Duration::from_micros(2));
        assert!(parse("-5m").unwrap().negative);
        assert!(!parse("-0s").unwrap().negative);
        for bad in ["", "-", "soon", "30", "1d", "s", ".", ".s", "1h 2m", "1..5s", "1h30", "+"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("9999999999h"), Err(InvalidDuration::Range));
        assert!(parse(&format!("{}h", "9".repeat(400))).is_err());
    }

    #[test]
    fn writes_as_the_peer_does() {
        let text = |s: &str| format(parse(s).unwrap().magnitude);
        for same in ["0s", "127.345ms", "1m0s", "24h0m0s", "1h0m2.5s", "7ns", "1.5\u{b5}s"] {
            assert_eq!(text(same), same);
        }
        assert_eq!(text("90s"), "1m30s");
    }
}
