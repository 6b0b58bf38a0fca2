//! Messages of the exec WebSocket: any text is understood or refused, and what is understood as a
//! first message is one JSON object.

pub fn session_words(data: &[u8]) {
    let first = server::parses(true, data);
    let later = server::parses(false, data);
    if first {
        assert!(later, "a first message has the fields of a later one");
    }
    let object = data.trim_ascii_start().first() == Some(&b'{');
    assert!(object || !(first || later), "only an object is a message");
}
