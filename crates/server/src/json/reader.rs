//! Bodies of requests: exactly one JSON object, keys in any case, unknown ones ignored.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess,
    Visitor,
};
use types::Fault;

/// Reads a body into a struct with named fields.
///
/// What is wrong is said by place and field; the input itself is never repeated.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    let field = Cell::new(None);
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = T::deserialize(Folding { json: &mut json, field: &field })
        .and_then(|value| json.end().map(|()| value));
    value.map_err(|e| Fault::bad_request(explain(&e, field.get())))
}

fn explain(e: &serde_json::Error, field: Option<&'static str>) -> String {
    use serde_json::error::Category;
    match (e.classify(), field) {
        (Category::Data, Some(field)) => {
            format!("the field {field} has the wrong type, or is there twice")
        }
        (Category::Data, None) => "the body has to be one JSON object".to_owned(),
        (Category::Syntax | Category::Eof | Category::Io, _) => {
            format!("the body is not one JSON object: line {}, column {}", e.line(), e.column())
        }
    }
}

/// Deserializes a struct from a JSON object whose keys are matched without regard to case.
struct Folding<'a, 'de> {
    json: &'a mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>,
    field: &'a Cell<Option<&'static str>>,
}

impl<'de> Deserializer<'de> for Folding<'_, 'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("bodies are structs"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.json.deserialize_map(ObjectOnly { visitor, fields, field: self.field })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct ObjectOnly<'a, V> {
    visitor: V,
    fields: &'static [&'static str],
    field: &'a Cell<Option<&'static str>>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for ObjectOnly<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let keys = Keys { map, fields: self.fields, field: self.field, seen: 0 };
        self.visitor.visit_map(keys)
    }
}

struct Keys<'a, A> {
    map: A,
    fields: &'static [&'static str],
    field: &'a Cell<Option<&'static str>>,
    /// One bit a field: two keys for one field would let two readers see different things.
    seen: u64,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Keys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.field.set(None);
        while let Some(key) = self.map.next_key::<Cow<'de, str>>()? {
            let known = self.fields.iter().position(|f| f.eq_ignore_ascii_case(&key));
            let Some(index) = known else {
                self.map.next_value::<IgnoredAny>()?;
                continue;
            };
            let name = self.fields[index];
            self.field.set(Some(name));
            let bit = 1u64.checked_shl(index as u32).unwrap_or(0);
            if self.seen & bit != 0 {
                return Err(A::Error::duplicate_field(name));
            }
            self.seen |= bit;
            return seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use types::api::SpawnRequest;

    use super::*;

    fn spawn(body: &str) -> Result<SpawnRequest, String> {
        read(body.as_bytes()).map_err(|f| f.message)
    }

    #[test]
    fn keys_fold_nulls_vanish_and_strangers_are_ignored() {
        let body =
            r#" {"IMAGE":"x","Memory_MB":300,"ttl":null,"deep":{"x":[1]},"metadata":{"A":"b"}} "#;
        let read = spawn(body).unwrap();
        assert_eq!(read.image.as_deref(), Some("x"));
        assert_eq!(read.memory_mb, Some(300));
        assert_eq!(read.ttl, None);
        assert_eq!(read.metadata.unwrap().get("A").map(String::as_str), Some("b"));
    }

    #[test]
    fn a_body_is_exactly_one_object() {
        for bad in
            ["", "null", "[]", "\"x\"", "1", "nonsense", "{\"image\":", "{}{}", "{} x", "{}\0"]
        {
            assert!(spawn(bad).is_err(), "{bad:?}");
        }
        assert!(spawn("{}").is_ok() && spawn("\n{ }\r\n").is_ok());
    }

    #[test]
    fn bug_2_two_keys_for_one_field_are_refused() {
        assert!(spawn(r#"{"image":"a","IMAGE":"b"}"#).is_err());
        assert!(spawn(r#"{"image":"a","image":"b"}"#).is_err());
        assert!(spawn(r#"{"x":1,"X":2}"#).is_ok());
    }

    #[test]
    fn complaints_name_the_field_and_never_echo() {
        let long = format!(r#"{{"memory_mb":"{}"}}"#, "a".repeat(100_000));
        let message = spawn(&long).unwrap_err();
        assert!(message.contains("memory_mb") && message.len() < 200, "{message}");
        let message = spawn(r#"{"metadata":{"n":1}}"#).unwrap_err();
        assert!(message.contains("metadata"), "{message}");
        assert!(spawn(r#"{"metadata":[]}"#).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!(r#"{{"metadata":{}}}"#, "[".repeat(1_000_000));
        assert!(spawn(&deep).is_err());
        let deep = format!(r#"{{"unknown":{}{}}}"#, "[".repeat(500_000), "]".repeat(500_000));
        let _ = spawn(&deep); // must only not overflow the stack
    }
}
