//! Query strings.

use percent_encoding::percent_decode_str;
use types::Fault;

/// The pairs of a query, decoded.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(raw: Option<&str>) -> Result<Self, Fault> {
        let pairs = raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        Ok(Self(decoded.collect::<Result<_, Fault>>()?))
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The pairs whose key begins so, with the rest of the key.
    pub fn below(&self, prefix: &str) -> Vec<(String, String)> {
        let below = |(key, value): &(String, String)| {
            Some((key.strip_prefix(prefix)?.to_owned(), value.clone()))
        };
        self.0.iter().filter_map(below).collect()
    }

    /// A value that must be there and not blank.
    pub fn require(&self, key: &str) -> Result<String, Fault> {
        match self.get(key) {
            Some(value) if !value.trim().is_empty() => Ok(value.to_owned()),
            Some(_) | None => Err(Fault::bad_request(format!("the query needs {key}"))),
        }
    }
}

/// Strict about UTF-8: a replaced character would name another file than the one meant.
fn decode(text: &str) -> Result<String, Fault> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(|t| t.into_owned())
        .map_err(|_| Fault::bad_request("the query is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_as_forms_do() {
        let q = Query::parse(Some("path=/a%20b+c%2B&x&path=/second&%70=1")).unwrap();
        assert_eq!(q.get("path"), Some("/a b c+"));
        assert_eq!(q.get("x"), Some(""));
        assert_eq!(q.get("p"), Some("1"));
        assert!(q.require("x").is_err() && q.require("none").is_err());
        assert!(Query::parse(Some("path=%ff")).is_err());
        assert!(Query::parse(None).unwrap().get("path").is_none());
    }
}
