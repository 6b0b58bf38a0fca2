//! The id by which a request is found in the log.

use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Ids go into log lines and back to the client, so they are kept short and printable.
const MAX_LEN: usize = 128;

/// The caller's own id, or a new one (UUID v4).
pub(crate) fn choose(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(HEADER).filter(|v| {
        let bytes = v.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_LEN && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(random)
}

fn random() -> HeaderValue {
    let mut bytes = [0; 16];
    // The id only has to be unlike others: without randomness all zeroes will do.
    let _ = getrandom::fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    let text =
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    HeaderValue::from_str(&text).expect("hex and dashes are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tame_ids_are_echoed() {
        let with = |v: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(v).unwrap());
            choose(&headers).as_bytes().to_vec()
        };
        assert_eq!(with(b"my-request-1"), b"my-request-1");
        for wild in [&b"a b"[..], b"", b"\xff", &[b'x'; 129]] {
            let made = with(wild);
            assert_eq!(made.len(), 36);
            assert_eq!(made[14], b'4');
        }
    }
}
