//! The one way in which answers become JSON.

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

use super::escape;

/// The value and a newline.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Careful::default());
    value.serialize(&mut serializer).expect("answers have string keys and are written to memory");
    out.push(b'\n');
    out
}

#[derive(Default)]
struct Careful {
    scratch: Vec<u8>,
}

impl Formatter for Careful {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.scratch.clear();
        escape(fragment, &mut self.scratch);
        writer.write_all(&self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::write;

    #[test]
    fn keys_and_values_are_escaped() {
        let text = write(&serde_json::json!({"a<": ["\u{2029}&\u{85}\n", 1.5, null, true]}));
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "{\"a\\u003c\":[\"\\u2029\\u0026\\u0085\\n\",1.5,null,true]}\n"
        );
    }
}
