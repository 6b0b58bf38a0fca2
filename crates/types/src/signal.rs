//! Signals by name and number, as Linux counts them.

const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// Real-time signals have numbers only.
const MAX: i32 = 64;

/// The signal that cannot be caught.
pub const KILL: i32 = 9;

/// A name, with or without `SIG`, in any case, or a number.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number).filter(|n| (1..=MAX).contains(n));
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name without `SIG`; the number of one that has none.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => (*name).to_owned(),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(parse("TERM"), Some(15));
        assert_eq!(parse("sigkill"), Some(KILL));
        assert_eq!(parse("64"), Some(64));
        for bad in ["", "0", "65", "-9", "SIG", "NONE"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for number in 1..=MAX {
            assert_eq!(parse(&name(number)), Some(number));
        }
    }
}
