//! Pages of lists: `?limit=&cursor=`, and `X-Next-Cursor` where there is more.

use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderName, HeaderValue};
use types::Fault;

use crate::query::Query;

const NEXT: HeaderName = HeaderName::from_static("x-next-cursor");
/// Entries of one page at most; as many as where only a cursor is given.
pub(crate) const MOST: u32 = 1000;
/// A cursor holds a path at most.
const LONGEST: usize = 8192;

/// What of a list is asked for. Without a limit: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub limit: Option<u32>,
    /// The place behind which the page begins, as [`put_next`] was told it.
    pub after: Option<String>,
}

impl Page {
    pub fn parse(query: &Query) -> Result<Self, Fault> {
        let limit = query.get("limit").map(limit).transpose()?;
        let after = query.get("cursor").filter(|c| !c.is_empty()).map(decoded).transpose()?;
        Ok(Self { limit: limit.or(after.as_ref().map(|_| MOST)), after })
    }

    /// The page of a list that is sorted by `place`, and the place of its last entry if more follow.
    pub fn of<T>(&self, list: Vec<T>, place: impl Fn(&T) -> &str) -> (Vec<T>, Option<String>) {
        let beyond = |item: &T| self.after.as_deref().is_none_or(|after| place(item) > after);
        let mut rest = list.into_iter().filter(beyond);
        let Some(limit) = self.limit else { return (rest.collect(), None) };
        let page: Vec<_> = rest.by_ref().take(limit as usize).collect();
        let next = match (rest.next(), page.last()) {
            (Some(_), Some(last)) => Some(place(last).to_owned()),
            _ => None,
        };
        (page, next)
    }
}

fn limit(text: &str) -> Result<u32, Fault> {
    let number = text.parse().ok().filter(|n| (1..=MOST).contains(n));
    number.ok_or_else(|| Fault::bad_request(format!("limit is a number from 1 to {MOST}")))
}

fn decoded(cursor: &str) -> Result<String, Fault> {
    let bytes = (cursor.len() <= LONGEST).then(|| BASE64URL_NOPAD.decode(cursor.as_bytes()).ok());
    let text = bytes.flatten().and_then(|b| String::from_utf8(b).ok());
    text.ok_or_else(|| Fault::bad_request("the cursor is none that was given out"))
}

/// Says where the next page begins. `None`: there is none.
pub(crate) fn put_next(response: &mut Response, place: Option<&str>) {
    if let Some(place) = place {
        let cursor = BASE64URL_NOPAD.encode(place.as_bytes());
        let value = HeaderValue::from_str(&cursor).expect("base64 is ASCII");
        response.headers_mut().insert(NEXT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Page, Fault> {
        Page::parse(&Query::parse(Some(query)).unwrap())
    }

    #[test]
    fn pages_are_bounded_and_cursors_are_ours() {
        assert_eq!(parse("").unwrap(), Page::default());
        assert_eq!(parse("limit=5&cursor=").unwrap().limit, Some(5));
        let from_a = Page { limit: Some(MOST), after: Some("a".into()) };
        assert_eq!(parse("cursor=YQ").unwrap(), from_a);
        for bad in
            ["limit=", "limit=0", "limit=-1", "limit=1001", "limit=x", "cursor=%25", "cursor=_w"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&format!("cursor={}", "a".repeat(LONGEST + 4))).is_err());
    }

    #[test]
    fn a_sorted_list_comes_in_pages() {
        let names = ["a", "b", "c", "d", "e"];
        for limit in 1..=6 {
            let mut page = Page { limit: Some(limit), after: None };
            let mut seen = Vec::new();
            loop {
                let (part, next) = page.of(names.to_vec(), |name| name);
                assert!(part.len() <= limit as usize);
                seen.extend(part);
                page.after = next;
                if page.after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, names, "by {limit}");
        }
        let all = Page::default().of(names.to_vec(), |name| name);
        assert_eq!(all, (names.to_vec(), None));
    }
}
