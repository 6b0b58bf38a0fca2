//! Checksums of content: `Repr-Digest` and the older `Digest`, SHA-256 only.

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use types::Fault;

const REPR: &str = "repr-digest";
const CONTENT: &str = "content-digest";
const OLD: &str = "digest";
const WANT_REPR: &str = "want-repr-digest";
const WANT_OLD: &str = "want-digest";
/// Longest header that is looked at.
const LONGEST: usize = 1024;

pub(crate) type Sum = [u8; 32];

/// What an upload says that its content has. A checksum that cannot be checked is refused: whoever
/// sends one relies on it.
pub(crate) fn promised(headers: &HeaderMap) -> Result<Option<Sum>, Fault> {
    let mut found = None;
    for name in [REPR, CONTENT, OLD] {
        for value in headers.get_all(name) {
            let sum = parse(value).ok_or_else(|| unreadable(name))?;
            if found.replace(sum).is_some_and(|before| before != sum) {
                return Err(Fault::bad_request("two checksums that differ"));
            }
        }
    }
    Ok(found)
}

fn unreadable(name: &str) -> Fault {
    Fault::bad_request(format!("{name} has to be sha-256=:BASE64: (or SHA-256=BASE64)"))
}

/// One member of a list of checksums by algorithm.
fn parse(value: &HeaderValue) -> Option<Sum> {
    let text = value.to_str().ok().filter(|t| t.len() <= LONGEST)?;
    let ours = |member: &str| {
        let (algorithm, sum) = member.trim().split_once('=')?;
        algorithm.trim().eq_ignore_ascii_case("sha-256").then(|| sum.trim().to_owned())
    };
    let sum = text.split(',').find_map(ours)?;
    let bare = sum.strip_prefix(':').and_then(|s| s.strip_suffix(':')).unwrap_or(&sum);
    BASE64.decode(bare.as_bytes()).ok()?.try_into().ok()
}

/// Which of the headers a download asks for.
pub(crate) fn wanted(headers: &HeaderMap) -> Vec<&'static str> {
    let asks = |name: &str| {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|member| {
            let name = member.split(['=', ';']).next().unwrap_or_default();
            let refused = member.trim_end().ends_with("=0");
            name.trim().eq_ignore_ascii_case("sha-256") && !refused
        })
    };
    [(WANT_REPR, REPR), (WANT_OLD, OLD)]
        .into_iter()
        .filter_map(|(asked, answered)| asks(asked).then_some(answered))
        .collect()
}

/// The header that tells a checksum.
pub(crate) fn told(name: &'static str, sum: &Sum) -> (HeaderName, HeaderValue) {
    let sum = BASE64.encode(sum);
    let text = if name == OLD { format!("SHA-256={sum}") } else { format!("sha-256=:{sum}:") };
    let value = HeaderValue::from_str(&text).expect("base64 is ASCII");
    (HeaderName::from_static(name), value)
}

/// A checksum as it grows.
#[derive(Default)]
pub(crate) struct Summing(Sha256);

impl Summing {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn sum(self) -> Sum {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of nothing.
    const EMPTY: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        [(HeaderName::from_static(name), value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn both_forms_are_read_and_told() {
        let sum = Summing::default().sum();
        for (name, value) in [
            (REPR, format!("sha-256=:{EMPTY}:")),
            (CONTENT, format!("sha-512=:AAAA:, SHA-256=:{EMPTY}:")),
            (OLD, format!("SHA-256={EMPTY}")),
            (OLD, format!("md5=AAAA,sha-256={EMPTY}")),
        ] {
            assert_eq!(promised(&headers(name, &value)).unwrap(), Some(sum), "{name}: {value}");
        }
        assert_eq!(promised(&HeaderMap::new()).unwrap(), None);
        for bad in ["", "sha-256", "sha-256=:AAAA:", "md5=AAAA", "sha-256=:!:"] {
            assert!(promised(&headers(REPR, bad)).is_err(), "{bad}");
        }
        let mut two = headers(REPR, &format!("sha-256=:{EMPTY}:"));
        two.insert(OLD, format!("sha-256={}", BASE64.encode(&[1; 32])).parse().unwrap());
        assert!(promised(&two).is_err());
        for name in [REPR, OLD] {
            let (name, value) = told(name, &sum);
            let again: HeaderMap = [(name, value)].into_iter().collect();
            assert_eq!(promised(&again).unwrap(), Some(sum));
        }
    }

    #[test]
    fn a_download_says_which_it_wants() {
        assert_eq!(wanted(&headers(WANT_REPR, "sha-512=3, sha-256=10")), [REPR]);
        assert_eq!(wanted(&headers(WANT_OLD, "SHA-256;q=0.5")), [OLD]);
        for none in ["sha-512", "sha-256=0", ""] {
            assert!(wanted(&headers(WANT_REPR, none)).is_empty(), "{none}");
        }
    }
}
