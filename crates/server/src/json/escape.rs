//! Text inside JSON strings, fit for clients that split lines at every Unicode line break.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes looked at together; compilers turn the test of a block into vector instructions.
const BLOCK: usize = 32;

/// Whether a byte, or what may begin with it, has to be escaped: C0 controls, the two of JSON,
/// `<`, `>`, `&`, and the first bytes of U+0085 and of U+2028 and U+2029.
#[inline]
const fn suspicious(b: u8) -> bool {
    (b < 0x20)
        | (b == b'"')
        | (b == b'\\')
        | (b == b'<')
        | (b == b'>')
        | (b == b'&')
        | (b == 0xc2)
        | (b == 0xe2)
}

/// [`suspicious`] of every byte: one look where bytes are taken one by one.
static SUSPICIOUS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = suspicious(byte as u8);
        byte += 1;
    }
    table
};

/// Appends `text` as the inside of a JSON string.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    // Most text needs little more room than it has; newlines need one byte each.
    out.reserve(bytes.len() + bytes.len() / 16);
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() {
        at = next_suspicious(bytes, at);
        let Some(&byte) = bytes.get(at) else { break };
        let after = bytes.get(at + 1..).unwrap_or_default();
        let (len, code) = match (byte, after) {
            (0xc2, [0x85, ..]) => (2, 0x85),
            (0xe2, [0x80, last @ (0xa8 | 0xa9), ..]) => (3, 0x2000 + u16::from(last - 0x80)),
            (0xc2 | 0xe2, _) => {
                at += 1;
                continue;
            }
            (byte, _) => (1, u16::from(byte)),
        };
        out.extend_from_slice(&bytes[start..at]);
        push_escape(code, out);
        at += len;
        start = at;
    }
    out.extend_from_slice(&bytes[start..]);
}

/// Where the next byte is that has to be looked at; the length if there is none.
fn next_suspicious(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = bytes.get(at..at + BLOCK) {
        if block.iter().fold(false, |any, &b| any | suspicious(b)) {
            break;
        }
        at += BLOCK;
    }
    bytes[at..].iter().position(|&b| SUSPICIOUS[usize::from(b)]).map_or(bytes.len(), |n| at + n)
}

fn push_escape(code: u16, out: &mut Vec<u8>) {
    let short = match code {
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        0x22 => b'"',
        0x5c => b'\\',
        _ => {
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| HEX[usize::from((code >> shift) & 0xf)]));
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::escape;

    fn escaped(text: &str) -> String {
        let mut out = Vec::new();
        escape(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_breaks_a_line() {
        let all: String =
            (0..=0x2100u32).chain(0x1f600..0x1f650).filter_map(char::from_u32).collect();
        let text = escaped(&all);
        assert!(text.chars().all(|c| {
            c >= ' ' && !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '<' | '>' | '&')
        }));
        let back: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        assert_eq!(back, all);
    }

    #[test]
    fn writes_short_forms() {
        assert_eq!(
            escaped("a\"\\\n\t\u{1}<\u{2028}\u{85}\u{a0}"),
            "a\\\"\\\\\\n\\t\\u0001\\u003c\\u2028\\u0085\u{a0}"
        );
    }

    #[test]
    fn every_place_in_a_block_is_seen() {
        for at in 0..100 {
            let mut text = "x".repeat(100);
            text.replace_range(at..=at, "\n");
            assert_eq!(escaped(&text), text.replace('\n', "\\n"), "{at}");
        }
    }
}
