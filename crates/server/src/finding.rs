//! Which sandboxes a query means: `?state=&provider=&metadata.KEY=VALUE`, and the place of one in
//! their list.

use control::Finding;
use types::{Fault, Sandbox, SandboxId, SandboxState, Timestamp};

use crate::query::Query;

/// Entries of metadata that one query may name.
const MOST_LABELS: usize = 16;

pub(crate) fn parse(query: &Query) -> Result<Finding, Fault> {
    let state = query.get("state").filter(|s| !s.is_empty()).map(|word| {
        SandboxState::parse(word).ok_or_else(|| {
            let all = SandboxState::ALL.map(SandboxState::as_str).join(", ");
            Fault::bad_request(format!("state is one of {all}"))
        })
    });
    let labels = query.below("metadata.");
    if labels.len() > MOST_LABELS {
        let text = format!("at most {MOST_LABELS} entries of metadata can be asked for");
        return Err(Fault::bad_request(text));
    }
    let provider = query.get("provider").filter(|p| !p.is_empty());
    Ok(Finding { state: state.transpose()?, provider: provider.map(str::to_owned), labels })
}

/// The place of a sandbox in a list, for a cursor.
pub(crate) fn place(sandbox: &Sandbox) -> String {
    format!("{}.{}", sandbox.created_at.unix_nanos(), sandbox.id)
}

pub(crate) fn placed(text: &str) -> Result<(Timestamp, SandboxId), Fault> {
    let parts = text.split_once('.').and_then(|(nanos, id)| {
        Some((Timestamp::from_unix_nanos(nanos.parse().ok()?), SandboxId::parse(id).ok()?))
    });
    parts.ok_or_else(|| Fault::bad_request("the cursor is of another list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_or_refused() {
        let read = |text: &str| parse(&Query::parse(Some(text)).unwrap());
        let full = read("state=error&provider=mock&metadata.a=b%20c&metadata.=&metadata.x.y=1");
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(
            full.unwrap(),
            Finding {
                state: Some(SandboxState::Error),
                provider: Some("mock".to_owned()),
                labels: vec![pair("a", "b c"), pair("", ""), pair("x.y", "1")],
            }
        );
        assert_eq!(read("state=&provider=&limit=3").unwrap(), Finding::default());
        assert!(read("state=asleep").is_err());
        assert!(read(&"metadata.a=b&".repeat(MOST_LABELS + 1)).is_err());
    }

    #[test]
    fn a_place_comes_back() {
        let id = SandboxId::parse("sb-1").unwrap();
        assert_eq!(placed("-7.sb-1").unwrap(), (Timestamp::from_unix_nanos(-7), id));
        for bad in ["", "7", "x.sb-1", "7.SB", "7."] {
            assert!(placed(bad).is_err(), "{bad}");
        }
    }
}
