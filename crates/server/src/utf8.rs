//! Joins bytes that arrive in pieces into text, without cutting a character in two.

/// Stands for bytes that are no UTF-8.
const REPLACEMENT: &str = "\u{fffd}";

/// One per stream of output. Holds at most three bytes: the beginning of a character.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    held: [u8; 4],
    len: usize,
}

impl Joiner {
    /// Hands `out` the text of `bytes`, piece by piece. An unfinished character at the end waits
    /// for the next call; what can't be a character becomes U+FFFD.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut impl FnMut(&str)) {
        while self.len > 0 {
            let Some((first, rest)) = bytes.split_first() else { return };
            self.held[self.len] = *first;
            match std::str::from_utf8(&self.held[..=self.len]) {
                Ok(text) => {
                    out(text);
                    self.len = 0;
                    bytes = rest;
                }
                Err(e) if e.error_len().is_none() => {
                    self.len += 1;
                    bytes = rest;
                }
                // The new byte does not go on with what is held: it begins something itself.
                Err(_) => self.finish(out),
            }
        }
        while !bytes.is_empty() {
            match std::str::from_utf8(bytes) {
                Ok(text) => return out(text),
                Err(e) => {
                    let (valid, rest) = bytes.split_at(e.valid_up_to());
                    if let Ok(text) = std::str::from_utf8(valid)
                        && !text.is_empty()
                    {
                        out(text);
                    }
                    let Some(skip) = e.error_len() else { return self.hold(rest) };
                    out(REPLACEMENT);
                    bytes = &rest[skip..];
                }
            }
        }
    }

    /// The stream is over: what is held will never be a character.
    pub fn finish(&mut self, out: &mut impl FnMut(&str)) {
        if self.len > 0 {
            self.len = 0;
            out(REPLACEMENT);
        }
    }

    fn hold(&mut self, rest: &[u8]) {
        self.held[..rest.len()].copy_from_slice(rest);
        self.len = rest.len();
    }
}

/// Text of a whole output. If it was cut short, a character cut in two is left out.
pub(crate) fn whole(bytes: Vec<u8>, truncated: bool) -> String {
    if !truncated {
        return String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    }
    let mut text = String::with_capacity(bytes.len());
    Joiner::default().push(&bytes, &mut |piece| text.push_str(piece));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pieces: &[&[u8]]) -> String {
        let mut joiner = Joiner::default();
        let mut text = String::new();
        for piece in pieces {
            joiner.push(piece, &mut |t| text.push_str(t));
        }
        joiner.finish(&mut |t| text.push_str(t));
        text
    }

    #[test]
    fn bug_26_a_character_split_over_reads_arrives_whole() {
        let text = "h\u{e9}llo \u{2028} \u{1f600} \u{10ffff}";
        let bytes = text.as_bytes();
        for cut in 0..=bytes.len() {
            for second in cut..=bytes.len() {
                let pieces = [&bytes[..cut], &bytes[cut..second], &bytes[second..]];
                assert_eq!(joined(&pieces), text, "{cut} {second}");
            }
        }
    }

    #[test]
    fn pieces_never_change_what_is_replaced() {
        let bytes = b"a\xff\xfeok\xe2\x82x\xf0\x9f\x98\xed\xa0\x80\xc3\xc3\xa9\xe2";
        let want = String::from_utf8_lossy(bytes);
        for cut in 0..=bytes.len() {
            for second in cut..=bytes.len() {
                let pieces = [&bytes[..cut], &bytes[cut..second], &bytes[second..]];
                assert_eq!(joined(&pieces), want, "{cut} {second}");
            }
        }
    }

    #[test]
    fn a_cut_output_does_not_end_in_half_a_character() {
        assert_eq!(whole(b"ab\xe2\x82".to_vec(), true), "ab");
        assert_eq!(whole(b"ab\xe2\x82".to_vec(), false), "ab\u{fffd}");
    }
}
